#include "emit/python.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <unordered_map>

#include "emit/hoist.h"
#include "emit/layout.h"
#include "emit/limits.h"
#include "emit/python_style.h"
#include "emit/runtime_source.h"
#include "support/error.h"
#include "support/interrupt.h"
#include "support/text.h"
#include "torch/python_names.h"
#include "torch/schema.h"

namespace onnx2nn::emit {
namespace {

using torch::Block;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Program;
using torch::Stmt;
using torch::Var;

std::string float_text(double v, bool is_double) {
  if (std::isnan(v)) return "torch.nan";
  if (std::isinf(v)) return v > 0 ? "torch.inf" : "-torch.inf";
  char buffer[40];
  const auto f = static_cast<float>(v);
  // The largest float's shortest text is, as a double, beyond the floats: torch refuses it.
  const bool short_form = !is_double && static_cast<double>(f) == v && std::abs(v) < 3.4e38;
  auto r = short_form ? std::to_chars(buffer, buffer + sizeof buffer, f)
                      : std::to_chars(buffer, buffer + sizeof buffer, v);
  std::string s(buffer, r.ptr);
  if (s.find_first_of(".en") == std::string::npos) {
    s += ".0";
  }
  // 1e+08 is written 1e8.
  if (const auto plus = s.find("e+"); plus != std::string::npos)
    s.erase(plus + 1, s[plus + 2] == '0' ? 2 : 1);
  return s;
}

class Printer {
 public:
  Printer(const Program& program, const PythonOptions& options)
      : program_(program), options_(options) {}

  std::string run();

 private:
  // ---- names
  struct Life {
    int def = 0;
    int last = 0;
    int uses = 0;
    const Block* block = nullptr;
    bool pinned =
        false;  // assigned more than once (a loop's variable): never inlined, never shares
  };
  void scan_expr(const Expr& e, int position);
  int scan_block(const Block& block, int position);
  void extend_captured();
  void name_block(const Block& block);
  void name_var(const torch::VarPtr& v, int position);
  std::string numbered(const std::string& base, int k) const;
  std::string claim(const std::string& base, int position, int last, bool exclusive);
  const std::string& name_of(const Var& v) { return names_.at(v.id); }

  // ---- expressions
  Text text(const Expr& e);
  Text aten(const Expr& e);
  Text slice_text(const Expr& e);
  Text subscript_of_slices(const Expr& e);
  Text operand(const Expr& e, int precedence) { return bound(text(e), precedence); }
  std::string path_of(const std::vector<std::string>& path) const;
  Text int_list(const Expr& e);
  std::vector<Text> texts(const std::vector<ExprPtr>& args, std::size_t from = 0);
  bool is_default(const Expr& e, const torch::SchemaArg& arg);

  // ---- statements
  void block(const Block& b, std::size_t indent);
  void find_traced();
  void statement(const Stmt& s, std::size_t indent);
  void line(std::size_t indent, const std::string& lead, const Text& t,
            const std::string& trail = "");
  bool try_inline(const Stmt& s, const Stmt* next);
  void init();

