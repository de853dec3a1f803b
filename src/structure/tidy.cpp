#include "structure/tidy.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_map>

#include "structure/steps.h"
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

constexpr std::size_t kName = 5;   // characters of a variable, before it has its name
constexpr std::size_t kPart = 64;  // of what goes into another expression
constexpr std::size_t kLine = 70;  // of an expression behind "name = "

/// Of `user` with `value` in the place of a variable.
std::size_t joined_width(const Expr& user, const Expr& value) {
  return width(user) + width(value) - kName;
}

/// A call of a member: self.layer(x).
bool is_call(const Expr& e) {
  return (e.kind == ExprKind::Op && e.text == "call") || e.kind == ExprKind::Aten ||
         e.kind == ExprKind::Function || e.kind == ExprKind::Helper;
}

/// Printed as a subscript, which is no step to follow.
bool is_subscript(const Expr& e) {
  const auto base = torch::function_of(e);
  return e.kind == ExprKind::Aten && (base == "unsqueeze" || base == "slice" || base == "select");
}

int nesting(const Expr& e) {
  int inner = 0;
  for (const auto& a : e.args) inner = std::max(inner, nesting(*a));
  for (const auto& [_, v] : e.keywords) inner = std::max(inner, nesting(*v));
  return is_call(e) && !is_subscript(e) ? inner + 1 : inner;
}

class Tidier {
 public:
  explicit Tidier(torch::Function& function) : function_(function) {
    count(function.body);
  }

  void run() {
    read_members(function_.body);
    lift_views(function_.body);
    block(function_.body);
  }

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

  /// self.table, or an element or a part of a member.
  static bool is_member(const Expr& e) {
    const Expr* x = &e;
    while (x->kind == ExprKind::Attribute) x = x->args[0].get();
    return x != &e && x->kind == ExprKind::Self;
  }

  /// A weight or table of the module needs no variable.
  void read_members(Block& b) {
    std::unordered_map<int, ExprPtr> members;
    std::erase_if(b, [&](const Stmt& s) {
      const bool plain = s.kind == Stmt::Kind::Assign && s.targets.size() == 1 &&
                         writes_[s.targets[0]->id] == 1 && is_member(*s.value);
      if (plain) members.emplace(s.targets[0]->id, s.value.ptr());
      return plain;
    });
    if (members.empty()) return;
    rewrite(b, [&](const ExprPtr& e) -> ExprPtr {
      if (e->kind != ExprKind::Var) return nullptr;
      const auto it = members.find(e->var->id);
      return it == members.end() ? nullptr : it->second;
    });
  }

  /// What gives its only operand another shape, as calls of methods.
  static const Expr* viewed(const Expr& e) {
    static const std::set<std::string_view> kNames = {"contiguous", "flatten",   "movedim", "permute",
                                                      "reshape",    "transpose", "unflatten", "view"};
    const Expr* x = &e;
    while (x->kind == ExprKind::Aten && kNames.count(torch::function_of(*x)) != 0)
      x = x->args[0].get();
    return x != &e && x->kind == ExprKind::Var ? x : nullptr;
  }

  /// Such a statement comes right after the one whose value it alone reads:
  /// q = self.query(x).unflatten(-1, (4, 8)), and not after all three projections.
  void lift_views(Block& b) {
    std::vector<Block> groups;
    std::unordered_map<int, std::size_t> made;  // in which group
    for (Stmt& s : b) {
      lift_views(s.body);
      lift_views(s.orelse);
      std::size_t at = groups.size();
      const Expr* x = s.kind == Stmt::Kind::Assign && s.targets.size() == 1 ? viewed(*s.value) : nullptr;
      if (x != nullptr && reads_[x->var->id] == 1 && writes_[x->var->id] == 1 &&
          writes_[s.targets[0]->id] == 1 && made.count(x->var->id) != 0) {
        const std::size_t group = made.at(x->var->id);
        bool lifts = true;
        each_expr(*s.value, [&](const Expr& e) {
          if (e.kind != ExprKind::Var || made.count(e.var->id) == 0) return;
          lifts = lifts && writes_[e.var->id] == 1 && made.at(e.var->id) <= group;
        });
        const Stmt& last = groups[group].back();
        if (lifts && last.kind == Stmt::Kind::Assign && last.targets.size() == 1) at = group;
      }
      if (at == groups.size()) groups.emplace_back();
      each_var(s, [&](const torch::VarPtr& v, bool sets) {
        if (sets) made[v->id] = at;
      });
      groups[at].push_back(std::move(s));
    }
    b.clear();
    for (Block& group : groups)
      for (Stmt& s : group) b.push_back(std::move(s));
  }

