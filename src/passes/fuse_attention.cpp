// Attention in its matrix products, for torch's own function.
#include <algorithm>
#include <utility>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

constexpr std::int64_t kAttention = 23;

bool has_four_axes(const ir::Value* v) {
  return v != nullptr && v->type.is_tensor() && v->type.shape.has_rank() &&
         v->type.shape.rank() == 4 &&
         (v->type.dtype == ir::DType::Float32 || v->type.dtype == ir::DType::Float64);
}

bool same_heads(const ir::Value* a, const ir::Value* b) {
  return a->type.shape[0] == b->type.shape[0] && a->type.shape[1] == b->type.shape[1];
}

/// `v` as a scale and what it scales.
WithNumber unscaled(ir::Value* v) {
  if (v->producer() != nullptr && v->has_one_use()) {
    const auto p = product_of(*v->producer());
    if (p && p->count == 1) return {p->factors[0], p->scale};
  }
  return {v, 1.0};
}

// MatMul(Softmax(Mul(MatMul(q, Transpose(k)), 0.125)), v)   =>   Attention(q, k, v)
// A mask may take away all keys of a query: arithmetic gives no number then, torch's function zero.
bool fuse_attention(Rewriter& w, ir::Node& n) {
  ir::Node* softmax = sole_producer(n.input(0), "Softmax");
  ir::Value* v = n.input(1);
  if (softmax == nullptr || !has_four_axes(v) || !has_four_axes(softmax->input(0))) return false;
  const std::int64_t axis = attr_int(*softmax, "axis", softmax->opset < 13 ? 1 : -1);
  if (axis != -1 && axis != 3) return false;
  if (!softmax->input(0)->has_one_use()) return false;
  const WithNumber scores = unscaled(softmax->input(0));
  const ir::Node* product = sole_producer(scores.x, "MatMul");
  if (product == nullptr)
    return w.miss(n, "a mask that takes away all keys would give zeros and not NaN");
  if (!w.options().any_opset) return w.miss(n, "runtimes are no faster with Attention");
  const WithNumber q = unscaled(product->input(0));
  const WithNumber k = unscaled(product->input(1));
  ir::Node* transpose = sole_producer(k.x, "Transpose");
  if (transpose == nullptr || !has_four_axes(q.x) || !has_four_axes(k.x)) return false;
  auto perm = ints_of(*transpose, "perm", transpose->input_count());
  if (!perm || perm->size() != 4) return false;
  if (!same_heads(q.x, k.x) || !same_heads(q.x, v) ||
      !(k.x->type.shape[3] == v->type.shape[2]) || !(q.x->type.shape[3] == k.x->type.shape[2]))
    return w.miss(n, "the numbers of heads or sizes are not known to agree");
  // The keys as they are, by a transpose of their own that goes where it moves nothing.
  std::swap((*perm)[2], (*perm)[3]);
  ir::Value* const source[] = {transpose->input(0)};
  ir::Node* keys = w.add("Transpose", source, *transpose->output(0), *transpose);
  keys->opset = transpose->opset;
  // It is another value than the one whose place it takes, and whose name checks would compare.
  keys->output(0)->name = w.model().new_name("keys");
  keys->output(0)->declared = nullptr;
  ir::Dims dims = k.x->type.shape.dims();
  std::swap(dims[2], dims[3]);
  keys->output(0)->type.shape = ir::Shape(std::move(dims));
  set_attr(*keys, "perm", *perm);
  ir::Value* const inputs[] = {q.x, keys->output(0), v};
  ir::Node* made = w.add("Attention", inputs, *n.output(0), n);
  made->opset = std::max(n.opset, kAttention);
  const double scale = scores.number * q.number * k.number;
  const ir::Dim& size = q.x->type.shape[3];
  if (!size.is_const() ||
      !is_about(scale * scale * static_cast<double>(size.value()), 1.0, ir::DType::Float32))
    set_attr(*made, "scale", scale);
  w.replace(n.output(0), made->output(0));
  return true;
}

}  // namespace

std::span<const Rule> attention_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-attention",
       .what = "attention without a mask, for torch",
       .apply = fuse_attention,
       .ops = {"MatMul"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
