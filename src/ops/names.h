// Names of Python, made from those of ONNX.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn::ops {

/// Letters, digits and underscores; never empty, and never a digit first.
std::string to_identifier(std::string_view s);
/// MatMul as mat_mul; an identifier whatever the type is.
std::string snake(std::string_view op_type);

/// Components of a state_dict key, where the name can be one; `of_key`: it is one, or a part of one,
/// by the file's word.
std::optional<std::vector<std::string>> key_components(std::string_view name, bool of_key = false);

/// The name, changed where a module cannot have a member of that name.
std::string member_name(std::string s);
/// Python name stem from an ONNX value's name: "/layer1/conv1/Conv_output_0" gives "conv1".
std::string variable_hint(std::string_view onnx_name, std::string_view op_type);

}  // namespace onnx2nn::ops