  void block(Block& b) {
    Block out;
    for (Stmt& s : b) {
      check_interrupt();
      block(s.body);
      block(s.orelse);
      // The nearest ones first, so that what stands before those comes next to their reader.
      for (bool again = true; again;) {
        again = false;
        if (!out.empty() && goes_into(out.back(), s)) {
          put_into(out.back(), s);
          out.pop_back();
          again = true;
        } else if (const std::size_t at = sinking(out, s); at < out.size()) {
          put_into(out[at], s);
          out.erase(out.begin() + static_cast<std::ptrdiff_t>(at));
          again = true;
        }
      }
      out.push_back(std::move(s));
    }
    b = std::move(out);
  }

  static void put_into(const Stmt& s, Stmt& user) {
    const int id = s.targets[0]->id;
    const ExprPtr value = s.value.ptr();
    user.value = Ex(rewritten(user.value.ptr(), [&](const ExprPtr& e) -> ExprPtr {
      return e->kind == ExprKind::Var && e->var->id == id ? value : nullptr;
    }));
    if (user.origin.empty()) user.origin = s.origin;
  }

  /// Which of the last statements is an operand of the sum or product `user`, and may be computed
  /// there; `out.size()` where none is: q * cos before q is taken apart for the other summand.
  std::size_t sinking(const Block& out, const Stmt& user) {
    constexpr std::size_t kReach = 3;
    if (user.kind != Stmt::Kind::Assign || !is_infix(*user.value)) return out.size();
    for (std::size_t back = 2; back <= std::min(kReach, out.size()); ++back) {
      const Stmt& s = out[out.size() - back];
      if (s.kind != Stmt::Kind::Assign || s.targets.size() != 1) continue;
      const int id = s.targets[0]->id;
      if (!is_operand(*user.value, id) || !is_infix(*s.value) || nesting(*s.value) > 1) continue;
      bool stays = writes_[id] == 1 && reads_[id] == 1 && !has_order(*s.value);
      for (std::size_t k = out.size() - back + 1; k < out.size(); ++k) {
        stays = stays && out[k].kind == Stmt::Kind::Assign;
        for (const auto& v : out[k].targets) stays = stays && uses(*s.value, v->id) == 0;
      }
      if (stays && joined_width(*user.value, *s.value) <= kLine) return out.size() - back;
    }
    return out.size();
  }

  /// What may draw random numbers: a module's own work is not known here.
  static bool has_order(const Expr& e) {
    bool found = draws(e);
    each_expr(e, [&](const Expr& x) {
      found = found || (x.kind == ExprKind::Op && x.text == "call");
    });
    return found;
  }

  /// Whether all that the reader computes before it reads the variable may as well come later.
  static bool keeps_order(const Stmt& s, const Stmt& user) {
    if (!has_order(*s.value)) return true;
    bool before = false;
    bool found = false;
    const auto see = [&](auto&& again, const Expr& e) -> void {
      if (found) return;
      if (e.kind == ExprKind::Var && e.var->id == s.targets[0]->id) found = true;
      for (const auto& a : e.args) again(again, *a);
      for (const auto& [_, v] : e.keywords) again(again, *v);
      const bool call = e.kind == ExprKind::Op && e.text == "call";
      if (!found) before = before || call || draws(e);
    };
    see(see, *user.value);
    return !before;
  }

  static bool has_rounding(const Expr& e) {
    bool found = false;
    each_expr(e, [&](const Expr& x) {
      found = found || (x.kind == ExprKind::Helper && is_fake_quantize(x.text));
    });
    return found;
  }

