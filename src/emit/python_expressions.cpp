#include "emit/python_expressions.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <string>

#include "emit/python_style.h"
#include "support/error.h"
#include "support/number.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::emit {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;

std::string float_text(double v, bool is_double) {
  if (std::isnan(v)) return "torch.nan";
  if (std::isinf(v)) return v > 0 ? "torch.inf" : "-torch.inf";
  if (v == -static_cast<double>(std::numeric_limits<float>::max()))
    return "torch.finfo(torch.float32).min";
  const auto f = static_cast<float>(v);
  // The largest float's shortest text is, as a double, beyond the floats: torch refuses it.
  const bool short_form = !is_double && static_cast<double>(f) == v && std::abs(v) < 3.4e38;
  std::string s = short_form ? shortest(f) : shortest(v);
  if (s.find_first_of(".en") == std::string::npos) {
    s += ".0";
  }
  // 1e+08 is written 1e8.
  if (const auto plus = s.find("e+"); plus != std::string::npos)
    s.erase(plus + 1, s[plus + 2] == '0' ? 2 : 1);
  if (const auto minus = s.find("e-0"); minus != std::string::npos) s.erase(minus + 2, 1);
  return s;
}

struct Formula {
  std::string text;
  int precedence = 0;
};

/// "8**-0.5" of 0.35355338, "2 * torch.pi" of 6.2831855: what an author writes, where it is the same number.
std::optional<Formula> formula_of(double v, bool is_double) {
  constexpr int kLargest = 8192;
  const auto same = [&](double w) {
    return is_double ? w == v : static_cast<double>(static_cast<float>(w)) == v;
  };
  if (same(std::numbers::pi)) return Formula{"torch.pi", 100};
  if (same(2 * std::numbers::pi)) return Formula{"2 * torch.pi", kProduct};
  if (!(v > 0.0)) return std::nullopt;
  const double n = std::round(v < 1 ? 1 / (v * v) : v * v);
  if (!(n >= 2 && n <= kLargest) || std::sqrt(n) == std::floor(std::sqrt(n))) return std::nullopt;
  const char* power = v < 1 ? "-0.5" : "0.5";
  if (!same(std::pow(n, v < 1 ? -0.5 : 0.5))) return std::nullopt;
  return Formula{std::to_string(static_cast<int>(n)) + "**" + power, kPower};
}

constexpr int kComprehension = 10;

bool is_comprehension(const Expr& e) { return e.kind == ExprKind::Op && e.text == "for"; }

bool is_default(const Expr& e, const torch::SchemaArg& arg) {
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
      const auto v = real_number(d);
      return v && (*v == e.number || static_cast<double>(static_cast<float>(*v)) == e.number);
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

/// How many axes of size one are put in before others, one after the other: 2 of
/// x.unsqueeze(1).unsqueeze(2).
int new_axes(const Expr& e) {
  int count = 0;
  const Expr* x = &e;
  std::int64_t axis = 0;
  for (; x->kind == ExprKind::Aten && torch::function_of(*x) == "unsqueeze" && x->args.size() == 2;
       x = x->args[0].get()) {
    const Expr& at = *x->args[1];
    if (at.kind != ExprKind::Int || at.integer < 0 || at.integer > 7) break;
    if (count > 0 && at.integer != axis - 1) break;
    axis = at.integer;
    ++count;
  }
  return count;
}

/// The method that brings a tensor to a dtype: float of x.float(); empty where there is none that
/// people know.
std::string_view cast_method(ir::DType t) {
  switch (t) {
    case ir::DType::Float32: return "float";
    case ir::DType::Float64: return "double";
    case ir::DType::Float16: return "half";
    case ir::DType::BFloat16: return "bfloat16";
    case ir::DType::Int32: return "int";
    case ir::DType::Int64: return "long";
    case ir::DType::Bool: return "bool";
    default: return {};
  }
}

}  // namespace

std::vector<Text> PythonExpressions::texts(const std::vector<ExprPtr>& args, std::size_t from) {
  std::vector<Text> out;
  for (std::size_t i = from; i < args.size(); ++i) out.push_back(text(*args[i]));
  return out;
}

Text PythonExpressions::int_list(const Expr& e) {
  Text t = brackets("(", texts(e.args), ")");
  t.one_tuple = t.items.size() == 1;
  return t;
}

