#include "structure/facts.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::Stmt;

// Statements of a shortcut, and of the branch beside it, at most.
constexpr std::size_t kLongestShortcut = 4;
constexpr std::size_t kLongestBranch = 48;

std::uint64_t mixed(std::uint64_t seed, std::uint64_t value) {
  std::uint64_t x = seed ^ (value + 0x9e3779b97f4a7c15 + (seed << 6) + (seed >> 2));
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccd;
  x ^= x >> 33;
  return x;
}

std::uint64_t mixed(std::uint64_t seed, std::string_view text) {
  return mixed(seed, std::hash<std::string_view>()(text));
}

std::uint64_t token_of(const Expr& e) {
  std::uint64_t out = mixed(0, static_cast<std::uint64_t>(e.kind));
  switch (e.kind) {
    case ExprKind::Bool:
    case ExprKind::Int:
    case ExprKind::Float:
    case ExprKind::Var:
    case ExprKind::Param:
    case ExprKind::Constant:
      return out;
    case ExprKind::Module:
      out = mixed(out, e.module->type);
      break;
    case ExprKind::Size:
    case ExprKind::DType:
      out = mixed(out, static_cast<std::uint64_t>(e.integer));
      break;
    default:
      out = mixed(out, e.text);
  }
  out = mixed(out, e.args.size());
  for (const auto& a : e.args) out = mixed(out, token_of(*a));
  for (const auto& [key, value] : e.keywords) out = mixed(mixed(out, key), token_of(*value));
  return out;
}

std::uint64_t token_of(const Stmt& s) {
  std::uint64_t out = mixed(static_cast<std::uint64_t>(s.kind), token_of(*s.value));
  out = mixed(out, s.targets.size());
  for (const torch::Block* b : {&s.body, &s.orelse}) {
    out = mixed(out, b->size());
    for (const Stmt& inner : *b) out = mixed(out, token_of(inner));
  }
  return out;
}

template <typename T>
void make_unique(std::vector<T>& items) {
  std::unordered_set<T> seen;
  std::erase_if(items, [&](const T& item) { return !seen.insert(item).second; });
}

const std::vector<int> kNobody;

}  // namespace

bool is_authors(const torch::Param& param) {
  const auto dot = param.onnx_name.rfind('.');
  if (dot == std::string::npos || param.key() != param.onnx_name) return false;
  // PaddlePaddle counts: conv2d_0.w_0.
  const std::string_view last = std::string_view(param.onnx_name).substr(dot + 1);
  return !(last.size() > 2 && (last[0] == 'w' || last[0] == 'b') && last[1] == '_' &&
           is_number(last.substr(2)));
}

bool is_untrained(const torch::Module& module) {
  return std::all_of(module.params.begin(), module.params.end(), [](const auto& p) {
    const ir::TensorPtr& t = p.second->tensor;
    return t != nullptr && t->rank() == 1 && t->is_splat();
  });
}

Facts::Facts(const torch::Program& program) {
  // A file whose weights have keys has keys for those at the top too.
  std::unordered_set<const void*> kept;
  std::unordered_map<const torch::Param*, const torch::Module*> layer;
  for (const auto& p : program.params) named_ = named_ || is_authors(*p);
  for (const auto& m : program.modules)
    for (const auto& [_, p] : m->params) {
      layer[p.get()] = m.get();
      if (is_authors(*p)) kept.insert(m.get());
    }
  for (const auto& p : program.params)
    if (is_authors(*p) || p->quantized ||
        (named_ && (p->trainable || p->persistent) && p->key() == p->onnx_name))
      kept.insert(p.get());
  for (const torch::Tie& tie : program.ties) {
    kept.insert(tie.param.get());
    for (const auto& m : program.modules)
      if (m->path.size() < tie.path.size() && std::equal(m->path.begin(), m->path.end(), tie.path.begin()))
        kept.insert(m.get());
  }

  std::unordered_map<int, int> writes;
  for (std::size_t i = 0; i < program.forward.size(); ++i) {
    const Stmt& s = program.forward[i];
    Fact f;
    f.token = token_of(s);
    f.fixed = s.kind == Stmt::Kind::Return || s.kind == Stmt::Kind::Set ||
              s.kind == Stmt::Kind::Break;
    each_var(s, [&](const torch::VarPtr& v, bool sets) {
      if (sets) f.writes.push_back(v->id);
    });
    make_unique(f.writes);
    each_taken(s, [&](const torch::VarPtr& v) {
      if (std::find(f.writes.begin(), f.writes.end(), v->id) == f.writes.end())
        f.reads.push_back(v->id);
    });
    make_unique(f.reads);
    each_expr(s, [&](const Expr& e) {
      if (e.kind == ExprKind::Module) f.weights.push_back(e.module.get());
      if (e.kind == ExprKind::Module && !is_untrained(*e.module)) f.layers.push_back(e.module.get());
      if (e.kind == ExprKind::Constant) f.weights.push_back(e.constant.get());
      if (e.kind == ExprKind::Constant) f.layers.push_back(e.constant.get());
      if (e.kind != ExprKind::Param) return;
      const auto it = layer.find(e.param.get());
      f.fixed = f.fixed || it != layer.end();  // of a layer that is elsewhere
      f.weights.push_back(e.param.get());
    });
    make_unique(f.weights);
    const int at = static_cast<int>(i);
    for (const void* w : f.weights) {
      f.fixed = f.fixed || kept.count(w) != 0;
      users_[w].push_back(at);
    }
    for (const int v : f.writes) {
      ++writes[v];
      maker_[v] = at;
    }
    for (const int v : f.reads) readers_[v].push_back(at);
    facts_.push_back(std::move(f));
  }
  for (Fact& f : facts_)
    for (const auto* all : {&f.reads, &f.writes})
      for (const int v : *all)
        if (const auto it = writes.find(v); it != writes.end() && it->second > 1) f.fixed = true;
  for (const auto& [v, n] : writes)
    if (n > 1) maker_[v] = -1;
  find_sources(program);
  find_shortcuts(program);
}