  static bool is_operand(const Expr& e, int id) {
    return std::any_of(e.args.begin(), e.args.end(), [&](const ExprPtr& a) {
      return a->kind == ExprKind::Var && a->var->id == id;
    });
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
    if (!keeps_order(s, next)) return false;
    const Expr& value = *s.value;
    const Expr& user = *next.value;
    // What only gives a value its name, such as a branch's result.
    if (next.kind == Stmt::Kind::Assign && user.kind == ExprKind::Var) return true;
    if (next.kind == Stmt::Kind::If) {
      const bool simple =
          user.kind == ExprKind::Var || (user.kind == ExprKind::Op && user.text == "not");
      return simple && width(value) <= 60;
    }
    const bool choice = value.kind == ExprKind::Op && value.text == "if";
    if (!is_call(value) && !(choice && next.kind == Stmt::Kind::Return)) return false;
    constexpr std::size_t kRounded = 100;  // what it calls is shorter than it is taken for
    constexpr std::size_t kPassed = 88;    // the same, in a call of a layer
    const bool is_rounded = value.kind == ExprKind::Helper && is_fake_quantize(value.text);
    // The sign of a variable is short anywhere.
    if (is_prefix(value) && value.args[0]->kind == ExprKind::Var && user.kind == ExprKind::Aten)
      return joined_width(user, value) <= kLine;
    if (next.kind == Stmt::Kind::Return && user.kind == ExprKind::Var)
      return width(value) <= (is_rounded ? kRounded : 72);
    // A chain of layers: self.relu(self.norm(self.conv(x))).
    const bool chain = user.kind == ExprKind::Op && user.text == "call" && user.args.size() >= 2 &&
                       user.args[1]->kind == ExprKind::Var && user.args[1]->var->id == id;
    const bool rounds = user.kind == ExprKind::Helper && user.text.starts_with("fake_quantize");
    const bool rounded = value.kind == ExprKind::Helper && value.text == "fake_quantize_by_range";
    if (user.kind != ExprKind::Aten && !chain && !rounds) return false;
    // A layer or a change of shape takes what was rounded; arithmetic with it has a line of its own, but
    // for a variable and a number.
    constexpr std::size_t kShort = 55;
    if (is_rounded && is_infix(user) && is_infix(*value.args[0]) && value.args[0]->args.size() == 2 &&
        value.args[0]->args[0]->kind == ExprKind::Var && value.args[0]->args[1]->kind == ExprKind::Float)
      return joined_width(user, value) <= kShort;
    const bool passes_on = chain || viewed(user) != nullptr;
    if (value.kind == ExprKind::Helper && !(rounded && chain) && !(is_rounded && passes_on)) return false;
    // The heart of an attention has a line of its own.
    if (torch::function_of(value) == "scaled_dot_product_attention") return false;
    // An operand of arithmetic, or what an activation, a method or a layer is applied to.
    const Expr* head = user.args.empty() ? &user : user.args[0].get();
    while (head->kind == ExprKind::Aten && !head->args.empty()) head = head->args[0].get();
    const bool first = head->kind == ExprKind::Var && head->var->id == id;
    if (!is_infix(user) && !is_prefix(user) && !first && !chain) return false;
    if (nesting(value) > (is_infix(value) ? 3 : 2) || width(value) > kPart) return false;
    if (rounds && has_rounding(value)) return is_infix(value) && joined_width(user, value) <= kPassed;
    return joined_width(user, value) <= (rounds ? kRounded : is_rounded ? kPassed : kLine);
  }

  torch::Function& function_;
  std::unordered_map<int, int> reads_, writes_;
};

}  // namespace

std::size_t width(const Expr& e) {
  std::size_t items = 0;
  for (const auto& a : e.args) items += width(*a) + 2;
  for (const auto& [key, v] : e.keywords) items += key.size() + width(*v) + 3;
  if (items > 0) items -= 2;  // a comma and a blank between two
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
      return items + 1 + e.text.size();
    case ExprKind::Aten:
      return items + (is_infix(e) ? 1 : torch::function_of(e).size() + 3);
    case ExprKind::Size:
      return items + 9;
    case ExprKind::Op:
      return items + (e.text == "call" || e.text == "[]" ? 0 : e.text.size() + 2);
    default:
      return items + e.text.size() + 2;
  }
}

void tidy(torch::Function& function) {
  Tidier(function).run();
}

}  // namespace onnx2nn::structure
