// com.microsoft: layers of hybrid language models, and tensor operations that torch has natively.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
#include "ops/microsoft.h"
#include "ops/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- states that are carried on

constexpr const char* kCausalConv = "CausalConvWithState";
constexpr const char* kLinearAttention = "LinearAttention";

/// What the operator has beyond ai.onnx's of the same name must be left as it is there.
void lower_causal_conv(LowerContext& c) {
  require_int(c, "ndim", 1);
  require_int(c, "dilation", 1);
  for (const char* name : {"channels_last", "state_window", "state_update_capacity", "state_length",
                           "input_channels", "input_channel_offset"})
    require_int(c, name, 0);
  require_int(c, "state_channels_last", -1);
  lower_like<kCausalConv, 27>(c);
}

void lower_linear_attention(LowerContext& c) {
  require_int(c, "state_window", 0);
  if (c.attr_int("kv_num_heads") > c.attr_int("q_num_heads"))
    c.unsupported("more heads of keys and values than of queries are not supported");
  lower_like<kLinearAttention, 27>(c);
}

// ---------------------------------------------------------------- gates

/// GatedAdd: X + Y * gate. With a projection only CUDA has it, in bfloat16.
void lower_gated_add(LowerContext& c) {
  require_absent(c, 3, "gate_weight");
  c.out(0, aten("add.Tensor", {c.in(0), aten("mul.Tensor", {c.in(1), c.in(2)})}));
}

/// ScaledSiLU: silu of the input times a factor.
void lower_scaled_silu(LowerContext& c) {
  Ex x = c.in(0);
  if (c.has_input(1)) {
    x = aten("mul.Tensor", {x, c.in(1)});
  } else if (const double alpha = c.attr_float("alpha", 1.0); alpha != 1.0) {
    x = aten("mul.Tensor", {x, Ex(alpha)});
  }
  c.ignore_attr("alpha");
  c.out(0, aten("silu", {x}));
}

void lower_gated_rms_norm(LowerContext& c) {
  c.out(0, helper("gated_rms_norm", pass_inputs(c, 0, 3),
                  pass_attributes(c, {{"activation", AttrKind::String},
                                      {"epsilon", AttrKind::Float}})));
}

void infer_linear_attention_gate(InferContext& c) {
  c.set(0, c.type(0));
  c.set(1, c.type(3));
}

/// LinearAttentionGate: decay_scale * softplus(a + dt_bias), and sigmoid(b).
void lower_linear_attention_gate(LowerContext& c) {
  outs_of(c, helper("linear_attention_gate", pass_inputs(c, 0, 4)), 2);
}

// ---------------------------------------------------------------- what torch has

/// UnfoldTensor: windows along an axis, each as a new last axis.
void infer_unfold(InferContext& c) {
  const Shape& s = c.shape(0);
  const std::int64_t step = c.attr_int("step", 1);
  const std::int64_t size = c.attr_int("size");
  if (size < 1 || step < 1) c.fail("size and step must be positive");
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  if (s.rank() == 0) c.fail("its input is a scalar");
  Dims out = s.dims();
  Dim& d = out[static_cast<std::size_t>(c.axis(c.attr_int("dim", -1), s.rank()))];
  d = d.known() ? Dim::floor_div(d - Dim(size), Dim(step)) + Dim(1) : Dim();
  out.emplace_back(size);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_unfold(LowerContext& c) {
  c.out(0, aten("unfold", {c.in(0), Ex(c.attr_int("dim", -1)), Ex(c.attr_int("size")),
                           Ex(c.attr_int("step", 1))}));
}

void infer_is_all_finite(InferContext& c) {
  c.set(0, DType::Bool, Shape::of({}));
}

void lower_is_all_finite(LowerContext& c) {
  Args tensors;
  for (std::size_t i = 0; i < c.input_count(); ++i) tensors.push_back(c.in(i));
  c.out(0, helper("is_all_finite", {list(tensors)},
                  pass_attributes(c, {{"isinf_only"}, {"isnan_only"}})));
}

/// NGramRepeatBlock: no token may complete an n-gram that is there already.
void lower_ngram_repeat_block(LowerContext& c) {
  const std::int64_t size = c.attr_int("ngram_size");
  if (size < 1) c.fail("ngram_size must be positive");
  c.out(0, helper("ban_repeated_ngrams", {c.in(1), c.in(0), Ex(size)}));
}

void infer_second(InferContext& c) {
  c.set(0, c.type(1));
}

constexpr OpDef kOps[] = {
    {.type = "CausalConvWithState",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kCausalConv, 27>,
     .lower = lower_causal_conv},
    {.type = "LinearAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kLinearAttention, 27>,
     .lower = lower_linear_attention},
    {.type = "GatedAdd",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_gated_add},
    {.type = "ScaledSiLU",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_scaled_silu},
    {.type = "GatedRMSNorm",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_gated_rms_norm},
    {.type = "LinearAttentionGate",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_linear_attention_gate,
     .lower = lower_linear_attention_gate},
    {.type = "UnfoldTensor",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_unfold,
     .lower = lower_unfold},
    {.type = "IsAllFinite",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_is_all_finite,
     .lower = lower_is_all_finite},
    {.type = "NGramRepeatBlock",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_second,
     .lower = lower_ngram_repeat_block},
};

}  // namespace

std::span<const OpDef> microsoft_hybrid_ops() {
  return kOps;
}

}  // namespace onnx2nn::ops
