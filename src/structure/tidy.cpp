#include "structure/tidy.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_map>

#include "structure/walk.h"
#include "support/interrupt.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

/// Printed between its operands.
bool is_infix(const Expr& e) {
  static const std::set<std::string_view> kNames = {
      "add", "sub", "mul", "div", "matmul", "remainder",   "floor_divide", "pow", "eq",
      "ne",  "lt",  "le",  "gt",  "ge",     "bitwise_and", "bitwise_or",   "bitwise_xor"};
  return e.kind == ExprKind::Aten && kNames.count(torch::function_of(e)) != 0 && e.keywords.empty();
}
bool is_prefix(const Expr& e) {
  return e.kind == ExprKind::Aten && (torch::function_of(e) == "neg" || torch::function_of(e) == "bitwise_not");
}

/// A call of a member: self.layer(x).
bool is_call(const Expr& e) {
  return (e.kind == ExprKind::Op && e.text == "call") || e.kind == ExprKind::Aten ||
         e.kind == ExprKind::Function || e.kind == ExprKind::Helper;
}

int nesting(const Expr& e) {
  int inner = 0;
  for (const auto& a : e.args) inner = std::max(inner, nesting(*a));
  for (const auto& [_, v] : e.keywords) inner = std::max(inner, nesting(*v));
  return is_call(e) ? inner + 1 : inner;
}

class Tidier {
 public:
  explicit Tidier(torch::Function& function) : function_(function) {
    count(function.body);
  }

  void run() { block(function_.body); }

 private:
  void count(const Block& b) {
    for (const Stmt& s : b) {
      const auto read = [&](const Expr& e) {
        if (e.kind == ExprKind::Var) ++reads_[e.var->id];
      };
      each_expr(*s.value, read);
      each_expr(*s.place, read);
      for (const auto& v : s.targets) ++writes_[v->id];
      count(s.body);
      count(s.orelse);
    }
  }

  void block(Block& b) {
    Block out;
    for (std::size_t i = 0; i < b.size(); ++i) {
      check_interrupt();
      block(b[i].body);
      block(b[i].orelse);
      if (i + 1 < b.size() && goes_into(b[i], b[i + 1])) {
        const int id = b[i].targets[0]->id;
        const ExprPtr value = b[i].value.ptr();
        Stmt& next = b[i + 1];
        next.value = Ex(rewritten(next.value.ptr(), [&](const ExprPtr& e) -> ExprPtr {
          return e->kind == ExprKind::Var && e->var->id == id ? value : nullptr;
        }));
        if (next.origin.empty()) next.origin = b[i].origin;
        continue;
      }
      out.push_back(std::move(b[i]));
    }
    b = std::move(out);
  }

  static int uses(const Expr& e, int id) {
    int n = 0;
    each_expr(e, [&](const Expr& x) { n += x.kind == ExprKind::Var && x.var->id == id ? 1 : 0; });
    return n;
  }

  bool goes_into(const Stmt& s, const Stmt& next) {
    if (s.kind != Stmt::Kind::Assign || s.targets.size() != 1) return false;
    if (next.kind != Stmt::Kind::Assign && next.kind != Stmt::Kind::Return &&
        next.kind != Stmt::Kind::If)
      return false;
    const int id = s.targets[0]->id;
    if (writes_[id] != 1 || reads_[id] != 1 || uses(*next.value, id) != 1) return false;
    const Expr& value = *s.value;
    const Expr& user = *next.value;
    // What only gives a value its name, such as a branch's result.
    if (next.kind == Stmt::Kind::Assign && user.kind == ExprKind::Var) return true;
    if (next.kind == Stmt::Kind::If) {
      const bool simple =
          user.kind == ExprKind::Var || (user.kind == ExprKind::Op && user.text == "not");
      return simple && width(value) <= 60;
    }
    if (!is_call(value)) return false;
    constexpr std::size_t kLine = 68;
    constexpr std::size_t kRounded = 100;  // what it calls is shorter than it is taken for
    const bool is_rounded = value.kind == ExprKind::Helper && value.text == "fake_quantize";
    if (next.kind == Stmt::Kind::Return && user.kind == ExprKind::Var)
      return width(value) <= (is_rounded ? kRounded : 72);
    // A chain of layers: self.relu(self.norm(self.conv(x))).
    const bool chain = user.kind == ExprKind::Op && user.text == "call" && user.args.size() == 2 &&
                       user.args[1]->kind == ExprKind::Var;
    const bool rounds = user.kind == ExprKind::Helper && user.text.starts_with("fake_quantize");
    const bool rounded = value.kind == ExprKind::Helper && value.text == "fake_quantize_by_range";
    if (user.kind != ExprKind::Aten && !chain && !rounds) return false;
    if (value.kind == ExprKind::Helper && !(rounded && chain)) return false;
    // An operand of arithmetic, or what an activation, a method or a layer is applied to.
    const bool first =
        !user.args.empty() && user.args[0]->kind == ExprKind::Var && user.args[0]->var->id == id;
    if (!is_infix(user) && !is_prefix(user) && !first && !chain) return false;
    if (nesting(value) > (is_infix(value) ? 3 : 2) || width(value) > 48) return false;
    return width(user) + width(value) <= (rounds ? kRounded : kLine);
  }

  torch::Function& function_;
  std::unordered_map<int, int> reads_, writes_;
};

}  // namespace

std::size_t width(const Expr& e) {
  constexpr std::size_t kName = 6;
  std::size_t out = 0;
  for (const auto& a : e.args) out += width(*a) + 2;
  for (const auto& [key, v] : e.keywords) out += key.size() + width(*v) + 3;
  switch (e.kind) {
    case ExprKind::Var:
      return kName;
    case ExprKind::Int:
      return std::to_string(e.integer).size();
    case ExprKind::Float:
      return 5;
    case ExprKind::Str:
      return e.text.size() + 2;
    case ExprKind::DType:
      return 13;
    case ExprKind::Self:
      return 4;
    case ExprKind::Attribute:
      return out + e.text.size();
    case ExprKind::Aten:
      return out + (is_infix(e) ? 1 : torch::function_of(e).size() + 4);
    case ExprKind::Size:
      return out + 9;
    default:
      return out + e.text.size() + 2;
  }
}

void tidy(torch::Function& function) {
  Tidier(function).run();
}

}  // namespace onnx2nn::structure
