// Options of the C interface: JSON objects, checked name by name.
#pragma once

#include "onnx2nn/convert.h"
#include "onnx2nn/simplify.h"

namespace onnx2nn::c {

/// `json`: an object, or null for none. Throws Error "bad-option", with the name that is wrong.
ConvertOptions convert_options(const char* json);
SimplifyOptions simplify_options(const char* json);

}  // namespace onnx2nn::c