int Facts::maker(int variable) const {
  const auto it = maker_.find(variable);
  return it == maker_.end() ? -1 : it->second;
}

const std::vector<int>& Facts::readers(int variable) const {
  const auto it = readers_.find(variable);
  return it == readers_.end() ? kNobody : it->second;
}

const std::vector<int>& Facts::users(const void* what) const {
  const auto it = users_.find(what);
  return it == users_.end() ? kNobody : it->second;
}

int Facts::behind_shortcut(int variable) const {
  const auto it = behind_.find(variable);
  return it == behind_.end() ? variable : it->second;
}

/// The statements that lead from a value which others read as well to this one, by themselves.
Facts::Chain Facts::chain_to(int variable) const {
  Chain out;
  bool layer = false;
  int v = variable;
  for (std::size_t step = 0; step < kLongestShortcut; ++step) {
    const int at = maker(v);
    if (at < 0 || readers(v).size() != 1) return {};
    const Fact& f = facts_[static_cast<std::size_t>(at)];
    int from = -1;
    int several = 0;
    for (const int r : f.reads) {
      const int source = maker(r);
      if (source >= 0 && facts_[static_cast<std::size_t>(source)].source_of == at) continue;
      from = r;
      ++several;
    }
    if (f.fixed || several != 1 || f.writes.size() != 1) return {};
    out.statements.push_back(at);
    layer = layer || !f.weights.empty() || f.reads.size() > 1;
    v = from;
    if (readers(v).size() < 2) continue;
    if (!layer) return {};
    out.from = v;
    return out;
  }
  return {};
}

bool Facts::comes_from(int variable, int from) const {
  const int first = maker(from);
  std::vector<int> open{variable};
  std::unordered_set<int> seen{variable};
  while (!open.empty() && seen.size() < kLongestBranch) {
    const int v = open.back();
    open.pop_back();
    if (v == from) return true;
    const int at = maker(v);
    if (at < 0 || at <= first) continue;
    for (const int r : facts_[static_cast<std::size_t>(at)].reads)
      if (seen.insert(r).second) open.push_back(r);
  }
  return false;
}

void Facts::find_shortcuts(const torch::Program& program) {
  for (std::size_t i = 0; i < facts_.size(); ++i) {
    const Stmt& s = program.forward[i];
    const Expr& e = *s.value;
    if (s.kind != Stmt::Kind::Assign || facts_[i].fixed || e.kind != ExprKind::Aten ||
        torch::function_of(e) != "add" || e.args.size() < 2 ||
        e.args[0]->kind != ExprKind::Var || e.args[1]->kind != ExprKind::Var)
      continue;
    Chain chains[2] = {chain_to(e.args[0]->var->id), chain_to(e.args[1]->var->id)};
    // The shorter of two ways.
    for (const std::size_t k : {0U, 1U}) {
      const Chain& mine = chains[k];
      const Chain& other = chains[1 - k];
      // Beside a value that goes straight to the sum it is the branch itself.
      if (mine.statements.empty() || e.args[1 - k]->var->id == mine.from) continue;
      if (!other.statements.empty() && other.statements.size() <= mine.statements.size()) continue;
      if (!comes_from(e.args[1 - k]->var->id, mine.from)) continue;
      for (const int at : mine.statements) facts_[static_cast<std::size_t>(at)].joins = static_cast<int>(i);
      behind_[e.args[k]->var->id] = mine.from;
      break;
    }
  }
}

/// What is made of nothing, and read by one statement, belongs to that: exporters make it beforehand.
void Facts::find_sources(const torch::Program& program) {
  for (std::size_t i = 0; i < facts_.size(); ++i) {
    Fact& f = facts_[i];
    bool random = false;
    each_expr(program.forward[i], [&](const Expr& e) { random = random || draws(e); });
    if (random || f.fixed || !f.reads.empty() || !f.weights.empty() || f.writes.size() != 1) continue;
    const auto& all = readers(f.writes[0]);
    if (all.size() != 1) continue;
    f.source_of = all[0];
  }
}

}  // namespace onnx2nn::structure
