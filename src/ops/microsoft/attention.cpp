// com.microsoft: attention with its many inputs, rotary embeddings, embeddings and experts.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
#include "ops/microsoft/microsoft.h"
#include "ops/microsoft/plain_attention.h"
#include "ops/onnx/pass_on.h"
#include "ops/onnx/rotary.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

constexpr Passed kScale{"scale", AttrKind::Float};
constexpr Passed kMaskValue{"mask_filter_value", AttrKind::Float};
constexpr Passed kSoftcap{"softcap", AttrKind::Float};

std::int64_t heads_of(const NodeContext& c, std::string_view name) {
  const std::int64_t heads = c.attr_int(name);
  if (heads <= 0) c.fail("the attribute \"" + std::string(name) + "\" must be positive");
  return heads;
}

Dim split(const Dim& width, std::int64_t parts) {
  return width.known() ? Dim::floor_div(width, Dim(parts)) : Dim();
}

// ---------------------------------------------------------------- Attention, QAttention

/// [2, batch, heads, total, size] of the cache that comes out, of `past` at input `i`.
Shape present_shape(const NodeContext& c, std::size_t past, std::int64_t heads, const Dim& size) {
  const Dim length = dim_of(c.shape(0), 1);
  Dim total = length;
  if (c.has_input(past))
    total = dim_of(c.shape(past), 3).known() ? dim_of(c.shape(past), 3) + length : Dim();
  return Shape({Dim(2), dim_of(c.shape(0), 0), Dim(heads), total, size});
}

void infer_attention(InferContext& c) {
  const std::int64_t heads = heads_of(c, "num_heads");
  Dim width = split(dim_of(c.shape(1), 1), 3);
  Dim key_width = width;
  if (const auto sizes = c.attr_ints("qkv_hidden_sizes")) {
    if (sizes->size() != 3) c.fail("qkv_hidden_sizes needs three sizes");
    key_width = Dim((*sizes)[1]);
    width = Dim((*sizes)[2]);
  }
  c.set(0, c.dtype(0), Shape({dim_of(c.shape(0), 0), dim_of(c.shape(0), 1), width}));
  c.set(1, c.dtype(0), present_shape(c, 4, heads, split(key_width, heads)));
}

void lower_attention(LowerContext& c) {
  require_int(c, "do_rotary", 0);
  require_absent(c, 6, "past_sequence_length");
  c.ignore_attr("past_present_share_buffer");
  c.ignore_attr("rotary_embedding_dim");
  if (lower_plain_attention(c)) return;
  outs_of(c,
          helper("ms_attention", pass_inputs(c, 0, 6),
                 pass_attributes(c, {{"num_heads"},
                                     {"qkv_hidden_sizes", AttrKind::IntList},
                                     kScale,
                                     kMaskValue,
                                     {"unidirectional"}})),
          2);
}

void infer_qattention(InferContext& c) {
  const std::int64_t heads = heads_of(c, "num_heads");
  const Dim width = split(dim_of(c.shape(1), 1), 3);
  c.set(0, c.dtype(3), Shape({dim_of(c.shape(0), 0), dim_of(c.shape(0), 1), width}));
  c.set(1, c.dtype(3), present_shape(c, 8, heads, split(width, heads)));
}

void lower_qattention(LowerContext& c) {
  require_int(c, "do_rotary", 0);
  c.ignore_attr("past_present_share_buffer");
  outs_of(c,
          helper("qattention", pass_inputs(c, 0, 9),
                 pass_attributes(c, {{"num_heads"}, kScale, kMaskValue, {"unidirectional"}})),
          2);
}

// ---------------------------------------------------------------- MultiHeadAttention
// Query [b, s, h] with key and value of three or four axes; or packed, [b, s, heads, 3 or 2, size].

