// Expressions of TorchScript: what each becomes, and the type that it has.
#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "emit/script_helpers.h"
#include "emit/script_writer.h"
#include "support/error.h"
#include "support/text.h"
#include "torch/schema.h"

namespace onnx2nn::emit {

using torch::ExprKind;

namespace {

/// "star2_tensors" takes as a list what is left over after two arguments: 2.
std::optional<std::size_t> starred_after(std::string_view name) {
  constexpr std::string_view kStar = "star";
  if (!name.starts_with(kStar)) return std::nullopt;
  name.remove_prefix(kStar.size());
  const char* const last = name.data() + name.size();
  std::size_t count = 0;
  const auto [end, error] = std::from_chars(name.data(), last, count);
  if (error != std::errc{} || end == last || *end != '_') return std::nullopt;
  return count;
}

}  // namespace

Typed ScriptWriter::value(const Expr& e) {
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
      if (inner_function(e) != nullptr) refuse("function as a value");
      if (it != variables_.end()) return it->second;
      // A copy of a variable that goes by the same name is no statement.
      if (const auto same = named_.find(e.var->name); same != named_.end()) return same->second;
      refuse("variable " + printable(e.var->name) + " that is set in one branch only");
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

Typed ScriptWriter::named(const std::string& name) {
  if (name == "torch.inf" || name == "math.inf") return {"inf", "float"};
  if (name == "-torch.inf" || name == "-math.inf") return {"-inf", "float"};
  if (name == "torch.nan" || name == "math.nan") return {"nan", "float"};
  if (name == "True" || name == "False") return {name, "bool"};
  refuse("value " + name);
}

Typed ScriptWriter::tuple(const Expr& e) {
  std::vector<std::string> texts;
  ScriptTypes types;
  for (const auto& a : e.args) {
    const Typed v = value(*a);
    texts.push_back(v.text);
    types.push_back(v.type);
  }
  return {"(" + join(texts, ", ") + (texts.size() == 1 ? ",)" : ")"), tuple_of(types)};
}

Typed ScriptWriter::method(const Expr& e) {
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

std::string ScriptWriter::fit_annotated(const Expr& e, const std::string& want) {
  if (const Inner* inner = inner_function(e)) return inner->captured;
  const bool optional = want.starts_with("Optional[");
  const std::string plain = optional ? inside(want) : want;
  const bool is_sequence = e.kind == ExprKind::List || e.kind == ExprKind::Tuple;
  if (is_sequence && is_list(plain)) {
    const std::string item = inside(plain);
    return list(e, item == "Optional[Tensor]" ? "Tensor?" : item).text;
  }
  if (plain == "List[float]" && e.kind == ExprKind::Op && e.text == ".tolist")
    return elements_of(value(*e.args[0]), "float").text;
  const Typed v = value(e);
  if (v.type == "None" && optional) return "None";
  if (v.type == plain || v.type == want) return v.text;
  if (is_list(plain) && v.type == "Tensor" && inside(plain) == "int") return elements_of(v).text;
  const bool scalar = plain == "int" || plain == "float" || plain == "bool";
  if (scalar && (is_scalar_type(v.type) || v.type == "Tensor")) return fit(v, plain);
  if (plain == "Tensor" && v.type == "Optional[Tensor]") return fit(v, "Tensor");
  // Helpers that take a tensor or numbers take tensors here.
  if (plain == "Tensor" && v.type == "List[int]")
    return call("torch.tensor", {v.text, "dtype=4"}, "Tensor", "numbers").text;
  if (plain == "Tensor" && is_scalar_type(v.type))
    return call("torch.as_tensor", {v.text}, "Tensor", "number").text;
  refuse("way to give a " + v.type + " where a helper takes a " + want);
}

std::string ScriptWriter::helper_name(const Expr& e) const {
  if (e.args.empty() || e.args[0]->kind != ExprKind::Var) return e.text;
  const auto it = variables_.find(e.args[0]->var->id);
  if (it == variables_.end()) return e.text;
  const bool sequence = it->second.type == "List[Tensor]" || it->second.type == "Optional[List[Tensor]]";
  const std::string other = e.text + "_sequence";
  return sequence && script_helper(other) != nullptr ? other : e.text;
}

Typed ScriptWriter::as_dtype(const Expr& e) {
  // A helper, since its front end takes `view` by sizes only.
  const std::string x = fit(value(*e.args[0]), "Tensor");
  const std::string dtype = value(*e.args[1]).text;
  out_.helpers.insert("same_bits");
  return call(std::string(kScriptHelpers) + ".same_bits", {x, dtype}, "Tensor", "view");
}

Typed ScriptWriter::helper(const Expr& e) {
  const std::string name = helper_name(e);
  const ScriptHelper* known = script_helper(name);
  if (known == nullptr) refuse("helper " + name);
  std::vector<std::string> texts;
  std::size_t used = e.args.size();
  std::size_t next = 0;  // argument without a name
  std::size_t plain = e.args.size();
  std::map<std::string, std::string> functions;  // parameters that are functions
  const auto give = [&](const ScriptParameter& p, const Expr& a) {
    texts.push_back(fit_annotated(a, p.type));
    if (const Inner* inner = inner_function(a)) functions[p.name] = inner->method;
  };
  for (const ScriptParameter& p : known->params) {
    if (const auto after = starred_after(p.name)) {
      plain = std::min(*after, plain);
      Expr rest;
      rest.kind = ExprKind::List;
      rest.args.assign(e.args.begin() + static_cast<std::ptrdiff_t>(plain), e.args.end());
      texts.push_back(fit_annotated(rest, p.type));
      continue;
    }
    // What has to be named may stand before what comes by its place and has a default.
    const auto word = std::find_if(e.keywords.begin(), e.keywords.end(),
                                   [&](const auto& k) { return k.first == p.name; });
    if (word != e.keywords.end()) {
      ++used;
      give(p, *word->second);
    } else if (next < plain) {
      give(p, *e.args[next++]);
    } else if (!p.otherwise.empty()) {
      texts.push_back(p.otherwise);
    } else {
      refuse("helper " + e.text + " without " + p.name);
    }
  }
  if (used != e.args.size() + e.keywords.size() || next < plain)
    refuse("helper " + e.text + " with such arguments");
  out_.helpers.insert(name);
  const std::string function = known->is_method ? "(self)." + helper_method(name, functions)
                                                : std::string(kScriptHelpers) + "." + name;
  return call(function, texts, known->returns, e.text);
}

Typed ScriptWriter::aten(const Expr& e) {
  bool known = false;
  const auto schema = torch::schema_of(e.text, &known);
  ONNX2NN_CHECK(known && e.args.size() <= schema.size(), "no ATen overload " + e.text);
  if (e.text == "view.dtype") return as_dtype(e);
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
    const bool scalar_of_tensor = want.starts_with("Tensor") && is_scalar_type(v.type);
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
  // pnnx knows layer norms with both a weight and a bias, or with neither.
  constexpr std::size_t kWeight = 2;
  constexpr std::size_t kBias = 3;
  if (e.text == "layer_norm" && texts.size() > kBias && texts[kBias] == "None" &&
      texts[kWeight] != "None")
    texts[kBias] = call("torch.zeros_like", {texts[kWeight]}, "Tensor", "bias").text;
  ScriptTypes results;
  for (const std::string_view r : torch::results_of(e.text)) results.push_back(annotation(r));
  std::string type = results.size() == 1 ? results[0] : tuple_of(results);
  // Python numbers where tensors could stand: ATen has an operator of that name for them too.
  if (!takes_tensor && !schema.empty() && schema[0].type.starts_with("Tensor"))
    type = number_type(base, takes_float);
  return call("torch." + base, texts, type, base);
}

std::string ScriptWriter::number_type(const std::string& function, bool has_float) {
  static const std::set<std::string> kCompare = {"eq", "ne", "lt", "le", "gt", "ge"};
  if (kCompare.count(function) != 0) return "bool";
  return has_float || function == "div" ? "float" : "int";
}

Typed ScriptWriter::operation(const Expr& e) {
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
    return append(l, x);
  }
  if (o == ".device") return call("ops.prim.device", {value(*e.args[0]).text}, "Device", "device");
  if (o == ".dtype") return call("ops.prim.dtype", {value(*e.args[0]).text}, "int", "dtype");
  if (o == "finfo.min") {
    out_.helpers.insert("finfo_min");
    return call(std::string(kScriptHelpers) + ".finfo_min", {value(*e.args[0]).text}, "float", "lowest");
  }
  if (o == ".shape") return call("torch.size", {value(*e.args[0]).text}, "List[int]", "shape");
  if (o == ".dim") return call("torch.dim", {value(*e.args[0]).text}, "int", "rank");
  if (o == ".numel") return call("torch.numel", {value(*e.args[0]).text}, "int", "numel");
  if (o == ".tolist") return elements_of(value(*e.args[0]));
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

Typed ScriptWriter::choice(const Expr& e) {
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

Typed ScriptWriter::element(const Expr& e) {
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

Typed ScriptWriter::first_items(const Typed& x, const Expr& slice) {
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

Typed ScriptWriter::reversed(const Typed& x) {
  const Typed count = call("torch.len", {x.text}, "int", "count");
  const Typed out = let("annotate(" + x.type + ", [])", x.type, "reversed");
  const std::string i = fresh("i");
  types_[i] = "int";
  line("for " + i + " in range(" + count.text + "):");
  nested([&] {
    const Typed back = call("torch.sub", {count.text, i}, "int", "back");
    const Typed at = call("torch.sub", {back.text, "1"}, "int", "at");
    const Typed item = let(x.text + "[" + at.text + "]", inside(x.type), "item");
    append(out, item);
  });
  return out;
}

Typed ScriptWriter::sequence(const Expr& e) {
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
      append(out, number);
    });
    return out;
  }
  const Expr& a = *e.args[0];
  const Typed v = a.kind == ExprKind::Tuple || a.kind == ExprKind::List ? list(a, "") : value(a);
  if (v.type == "Tensor") return elements_of(v);
  if (!is_list(v.type)) refuse(e.text + " of a " + v.type);
  return e.text == "reversed" ? reversed(v) : v;
}

}  // namespace onnx2nn::emit
