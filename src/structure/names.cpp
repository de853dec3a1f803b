#include "structure/names.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "structure/walk.h"
#include "support/error.h"
#include "support/counted.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Expr;
using torch::ExprKind;
using torch::Stmt;
using torch::VarPtr;

constexpr int kForever = 1 << 30;
constexpr double kLow = -1e4;  // what masks add to scores, or less

/// What people call the result of a function; "" where that says nothing.
std::string_view result_name(std::string_view function) {
  struct Row {
    std::string_view function, name;
  };
  static constexpr std::array kRows = {
      Row{"softmax", "weights"},   Row{"matmul", "scores"},      Row{"bmm", "scores"},
      Row{"arange", "positions"},  Row{"cos", "cos"},            Row{"sin", "sin"},
      Row{"embedding", "hidden"},  Row{"eq", "mask"},            Row{"ne", "mask"},
      Row{"lt", "mask"},           Row{"le", "mask"},            Row{"gt", "mask"},
      Row{"ge", "mask"},           Row{"logical_and", "mask"},   Row{"logical_or", "mask"},
      Row{"logical_not", "mask"},  Row{"bitwise_not", "mask"},   Row{"triu", "mask"},
      Row{"tril", "mask"},         Row{"argmax", "index"},       Row{"argmin", "index"},
      Row{"nonzero", "index"},     Row{"sigmoid", "gate"},       Row{"mean", "mean"},
      Row{"var", "variance"},      Row{"amax", "peak"},          Row{"exp", "exp"},
      Row{"scaled_dot_product_attention", "attention"},          Row{"topk", "values"},
  };
  for (const Row& row : kRows)
    if (row.function == function) return row.name;
  return "";
}

/// A layer's name as the name of what it gives: query of self.query(x), q of self.q_proj(x). "" where
/// it is just the layer's own.
std::string layer_name(std::string name) {
  static const std::set<std::string_view> kResults = {
      "q",  "k",  "v",   "query", "key",     "value",   "queries", "keys", "values",
      "kv", "qk", "qkv", "gate",  "up",      "context", "logits",  "bbox", "scores", "attn_weights"};
  name.resize(without_count(name).size());
  for (const std::string_view tail : {"_proj", "_projection", "_linear", "_lin", "_layer"})
    if (name.ends_with(tail) && name.size() > tail.size()) name.resize(name.size() - tail.size());
  for (const std::string_view head : {"to_", "linear_", "proj_", "w_"})
    if (name.starts_with(head)) name.erase(0, head.size());
  return kResults.count(name) != 0 ? name : "";
}

/// Names of operators say nothing of what a value is.
const std::set<std::string_view> kOperators = {
    "add",       "sub",     "mul",       "div",     "matmul",  "linear",    "cat",
    "view",      "reshape", "transpose", "permute", "squeeze", "unsqueeze", "select",
    "expand",    "slice",   "split",     "chunk",   "unbind",  "getitem",   "val",
    "value",     "concat",  "gather",    "clone",   "to",      "where",     "unflatten",
    "layer_norm", "gelu",   "relu",      "silu",    "flatten", "x"};

class Namer {
 public:
  Namer(torch::Function& function, const std::set<std::string>& taken, const std::set<int>& kept,
        const Roles& roles)
      : function_(function), taken_(taken), kept_(kept), roles_(roles) {}

  void run() {
    for (const auto& p : function_.params) lives_[p.var->id].block = &function_.body;
    scan(function_.body, 0);
    extend_captured();
    // One that nobody reads needs its name too, beside those of the others.
    for (const auto& p : function_.params) {
      if (!p.var->name.empty()) {  // a constructor's
        held_until_[p.var->name] = kForever;
        continue;
      }
      const int last = std::max(lives_[p.var->id].last, 1);
      const bool exclusive = lives_[p.var->id].pinned;
      if (p.var->of == nullptr) {
        name_as(p.var, claim(hint_of(*p.var), 0, last, exclusive));
        continue;
      }
      // The first tensor is x; others are what the caller calls them.
      const bool first = &p == &function_.params.front();
      const std::string role = role_of(*p.var);
      const std::string said = role.empty() ? meaning(*p.var) : role;
      const bool plain = p.var->type == "Tensor" && role.empty() && (said.empty() || first);
      bool done = false;
      if (plain)
        for (const std::string_view name : {"x", "y", "z"})
          done = done || try_plain(p.var, name, 0, last, exclusive);
      if (!done) name_as(p.var, claim(said.empty() ? "x" : said, 0, last, exclusive));
    }
    name(function_.body);
    // A variable may be there as several objects.
    for (const Stmt& s : function_.body)
      each_var(s, [&](const VarPtr& v, bool) {
        if (const auto it = named_.find(v->id); it != named_.end()) v->name = it->second;
      });
    drop_copies(function_.body);
  }

