// What torch says in one call and ONNX in several operators. Rules make these nodes for conversion;
// no file can name them, since find_op does not know them.
#pragma once

#include <string_view>

#include "ops/op.h"

namespace onnx2nn::ops {

/// The domain that such nodes have.
inline constexpr std::string_view kTorchDomain = "torch";

/// The row of a form, which is there:
///   ScaledDotProductAttention(q, k, v, mask?) <scale, is_causal, enable_gqa>
///   Unbind(x) <axis>                   one output for each element of the axis
///   Roll(x) <shifts, axes>
///   KeepIf(condition, x, ...) <axis, negated>
///                                      each x if the condition holds, else nothing of it along the axis
///   Normalize(x) <axis, epsilon>       x / max(its 2-norm along the axis, epsilon)
const OpDef& torch_form(std::string_view type);

}  // namespace onnx2nn::ops