  const Program& program_;
  const PythonOptions& options_;
  std::string out_;
  std::unordered_map<int, Life> lives_;
  std::unordered_map<int, std::string> names_;
  std::map<std::string, int> held_until_;  // name -> position of its holder's last use
  static constexpr int kForever = 1 << 30;
  /// Which of base, base2, base3, ... have been claimed.
  struct Numbers {
    using Held = std::pair<int, int>;  // position of the last use, number
    std::priority_queue<Held, std::vector<Held>, std::greater<>> held;
    std::set<int> free;
    int next = 0;
  };
  std::map<std::string, Numbers> numbers_;
  std::vector<std::pair<int, int>> captured_;  // variable, the function that reads it
  std::unordered_map<int, ExprPtr> inlined_;
  std::unordered_map<int, int> depth_;  // of what is inlined
  int position_ = 0;
  std::vector<std::vector<torch::VarPtr>> traced_;  // by statement of `forward`: what is traced after it
  std::set<std::string> helpers_;
};

// ---------------------------------------------------------------- names

void Printer::scan_expr(const Expr& e, int position) {
  if (e.kind == ExprKind::Var) {
    Life& l = lives_[e.var->id];
    l.last = std::max(l.last, position);
    ++l.uses;
  }
  if (e.kind == ExprKind::Helper) helpers_.insert(e.text);
  for (const auto& a : e.args) scan_expr(*a, position);
  for (const auto& [_, v] : e.keywords) scan_expr(*v, position);
}

int Printer::scan_block(const Block& b, int position) {
  for (const Stmt& s : b) {
    ++position;
    scan_expr(*s.value, position);
    for (const auto& v : s.targets) {
      const bool again = lives_.count(v->id) != 0 && lives_[v->id].block != nullptr;
      Life& l = lives_[v->id];
      if (again) {
        l.pinned = true;
        l.last = std::max(l.last, position);
      } else {
        l.def = position;
        l.block = &b;
        l.last = std::max(l.last, position);
      }
    }
    const int start = position;
    for (const auto& v : s.params) {
      lives_[v->id].def = position;
      lives_[v->id].block = &s.body;
      lives_[v->id].last = position;
    }
    position = scan_block(s.body, position);
    position = scan_block(s.orelse, position);
    if (s.kind == Stmt::Kind::For || s.kind == Stmt::Kind::While || s.kind == Stmt::Kind::Def) {
      ++position;
      // What a loop's body reads from outside lives until the loop ends.
      const auto extend = [&](auto&& self, const Block& inner) -> void {
        const auto in_expr = [&](auto&& again, const Expr& e) -> void {
          if (e.kind == ExprKind::Var) {
            Life& l = lives_[e.var->id];
            if (l.def > start) return;
            l.last = std::max(l.last, position);
            if (s.kind == Stmt::Kind::Def) captured_.emplace_back(e.var->id, s.targets[0]->id);
          }
          for (const auto& a : e.args) again(again, *a);
          for (const auto& [_, v] : e.keywords) again(again, *v);
        };
        for (const Stmt& t : inner) {
          in_expr(in_expr, *t.value);
          for (const auto& v : t.targets)
            if (lives_[v->id].def <= start)
              lives_[v->id].last = std::max(lives_[v->id].last, position);
          self(self, t.body);
          self(self, t.orelse);
        }
      };
      extend(extend, s.body);
    }
  }
  return position;
}

/// What a function reads from outside lives as long as the function may be called. Functions that
/// others call stand before them.
void Printer::extend_captured() {
  for (auto it = captured_.rbegin(); it != captured_.rend(); ++it) {
    Life& l = lives_[it->first];
    l.last = std::max(l.last, lives_[it->second].last);
  }
}

std::string Printer::numbered(const std::string& base, int k) const {
  std::string n = k == 0 ? base : base + (is_digit(base.back()) ? "_" : "") + std::to_string(k + 1);
  while (torch::is_python_keyword(n) || torch::is_source_name(n) || helpers_.count(n) != 0)
    n += "_";
  return n;
}

std::string Printer::claim(const std::string& base, int position, int last, bool exclusive) {
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

void Printer::name_var(const torch::VarPtr& v, int position) {
  if (names_.count(v->id) != 0) return;
  if (v->hint == "_" || lives_[v->id].uses == 0) {
    names_[v->id] = "_";
    return;
  }
  const Life& l = lives_[v->id];
  const bool short_lived = !l.pinned && l.last - l.def <= 2;
  if (short_lived) {
    const auto it = held_until_.find("x");
    if (it == held_until_.end() || it->second <= position) {
      held_until_["x"] = l.last;
      names_[v->id] = "x";
      return;
    }
  }
  names_[v->id] = claim(v->hint, position, l.last, l.pinned);
}

// ---------------------------------------------------------------- expressions

std::string Printer::path_of(const std::vector<std::string>& path) const {
  std::string out = "self";
  for (const std::string& p : path) out += is_digit(p[0]) ? "[\"" + p + "\"]" : "." + p;
  return out;
}

std::vector<Text> Printer::texts(const std::vector<ExprPtr>& args, std::size_t from) {
  std::vector<Text> out;
  for (std::size_t i = from; i < args.size(); ++i) out.push_back(text(*args[i]));
  return out;
}

Text Printer::int_list(const Expr& e) {
  Text t = brackets("(", texts(e.args), ")");
  t.one_tuple = t.items.size() == 1;
  return t;
}

bool Printer::is_default(const Expr& e, const torch::SchemaArg& arg) {
  if (arg.default_text.empty()) return false;
  const std::string_view d = arg.default_text;
  switch (e.kind) {
    case ExprKind::None:
      return d == "None";
    case ExprKind::Bool:
      return d == (e.integer != 0 ? "True" : "False");
    case ExprKind::Int:
      return d == std::to_string(e.integer);
    case ExprKind::Float: {
      double v = 0;
      const auto r = std::from_chars(d.data(), d.data() + d.size(), v);
      return r.ec == std::errc() && r.ptr == d.data() + d.size() &&
             (v == e.number || static_cast<double>(static_cast<float>(v)) == e.number);
    }
    case ExprKind::Str:
      return d == "'" + e.text + "'" || d == "\"" + e.text + "\"";
    case ExprKind::List: {
      if (e.args.empty()) return d == "[]";
      std::string all = "[";
      bool same = true;  // one number stands for a list of it
      for (const auto& a : e.args) {
        if (a->kind != ExprKind::Int) return false;
        const std::string n = std::to_string(a->integer);
        all += (all.size() > 1 ? ", " : "") + n;
        same = same && d == n;
      }
      return same || all + "]" == d;
    }
    default:
      return false;
  }
}

/// An axis that a subscript can reach: the last one, or one of the first.
bool is_sliced_axis(const Expr& axis) {
  return axis.kind == ExprKind::Int && axis.integer >= -1 && axis.integer < 8;
}

Text Printer::slice_text(const Expr& e) {
  const auto given = [&](std::size_t i) -> const Expr* {
    if (i >= e.args.size() || e.args[i]->kind == ExprKind::None) return nullptr;
    const bool is_default =
        e.args[i]->kind == ExprKind::Int &&
        ((i == 2 && e.args[i]->integer == 0) || (i == 3 && e.args[i]->integer == INT64_MAX) ||
         (i == 4 && e.args[i]->integer == 1));
    return is_default ? nullptr : e.args[i].get();
  };
  // Blanks go around the colon where a bound is more than a name or a number.
  const auto is_simple = [](const std::string& bound) {
    return std::all_of(bound.begin() + (bound[0] == '-' ? 1 : 0), bound.end(),
                       [](char ch) { return ch == '_' || is_alphanumeric(ch); });
  };
  bool simple = true;
  std::string bounds[3];
  for (std::size_t i = 2; i < 5; ++i) {
    if (const Expr* b = given(i)) {
      bounds[i - 2] = text(*b).flat();
      simple = simple && is_simple(bounds[i - 2]);
    }
  }
  const std::string blank = simple ? "" : " ";
  std::string out = bounds[0] + (bounds[0].empty() ? "" : blank) + ":" +
                    (bounds[1].empty() ? "" : blank) + bounds[1];
  if (!bounds[2].empty()) out += blank + ":" + blank + bounds[2];
  return atom(std::move(out));
}

/// Slices of several axes in one subscript: x[:, 1:, ::2].
Text Printer::subscript_of_slices(const Expr& e) {
  std::map<std::int64_t, Text> axes;
  const Expr* x = &e;
  while (x->kind == ExprKind::Aten && x->text == "slice.Tensor" && x->args.size() >= 4 &&
         is_sliced_axis(*x->args[1])) {
    const std::int64_t axis = x->args[1]->integer;
    if (axes.count(axis) != 0 || (!axes.empty() && (axis < 0 || axes.begin()->first < 0))) break;
    axes[axis] = slice_text(*x);
    x = x->args[0].get();
  }
  std::vector<Text> items;
  if (axes.begin()->first < 0) {
    items = {atom("..."), axes.begin()->second};
  } else {
    for (std::int64_t i = 0; i <= axes.rbegin()->first; ++i) {
      const auto it = axes.find(i);
      items.push_back(it == axes.end() ? atom(":") : it->second);
    }
  }
  return subscript(text(*x), std::move(items));
}

Text Printer::aten(const Expr& e) {
  const std::string_view full = e.text;
  const std::string_view base = full.substr(0, full.find('.'));
  const auto style = style_of(base);
  const auto arg = [&](std::size_t i) -> const Expr& { return *e.args[i]; };

  if (style.kind == StyleKind::Infix && e.args.size() == 2 && e.keywords.empty()) {
    const int p = style.precedence;
    // Comparisons do not chain: both sides bind tighter. Powers bind to the right.
    const bool comparison = p == kCompare;
    const bool power = base == "pow";
    if (power) {
      // ruff hugs the operator where both sides are simple.
      const std::string base_text = operand(arg(0), kPostfix).flat();
      const std::string exponent = operand(arg(1), kUnary).flat();
      const auto simple = [](const std::string& t) {
        return t.find_first_of(" ([") == std::string::npos;
      };
      return atom(base_text + (simple(base_text) && simple(exponent) ? "**" : " ** ") + exponent,
                  p);
    }
    return infix(operand(arg(0), comparison ? p + 1 : p), std::string(style.text),
                 operand(arg(1), p + 1), p);
  }
  if (style.kind == StyleKind::Prefix && e.args.size() == 1)
    return atom(std::string(style.text) + operand(arg(0), kUnary).flat(), kUnary);
  if (base == "slice" && e.args.size() >= 4 && is_sliced_axis(arg(1)))
    return subscript_of_slices(e);
  if (base == "index" && e.args.size() == 2 && arg(1).kind == ExprKind::List) {
    std::vector<Text> items;
    for (const auto& a : arg(1).args)
      items.push_back(a->kind == ExprKind::None ? atom(":") : text(*a));
    return subscript(text(arg(0)), std::move(items));
  }
  if (base == "select" && e.args.size() == 3 && is_sliced_axis(arg(1))) {
    std::vector<Text> items;
    for (std::int64_t i = 0; i < arg(1).integer; ++i) items.push_back(atom(":"));
    if (arg(1).integer == -1) items.push_back(atom("..."));
    items.push_back(text(arg(2)));
    return subscript(text(arg(0)), std::move(items));
  }

  bool known = false;
  const auto schema = torch::schema_of(full, &known);
  ONNX2NN_CHECK(known, "no ATen overload is called " + std::string(full));
  ONNX2NN_CHECK(e.args.size() <= schema.size(), "too many arguments for " + std::string(full));

  const bool method = style.kind == StyleKind::Method;
  std::vector<Text> args;
  bool skipped = false;
  for (std::size_t i = 0; i < e.args.size(); ++i) {
    const Expr& a = arg(i);
    if (i > 0 && is_default(a, schema[i])) {
      skipped = true;
      continue;
    }
    if (method && i == 0) continue;
    if (base == "einsum" && i == 1 && a.kind == ExprKind::List) {
      for (const auto& item : a.args) args.push_back(text(*item));
      continue;
    }
    const bool ints = a.kind == ExprKind::List &&
                      (schema[i].type.starts_with("int[") || schema[i].type.starts_with("SymInt["));
    if (style.spread && ints && i == 1 && !a.args.empty()) {
      for (const auto& item : a.args) args.push_back(text(*item));
      continue;
    }
    Text t;
    const bool sized = schema[i].type.find("[]") == std::string_view::npos;
    const bool same = ints && !a.args.empty() && sized &&
                      std::all_of(a.args.begin(), a.args.end(), [&](const ExprPtr& x) {
                        return x->kind == ExprKind::Int && x->integer == a.args[0]->integer;
                      });
    if (same && (a.args.size() == 1 || schema[i].name != "dim")) {
      t = text(*a.args[0]);
    } else if (ints) {
      t = int_list(a);
    } else {
      t = text(a);
    }
    const bool is_tensor = schema[i].type.starts_with("Tensor");
    const bool positional = !skipped && !schema[i].keyword_only &&
                            (i == 0 || (is_tensor && !style.keywords) || i <= style.positional);
    if (!positional) {
      std::string key(schema[i].name);
      if (key == "self") key = "input";
      t.prefix = key + "=";
    }
    args.push_back(std::move(t));
  }
  if (style.swapped && args.size() >= 2) std::swap(args[0], args[1]);
  for (const auto& [key, value] : e.keywords) {
    Text t = text(*value);
    t.prefix = key + "=";
    args.push_back(std::move(t));
  }
  if (method)
    return method_call(text(arg(0)), std::string(style.text.empty() ? base : style.text),
                       std::move(args));
  std::string callee;
  if (style.kind == StyleKind::Functional) {
    callee = "F." + std::string(style.text.empty() ? base : style.text);
  } else {
    // What is no plain `a / b` (div with a rounding mode) goes by its name.
    const bool by_name =
        style.text.empty() || style.kind == StyleKind::Infix || style.kind == StyleKind::Prefix;
    callee = "torch." + std::string(by_name ? base : style.text);
  }
  return call(std::move(callee), std::move(args));
}

Text Printer::text(const Expr& e) {
  switch (e.kind) {
    case ExprKind::None:
      return atom("None");
    case ExprKind::Bool:
      return atom(e.integer != 0 ? "True" : "False");
    case ExprKind::Int:
      return atom(std::to_string(e.integer), e.integer < 0 ? kUnary : 100);
    case ExprKind::Float:
      return atom(float_text(e.number, e.integer == 64), e.number < 0 ? kUnary : 100);
    case ExprKind::Str:
      return atom(python_quote(e.text));
    case ExprKind::DType:
      return atom("torch." + std::string(ir::info(static_cast<ir::DType>(e.integer)).torch_name));
    case ExprKind::Name:
      return atom(e.text);
    case ExprKind::Var:
      if (const auto it = inlined_.find(e.var->id); it != inlined_.end()) return text(*it->second);
      return atom(name_of(*e.var));
    case ExprKind::Param:
      return atom(path_of(e.param->path));
    case ExprKind::Constant:
      return atom("self." + e.text);
    case ExprKind::Module:
      return call(path_of(e.module->path), texts(e.args));
    case ExprKind::Aten:
      return aten(e);
    case ExprKind::Helper:
    case ExprKind::Function: {
      std::vector<Text> args = texts(e.args);
      for (const auto& [key, value] : e.keywords) {
        Text t = text(*value);
        t.prefix = key + "=";
        args.push_back(std::move(t));
      }
      return call(e.text, std::move(args));
    }
    case ExprKind::Size:
      return postfix(text(*e.args[0]), ".shape[" + std::to_string(e.integer) + "]");
    case ExprKind::ShapeOf:
      return postfix(text(*e.args[0]), ".shape");
    case ExprKind::Tuple:
      return int_list(e);
    case ExprKind::List:
      return brackets("[", texts(e.args), "]");
    case ExprKind::Dict: {
      std::vector<Text> items;
      for (std::size_t i = 0; i + 1 < e.args.size(); i += 2) {
        Text item = text(*e.args[i + 1]);
        item.prefix = text(*e.args[i]).flat() + ": ";
        items.push_back(std::move(item));
      }
      return brackets("{", std::move(items), "}");
    }
    case ExprKind::Lambda:
      return atom(e.text);
    case ExprKind::Op:
      break;
  }
  // Python's own operators and builtins.
  const std::string& o = e.text;
  static const std::map<std::string, int> kInfix = {
      {"or", 20},           {"and", 22},      {"==", kCompare}, {"!=", kCompare}, {"<", kCompare},
      {">", kCompare},      {"<=", kCompare}, {">=", kCompare}, {"in", kCompare}, {"is", kCompare},
      {"is not", kCompare}, {"|", 34},        {"^", 36},        {"&", 38},        {"+", kSum},
      {"-", kSum},          {"*", kProduct},  {"/", kProduct},  {"//", kProduct}, {"%", kProduct}};
  if (const auto it = kInfix.find(o); it != kInfix.end() && e.args.size() == 2) {
    const int p = it->second;
    return infix(operand(*e.args[0], p == kCompare ? p + 1 : p), o, operand(*e.args[1], p + 1), p);
  }
  if (o == "neg") return atom("-" + operand(*e.args[0], kUnary).flat(), kUnary);
  if (o == "not") return atom("not " + operand(*e.args[0], 24).flat(), 24);
  if (o == "if")
    return atom(operand(*e.args[1], 19).flat() + " if " + operand(*e.args[0], 19).flat() +
                    " else " + operand(*e.args[2], 18).flat(),
                18);
  if (o == "[]" && e.args[1]->kind == ExprKind::Op && e.args[1]->text == "slice") {
    std::string range;
    for (std::size_t i = 0; i < e.args[1]->args.size(); ++i) {
      const Expr& bound = *e.args[1]->args[i];
      range += (i > 0 ? ":" : "") + (bound.kind == ExprKind::None ? "" : text(bound).flat());
    }
    return postfix(text(*e.args[0]), "[" + range + "]");
  }
  if (o == "call") return call(text(*e.args[0]).flat(), texts(e.args, 1));
  if (o == "[]") return subscript(text(*e.args[0]), {text(*e.args[1])});
  if (o == "*") return atom("*" + operand(*e.args[0], kPostfix).flat());
  if (o == "raw") return atom(e.args[0]->text);
  if (o[0] == '.') {
    static const std::set<std::string> kAttributes = {".device", ".dtype", ".shape", ".real",
                                                      ".imag",   ".ndim",  ".T",     ".mT"};
    if (kAttributes.count(o) != 0) return postfix(text(*e.args[0]), o);
    return method_call(text(*e.args[0]), o.substr(1), texts(e.args, 1));
  }
  return call(o, texts(e.args));
}

// ---------------------------------------------------------------- statements

void Printer::line(std::size_t indent, const std::string& lead, const Text& t,
                   const std::string& trail) {
  out_ += statement_text(indent, lead, t, trail);
  if (options_.budget != nullptr) options_.budget->check(Resource::Source, out_.size(), lead);
}

int nesting(const Expr& e, const std::unordered_map<int, int>& depth) {
  int inner = 0;
  for (const auto& a : e.args) inner = std::max(inner, nesting(*a, depth));
  for (const auto& [_, v] : e.keywords) inner = std::max(inner, nesting(*v, depth));
  if (e.kind == ExprKind::Var) {
    const auto it = depth.find(e.var->id);
    return it == depth.end() ? 0 : it->second;
  }
  switch (e.kind) {
    case ExprKind::Module:
    case ExprKind::Aten:
    case ExprKind::Helper:
    case ExprKind::Function:
      return inner + 1;
    default:
      return inner;
  }
}

int count_uses(const Expr& e, int id) {
  int n = e.kind == ExprKind::Var && e.var->id == id ? 1 : 0;
  for (const auto& a : e.args) n += count_uses(*a, id);
  for (const auto& [_, v] : e.keywords) n += count_uses(*v, id);
  return n;
}

bool Printer::try_inline(const Stmt& s, const Stmt* next) {
  if (options_.trace || next == nullptr || s.kind != Stmt::Kind::Assign || s.targets.size() != 1)
    return false;
  if (next->kind != Stmt::Kind::Assign && next->kind != Stmt::Kind::Return &&
      next->kind != Stmt::Kind::If)
    return false;
  const int id = s.targets[0]->id;
  const Life& l = lives_[id];
  if (l.pinned || l.uses != 1 || count_uses(*next->value, id) != 1) return false;
  const Expr& value = *s.value;
  const Expr& user = *next->value;
  // What only gives a value its name, such as a branch's result.
  if (next->kind == Stmt::Kind::Assign && user.kind == ExprKind::Var) {
    inlined_[id] = s.value.ptr();
    depth_[id] = nesting(value, depth_);
    return true;
  }
  if (next->kind == Stmt::Kind::If) {
    const bool simple =
        user.kind == ExprKind::Var || (user.kind == ExprKind::Op && user.text == "not");
    if (!simple || text(value).flat().size() > 60) return false;
    inlined_[id] = s.value.ptr();
    return true;
  }
  if (value.kind != ExprKind::Module && value.kind != ExprKind::Aten &&
      value.kind != ExprKind::Function && value.kind != ExprKind::Helper)
    return false;
  if (next->kind == Stmt::Kind::Return && user.kind == ExprKind::Var &&
      text(value).flat().size() <= 72) {
    inlined_[id] = s.value.ptr();
    return true;
  }
  const bool rounds = user.kind == ExprKind::Helper && user.text == "fake_quantize";
  if ((user.kind != ExprKind::Aten && !rounds) || value.kind == ExprKind::Helper) return false;
  const auto base = [](const Expr& e) {
    return std::string_view(e.text).substr(0, e.text.find('.'));
  };
  const auto user_style = style_of(base(user)).kind;
  const bool infix_user = user_style == StyleKind::Infix || user_style == StyleKind::Prefix;
  const bool value_infix =
      value.kind == ExprKind::Aten && style_of(base(value)).kind == StyleKind::Infix;
  // Inline an operand of arithmetic, or what an activation or a method is applied to.
  const bool first =
      !user.args.empty() && user.args[0]->kind == ExprKind::Var && user.args[0]->var->id == id;
  if (!infix_user && !first) return false;
  if (nesting(value, depth_) > (value_infix ? 3 : 2)) return false;
  if (text(value).flat().size() > 48) return false;
  inlined_[id] = s.value.ptr();
  if (text(user).flat().size() > 68) {
    inlined_.erase(id);
    return false;
  }
  depth_[id] = nesting(value, depth_);
  return true;
}

void Printer::statement(const Stmt& s, std::size_t indent) {
  check_interrupt();
  const std::string trail =
      options_.comments_origin && !s.origin.empty() ? "  # " + printable(s.origin) : "";
  std::string lead;
  switch (s.kind) {
    case Stmt::Kind::Assign: {
      const Text value = text(*s.value);  // before the targets take over a name
      for (const auto& v : s.targets) name_var(v, position_);
      std::string targets;
      for (std::size_t i = 0; i < s.targets.size(); ++i)
        targets += (i > 0 ? ", " : "") + name_of(*s.targets[i]);
      if (!s.targets.empty()) lead = targets + " = ";
      line(indent, lead, value, trail);
      return;
    }
    case Stmt::Kind::Return:
      if (s.value->kind == ExprKind::Tuple && s.value->args.size() > 1) {
        std::string flat = text(*s.value).flat();
        flat = flat.substr(1, flat.size() - 2);
        if (indent + 7 + flat.size() <= kWidth) {
          out_ += std::string(indent, ' ') + "return " + flat + "\n";
          return;
        }
      }
      line(indent, "return ", text(*s.value));
      return;
    case Stmt::Kind::Break:
      if (!s.value.is_none()) {
        line(indent, "if ", text(*s.value), ":");
        indent += 4;
      }
      out_ += std::string(indent, ' ') + "break\n";
      return;
    case Stmt::Kind::If:
      line(indent, "if ", text(*s.value), ":");
      block(s.body, indent + 4);
      if (!s.orelse.empty()) {
        out_ += std::string(indent, ' ') + "else:\n";
        block(s.orelse, indent + 4);
      }
      return;
    case Stmt::Kind::For: {
      const Text value = text(*s.value);
      std::string targets;
      for (const auto& v : s.targets) {
        name_var(v, position_);
        targets += (targets.empty() ? "" : ", ") + name_of(*v);
      }
      line(indent, "for " + targets + " in ", value, ":");
      block(s.body, indent + 4);
      return;
    }
    case Stmt::Kind::While:
      line(indent, "while ", text(*s.value), ":");
      block(s.body, indent + 4);
      return;
    case Stmt::Kind::Def: {
      name_var(s.targets[0], position_);
      std::vector<Text> params;
      for (const auto& p : s.params) {
        // Parameters have names of their own, used or not.
        if (names_.count(p->id) == 0)
          names_[p->id] =
              claim(p->hint, position_, std::max(lives_[p->id].last, position_ + 1), false);
        params.push_back(atom(name_of(*p)));
      }
      if (!out_.ends_with("\n\n")) out_ += "\n";
      line(indent, "def ", call(name_of(*s.targets[0]), std::move(params)), ":");
      block(s.body, indent + 4);
      out_ += "\n";
      return;
    }
  }
}

void Printer::block(const Block& b, std::size_t indent) {
  if (b.empty()) out_ += std::string(indent, ' ') + "pass\n";
  for (std::size_t i = 0; i < b.size(); ++i) {
    ++position_;
    if (!try_inline(b[i], i + 1 < b.size() ? &b[i + 1] : nullptr)) statement(b[i], indent);
    if (b[i].kind == Stmt::Kind::For || b[i].kind == Stmt::Kind::While ||
        b[i].kind == Stmt::Kind::Def)
      ++position_;
    if (&b != &program_.forward || i >= traced_.size()) continue;
    for (const auto& v : traced_[i])
      if (name_of(*v) != "_")
        out_ += std::string(indent, ' ') + name_of(*v) + " = _trace(" + python_quote(v->onnx_name) +
                ", " + name_of(*v) + ")\n";
  }
}

/// A value is traced where `forward` itself has it for good: not inside branches and loops, whose
/// values are others each time, and not what a loop starts from under the name of its result.
void Printer::find_traced() {
  traced_.assign(program_.forward.size(), {});
  struct Place {
    torch::VarPtr var;
    std::size_t made = 0, used = 0;
    bool plain = false;
  };
  std::map<int, Place> places;  // in the order of the variables
  for (std::size_t i = 0; i < program_.forward.size(); ++i) {
    const auto in_expr = [&](auto&& again, const Expr& e) -> void {
      if (e.kind == ExprKind::Var) places[e.var->id].used = i;
      for (const auto& a : e.args) again(again, *a);
      for (const auto& [_, v] : e.keywords) again(again, *v);
    };
    const auto in_stmt = [&](auto&& again, const Stmt& s, bool outside) -> void {
      in_expr(in_expr, *s.value);
      for (const auto& v : s.targets) {
        Place& p = places[v->id];
        p.var = v;
        p.made = i;
        p.plain = outside && s.kind == Stmt::Kind::Assign;
      }
      if (s.kind == Stmt::Kind::Def) return;
      for (const Stmt& inner : s.body) again(again, inner, false);
      for (const Stmt& inner : s.orelse) again(again, inner, false);
    };
    in_stmt(in_stmt, program_.forward[i], true);
  }
  // An operator of several steps names each of them after its output; the last is the output.
  std::map<std::string_view, const Place*> last;
  for (const auto& [_, p] : places) {
    if (!p.var || p.var->onnx_name.empty() || !(p.plain || p.used > p.made)) continue;
    const Place*& best = last[p.var->onnx_name];
    if (best == nullptr || best->made <= p.made) best = &p;
  }
  for (const auto& [_, p] : last) traced_[p->made].push_back(p->var);
}

void Printer::init() {
  out_ += "    def __init__(self) -> None:\n        super().__init__()\n";
  // A container whose children are numbers is a ModuleDict.
  std::set<std::string> numbered;
  std::set<std::string> made;
  const auto full = [](const std::vector<std::string>& path, std::size_t n) {
    std::string out;
    for (std::size_t i = 0; i < n; ++i) out += (i > 0 ? "." : "") + path[i];
    return out;
  };
  const auto note = [&](const std::vector<std::string>& path) {
    for (std::size_t i = 1; i < path.size(); ++i)
      if (is_digit(path[i][0])) numbered.insert(full(path, i));
  };
  for (const auto& m : program_.modules) note(m->path);
  for (const auto& p : program_.params) note(p->path);
  const auto containers = [&](const std::vector<std::string>& path) {
    for (std::size_t i = 1; i < path.size(); ++i) {
      const std::string name = full(path, i);
      if (!made.insert(name).second) continue;
      out_ += "        " + path_of({path.begin(), path.begin() + static_cast<std::ptrdiff_t>(i)}) +
              " = nn." + (numbered.count(name) != 0 ? "ModuleDict" : "Module") + "()\n";
    }
  };
  std::set<const torch::Param*> of_modules;
  for (const auto& m : program_.modules) {
    containers(m->path);
    made.insert(full(m->path, m->path.size()));
    std::vector<Text> args;
    for (const auto& a : m->args)
      args.push_back(a->kind == ExprKind::List ? int_list(*a) : text(*a));
    for (const auto& [key, value] : m->keywords) {
      Text t;
      const Expr& v = *value;
      const bool ints = v.kind == ExprKind::List;
      const bool same = ints && !v.args.empty() && key != "normalized_shape" &&
                        std::all_of(v.args.begin(), v.args.end(), [&](const ExprPtr& x) {
                          return x->kind == ExprKind::Int && x->integer == v.args[0]->integer;
                        });
      t = same ? text(*v.args[0]) : ints ? int_list(v) : text(v);
      t.prefix = key + "=";
      args.push_back(std::move(t));
    }
    for (const auto& [_, p] : m->params) of_modules.insert(p.get());
    line(8, path_of(m->path) + " = ", call("nn." + m->type, std::move(args)));
  }
  for (const auto& p : program_.params) {
    if (of_modules.count(p.get()) != 0 || p->quantized) continue;
    containers(p->path);
    std::vector<Text> dims;
    for (const std::int64_t d : p->shape) dims.push_back(atom(std::to_string(d)));
    if (dims.empty()) dims.push_back(atom("()"));
    if (p->dtype != ir::DType::Float32) {
      Text t = atom("torch." + std::string(ir::info(p->dtype).torch_name));
      t.prefix = "dtype=";
      dims.push_back(std::move(t));
    }
    Text empty = call("torch.empty", std::move(dims));
    if (p->trainable) {
      line(8, path_of(p->path) + " = ", call("nn.Parameter", {std::move(empty)}));
    } else {
      std::vector<std::string> owner(p->path.begin(), p->path.end() - 1);
      line(8, "",
           call(path_of(owner) + ".register_buffer",
                {atom(python_quote(p->path.back())), std::move(empty)}));
    }
  }
  for (const auto& c : program_.constants) line(8, "self." + c.name + " = ", text(*c.value));
}

std::string Printer::run() {
  for (const auto& c : program_.constants) scan_expr(*c.value, 0);
  for (const auto& p : program_.inputs) {
    Life& l = lives_[p.var->id];
    l.block = &program_.forward;
  }
  scan_block(program_.forward, 0);
  extend_captured();
  const bool quantized = std::any_of(program_.params.begin(), program_.params.end(),
                                     [](const auto& p) { return p->quantized != nullptr; });
  if (quantized) helpers_.insert("dequantized");
  std::set<std::string> of_runtime = helpers_;
  std::string supplied;
  for (const auto& [name, source] : options_.functions) {
    if (of_runtime.erase(name) == 0) continue;
    supplied += (supplied.empty() ? "" : "\n\n") + std::string(strip(source)) + "\n";
  }
  RuntimeSource runtime = runtime_source(of_runtime);
  if (!supplied.empty()) runtime.text += (runtime.text.empty() ? "" : "\n\n") + supplied;
  if (supplied.find("math.") != std::string::npos) runtime.imports.emplace_back("import math");
  for (const std::string& f : runtime.functions) helpers_.insert(f);

  std::string params;
  std::vector<std::string> signature{"self"};
  for (const auto& p : program_.inputs) {
    Life& l = lives_[p.var->id];
    std::string base = p.var->hint;
    // One that nobody reads needs its name too, beside those of the others.
    names_[p.var->id] = claim(base, 0, std::max(l.last, 1), false);
    signature.push_back(name_of(*p.var) +
                        (p.kind == "tensor" && p.dtype != "string" ? ": Tensor" : ""));
  }

  std::string body;
  out_.clear();
  init();
  out_ += "\n";
  const bool typed = program_.outputs.size() == 1 && program_.outputs[0].kind == "tensor" &&
                     program_.outputs[0].dtype != "string";
  bool all_tensors = !program_.outputs.empty();
  for (const auto& o : program_.outputs)
    all_tensors = all_tensors && o.kind == "tensor" && o.dtype != "string";
  std::string result = typed                                        ? "Tensor"
                       : all_tensors && program_.outputs.size() > 1 ? "tuple[Tensor, ...]"
                                                                    : "";
  if (program_.outputs.size() > 1 && program_.outputs.size() <= 4 && all_tensors) {
    result = "tuple[Tensor";
    for (std::size_t i = 1; i < program_.outputs.size(); ++i) result += ", Tensor";
    result += "]";
  }
  std::vector<Text> parameters;
  for (const std::string& s : signature) parameters.push_back(atom(s));
  const std::string tail = ")" + (result.empty() ? "" : " -> " + result);
  line(4, "", brackets("def forward(", std::move(parameters), tail), ":");
  std::string doc;
  for (const auto& p : program_.inputs)
    doc += (doc.empty() ? "" : ", ") + name_of(*p.var) + ": " + printable(p.type_text);
  doc += " -> ";
  for (std::size_t i = 0; i < program_.outputs.size(); ++i)
    doc += (i > 0 ? ", " : "") + printable(program_.outputs[i].onnx_name) + ": " +
           printable(program_.outputs[i].type_text);
  std::string safe;
  for (const char c : doc) safe += c == '"' ? '\'' : c == '\\' ? '/' : c;
  if (safe.size() + 8 + 6 <= kWidth) {
    out_ += "        \"\"\"" + safe + "\"\"\"\n";
  } else {
    out_ += "        \"\"\"\n";
    const auto entry = [&](const std::string& name, const std::string& type) {
      std::string text;
      for (const char c : name + ": " + type) text += c == '"' ? '\'' : c == '\\' ? '/' : c;
      out_ += "        " + text + "\n";
    };
    for (const auto& p : program_.inputs) entry(name_of(*p.var), printable(p.type_text));
    out_ += "        ->\n";
    for (const auto& p : program_.outputs) entry(printable(p.onnx_name), printable(p.type_text));
    out_ += "        \"\"\"\n";
  }
  position_ = 0;
  if (options_.trace) find_traced();
  block(program_.forward, 8);
  body = std::move(out_);

  const auto uses = [&](std::string_view what) {
    return body.find(what) != std::string::npos || runtime.text.find(what) != std::string::npos;
  };
  // "torch." as a name of its own, not as the end of another nor in the text of a docstring.
  const auto uses_module = [&](const std::string& name) {
    for (const std::string* text : {&body, &runtime.text})
      for (std::size_t at = text->find(name + "."); at != std::string::npos;
           at = text->find(name + ".", at + 1))
        if (std::string_view(" ([{*-~=\n").find(at == 0 ? '\n' : (*text)[at - 1]) !=
            std::string_view::npos) {
          if (name != "F") return true;
          const std::size_t end =
              text->find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_", at + 2);
          if (end != std::string::npos && (*text)[end] == '(') return true;
        }
    return false;
  };
  std::string out = "\"\"\"";
  out += options_.header;
  out += "\"\"\"\n\n";
  std::set<std::string> imports(runtime.imports.begin(), runtime.imports.end());
  std::string standard;
  for (const std::string& i : imports)
    if (i == "import math" || i == "import re" || i == "import io" ||
        i.rfind("from typing", 0) == 0 || i.rfind("from collections", 0) == 0 ||
        i == "import locale" || i == "import bisect")
      standard += i + "\n";
  standard += "from pathlib import Path\n";
  out += standard + "\n";
  bool numpy = imports.count("import numpy as np") != 0;
  for (std::size_t at = body.find("np."); !numpy && at != std::string::npos;
       at = body.find("np.", at + 1))
    numpy = at > 0 && std::string_view(" ([*-").find(body[at - 1]) != std::string_view::npos;
  if (numpy) out += "import numpy as np\n";
  if (uses_module("torch") || !program_.params.empty()) out += "import torch\n";
  if (uses_module("F")) out += "import torch.nn.functional as F\n";
  for (const std::string& i : imports)
    if (i.rfind("from PIL", 0) == 0 || i.rfind("import PIL", 0) == 0) out += i + "\n";
  out += uses("Tensor") ? "from torch import Tensor, nn\n\n\n" : "from torch import nn\n\n\n";
  if (!runtime.text.empty()) out += runtime.text + "\n\n";
  out += "class " + program_.class_name + "(nn.Module):\n";
  out += body;
  std::string parameter = "    weights: str | Path = Path(__file__).parent";
  const std::string file = " / " + python_quote(options_.weights_name) + ",\n";
  if (parameter.size() + file.size() - 1 > kWidth) parameter += "\n   ";
  out += "\n\ndef load(\n" + parameter + file + ") -> " + program_.class_name + ":\n";
  out += "    \"\"\"The model in eval mode, with its weights.\"\"\"\n";
  const bool pth = options_.weights_name.ends_with(".pth");
  if (!program_.params.empty()) {
    if (!pth) out += "    from safetensors.torch import load_file\n\n";
    out += "    with torch.device(\"meta\"):\n        model = " + program_.class_name + "()\n";
    const std::string read =
        pth ? "torch.load(weights, mmap=True, weights_only=True)" : "load_file(weights)";
    out += "    state = " + (quantized ? "dequantized(" + read + ")" : read) + "\n";
    out += "    model.load_state_dict(state, strict=True, assign=True)\n";
    out += "    return model.eval()\n";
  } else {
    out += "    return " + program_.class_name + "().eval()\n";
  }
  return out;
}

}  // namespace

std::string print_python(const Program& program, const PythonOptions& options) {
  const Program named = within_limits(hoist_sizes(program));
  return Printer(named, options).run();
}

}  // namespace onnx2nn::emit
