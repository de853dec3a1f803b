// What an operator's lowering may ask for, and what it may make.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "ops/lower.h"
#include "ops/names.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

/// Adds what tells an expression from others; equal variables, weights and modules are the same ones.
void add_identity(std::string& out, const torch::Expr& e) {
  const auto add = [&](const void* bytes, std::size_t size) {
    out.append(static_cast<const char*>(bytes), size);
  };
  const auto add_number = [&](auto n) { add(&n, sizeof n); };
  add_number(e.kind);
  add_number(e.integer);
  add_number(e.number);
  add_number(e.text.size());
  out += e.text;
  add_number(e.var.get());
  add_number(e.param.get());
  add_number(e.module.get());
  add_number(e.constant.get());
  add_number(e.args.size());
  for (const torch::ExprPtr& arg : e.args) add_identity(out, *arg);
  add_number(e.keywords.size());
  for (const auto& [name, arg] : e.keywords) {
    out += name + "=";
    add_identity(out, *arg);
  }
}

}  // namespace


using torch::Stmt;
using torch::VarPtr;

void LowerContext::carry_strings(std::initializer_list<std::size_t> inputs) {
  if (dtype(*inputs.begin()) != DType::String) return;
  for (const std::size_t i : inputs) {
    if (!has_input(i)) continue;
    const Ex x = in(i);
    Args args{x};
    args.insert(args.end(), strings_.begin(), strings_.end());
    places_[i] = let(helper("string_places", args), "places");
    strings_.push_back(x);
  }
}

Ex LowerContext::carried(const Ex& value) {
  if (strings_.empty()) return value;
  Args args{value};
  args.insert(args.end(), strings_.begin(), strings_.end());
  return helper("strings_at", args);
}

Ex LowerContext::in(std::size_t i) {
  if (const auto it = places_.find(i); it != places_.end()) return it->second;
  return has_input(i) ? l_.tensor_of(input(i)) : kNone;
}

bool LowerContext::is_scalar_constant(std::size_t i) const {
  const ir::Tensor* t = constant(i);
  return t != nullptr && t->rank() == 0 && ir::info(t->dtype()).kind != 's' &&
         ir::info(t->dtype()).kind != 'c' &&
         !(ir::is_float(t->dtype()) && is_as_authored(input(i)));
}

bool LowerContext::scope_has(std::string_view name) const {
  const torch::ScopePtr scope = l_.keys_.scope_of(node_);
  if (!scope) return false;
  return l_.keys_.said().count(join(torch::components_of(*scope), ".") + "." + std::string(name)) != 0;
}

Ex LowerContext::operand(std::size_t i) {
  if (is_scalar_constant(i)) return number(*constant(i));
  if (has_input(i)) {
    const Lowered l = l_.lowered(input(i));
    // A Python integer is as good as a tensor of rank 0 where the other operand is one.
    if (l.host && l.elements.size() == 1 && rank(i) == 0U) return l.elements[0];
  }
  return in(i);
}

std::optional<std::vector<Ex>> LowerContext::int_elements(std::size_t i) {
  if (!has_input(i)) return std::nullopt;
  if (const auto dims = contents(i)) {
    std::vector<Ex> out;
    for (const Dim& d : *dims) {
      const auto e = l_.integer(d);
      if (!e) break;
      out.push_back(*e);
    }
    if (out.size() == dims->size()) return out;
  }
  if (const ir::Tensor* t = constant(i)) {
    const Ints ints = t->to_ints();
    return std::vector<Ex>(ints.begin(), ints.end());
  }
  const Lowered l = l_.lowered(input(i));
  if (l.host) return l.elements;
  const Shape& s = shape(i);
  if (s.has_rank() && s.rank() == 0) return std::vector<Ex>{op("int", {l.ex})};
  if (s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() == 1)
    return std::vector<Ex>{op("int", {l.ex})};
  return std::nullopt;
}

Ex LowerContext::int_list(std::size_t i) {
  if (auto elements = int_elements(i)) return list(*elements);
  return op(".tolist", {in(i)});
}

Ex LowerContext::int_scalar(std::size_t i) {
  if (auto elements = int_elements(i); elements && elements->size() == 1) return (*elements)[0];
  return op("int", {in(i)});
}

std::optional<double> LowerContext::const_number(std::size_t i) const {
  const ir::Tensor* t = constant(i);
  if (t == nullptr || t->size() != 1 || ir::info(t->dtype()).kind == 's' ||
      ir::info(t->dtype()).kind == 'c')
    return std::nullopt;
  return t->double_at(0);
}

Ex LowerContext::dim(std::size_t i, std::int64_t a) {
  const Shape& s = shape(i);
  if (s.has_rank()) {
    a = axis(a, s.rank());
    if (const auto e = l_.integer(s[static_cast<std::size_t>(a)])) return *e;
  }
  return torch::size(in(i), a);
}

std::optional<std::vector<Ex>> LowerContext::sizes(const Shape& shape) {
  if (!shape.has_rank()) return std::nullopt;
  std::vector<Ex> out;
  for (const Dim& d : shape.dims()) {
    const auto e = l_.integer(d);
    if (!e) return std::nullopt;
    out.push_back(*e);
  }
  return out;
}

