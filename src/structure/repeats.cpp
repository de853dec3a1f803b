#include "structure/repeats.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "structure/facts.h"
#include "structure/normal.h"
#include "structure/patterns.h"
#include "structure/roles.h"
#include "structure/scopes.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Scope;
using torch::Stmt;

using Path = std::vector<std::string>;

// Statements of a module that are looked at, at least.
constexpr std::size_t kWorth = 24;
// Statements that a function may keep where nothing repeats.
constexpr std::size_t kLong = 60;

/// The statements of one module, where they are many.
std::vector<std::pair<Scope, std::vector<int>>> regions_of(const std::vector<const Scope*>& scopes) {
  std::map<std::vector<std::pair<std::string, int>>, std::size_t> numbers;
  std::vector<std::pair<Scope, std::vector<int>>> out;
  std::size_t last = 0;
  for (std::size_t i = 0; i < scopes.size(); ++i) {
    if (i == 0 || (scopes[i] != scopes[i - 1] && *scopes[i] != *scopes[i - 1])) {
      std::vector<std::pair<std::string, int>> key;
      for (const torch::ScopeStep& step : *scopes[i]) key.emplace_back(step.path, step.call);
      const auto [it, is_new] = numbers.emplace(std::move(key), out.size());
      if (is_new) out.emplace_back(*scopes[i], std::vector<int>{});
      last = it->second;
    }
    out[last].second.push_back(static_cast<int>(i));
  }
  std::erase_if(out, [](const auto& region) { return region.second.size() < kWorth; });
  return out;
}

class Finder {
 public:
  Finder(torch::Program& program, std::vector<Scope> scopes)
      : program_(program), facts_(program), scopes_(std::move(scopes)) {}

  std::unordered_set<const torch::Param*> run() {
    std::vector<const Scope*> all;
    for (const Scope& scope : scopes_) all.push_back(&scope);
    for (const auto& [scope, statements] : regions_of(all)) look_at(scope, statements);
    if (moved_.empty()) return {};
    name_weights();
    for (const int i : moved_)
      program_.forward[static_cast<std::size_t>(i)].scope =
          std::make_shared<const Scope>(scopes_[static_cast<std::size_t>(i)]);
    return std::move(shared_);
  }

 private:
  void look_at(const Scope& scope, const std::vector<int>& statements) {
    // A module that is called twice has its methods from its author.
    if (std::any_of(scope.begin(), scope.end(), [](const auto& s) { return s.call != 0; })) return;
    std::size_t free = 0;
    bool weights = false;
    for (const int i : statements) {
      const Fact& f = facts_[static_cast<std::size_t>(i)];
      if (f.fixed) continue;
      ++free;
      weights = weights || !f.weights.empty();
    }
    // What stands between the author's modules is the work of the module around them.
    if (free < kWorth || (facts_.named() && !weights)) return;
    Patterns patterns(program_, facts_);
    std::vector<int> sequence = patterns.grouped(patterns.sequence(statements));
    // Where weights have keys, what does not repeat stays in the module, whose methods are cut.
    if (sequence.size() > kLong && !facts_.named()) sequence = patterns.cut(sequence);
    patterns.refine();
    if (patterns.units().empty()) return;
    note_keys();
    patterns_ = &patterns;
    alike_.clear();
    place(sequence, scope);
    moved_.insert(moved_.end(), statements.begin(), statements.end());
    std::sort(moved_.begin(), moved_.end());
  }

  // ---- names of blocks

  /// What the file's keys have already.
  void note_keys() {
    if (!used_.empty()) return;
    const auto note = [&](const Path& path) {
      std::string prefix;
      for (const std::string& part : path) used_.insert(prefix += (prefix.empty() ? "" : ".") + part);
    };
    for (const auto& m : program_.modules) note(m->path);
    for (const auto& p : program_.params) note(p->path);
    for (const auto& c : program_.constants) note(c->path);
  }

  std::string claim(const Path& owner, const std::string& name, bool numbered) {
    const std::string prefix = join(owner, ".") + (owner.empty() ? "" : ".");
    for (int k = numbered ? 1 : 0;; ++k) {
      std::string out = k == 0 ? name : name + std::to_string(k);
      if (used_.insert(prefix + out).second) return out;
    }
  }

