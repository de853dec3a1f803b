// Which attributes ONNX itself defines for an operator.
#pragma once

#include <string>
#include <string_view>

namespace onnx2nn::ops {

/// Whether any opset of ONNX defines `attribute` for the operator; `known` tells whether ONNX
/// defines the operator at all.
bool defined_by_onnx(std::string_view domain, std::string_view type, std::string_view attribute,
                     bool& known);

}  // namespace onnx2nn::ops
