#include "emit/python.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "emit/decoder_methods.h"
#include "emit/layout.h"
#include "emit/python_expressions.h"
#include "emit/runtime_source.h"
#include "support/error.h"
#include "support/interrupt.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::emit {
namespace {

using torch::Block;
using torch::Expr;
using torch::ExprKind;
using torch::Program;
using torch::Stmt;

std::string names(const std::vector<torch::VarPtr>& variables) {
  std::string out;
  for (const auto& v : variables) out += (out.empty() ? "" : ", ") + v->name;
  return out;
}

class Printer {
 public:
  Printer(const Program& program, const PythonOptions& options)
      : program_(program), options_(options) {}

  std::string run();

 private:
  Text text(const Expr& e) { return expressions_.text(e); }

  // ---- statements
  void block(const Block& b, std::size_t indent);
  void statement(const Stmt& s, std::size_t indent);
  void line(std::size_t indent, const std::string& lead, const Text& t,
            const std::string& trail = "");
  void function(const torch::Function& f, bool is_model);
  std::string annotation(const Stmt& s);
  void count_writes(const Block& b);
  void docstring(const std::vector<std::string>& lines, std::size_t indent);

  const Program& program_;
  const PythonOptions& options_;
  PythonExpressions expressions_;
  std::string out_;
  bool uses_any_ = false;
  std::unordered_map<std::string, int> writes_;  // by name, in the function that is printed
};

void Printer::line(std::size_t indent, const std::string& lead, const Text& t,
                   const std::string& trail) {
  out_ += statement_text(indent, lead, t, trail);
  if (options_.budget != nullptr) options_.budget->check(Resource::Source, out_.size(), lead);
}

void Printer::statement(const Stmt& s, std::size_t indent) {
  check_interrupt();
  const std::string trail =
      options_.comments_origin && !s.origin.empty() ? "  # " + printable(s.origin) : "";
  std::string lead;
  switch (s.kind) {
    case Stmt::Kind::Assign: {
      const Text value = text(*s.value);
      if (!s.targets.empty()) lead = names(s.targets) + annotation(s) + " = ";
      if (s.targets.size() > 1) {
        const std::string whole = statement_text(indent, lead, value, trail);
        if (whole.find('\n') > kWidth) {
          const std::string blanks(indent, ' ');
          out_ += blanks + "(\n";
          for (const auto& v : s.targets) out_ += blanks + "    " + v->name + ",\n";
          lead = ") = ";
        }
      }
      const auto comment = s.targets.empty() ? options_.comments.end()
                                             : options_.comments.find(s.targets[0].get());
      if (comment != options_.comments.end() && lead[0] != ')') {
        std::string whole = statement_text(indent, lead, value, "");
        const std::string text = "  # " + comment->second;
        if (whole.find('\n') + 1 == whole.size() && whole.size() - 1 + text.size() <= kWidth)
        {
          line(indent, lead, value, text);
          return;
        }
      }
      line(indent, lead, value, trail);
      return;
    }
    case Stmt::Kind::Set:
      line(indent, text(*s.place).flat() + " = ", text(*s.value), trail);
      return;
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
      line(indent, "for " + names(s.targets) + " in ", text(*s.value), ":");
      block(s.body, indent + 4);
      return;
    }
    case Stmt::Kind::While:
      line(indent, "while ", text(*s.value), ":");
      block(s.body, indent + 4);
      return;
    case Stmt::Kind::Def: {
      std::vector<Text> params;
      for (const auto& p : s.params) params.push_back(atom(p->name));
      if (!out_.ends_with("\n\n")) out_ += "\n";
      line(indent, "def ", call(s.targets[0]->name, std::move(params)), ":");
      block(s.body, indent + 4);
      out_ += "\n";
      return;
    }
  }
}

void Printer::block(const Block& b, std::size_t indent) {
  if (b.empty()) out_ += std::string(indent, ' ') + "pass\n";
  for (const Stmt& s : b) statement(s, indent);
}

void Printer::count_writes(const Block& b) {
  for (const Stmt& s : b) {
    for (const auto& v : s.targets) ++writes_[v->name];
    count_writes(s.body);
    count_writes(s.orelse);
  }
}

