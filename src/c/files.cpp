// The C interface: where files go and where they lie.
#include <string>

#include "c/options.h"
#include "c/result.h"
#include "onnx2nn/onnx2nn.h"
#include "output_paths.h"

using onnx2nn::c::made;
using onnx2nn::c::require;
using onnx2nn::c::say;

namespace {

std::string text_of(const char* text) { return text == nullptr ? std::string() : std::string(text); }

}  // namespace

extern "C" {

onnx2nn_status onnx2nn_output_paths(const char* model, const char* out, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const onnx2nn::OutputPaths paths = onnx2nn::output_paths(text_of(model), text_of(out));
    r.said["source"] = paths.source;
    r.said["weights"] = paths.weights;
    say(r, {});
  });
}

onnx2nn_status onnx2nn_simplified_path(const char* model, const char* out, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(model, "model");
    r.said["path"] = onnx2nn::simplified_path(model, text_of(out));
    say(r, {});
  });
}

onnx2nn_status onnx2nn_check_outputs(const char* model, const char* options, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const onnx2nn::c::FileOptions o = onnx2nn::c::file_options(options);
    say(r, onnx2nn::check_outputs(text_of(model), o.paths, o.force));
  });
}

onnx2nn_status onnx2nn_publish_file(const char* made_file, const char* path, const char* model,
                                    const char* options, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(made_file, "made");
    require(path, "path");
    const onnx2nn::c::FileOptions o = onnx2nn::c::file_options(options);
    say(r, onnx2nn::publish_file(made_file, path, text_of(model), o.force));
  });
}

onnx2nn_status onnx2nn_external_files(const char* model, const char* options, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const onnx2nn::c::FileOptions o = onnx2nn::c::file_options(options);
    r.said["files"] = onnx2nn::external_files(text_of(model), o.locations, o.data_roots);
    say(r, {});
  });
}

}  // extern "C"
