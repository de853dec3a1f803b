#include "output_paths.h"

#include <filesystem>

#include "onnx2nn/convert.h"
#include "support/error.h"
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
  fs::path path(out);
  if (out.empty() || is_folder(path)) path /= module_name(model) + ".py";
  const std::string suffix = to_lower(path.extension().string());
  const auto with = [&](const char* extension) {
    return fs::path(path).replace_extension(extension).string();
  };
  if (suffix == ".py") return {path.string(), with(".safetensors")};
  if (suffix == ".pth" || suffix == ".safetensors") return {with(".py"), path.string()};
  if (suffix == ".pt" || suffix == ".pt2" || suffix == ".pte")
    return {path.string(), path.string()};
  fail("bad-option",
       "{}: the output's name ends in .py, .pth, .safetensors, .pt, .pt2 or .pte, or is a folder",
       printable(out));
}

std::string simplified_path(const std::string& model, const std::string& out) {
  fs::path path(out);
  if (out.empty() || is_folder(path)) path /= fs::path(model).stem().string() + "-simple.onnx";
  return path.string();
}

void make_folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_io(printable(folder.string()) + ": cannot be made", error.value());
}

}  // namespace onnx2nn
