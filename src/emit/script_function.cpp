#include "emit/script_function.h"

#include <algorithm>
#include <optional>

#include "emit/script_writer.h"
#include "support/error.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::emit {

using torch::ExprKind;

ScriptWriter::ScriptWriter(const torch::Instance& module, const torch::Function& function,
                           const ScriptTypes& arguments, const ScriptCallee& callee,
                           const Optionals& optionals)
    : module_(module), function_(function), callee_(callee), optionals_(optionals) {
  collect_names(function.body);
  for (const auto& p : function.params) names_.insert(p.var->name);
  if (arguments.size() != function.params.size())
    refuse("call of a method with other arguments than it has");
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const Typed v = define(*function.params[i].var, arguments[i]);
    const std::string name = v.type == arguments[i] ? v.text : fresh(v.text);
    out_.params += ",\n    " + name + ": " + arguments[i];
    if (name != v.text) set(function.params[i].var, {name, arguments[i]});
  }
}

ScriptMethod ScriptWriter::run() {
  out_.name = function_.name;
  block(function_.body);
  if (out_.returns.empty()) {
    out_.returns = "NoneType";
    line("return None");
  }
  out_.body = std::move(text_);
  return std::move(out_);
}

void ScriptWriter::collect_names(const Block& b) {
  for (const Stmt& s : b) {
    for (const auto& v : s.targets) names_.insert(v->name);
    collect_names(s.body);
    collect_names(s.orelse);
  }
}

std::string ScriptWriter::fresh(std::string stem) {
  while (!stem.empty() && stem[0] == '_') stem.erase(0, 1);
  if (stem.empty() || is_digit(stem[0]) || torch::is_python_keyword(stem)) stem = "v_" + stem;
  std::string name = stem;
  for (int& k = counts_[stem]; names_.count(name) != 0 || is_word(name);)
    name = stem + "_" + std::to_string(++k);
  names_.insert(name);
  return name;
}

bool ScriptWriter::is_word(const std::string& name) {
  static const std::set<std::string> kWords = {
      "aten", "attribute", "CONSTANTS", "fork", "getattr", "inf", "nan", "infj", "nanj", "ops",
      "torch", "uninitialized", "unchecked_cast", "annotate", "self", "int", "float", "bool",
      "str", "range", "print", "number"};
  return kWords.count(name) != 0;
}

Typed ScriptWriter::define(const torch::Var& v, const std::string& given) {
  const auto optional = optionals_.find(v.id);
  const bool holds = optional != optionals_.end() && optional_of(given, optional->second) == optional->second;
  const std::string type = holds ? optional->second : given;
  const auto known = variables_.find(v.id);
  if (known != variables_.end() && known->second.type == type) return named_[v.name] = known->second;
  if (known != variables_.end() && depth_ > 0) {
    const std::string& other = known->second.type;
    if (const std::string both = optional_of(type, other); !both.empty()) throw Widened{v.id, both};
    refuse("variable that is " + other + " in one place and " + type + " in another");
  }
  std::string name = v.name;
  const auto taken = types_.find(name);
  if (name == "_" || is_word(name) || torch::is_python_keyword(name) || !torch::is_ascii_identifier(name) ||
      (taken != types_.end() && taken->second != type))
    name = fresh(torch::is_ascii_identifier(name) && name != "_" ? name : "unused");
  types_[name] = type;
  return named_[v.name] = variables_[v.id] = {name, type};
}

void ScriptWriter::line(const std::string& text) {
  text_.append(4 + 2 * static_cast<std::size_t>(depth_), ' ');
  text_ += text;
  text_ += '\n';
}

Typed ScriptWriter::let(const std::string& text, std::string type, const std::string& stem) {
  const std::string name = fresh(stem);
  types_[name] = type;
  line(name + " = " + text);
  return {name, std::move(type)};
}

Typed ScriptWriter::call(const std::string& function, const std::vector<std::string>& args, std::string type,
                         const std::string& stem) {
  return let(function + "(" + join(args, ", ") + ")", std::move(type), stem);
}

ScriptWriter::Object ScriptWriter::object(const Expr& e) {
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

std::string ScriptWriter::fit(const Typed& v, std::string_view want) {
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
    return elements_of(v).text;
  return v.text;
}

std::string ScriptWriter::reduction_number(const std::string& quoted) {
  if (quoted == "\"none\"") return "0";
  if (quoted == "\"mean\"") return "1";
  if (quoted == "\"sum\"") return "2";
  refuse("number for " + quoted);
}

Typed ScriptWriter::append(const Typed& list, const Typed& item) {
  line(list.text + " = torch.append(" + list.text + ", " + item.text + ")");
  return list;
}

Typed ScriptWriter::elements_of(const Typed& x, const std::string& item) {
  const Typed count = call("torch.size", {x.text, "0"}, "int", "count");
  const std::string type = "List[" + item + "]";
  const Typed out = let("annotate(" + type + ", [])", type, item == "int" ? "sizes" : "numbers");
  const std::string i = fresh("i");
  types_[i] = "int";
  line("for " + i + " in range(" + count.text + "):");
  nested([&] {
    const Typed element = call("torch.select", {x.text, "0", i}, "Tensor", "item");
    const Typed number = call(item, {element.text}, item, "number");
    append(out, number);
  });
  return out;
}

Typed ScriptWriter::list(const Expr& e, std::string_view want) {
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

bool ScriptWriter::is_spread(const ExprPtr& e) {
  return e->kind == ExprKind::Op && e->text == "*" && e->args.size() == 1;
}

Typed ScriptWriter::joined(const Expr& e, std::string_view want) {
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

ScriptMethod script_method(const torch::Instance& module, const torch::Function& function,
                           const ScriptTypes& arguments, const ScriptCallee& callee) {
  ScriptWriter::Optionals optionals;
  // Each turn finds one more variable that is an optional; few functions have any.
  constexpr int kTurns = 64;
  for (int turn = 0; turn < kTurns; ++turn) {
    try {
      return ScriptWriter(module, function, arguments, callee, optionals).run();
    } catch (const ScriptWriter::Widened& widened) {
      optionals[widened.variable] = widened.type;
    }
  }
  refuse("function with more than " + std::to_string(kTurns) + " optional variables");
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
