// Attention, RotaryEmbedding, LinearAttention, and the preview's FlexAttention.
// https://onnx.ai/onnx/operators/onnx__Attention.html and its neighbours.
// Attention: opset 24 brought `nonpad_kv_seqlen`, 25 the window sizes.
#include <algorithm>

#include "ops/lower.h"
#include "ops/onnx/pass_on.h"
#include "ops/onnx/rotary.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- Attention
// Inputs: Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen.
// Outputs: Y, present_key, present_value, the scores.

/// [batch, heads, length, size] of an input that has three axes or four.
std::optional<Dims> split_dims(const NodeContext& c, std::size_t i, std::string_view heads_attr) {
  const Shape& s = c.shape(i);
  if (!s.has_rank()) return std::nullopt;
  if (s.rank() == 4) return s.dims();
  if (s.rank() != 3) c.fail("query, key and value have three axes or four");
  const std::int64_t heads = c.attr_int(heads_attr, 0);
  if (heads <= 0) c.fail("inputs of three axes need the attribute " + std::string(heads_attr));
  return Dims{s[0], Dim(heads), s[1], Dim::floor_div(s[2], Dim(heads))};
}

void infer_attention(InferContext& c) {
  const auto q = split_dims(c, 0, "q_num_heads");
  const auto k = split_dims(c, 1, "kv_num_heads");
  const auto v = split_dims(c, 2, "kv_num_heads");
  const DType t = c.dtype(0);
  if (!q || !k || !v) {
    c.set(0, t);
    c.set(1, c.dtype(1), Shape::unknown_dims(4));
    c.set(2, c.dtype(2), Shape::unknown_dims(4));
    c.set(3, t, Shape::unknown_dims(4));
    return;
  }
  Dim total = (*k)[2];
  if (c.has_input(4)) {
    const Shape& past = c.shape(4);
    total = past.has_rank() && past.rank() == 4 ? past[2] + total : Dim();
  }
  const Dim batch = broadcast((*q)[0], (*k)[0]);
  c.set(0, t,
        c.shape(0).rank() == 3 ? Shape({batch, (*q)[2], (*q)[1] * (*v)[3]})
                               : Shape({batch, (*q)[1], (*q)[2], (*v)[3]}));
  c.set(1, c.dtype(1), Shape({(*k)[0], (*k)[1], total, (*k)[3]}));
  c.set(2, c.dtype(2), Shape({(*v)[0], (*v)[1], total, (*v)[3]}));
  c.set(3, t, Shape({batch, (*q)[1], (*q)[2], total}));
}

/// Whether torch's own function does all that the node asks for.
bool is_native(const LowerContext& c) {
  const DType t = c.dtype(0);
  if ((t != DType::Float32 && t != DType::Float64) || c.dtype(2) != t) return false;
  for (std::size_t i = 1; i < 4; ++i)
    if (c.has_output(i)) return false;
  for (std::size_t i = 4; i < 7; ++i)
    if (c.has_input(i)) return false;
  if (!split_dims(c, 0, "q_num_heads") || !split_dims(c, 1, "kv_num_heads") ||
      !split_dims(c, 2, "kv_num_heads"))
    return false;
  if (c.attr_float("softcap", 0.0) != 0.0 || c.attr_int("left_window_size", -1) >= 0 ||
      c.attr_int("right_window_size", -1) >= 0)
    return false;
  if (const DType p = c.attr_dtype("softmax_precision", t); p != t) return false;
  if (!c.has_input(3)) return true;
  const Shape& mask = c.shape(3);
  const Dim keys = (*split_dims(c, 1, "kv_num_heads"))[2];
  return c.attr_int("is_causal", 0) == 0 && mask.has_rank() && mask.rank() >= 2 &&
         mask.dims().back() == keys &&
         (c.dtype(3) == DType::Bool || c.dtype(3) == t || ir::is_integer(c.dtype(3)));
}

