#include "structure/open.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "structure/walk.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Args;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

bool moves_axes(const Stmt& s) {
  if (s.kind != Stmt::Kind::Assign || s.value->kind != ExprKind::Aten) return false;
  const auto f = torch::function_of(*s.value);
  return f == "permute" || f == "transpose" || f == "movedim";
}

/// What the layer does, as a call of its function; null for layers that have none here.
ExprPtr as_function(const torch::Module& m, const ExprPtr& input) {
  const auto weight = [&](std::string_view name) {
    for (const auto& [key, param] : m.params) {
      if (key != name) continue;
      auto e = Ex::make(ExprKind::Param);
      e->param = param;
      return Ex(ExprPtr(std::move(e)));
    }
    return Ex();
  };
  if (m.type == "Embedding" && m.keywords.empty())
    return torch::aten("embedding", {weight("weight"), Ex(input)}).ptr();
  Ex eps(1e-5);
  for (const auto& [key, value] : m.keywords) {
    if (key == "eps") eps = value;
    if (key != "eps" && key != "bias") return nullptr;
  }
  if (m.type == "LayerNorm") {
    const Ex& shape = m.args.at(0);
    return torch::aten("layer_norm", {Ex(input), shape->kind == ExprKind::List ? shape : torch::list({shape}),
                                      weight("weight"), weight("bias"), eps})
        .ptr();
  }
  if (m.type == "GroupNorm")
    return torch::aten("group_norm", {Ex(input), m.args.at(0), weight("weight"), weight("bias"), eps}).ptr();
  return nullptr;
}

}  // namespace

void open_layers(torch::Program& program) {
  std::unordered_map<std::string, const torch::Module*> layers;
  for (const auto& m : program.modules) layers[join(m->path, ".")] = m.get();
  struct Inside {
    int calls = 0, others = 0;
    bool axes = true;
    std::string type;
  };
  std::unordered_map<const torch::Module*, Inside> inside;
  std::unordered_map<const torch::Module*, int> calls;
  for (const Stmt& s : program.forward) {
    const torch::Module* called =
        s.value->kind == ExprKind::Module ? s.value->module.get() : nullptr;
    each_expr(s, [&](const Expr& e) {
      if (e.kind == ExprKind::Module) ++calls[e.module.get()];
    });
    if (!s.scope || s.scope->empty()) continue;
    const auto it = layers.find(join(torch::components_of(*s.scope), "."));
    if (it == layers.end()) continue;
    Inside& in = inside[it->second];
    in.type = s.scope->back().type;
    ++(called == it->second ? in.calls : in.others);
    in.axes = in.axes && (called == it->second || moves_axes(s));
  }
  std::unordered_set<const torch::Module*> opened;
  for (const auto& [m, in] : inside) {
    if (in.others == 0 || in.calls == 0 || calls[m] != in.calls) continue;
    if (in.type.empty() ? in.axes && in.others >= 2 : in.type != m->type) opened.insert(m);
  }
  if (opened.empty()) return;
  std::unordered_set<const torch::Module*> left;
  rewrite(program.forward, [&](const ExprPtr& e) -> ExprPtr {
    if (e->kind != ExprKind::Module || opened.count(e->module.get()) == 0) return nullptr;
    ExprPtr out = e->args.size() == 1 ? as_function(*e->module, e->args[0]) : nullptr;
    if (!out) left.insert(e->module.get());
    return out;
  });
  for (const torch::Module* m : opened) {
    if (left.count(m) != 0) continue;
    // A layer could not have what the class has besides.
    const std::string inside_of = join(m->path, ".") + ".";
    for (const auto& p : program.params) {
      if (p->path.size() != 1 || !p->onnx_name.starts_with(inside_of)) continue;
      const std::string name = p->onnx_name.substr(inside_of.size());
      if (!torch::is_attribute_name(name)) continue;
      p->path = m->path;
      p->path.push_back(name);
    }
    // The class has the weight by its own key; what it is tied to has it by another.
    for (const auto& held : m->params) {
      const torch::ParamPtr& param = held.second;
      std::vector<std::string> key = m->path;
      key.push_back(held.first);
      const auto tie = std::find_if(program.ties.begin(), program.ties.end(), [&](const torch::Tie& t) {
        return t.param == param && t.path == key;
      });
      if (tie != program.ties.end()) std::swap(tie->path, param->path);
    }
  }
  std::erase_if(program.modules, [&](const auto& m) {
    return opened.count(m.get()) != 0 && left.count(m.get()) == 0;
  });
}

}  // namespace onnx2nn::structure