void infer_multi_head(InferContext& c) {
  const std::int64_t heads = heads_of(c, "num_heads");
  const Shape& q = c.shape(0);
  const Shape& k = c.shape(1);
  const Shape& v = c.shape(2);
  const DType t = c.dtype(0);
  Dim width;
  Dim size;
  Dim keys;
  if (q.has_rank() && q.rank() == 5) {
    size = q[4];
    width = Dim(heads) * size;
    keys = q[1];
  } else if (k.has_rank() && k.rank() == 5) {
    size = k[4];
    width = Dim(heads) * size;
    keys = k[1];
  } else {
    size = split(dim_of(q, 2), heads);
    if (v.has_rank()) width = v.rank() == 3 ? v[2] : v.rank() == 4 ? Dim(heads) * v[3] : Dim();
    if (k.has_rank()) keys = k.rank() == 4 ? k[2] : dim_of(k, 1);
  }
  if (c.has_input(6))
    keys = keys.known() && dim_of(c.shape(6), 2).known() ? keys + dim_of(c.shape(6), 2) : Dim();
  const Dim batch = dim_of(q, 0);
  c.set(0, t, Shape({batch, dim_of(q, 1), width}));
  c.set(1, t, Shape({batch, Dim(heads), keys, size}));
  c.set(2, t, Shape({batch, Dim(heads), keys, split(width, heads)}));
  c.set(3, t, Shape({batch, Dim(heads), dim_of(q, 1), keys}));
}

/// Where caches have a fixed length: how much of it is filled, and whose rows each beam reads.
void add_buffer(LowerContext& c, Kwargs& kw, std::size_t length, std::size_t indirection) {
  if (!c.has_input(length)) return;
  kw.emplace_back("past_sequence_length", c.int_scalar(length));
  if (c.has_input(indirection)) kw.emplace_back("cache_indirection", c.in(indirection));
}

void lower_multi_head(LowerContext& c) {
  if (lower_plain_multi_head(c)) return;
  Kwargs kw = pass_attributes(c, {{"num_heads"}, kScale, kMaskValue, {"unidirectional"}});
  if (c.has_output(3)) kw.emplace_back("qk", Ex(true));
  if (c.has_input(6)) add_buffer(c, kw, 8, 9);
  outs_of(c, helper("multi_head_attention", pass_inputs(c, 0, 8), kw), 4);
}

/// DecoderMaskedMultiHeadAttention: the same with its inputs in another order.
/// Inputs: query, key, value, mask_index, attention_bias, past_key, past_value,
/// past_sequence_length, beam_width, cache_indirection, bias.
void infer_decoder_masked(InferContext& c) {
  const Shape& q = c.shape(0);
  const Dim width = dim_of(q, 2);
  c.set(0, c.dtype(0),
        Shape({dim_of(q, 0), dim_of(q, 1), c.has_input(1) ? width : split(width, 3)}));
  for (std::size_t i = 1; i < 4; ++i) c.set(i, c.dtype(0), Shape::unknown_dims(4));
}

void lower_decoder_masked(LowerContext& c) {
  c.ignore_attr("output_qk");
  c.ignore_attr("past_present_share_buffer");
  Args args;
  for (const std::size_t i : {0, 1, 2, 10, 3, 4, 5, 6}) args.push_back(c.in(i));
  while (!args.empty() && args.back().is_none()) args.pop_back();
  Kwargs kw = pass_attributes(c, {{"num_heads"}, kScale, kMaskValue});
  if (c.has_output(3)) kw.emplace_back("qk", Ex(true));
  // Across the encoder's states nothing is cached, so that neither length nor beams mean anything.
  if (c.has_input(5)) add_buffer(c, kw, 7, 9);
  outs_of(c, helper("multi_head_attention", args, kw), 4);
}

// ---------------------------------------------------------------- GroupQueryAttention and its
// relatives

/// The width of one head of a query that may hold keys and values as well.
Dim head_size(const NodeContext& c, std::int64_t heads, std::int64_t kv_heads, std::size_t axis) {
  const Dim width = dim_of(c.shape(0), axis);
  return split(width, c.has_input(1) ? heads : heads + 2 * kv_heads);
}