/// Of a variable that starts as a weight and is any tensor later, or as an empty list.
std::string Printer::annotation(const Stmt& s) {
  if (s.value->kind == ExprKind::List && s.value->args.empty() && s.targets.size() == 1 &&
      s.targets[0]->type.starts_with("list["))
    return ": " + s.targets[0]->type;
  const bool weight = s.value->kind == ExprKind::Attribute && s.value->integer == 0 &&
                      s.targets.size() == 1 && s.targets[0]->type == "Tensor";
  std::string out;
  for (const auto& v : s.targets) {
    const auto it = writes_.find(v->name);
    if (it == writes_.end()) continue;
    if (weight && it->second > 1) out = ": Tensor";
    writes_.erase(it);  // said, or too late to say
  }
  return out;
}

void Printer::function(const torch::Function& f, bool is_model) {
  writes_.clear();
  count_writes(f.body);
  std::set<int> given;
  for (const torch::Parameter& p : f.params) {
    writes_.erase(p.var->name);
    if (!is_model && p.type == "Tensor") given.insert(p.var->id);
  }
  expressions_.set_given(std::move(given));
  std::vector<Text> params{atom("self")};
  for (const torch::Parameter& p : f.params) {
    std::string param = p.var->name + (p.type.empty() ? "" : ": " + p.type);
    if (p.otherwise) param += (p.type.empty() ? "=" : " = ") + text(**p.otherwise).flat();
    params.push_back(atom(std::move(param)));
  }
  std::string tail = ")" + (f.returns.empty() ? "" : " -> " + f.returns);
  const std::size_t open = tail.find('[');
  if (4 + tail.size() + 1 > kWidth && open != std::string::npos) {
    const std::string inner = tail.substr(open + 1, tail.size() - open - 2);
    std::string items = "[\n";
    for (const std::string_view item : split(inner, ','))
      items += "        " + std::string(strip(item)) + ",\n";
    tail = tail.substr(0, open) + items + "    ]";
  }
  line(4, "def ", brackets(f.name + "(", std::move(params), tail), ":");
  docstring(f.doc, 8);
  block(f.body, 8);
}

void Printer::docstring(const std::vector<std::string>& lines, std::size_t indent) {
  if (lines.empty()) return;
  const std::string blanks(indent, ' ');
  if (lines.size() == 1) {
    out_ += blanks + "\"\"\"" + lines[0] + "\"\"\"\n";
    return;
  }
  out_ += blanks + "\"\"\"\n";
  for (const std::string& l : lines) out_ += blanks + l + "\n";
  out_ += blanks + "\"\"\"\n";
}

/// The imports as ruff sorts them: Python's own first, in each half modules before what comes from them.
std::string import_block(const std::set<std::string>& imports) {
  constexpr std::string_view kFrom = "from ";
  constexpr std::string_view kImport = " import ";
  std::string modules[2];
  std::map<std::string, std::string> names[2];  // by module
  for (const std::string& line : imports) {
    std::size_t begin = line.find(' ') + 1;
    const std::string module = line.substr(begin, line.find_first_of(" .", begin) - begin);
    const std::size_t half = module == "numpy" || module == "torch" || module == "PIL" ? 1 : 0;
    if (!line.starts_with(kFrom)) {
      modules[half] += line + "\n";
      continue;
    }
    const std::size_t at = line.find(kImport);
    std::string& of = names[half][line.substr(kFrom.size(), at - kFrom.size())];
    of += (of.empty() ? "" : ", ") + line.substr(at + kImport.size());
  }
  std::string out;
  for (const std::size_t half : {0, 1}) {
    if (!out.empty()) out += "\n";
    out += modules[half];
    for (const auto& [module, all] : names[half])
      out += std::string(kFrom) + module + std::string(kImport) + all + "\n";
  }
  return out;
}

