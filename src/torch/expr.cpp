#include "torch/expr.h"

namespace onnx2nn::torch {
namespace {

ExprPtr with_args(ExprKind kind, std::string text, const Args& args) {
  auto e = Ex::make(kind);
  e->text = std::move(text);
  e->args.reserve(args.size());
  for (const Ex& a : args) e->args.push_back(a.ptr());
  return e;
}

ExprPtr call_of(ExprKind kind, std::string function, const Args& args, const Kwargs& keywords) {
  auto e = Ex::make(kind);
  e->text = std::move(function);
  for (const Ex& a : args) e->args.push_back(a.ptr());
  for (const auto& [key, value] : keywords) e->keywords.emplace_back(key, value.ptr());
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
  e->args.push_back(tensor.ptr());
  e->integer = dim;
  e->text = std::move(hint);
  return Ex(ExprPtr(std::move(e)));
}

Ex shape_of(const Ex& tensor) {
  return Ex(with_args(ExprKind::ShapeOf, "", {tensor}));
}

}  // namespace onnx2nn::torch
