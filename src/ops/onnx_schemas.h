// What the schemas of ONNX, and of ONNX Runtime for its own operators, say of a node.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace onnx2nn::ops {

/// Whether any opset of ONNX defines `attribute` for the operator; `known` tells whether ONNX
/// defines the operator at all.
bool defined_by_onnx(std::string_view domain, std::string_view type, std::string_view attribute,
                     bool& known);

/// Which inputs and outputs a node must have, a bit for each of the first 32, and how many it may.
struct Arity {
  std::uint32_t needed_inputs = 0;
  std::uint32_t needed_outputs = 0;
  std::int32_t most_inputs = INT32_MAX;
  std::int32_t most_outputs = INT32_MAX;
};

/// What all revisions of the operator need, and what the widest takes; anything goes where no
/// schema is known.
Arity arity_of(std::string_view domain, std::string_view type);

}  // namespace onnx2nn::ops