  Role role_of(const Node& n) const {
    const Node& block = n.kind == Node::Kind::List ? patterns_->node(block_in(n)) : n;
    const Unit& unit = patterns_->unit(block.unit);
    if (!unit.name.empty()) return {unit.name, unit.name, unit.type};
    return role(statements_of(unit.blocks.at(0)), has_blocks(unit.blocks.at(0)));
  }

  int block_in(const Node& list) const {
    for (const int c : list.children)
      if (patterns_->node(c).kind == Node::Kind::Block) return c;
    return list.children.at(0);
  }

  bool has_blocks(int block) const {
    const auto& children = patterns_->node(block).children;
    return std::any_of(children.begin(), children.end(), [&](int c) {
      return patterns_->node(c).kind == Node::Kind::List;
    });
  }

  std::vector<const Stmt*> statements_of(int node) const {
    std::vector<const Stmt*> out;
    for (const int i : patterns_->statements_of(node))
      out.push_back(&program_.forward[static_cast<std::size_t>(i)]);
    return out;
  }

  void place(const std::vector<int>& nodes, const Scope& scope) {
    const Path owner = torch::components_of(scope);
    std::map<std::string, int> counts;
    std::vector<Role> roles(nodes.size());
    std::vector<std::string> names(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const Node& n = patterns_->node(nodes[i]);
      if (n.kind == Node::Kind::Statement) continue;
      roles[i] = role_of(n);
      names[i] = n.kind == Node::Kind::List && !is_shared(n) ? roles[i].list : roles[i].name;
      ++counts[names[i]];
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const Node& n = patterns_->node(nodes[i]);
      if (n.kind == Node::Kind::Statement) {
        place_statement(n, scope);
        continue;
      }
      if (is_shared(n)) {
        const Node& block = n.kind == Node::Kind::List ? patterns_->node(block_in(n)) : n;
        auto& [name, call] = calls_[{block.unit, join(owner, ".")}];
        if (name.empty()) name = claim(owner, names[i], false);
        for (const int c : n.kind == Node::Kind::List ? n.children : std::vector<int>{nodes[i]}) {
          if (patterns_->node(c).kind == Node::Kind::Statement) {
            place_statement(patterns_->node(c), scope);
            continue;
          }
          Scope inner = scope;
          inner.push_back({name, roles[i].type, call++});
          place_block(c, inner);
        }
        continue;
      }
      const std::string name = claim(owner, names[i], counts[names[i]] > 1);
      if (n.kind == Node::Kind::Block) {
        Scope inner = scope;
        inner.push_back({name, roles[i].type, 0});
        place_block(nodes[i], inner);
        continue;
      }
      const bool chain = patterns_->unit(patterns_->node(block_in(n)).unit).chain;
      int number = 0;
      for (const int c : n.children) {
        if (patterns_->node(c).kind == Node::Kind::Statement) {
          place_statement(patterns_->node(c), scope);
          continue;
        }
        Scope inner = scope;
        if (chain) inner.push_back({name, "", 0});
        inner.push_back({(chain ? "" : name + ".") + std::to_string(number++), roles[i].type, 0});
        place_block(c, inner);
      }
    }
  }

  bool is_shared(const Node& n) const {
    return patterns_->unit((n.kind == Node::Kind::List ? patterns_->node(block_in(n)) : n).unit).shared;
  }

  void place_block(int block, const Scope& scope) {
    const Node& n = patterns_->node(block);
    const std::string owner = join(torch::components_of(scope), ".");
    if (is_chain(block)) chains_.insert(owner);
    place(n.children, scope);
  }

  /// Whether it is layers and activations one after the other, as in nn.Sequential.
  bool is_chain(int block) {
    const Node& n = patterns_->node(block);
    int last = -1;
    for (const int c : n.children) {
      const Node& x = patterns_->node(c);
      if (x.kind != Node::Kind::Statement || x.own.size() != 1) return false;
      const auto i = static_cast<std::size_t>(x.own[0]);
      if (facts_[i].reads.size() != 1 || (last >= 0 && facts_[i].reads[0] != last) ||
          !is_step(program_.forward[i]))
        return false;
      last = facts_[i].writes[0];
      if (c != n.children.back() && facts_.readers(last).size() != 1) return false;
    }
    if (n.children.size() < 2) return false;
    const auto [it, is_new] = alike_.emplace(n.unit, false);
    if (is_new) it->second = are_alike(n.unit);
    return it->second;
  }