 private:
  /// A copy of a variable that is called as the variable was: its life has ended there.
  static void drop_copies(Block& b) {
    std::erase_if(b, [](const Stmt& s) {
      return s.kind == Stmt::Kind::Assign && s.targets.size() == 1 &&
             s.value->kind == ExprKind::Var && s.value->var->name == s.targets[0]->name;
    });
    for (Stmt& s : b) {
      drop_copies(s.body);
      drop_copies(s.orelse);
    }
  }

  struct Life {
    int def = 0;
    int last = 0;
    int uses = 0;
    const Block* block = nullptr;
    bool pinned = false;  // set more than once, as a loop's variable: shares its name with nobody
  };

  // ---- lives

  void scan(const Expr& e, int position) {
    each_expr(e, [&](const Expr& x) {
      if (x.kind != ExprKind::Var) return;
      Life& l = lives_[x.var->id];
      l.last = std::max(l.last, position);
      ++l.uses;
    });
  }

  int scan(const Block& b, int position) {
    for (const Stmt& s : b) {
      ++position;
      // What is iterated over lives beside the loop's variable.
      scan(*s.value, s.kind == Stmt::Kind::For ? position + 1 : position);
      scan(*s.place, position);
      for (const auto& v : s.targets) {
        Life& l = lives_[v->id];
        if (l.block != nullptr) {
          l.pinned = true;
        } else {
          l.def = position;
          l.block = &b;
        }
        l.last = std::max(l.last, position);
      }
      const int start = position;
      for (const auto& v : s.params) {
        Life& l = lives_[v->id];
        l.def = l.last = position;
        l.block = &s.body;
      }
      position = scan(s.body, position);
      position = scan(s.orelse, position);
      const bool repeats = s.kind == Stmt::Kind::For || s.kind == Stmt::Kind::While;
      if (!repeats && s.kind != Stmt::Kind::Def) continue;
      ++position;
      // What a loop's body reads from outside lives until the loop ends.
      for (const Stmt& inner : s.body)
        each_var(inner, [&](const VarPtr& v, bool sets) {
          Life& l = lives_[v->id];
          if (l.def > start) return;
          l.last = std::max(l.last, position);
          if (s.kind == Stmt::Kind::Def && !sets) captured_.emplace_back(v->id, s.targets[0]->id);
        });
    }
    return position;
  }

  /// What a function reads from outside lives as long as the function may be called. Functions that
  /// others call stand before them.
  void extend_captured() {
    for (auto it = captured_.rbegin(); it != captured_.rend(); ++it) {
      Life& l = lives_[it->first];
      l.last = std::max(l.last, lives_[it->second].last);
    }
  }

  // ---- names

  void name_as(const VarPtr& v, std::string name) {
    v->name = name;
    named_[v->id] = std::move(name);
  }

  /// What a caller calls the value, where that says what it is.
  static std::string meaning(const torch::Var& v) {
    for (const torch::Var* of = v.of.get(); of != nullptr; of = of->of.get()) {
      const std::string_view name = without_count(of->name);
      if (name.size() > 1) return std::string(name);
    }
    return v.type == "Tensor" ? "" : hint_of(v);
  }

  std::string role_of(const torch::Var& v) const {
    const auto it = roles_.find(v.id);
    return it == roles_.end() ? "" : it->second;
  }

  static std::string hint_of(const torch::Var& v) {
    return torch::is_ascii_identifier(v.hint) && v.hint != "_" ? v.hint : "x";
  }

  /// The hint without the number that an exporter counted it with: mul of mul_46.
  static std::string unnumbered(const torch::Var& v) {
    std::string name = hint_of(v);
    const auto at = name.rfind('_');
    if (at != std::string::npos && at > 0 && at + 1 < name.size() &&
        std::all_of(name.begin() + static_cast<std::ptrdiff_t>(at) + 1, name.end(), is_digit))
      name.resize(at);
    return name;
  }

  std::string numbered(const std::string& base, int k) const {
    std::string n =
        k == 0 ? base : base + (is_digit(base.back()) ? "_" : "") + std::to_string(k + 1);
    while (torch::is_python_keyword(n) || torch::is_source_name(n) || taken_.count(n) != 0) n += "_";
    return n;
  }

  /// Which of base, base2, base3, ... have been claimed.
  struct Numbers {
    using Held = std::pair<int, int>;  // position of the last use, number
    std::priority_queue<Held, std::vector<Held>, std::greater<>> held;
    std::set<int> free;
    int next = 0;
  };