void infer_group_query(InferContext& c) {
  const std::int64_t heads = heads_of(c, "num_heads");
  const std::int64_t kv_heads = heads_of(c, "kv_num_heads");
  const Dim size = head_size(c, heads, kv_heads, 2);
  const Dim batch = dim_of(c.shape(0), 0);
  const Dim width = size.known() ? Dim(heads) * size : Dim();
  const DType t = c.dtype(0);
  c.set(0, t, Shape({batch, dim_of(c.shape(0), 1), width}));
  for (std::size_t i = 1; i < 3; ++i) {
    const bool given = c.has_input(i + 2);
    // A quantised cache may hold two values in a byte; any other has heads of the query's size.
    const bool as_query = !given || (!c.has_input(12) && size.known());
    c.set(i, given ? c.dtype(i + 2) : t,
          Shape({batch, Dim(kv_heads), Dim(), as_query ? size : dim_of(c.shape(i + 2), 3)}));
  }
  c.set(3, t, Shape({batch, Dim(heads), dim_of(c.shape(0), 1), Dim()}));
}

void lower_group_query(LowerContext& c) {
  if (lower_plain_group_query(c)) return;
  for (const char* name : {"k_quant_type", "v_quant_type"})
    if (c.attr_string(name, "NONE") != "NONE" && !c.has_input(12))
      c.fail("a quantised cache needs k_scale and v_scale");
  const std::int64_t bits = c.attr_int("kv_cache_bit_width", 0);
  const DType cache = c.dtype(3);
  if (c.has_input(12) && cache != DType::Int8 && cache != DType::UInt8)
    c.unsupported("a cache quantised to " + std::string(ir::info(cache).name) +
                  " is not supported");
  Args args = pass_inputs(c, 0, 6);
  args.push_back(c.int_scalar(6));
  for (const Ex& e : pass_inputs(c, 7, 17)) args.push_back(e);
  Kwargs kw = pass_attributes(c, {{"num_heads"},
                                  {"kv_num_heads"},
                                  {"causal"},
                                  {"do_rotary"},
                                  {"rotary_interleaved"},
                                  kScale,
                                  kSoftcap,
                                  {"smooth_softmax"},
                                  {"local_window_size"},
                                  {"sliding_window_cache"},
                                  {"qk_output"}});
  if (c.has_input(12) && (bits == 4 || (bits == 0 && cache == DType::UInt8)))
    kw.emplace_back("kv_cache_bit_width", Ex(4));
  const double shared = c.attr_float("qk_norm_epsilon", static_cast<double>(1e-6F));
  for (const auto& [name, input] : {std::pair{"q_norm_epsilon", 14}, {"k_norm_epsilon", 15}}) {
    const double epsilon = c.attr_float(name, shared);
    if (c.has_input(static_cast<std::size_t>(input)) &&
        epsilon != static_cast<double>(1e-6F))
      kw.emplace_back(name, Ex(epsilon));
  }
  outs_of(c, helper("group_query_attention", args, kw), 4);
}

void infer_sparse(InferContext& c) {
  infer_group_query(c);
  for (std::size_t i = 1; i < 3; ++i) c.set(i, c.type(i + 2));
}

void lower_sparse(LowerContext& c) {
  Args args = pass_inputs(c, 0, 7);
  args.push_back(c.int_scalar(7));
  for (const Ex& e : pass_inputs(c, 8, 11)) args.push_back(e);
  outs_of(c,
          helper("sparse_attention", args,
                 pass_attributes(c, {{"num_heads"},
                                     {"kv_num_heads"},
                                     {"sparse_block_size"},
                                     kScale,
                                     {"do_rotary"},
                                     {"rotary_interleaved"}})),
          3);
}

void infer_paged(InferContext& c) {
  const std::int64_t heads = heads_of(c, "num_heads");
  const Dim size = head_size(c, heads, heads_of(c, "kv_num_heads"), 1);
  c.set(0, c.dtype(0), Shape({dim_of(c.shape(0), 0), size.known() ? Dim(heads) * size : Dim()}));
  c.set(1, c.type(3));
  c.set(2, c.type(4));
}