  /// Whether the blocks' layers have the same sizes; where many have others, a class says it shorter.
  bool are_alike(int unit) const {
    constexpr std::size_t kFew = 2;
    const std::vector<int>& blocks = patterns_->unit(unit).blocks;
    if (blocks.size() <= kFew) return true;
    const std::vector<const Stmt*> first = statements_of(blocks[0]);
    return std::all_of(blocks.begin(), blocks.end(), [&](int block) {
      const std::vector<const Stmt*> other = statements_of(block);
      for (std::size_t i = 0; i < first.size(); ++i) {
        const torch::Module* a = first[i]->value->module.get();
        const torch::Module* b = other[i]->value->module.get();
        if (a == nullptr || b == nullptr) continue;
        if (a->args.size() != b->args.size() || a->keywords.size() != b->keywords.size()) return false;
        for (std::size_t k = 0; k < a->args.size(); ++k)
          if (!equal(*a->args[k], *b->args[k])) return false;
        for (std::size_t k = 0; k < a->keywords.size(); ++k)
          if (!equal(*a->keywords[k].second, *b->keywords[k].second)) return false;
      }
      return true;
    });
  }

  void place_statement(const Node& n, const Scope& scope) {
    const int last = n.own.back();
    const auto joins = [&](int i) {
      const Fact& f = facts_[static_cast<std::size_t>(i)];
      return f.joins == last ||
             (f.source_of >= 0 && facts_[static_cast<std::size_t>(f.source_of)].joins == last);
    };
    // A shortcut of one layer is that layer.
    const auto layers = std::count_if(n.own.begin(), n.own.end(), joins);
    Scope inner = scope;
    if (layers > 1 && !scope.empty()) {
      const Path owner = torch::components_of(scope);
      inner.push_back({claim(owner, "downsample", false), "", 0});
      chains_.insert(join(torch::components_of(inner), "."));
    }
    for (const int i : n.own) {
      if (layers == 1 && joins(i)) shortcuts_.insert(i);
      scopes_[static_cast<std::size_t>(i)] = joins(i) ? inner : scope;
      order_.push_back(i);
    }
  }

  // ---- names of weights

  struct Use {
    Path owner;
    std::vector<int> statements;
  };

