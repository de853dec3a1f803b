// com.microsoft: layers of hybrid language models, and tensor operations that torch has natively.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
#include "ops/microsoft/microsoft.h"
#include "ops/onnx/pass_on.h"
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

// ---------------------------------------------------------------- parallel streams
// [..., branches, width], or flat in one axis where num_branches says how many there are.

constexpr Passed kBranches{"num_branches"};
constexpr Passed kEpsilon{"epsilon", AttrKind::Float};

void check_branches(const NodeContext& c) {
  if (c.attr_int("num_branches", 0) < 0) c.fail("num_branches must not be negative");
}

void lower_branchwise_rms_norm(LowerContext& c) {
  check_branches(c);
  c.out(0, helper("branchwise_rms_norm", pass_inputs(c, 0, 2),
                  pass_attributes(c, {kBranches, kEpsilon})));
}

void infer_pre_mix(InferContext& c) {
  const Shape& s = c.shape(0);
  const std::int64_t branches = c.attr_int("num_branches", 0);
  if (!s.has_rank() || s.rank() < (branches > 0 ? 1U : 2U)) return c.set(0, c.dtype(0));
  Dims out = s.dims();
  if (branches > 0) {
    out.back() = out.back().known() ? Dim::floor_div(out.back(), Dim(branches)) : Dim();
  } else {
    out.erase(out.end() - 2);
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_pre_mix(LowerContext& c) {
  check_branches(c);
  c.out(0, helper("hyper_connection_pre_mix", pass_inputs(c, 0, 2),
                  pass_attributes(c, {kBranches, {"reduction_scale", AttrKind::Float}})));
}

void lower_post_mix(LowerContext& c) {
  check_branches(c);
  c.out(0, helper("hyper_connection_post_mix", pass_inputs(c, 0, 4),
                  pass_attributes(c, {kBranches})));
}

void infer_engram_gate(InferContext& c) {
  c.set(0, c.type(0));
  c.set(1, c.type(0));
}

void lower_engram_gate(LowerContext& c) {
  if (c.has_output(1) && !c.has_input(5)) c.fail("gated_value_normed needs conv_norm_scale");
  outs_of(c, helper("engram_gate", pass_inputs(c, 0, 6), pass_attributes(c, {kEpsilon})), 2);
}

// ---------------------------------------------------------------- experts' router

void infer_group_router(InferContext& c) {
  const Shape& s = c.shape(0);
  Dim tokens(1);
  for (std::size_t i = 0; s.has_rank() && i + 1 < s.rank(); ++i)
    tokens = tokens.known() && s[i].known() ? tokens * s[i] : Dim();
  if (!s.has_rank()) tokens = Dim();
  const Shape out({tokens, dim_of(c.shape(1), 0)});
  c.set(0, c.dtype(0), out);
  c.set(1, DType::Float32, out);
  c.set(2, DType::Float32, out);
}

void lower_group_router(LowerContext& c) {
  const Kwargs kw = pass_attributes(c, {{"top_k"},
                                        {"n_group"},
                                        {"topk_group"},
                                        {"group_topk"},
                                        {"router_sentinel", AttrKind::Float}});
  for (const char* name : {"n_group", "topk_group", "group_topk"})
    if (c.attr_int(name, 1) < 1)
      c.fail("the attribute \"" + std::string(name) + "\" must be positive");
  if (c.attr_int("top_k") < 1) c.fail("top_k must be positive");
  if (c.has_output(0)) {
    require_absent(c, 2, "projection_weight");
    if (c.has_output(1) || c.has_output(2))
      c.fail("router_probs goes with neither selection_scores nor router_weights");
    return c.out(0, helper("moe_group_router", {c.in(0), c.in(1)}, kw));
  }
  const auto scores =
      c.lets(helper("moe_router_scores", pass_inputs(c, 0, 3)), {"selection", "weights"});
  c.out(1, scores[0]);
  c.out(2, scores[1]);
}

// ---------------------------------------------------------------- hashed n-grams

constexpr Passed kNgram{"max_ngram_size"};
constexpr Passed kNgramHeads{"n_head_per_ngram"};
constexpr Passed kPadId{"pad_id"};
constexpr Passed kResetOnEos{"reset_on_eos"};
constexpr Passed kCapacity{"state_update_capacity"};

std::int64_t ngram_history(const NodeContext& c) {
  const std::int64_t size = c.attr_int("max_ngram_size");
  constexpr std::int64_t kMost = 1 << 16;
  if (size < 2 || size > kMost) c.fail("max_ngram_size must be at least 2");
  return size - 1;
}

Dim ngram_heads(const NodeContext& c) {
  const std::int64_t heads = c.attr_int("n_head_per_ngram");
  constexpr std::int64_t kMost = 1 << 16;
  if (heads < 1 || heads > kMost) c.fail("n_head_per_ngram must be positive");
  return Dim(ngram_history(c) * heads);
}

void infer_ngram_hash(InferContext& c) {
  const Dim batch = dim_of(c.shape(0), 0);
  c.set(0, c.dtype(0), Shape({batch, dim_of(c.shape(0), 1), ngram_heads(c)}));
  c.set(1, c.dtype(0), Shape({batch, Dim(ngram_history(c))}));
}

void lower_ngram_hash(LowerContext& c) {
  outs_of(c,
          helper("ngram_hash_mapping", pass_inputs(c, 0, 7),
                 pass_attributes(c, {kNgram, kNgramHeads, kPadId, kResetOnEos})),
          2);
}

/// The number of sequences whose bounds input `i` has.
Dim packed_batch(const NodeContext& c, std::size_t i) {
  const Dim bounds = dim_of(c.shape(i), 0);
  return bounds.known() ? bounds - Dim(1) : Dim();
}

void check_capture(const NodeContext& c, std::size_t count) {
  if ((c.attr_int("state_update_capacity", 0) > 0) != c.has_input(count))
    c.fail("capture_count is needed exactly where state_update_capacity is positive");
}

void infer_varlen_ngram_hash(InferContext& c) {
  const Dim batch = packed_batch(c, 3);
  const Dim history(ngram_history(c));
  c.set(0, c.dtype(0), Shape({dim_of(c.shape(0), 0), ngram_heads(c)}));
  c.set(1, c.dtype(0), Shape({batch, history}));
  c.set(2, DType::Int32, Shape({batch, history}));
  c.set(3, c.dtype(0), Shape({batch, Dim(c.attr_int("state_update_capacity", 0)), history}));
}

void lower_varlen_ngram_hash(LowerContext& c) {
  check_capture(c, 9);
  if (c.has_output(2) && !c.has_input(7)) c.unsupported("present_segment_ids needs segment_ids");
  outs_of(c,
          helper("varlen_ngram_hash_mapping", pass_inputs(c, 0, 10),
                 pass_attributes(c, {kNgram, kNgramHeads, kPadId, kResetOnEos, kCapacity})),
          4);
}

// ---------------------------------------------------------------- packed sequences

void infer_varlen_conv(InferContext& c) {
  c.set(0, c.type(0));
  c.set(1, c.type(4));
  const Dim capacity(c.attr_int("state_update_capacity", 0));
  c.set(2, c.dtype(0), Shape({packed_batch(c, 2), capacity, dim_of(c.shape(0), 1)}));
}

void lower_varlen_conv(LowerContext& c) {
  check_capture(c, 5);
  require_absent(c, 6, "kernel_delta");
  require_absent(c, 7, "previous_mask");
  c.ignore_attr("delta_offset");  // both are about kernel_delta
  c.ignore_attr("group_size");
  outs_of(c,
          helper("varlen_causal_conv_with_state", pass_inputs(c, 0, 6),
                 pass_attributes(c, {{"activation", AttrKind::String}, {"dilation"}, kCapacity})),
          3);
}

void infer_gated_delta_net(InferContext& c) {
  c.set(1, c.type(6));
  const Shape& q = c.shape(0);
  const Shape& value = c.shape(2);
  if (c.has_input(2)) {
    c.set(0, c.dtype(0), value);
  } else if (q.has_rank() && q.rank() > 0) {
    Dims out(q.dims().begin(), q.dims().end() - 1);
    out.push_back(dim_of(c.shape(6), 1));
    out.push_back(dim_of(c.shape(6), 2));
    c.set(0, c.dtype(0), Shape(std::move(out)));
  } else {
    c.set(0, c.dtype(0));
  }
}

void lower_gated_delta_net(LowerContext& c) {
  require_int(c, "state_update_capacity", 0);
  c.ignore_attr("chunk_size");  // how it is computed
  if (!c.has_input(6) && !c.has_input(3)) c.fail("either cu_seqlens or initial_state is needed");
  if (!c.has_input(6) && !c.has_input(2)) c.fail("packed queries need initial_state");
  outs_of(c,
          helper("gated_delta_net", pass_inputs(c, 0, 9),
                 pass_attributes(c, {{"update_rule", AttrKind::String},
                                     {"scale", AttrKind::Float},
                                     {"qk_l2_norm"},
                                     {"gate_activation", AttrKind::String},
                                     {"gate_lower_bound", AttrKind::Float},
                                     {"beta_activation", AttrKind::String}})),
          2);
}

void infer_low_rank_mix(InferContext& c) {
  const std::int64_t branches = c.attr_int("num_branches");
  if (branches < 1) c.fail("num_branches must be positive");
  c.set(2, c.type(0));
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() == 0) {
    c.set(0, c.dtype(0));
    return c.set(1, c.dtype(0));
  }
  Dims out = s.dims();
  out.back() = out.back().known() ? Dim::floor_div(out.back(), Dim(branches)) : Dim();
  c.set(0, c.dtype(0), Shape(out));
  out.back() = Dim(branches);
  c.set(1, c.dtype(0), Shape(std::move(out)));
}

void lower_low_rank_mix(LowerContext& c) {
  if (c.has_input(5) != c.has_input(6))
    c.fail("prev_block_output and prev_post_gate go together");
  outs_of(c,
          helper("hyper_connection_low_rank_mix", pass_inputs(c, 0, 7),
                 pass_attributes(c, {kBranches,
                                     kEpsilon,
                                     {"reduction_scale", AttrKind::Float},
                                     {"silu_alpha", AttrKind::Float},
                                     {"gate_div", AttrKind::Float},
                                     {"gate_mul", AttrKind::Float}})),
          3);
}

/// SwiGLU: the gate may hold both halves.
void infer_clamped_swiglu(InferContext& c) {
  const Shape& s = c.shape(0);
  if (c.has_input(1) || !s.has_rank() || s.rank() == 0) return c.set(0, c.type(0));
  Dims out = s.dims();
  out.back() = out.back().known() ? Dim::floor_div(out.back(), Dim(2)) : Dim();
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_clamped_swiglu(LowerContext& c) {
  c.out(0, helper("clamped_swiglu", pass_inputs(c, 0, 2),
                  pass_attributes(c, {{"limit", AttrKind::Float},
                                      {"activation_alpha", AttrKind::Float},
                                      {"activation_beta", AttrKind::Float},
                                      {"round_activation"}})));
}

constexpr OpDef kHybridOps[] = {
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
    {.type = "BranchwiseRMSNorm",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_branchwise_rms_norm},
    {.type = "HyperConnectionPreMix",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_pre_mix,
     .lower = lower_pre_mix},
    {.type = "HyperConnectionPostMix",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_post_mix},
    {.type = "HyperConnectionLowRankMix",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_low_rank_mix,
     .lower = lower_low_rank_mix},
    {.type = "SwiGLU",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_clamped_swiglu,
     .lower = lower_clamped_swiglu},
    {.type = "EngramGate",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_engram_gate,
     .lower = lower_engram_gate},
    {.type = "MoEGroupRouter",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_group_router,
     .lower = lower_group_router},
    {.type = "NGramHashMapping",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_ngram_hash,
     .lower = lower_ngram_hash},
    {.type = "VarlenNGramHashMapping",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_varlen_ngram_hash,
     .lower = lower_varlen_ngram_hash},
    {.type = "VarlenCausalConvWithState",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_varlen_conv,
     .lower = lower_varlen_conv},
    {.type = "GatedDeltaNet",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_gated_delta_net,
     .lower = lower_gated_delta_net},
};

}  // namespace

std::span<const OpDef> microsoft_hybrid_ops() {
  return kHybridOps;
}

}  // namespace onnx2nn::ops
