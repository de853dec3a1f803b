// What an operator's lowering may ask for, and what it may make.
#include <algorithm>
#include <utility>

#include "ops/lower.h"
#include "ops/names.h"
#include "support/text.h"

namespace onnx2nn::ops {

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
         ir::info(t->dtype()).kind != 'c';
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
  statement.scope = l_.scope_of(node_);
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

namespace {

std::string key_text(const Ex& e) {
  std::string out = std::to_string(static_cast<int>(e->kind)) + ":" + std::to_string(e->integer) +
                    ":" + std::to_string(e->number) + ":" + e->text;
  for (const auto& a : e->args) out += "(" + key_text(Ex(a)) + ")";
  return out;
}

/// Tells apart what weights are made of: equal modules of equal sources are one.
std::string source_text(const ModuleParam& p) {
  const auto address = [](const void* at) {
    return std::to_string(reinterpret_cast<std::uintptr_t>(at));
  };
  if (p.value != nullptr) return address(p.value);
  std::string out = address(p.tensor.get());
  for (const torch::Piece& piece : p.pieces)
    for (const std::int64_t n : {piece.offset, piece.rows, piece.columns, piece.stride,
                                 std::int64_t{piece.transpose}})
      out += "," + address(piece.tensor.get()) + ":" + std::to_string(n);
  return out;
}

/// Whether rows of the matrix are looked up, as those of an embedding are.
bool is_looked_up(const ir::Value& v) {
  for (const ir::Use* u = v.first_use(); u != nullptr; u = u->next)
    if (u->user->is("Gather") && u->index == 0) return true;
  return false;
}

/// Whether two paths are of modules of one name in different places, as two layers have them.
bool are_counterparts(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return !a.empty() && !b.empty() && a != b && a.back() == b.back();
}

}  // namespace

std::optional<Ex> LowerContext::module(const std::string& type, const Args& args,
                                       const Kwargs& keywords,
                                       const std::vector<ModuleParam>& given,
                                       const Args& call_args) {
  std::vector<ModuleParam> params = given;
  // Exporters merge equal constants. A buffer is never a parameter as well, and vectors of ones or
  // zeros are those of norms that were not trained yet: each has its own.
  for (std::size_t i = params.size(); i-- > 0;) {  // buffers come last, and leave the value to weights
    ModuleParam& p = params[i];
    if (p.value == nullptr || !p.value->constant) continue;
    const auto same = std::count_if(params.begin(), params.end(),
                                    [&](const ModuleParam& q) { return q.value == p.value; });
    const bool shared = same > 1 || l_.params_.count(p.value) != 0;
    if (shared && p.value->constant->rank() == 1 && (p.buffer || p.value->constant->is_splat()))
      p.tensor = std::exchange(p.value, nullptr)->constant;
  }
  for (ModuleParam& p : params) {
    if (p.value == nullptr) continue;
    p.value = l_.first_of(p.value);
    const auto weight = l_.weight_type(p.value);
    if (!weight || ir::is_sub_byte(weight->dtype)) return std::nullopt;
    // A scale for each element lies as the weight does.
    const bool moved = !p.shape.empty() && p.shape != weight->dims;
    if (moved && !p.value->constant && l_.quantized_.at(p.value).scale->size() != 1)
      return std::nullopt;
  }
  std::string key = type;
  for (const Ex& a : args) key += "|" + key_text(a);
  for (const auto& [k, v] : keywords) key += "|" + k + "=" + key_text(v);
  for (const ModuleParam& p : params)
    key += "|" + p.name + (p.transpose ? "^" : "=") + source_text(p);
  const auto called = [&](const torch::ModulePtr& m) {
    auto e = Ex::make(torch::ExprKind::Module);
    e->module = m;
    for (const Ex& a : call_args) e->add(a.ptr());
    return Ex(torch::ExprPtr(std::move(e)));
  };
  const torch::ScopePtr scope = l_.scope_of(node_);
  const std::vector<std::string> place = scope ? torch::components_of(*scope) : std::vector<std::string>{};
  // The innermost scope is the layer's own, unless the file says that it is another class.
  const bool is_scope =
      !place.empty() && (scope->back().type.empty() || scope->back().type == type);
  const std::string here = "@" + join(place, ".");
  // Exporters keep equal weights once: what has a scope of its own is another module.
  const auto is_other = [&](const std::vector<std::string>& path) {
    return is_scope && path != place && l_.containers_.count(join(place, ".")) == 0 &&
           (!scope->back().type.empty() || path.empty() || path.back() == place.back());
  };
  bool is_copy = false;
  std::string prefix;  // of the weights' names, where they are of the module around this one
  if (const auto it = l_.modules_by_key_.find(key); it != l_.modules_by_key_.end()) {
    if (!is_other(it->second->path)) return called(it->second);
    if (const auto again = l_.modules_by_key_.find(key + here); again != l_.modules_by_key_.end())
      return called(again->second);
    is_copy = true;
  }
  std::vector<bool> is_tied(params.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    const ModuleParam& p = params[i];
    if (p.value == nullptr) continue;
    // A weight twice in one module would be two parameters.
    for (const ModuleParam& q : params)
      if (&q != &p && q.value == p.value) return std::nullopt;
    const auto it = l_.params_.find(p.value);
    if (it == l_.params_.end()) continue;
    const torch::Param& other = *it->second;
    if (other.path.empty()) return std::nullopt;
    const std::vector<std::string> owner(other.path.begin(), other.path.end() - 1);
    const std::string& name = other.path.back();
    // In a module of its own by the file's word, an embedding's weight was tied by the author.
    is_tied[i] = type == "Linear" && is_scope && owner != place && is_looked_up(*p.value) &&
                 other.pieces.empty() && !p.transpose && !other.transpose && p.value->constant &&
                 other.shape == p.value->constant->dims();
    if (is_tied[i]) continue;
    if (name == p.name && is_other(owner)) {
      is_copy = true;
    } else if (type == "Linear" && name.ends_with("_" + p.name) && are_counterparts(place, owner)) {
      is_copy = true;
      prefix = name.substr(0, name.size() - p.name.size());
    } else {
      return std::nullopt;
    }
  }
  auto m = std::make_shared<torch::Module>();
  m->type = type;
  m->args = args;
  m->keywords = keywords;
  // The path: the weights' own prefix, else the node's scope, else the operator and a number.
  std::vector<std::string> path;
  if (is_copy) path = place;
  for (const ModuleParam& p : params) {
    if (!path.empty() || !prefix.empty()) break;
    if (is_scope && l_.signature_.count(join(place, ".") + "." + p.name) != 0) path = place;
    if (p.value == nullptr || !l_.named(p.value)->is_initializer || !path.empty()) continue;
    if (l_.params_.count(p.value) != 0) continue;
    const std::string name = l_.weight_name(p.value);
    if (auto components = key_components(name);
        components && components->size() > 1 && components->back() == p.name) {
      components->pop_back();
      path = std::move(*components);
      break;
    }
    // "conv0_weight" is of conv0; "attention.in_proj_bias" is of attention itself.
    const std::string suffix = "_" + p.name;
    if (auto components = key_components(name)) {
      std::string& last = components->back();
      if (last.size() <= suffix.size() || !last.ends_with(suffix)) continue;
      last.resize(last.size() - suffix.size());
      if (components->size() > 1 || l_.model_.info.producer_name == "pytorch") {
        if (type != "Linear") return std::nullopt;
        prefix = last + "_";
        components->pop_back();
      }
      path = std::move(*components);
      break;
    }
  }
  std::string stem = snake(type);
  if (stem.size() > 2 && stem.ends_with("d") && is_digit(stem[stem.size() - 2]))
    stem.resize(stem.size() - 2);
  if (path.empty() && prefix.empty()) {
    path = place;
    // A norm without weights of the author, in a module that has some by itself, is a part of that.
    const std::string inside = join(place, ".") + ".";
    const auto is_own = [](const ModuleParam& p) {
      return p.value != nullptr && p.value->is_initializer;
    };
    const auto next =
        std::lower_bound(l_.weight_names_.begin(), l_.weight_names_.end(), inside);
    const bool is_part = std::none_of(params.begin(), params.end(), is_own) &&
                         next != l_.weight_names_.end() && next->starts_with(inside);
    if (!path.empty() && (!is_scope || is_part)) path.push_back(stem);
  }
  if (path.empty() && prefix.empty()) path = {stem + "_" + std::to_string(++l_.stem_counts_[stem])};
  // A module of torch's has no children: where weights have names inside this one, it becomes such
  // a child.
  if (prefix.empty()) {
    while (l_.containers_.count(join(path, ".")) != 0) path.push_back(stem);
    path = l_.claim_path(path);
  }
  m->path = path;
  for (std::size_t i = 0; i < params.size(); ++i) {
    const ModuleParam& p = params[i];
    auto param = std::make_shared<torch::Param>();
    param->path = m->path;
    param->path.push_back(prefix + p.name);
    if (!prefix.empty()) param->path = l_.claim_path(param->path);
    if (is_tied[i]) {
      l_.program_.ties.push_back({param->path, l_.params_.at(p.value)});
      continue;
    }
    param->transpose = p.transpose;
    Ints dims;
    if (p.value != nullptr) {
      l_.store(param, p.value);
      dims = l_.weight_type(p.value)->dims;
    } else {
      param->tensor = p.tensor;
      param->pieces = p.pieces;
      param->dtype = param->stored_dtype();
      if (p.tensor) dims = p.tensor->dims();
    }
    param->shape = p.shape.empty() ? dims : p.shape;
    if (p.transpose && p.shape.empty()) std::swap(param->shape[0], param->shape[1]);
    param->trainable = !p.buffer && ir::info(param->dtype).kind == 'f';
    if (p.value != nullptr && l_.params_.emplace(p.value, param).second) {
      // Another use of the weight reads the module's parameter, in ONNX's layout.
      Ex ex = l_.param_expr(param);
      if (p.transpose) ex = aten("t", {ex});
      if (param->shape != dims && !p.transpose) ex = aten("reshape", {ex, Ex(dims)});
      l_.values_[p.value] = {.ex = ex};
    }
    m->params.emplace_back(p.name, param);
    l_.program_.params.push_back(param);
  }
  if (!prefix.empty()) {
    Args operands{call_args.at(0)};
    for (const auto& [_, param] : m->params) operands.push_back(l_.param_expr(param));
    return aten("linear", operands);
  }
  l_.program_.modules.push_back(m);
  l_.modules_by_key_.emplace(key, m);
  l_.modules_by_key_.emplace(key + here, m);
  return called(m);
}

}  // namespace onnx2nn::ops