  void name_weights() {
    split_untrained();
    std::unordered_map<const void*, Use> uses;
    std::vector<const void*> order;
    std::unordered_map<const torch::Param*, torch::ModulePtr> layer;
    for (const auto& m : program_.modules)
      for (const auto& [_, p] : m->params) layer[p.get()] = m;
    std::unordered_map<const void*, torch::ModulePtr> modules;
    std::unordered_map<const void*, torch::ParamPtr> params;
    std::unordered_map<const void*, torch::ConstantPtr> constants;
    for (const auto& m : program_.modules) modules[m.get()] = m;
    for (const auto& p : program_.params) params[p.get()] = p;
    for (const auto& c : program_.constants) constants[c.get()] = c;
    const auto note = [&](const void* what, int at) {
      const Path owner = torch::components_of(scopes_[static_cast<std::size_t>(at)]);
      const auto [it, is_new] = uses.emplace(what, Use{owner, {}});
      Use& use = it->second;
      if (is_new) {
        order.push_back(what);
      } else if (owner != use.owner) {
        std::size_t n = 0;
        while (n < std::min(owner.size(), use.owner.size()) && owner[n] == use.owner[n]) ++n;
        use.owner.resize(n);
        // A list has no weights.
        while (!use.owner.empty() && is_number(use.owner.back())) use.owner.pop_back();
        if (params.count(what) != 0) shared_.insert(static_cast<const torch::Param*>(what));
      }
      use.statements.push_back(at);
    };
    std::set<int> moved(order_.begin(), order_.end());
    const auto note_all = [&](int at) {
      each_expr(program_.forward[static_cast<std::size_t>(at)], [&](const Expr& e) {
        if (e.kind == ExprKind::Module) note(e.module.get(), at);
        if (e.kind == ExprKind::Constant) note(e.constant.get(), at);
        if (e.kind != ExprKind::Param) return;
        const auto it = layer.find(e.param.get());
        if (it == layer.end()) note(e.param.get(), at);
      });
    };
    for (const int at : order_) note_all(at);
    for (std::size_t i = 0; i < scopes_.size(); ++i)
      if (moved.count(static_cast<int>(i)) == 0) note_all(static_cast<int>(i));

    // By owner, in the order of their use, those that are to have a new name.
    std::map<std::string, std::vector<const void*>> owners;
    std::vector<std::string> owner_order;
    for (const void* what : order) {
      const Use& use = uses.at(what);
      if (moved.count(use.statements[0]) == 0) continue;
      const Path& path = modules.count(what) != 0    ? modules.at(what)->path
                         : params.count(what) != 0   ? params.at(what)->path
                                                     : constants.at(what)->path;
      const Path now(path.begin(), path.end() - 1);
      if (now == use.owner) continue;
      auto& all = owners[join(use.owner, ".")];
      if (all.empty()) owner_order.push_back(join(use.owner, "."));
      all.push_back(what);
    }
    for (const std::string& owner : owner_order) {
      const auto& all = owners.at(owner);
      const Path& path = uses.at(all[0]).owner;
      std::vector<std::string> stems;
      std::map<std::string, int> counts;
      const bool chain = chains_.count(owner) != 0;
      const std::unordered_map<const void*, std::string> roles = chain ? decltype(roles){} : attention_roles(all, uses);
      for (const void* what : all) {
        const int at = uses.at(what).statements[0];
        const Stmt& s = program_.forward[static_cast<std::size_t>(at)];
        std::string stem;
        if (const auto it = roles.find(what); it != roles.end()) {
          stem = it->second;
        } else if (shortcuts_.count(at) != 0) {
          stem = "downsample";
        } else if (modules.count(what) != 0) {
          stem = layer_stem(*modules.at(what));
        } else {
          stem = params.count(what) != 0 ? weight_stem(s, *params.at(what)) : "value";
        }
        ++counts[stem];
        stems.push_back(std::move(stem));
      }
      for (std::size_t i = 0; i < all.size(); ++i) {
        const void* what = all[i];
        Path to = path;
        if (chain && modules.count(what) != 0) {
          to.push_back(std::to_string(number_in_chain(uses.at(what).statements[0])));
        } else {
          to.push_back(claim(path, stems[i], counts[stems[i]] > 1));
        }
        if (const auto it = modules.find(what); it != modules.end()) {
          for (const auto& [name, p] : it->second->params) {
            p->path = to;
            p->path.push_back(name);
          }
          it->second->path = std::move(to);
        } else if (const auto p = params.find(what); p != params.end()) {
          p->second->path = std::move(to);
        } else {
          constants.at(what)->path = std::move(to);
        }
      }
    }
  }

  /// Which of the statements of a chain it is.
  int number_in_chain(int statement) {
    if (numbers_.empty()) {
      std::map<std::string, int> next;
      for (const int at : order_) {
        const std::string path = join(torch::components_of(scopes_[static_cast<std::size_t>(at)]), ".");
        if (chains_.count(path) != 0) numbers_[at] = next[path]++;
      }
    }
    return numbers_.at(statement);
  }