namespace {

std::size_t nodes_of(const torch::Expr& e) {
  std::size_t sum = 1;
  for (const auto& a : e.args) sum += nodes_of(*a);
  for (const auto& [_, v] : e.keywords) sum += nodes_of(*v);
  return sum;
}

}  // namespace

void LowerContext::emit(Stmt statement) {
  // What a part of an expression takes until it is printed.
  constexpr std::size_t kBytes = 16;
  node_.graph()->model()->budget().charge(Resource::Source, kBytes * nodes_of(*statement.value),
                                          node_.name.empty() ? node_.op_type : node_.name);
  statement.origin = node_.name;
  statement.scope = l_.keys_.scope_of(node_);
  l_.block_->push_back(std::move(statement));
}

void LowerContext::out(std::size_t i, const Ex& moved) {
  const ir::Value* v = node_.output(i);
  if (v == nullptr) return;
  const Ex value = carried(moved);
  // What is said already needs no second name.
  if (value->kind == torch::ExprKind::Var) return alias(i, value);
  const VarPtr var = l_.new_var(variable_hint(v->name, node_.op_type), v);
  Stmt s;
  s.targets = {var};
  s.value = value;
  emit(std::move(s));
  l_.define(v, {.ex = Ex(var)});
}

void LowerContext::outs(const Ex& tuple, std::size_t size) {
  Stmt s;
  s.value = tuple;
  for (std::size_t i = 0; i < std::max(size, node_.output_count()); ++i) {
    const ir::Value* v = i < node_.output_count() ? node_.output(i) : nullptr;
    s.targets.push_back(l_.new_var(v != nullptr ? variable_hint(v->name, node_.op_type) : "_", v));
  }
  const auto targets = s.targets;
  emit(std::move(s));
  for (std::size_t i = 0; i < node_.output_count(); ++i)
    if (const ir::Value* v = node_.output(i))
      l_.define(v, {.ex = strings_.empty() ? Ex(targets[i]) : let(carried(Ex(targets[i])))});
}

void LowerContext::alias(std::size_t i, const Ex& value) {
  if (const ir::Value* v = node_.output(i)) l_.define(v, {.ex = value});
}

Ex LowerContext::let(const Ex& value, std::string hint) {
  const VarPtr var = l_.new_var(std::move(hint), nullptr);
  Stmt s;
  s.targets = {var};
  s.value = value;
  emit(std::move(s));
  return Ex(var);
}

Ex LowerContext::shared(const Ex& value, std::string hint, const char* type) {
  const auto made = [&] {
    Ex out = let(value, std::move(hint));
    out->var->type = type;
    return out;
  };
  // What a nested graph computes is known in it alone.
  if (l_.block_ != &l_.program_.forward) return made();
  std::string key;
  add_identity(key, *value);
  const auto [it, is_new] = l_.shared_.try_emplace(std::move(key), l_.block_->size());
  if (is_new) return made();
  Stmt& s = (*l_.block_)[it->second];
  const torch::ScopePtr scope = l_.keys_.scope_of(node_);
  s.scope = s.scope && scope
                ? std::make_shared<const torch::Scope>(torch::common_scope(*s.scope, *scope))
                : nullptr;
  return Ex(s.targets[0]);
}

Ex LowerContext::residual(const Ex& sum) {
  Stmt& s = l_.block_->back();
  s.targets[0]->hint = "x";
  const auto scope_of_input = [&](std::size_t i) {
    const ir::Value* v = input(i);
    return v != nullptr && v->producer() != nullptr ? l_.keys_.scope_of(*v->producer()) : nullptr;
  };
  const torch::ScopePtr own = s.scope;
  const torch::ScopePtr a = scope_of_input(0);
  const torch::ScopePtr b = scope_of_input(1);
  if (!own || own->empty() || !a || !b) return sum;
  torch::Scope around(own->begin(), own->end() - 1);
  torch::Scope both = torch::common_scope(*a, *b);
  s.scope = std::make_shared<const torch::Scope>(both.size() >= around.size() ? std::move(both)
                                                                               : std::move(around));
  return sum;
}

std::vector<Ex> LowerContext::lets(const Ex& tuple, const std::vector<std::string>& hints) {
  Stmt s;
  s.value = tuple;
  std::vector<Ex> out;
  for (const std::string& h : hints) {
    s.targets.push_back(l_.new_var(h, nullptr));
    out.emplace_back(s.targets.back());
  }
  emit(std::move(s));
  return out;
}

const ir::Node* LowerContext::only_user(std::string_view type) const {
  const ir::Value* v = node_.output(0);
  if (v == nullptr || !v->has_one_use()) return nullptr;
  const ir::Node* user = v->first_use()->user;
  return user->is(type) && user->graph() == node_.graph() ? user : nullptr;
}

void LowerContext::absorb(const ir::Node& other, const Ex& value) {
  const ir::Value* v = other.output(0);
  const VarPtr var = l_.new_var(variable_hint(v->name, other.op_type), v);
  Stmt s;
  s.targets = {var};
  s.value = value;
  emit(std::move(s));
  l_.define(v, {.ex = Ex(var)});
  l_.done_[&other] = true;
}

Ex LowerContext::buffer(std::string_view hint, ir::TensorPtr tensor) {
  return l_.buffer(hint, tensor);
}

}  // namespace onnx2nn::ops
