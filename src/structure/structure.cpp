#include "structure/structure.h"

#include <algorithm>
#include <utility>

#include "structure/classes.h"
#include "structure/flat.h"
#include "structure/limits.h"
#include "structure/members.h"
#include "structure/module_tree.h"
#include "structure/names.h"
#include "structure/precision.h"
#include "structure/readers.h"
#include "structure/repeats.h"
#include "structure/shapes.h"
#include "structure/sizes.h"
#include "structure/split.h"
#include "structure/tables.h"
#include "structure/tidy.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::Program;

bool is_tensor(const torch::Port& p) { return p.kind == "tensor" && p.dtype != "string"; }

/// Model text on one line of a docstring.
std::string safe(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) out += c == '"' ? '\'' : c == '\\' ? '/' : c;
  return out;
}

/// Types of the model's inputs and outputs, as annotations and as text.
void describe(const Program& program, torch::Function& forward) {
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  for (std::size_t i = 0; i < program.inputs.size(); ++i) {
    forward.params[i].type = is_tensor(program.inputs[i]) ? "Tensor" : "";
    inputs.push_back(forward.params[i].var->name + ": " + safe(program.inputs[i].type_text));
  }
  bool tensors = !program.outputs.empty();
  for (const torch::Port& p : program.outputs) {
    tensors = tensors && is_tensor(p);
    outputs.push_back(safe(p.onnx_name) + ": " + safe(p.type_text));
  }
  constexpr std::size_t kSpelt = 4;
  if (tensors && outputs.size() == 1) forward.returns = "Tensor";
  if (tensors && outputs.size() > 1) {
    forward.returns = "tuple[Tensor";
    if (outputs.size() > kSpelt) forward.returns += ", ...";
    for (std::size_t i = 1; i < outputs.size() && outputs.size() <= kSpelt; ++i)
      forward.returns += ", Tensor";
    forward.returns += "]";
  }
  const std::string line = join(inputs, ", ") + " -> " + join(outputs, ", ");
  constexpr std::size_t kLine = 74;
  if (line.size() <= kLine) {
    forward.doc = {line};
    return;
  }
  forward.doc = std::move(inputs);
  forward.doc.emplace_back("->");
  for (std::string& o : outputs) forward.doc.push_back(std::move(o));
}

std::vector<const Expr*> results_of(const Expr& returned) {
  std::vector<const Expr*> out{&returned};
  if (returned.kind != ExprKind::Tuple) return out;
  out.clear();
  for (const auto& a : returned.args) out.push_back(a.get());
  return out;
}

/// Whether the weight is made real by a product that broadcasts.
bool scales_by_product(const torch::Param& scale) {
  const torch::Param& weight = *scale.quantized;
  if (scale.dtype != ir::DType::Float32 || ir::is_sub_byte(weight.stored_dtype())) return false;
  const std::size_t before = weight.shape.size() - std::min(weight.shape.size(), scale.shape.size());
  for (std::size_t i = 0; i < scale.shape.size(); ++i)
    if (scale.shape[i] != 1 && scale.shape[i] != weight.shape.at(before + i)) return false;
  return true;
}

void add_modules(std::vector<PageModule>& out, const std::vector<Member>& members,
                 const std::string& owner);

void add_module(std::vector<PageModule>& out, const Member& m, const std::string& owner) {
  const std::string path = owner.empty() ? m.name : owner + "." + m.name;
  switch (m.kind) {
    case Member::Kind::Module:
      if (m.module) out.push_back({path, m.module->type, true});
      return;
    case Member::Kind::Own:
      if (m.own->class_name.empty()) {
        out.push_back({path, "Sequential", true});
      } else {
        out.push_back({path, m.own->class_name, false});
      }
      return add_modules(out, m.own->members, path);
    case Member::Kind::List:
      out.push_back({path, "ModuleList", true});
      return add_modules(out, m.list, path);
    case Member::Kind::Param:
    case Member::Kind::Constant:
      return;
  }
}

