#include "emit/script_function.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "emit/script_helpers.h"
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
using torch::Stmt;

/// An expression that needs no further statement, and its type.
struct Typed {
  std::string text;
  std::string type;
};

bool is_list(std::string_view type) { return type.starts_with("List["); }
bool is_tuple(std::string_view type) { return type.starts_with("Tuple["); }
bool is_number(std::string_view type) {
  return type == "int" || type == "float" || type == "bool" || type == "number";
}
bool has_tensor(std::string_view type) { return type.find("Tensor") != std::string_view::npos; }

/// What is between the brackets of "List[int]".
std::string inside(std::string_view type) {
  const std::size_t open = type.find('[');
  return std::string(type.substr(open + 1, type.size() - open - 2));
}

/// The types of a tuple's items.
ScriptTypes items_of(std::string_view tuple) {
  ScriptTypes out;
  int depth = 0;
  std::string item;
  for (const char c : inside(tuple)) {
    if (c == '[') ++depth;
    if (c == ']') --depth;
    if (c == ',' && depth == 0) {
      out.push_back(item);
      item.clear();
    } else if (c != ' ' || !item.empty()) {
      item += c;
    }
  }
  if (!item.empty()) out.push_back(item);
  return out;
}

std::string tuple_of(const ScriptTypes& types) { return "Tuple[" + join(types, ", ") + "]"; }

/// The type of a schema's result, as annotations have it.
std::string annotation(std::string_view schema_type) {
  std::string plain;  // without what says of aliases: "Tensor(a)[]"
  int depth = 0;
  for (const char c : schema_type) {
    if (c == '(') ++depth;
    if (depth == 0) plain += c;
    if (c == ')') --depth;
  }
  if (plain.ends_with("[]")) return "List[" + annotation(plain.substr(0, plain.size() - 2)) + "]";
  if (plain.ends_with("?")) return "Optional[" + annotation(plain.substr(0, plain.size() - 1)) + "]";
  if (plain == "SymInt") return "int";
  if (plain == "Scalar") return "number";
  return plain;
}

std::string float_literal(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto r = std::to_chars(buffer, buffer + sizeof buffer, v);
  std::string s(buffer, r.ptr);
  if (s.find_first_of(".e") == std::string::npos) s += '.';
  return s;
}

bool is_integer_text(std::string_view text) {
  return !text.empty() && std::all_of(text.begin() + (text[0] == '-' ? 1 : 0), text.end(),
                                      [](char c) { return is_digit(c); });
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error("unsupported-output", "TorchScript has no " + what,
              "write the model as .py, which carries all operators, or as .pt2");
}

/// The numbers that TorchScript has in the place of dtypes (c10::ScalarType).
std::string dtype_number(ir::DType dtype) {
  static const std::map<std::string_view, int> kNumbers = {
      {"uint8", 0},        {"int8", 1},           {"int16", 2},          {"int32", 3},
      {"int64", 4},        {"float16", 5},        {"float32", 6},        {"float64", 7},
      {"complex64", 9},    {"complex128", 10},    {"bool", 11},          {"bfloat16", 15},
      {"float8_e5m2", 23}, {"float8_e4m3fn", 24}, {"float8_e5m2fnuz", 25},
      {"float8_e4m3fnuz", 26}, {"uint16", 27},    {"uint32", 28},        {"uint64", 29}};
  const std::string_view name = ir::info(dtype).torch_name;
  const auto it = kNumbers.find(name);
  if (it == kNumbers.end()) refuse("dtype " + std::string(name));
  return std::to_string(it->second);
}