Text PythonExpressions::slice_text(const Expr& e) {
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
Text PythonExpressions::subscript_of_slices(const Expr& e) {
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

/// x[:, None, None], where each new axis is next to the one before.
Text PythonExpressions::subscript_of_new_axes(const Expr& e) {
  const int count = new_axes(e);
  const Expr* x = &e;
  for (int i = 0; i < count; ++i) x = x->args[0].get();
  const std::int64_t first = e.args[1]->integer - count + 1;
  std::vector<Text> items;
  for (std::int64_t i = 0; i < first; ++i) items.push_back(atom(":"));
  for (int i = 0; i < count; ++i) items.push_back(atom("None"));
  return subscript(text(*x), std::move(items));
}

Text PythonExpressions::aten(const Expr& e) {
  const std::string_view full = e.text;
  const std::string_view base = torch::function_of(e);
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
  if (base == "unsqueeze" && new_axes(e) > 1) return subscript_of_new_axes(e);
  if (full == "to.dtype" && e.args.size() == 2 && e.keywords.empty() && arg(1).kind == ExprKind::DType) {
    const std::string_view cast = cast_method(static_cast<ir::DType>(arg(1).integer));
    if (!cast.empty()) return method_call(text(arg(0)), std::string(cast), {});
  }
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
    // torch.fx follows sizes that are one argument, where the tensor is a buffer, or may be one of a
    // caller's.
    const Expr* of = &arg(0);
    while (of->kind == ExprKind::Aten && !of->args.empty()) of = of->args[0].get();
    const bool of_buffer =
        (arg(0).kind == ExprKind::Attribute && arg(0).integer != 0) ||
        (base == "expand" && of->kind == ExprKind::Var && given_.count(of->var->id) != 0);
    if (style.spread && ints && i == 1 && !a.args.empty() && !of_buffer) {
      for (const auto& item : a.args) args.push_back(text(*item));
      continue;
    }
    Text t;
    const bool sized = schema[i].type.find("[]") == std::string_view::npos;
    const ExprPtr same = ints && sized ? torch::only_number(a) : nullptr;
    if (same && (a.args.size() == 1 || schema[i].name != "dim")) {
      t = text(*same);
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

Text PythonExpressions::text(const Expr& e) {
  switch (e.kind) {
    case ExprKind::None:
      return atom("None");
    case ExprKind::Bool:
      return atom(e.integer != 0 ? "True" : "False");
    case ExprKind::Int:
      return atom(std::to_string(e.integer), e.integer < 0 ? kUnary : 100);
    case ExprKind::Float:
      if (const auto formula = formula_of(e.number, e.integer == 64))
        return atom(formula->text, formula->precedence);
      return atom(float_text(e.number, e.integer == 64), e.number < 0 ? kUnary : 100);
    case ExprKind::Str:
      return atom(python_quote(e.text));
    case ExprKind::DType:
      return atom("torch." + std::string(ir::info(static_cast<ir::DType>(e.integer)).torch_name));
    case ExprKind::Name:
      return atom(e.text);
    case ExprKind::Var:
      return atom(e.var->name);
    case ExprKind::Self:
      return atom("self");
    case ExprKind::Attribute:
      return torch::is_attribute_name(e.text)
                 ? postfix(text(*e.args[0]), "." + e.text)
                 : call("getattr", {text(*e.args[0]), atom(python_quote(e.text))});
    case ExprKind::Param:
    case ExprKind::Constant:
    case ExprKind::Module:
    case ExprKind::Method:
      break;  // what the stage structure has made attributes and calls of
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
      Text t = call(e.text, std::move(args));
      t.group = e.args.size() == 1 && is_comprehension(*e.args[0]);  // no comma after it
      return t;
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
      return operation(e);
  }
  throw InternalError("an expression that the stage structure left over");
}

Text PythonExpressions::operation(const Expr& e) {
  // Python's own operators and builtins.
  const std::string& o = e.text;
  static const std::map<std::string, int> kInfix = {
      {"or", 20},           {"and", 22},      {"==", kCompare}, {"!=", kCompare}, {"<", kCompare},
      {">", kCompare},      {"<=", kCompare}, {">=", kCompare}, {"in", kCompare}, {"is", kCompare},
      {"is not", kCompare}, {"|", 34},        {"^", 36},        {"&", 38},        {"+", kSum},
      {"-", kSum},          {"*", kProduct},  {"/", kProduct},  {"//", kProduct}, {"%", kProduct}};
  if (const auto it = kInfix.find(o); it != kInfix.end() && e.args.size() == 2) {
    const int p = it->second;
    // Products of Python's integers are the same in any order.
    const bool chain = o == "*" && e.args[1]->kind == ExprKind::Op && e.args[1]->text == "*";
    return infix(operand(*e.args[0], p == kCompare ? p + 1 : p), o, operand(*e.args[1], chain ? p : p + 1), p);
  }
  if (o == "neg") return atom("-" + operand(*e.args[0], kUnary).flat(), kUnary);
  if (o == "not") return atom("not " + operand(*e.args[0], 24).flat(), 24);
  if (o == "if") {
    Text t;
    t.items = {operand(*e.args[1], 19), operand(*e.args[0], 19), operand(*e.args[2], 18)};
    t.operators = {"if", "else"};
    t.precedence = 18;
    t.breakable = true;
    return t;
  }
  if (o == "[]" && e.args[1]->kind == ExprKind::Op && e.args[1]->text == "slice") {
    std::string range;
    for (std::size_t i = 0; i < e.args[1]->args.size(); ++i) {
      const Expr& bound = *e.args[1]->args[i];
      range += (i > 0 ? ":" : "") + (bound.kind == ExprKind::None ? "" : text(bound).flat());
    }
    return postfix(text(*e.args[0]), "[" + range + "]");
  }
  if (o == "for")
    return infix(text(*e.args[0]), "for",
                 atom(text(*e.args[1]).flat() + " in " + text(*e.args[2]).flat()), kComprehension);
  if (o == "call") {
    std::vector<Text> args = texts(e.args, 1);
    for (const auto& [key, value] : e.keywords) {
      args.push_back(text(*value));
      args.back().prefix = key + "=";
    }
    return call(text(*e.args[0]).flat(), std::move(args));
  }
  if (o == "[]") return subscript(text(*e.args[0]), {text(*e.args[1])});
  if (o == "*" && is_comprehension(*e.args[0])) {
    Text all = brackets("*[", {text(*e.args[0])}, "]");
    all.group = true;
    return all;
  }
  if (o == "*") return atom("*" + operand(*e.args[0], kPostfix).flat());
  if (o == "raw") return atom(e.args[0]->text);
  if (o == "finfo.min") return postfix(call("torch.finfo", texts(e.args)), ".min");
  if (o[0] == '.') {
    static const std::set<std::string> kAttributes = {".device", ".dtype", ".shape", ".real",
                                                      ".imag",   ".ndim",  ".T",     ".mT"};
    if (kAttributes.count(o) != 0) return postfix(text(*e.args[0]), o);
    return method_call(text(*e.args[0]), o.substr(1), texts(e.args, 1));
  }
  return call(o, texts(e.args));
}

}  // namespace onnx2nn::emit
