// com.microsoft: attention and embeddings that torch says itself, once it is known which inputs are
// there and how many axes they have.
#include "ops/microsoft/plain_attention.h"

#include <algorithm>
#include <limits>

#include "ops/microsoft/microsoft.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

bool is_usual(DType t) {
  return t == DType::Float32 || t == DType::Float64 || t == DType::Float16;
}

Ex merge_heads(LowerContext& c, const Ex& y) {
  return aten("flatten.using_ints", {aten("transpose.int", {c.let(y, "attention"), 1, 2}), 2});
}

Ex concatenated(LowerContext& c, const Ex& past, const Ex& now, const char* hint) {
  return c.let(aten("cat", {list({past, now}), Ex(2)}), hint);
}

/// Which integer masks can be said: of [batch, keys], [batch, queries, keys] or [batch, 1, longest,
/// longest], or of the lengths [batch].
bool knows_mask(const NodeContext& c, std::size_t mask) {
  if (!c.has_input(mask)) return true;
  const auto rank = c.rank(mask);
  if (rank == 2U || rank == 3U || rank == 4U) return true;
  const Dim batch = dim_of(c.shape(0), 0);
  return rank == 1U && batch.known() && dim_of(c.shape(mask), 0) == batch;
}

/// What a mask of integers, and a bias, add to the scores; None for nothing. `k` has all the keys.
Ex added(LowerContext& c, std::size_t mask, std::size_t bias, const Ex& q, const Ex& k) {
  const DType t = c.dtype(0);
  Ex sum;
  if (c.has_input(mask)) {
    Ex valid;
    if (c.rank(mask) == 1U) {
      const Ex places =
          aten("arange", {torch::size(k, 2)}, {{"device", op(".device", {c.in(mask)})}});
      valid = aten("lt.Tensor", {places, aten("unsqueeze", {c.in(mask), 1})});
    } else {
      Ex given = c.in(mask);
      if (c.rank(mask) == 4U) {
        const Ex end = torch::size(k, 2);
        const Ex start = op("-", {end, torch::size(q, 2)});
        given = aten("slice.Tensor",
                     {aten("slice.Tensor", {given, 2, start, end}), 3, kNone, end});
      }
      valid = aten("gt.Scalar", {given, 0});
    }
    valid = c.let(valid, "valid");
    if (c.rank(mask) != 4U) valid = aten("unsqueeze", {valid, 1});
    if (c.rank(mask) == 1U || c.rank(mask) == 2U) valid = aten("unsqueeze", {valid, 1});
    // What float32 holds, halves may not: their lowest number says the same.
    const double largest = t == DType::Float16 ? 65504.0
                           : t == DType::Float32
                               ? static_cast<double>(std::numeric_limits<float>::max())
                               : std::numeric_limits<double>::max();
    const double fill = std::clamp(c.attr_float("mask_filter_value", -10000.0), -largest, largest);
    sum = aten("where.Scalar", {valid, Ex(0.0), Ex(fill)});
    if (t != DType::Float32) sum = to_dtype(sum, t);
    sum = c.let(sum, "mask");
  }
  if (!c.has_input(bias)) return sum;
  return sum.is_none() ? c.in(bias) : c.let(aten("add.Tensor", {sum, c.in(bias)}), "mask");
}

/// The one call. Causal: a query sees the keys of `past`, and none later than its own.
Ex attend(LowerContext& c, const Ex& q, const Ex& k, const Ex& v, Ex mask, bool has_past) {
  Kwargs kw;
  if (c.attr_int("unidirectional", 0) != 0) {
    if (mask.is_none() && !has_past) {
      kw.emplace_back("is_causal", Ex(true));
    } else {
      const Ex rows = torch::size(q, 2);
      const Ex columns = torch::size(k, 2);
      const Ex square = aten("ones", {list({rows, columns})},
                             {{"dtype", Ex(DType::Bool)}, {"device", op(".device", {q})}});
      const Ex seen =
          c.let(aten("tril", {square, has_past ? op("-", {columns, rows}) : Ex(0)}), "causal");
      mask = mask.is_none() ? seen
                            : c.let(aten("masked_fill.Scalar",
                                         {mask, aten("bitwise_not", {seen}), torch::name("-torch.inf")}),
                                    "mask");
    }
  }
  if (!mask.is_none()) kw.insert(kw.begin(), {"attn_mask", mask});
  if (const double scale = c.attr_float("scale", 0.0); scale != 0.0)
    kw.emplace_back("scale", Ex(scale));
  return merge_heads(c, aten("scaled_dot_product_attention", {q, k, v}, kw));
}

