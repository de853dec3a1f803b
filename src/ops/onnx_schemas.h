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

/// What an attribute that a node of this opset does not have stands for: "1", "0.01", "\"NOTSET\"", "[0, 2, 3]", or
/// "each 1" of a list as long as there are axes; empty where that is said nowhere.
std::string_view default_of(std::string_view domain, std::string_view type, std::int64_t opset,
                            std::string_view attribute);

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
