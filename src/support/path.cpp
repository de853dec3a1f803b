#include "support/path.h"

namespace onnx2nn {

std::string file_name_of(std::string_view path) { return path_text(to_path(path).filename()); }

std::string stem_of(std::string_view path) { return path_text(to_path(path).stem()); }

std::string suffix_of(std::string_view path) { return path_text(to_path(path).extension()); }

}  // namespace onnx2nn
