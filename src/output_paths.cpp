#include "output_paths.h"

#include <filesystem>

#include "onnx2nn/convert.h"
#include "support/error.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

namespace fs = std::filesystem;

bool is_folder(const fs::path& path) {
  std::error_code none;
  return !path.has_filename() || fs::is_directory(path, none);
}

}  // namespace

OutputPaths output_paths(const std::string& model, const std::string& out) {
  fs::path path = to_path(out);
  if (out.empty() || is_folder(path)) path /= to_path(module_name(model) + ".py");
  const std::string suffix = to_lower(path_text(path.extension()));
  const auto with = [&](const char* extension) {
    return path_text(fs::path(path).replace_extension(extension));
  };
  if (suffix == ".py") return {path_text(path), with(".safetensors")};
  if (suffix == ".pth" || suffix == ".safetensors") return {with(".py"), path_text(path)};
  if (suffix == ".pt" || suffix == ".pt2" || suffix == ".pte")
    return {path_text(path), path_text(path)};
  fail("bad-option",
       "{}: the output's name ends in .py, .pth, .safetensors, .pt, .pt2 or .pte, or is a folder",
       printable(out));
}

std::string simplified_path(const std::string& model, const std::string& out) {
  fs::path path = to_path(out);
  if (out.empty() || is_folder(path)) path /= to_path(stem_of(model) + "-simple.onnx");
  return path_text(path);
}

void make_folder_of(const std::string& path) {
  const fs::path folder = to_path(path).parent_path();
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_io(printable(path_text(folder)) + ": cannot be made", error.default_error_condition().value());
}

}  // namespace onnx2nn
