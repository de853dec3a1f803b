// Functions inside of a function, and the helpers that call them. TorchScript has neither functions inside of
// others nor functions as values: both are methods of the module.
#include <algorithm>
#include <functional>

#include "emit/script_helpers.h"
#include "emit/script_writer.h"
#include "support/error.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::emit {

using torch::ExprKind;

namespace {

using Read = std::function<void(const torch::VarPtr&)>;

void visit_reads(const torch::Expr& e, const Read& read) {
  if (e.kind == ExprKind::Var) read(e.var);
  for (const auto& a : e.args) visit_reads(*a, read);
  for (const auto& [_, v] : e.keywords) visit_reads(*v, read);
}

void visit_reads(const torch::Block& b, const Read& read) {
  for (const torch::Stmt& s : b) {
    visit_reads(*s.value, read);
    visit_reads(s.body, read);
    visit_reads(s.orelse, read);
  }
}

void collect_targets(const torch::Block& b, std::set<int>& out) {
  for (const torch::Stmt& s : b) {
    for (const auto& v : s.targets) out.insert(v->id);
    for (const auto& v : s.params) out.insert(v->id);
    collect_targets(s.body, out);
    collect_targets(s.orelse, out);
  }
}

}  // namespace

ScriptWriter::ScriptWriter(const ScriptWriter& outer, const torch::Function& function)
    : module_(outer.module_), function_(function), callee_(outer.callee_), optionals_(outer.optionals_), is_inner_(true) {
  collect_names(function.body);
  for (const auto& p : function.params) names_.insert(p.var->name);
}

ScriptMethod ScriptWriter::run_inner(const std::vector<torch::VarPtr>& captured,
                                     const std::string& name) {
  for (const auto& v : captured) names_.insert(v->name);
  const std::string outside = fresh("captured");
  const std::string given = fresh("given");
  out_.name = name;
  out_.params = ",\n    " + outside + ": List[Tensor],\n    " + given + ": List[Tensor]";
  out_.returns = "List[Tensor]";
  for (std::size_t i = 0; i < captured.size(); ++i) unpack(captured[i], outside, i);
  for (std::size_t i = 0; i < function_.params.size(); ++i)
    unpack(function_.params[i].var, given, i);
  block(function_.body);
  out_.body = std::move(text_);
  return std::move(out_);
}

void ScriptWriter::unpack(const torch::VarPtr& v, const std::string& list, std::size_t i) {
  const Typed name = define(*v, "Tensor");
  line(name.text + " = " + list + "[" + std::to_string(i) + "]");
}

std::vector<torch::VarPtr> ScriptWriter::captured_by(const Block& b) const {
  std::set<int> known;
  collect_targets(b, known);
  std::vector<torch::VarPtr> out;
  visit_reads(b, [&](const torch::VarPtr& v) {
    if (variables_.count(v->id) != 0 && known.insert(v->id).second) out.push_back(v);
  });
  return out;
}

void ScriptWriter::define_function(const Stmt& def) {
  torch::Function function;
  function.name = def.targets[0]->name;
  for (const auto& v : def.params) function.params.push_back({v, v->type, std::nullopt});
  function.body = def.body;
  const std::vector<torch::VarPtr> captured = captured_by(def.body);
  std::vector<std::string> texts;
  for (const auto& v : captured) {
    const Typed& outside = variables_.at(v->id);
    if (outside.type != "Tensor")
      refuse("function inside of another that reads a " + outside.type + " of it");
    texts.push_back(outside.text);
  }
  Inner inner;
  inner.method = method_name(function.name);
  inner.captured = "annotate(List[Tensor], [" + join(texts, ", ") + "])";
  ScriptMethod method = ScriptWriter(*this, function).run_inner(captured, inner.method);
  out_.helpers.insert(method.helpers.begin(), method.helpers.end());
  for (ScriptMethod& other : method.others) out_.others.push_back(std::move(other));
  method.others.clear();
  out_.others.push_back(std::move(method));
  functions_[def.targets[0]->id] = std::move(inner);
}

const ScriptWriter::Inner* ScriptWriter::inner_function(const Expr& e) const {
  if (e.kind != ExprKind::Var) return nullptr;
  const auto it = functions_.find(e.var->id);
  return it == functions_.end() ? nullptr : &it->second;
}

std::string ScriptWriter::helper_method(const std::string& name,
                                        const std::map<std::string, std::string>& given) {
  const std::string_view text = script_helper_source(name);
  const std::size_t params = text.find("(self") + 5;
  const std::size_t arrow = text.find(") -> ", params);
  const std::size_t end = text.find(":\n", arrow);
  ScriptMethod method;
  method.name = method_name(name);
  method.params = std::string(text.substr(params, arrow - params));
  method.returns = std::string(text.substr(arrow + 5, end - arrow - 5));
  std::string_view rest = text.substr(end + 2);
  std::map<std::string, std::string> methods = given;
  constexpr std::string_view kCall = "(self).";
  while (!rest.empty()) {
    const std::size_t length = rest.find('\n');
    std::string_view body = rest.substr(0, length);
    rest.remove_prefix(length == std::string_view::npos ? rest.size() : length + 1);
    method.body += "  ";
    for (std::size_t at = body.find(kCall); at != std::string_view::npos; at = body.find(kCall)) {
      method.body += body.substr(0, at + kCall.size());
      body.remove_prefix(at + kCall.size());
      const std::size_t open = body.find('(');
      std::string& called = methods[std::string(body.substr(0, open))];
      if (called.empty()) {
        // No function is given for it, and it is not called; the text names it all the same.
        ScriptMethod absent;
        absent.name = called = method_name(std::string(body.substr(0, open)));
        absent.params = ",\n    captured: List[Tensor],\n    given: List[Tensor]";
        absent.returns = "List[Tensor]";
        absent.body = "    return given\n";
        out_.others.push_back(std::move(absent));
      }
      method.body += called;
      body.remove_prefix(open);
    }
    method.body += body;
    method.body += '\n';
  }
  out_.others.push_back(method);
  return method.name;
}

std::string ScriptWriter::method_name(const std::string& stem) {
  // After the function that it is of, since other functions of the module have such ones too.
  const std::string wanted = (is_inner_ ? out_.name : function_.name) + "_" + stem;
  const auto taken = [&](const std::string& name) {
    return std::any_of(module_.attributes.begin(), module_.attributes.end(),
                       [&](const torch::Attribute& a) { return a.name == name; }) ||
           std::any_of(module_.functions.begin(), module_.functions.end(),
                       [&](const torch::Function& f) { return f.name == name; });
  };
  std::string name = wanted;
  for (int k = 1; taken(name) || !method_names_.insert(name).second; ++k)
    name = wanted + "_" + std::to_string(k);
  return name;
}

}  // namespace onnx2nn::emit