/// The mask; torch takes numbers that are added in the query's type alone.
Ex mask_of(LowerContext& c) {
  return ir::is_integer(c.dtype(3)) ? to_dtype(c.in(3), c.dtype(0)) : c.in(3);
}

/// Three axes as [batch, heads, length, size].
Ex split_heads(LowerContext& c, std::size_t i, std::string_view heads_attr, const char* hint) {
  if (c.known_rank(i) == 4) return c.in(i);
  const Ex parts =
      aten("unflatten.int", {c.in(i), Ex(-1), list({Ex(c.attr_int(heads_attr)), Ex(-1)})});
  return c.let(aten("transpose.int", {parts, 1, 2}), hint);
}

void lower_native_attention(LowerContext& c) {
  c.ignore_attr("qk_matmul_output_mode");
  const bool packed = c.known_rank(0) == 3;
  const Dim q_heads = (*split_dims(c, 0, "q_num_heads"))[1];
  const Dim kv_heads = (*split_dims(c, 1, "kv_num_heads"))[1];
  const Ex q = split_heads(c, 0, "q_num_heads", "q");
  const Ex k = split_heads(c, 1, "kv_num_heads", "k");
  const Ex v = split_heads(c, 2, "kv_num_heads", "v");
  c.ignore_attr("q_num_heads");
  c.ignore_attr("kv_num_heads");
  Kwargs kw;
  if (c.has_input(3)) kw.emplace_back("attn_mask", mask_of(c));
  if (c.attr_int("is_causal", 0) != 0) kw.emplace_back("is_causal", Ex(true));
  if (c.has_attr("scale")) kw.emplace_back("scale", Ex(c.attr_float("scale", 0.0)));
  if (!(q_heads == kv_heads)) kw.emplace_back("enable_gqa", Ex(true));
  const Ex y = aten("scaled_dot_product_attention", {q, k, v}, kw);
  if (!packed) return c.out(0, y);
  c.out(0, aten("flatten.using_ints", {aten("transpose.int", {c.let(y, "attention"), 1, 2}), 2}));
}

void lower_attention(LowerContext& c) {
  if (is_native(c)) return lower_native_attention(c);
  Kwargs kw = pass_attributes(c, {{"is_causal"},
                                  {"q_num_heads"},
                                  {"kv_num_heads"},
                                  {"scale", AttrKind::Float},
                                  {"softcap", AttrKind::Float},
                                  {"qk_matmul_output_mode"},
                                  {"left_window_size"},
                                  {"right_window_size"}});
  if (const DType p = c.attr_dtype("softmax_precision", DType::Undefined); p != DType::Undefined)
    kw.emplace_back("softmax_precision", Ex(p));
  if (c.has_output(3)) kw.emplace_back("qk_matmul_output", Ex(true));
  Args args = pass_inputs(c, 0, 7);
  if (c.has_input(3)) args[3] = mask_of(c);
  outs_of(c, helper("onnx_attention", args, kw), 4);
}

// ---------------------------------------------------------------- RotaryEmbedding

void infer_same(InferContext& c) {
  c.set(0, c.type(0));
}

void lower_rotary(LowerContext& c) {
  c.ignore_attr("rotary_embedding_dim");  // the caches' width says it
  const Shape& x = c.shape(0);
  const std::int64_t heads = c.attr_int("num_heads", 0);
  Dim size = x.has_rank() && x.rank() > 2 ? x.dims().back() : Dim();
  if (size.known() && x.rank() == 3) size = heads > 0 ? Dim::floor_div(size, Dim(heads)) : Dim();
  if (lower_plain_rotary(c, 3, 1, 2, size)) return;
  c.out(0, helper("rotary_embedding", pass_inputs(c, 0, 4),
                  pass_attributes(c, {{"interleaved"}, {"num_heads"}})));
}

// ---------------------------------------------------------------- LinearAttention

