// Options of the C interface: JSON objects, checked name by name.
#pragma once

#include <string>
#include <vector>

#include "onnx2nn/convert.h"
#include "onnx2nn/simplify.h"

namespace onnx2nn::c {

/// What is asked about files.
struct FileOptions {
  std::vector<std::string> paths, locations, data_roots;
  bool force = false;
};

struct InspectionOptions {
  ConvertOptions conversion;
  bool convert = true;
  bool nodes = false;
};

/// `json`: an object, or null for none. Throws Error, with the name that is wrong: "bad-type" for a name
/// that there is not or a value of another kind, "bad-value" for one that says nothing.
ConvertOptions convert_options(const char* json);
InspectionOptions inspection_options(const char* json);
SimplifyOptions simplify_options(const char* json);
FileOptions file_options(const char* json);

}  // namespace onnx2nn::c