  std::string claim(const std::string& base, int position, int last, bool exclusive) {
    ONNX2NN_CHECK(torch::is_ascii_identifier(base), "a name that is no identifier");
    // The lowest number that is free: those that this base has tried wait until they are.
    Numbers& numbers = numbers_[base];
    while (!numbers.held.empty() && numbers.held.top().first <= position) {
      numbers.free.insert(numbers.held.top().second);
      numbers.held.pop();
    }
    const auto take = [&](int k) -> std::optional<std::string> {
      std::string n = numbered(base, k);
      const auto it = held_until_.find(n);
      const bool held = it != held_until_.end() && (exclusive || it->second > position);
      const int until = held ? it->second : exclusive ? kForever : last;
      numbers.held.emplace(until, k);
      if (held) return std::nullopt;
      held_until_[n] = until;
      return n;
    };
    while (!exclusive && !numbers.free.empty()) {
      const int k = *numbers.free.begin();
      numbers.free.erase(numbers.free.begin());
      if (auto n = take(k)) return *n;
    }
    for (;;)
      if (auto n = take(numbers.next++)) return *n;
  }

  bool try_plain(const VarPtr& v, std::string_view plain, int position, int last, bool exclusive) {
    const auto it = held_until_.find(std::string(plain));
    if (it != held_until_.end() && (exclusive || it->second > position)) return false;
    held_until_[std::string(plain)] = exclusive ? kForever : last;
    name_as(v, std::string(plain));
    return true;
  }

  /// The layer that makes it: query, also where its heads are split off then.
  static std::string layer_of(const Expr& e) {
    if (keeps_meaning(e)) return layer_of(*e.args[0]);
    if (e.kind == ExprKind::Var) {
      const auto& name = e.var->name;
      return name == "x" || name == "y" || name == "z" ? "" : layer_name(name);
    }
    if (e.kind != ExprKind::Op || e.text != "call") return "";
    const Expr* on = e.args[0].get();
    while (on->kind == ExprKind::Op && on->text == "[]") on = on->args[0].get();
    return on->kind == ExprKind::Attribute && torch::is_ascii_identifier(on->text) ? layer_name(on->text)
                                                                                   : "";
  }

  /// Made of booleans, or of the lowest numbers that there are.
  static bool is_mask(const Expr& e) {
    const auto base = torch::function_of(e);
    if (base == "to" && e.args.size() > 1 && e.args[1]->kind == ExprKind::Op)  // x.dtype
      return e.args[0]->kind == ExprKind::Aten && is_mask(*e.args[0]);
    if (base == "to")
      return e.args.size() > 1 && e.args[1]->kind == ExprKind::DType &&
             static_cast<ir::DType>(e.args[1]->integer) == ir::DType::Bool;
    if (base == "bitwise_and" || base == "logical_and") return true;
    return (base == "where" || base == "masked_fill" || base == "mul") &&
           std::any_of(e.args.begin(), e.args.end(), [](const auto& a) {
             return (a->kind == ExprKind::Float && a->number <= kLow) ||
                    (a->kind == ExprKind::Op && a->text == "finfo.min");
           });
  }

  /// What the variable is, from the function that makes it; "" where it is just the next value.
  static std::string what(const Expr& e) {
    if (keeps_meaning(e)) return what(*e.args[0]);
    if (e.kind == ExprKind::Var) return e.var->name == "mask" ? "mask" : "";
    if (e.kind != ExprKind::Aten) return "";
    if (is_mask(e)) return "mask";
    const auto base = torch::function_of(e);
    if (base == "embedding" && e.args[0]->kind == ExprKind::Attribute)
      for (const std::string_view angle : {"cos", "sin"})
        if (e.args[0]->text.starts_with(angle)) return std::string(angle);
    const auto counts = [](const auto& a) {
      return is_aten(*a, "arange");
    };
    if (base == "add" && std::any_of(e.args.begin(), e.args.end(), counts)) return "positions";
    return std::string(result_name(base));
  }