  /// q, k, v of the attention that the owner's statements are.
  std::unordered_map<const void*, std::string> attention_roles(
      const std::vector<const void*>& all, const std::unordered_map<const void*, Use>& uses) const {
    std::unordered_map<const void*, std::string> out;
    std::set<int> here;
    for (const void* what : all)
      for (const int at : uses.at(what).statements) here.insert(at);
    const auto layer = [&](int variable) -> const void* {
      for (int v = variable;;) {
        const int at = facts_.maker(v);
        if (at < 0) return nullptr;
        const Fact& f = facts_[static_cast<std::size_t>(at)];
        if (!f.layers.empty()) return here.count(at) != 0 ? f.layers[0] : nullptr;
        if (f.reads.size() != 1) return nullptr;
        v = f.reads[0];
      }
    };
    const auto owned = [&](const void* what) {
      return what != nullptr && std::find(all.begin(), all.end(), what) != all.end();
    };
    const auto add = [&](const Expr& e) {
      if (e.kind != ExprKind::Aten || torch::function_of(e) != "scaled_dot_product_attention") return;
      const void* found[3] = {};
      for (std::size_t i = 0; i < 3 && i < e.args.size(); ++i)
        if (e.args[i]->kind == ExprKind::Var) found[i] = layer(e.args[i]->var->id);
      if (!out.empty() || !owned(found[0])) return;
      if (found[0] == found[1] && found[1] == found[2]) {
        out[found[0]] = "qkv";
        return;
      }
      if (!owned(found[1]) || !owned(found[2]) || found[0] == found[1] || found[1] == found[2] || found[0] == found[2]) return;
      static constexpr const char* kNames[] = {"query", "key", "value"};
      for (std::size_t i = 0; i < 3; ++i) out[found[i]] = kNames[i];
    };
    // The attention stands where its projections do.
    if (!here.empty()) {
      const Scope& scope = scopes_[static_cast<std::size_t>(*here.begin())];
      for (int i = *here.begin(); i <= *here.rbegin() && i < static_cast<int>(scopes_.size()); ++i)
        if (scopes_[static_cast<std::size_t>(i)] == scope)
          each_expr(program_.forward[static_cast<std::size_t>(i)], add);
    }
    if (!out.empty())
      for (const void* what : all)
        if (out.count(what) == 0 && uses.at(what).statements[0] == *here.rbegin()) out[what] = "out";
    return out;
  }

  /// Layers that exporters kept once since they were not trained yet: each module has its own.
  void split_untrained() {
    std::unordered_map<const void*, std::map<std::string, torch::ModulePtr>> copies;
    std::set<std::string> kept;
    for (const int at : order_) {
      torch::Stmt& s = program_.forward[static_cast<std::size_t>(at)];
      const std::string owner = join(torch::components_of(scopes_[static_cast<std::size_t>(at)]), ".");
      if (s.value->kind != ExprKind::Module || s.value->module->params.empty() ||
          !is_untrained(*s.value->module) || facts_[static_cast<std::size_t>(at)].fixed)
        continue;
      const torch::ModulePtr& module = s.value->module;
      auto& mine = copies[module.get()];
      const auto it = mine.find(owner);
      torch::ModulePtr own;
      if (it != mine.end()) {
        own = it->second;
      } else if (mine.empty()) {
        own = mine[owner] = module;
      } else {
        own = std::make_shared<torch::Module>(*module);
        for (auto& [_, p] : own->params) {
          p = std::make_shared<torch::Param>(*p);
          program_.params.push_back(p);
        }
        program_.modules.push_back(own);
        mine[owner] = own;
      }
      if (own == module) continue;
      auto copy = std::make_shared<Expr>(*s.value);
      copy->module = own;
      s.value = torch::Ex(ExprPtr(std::move(copy)));
    }
  }

  torch::Program& program_;
  Facts facts_;
  std::vector<Scope> scopes_;
  const Patterns* patterns_ = nullptr;
  std::map<int, bool> alike_;  // by unit
  std::vector<int> moved_;
  std::vector<int> order_;      // statements, as they stand in the blocks
  std::set<std::string> used_;  // keys
  std::set<std::string> chains_;
  std::set<int> shortcuts_;
  std::unordered_map<int, int> numbers_;
  std::map<std::pair<int, std::string>, std::pair<std::string, int>> calls_;
  std::unordered_set<const torch::Param*> shared_;
};

}  // namespace

std::unordered_set<const torch::Param*> find_repeats(torch::Program& program) {
  // What the file says is cheap to look at, and mostly explains all.
  static const Scope kUnknown;
  std::vector<const Scope*> said;
  for (const Stmt& s : program.forward) said.push_back(s.scope ? s.scope.get() : &kUnknown);
  if (regions_of(said).empty()) return {};
  return Finder(program, place_statements(program)).run();
}

}  // namespace onnx2nn::structure
