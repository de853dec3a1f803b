#include "torch/expr.h"

#include <algorithm>

#include "support/error.h"

namespace onnx2nn::torch {

// Python itself takes no more than a hundred parentheses or so; long sums nest without any.
constexpr std::uint32_t kMaxDepth = 500;

void Expr::reach(const Expr& arg) {
  depth = std::max(depth, arg.depth + 1);
  if (depth > kMaxDepth) fail("too-large", "an expression nests deeper than {} levels", kMaxDepth);
}

void Expr::add(ExprPtr arg) {
  reach(*arg);
  args.push_back(std::move(arg));
}

void Expr::add(std::string keyword, ExprPtr arg) {
  reach(*arg);
  keywords.emplace_back(std::move(keyword), std::move(arg));
}

namespace {

ExprPtr with_args(ExprKind kind, std::string text, const Args& args) {
  auto e = Ex::make(kind);
  e->text = std::move(text);
  e->args.reserve(args.size());
  for (const Ex& a : args) e->add(a.ptr());
  return e;
}

ExprPtr call_of(ExprKind kind, std::string function, const Args& args, const Kwargs& keywords) {
  auto e = Ex::make(kind);
  e->text = std::move(function);
  for (const Ex& a : args) e->add(a.ptr());
  for (const auto& [key, value] : keywords) e->add(key, value.ptr());
  return e;
}

}  // namespace

Ex name(std::string dotted) {
  return Ex(Ex::with_text(ExprKind::Name, std::move(dotted)));
}
Ex list(const Args& items) {
  return Ex(with_args(ExprKind::List, "", items));
}
Ex tuple(const Args& items) {
  return Ex(with_args(ExprKind::Tuple, "", items));
}

Ex aten(std::string overload, const Args& args, const Kwargs& keywords) {
  return Ex(call_of(ExprKind::Aten, std::move(overload), args, keywords));
}

Ex helper(std::string function, const Args& args, const Kwargs& keywords) {
  return Ex(call_of(ExprKind::Helper, std::move(function), args, keywords));
}

Ex call(std::string function, const Args& args, const Kwargs& keywords) {
  return Ex(call_of(ExprKind::Function, std::move(function), args, keywords));
}

Ex op(std::string operation, const Args& args) {
  return Ex(with_args(ExprKind::Op, std::move(operation), args));
}

Ex size(const Ex& tensor, std::int64_t dim, std::string hint) {
  auto e = Ex::make(ExprKind::Size);
  e->add(tensor.ptr());
  e->integer = dim;
  e->text = std::move(hint);
  return Ex(ExprPtr(std::move(e)));
}

Ex self() {
  return Ex(ExprPtr(Ex::make(ExprKind::Self)));
}

Ex attribute(const Ex& object, std::string name) {
  auto e = Ex::make(ExprKind::Attribute);
  e->text = std::move(name);
  e->add(object.ptr());
  return Ex(ExprPtr(std::move(e)));
}

Ex shape_of(const Ex& tensor) {
  return Ex(with_args(ExprKind::ShapeOf, "", {tensor}));
}

std::string_view function_of(const Expr& aten) {
  return std::string_view(aten.text).substr(0, aten.text.find('.'));
}

ExprPtr only_number(const Expr& list) {
  if (list.kind != ExprKind::List || list.args.empty()) return nullptr;
  const ExprPtr& first = list.args[0];
  const bool same = std::all_of(list.args.begin(), list.args.end(), [&](const ExprPtr& x) {
    return x->kind == ExprKind::Int && x->integer == first->integer;
  });
  return same ? first : nullptr;
}

}  // namespace onnx2nn::torch
