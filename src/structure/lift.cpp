#include "structure/lift.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "structure/walk.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Scope;
using torch::Stmt;

struct Table {
  torch::ParamPtr param;
  Scope common;
  bool several = false;
  std::size_t first = 0;  // the statement that reads it first
  torch::VarPtr var;
};

torch::VarPtr variable(const torch::Param& p, int id) {
  auto v = std::make_shared<torch::Var>();
  v->id = id;
  v->hint = p.path.back();
  v->type = "Tensor";
  v->has_dims = true;
  for (const std::int64_t d : p.shape) v->dims.push_back(std::to_string(d));
  return v;
}

}  // namespace

void lift_tables(torch::Program& program,
                 const std::unordered_set<const torch::Param*>& shared) {
  std::unordered_map<const torch::Param*, Table> tables;
  int next = 0;
  for (const auto& p : program.inputs) next = std::max(next, p.var->id + 1);
  for (std::size_t i = 0; i < program.forward.size(); ++i) {
    const Stmt& s = program.forward[i];
    each_var(s, [&](const torch::VarPtr& v, bool) { next = std::max(next, v->id + 1); });
    const Scope scope = s.scope ? *s.scope : Scope{};
    each_expr(s, [&](const Expr& e) {
      if (e.kind != ExprKind::Param) return;
      if ((e.param->trainable || e.param->persistent) && shared.count(e.param.get()) == 0) return;
      const auto [it, is_new] = tables.emplace(e.param.get(), Table{e.param, scope, false, i, nullptr});
      if (is_new) return;
      Table& t = it->second;
      t.several = t.several || t.common != scope;
      t.common = torch::common_scope(t.common, scope);
    });
  }
  std::unordered_map<std::size_t, std::vector<Table*>> made;  // by the statement that comes next
  for (auto& [_, t] : tables)
    if (t.several && !t.param->path.empty()) made[t.first].push_back(&t);
  if (made.empty()) return;
  Block out;
  for (std::size_t i = 0; i < program.forward.size(); ++i) {
    if (const auto it = made.find(i); it != made.end()) {
      std::sort(it->second.begin(), it->second.end(), [](const Table* a, const Table* b) {
        return a->param->path < b->param->path;
      });
      for (Table* t : it->second) {
        t->var = variable(*t->param, next++);
        Stmt s;
        s.targets = {t->var};
        auto e = Ex::make(ExprKind::Param);
        e->param = t->param;
        s.value = Ex(ExprPtr(std::move(e)));
        s.scope = std::make_shared<const Scope>(t->common);
        out.push_back(std::move(s));
      }
    }
    Block one;
    one.push_back(std::move(program.forward[i]));
    rewrite(one, [&](const ExprPtr& e) -> ExprPtr {
      if (e->kind != ExprKind::Param) return nullptr;
      const auto it = tables.find(e->param.get());
      return it == tables.end() || !it->second.var ? nullptr : Ex(it->second.var).ptr();
    });
    out.push_back(std::move(one[0]));
  }
  program.forward = std::move(out);
}

void sink_sources(torch::Program& program) {
  Block& body = program.forward;
  std::unordered_map<int, std::vector<std::size_t>> readers;
  std::unordered_map<int, int> writes;
  for (std::size_t i = 0; i < body.size(); ++i)
    each_var(body[i], [&](const torch::VarPtr& v, bool sets) {
      if (sets) {
        ++writes[v->id];
        return;
      }
      auto& all = readers[v->id];
      if (all.empty() || all.back() != i) all.push_back(i);
    });
  std::unordered_map<std::size_t, std::vector<std::size_t>> before;
  std::vector<bool> moved(body.size(), false);
  for (std::size_t i = 0; i < body.size(); ++i) {
    const Stmt& s = body[i];
    if (s.kind != Stmt::Kind::Assign || s.targets.size() != 1 || writes[s.targets[0]->id] != 1 ||
        (s.value->kind != ExprKind::Aten && s.value->kind != ExprKind::Function))
      continue;
    bool bare = true;
    each_taken(s, [&](const torch::VarPtr&) { bare = false; });
    each_expr(s, [&](const Expr& e) { bare = bare && !e.param && !e.module && !e.constant && !draws(e); });
    const auto it = readers.find(s.targets[0]->id);
    if (!bare || it == readers.end() || it->second.size() != 1) continue;
    before[it->second[0]].push_back(i);
    moved[i] = true;
  }
  if (before.empty()) return;
  Block out;
  for (std::size_t i = 0; i < body.size(); ++i) {
    if (moved[i]) continue;
    if (const auto it = before.find(i); it != before.end())
      for (const std::size_t k : it->second) out.push_back(std::move(body[k]));
    out.push_back(std::move(body[i]));
  }
  body = std::move(out);
}

}  // namespace onnx2nn::structure
