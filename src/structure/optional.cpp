#include "structure/optional.h"

#include <algorithm>
#include <string_view>

#include "structure/walk.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

bool is_member(const Expr& e, const std::string& name) {
  return e.kind == ExprKind::Attribute && e.text == name && e.args[0]->kind == ExprKind::Self;
}

bool calls_member(const Expr& e, const std::string& name) {
  return e.kind == ExprKind::Op && e.text == "call" && is_member(*e.args[0], name);
}

bool has_member(const Own& own, const std::string& name) {
  return std::any_of(own.members.begin(), own.members.end(), [&](const Member& m) { return m.name == name; });
}

Own copy_of(const Own& own) {
  Own copy;
  copy.path = own.path;
  copy.parent = own.parent;
  copy.methods = own.methods;
  copy.members = own.members;
  return copy;
}

/// Drops a statement; what reads its result reads `taken` instead.
void drop(Method& m, std::size_t at, const ExprPtr& taken) {
  const int made = m.body[at].targets[0]->id;
  m.body.erase(m.body.begin() + static_cast<std::ptrdiff_t>(at));
  rewrite(m.body, [&](const ExprPtr& x) -> ExprPtr {
    return x->kind == ExprKind::Var && x->var->id == made ? taken : nullptr;
  });
  for (auto& r : m.results)
    if (r->id == made) r = taken->var;
}

bool sets_one(const Stmt& s) { return s.kind == Stmt::Kind::Assign && s.targets.size() == 1; }

/// The module without a member that it calls once, with one tensor for another.
std::optional<Normal> without_member(const Own& own, const std::string& name) {
  Own copy = copy_of(own);
  std::erase_if(copy.members, [&](const Member& m) { return m.name == name; });
  int calls = 0;
  for (Method& m : copy.methods) {
    for (std::size_t i = 0; i < m.body.size(); ++i) {
      const ExprPtr e = m.body[i].value.ptr();
      if (!sets_one(m.body[i]) || !calls_member(*e, name) || e->args.size() != 2 ||
          e->args[1]->kind != ExprKind::Var)
        continue;
      ++calls;
      for (const auto& r : m.results)
        if (r->id == m.body[i].targets[0]->id) return std::nullopt;
      drop(m, i--, e->args[1]);
    }
  }
  bool left = false;
  for (const Method& m : copy.methods)
    for (const Stmt& s : m.body)
      each_expr(s, [&](const Expr& e) { left = left || is_member(e, name); });
  if (calls != 1 || left) return std::nullopt;
  return normal_form(copy);
}

/// What a statement computes that it may leave out, and what it would give then.
struct Call {
  std::string flag;
  ExprPtr otherwise;
};

std::optional<Call> optional_call(const Stmt& s, const Method& m) {
  const Expr& e = *s.value;
  if (!sets_one(s) || e.kind != ExprKind::Aten || !e.keywords.empty() ||
      std::any_of(e.args.begin(), e.args.end(), [](const auto& a) { return a->kind != ExprKind::Var; }))
    return std::nullopt;
  const std::string name(torch::function_of(e));
  if (e.args.size() == 1) {
    for (const std::string_view one :
         {"relu", "relu6", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "mish"})
      if (name == one) return Call{name, e.args[0]};
    return std::nullopt;
  }
  if (name != "add" || e.args.size() != 2 || m.params.empty()) return std::nullopt;
  // What came in, and what was made of it.
  for (const std::size_t i : {0, 1})
    if (e.args[i]->var->id == m.params[0]->id && e.args[1 - i]->var->id != m.params[0]->id)
      return Call{"residual", e.args[1 - i]};
  return std::nullopt;
}

}  // namespace

std::vector<std::pair<OptionalPart, Normal>> optional_parts(const Own& own) {
  std::vector<std::pair<OptionalPart, Normal>> out;
  for (const Member& m : own.members) {
    if (m.kind != Member::Kind::Own && m.kind != Member::Kind::Module) continue;
    if (auto bare = without_member(own, m.name)) out.emplace_back(OptionalPart{m.name, std::nullopt}, std::move(*bare));
  }
  if (own.methods.size() != 1) return out;
  const Method& m = own.methods[0];
  for (std::size_t at = 0; at < m.body.size(); ++at) {
    const auto call = optional_call(m.body[at], m);
    if (!call || has_member(own, call->flag)) continue;
    Own copy = copy_of(own);
    drop(copy.methods[0], at, call->otherwise);
    out.emplace_back(OptionalPart{call->flag, m.body[at].targets[0]->id}, normal_form(copy));
  }
  return out;
}

bool is_of(const Stmt& s, const OptionalPart& part) {
  return sets_one(s) && (part.call ? s.targets[0]->id == *part.call : calls_member(*s.value, part.name));
}

void make_optional(Method& m, const OptionalPart& part) {
  for (Stmt& s : m.body) {
    if (!is_of(s, part)) continue;
    if (!part.call) {
      s.value = torch::op("if", {torch::op("is", {Ex(s.value->args[0]), Ex()}), Ex(s.value->args[1]), s.value});
    } else if (const auto call = optional_call(s, m)) {
      s.value = torch::op("if", {torch::attribute(torch::self(), part.name), s.value, Ex(call->otherwise)});
    }
  }
}

}  // namespace onnx2nn::structure
