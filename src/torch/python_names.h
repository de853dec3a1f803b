// Words that Python keeps for itself.
#pragma once

#include <string_view>

namespace onnx2nn::torch {

/// Keywords, soft ones that start a statement among them.
bool is_python_keyword(std::string_view s);

}  // namespace onnx2nn::torch