/// A product with a weight [in, out] and a bias; nn.Linear where they are constant.
Ex project(LowerContext& c, std::size_t x, std::size_t weight, std::size_t bias) {
  const auto w = c.weight(weight);
  const auto b = c.weight(bias);
  if (w && w->dtype == c.dtype(x) && w->size() > 0 &&
      (!c.has_input(bias) || (b && b->dtype == w->dtype && b->dims == Ints{w->dims[1]}))) {
    std::vector<ModuleParam> params{{.name = "weight", .value = c.input(weight), .transpose = true}};
    Kwargs kw;
    if (b) {
      params.push_back({.name = "bias", .value = c.input(bias)});
    } else {
      kw.emplace_back("bias", Ex(false));
    }
    if (const auto y = c.module("Linear", {w->dims[0], w->dims[1]}, kw, params, {c.in(x)}))
      return *y;
  }
  const Ex product = aten("matmul", {c.in(x), c.in(weight)});
  return c.has_input(bias) ? aten("add.Tensor", {product, c.in(bias)}) : product;
}

/// Rows of a table; nn.Embedding where it is constant.
Ex look_up(LowerContext& c, std::size_t table, const Ex& index) {
  if (const auto t = c.weight(table); t && t->rank() == 2 && t->size() > 0)
    if (const auto y = c.module("Embedding", {t->dims[0], t->dims[1]}, {},
                                {{.name = "weight", .value = c.input(table)}}, {index}))
      return *y;
  return aten("embedding", {c.in(table), index});
}

}  // namespace

Ex split_heads(const Ex& x, std::int64_t heads) {
  return aten("transpose.int", {aten("unflatten.int", {x, Ex(-1), list({Ex(heads), Ex(-1)})}), 1, 2});
}

bool lower_plain_attention(LowerContext& c) {
  const std::int64_t heads = c.attr_int("num_heads");
  const Dim width = dim_of(c.shape(1), 1);
  if (c.rank(0) != 3U || c.rank(1) != 2U || !is_usual(c.dtype(0)) || !knows_mask(c, 3)) return false;
  if (heads <= 0 || !width.is_const()) return false;
  const Ints sizes = c.attr_ints("qkv_hidden_sizes").value_or(Ints(3, width.value() / 3));
  if (sizes.size() != 3 || sizes[0] != sizes[1]) return false;
  const bool equal = sizes[1] == sizes[2];
  if (!equal && (c.has_output(1) || c.has_input(4))) return false;
  Ex q;
  Ex k;
  Ex v;
  if (equal) {
    const Ex parts = c.let(
        aten("unflatten.int", {project(c, 0, 1, 2), Ex(-1), list({Ex(3), Ex(heads), Ex(-1)})}), "qkv");
    const auto all = c.lets(
        aten("unbind.int", {aten("permute", {parts, list({2, 0, 3, 1, 4})}), 0}), {"q", "k", "v"});
    q = all[0];
    k = all[1];
    v = all[2];
  } else {
    const auto all =
        c.lets(aten("split_with_sizes", {project(c, 0, 1, 2), Ex(sizes), -1}), {"q", "k", "v"});
    q = c.let(split_heads(all[0], heads), "q");
    k = c.let(split_heads(all[1], heads), "k");
    v = c.let(split_heads(all[2], heads), "v");
  }
  const bool has_past = c.has_input(4);
  if (has_past) {
    const auto past = c.lets(aten("unbind.int", {c.in(4), 0}), {"past_k", "past_v"});
    k = concatenated(c, past[0], k, "k");
    v = concatenated(c, past[1], v, "v");
  }
  c.out(0, attend(c, q, k, v, added(c, 3, 5, q, k), has_past));
  if (c.has_output(1)) c.out(1, aten("stack", {list({k, v})}));
  c.ignore_attr("mask_filter_value");
  return true;
}

