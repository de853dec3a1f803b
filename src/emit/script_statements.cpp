// Statements of TorchScript: assignments, branches and loops.
#include <algorithm>

#include "emit/script_writer.h"
#include "support/error.h"
#include "support/interrupt.h"
#include "support/text.h"

namespace onnx2nn::emit {

using torch::ExprKind;

namespace {

std::string place_of(const torch::Stmt& s) {
  if (!s.origin.empty()) return " (node " + printable(s.origin) + ")";
  for (const auto& v : s.targets)
    if (!v->onnx_name.empty()) return " (value " + printable(v->onnx_name) + ")";
  return "";
}

}  // namespace

void ScriptWriter::block(const Block& b) {
  for (const Stmt& s : b) {
    check_interrupt();
    try {
      statement(s);
    } catch (const Error& error) {
      // The innermost statement that knows says where: its node, or the value that a nameless one gives.
      const std::string_view said = error.what();
      const bool located = said.find(" (node ") != std::string_view::npos ||
                           said.find(" (value ") != std::string_view::npos;
      const std::string where = place_of(s);
      if (where.empty() || error.code() != "unsupported-output" || located) throw;
      throw Error(error.code(), std::string(said) + where, error.hint());
    }
  }
}

void ScriptWriter::set(const torch::VarPtr& target, const Typed& v) {
  const Typed name = define(*target, v.type);
  if (name.type != v.type) return line(name.text + " = annotate(" + name.type + ", " + v.text + ")");
  if (name.text != v.text) line(name.text + " = " + v.text);
}

void ScriptWriter::assign(const Stmt& s) {
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
  std::vector<std::pair<torch::VarPtr, Typed>> optionals;
  for (std::size_t i = 0; i < types.size(); ++i) {
    Typed name = define(*s.targets[i], types[i]);
    if (name.type != types[i]) {
      name = {fresh(name.text), types[i]};
      optionals.emplace_back(s.targets[i], name);
    }
    all += name.text + ", ";
  }
  line(all + "= " + v.text);
  for (const auto& [target, given] : optionals) set(target, given);
}

void ScriptWriter::rename_last(const torch::VarPtr& target, const Typed& v) {
  const std::size_t start = text_.rfind('\n', text_.size() < 2 ? 0 : text_.size() - 2);
  const std::size_t begin = (start == std::string::npos ? 0 : start + 1);
  const std::string lead(4 + 2 * static_cast<std::size_t>(depth_), ' ');
  const std::string made = lead + v.text + " = ";
  const bool is_last = text_.compare(begin, made.size(), made) == 0 && !is_member(v.text);
  const Typed name = define(*target, v.type);
  if (!is_last || name.type != v.type) return set(target, v);
  text_.replace(begin, made.size(), lead + name.text + " = ");
  names_.erase(v.text);
  types_.erase(v.text);
  types_[name.text] = v.type;
}

bool ScriptWriter::is_member(const std::string& name) const {
  return std::any_of(members_.begin(), members_.end(),
                     [&](const auto& m) { return m.second == name; }) ||
         std::any_of(variables_.begin(), variables_.end(),
                     [&](const auto& v) { return v.second.text == name; });
}

void ScriptWriter::statement(const Stmt& s) {
  switch (s.kind) {
    case Stmt::Kind::Assign:
      return assign(s);
    case Stmt::Kind::Return: {
      if (is_inner_) {
        const bool several = s.value->kind == ExprKind::Tuple;
        std::vector<std::string> items;
        for (const ExprPtr& item : several ? s.value->args : std::vector<ExprPtr>{s.value.ptr()}) {
          const Typed v = value(*item);
          if (v.type != "Tensor") refuse("function inside of another that gives a " + v.type);
          items.push_back(v.text);
        }
        return line("return [" + join(items, ", ") + "]");
      }
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
    case Stmt::Kind::Def:
      return define_function(s);
    case Stmt::Kind::Break:
    case Stmt::Kind::Set:
      refuse("such statement");
  }
}

void ScriptWriter::branch(const Stmt& s) {
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

void ScriptWriter::loop_for(const Stmt& s) {
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

void ScriptWriter::loop_while(const Stmt& s) {
  const std::string going = fresh("going");
  types_[going] = "bool";
  line(going + " = " + fit(value(*s.value), "bool"));
  line("while " + going + ":");
  nested([&] {
    block(s.body);
    line(going + " = " + fit(value(*s.value), "bool"));
  });
}

}  // namespace onnx2nn::emit