void lower_paged(LowerContext& c) {
  static constexpr std::string_view kNames[] = {"q_norm_weight", "k_norm_weight", "k_scale",
                                                "v_scale"};
  require_absent(c, 10, "slot_mapping");
  for (std::size_t i = 0; i < std::size(kNames); ++i) require_absent(c, i + 12, kNames[i]);
  for (const char* name : {"k_quant_type", "v_quant_type"})
    if (c.attr_string(name, "NONE") != "NONE") c.unsupported("a quantised cache is not supported");
  for (const char* name :
       {"k_cache_dtype", "v_cache_dtype", "qk_norm_epsilon", "kv_cache_layout", "v_head_size"})
    c.ignore_attr(name);
  require_int(c, "is_causal", 1);
  require_int(c, "rotary_offset", 0);
  Args args = pass_inputs(c, 0, 10);
  if (c.has_input(11)) {
    while (args.size() < 10) args.push_back(kNone);
    args.push_back(c.in(11));
  }
  outs_of(c,
          helper("paged_attention", args,
                 pass_attributes(c, {{"num_heads"},
                                     {"kv_num_heads"},
                                     kScale,
                                     kSoftcap,
                                     {"do_rotary"},
                                     {"rotary_interleaved"},
                                     {"local_window_size"}})),
          3);
}

// ---------------------------------------------------------------- RotaryEmbedding

void lower_rotary(LowerContext& c) {
  // Neither bears on the answer: ONNX Runtime reads them for tables that it would make itself.
  c.ignore_attr("is_packed_batching");
  c.ignore_attr("scale");
  const Shape& x = c.shape(0);
  const std::int64_t heads = c.attr_int("num_heads", 0);
  const bool partial = heads > 0 && c.attr_int("rotary_embedding_dim", 0) > 0;
  Dim size = x.has_rank() && x.rank() > 2 ? x.dims().back() : Dim();
  // All of a head is turned where nothing says how many heads there are.
  if (x.has_rank() && x.rank() == 3)
    size = partial ? split(size, heads) : Dim(2) * dim_of(c.shape(2), 1);
  if (lower_plain_rotary(c, 1, 2, 3, size)) return;
  c.out(0, helper("ms_rotary_embedding", pass_inputs(c, 0, 4),
                  pass_attributes(c, {{"interleaved"}, {"num_heads"}, {"rotary_embedding_dim"}})));
}

void lower_multimodal_rotary(LowerContext& c) {
  c.ignore_attr("is_packed_batching");
  const auto section = c.attr_ints("mrope_section");
  if (!section || section->size() != 3) c.fail("mrope_section must be three sizes");
  const std::int64_t layout = c.attr_int("mrope_layout", 0);
  if (layout != 0 && layout != 1)
    c.unsupported("the mrope_layout " + std::to_string(layout) + " is not known");
  c.out(0, helper("multimodal_rotary_embedding", pass_inputs(c, 0, 4),
                  pass_attributes(c, {{"mrope_section", AttrKind::IntList},
                                      {"interleaved"},
                                      {"mrope_layout"},
                                      {"num_heads"},
                                      {"rotary_embedding_dim"},
                                      {"scale", AttrKind::Float}})));
}

// ---------------------------------------------------------------- EmbedLayerNormalization

void infer_embed(InferContext& c) {
  const Dim batch = dim_of(c.shape(0), 0);
  const Shape out({batch, dim_of(c.shape(0), 1), dim_of(c.shape(2), 1)});
  c.set(0, c.dtype(2), out);
  c.set(1, DType::Int32, Shape({batch}));
  c.set(2, c.dtype(2), out);
}

void lower_embed(LowerContext& c) {
  c.ignore_attr("mask_index_type");  // about the type of an output that a mask alone decides
  if (lower_plain_embed(c)) return;
  outs_of(c,
          helper("embed_layer_norm", pass_inputs(c, 0, 9),
                 pass_attributes(c, {{"epsilon", AttrKind::Float}})),
          3);
}

// ---------------------------------------------------------------- RemovePadding, RestorePadding

void infer_remove_padding(InferContext& c) {
  const Dim batch = dim_of(c.shape(0), 0);
  c.set(0, c.dtype(0), Shape({Dim(), dim_of(c.shape(0), 2)}));
  c.set(1, DType::Int32, Shape({batch, dim_of(c.shape(0), 1)}));
  c.set(2, DType::Int32, Shape({batch.known() ? batch + Dim(1) : Dim()}));
  c.set(3, DType::Int32, Shape({Dim(1)}));
}