bool lower_plain_multi_head(LowerContext& c) {
  const std::int64_t heads = c.attr_int("num_heads");
  if (heads <= 0 || c.rank(0) != 3U || !is_usual(c.dtype(0)) || !knows_mask(c, 4)) return false;
  const auto kv_rank = c.rank(1);
  if (!c.has_input(1) || !c.has_input(2) || kv_rank != c.rank(2) || c.has_output(3) ||
      c.has_input(8) || (kv_rank != 3U && kv_rank != 4U) || c.has_input(6) != c.has_input(7))
    return false;
  const Dim width = dim_of(c.shape(0), 2);
  const Dim value_width = dim_of(c.shape(2), 2);
  const bool biased = c.has_input(3);
  if (biased && (kv_rank != 3U || !width.is_const() || !value_width.is_const() ||
                 !(dim_of(c.shape(1), 2) == width)))
    return false;
  const bool has_past = c.has_input(6);
  // Of queries that are not the keys' own a single one sees all.
  const bool own = dim_of(c.shape(0), 1).known() && kv_rank == 3U &&
                   dim_of(c.shape(0), 1) == dim_of(c.shape(1), 1);
  if (c.attr_int("unidirectional", 0) != 0 && !own) return false;
  Ex parts[] = {c.in(0), c.in(1), c.in(2)};
  if (biased) {
    const Ints sizes{width.value(), width.value(), value_width.value()};
    const auto biases = c.lets(aten("split_with_sizes", {c.in(3), Ex(sizes)}),
                               {"q_bias", "k_bias", "v_bias"});
    for (std::size_t i = 0; i < 3; ++i) parts[i] = aten("add.Tensor", {parts[i], biases[i]});
  }
  const Ex q = c.let(split_heads(parts[0], heads), "q");
  Ex k = kv_rank == 4U ? parts[1] : c.let(split_heads(parts[1], heads), "k");
  Ex v = kv_rank == 4U ? parts[2] : c.let(split_heads(parts[2], heads), "v");
  if (has_past) {
    k = concatenated(c, c.in(6), k, "k");
    v = concatenated(c, c.in(7), v, "v");
  }
  c.out(0, attend(c, q, k, v, added(c, 4, 5, q, k), has_past));
  if (c.has_output(1)) c.out(1, k);
  if (c.has_output(2)) c.out(2, v);
  c.ignore_attr("mask_filter_value");
  return true;
}

bool lower_plain_embed(LowerContext& c) {
  const auto gamma = c.weight(5);
  const auto beta = c.weight(6);
  if (!gamma || !beta || gamma->rank() != 1 || beta->dims != gamma->dims ||
      gamma->dtype != beta->dtype || !is_usual(gamma->dtype) || c.rank(0) != 2U ||
      c.has_input(1) != c.has_input(4))
    return false;
  const double epsilon = c.attr_float("epsilon", 1e-12);
  const Ex words = look_up(c, 2, c.in(0));
  const Ex positions =
      c.has_input(8)
          ? c.in(8)
          : aten("arange", {c.dim(0, 1)}, {{"device", op(".device", {c.in(0)})}});
  Ex sum = c.let(aten("add.Tensor", {words, look_up(c, 3, positions)}), "embedding");
  if (c.has_input(1)) sum = aten("add.Tensor", {sum, look_up(c, 4, c.in(1))});
  if (c.has_output(2)) {
    c.out(2, sum);
    sum = c.result(2);
  }
  const auto y = c.module("LayerNorm", {gamma->dims[0]}, {{"eps", Ex(epsilon)}},
                          {{.name = "weight", .value = c.input(5)},
                           {.name = "bias", .value = c.input(6)}},
                          {sum});
  c.out(0, y ? *y
             : aten("layer_norm", {sum, list({Ex(gamma->dims[0])}), c.in(5), c.in(6), Ex(epsilon)}));
  if (!c.has_output(1)) return true;
  const Kwargs whole{{"dtype", Ex(DType::Int32)}};
  if (c.has_input(7)) {
    c.out(1, aten("sum.dim_IntList", {aten("eq.Scalar", {c.in(7), 1}), list({Ex(1)}), false}, whole));
  } else {
    c.out(1, aten("zeros", {list({c.dim(0, 0)})},
                  {{"dtype", Ex(DType::Int32)}, {"device", op(".device", {c.in(0)})}}));
  }
  return true;
}

}  // namespace onnx2nn::ops
