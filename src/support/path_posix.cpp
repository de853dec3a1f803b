#include <algorithm>

#include "support/path.h"

namespace onnx2nn {

std::filesystem::path to_path(std::string_view text) { return text; }

std::string path_text(const std::filesystem::path& path) { return path.string(); }

std::size_t name_start(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? 0 : slash + 1;
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}

std::string_view why_no_file_name(std::string_view) { return {}; }

}  // namespace onnx2nn