void lower_remove_padding(LowerContext& c) {
  outs_of(c, helper("remove_padding", {c.in(0), c.in(1)}), 4);
}

void infer_restore_padding(InferContext& c) {
  c.set(0, c.dtype(0),
        Shape({dim_of(c.shape(1), 0), dim_of(c.shape(1), 1), dim_of(c.shape(0), 1)}));
}

void lower_restore_padding(LowerContext& c) {
  c.out(0, helper("restore_padding", {c.in(0), c.in(1)}));
}

// ---------------------------------------------------------------- MoE, QMoE

void infer_moe(InferContext& c) {
  c.set(0, c.type(0));
}

Kwargs expert_attributes(LowerContext& c) {
  require_int(c, "use_sparse_mixer", 0);
  require_int(c, "swiglu_limit_after_activation", 0);
  return pass_attributes(c, {{"k"},
                             {"activation_type", AttrKind::String},
                             {"normalize_routing_weights"},
                             {"activation_alpha", AttrKind::Float},
                             {"activation_beta", AttrKind::Float},
                             {"swiglu_limit", AttrKind::Float},
                             {"swiglu_fusion"}});
}

void lower_moe(LowerContext& c) {
  c.out(0, helper("mixture_of_experts", pass_inputs(c, 0, 8), expert_attributes(c)));
}

void lower_qmoe(LowerContext& c) {
  c.ignore_attr("accuracy_level");
  require_int(c, "weights_prepacked", 0);
  if (c.attr_string("quant_type", "int") != "int")
    c.unsupported("experts quantised to other than integers are not supported");
  for (std::size_t i = 15; i < c.input_count(); ++i)
    require_absent(c, i, "global and activation scales");
  Kwargs kw = expert_attributes(c);
  const std::int64_t bits = c.attr_int("expert_weight_bits", 4);
  for (const char* name :
       {"fc1_expert_weight_bits", "fc2_expert_weight_bits", "fc3_expert_weight_bits"}) {
    const std::int64_t own = c.attr_int(name, bits);
    if (own != bits && own > 0)
      c.unsupported("experts' layers with different bits are not supported");
  }
  if (bits != 4) kw.emplace_back("expert_weight_bits", Ex(bits));
  for (auto& k : pass_attributes(c, {{"block_size"}})) kw.push_back(k);
  c.out(0, helper("quantised_mixture_of_experts", pass_inputs(c, 0, 15), kw));
}

void infer_q_embed(InferContext& c) {
  const Dim batch = dim_of(c.shape(0), 0);
  c.set(0, DType::Float32, Shape({batch, dim_of(c.shape(0), 1), dim_of(c.shape(2), 1)}));
  c.set(1, DType::Int32, Shape({batch}));
}

void lower_q_embed(LowerContext& c) {
  outs_of(c,
          helper("q_embed_layer_norm", pass_inputs(c, 0, 18),
                 pass_attributes(c, {{"epsilon", AttrKind::Float}})),
          2);
}

// ---------------------------------------------------------------- packed tokens, position biases

void infer_packed_attention(InferContext& c) {
  Dim width = split(dim_of(c.shape(1), 1), 3);
  if (const auto sizes = c.attr_ints("qkv_hidden_sizes")) {
    if (sizes->size() != 3) c.fail("qkv_hidden_sizes needs three sizes");
    width = Dim((*sizes)[2]);
  }
  c.set(0, c.dtype(0), Shape({dim_of(c.shape(0), 0), width}));
}

void lower_packed_attention(LowerContext& c) {
  heads_of(c, "num_heads");
  c.out(0, helper("packed_attention", pass_inputs(c, 0, 6),
                  pass_attributes(
                      c, {{"num_heads"}, {"qkv_hidden_sizes", AttrKind::IntList}, kScale})));
}