  void name(const VarPtr& v, int position, const Stmt* s) {
    if (named_.count(v->id) != 0) return;
    const Life& l = lives_[v->id];
    if (v->hint == "_" || l.uses == 0) return name_as(v, "_");
    if (kept_.count(v->id) != 0 || v->type != "Tensor" || s == nullptr ||
        s->kind != Stmt::Kind::Assign || s->targets.size() > 1)
      return name_as(v, claim(hint_of(*v), position, l.last, l.pinned));
    std::string layer = layer_of(*s->value);
    if (layer.empty()) layer = role_of(*v);
    std::string is = layer.empty() ? what(*s->value) : layer;
    if (is == "mask") layer = is;  // worth saying, however short it lives
    const bool short_lived = !l.pinned && l.last - l.def <= 2;
    if (is.empty() || (short_lived && layer.empty())) {
      for (const std::string_view plain : {"x", "y", "z"})
        if (try_plain(v, plain, position, l.last, l.pinned)) return;
    }
    if (is.empty()) is = short_lived || v->onnx_name.find('/') != std::string::npos ? "x" : unnumbered(*v);
    if (kOperators.count(is) != 0) is = is == "add" ? "residual" : "x";
    name_as(v, claim(is, position, l.last, l.pinned));
  }

  /// What is taken apart, where it has a short name: q of q.chunk(2), whose halves are q1 and q2.
  std::string whole_of(const Expr& e) const {
    constexpr std::size_t kShort = 8;
    const auto base = torch::function_of(e);
    const bool parts =
        base == "chunk" || base == "split" || base == "unbind" || base == "split_with_sizes";
    if (e.kind != ExprKind::Aten || !parts) return "";
    const Expr& of = *e.args[0];
    const auto it = of.kind == ExprKind::Var ? named_.find(of.var->id) : named_.end();
    std::string name = it != named_.end() ? it->second : layer_of(of);
    name.resize(without_digits(name).size());
    return name.empty() || name.size() > kShort ? "x" : name;
  }

  /// A name that an exporter made of its operator's, or of its module's: slice_2, getitem.
  static bool is_counted(const torch::Var& v) {
    const std::string hint = hint_of(v);
    return is_digit(hint.back()) || kOperators.count(hint) != 0 ||
           v.onnx_name.find('/') != std::string::npos;
  }

  bool name_part(const VarPtr& v, const std::string& part) {
    const Life& l = lives_[v->id];
    if (named_.count(v->id) != 0 || l.uses == 0 || l.pinned || v->type != "Tensor" ||
        kept_.count(v->id) != 0)
      return false;
    const std::string role = role_of(*v);
    if (role.empty() && !is_counted(*v)) return false;
    name_as(v, claim(role.empty() ? part : role, position_, l.last, false));
    return true;
  }

  void name(const Block& b) {
    for (const Stmt& s : b) {
      ++position_;
      if (s.kind == Stmt::Kind::Def) {
        name(s.targets[0], position_, nullptr);
        for (const auto& p : s.params)
          if (named_.count(p->id) == 0)
            name_as(p, claim(hint_of(*p), position_, std::max(lives_[p->id].last, position_ + 1), false));
      } else {
        // A loop's variable is set while what it goes through is read.
        const int at = s.kind == Stmt::Kind::For ? position_ - 1 : position_;
        const std::string whole = s.targets.size() > 1 ? whole_of(*s.value) : "";
        for (std::size_t i = 0; i < s.targets.size(); ++i)
          if (whole.empty() || !name_part(s.targets[i], whole + std::to_string(i + 1)))
            name(s.targets[i], at, &s);
      }
      name(s.body);
      name(s.orelse);
      if (s.kind == Stmt::Kind::For || s.kind == Stmt::Kind::While || s.kind == Stmt::Kind::Def)
        ++position_;
    }
  }

  torch::Function& function_;
  const std::set<std::string>& taken_;
  const std::set<int>& kept_;
  const Roles& roles_;
  std::unordered_map<int, Life> lives_;
  std::unordered_map<int, std::string> named_;
  std::map<std::string, int> held_until_;  // name -> position of its holder's last use
  std::map<std::string, Numbers> numbers_;
  std::vector<std::pair<int, int>> captured_;  // variable, the function that reads it
  int position_ = 0;
};

}  // namespace

void name_variables(torch::Function& function, const std::set<std::string>& taken,
                    const std::set<int>& kept, const Roles& roles) {
  Namer(function, taken, kept, roles).run();
}

std::string common_hint(const std::string& a, const std::string& b) {
  const auto x = split(a, '_');
  const auto y = split(b, '_');
  if (a == b || x.size() != y.size()) return a;
  std::vector<std::string_view> kept;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i]) {
      kept.push_back(x[i]);
    } else if (!is_number(x[i]) || !is_number(y[i])) {
      return a;
    }
  }
  if (kept.size() == 4 && kept[0] == "past" && kept[1] == "key" && kept[2] == "values")
    kept.erase(kept.begin() + 1, kept.begin() + 3);
  std::string out;
  for (const std::string_view part : kept) out += (out.empty() ? "" : "_") + std::string(part);
  return out.empty() ? a : out;
}

}  // namespace onnx2nn::structure
