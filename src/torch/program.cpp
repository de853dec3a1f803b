#include "torch/program.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <unordered_set>

#include "support/text.h"

namespace onnx2nn::torch {

std::string Param::key() const {
  return join(path, ".");
}

Scope common_scope(const Scope& a, const Scope& b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return {a.begin(), end};
}

std::vector<std::string> components_of(const Scope& scope) {
  std::vector<std::string> out;
  for (const ScopeStep& step : scope)
    for (const std::string_view part : split(step.path, '.')) out.emplace_back(part);
  return out;
}

namespace {

/// How often variables and parameters are read.
struct Uses {
  std::unordered_map<int, int> variables;
  std::unordered_map<const Param*, int> params;

  void add(const Expr& e, int step) {
    if (e.kind == ExprKind::Var) variables[e.var->id] += step;
    if (e.kind == ExprKind::Param) params[e.param.get()] += step;
    for (const auto& a : e.args) add(*a, step);
    for (const auto& [_, v] : e.keywords) add(*v, step);
  }

  void add(const Block& block, int step) {
    for (const Stmt& s : block) {
      add(*s.value, step);
      add(s.body, step);
      add(s.orelse, step);
    }
  }

  /// Backwards, so that what only removed statements read goes too.
  void sweep(Block& block) {
    Block kept;
    for (std::size_t i = block.size(); i-- > 0;) {
      Stmt& s = block[i];
      const bool unused = s.kind == Stmt::Kind::Assign && !s.targets.empty() &&
                          std::all_of(s.targets.begin(), s.targets.end(),
                                      [&](const VarPtr& v) { return variables[v->id] == 0; });
      if (unused) {
        add(*s.value, -1);
        continue;
      }
      sweep(s.orelse);
      sweep(s.body);
      kept.push_back(std::move(s));
    }
    std::reverse(kept.begin(), kept.end());
    block = std::move(kept);
  }
};

}  // namespace

void remove_unused(Program& program) {
  Uses uses;
  uses.add(program.forward, 1);
  for (const ConstantPtr& c : program.constants) uses.add(*c->value, 1);
  const auto read_before = uses.params;
  uses.sweep(program.forward);
  std::unordered_set<const Param*> of_modules;
  for (const ModulePtr& m : program.modules)
    for (const auto& [_, p] : m->params) of_modules.insert(p.get());
  std::erase_if(program.params, [&](const ParamPtr& p) {
    if (of_modules.count(p.get()) != 0) return false;
    const auto it = read_before.find(p.get());
    return it != read_before.end() && it->second > 0 && uses.params[p.get()] == 0;
  });
  std::unordered_set<const Param*> kept;
  for (const ParamPtr& p : program.params) kept.insert(p.get());
  std::erase_if(program.params, [&](const ParamPtr& p) {
    return p->quantized != nullptr && kept.count(p->quantized.get()) == 0;
  });
}

}  // namespace onnx2nn::torch