void add_modules(std::vector<PageModule>& out, const std::vector<Member>& members,
                 const std::string& owner) {
  for (const Member& m : members) add_module(out, m, owner);
}

}  // namespace

std::set<std::string> helpers_of(const Program& program) {
  std::set<std::string> out;
  const auto see = [&](const Expr& e) {
    if (e.kind == ExprKind::Helper) out.insert(e.text);
  };
  for (const auto& c : program.constants) each_expr(*c->value, see);
  for (const torch::Stmt& s : program.forward) each_expr(s, see);
  // In `load`, which needs no function for products with scales of float32 alone.
  if (std::any_of(program.params.begin(), program.params.end(), [](const auto& p) {
        return p->quantized != nullptr && p->path.back() == "scale" && !scales_by_product(*p);
      }))
    out.insert("dequantized");
  return out;
}

Page structured(Program program, const Options& options) {
  mark_weight_dtypes(program);
  // Keys are the same in each form.
  std::unordered_set<const torch::Param*> shared = find_repeats(program);
  name_tables(program);
  // Scales and zero points go along with their weights.
  for (const auto& p : program.params) {
    if (!p->quantized) continue;
    std::string name = std::move(p->path.back());
    p->path = p->quantized->path;
    p->path.push_back(std::move(name));
  }
  TensorParallelPlan plan;
  if (options.tp_plan) plan = tensor_parallel(program);
  Program with_tables = program;
  const Roles tables = spell_tables(program);
  std::vector<PageModule> modules;
  if (!options.flat && !options.trace) {
    try {
      Tree tree = module_tree(program, shared);
      std::vector<torch::ParamPtr> made;
      program.classes = make_classes(tree, program.class_name, made);
      program.params.insert(program.params.end(), made.begin(), made.end());
      torch::Function& init = program.classes.back().functions.front();
      Access access(*tree.root);
      for (const torch::Tie& tie : program.ties) {
        torch::Stmt s;
        s.kind = torch::Stmt::Kind::Set;
        s.place = access(tie.path);
        s.value = access(tie.param->path);
        init.body.push_back(std::move(s));
      }
      modules.push_back({"", program.class_name, false});
      add_modules(modules, tree.root->members, "");
    } catch (const Clash&) {
      program.classes.clear();
    }
  }
  if (program.classes.empty()) program.classes.push_back(flat_class(program));
  std::set<std::string> taken = options.functions;
  for (const torch::Class& c : program.classes) taken.insert(c.name);
  const Roles roles = roles_of(program, tables);
  // Callers first: a parameter may be called as what is given for it.
  std::unordered_map<const torch::Var*, std::string> shapes;
  for (std::size_t i = program.classes.size(); i-- > 0;) {
    torch::Class& c = program.classes[i];
    const bool root = &c == &program.classes.back();
    for (torch::Function& f : c.functions) {
      if (f.name == "__init__") continue;
      Program one = as_program(f);
      if (root) one.constants = program.constants;
      f.body = within_limits(hoist_sizes(std::move(one))).forward;
      follow_weight_dtypes(f);
      if (options.trace) {
        add_traces(f);
      } else {
        tidy(f);
      }
    }
    if (!options.flat && !options.trace) split_methods(c);
    for (torch::Function& f : c.functions) {
      std::set<int> outputs;
      const bool forward = root && f.name == "forward";
      if (forward && !f.body.empty())
        for (const Expr* e : results_of(*f.body.back().value))
          if (e->kind == ExprKind::Var) outputs.insert(e->var->id);
      name_variables(f, taken, outputs, roles);
      if (forward) describe(program, f);
      if (!options.trace && f.name != "__init__") shapes.merge(shape_comments(f));
    }
  }
  return {std::move(program), std::move(shared), std::move(with_tables), std::move(shapes), std::move(plan),
          std::move(modules)};
}

}  // namespace onnx2nn::structure
