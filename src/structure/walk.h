// Going through the program's expressions and statements, and changing them.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "torch/program.h"

namespace onnx2nn::structure {

/// Whether it is a call of an ATen function, whatever its overload.
inline bool is_aten(const torch::Expr& e, std::string_view function) {
  return e.kind == torch::ExprKind::Aten && torch::function_of(e) == function;
}

/// Calls `see(expr)` for the expression and all in it, outer ones first.
template <typename See>
void each_expr(const torch::Expr& e, See&& see) {
  see(e);
  for (const auto& a : e.args) each_expr(*a, see);
  for (const auto& [_, v] : e.keywords) each_expr(*v, see);
}

/// The same for a statement, with those in it.
template <typename See>
void each_expr(const torch::Stmt& s, See&& see) {
  each_expr(*s.value, see);
  each_expr(*s.place, see);
  for (const torch::Block* b : {&s.body, &s.orelse})
    for (const torch::Stmt& inner : *b) each_expr(inner, see);
}

/// Calls `see(variable, whether it is set)`; what a statement reads comes before what it sets.
template <typename See>
void each_var(const torch::Stmt& s, See&& see) {
  const auto read = [&](const torch::Expr& e) {
    if (e.kind == torch::ExprKind::Var) see(e.var, false);
  };
  each_expr(*s.value, read);
  each_expr(*s.place, read);
  for (const auto& v : s.params) see(v, true);
  if (s.kind != torch::Stmt::Kind::Assign)
    for (const auto& v : s.targets) see(v, true);
  for (const torch::Block* b : {&s.body, &s.orelse})
    for (const torch::Stmt& inner : *b) each_var(inner, see);
  if (s.kind == torch::Stmt::Kind::Assign)
    for (const auto& v : s.targets) see(v, true);
}

/// Whether its place among others of its kind matters: it draws from one source of random numbers.
inline bool draws(const torch::Expr& e) {
  bool found = false;
  each_expr(e, [&](const torch::Expr& x) {
    if (x.kind != torch::ExprKind::Aten && x.kind != torch::ExprKind::Helper &&
        x.kind != torch::ExprKind::Function)
      return;
    for (const std::string_view name : {"rand", "bernoulli", "multinomial", "dropout", "normal_"})
      found = found || x.text.find(name) != std::string::npos;
  });
  return found;
}

/// The variable of which the expression is a size, the sizes or the device; null for anything else.
inline const torch::Expr* size_of(const torch::Expr& e) {
  const bool asks = e.kind == torch::ExprKind::Size || e.kind == torch::ExprKind::ShapeOf ||
                    (e.kind == torch::ExprKind::Op && e.text == ".device");
  return asks && e.args[0]->kind == torch::ExprKind::Var ? e.args[0].get() : nullptr;
}

/// Calls `see` for each variable that is read for more than its sizes.
template <typename See>
void each_taken(const torch::Expr& e, See&& see) {
  if (e.kind == torch::ExprKind::Var) return see(e.var);
  if (size_of(e) != nullptr) return;
  for (const auto& a : e.args) each_taken(*a, see);
  for (const auto& [_, v] : e.keywords) each_taken(*v, see);
}

/// The same for a statement, with those in it.
template <typename See>
void each_taken(const torch::Stmt& s, See&& see) {
  each_taken(*s.value, see);
  each_taken(*s.place, see);
  for (const torch::Block* b : {&s.body, &s.orelse})
    for (const torch::Stmt& inner : *b) each_taken(inner, see);
}

/// Whether the call only moves the elements of its first argument, which stays what it is.
inline bool keeps_meaning(const torch::Expr& e) {
  if (e.kind != torch::ExprKind::Aten || e.args.empty()) return false;
  const std::string_view name = torch::function_of(e);
  for (const std::string_view kept :
       {"transpose", "permute", "reshape", "view", "unsqueeze", "squeeze", "contiguous", "flatten",
        "unflatten", "expand"})
    if (name == kept) return true;
  return false;
}

/// The expression with `change(e)` in the place of each `e` for which that is not null; what is
/// changed is not looked into.
template <typename Change>
torch::ExprPtr rewritten(const torch::ExprPtr& e, Change&& change) {
  if (torch::ExprPtr r = change(e)) return r;
  std::shared_ptr<torch::Expr> copy;
  const auto own = [&]() -> torch::Expr& {
    if (!copy) copy = std::make_shared<torch::Expr>(*e);
    return *copy;
  };
  for (std::size_t i = 0; i < e->args.size(); ++i)
    if (torch::ExprPtr r = rewritten(e->args[i], change); r != e->args[i])
      own().args[i] = std::move(r);
  for (std::size_t i = 0; i < e->keywords.size(); ++i)
    if (torch::ExprPtr r = rewritten(e->keywords[i].second, change); r != e->keywords[i].second)
      own().keywords[i].second = std::move(r);
  return copy ? torch::ExprPtr(std::move(copy)) : e;
}

template <typename Change>
void rewrite(torch::Block& block, Change&& change) {
  for (torch::Stmt& s : block) {
    s.value = torch::Ex(rewritten(s.value.ptr(), change));
    if (!s.place.is_none()) s.place = torch::Ex(rewritten(s.place.ptr(), change));
    rewrite(s.body, change);
    rewrite(s.orelse, change);
  }
}

/// The variables that the statements set or take, exchanged by `change(variable)`.
template <typename Change>
void rename_targets(torch::Block& block, Change&& change) {
  for (torch::Stmt& s : block) {
    for (auto& v : s.targets) v = change(v);
    for (auto& v : s.params) v = change(v);
    rename_targets(s.body, change);
    rename_targets(s.orelse, change);
  }
}

}  // namespace onnx2nn::structure