class Writer {
 public:
  Writer(const torch::Instance& module, const torch::Function& function,
         const ScriptTypes& arguments, const ScriptCallee& callee)
      : module_(module), function_(function), callee_(callee) {
    collect_names(function.body);
    for (const auto& p : function.params) names_.insert(p.var->name);
    if (arguments.size() != function.params.size())
      refuse("call of a method with other arguments than it has");
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const Typed v = define(*function.params[i].var, arguments[i]);
      out_.params += ",\n    " + v.text + ": " + arguments[i];
    }
  }

  ScriptMethod run() {
    block(function_.body);
    if (out_.returns.empty()) {
      out_.returns = "NoneType";
      line("return None");
    }
    out_.body = std::move(text_);
    return std::move(out_);
  }

 private:
  // ---- names

  void collect_names(const Block& b) {
    for (const Stmt& s : b) {
      for (const auto& v : s.targets) names_.insert(v->name);
      collect_names(s.body);
      collect_names(s.orelse);
    }
  }

  std::string fresh(std::string stem) {
    while (!stem.empty() && stem[0] == '_') stem.erase(0, 1);
    if (stem.empty() || is_digit(stem[0]) || torch::is_python_keyword(stem)) stem = "v_" + stem;
    std::string name = stem;
    for (int& k = counts_[stem]; names_.count(name) != 0 || is_word(name);)
      name = stem + "_" + std::to_string(++k);
    names_.insert(name);
    return name;
  }
  static bool is_word(const std::string& name) {
    static const std::set<std::string> kWords = {
        "aten", "attribute", "CONSTANTS", "fork", "getattr", "inf", "nan", "infj", "nanj", "ops",
        "torch", "uninitialized", "unchecked_cast", "annotate", "self", "int", "float", "bool",
        "str", "range", "print", "number"};
    return kWords.count(name) != 0;
  }

  /// The variable with this type from now on. What TorchScript has under one name has one type.
  Typed define(const torch::Var& v, const std::string& type) {
    const auto known = variables_.find(v.id);
    if (known != variables_.end() && known->second.type == type) return known->second;
    if (known != variables_.end() && depth_ > 0)
      refuse("variable that is " + known->second.type + " in one place and " + type +
             " in another");
    std::string name = v.name;
    const auto taken = types_.find(name);
    if (name == "_" || is_word(name) || torch::is_python_keyword(name) || !torch::is_ascii_identifier(name) ||
        (taken != types_.end() && taken->second != type))
      name = fresh(torch::is_ascii_identifier(name) && name != "_" ? name : "unused");
    types_[name] = type;
    return variables_[v.id] = {name, type};
  }

  // ---- lines

  void line(const std::string& text) {
    text_.append(4 + 2 * static_cast<std::size_t>(depth_), ' ');
    text_ += text;
    text_ += '\n';
  }

  /// A line that gives a value its name.
  Typed let(const std::string& text, std::string type, const std::string& stem) {
    const std::string name = fresh(stem);
    types_[name] = type;
    line(name + " = " + text);
    return {name, std::move(type)};
  }
  Typed call(const std::string& function, const std::vector<std::string>& args, std::string type,
             const std::string& stem) {
    return let(function + "(" + join(args, ", ") + ")", std::move(type), stem);
  }

  template <typename Body>
  void nested(Body&& body) {
    ++depth_;
    auto members = std::exchange(members_, {});
    body();
    members_ = std::move(members);
    --depth_;
  }

  // ---- members of modules

  struct Object {
    std::string text;
    const torch::Instance* module = nullptr;
    bool is_weight = false;
  };

  Object object(const Expr& e) {
    if (e.kind == ExprKind::Self) return {"self", &module_, false};
    if (e.kind != ExprKind::Attribute) refuse("such object");
    const Object owner = object(*e.args[0]);
    if (owner.module == nullptr) refuse("attribute " + e.text);
    for (const torch::Attribute& a : owner.module->attributes) {
      if (a.name != e.text) continue;
      const std::string text = script_member(owner.text, a.name);
      auto it = members_.find(text);
      if (it == members_.end()) {
        const std::string name = fresh(torch::is_ascii_identifier(a.name) ? a.name : "item");
        types_[name] = a.module ? "module" : "Tensor";
        line(name + " = " + text);
        it = members_.emplace(text, name).first;
      }
      return {it->second, a.module.get(), a.module == nullptr};
    }
    throw InternalError("no member " + e.text);
  }

  // ---- types

  /// `v` as an argument of this type of a schema.
  std::string fit(const Typed& v, std::string_view want) {
    if (v.type == "None") return "None";
    const bool optional = want.ends_with("?");
    if (optional) want.remove_suffix(1);
    if (const std::size_t alias = want.find('('); alias != std::string_view::npos)
      want = want.substr(0, alias);
    if (want == "Tensor" && v.type == "Optional[Tensor]" && !optional)
      return call("unchecked_cast", {"Tensor", v.text}, "Tensor", "given").text;
    if (want == "float") {
      if (v.type == "int" && is_integer_text(v.text)) return v.text + ".";
      if (v.type != "float") return call("float", {v.text}, "float", "number").text;
    }
    if (want == "int" && v.type == "str") return reduction_number(v.text);
    if ((want == "int" || want == "SymInt") && v.type != "int")
      return call("int", {v.text}, "int", "number").text;
    if (want == "bool" && v.type != "bool") return call("bool", {v.text}, "bool", "condition").text;
    if ((want.starts_with("int[") || want.starts_with("SymInt[")) && v.type == "Tensor")
      return integers_of(v).text;
    return v.text;
  }

  /// What a loss's reduction is called in Python (at::Reduction).
  static std::string reduction_number(const std::string& quoted) {
    if (quoted == "\"none\"") return "0";
    if (quoted == "\"mean\"") return "1";
    if (quoted == "\"sum\"") return "2";
    refuse("number for " + quoted);
  }

  /// The items of a tensor of one dimension.
  Typed integers_of(const Typed& x) {
    const Typed count = call("torch.size", {x.text, "0"}, "int", "count");
    const Typed out = let("annotate(List[int], [])", "List[int]", "sizes");
    const std::string i = fresh("i");
    types_[i] = "int";
    line("for " + i + " in range(" + count.text + "):");
    nested([&] {
      const Typed item = call("torch.select", {x.text, "0", i}, "Tensor", "item");
      const Typed number = call("int", {item.text}, "int", "number");
      call("torch.append", {out.text, number.text}, "List[int]", "appended");
    });
    return out;
  }

  /// A list whose items have the type `want` of a schema; "" where none is asked for.
  Typed list(const Expr& e, std::string_view want) {
    if (std::any_of(e.args.begin(), e.args.end(), is_spread)) return joined(e, want);
    std::vector<Typed> items;
    bool has_float = false;
    bool has_int = false;
    bool tensors = false;
    for (const auto& a : e.args) {
      items.push_back(value(*a));
      has_float = has_float || items.back().type == "float";
      has_int = has_int || items.back().type == "int";
      tensors = tensors || items.back().type == "Tensor";
    }
    if (want.empty() || want == "t") {
      // What lowering mixes with integers are sizes.
      want = has_int && tensors ? "int" : has_float && !tensors ? "float" : want;
      if (want == "t") want = "";
    }
    std::vector<std::string> texts;
    for (const Typed& item : items) texts.push_back(want.empty() ? item.text : fit(item, want));
    const std::string type = want.empty() ? (items.empty() ? "Tensor" : items[0].type)
                                          : annotation(want);
    const std::string text = "[" + join(texts, ", ") + "]";
    if (items.empty() || type.starts_with("Optional["))
      return {"annotate(List[" + type + "], " + text + ")", "List[" + type + "]"};
    return {text, "List[" + type + "]"};
  }

  /// `*items` in a list.
  static bool is_spread(const ExprPtr& e) {
    return e->kind == ExprKind::Op && e->text == "*" && e->args.size() == 1;
  }

  /// `[*a, b]` as a sum of lists.
  Typed joined(const Expr& e, std::string_view want) {
    std::optional<Typed> sum;
    const auto add = [&](const Typed& part) {
      sum = sum ? call("torch.add", {sum->text, part.text}, sum->type, "items") : part;
    };
    auto plain = torch::Ex::make(ExprKind::List);
    const auto flush = [&] {
      if (!plain->args.empty()) add(list(*plain, want));
      plain = torch::Ex::make(ExprKind::List);
    };
    for (const ExprPtr& a : e.args) {
      if (!is_spread(a)) {
        plain->add(a);
        continue;
      }
      flush();
      const Typed part = value(*a->args[0]);
      if (!is_list(part.type)) refuse("items of a " + part.type);
      add(part);
    }
    flush();
    return *sum;
  }

  // ---- expressions

  Typed value(const Expr& e) {
    switch (e.kind) {
      case ExprKind::None:
        return {"None", "None"};
      case ExprKind::Bool:
        return {e.integer != 0 ? "True" : "False", "bool"};
      case ExprKind::Int:
        return {std::to_string(e.integer), "int"};
      case ExprKind::Float:
        return {float_literal(e.number), "float"};
      case ExprKind::Str:
        return {script_quote(e.text), "str"};
      case ExprKind::DType:
        return {dtype_number(static_cast<ir::DType>(e.integer)), "int"};
      case ExprKind::Name:
        return named(e.text);
      case ExprKind::Var: {
        const auto it = variables_.find(e.var->id);
        if (it == variables_.end()) refuse("variable that is set in one branch only");
        return it->second;
      }
      case ExprKind::Self:
      case ExprKind::Attribute: {
        const Object o = object(e);
        if (!o.is_weight) refuse("module as a value");
        return {o.text, "Tensor"};
      }
      case ExprKind::Aten:
        return aten(e);
      case ExprKind::Size:
        return call("torch.size", {fit(value(*e.args[0]), "Tensor"), std::to_string(e.integer)},
                    "int", e.text.empty() ? "size" : e.text);
      case ExprKind::ShapeOf:
        return call("torch.size", {fit(value(*e.args[0]), "Tensor")}, "List[int]", "shape");
      case ExprKind::List:
        return list(e, "");
      case ExprKind::Tuple:
        return tuple(e);
      case ExprKind::Method:
        return method(e);
      case ExprKind::Op:
        return operation(e);
      case ExprKind::Helper:
        return helper(e);
      case ExprKind::Function:
        refuse("function " + e.text);
      default:
        refuse("such expression");
    }
  }

  static Typed named(const std::string& name) {
    if (name == "torch.inf" || name == "math.inf") return {"inf", "float"};
    if (name == "-torch.inf" || name == "-math.inf") return {"-inf", "float"};
    if (name == "torch.nan" || name == "math.nan") return {"nan", "float"};
    if (name == "True" || name == "False") return {name, "bool"};
    refuse("value " + name);
  }

  Typed tuple(const Expr& e) {
    std::vector<std::string> texts;
    ScriptTypes types;
    for (const auto& a : e.args) {
      const Typed v = value(*a);
      texts.push_back(v.text);
      types.push_back(v.type);
    }
    return {"(" + join(texts, ", ") + (texts.size() == 1 ? ",)" : ")"), tuple_of(types)};
  }

  Typed method(const Expr& e) {
    const Object on = object(*e.args[0]);
    if (on.module == nullptr) refuse("call of a weight");
    std::vector<std::string> texts;
    ScriptTypes types;
    for (std::size_t i = 1; i < e.args.size(); ++i) {
      const Typed v = value(*e.args[i]);
      texts.push_back(v.text);
      types.push_back(v.type);
    }
    const ScriptMethod& called = callee_(*on.module, e.text, types);
    return let("(" + on.text + ")." + e.text + "(" + join(texts, ", ") + (texts.empty() ? ")" : ", )"),
               called.returns, e.text == "forward" ? "result" : e.text);
  }

  // ---- helpers

  /// A value as a parameter of this annotated type.
  std::string fit_annotated(const Expr& e, const std::string& want) {
    const bool optional = want.starts_with("Optional[");
    const std::string plain = optional ? inside(want) : want;
    const bool is_sequence = e.kind == ExprKind::List || e.kind == ExprKind::Tuple;
    if (is_sequence && is_list(plain)) {
      const std::string item = inside(plain);
      return list(e, item == "Optional[Tensor]" ? "Tensor?" : item).text;
    }
    const Typed v = value(e);
    if (v.type == "None" && optional) return "None";
    if (v.type == plain || v.type == want) return v.text;
    if (is_list(plain) && v.type == "Tensor" && inside(plain) == "int") return integers_of(v).text;
    const bool scalar = plain == "int" || plain == "float" || plain == "bool";
    if (scalar && (is_number(v.type) || v.type == "Tensor")) return fit(v, plain);
    if (plain == "Tensor" && v.type == "Optional[Tensor]") return fit(v, "Tensor");
    refuse("way to give a " + v.type + " where a helper takes a " + want);
  }

  Typed helper(const Expr& e) {
    const ScriptHelper* known = script_helper(e.text);
    if (known == nullptr) refuse("helper " + e.text);
    std::vector<std::string> texts;
    std::size_t used = e.args.size();
    for (std::size_t i = 0; i < known->params.size(); ++i) {
      const ScriptParameter& p = known->params[i];
      if (i < e.args.size()) {
        texts.push_back(fit_annotated(*e.args[i], p.type));
        continue;
      }
      const auto word = std::find_if(e.keywords.begin(), e.keywords.end(),
                                     [&](const auto& k) { return k.first == p.name; });
      if (word != e.keywords.end()) {
        ++used;
        texts.push_back(fit_annotated(*word->second, p.type));
      } else if (!p.otherwise.empty()) {
        texts.push_back(p.otherwise);
      } else {
        refuse("helper " + e.text + " without " + p.name);
      }
    }
    if (used != e.args.size() + e.keywords.size() || e.args.size() > known->params.size())
      refuse("helper " + e.text + " with such arguments");
    out_.helpers.insert(e.text);
    return call(std::string(kScriptHelpers) + "." + e.text, texts, known->returns, e.text);
  }

  Typed aten(const Expr& e) {
    bool known = false;
    const auto schema = torch::schema_of(e.text, &known);
    ONNX2NN_CHECK(known && e.args.size() <= schema.size(), "no ATen overload " + e.text);
    // Its front end knows views by sizes only.
    if (e.text == "view.dtype") refuse("view of a tensor as another dtype");
    const std::string base(torch::function_of(e));
    std::vector<std::string> texts;
    bool takes_tensor = false;
    bool takes_float = false;
    const auto argument = [&](const Expr& a, std::string_view want) -> std::string {
      Typed v;
      const std::size_t bracket = want.rfind('[');
      const bool is_sequence = a.kind == ExprKind::List || a.kind == ExprKind::Tuple;
      if (is_sequence && bracket != std::string_view::npos && want.back() != ')') {
        v = list(a, want.substr(0, bracket));
        takes_tensor = takes_tensor || has_tensor(v.type);
        return v.text;
      }
      v = value(a);
      takes_tensor = takes_tensor || has_tensor(v.type);
      takes_float = takes_float || v.type == "float";
      // Which of several overloads is meant, the types of the arguments say.
      const bool scalar_of_tensor = want.starts_with("Tensor") && is_number(v.type);
      return scalar_of_tensor ? v.text : fit(v, want);
    };
    for (std::size_t i = 0; i < e.args.size(); ++i) {
      std::string text = argument(*e.args[i], schema[i].type);
      if (schema[i].keyword_only) text = std::string(schema[i].name) + "=" + text;
      texts.push_back(std::move(text));
    }
    for (const auto& [key, v] : e.keywords) {
      const auto arg = std::find_if(schema.begin(), schema.end(),
                                    [&, name = std::string_view(key)](const torch::SchemaArg& a) {
                                      return a.name == name;
                                    });
      ONNX2NN_CHECK(arg != schema.end(), "no argument " + key + " of " + e.text);
      texts.push_back(key + "=" + argument(*v, arg->type));
    }
    ScriptTypes results;
    for (const std::string_view r : torch::results_of(e.text)) results.push_back(annotation(r));
    std::string type = results.size() == 1 ? results[0] : tuple_of(results);
    // Python numbers where tensors could stand: ATen has an operator of that name for them too.
    if (!takes_tensor && !schema.empty() && schema[0].type.starts_with("Tensor"))
      type = number_type(base, takes_float);
    return call("torch." + base, texts, type, base);
  }

  static std::string number_type(const std::string& function, bool has_float) {
    static const std::set<std::string> kCompare = {"eq", "ne", "lt", "le", "gt", "ge"};
    if (kCompare.count(function) != 0) return "bool";
    return has_float || function == "div" ? "float" : "int";
  }

  Typed operation(const Expr& e) {
    const std::string& o = e.text;
    static const std::map<std::string, std::string> kBinary = {
        {"+", "add"},  {"-", "sub"},  {"*", "mul"},  {"/", "div"},      {"//", "floordiv"},
        {"%", "remainder"}, {"==", "eq"}, {"!=", "ne"}, {"<", "lt"},    {"<=", "le"},
        {">", "gt"},   {">=", "ge"},  {"and", "__and__"}, {"or", "__or__"},
        {"&", "__and__"}, {"|", "__or__"}, {"^", "__xor__"}};
    if (const auto it = kBinary.find(o); it != kBinary.end() && e.args.size() == 2) {
      Typed a = value(*e.args[0]);
      Typed b = value(*e.args[1]);
      std::string function = it->second;
      if (has_tensor(a.type) || has_tensor(b.type)) {
        if (function == "floordiv") function = "floor_divide";
        return call("torch." + function, {a.text, b.text}, is_list(a.type) ? a.type : "Tensor",
                    function);
      }
      if (is_list(a.type)) return call("torch." + function, {a.text, b.text}, a.type, function);
      if (o == "and" || o == "or")
        return call("torch." + function, {fit(a, "bool"), fit(b, "bool")}, "bool",
                    o == "and" ? "both" : "either");
      const bool has_float = a.type == "float" || b.type == "float";
      return call("torch." + function, {a.text, b.text}, number_type(function, has_float), function);
    }
    if (o == "is" || o == "is not") {
      const Typed a = value(*e.args[0]);
      return call(o == "is" ? "torch.__is__" : "torch.__isnot__", {a.text, "None"}, "bool", "absent");
    }
    if (o == "neg") {
      const Typed a = value(*e.args[0]);
      return call("torch.neg", {a.text}, a.type, "neg");
    }
    if (o == "not") return call("torch.__not__", {fit(value(*e.args[0]), "bool")}, "bool", "negated");
    if (o == "int" || o == "float" || o == "bool") {
      const Typed a = value(*e.args[0]);
      return a.type == o ? a : call(o, {a.text}, o, "number");
    }
    if (o == "len") return call("torch.len", {value(*e.args[0]).text}, "int", "count");
    if ((o == "min" || o == "max") && e.args.size() == 2) {
      const Typed a = value(*e.args[0]);
      const Typed b = value(*e.args[1]);
      return call("ops.prim." + o, {a.text, b.text},
                  a.type == "float" || b.type == "float" ? "float" : a.type, o);
    }
    if (o == "if") return choice(e);
    if (o == "[]") return element(e);
    if (o == "list" || o == "tuple" || o == "reversed" || o == "range") return sequence(e);
    if (o == ".append") {
      const Typed l = value(*e.args[0]);
      const Typed x = value(*e.args[1]);
      return call("torch.append", {l.text, x.text}, l.type, "appended");
    }
    if (o == ".device") return call("ops.prim.device", {value(*e.args[0]).text}, "Device", "device");
    if (o == ".dtype") return call("ops.prim.dtype", {value(*e.args[0]).text}, "int", "dtype");
    if (o == ".shape") return call("torch.size", {value(*e.args[0]).text}, "List[int]", "shape");
    if (o == ".dim") return call("torch.dim", {value(*e.args[0]).text}, "int", "rank");
    if (o == ".numel") return call("torch.numel", {value(*e.args[0]).text}, "int", "numel");
    if (o == ".tolist") return integers_of(value(*e.args[0]));
    if (o == ".reshape" || o == ".permute" || o == ".squeeze") {
      const std::string x = fit(value(*e.args[0]), "Tensor");
      std::string dims;
      if (e.args.size() == 2 && e.args[1]->kind != ExprKind::Int) {
        const Typed v = e.args[1]->kind == ExprKind::Tuple || e.args[1]->kind == ExprKind::List
                            ? list(*e.args[1], "int")
                            : value(*e.args[1]);
        dims = v.text;
      } else {
        std::vector<std::string> all;
        for (std::size_t i = 1; i < e.args.size(); ++i) all.push_back(fit(value(*e.args[i]), "int"));
        dims = "[" + join(all, ", ") + "]";
      }
      return call("torch" + o, {x, dims}, "Tensor", o.substr(1));
    }
    refuse("operation " + o);
  }

  /// `a if condition else b`
  Typed choice(const Expr& e) {
    const std::string condition = fit(value(*e.args[0]), "bool");
    const std::string name = fresh("chosen");
    std::string type;
    const auto arm = [&](const Expr& a) {
      nested([&] {
        const Typed v = value(a);
        if (!type.empty() && type != v.type) refuse("choice between " + type + " and " + v.type);
        type = v.type;
        line(name + " = " + v.text);
      });
    };
    line("if " + condition + ":");
    arm(*e.args[1]);
    line("else:");
    arm(*e.args[2]);
    types_[name] = type;
    return {name, type};
  }

  /// `x[i]` and `x[a:b]`
  Typed element(const Expr& e) {
    const Typed x = value(*e.args[0]);
    const Expr& i = *e.args[1];
    if (i.kind == ExprKind::Op && (i.text == "slice" || i.text == "raw")) {
      if (!is_list(x.type) && !is_tuple(x.type)) refuse("such slice of a tensor");
      std::vector<std::string> bounds;
      if (i.text == "raw") {
        // "::-1" and ":-1", as lists are turned round and shortened.
        const std::string& range = i.args[0]->text;
        if (range == "::-1") return reversed(x);
        if (range != ":-1") refuse("slice " + range);
        bounds = {"None", "-1"};
      } else {
        for (const auto& b : i.args) bounds.push_back(value(*b).text);
      }
      if (is_tuple(x.type)) return first_items(x, i);
      std::vector<std::string> args{x.text};
      args.insert(args.end(), bounds.begin(), bounds.end());
      return call("torch.slice", args, x.type, "part");
    }
    if (is_tuple(x.type)) {
      const ScriptTypes types = items_of(x.type);
      if (i.kind != ExprKind::Int || i.integer < 0 ||
          i.integer >= static_cast<std::int64_t>(types.size()))
        refuse("such element of a tuple");
      return let("(" + x.text + ")[" + std::to_string(i.integer) + "]",
                 types[static_cast<std::size_t>(i.integer)], "item");
    }
    const std::string at = fit(value(i), "int");
    if (x.type == "Tensor") return call("torch.select", {x.text, "0", at}, "Tensor", "item");
    if (!is_list(x.type)) refuse("element of a " + x.type);
    return let(x.text + "[" + at + "]", inside(x.type), "item");
  }

  Typed first_items(const Typed& x, const Expr& slice) {
    const ScriptTypes types = items_of(x.type);
    std::vector<std::string> texts;
    ScriptTypes kept;
    const auto end = static_cast<std::size_t>(slice.args.back()->integer);
    for (std::size_t k = 0; k < std::min(end, types.size()); ++k) {
      kept.push_back(types[k]);
      texts.push_back(
          let("(" + x.text + ")[" + std::to_string(k) + "]", types[k], "item").text);
    }
    return {"(" + join(texts, ", ") + ",)", tuple_of(kept)};
  }

  /// A list of the same items, the last one first.
  Typed reversed(const Typed& x) {
    const Typed count = call("torch.len", {x.text}, "int", "count");
    const Typed out = let("annotate(" + x.type + ", [])", x.type, "reversed");
    const std::string i = fresh("i");
    types_[i] = "int";
    line("for " + i + " in range(" + count.text + "):");
    nested([&] {
      const Typed back = call("torch.sub", {count.text, i}, "int", "back");
      const Typed at = call("torch.sub", {back.text, "1"}, "int", "at");
      const Typed item = let(x.text + "[" + at.text + "]", inside(x.type), "item");
      call("torch.append", {out.text, item.text}, x.type, "appended");
    });
    return out;
  }

  /// list(...), tuple(...), reversed(...) and range(...) as values.
  Typed sequence(const Expr& e) {
    if (e.text == "range") {
      const Typed out = let("annotate(List[int], [])", "List[int]", "numbers");
      std::string start = "0";
      std::string stop = fit(value(*e.args.back()), "int");
      if (e.args.size() == 2) start = fit(value(*e.args[0]), "int");
      if (e.args.size() > 2) refuse("range with a step");
      const Typed count = call("torch.sub", {stop, start}, "int", "count");
      const std::string i = fresh("i");
      types_[i] = "int";
      line("for " + i + " in range(" + count.text + "):");
      nested([&] {
        const Typed number = call("torch.add", {start, i}, "int", "number");
        call("torch.append", {out.text, number.text}, "List[int]", "appended");
      });
      return out;
    }
    const Expr& a = *e.args[0];
    const Typed v = a.kind == ExprKind::Tuple || a.kind == ExprKind::List ? list(a, "") : value(a);
    if (v.type == "Tensor") return integers_of(v);
    if (!is_list(v.type)) refuse(e.text + " of a " + v.type);
    return e.text == "reversed" ? reversed(v) : v;
  }

  // ---- statements

  void block(const Block& b) {
    for (const Stmt& s : b) {
      check_interrupt();
      try {
        statement(s);
      } catch (const Error& error) {
        // The innermost statement that has a node says which.
        if (s.origin.empty() || error.code() != "unsupported-output" || located_) throw;
        located_ = true;
        throw Error(error.code(), std::string(error.what()) + " (node " + printable(s.origin) + ")",
                    error.hint());
      }
    }
  }

  void set(const torch::VarPtr& target, const Typed& v) {
    const Typed name = define(*target, v.type);
    if (name.text != v.text) line(name.text + " = " + v.text);
  }

  void assign(const Stmt& s) {
    if (s.targets.empty()) {
      value(*s.value);
      return;
    }
    const Typed v = value(*s.value);
    if (s.targets.size() == 1) {
      rename_last(s.targets[0], v);
      return;
    }
    ScriptTypes types = is_tuple(v.type) ? items_of(v.type)
                                         : ScriptTypes(s.targets.size(), inside(v.type));
    if (types.size() != s.targets.size()) refuse("assignment of that many values");
    std::string all;
    for (std::size_t i = 0; i < types.size(); ++i)
      all += define(*s.targets[i], types[i]).text + ", ";
    line(all + "= " + v.text);
  }

  /// Gives what the last line made the variable's name, rather than one of its own.
  void rename_last(const torch::VarPtr& target, const Typed& v) {
    const std::size_t start = text_.rfind('\n', text_.size() < 2 ? 0 : text_.size() - 2);
    const std::size_t begin = (start == std::string::npos ? 0 : start + 1);
    const std::string lead(4 + 2 * static_cast<std::size_t>(depth_), ' ');
    const std::string made = lead + v.text + " = ";
    const bool is_last = text_.compare(begin, made.size(), made) == 0 && !is_member(v.text);
    if (!is_last) return set(target, v);
    const Typed name = define(*target, v.type);
    text_.replace(begin, made.size(), lead + name.text + " = ");
    names_.erase(v.text);
    types_.erase(v.text);
    types_[name.text] = v.type;
  }
  bool is_member(const std::string& name) const {
    return std::any_of(members_.begin(), members_.end(),
                       [&](const auto& m) { return m.second == name; }) ||
           std::any_of(variables_.begin(), variables_.end(),
                       [&](const auto& v) { return v.second.text == name; });
  }

  void statement(const Stmt& s) {
    switch (s.kind) {
      case Stmt::Kind::Assign:
        return assign(s);
      case Stmt::Kind::Return: {
        const Typed v = value(*s.value);
        out_.returns = v.type == "None" ? "NoneType" : v.type;
        return line("return " + v.text);
      }
      case Stmt::Kind::If:
        return branch(s);
      case Stmt::Kind::For:
        return loop_for(s);
      case Stmt::Kind::While:
        return loop_while(s);
      case Stmt::Kind::Break:
      case Stmt::Kind::Def:
      case Stmt::Kind::Set:
        refuse("function inside of another");
    }
  }

  void branch(const Stmt& s) {
    line("if " + fit(value(*s.value), "bool") + ":");
    const auto arm = [&](const Block& b) {
      nested([&] {
        if (b.empty()) line("pass");
        block(b);
      });
    };
    arm(s.body);
    line("else:");
    arm(s.orelse);
  }

  /// A loop over numbers, or over the items of lists.
  void loop_for(const Stmt& s) {
    const bool breaks = !s.body.empty() && s.body.back().kind == Stmt::Kind::Break;
    const Expr& over = *s.value;
    std::string start = "0";
    Typed count;
    std::vector<Typed> lists;
    std::vector<bool> backwards;
    if (over.kind == ExprKind::Op && over.text == "range") {
      if (over.args.size() > 2) refuse("range with a step");
      std::string stop = fit(value(*over.args.back()), "int");
      if (over.args.size() == 2) start = fit(value(*over.args[0]), "int");
      count = start == "0" ? Typed{stop, "int"} : call("torch.sub", {stop, start}, "int", "count");
    } else {
      std::vector<ExprPtr> items;
      if (over.kind == ExprKind::Op && over.text == "zip") {
        items = over.args;
      } else {
        items = {s.value.ptr()};
      }
      for (const ExprPtr& item : items) {
        const bool back = item->kind == ExprKind::Op && item->text == "reversed";
        lists.push_back(value(back ? *item->args[0] : *item));
        if (!is_list(lists.back().type)) refuse("loop over a " + lists.back().type);
        backwards.push_back(back);
      }
      count = call("torch.len", {lists[0].text}, "int", "count");
    }
    std::string i;
    std::string going;
    if (breaks) {
      i = fresh("turn");
      types_[i] = "int";
      line(i + " = 0");
      going = call("torch.lt", {i, count.text}, "bool", "going").text;
      line("while " + going + ":");
    } else {
      i = fresh("turn");
      types_[i] = "int";
      line("for " + i + " in range(" + count.text + "):");
    }
    nested([&] {
      if (lists.empty()) {
        set(s.targets[0], start == "0" ? Typed{i, "int"}
                                       : call("torch.add", {start, i}, "int", "number"));
      }
      for (std::size_t k = 0; k < lists.size(); ++k) {
        std::string at = i;
        if (backwards[k]) {
          const Typed back = call("torch.sub", {count.text, i}, "int", "back");
          at = call("torch.sub", {back.text, "1"}, "int", "at").text;
        }
        set(s.targets[k], let(lists[k].text + "[" + at + "]", inside(lists[k].type), "item"));
      }
      if (!breaks) return block(s.body);
      block(Block(s.body.begin(), s.body.end() - 1));
      const Stmt& stop = s.body.back();
      const Typed next = call("torch.add", {i, "1"}, "int", "next");
      line(i + " = " + next.text);
      const Typed more = call("torch.lt", {i, count.text}, "bool", "more");
      std::string keep = more.text;
      if (!stop.value.is_none()) {
        const Typed halt = {fit(value(*stop.value), "bool"), "bool"};
        const Typed on = call("torch.__not__", {halt.text}, "bool", "on");
        keep = call("torch.__and__", {more.text, on.text}, "bool", "both").text;
      }
      line(going + " = " + keep);
    });
  }

  void loop_while(const Stmt& s) {
    const std::string going = fresh("going");
    types_[going] = "bool";
    line(going + " = " + fit(value(*s.value), "bool"));
    line("while " + going + ":");
    nested([&] {
      block(s.body);
      line(going + " = " + fit(value(*s.value), "bool"));
    });
  }

  const torch::Instance& module_;
  const torch::Function& function_;
  const ScriptCallee& callee_;
  ScriptMethod out_;
  std::string text_;
  int depth_ = 0;
  bool located_ = false;
  std::set<std::string> names_;
  std::map<std::string, int> counts_;
  std::map<std::string, std::string> types_;  // of names
  std::unordered_map<int, Typed> variables_;
  std::map<std::string, std::string> members_;  // "self.conv1" -> the name that it has here
};

}  // namespace

ScriptMethod script_method(const torch::Instance& module, const torch::Function& function,
                           const ScriptTypes& arguments, const ScriptCallee& callee) {
  return Writer(module, function, arguments, callee).run();
}

std::string script_member(const std::string& object, const std::string& name) {
  if (torch::is_ascii_identifier(name) && !torch::is_python_keyword(name)) return object + "." + name;
  return "getattr(" + object + ", " + script_quote(name) + ")";
}

std::string script_quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c >= 0x20 && c < 0x7F) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '\\';
      for (const int shift : {6, 3, 0}) out += static_cast<char>('0' + ((byte >> shift) & 7));
    }
  }
  return out + '"';
}

}  // namespace onnx2nn::emit
