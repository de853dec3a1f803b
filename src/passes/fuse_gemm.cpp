// Matrix products with a bias, as one operator.
#include <array>

#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

constexpr std::int64_t kBroadcasting = 7;  // the opset from which Gemm's C broadcasts

bool is_matrix(const ir::Value* v) {
  return v != nullptr && v->type.is_tensor() && v->type.shape.has_rank() &&
         v->type.shape.rank() == 2 &&
         (v->type.dtype == ir::DType::Float32 || v->type.dtype == ir::DType::Float64);
}

// Add(MatMul(a: [m, k], b: [k, n]), c: [n])   =>   Gemm(a, b, c)
bool fuse_bias(Rewriter& w, ir::Node& n) {
  if (n.opset < kBroadcasting || n.input_count() != 2) return false;
  for (std::size_t i = 0; i < 2; ++i) {
    const ir::Node* product = sole_producer(n.input(i), "MatMul");
    ir::Value* c = n.input(1 - i);
    if (product == nullptr || c == nullptr || !is_matrix(product->input(0)) ||
        !is_matrix(product->input(1)))
      continue;
    if (!c->type.shape.has_rank() || c->type.shape.rank() > 2 ||
        c->type.dtype != n.output(0)->type.dtype)
      continue;
    // A residual is no bias: runtimes fuse it with what follows.
    if (!c->constant || !same_type(n.input(i), n.output(0))) continue;
    const std::vector<ir::Value*> inputs = {product->input(0), product->input(1), c};
    w.replace(n.output(0), w.add("Gemm", inputs, *n.output(0), n)->output(0));
    return true;
  }
  return false;
}

// Add(Gemm(a: [m, k], b: [k, n]), c: [n])   =>   Gemm(a, b, c)
bool fuse_gemm_bias(Rewriter& w, ir::Node& n) {
  if (n.opset < kBroadcasting || n.input_count() != 2) return false;
  for (std::size_t i = 0; i < 2; ++i) {
    ir::Node* gemm = sole_producer(n.input(i), "Gemm");
    ir::Value* c = n.input(1 - i);
    if (gemm == nullptr || gemm->input(2) != nullptr || c == nullptr || !c->constant) continue;
    if (!c->type.shape.has_rank() || c->type.shape.rank() > 2 ||
        !same_type(n.input(i), n.output(0)))
      continue;
    ir::Value* const inputs[] = {gemm->input(0), gemm->input(1), c};
    w.set_inputs(*gemm, inputs);
    set_attr(*gemm, "beta", 1.0);
    w.replace_by_changed(n.output(0), n.input(i));
    return true;
  }
  return false;
}

// Gemm(Transpose(a), b), MatMul(Transpose(a), b)   =>   Gemm(a, b) with transA
bool fuse_transpose(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kNoBias = 11;  // the opset from which Gemm needs none
  const bool is_product = n.is("MatMul");
  if (is_product && (n.opset < kNoBias || !is_matrix(n.input(0)) || !is_matrix(n.input(1))))
    return false;
  for (std::size_t i = 0; i < 2; ++i) {
    const ir::Node* t = n.input(i) != nullptr ? n.input(i)->producer() : nullptr;
    if (t == nullptr || !t->is("Transpose") || !is_matrix(n.input(i))) continue;
    const auto perm = ints_of(*t, "perm", t->input_count());
    if (perm && *perm != Ints{1, 0}) continue;
    const char* flag = i == 0 ? "transA" : "transB";
    if (is_product) {
      std::array<ir::Value*, 2> inputs = {n.input(0), n.input(1)};
      inputs[i] = t->input(0);
      ir::Node* made = w.add("Gemm", inputs, *n.output(0), n);
      set_attr(*made, flag, std::int64_t{1});
      w.replace(n.output(0), made->output(0));
      return true;
    }
    set_attr(n, flag, static_cast<std::int64_t>(attr_int(n, flag, 0) == 0 ? 1 : 0));
    w.set_input(n, i, t->input(0));
    return true;
  }
  return false;
}

}  // namespace

std::span<const Rule> gemm_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-matmul-bias",
       .what = "MatMul and Add of matrices become Gemm",
       .apply = fuse_bias,
       .ops = {"Add"}},
      {.name = "fuse-gemm-bias",
       .what = "Add of a constant into a Gemm that has no bias",
       .apply = fuse_gemm_bias,
       .ops = {"Add"}},
      {.name = "fuse-transpose",
       .what = "a transposed operand of Gemm, or of MatMul of matrices",
       .apply = fuse_transpose,
       .ops = {"Gemm", "MatMul"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