/// Members of the class through which others are reached that type checkers cannot see: `layers` of
/// self.layers[0].norm(x), and modules whose members are put on them.
std::set<std::string> reached_through(const torch::Class& c) {
  std::set<std::string> out;
  const auto see = [&](auto&& again, const Expr& e) -> void {
    for (const auto& a : e.args) again(again, *a);
    for (const auto& [_, v] : e.keywords) again(again, *v);
    const auto is_step = [](const Expr& x) {
      return x.kind == ExprKind::Attribute || (x.kind == ExprKind::Op && x.text == "[]");
    };
    if (!is_step(e)) return;
    bool through = false;
    const Expr* x = e.args[0].get();
    const Expr* last = &e;
    for (; is_step(*x); last = x, x = x->args[0].get()) through = through || x->kind == ExprKind::Op;
    if (through && x->kind == ExprKind::Self && last->kind == ExprKind::Attribute) out.insert(last->text);
  };
  const auto block = [&](auto&& again, const Block& b) -> void {
    for (const Stmt& s : b) {
      see(see, *s.value);
      see(see, *s.place);
      const bool bare = s.kind == Stmt::Kind::Set && s.value->kind == ExprKind::Function &&
                        (s.value->text == "nn.Module" || s.value->text == "nn.ModuleDict");
      if (bare && s.place->kind == ExprKind::Attribute && s.place->args[0]->kind == ExprKind::Self)
        out.insert(s.place->text);
      again(again, s.body);
      again(again, s.orelse);
    }
  };
  for (const torch::Function& f : c.functions) block(block, f.body);
  return out;
}

/// Makes weights real that are integers beside a scale of float32.
std::string dequantizing(const Program& program) {
  bool quantized = false;
  bool centred = false;
  for (const auto& p : program.params) {
    if (!p->quantized) continue;
    quantized = true;
    centred = centred || p->path.back() == "zero_point";
  }
  if (!quantized) return "";
  std::string out = "    for key in [k for k in state if f\"{k}.scale\" in state]:\n";
  if (centred)
    return out +
           "        scale, zero = state.pop(f\"{key}.scale\"), state.pop(f\"{key}.zero_point\", 0)\n"
           "        state[key] = (state[key].float() - zero) * scale\n";
  return out + "        state[key] = state[key] * state.pop(f\"{key}.scale\")\n";
}

