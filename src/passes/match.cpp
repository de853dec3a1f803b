#include "passes/match.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace onnx2nn::passes {
namespace {

/// Whether `x` under the constant `c` keeps its shape, `out` being the result.
bool keeps_shape(const ir::Value* x, const ir::Value* c, const ir::Value* out) {
  if (c->constant->rank() == 0) return true;
  if (c->constant->size() == 1 && x->type.shape.has_rank() &&
      c->constant->rank() <= x->type.shape.rank())
    return true;
  return same_type(x, out);
}

std::optional<WithNumber> number_at(const ir::Node& n, std::size_t i) {
  ir::Value* x = n.input(1 - i);
  if (x == nullptr || n.output(0) == nullptr) return std::nullopt;
  const auto number = splat(n.input(i));
  if (!number || !keeps_shape(x, n.input(i), n.output(0))) return std::nullopt;
  return WithNumber{x, *number};
}

bool is_binary(const ir::Node* n, std::string_view op_type) {
  constexpr std::int64_t kBroadcasting = 7;
  return n != nullptr && n->is(op_type) && n->input_count() == 2 && n->opset >= kBroadcasting;
}

bool add_factors(const ir::Node& n, int depth, Product& p);

bool add_factor(ir::Value* v, int depth, Product& p) {
  if (v == nullptr) return false;
  const ir::Node* made = v->producer();
  constexpr int kDeepest = 3;
  if (made != nullptr && v->has_one_use() && depth < kDeepest &&
      (is_binary(made, "Mul") || before_number(made, "Div")))
    return add_factors(*made, depth + 1, p);
  if (p.count == p.factors.size()) return false;
  p.factors[p.count++] = v;
  return true;
}

bool add_factors(const ir::Node& n, int depth, Product& p) {
  if (const auto d = before_number(&n, "Div")) {
    p.scale /= d->number;
    return add_factor(d->x, depth, p);
  }
  if (const auto m = with_number(&n, "Mul")) {
    p.scale *= m->number;
    return add_factor(m->x, depth, p);
  }
  return is_binary(&n, "Mul") && add_factor(n.input(0), depth, p) &&
         add_factor(n.input(1), depth, p);
}

}  // namespace

std::optional<std::int64_t> opset_for(Rewriter& w, const ir::Node& n, std::string_view op_type,
                                      std::int64_t since) {
  if (n.opset >= since) return n.opset;
  if (w.options().any_opset) return since;
  w.miss(n, "{} came with opset {}, and this is opset {}", op_type, since, n.opset);
  return std::nullopt;
}

bool is_fusible_type(const Rewriter& w, const ir::Value* v) {
  if (v == nullptr || !v->type.is_tensor()) return false;
  const ir::DType t = v->type.dtype;
  return t == ir::DType::Float32 || t == ir::DType::Float16 || t == ir::DType::BFloat16 ||
         (t == ir::DType::Float64 && w.options().any_opset);
}

bool is_about(double a, double b, ir::DType t) {
  const double within = t == ir::DType::Float16 ? 1e-3 : t == ir::DType::BFloat16 ? 8e-3 : 1e-6;
  return std::abs(a - b) <= within * std::abs(b);
}

std::optional<WithNumber> with_number(const ir::Node* n, std::string_view op_type) {
  if (!is_binary(n, op_type)) return std::nullopt;
  const auto second = number_at(*n, 1);
  return second ? second : number_at(*n, 0);
}

std::optional<WithNumber> before_number(const ir::Node* n, std::string_view op_type) {
  return is_binary(n, op_type) ? number_at(*n, 1) : std::nullopt;
}

std::optional<Product> product_of(const ir::Node& n) {
  Product p;
  if (!add_factors(n, 0, p)) return std::nullopt;
  return p;
}

bool is_weight_type(ir::DType t) {
  return t == ir::DType::Float32 || t == ir::DType::Float64 || t == ir::DType::Float16 ||
         t == ir::DType::BFloat16;
}

ir::TensorPtr rounded(ir::DType dtype, const Ints& dims, const std::vector<double>& values) {
  const std::size_t width = static_cast<std::size_t>(ir::info(dtype).bits) / 8;
  std::vector<std::byte> bytes(values.size() * width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::byte* at = bytes.data() + i * width;
    const auto f = static_cast<float>(values[i]);
    if (!std::isfinite(values[i]) || (dtype != ir::DType::Float64 && !std::isfinite(f)))
      return nullptr;
    if (dtype == ir::DType::Float64) {
      std::memcpy(at, &values[i], width);
    } else if (dtype == ir::DType::Float32) {
      std::memcpy(at, &f, width);
    } else {
      const std::uint16_t h =
          dtype == ir::DType::Float16 ? ir::float_to_half(f) : ir::float_to_bfloat16(f);
      if (dtype == ir::DType::Float16 && (h & 0x7C00U) == 0x7C00U) return nullptr;
      std::memcpy(at, &h, width);
    }
  }
  return ir::Tensor::owned(dtype, dims, std::move(bytes));
}

ir::TensorPtr number_tensor(ir::DType dtype, double value) {
  return rounded(dtype, {}, {value});
}

ir::Node* producer_of(const ir::Value* v, std::string_view op_type) {
  return v != nullptr && v->producer() != nullptr && v->producer()->is(op_type) ? v->producer()
                                                                                : nullptr;
}

ir::Node* sole_user(const ir::Value* v, std::string_view op_type) {
  if (v == nullptr || !v->has_one_use()) return nullptr;
  ir::Node* user = v->first_use()->user;
  return user->is(op_type) ? user : nullptr;
}

ir::Value* other_input(const ir::Node& n, const ir::Value* v) {
  return n.input(0) == v ? n.input(1) : n.input(0);
}

std::optional<Ints> counted_axes(Ints axes, const ir::Value* v, bool sorted) {
  if (v == nullptr || !v->type.shape.has_rank()) return std::nullopt;
  const auto rank = static_cast<std::int64_t>(v->type.shape.rank());
  for (std::int64_t& a : axes) {
    if (a < 0) a += rank;
    if (a < 0 || a >= rank) return std::nullopt;
  }
  Ints in_order = axes;
  std::sort(in_order.begin(), in_order.end());
  if (std::adjacent_find(in_order.begin(), in_order.end()) != in_order.end()) return std::nullopt;
  return sorted ? in_order : axes;
}

std::optional<Ints> reduced_axes(const ir::Node& n) {
  auto axes = ints_of(n, "axes", 1);
  if (!axes || axes->empty()) return std::nullopt;
  return counted_axes(std::move(*axes), n.input(0));
}

std::optional<Ints> kept_axes(const ir::Node& n) {
  return attr_int(n, "keepdims", 1) == 1 ? reduced_axes(n) : std::nullopt;
}

}  // namespace onnx2nn::passes