void infer_packed_multi_head(InferContext& c) {
  Dim width = dim_of(c.shape(2), 1);
  if (!c.has_input(2)) {
    const Dim size = dim_of(c.shape(0), 3);
    width = size.known() ? size * Dim(heads_of(c, "num_heads")) : Dim();
  }
  c.set(0, c.dtype(0), Shape({dim_of(c.shape(0), 0), width}));
}

void lower_packed_multi_head(LowerContext& c) {
  heads_of(c, "num_heads");
  c.ignore_attr("mask_filter_value");  // what is not seen has no weight either way
  c.out(0, helper("packed_multi_head_attention", pass_inputs(c, 0, 7),
                  pass_attributes(c, {{"num_heads"}, kScale})));
}

void infer_gemma_rotary(InferContext& c) {
  c.set(0, c.type(1));
  c.set(1, c.type(3));
}

void lower_gemma_rotary(LowerContext& c) {
  outs_of(c, helper("gemma_rotary_embedding", pass_inputs(c, 0, 5)), 2);
}

void infer_relative_position_bias(InferContext& c) {
  const auto length = [&](std::size_t i) {
    const auto v = c.contents(i);
    return v && v->size() == 1 ? (*v)[0] : Dim();
  };
  c.set(0, c.dtype(0), Shape({Dim(1), dim_of(c.shape(0), 1), length(1), length(2)}));
}

void lower_relative_position_bias(LowerContext& c) {
  if (c.attr_int("max_distance") < 1) c.fail("max_distance must be positive");
  c.out(0, helper("relative_position_bias", {c.in(0), c.int_scalar(1), c.int_scalar(2)},
                  pass_attributes(c, {{"max_distance"}, {"is_bidirectional"}})));
}

void infer_gated_position_bias(InferContext& c) {
  const Dim length = dim_of(c.shape(0), 1);
  c.set(0, c.dtype(0),
        Shape({dim_of(c.shape(0), 0), Dim(heads_of(c, "num_heads")), length,
               dim_of(c.shape(2), 3)}));
}

void lower_gated_position_bias(LowerContext& c) {
  require_absent(c, 6, "token_offset");
  c.out(0, helper("gated_relative_position_bias", pass_inputs(c, 0, 6),
                  pass_attributes(c, {{"num_heads"}})));
}

constexpr OpDef kAttentionOps[] = {
    {.type = "Attention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_attention,
     .lower = lower_attention},
    {.type = "QAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qattention,
     .lower = lower_qattention},
    {.type = "MultiHeadAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_multi_head,
     .lower = lower_multi_head},
    {.type = "DecoderMaskedMultiHeadAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_decoder_masked,
     .lower = lower_decoder_masked},
    {.type = "GroupQueryAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_group_query,
     .lower = lower_group_query},
    {.type = "SparseAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_sparse,
     .lower = lower_sparse},
    {.type = "PagedAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_paged,
     .lower = lower_paged},
    {.type = "MRotaryEmbedding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_multimodal_rotary},
    {.type = "RotaryEmbedding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_rotary},
    {.type = "EmbedLayerNormalization",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_embed,
     .lower = lower_embed},
    {.type = "QEmbedLayerNormalization",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_q_embed,
     .lower = lower_q_embed},
    {.type = "PackedAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_packed_attention,
     .lower = lower_packed_attention},
    {.type = "PackedMultiHeadAttention",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_packed_multi_head,
     .lower = lower_packed_multi_head},
    {.type = "GemmaRotaryEmbedding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_gemma_rotary,
     .lower = lower_gemma_rotary},
    {.type = "RelativePositionBias",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_relative_position_bias,
     .lower = lower_relative_position_bias},
    {.type = "GatedRelativePositionBias",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_gated_position_bias,
     .lower = lower_gated_position_bias},
    {.type = "RemovePadding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_remove_padding,
     .lower = lower_remove_padding},
    {.type = "RestorePadding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_restore_padding,
     .lower = lower_restore_padding},
    {.type = "MoE",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_moe,
     .lower = lower_moe},
    {.type = "QMoE",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_moe,
     .lower = lower_qmoe},
};

}  // namespace

std::span<const OpDef> microsoft_attention_ops() {
  return kAttentionOps;
}

}  // namespace onnx2nn::ops
