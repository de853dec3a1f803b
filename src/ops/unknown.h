// Operators that the table does not have: the user's own code, or a stub.
#pragma once

#include <string>

#include "ops/lower.h"

namespace onnx2nn::ops {

/// "Add", or "com.example::Scale".
std::string qualified_type(const ir::Node& node);
/// A node that a user's function computes: inputs, then attributes as keywords.
void lower_custom(LowerContext& c, const std::string& function);
/// A call that raises with the operator's name, and holds what there is to know of the node.
void lower_stub(LowerContext& c);

}  // namespace onnx2nn::ops
