#include "passes/quantized_values.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "passes/match.h"

namespace onnx2nn::passes {
namespace {

bool is_zero(const ir::Tensor& t) {
  for (std::int64_t i = 0; i < t.size(); ++i)
    if (t.int_at(i) != 0) return false;
  return true;
}

bool is_byte(ir::DType t) {
  return t == ir::DType::Int8 || t == ir::DType::UInt8;
}

/// The node that makes `q` real already; null where it is not among the first that read it.
ir::Node* find_dequantized(const Quantized& q) {
  constexpr int kMostLooked = 16;
  int looked = 0;
  for (const ir::Use* u = q.value->first_use(); u != nullptr && looked < kMostLooked;
       u = u->next, ++looked) {
    const ir::Node& user = *u->user;
    if (user.is("DequantizeLinear") && u->index == 0 && user.input(1) == q.scale &&
        user.input(2) == q.zero && user.graph() == q.value->producer()->graph() && !q.axis)
      return u->user;
  }
  return nullptr;
}

/// The scope that the names of all who read `v` have in common, as a name in it.
std::string common_scope(const ir::Value& v) {
  constexpr int kMostLooked = 16;
  std::string common;
  int looked = 0;
  for (const ir::Use* u = v.first_use(); u != nullptr && looked < kMostLooked;
       u = u->next, ++looked) {
    const std::string& name = u->user->name;
    if (looked == 0) common = name;
    const auto [end, _] = std::mismatch(common.begin(), common.end(), name.begin(), name.end());
    common.erase(end, common.end());
    common.erase(common.rfind('/') == std::string::npos ? 0 : common.rfind('/') + 1);
  }
  return common.empty() ? common : common + "DequantizeLinear";
}

}  // namespace

Quantized quantized_operand(const ir::Node& n, std::size_t i) {
  return {n.input(i), n.input(i + 1), n.input(i + 2), std::nullopt};
}

bool is_one_number(const ir::Value* v) {
  return v != nullptr && v->constant != nullptr && v->constant->size() == 1 &&
         v->constant->rank() <= 1;
}

bool is_plain(const Quantized& q) {
  const auto is = [](const ir::Value* v, ir::DType t) {
    return v != nullptr && v->type.is_tensor() && v->type.dtype == t;
  };
  if (q.value == nullptr || !q.value->type.is_tensor() || !is_byte(q.value->type.dtype))
    return false;
  if (!is_one_number(q.scale) || !is(q.scale, ir::DType::Float32)) return false;
  const double scale = q.scale->constant->double_at(0);
  return scale > 0.0 && std::isfinite(scale) &&
         (q.zero == nullptr || (is_one_number(q.zero) && is(q.zero, q.value->type.dtype)));
}

bool is_plain_weight(Quantized& q, std::size_t axis) {
  if (q.value == nullptr || q.scale == nullptr || !q.value->constant || !q.scale->constant)
    return false;
  const ir::Tensor& w = *q.value->constant;
  const ir::Tensor& scale = *q.scale->constant;
  if (!is_byte(w.dtype()) || scale.dtype() != ir::DType::Float32) return false;
  if (q.zero != nullptr) {
    if (!q.zero->constant || q.zero->constant->dtype() != w.dtype()) return false;
    if (is_zero(*q.zero->constant)) q.zero = nullptr;
  }
  if (is_one_number(q.scale)) return q.zero == nullptr || is_one_number(q.zero);
  if (axis >= w.rank() || scale.rank() != 1 || scale.size() != w.dims()[axis]) return false;
  if (q.zero != nullptr && q.zero->constant->dims() != scale.dims()) return false;
  q.axis = static_cast<std::int64_t>(axis);
  return true;
}

bool same_value(const ir::Value* a, const ir::Value* b) {
  return a == b || (a != nullptr && b != nullptr && a->constant && b->constant &&
                    a->constant->same(*b->constant));
}

ir::Node* add_real(Rewriter& w, ir::Node& n, std::string_view op_type, const Values& inputs,
                   const ir::Value& from, std::int64_t opset) {
  ir::Type type = ir::Type::tensor(ir::DType::Float32, ir::Shape());
  ir::Node* made = w.add_new(op_type, inputs, from.name, std::move(type), opset, n);
  made->metadata = n.metadata;
  return made;
}

ir::Value* dequantized(Rewriter& w, ir::Node& n, const Quantized& q) {
  const auto is_before = [&](const ir::Value* v) {
    return v == nullptr || v->producer() == nullptr || v->producer() == q.value->producer();
  };
  const ir::Node* producer = q.value->producer();
  const bool shared = producer != nullptr && producer->graph() == n.graph() &&
                      is_before(q.scale) && is_before(q.zero);
  if (shared) {
    if (ir::Node* found = find_dequantized(q)) {
      if (found != producer->next()) n.graph()->move_before(found, producer->next());
      // It is no longer what the file calls so: that is not read where the integers are.
      found->output(0)->name = w.model().new_name(q.value->name);
      return found->output(0);
    }
  }
  Values inputs{q.value, q.scale};
  if (q.zero != nullptr) inputs.push_back(q.zero);
  ir::Node& place = shared ? *producer->next() : n;
  ir::Node* made = add_real(w, place, "DequantizeLinear", inputs, *q.value);
  // What is quantised by its own range is so for those who read it, wherever they are.
  const bool of_readers = producer != nullptr && q.scale->producer() == producer;
  made->metadata = of_readers ? decltype(n.metadata){} : shared ? producer->metadata : n.metadata;
  made->name = of_readers ? common_scope(*q.value) : shared ? producer->name : n.name;
  made->output(0)->type.shape = q.value->type.shape;
  if (q.axis) set_attr(*made, "axis", *q.axis);
  return made->output(0);
}

void copy_attributes(const ir::Node& from, ir::Node& to,
                     std::initializer_list<std::string_view> names) {
  for (const ir::Attribute& a : from.attributes) {
    if (std::find(names.begin(), names.end(), a.name) == names.end()) continue;
    if (const auto* i = std::get_if<std::int64_t>(&a.data)) set_attr(to, a.name, *i);
    if (const auto* f = std::get_if<double>(&a.data)) set_attr(to, a.name, *f);
    if (const auto* s = std::get_if<std::string>(&a.data)) set_attr(to, a.name, *s);
    if (const auto* v = std::get_if<Ints>(&a.data)) set_attr(to, a.name, *v);
  }
}

}  // namespace onnx2nn::passes