void infer_linear_attention(InferContext& c) {
  const Shape& q = c.shape(0);
  const Shape& k = c.shape(1);
  const Shape& v = c.shape(2);
  const std::int64_t q_heads = c.attr_int("q_num_heads");
  const std::int64_t kv_heads = c.attr_int("kv_num_heads");
  if (q_heads <= 0 || kv_heads <= 0) c.fail("the numbers of heads must be positive");
  const DType state = c.has_input(3) ? c.dtype(3) : c.dtype(0);
  if (!q.has_rank() || q.rank() != 3 || !k.has_rank() || k.rank() != 3 || !v.has_rank() ||
      v.rank() != 3) {
    c.set(0, c.dtype(0), Shape::unknown_dims(3));
    c.set(1, state, Shape::unknown_dims(4));
    return;
  }
  const Dim value_size = Dim::floor_div(v[2], Dim(kv_heads));
  c.set(0, c.dtype(0), Shape({q[0], q[1], Dim(q_heads) * value_size}));
  c.set(1, state, Shape({q[0], Dim(kv_heads), Dim::floor_div(k[2], Dim(kv_heads)), value_size}));
}

void lower_linear_attention(LowerContext& c) {
  c.ignore_attr("chunk_size");   // how to compute, not what
  c.ignore_attr("update_rule");  // the optional inputs say which terms there are
  outs_of(
      c,
      helper("linear_attention", pass_inputs(c, 0, 6),
             pass_attributes(c, {{"q_num_heads"}, {"kv_num_heads"}, {"scale", AttrKind::Float}})),
      2);
}

// ---------------------------------------------------------------- FlexAttention
// The graphs that change scores and weights become nested functions.

DType softmax_dtype(const NodeContext& c) {
  const DType q = c.dtype(0);
  return c.attr_dtype("softmax_precision", q == DType::Float64 ? DType::Float64 : DType::Float32);
}

void infer_flex(InferContext& c) {
  const Shape& q = c.shape(0);
  const Shape& k = c.shape(1);
  const Shape& v = c.shape(2);
  const bool known = q.has_rank() && q.rank() == 4 && k.has_rank() && k.rank() == 4 &&
                     v.has_rank() && v.rank() == 4;
  c.set(0, c.dtype(0), known ? Shape({q[0], q[1], q[2], v[3]}) : Shape::unknown_dims(4));
  for (const char* name : {"score_mod", "prob_mod"}) {
    if (!c.has_attr(name)) continue;
    ir::Graph& graph = *c.attr_graph(name);
    if (graph.inputs.size() != 1 || graph.output_count() != 1)
      c.fail("the graph of " + std::string(name) + " maps one tensor to one");
    graph.inputs[0]->type = Type::tensor(
        softmax_dtype(c), known ? Shape({q[0], q[1], q[2], k[2]}) : Shape::unknown_dims(4));
    c.infer_graph(graph);
  }
}

void lower_flex(LowerContext& c) {
  Kwargs kw = pass_attributes(c, {{"scale", AttrKind::Float}});
  for (const char* name : {"score_mod", "prob_mod"})
    if (c.has_attr(name)) kw.emplace_back(name, nested_function(c, name));
  if (const DType p = c.attr_dtype("softmax_precision", DType::Undefined); p != DType::Undefined)
    kw.emplace_back("softmax_precision", Ex(p));
  c.out(0, helper("flex_attention", {c.in(0), c.in(1), c.in(2)}, kw));
}

constexpr OpDef kAttentionOps[] = {
    {.type = "Attention",
     .changed_at = {23, 24, 25},
     .infer = infer_attention,
     .lower = lower_attention},
    {.type = "RotaryEmbedding", .changed_at = {23}, .infer = infer_same, .lower = lower_rotary},
    {.type = "LinearAttention",
     .changed_at = {27},
     .infer = infer_linear_attention,
     .lower = lower_linear_attention},
    {.type = "FlexAttention",
     .domain = "ai.onnx.preview",
     .changed_at = {1},
     .infer = infer_flex,
     .lower = lower_flex},
};

}  // namespace

std::span<const OpDef> attention_ops() {
  return kAttentionOps;
}

}  // namespace onnx2nn::ops