std::string Printer::run() {
  std::set<std::string> of_runtime = options_.helpers;
  std::string supplied;
  for (const auto& [name, source] : options_.functions) {
    if (of_runtime.erase(name) == 0) continue;
    supplied += (supplied.empty() ? "" : "\n\n") + std::string(strip(source)) + "\n";
  }
  RuntimeSource runtime = runtime_source(of_runtime);
  if (!supplied.empty()) runtime.text += (runtime.text.empty() ? "" : "\n\n") + supplied;
  if (supplied.find("math.") != std::string::npos) runtime.imports.emplace_back("import math");

  for (const torch::Class& c : program_.classes) {
    if (&c != &program_.classes.front()) out_ += "\n\n";
    out_ += "class " + c.name + "(" + c.base + "):\n";
    docstring(c.doc, 4);
    if (!c.doc.empty()) out_ += "\n";
    const std::set<std::string> untyped = reached_through(c);
    for (const std::string& name : untyped) out_ += "    " + name + ": Any\n";
    if (!untyped.empty()) out_ += "\n";
    uses_any_ = uses_any_ || !untyped.empty();
    for (const torch::Function& f : c.functions) {
      if (&f != &c.functions.front()) out_ += "\n";
      function(f, &c == &program_.classes.back());
    }
  }
  if (options_.decoder) out_ += decoder_methods(*options_.decoder);
  const std::string body = std::move(out_);

  const auto uses = [&](std::string_view what) {
    return body.find(what) != std::string::npos || runtime.text.find(what) != std::string::npos;
  };
  // "torch." as a name of its own, not as the end of another nor in the text of a docstring.
  const auto uses_module = [&](const std::string& name) {
    for (const std::string* text : std::initializer_list<const std::string*>{&body, &runtime.text})
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
  std::string out = "\"\"\"" + options_.header + "\"\"\"\n\n";
  std::set<std::string> imports(runtime.imports.begin(), runtime.imports.end());
  imports.insert("from pathlib import Path");
  if (uses_any_ || options_.tp_plan) imports.insert("from typing import Any");
  if (uses("OrderedDict(")) imports.insert("from collections import OrderedDict");
  bool numpy = false;
  for (std::size_t at = body.find("np."); !numpy && at != std::string::npos;
       at = body.find("np.", at + 1))
    numpy = at > 0 && std::string_view(" ([*-").find(body[at - 1]) != std::string_view::npos;
  if (numpy) imports.insert("import numpy as np");
  if (uses_module("torch") || !program_.params.empty()) imports.insert("import torch");
  if (uses_module("F")) imports.insert("import torch.nn.functional as F");
  if (uses("Tensor")) imports.insert("from torch import Tensor");
  imports.insert("from torch import nn");
  out += import_block(imports) + "\n\n";
  if (!runtime.text.empty()) out += runtime.text + "\n\n";
  out += body;
  std::string parameter = "    weights: str | Path = Path(__file__).parent";
  const std::string file = " / " + python_quote(options_.weights_name) + ",\n";
  if (parameter.size() + file.size() - 1 > kWidth) parameter += "\n   ";
  out += "\n\ndef load(\n" + parameter + file;
  if (!program_.params.empty())
    out += "    device: torch.device | str | None = None,\n    dtype: torch.dtype | None = None,\n";
  out += ") -> " + program_.class_name + ":\n";
  out += "    \"\"\"The model in eval mode, with its weights.\"\"\"\n";
  const bool pth = options_.weights_name.ends_with(".pth");
  const bool sharded = options_.weights_name.ends_with(".json");
  if (!program_.params.empty()) {
    if (sharded) out += "    import json\n\n";
    if (!pth) out += "    from safetensors.torch import load_file\n\n";
    out += "    with torch.device(\"meta\"):\n        model = " + program_.class_name + "()\n";
    if (sharded)
      out +=
          "    index = json.loads(Path(weights).read_bytes())\n"
          "    state = {\n"
          "        key: value\n"
          "        for shard in sorted(set(index[\"weight_map\"].values()))\n"
          "        for key, value in load_file(Path(weights).with_name(shard)).items()\n"
          "    }\n";
    const std::string read = sharded ? "state"
                             : pth   ? "torch.load(weights, mmap=True, weights_only=True)"
                                     : "load_file(weights)";
    const bool by_helper = options_.helpers.count("dequantized") != 0;
    if (!sharded || by_helper)
      out += "    state = " + (by_helper ? "dequantized(" + read + ", model.state_dict())" : read) + "\n";
    if (!by_helper) out += dequantizing(program_);
    std::vector<Text> exact;
    for (const auto& p : program_.params)
      if (p->exact) exact.push_back(atom(python_quote(p->key())));
    if (!exact.empty()) {
      out += "    # Positions are multiplied by these, which takes float32.\n";
      out += statement_text(4, "in_float32 = ", brackets("[", std::vector<Text>(exact), "]"), "");
      out += "    exact = {key: state[key] for key in in_float32}\n";
    }
    const bool has_constants =
        std::any_of(program_.params.begin(), program_.params.end(),
                    [](const auto& p) { return !p->persistent && !p->quantized; });
    if (has_constants)
      out +=
          "    for key in state.keys() - model.state_dict().keys():\n"
          "        owner, _, name = key.rpartition(\".\")\n"
          "        setattr(model.get_submodule(owner), name, state.pop(key))\n";
    // Those of one weight are one parameter.
    std::vector<const torch::Param*> sources;
    for (const torch::Tie& tie : program_.ties)
      if (std::find(sources.begin(), sources.end(), tie.param.get()) == sources.end())
        sources.push_back(tie.param.get());
    for (const torch::Param* source : sources) {
      std::vector<Text> keys{atom(python_quote(source->key()))};
      for (const torch::Tie& tie : program_.ties)
        if (tie.param.get() == source) keys.push_back(atom(python_quote(join(tie.path, "."))));
      out += statement_text(4, "tied = ", call("nn.Parameter", {subscript(atom("state"), {keys[0]})}), "");
      out += statement_text(4, "for key in ", brackets("(", std::move(keys), ")"), ":");
      out += "        state[key] = tied\n";
    }
    out += "    model.load_state_dict(state, strict=True, assign=True)\n";
    if (exact.empty()) {
      out += "    return model.to(device, dtype).eval()\n";
    } else {
      out +=
          "    model.to(device, dtype)\n"
          "    for key, value in exact.items():\n"
          "        owner, _, name = key.rpartition(\".\")\n"
          "        getattr(model.get_submodule(owner), name).data = value.to(device)\n"
          "    return model.eval()\n";
    }
  } else {
    out += "    return " + program_.class_name + "().eval()\n";
  }
  if (options_.tp_plan) out += "\n\n" + tp_plan_source(*options_.tp_plan);
  return out;
}

}  // namespace

std::string print_python(const Program& program, const PythonOptions& options) {
  return Printer(program, options).run();
}

}  // namespace onnx2nn::emit
