#include "structure/scopes.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "structure/steps.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::Scope;
using torch::ScopeStep;
using torch::Stmt;

using Path = std::vector<std::string>;

Path components(const std::string& path) {
  Path out;
  for (const std::string_view part : split(path, '.')) out.emplace_back(part);
  return out;
}

class Placer {
 public:
  explicit Placer(const torch::Program& program) : program_(program) {}

  std::vector<Scope> run() {
    note_keys();
    std::vector<std::optional<Scope>> known;
    for (const Stmt& s : program_.forward) known.push_back(said(s));
    round_inside(known);
    name_calls(known);
    for (std::size_t i = 0; i < known.size(); ++i)
      if (!known[i]) known[i] = of_keys(program_.forward[i]);
    split_steps(known);
    inside(known);
    std::vector<Scope> out = filled(known);
    for (std::size_t i = 0; i < out.size(); ++i) {
      keep_to_keys(program_.forward[i], out[i]);
      leave_layers(out[i]);
    }
    share(out);
    drop_small(out);
    return out;
  }

 private:
  void note_keys() {
    const auto note = [&](const Path& path, std::size_t upto) {
      std::string prefix;
      for (std::size_t i = 0; i < upto; ++i) {
        prefix += (i > 0 ? "." : "") + path[i];
        if (!keys_.insert(prefix).second) continue;
      }
    };
    for (const auto& m : program_.modules) {
      note(m->path, m->path.size());
      layers_.insert(join(m->path, "."));
    }
    for (const auto& p : program_.params) note(p->path, p->path.size() - 1);
  }

  /// What the file says of the statement; of one with others inside, what they have in common.
  static std::optional<Scope> said(const Stmt& s) {
    std::optional<Scope> out;
    // "/Add" may be the model's own work, or that of a module which was lost: what is around it says.
    if (s.scope && !s.scope->empty()) out = *s.scope;
    for (const torch::Block* b : {&s.body, &s.orelse}) {
      for (const Stmt& inner : *b) {
        const auto other = said(inner);
        if (other) out = out ? torch::common_scope(*out, *other) : *other;
      }
    }
    return out;
  }

  /// What is rounded belongs to who made it, where the file calls that after an output of the model's.
  void round_inside(std::vector<std::optional<Scope>>& scopes) const {
    std::map<int, std::size_t> maker;
    for (std::size_t i = 0; i < scopes.size(); ++i) {
      const Stmt& s = program_.forward[i];
      if (s.kind != Stmt::Kind::Assign) continue;
      for (const auto& v : s.targets) maker.emplace(v->id, i);
      const Expr& e = *s.value;
      if (scopes[i] || e.kind != ExprKind::Helper || !is_fake_quantize(e.text) ||
          e.args[0]->kind != ExprKind::Var)
        continue;
      if (const auto it = maker.find(e.args[0]->var->id); it != maker.end())
        scopes[i] = scopes[it->second];
    }
  }

  /// "relu_1" is the second call of relu, where no weight is called so.
  void name_calls(std::vector<std::optional<Scope>>& scopes) const {
    std::set<std::string> paths;
    for (const auto& scope : scopes) {
      if (!scope) continue;
      std::string path;
      for (const ScopeStep& step : *scope) paths.insert(path += (path.empty() ? "" : ".") + step.path);
    }
    for (auto& scope : scopes) {
      if (!scope) continue;
      std::string path;
      for (ScopeStep& step : *scope) {
        const std::string outer = path.empty() ? "" : path + ".";
        const auto at = step.path.rfind('_');
        if (at != std::string::npos && at > 0 && step.call == 0 &&
            step.path.size() - at <= 4 && is_number(step.path.substr(at + 1)) &&
            keys_.count(outer + step.path) == 0) {
          const std::string base = step.path.substr(0, at);
          if (keys_.count(outer + base) != 0 || paths.count(outer + base) != 0) {
            step.call = std::stoi(step.path.substr(at + 1));
            step.path = base;
          }
        }
        path = outer + step.path;
      }
    }
  }

  /// "layer.0" is two steps where the model calls layer too.
  static void split_steps(std::vector<std::optional<Scope>>& scopes) {
    std::set<std::string> called;
    for (const auto& scope : scopes) {
      if (!scope) continue;
      std::string path;
      for (const ScopeStep& step : *scope) called.insert(path += (path.empty() ? "" : ".") + step.path);
    }
    for (auto& scope : scopes) {
      if (!scope) continue;
      Scope out;
      std::string outer;
      for (const ScopeStep& step : *scope) {
        std::string from;
        const Path parts = components(step.path);
        for (std::size_t i = 0; i < parts.size(); ++i) {
          from += (from.empty() ? "" : ".") + parts[i];
          const bool last = i + 1 == parts.size();
          if (!last && called.count(outer + from) == 0) continue;
          out.push_back({from, last ? step.type : "", last ? step.call : 0});
          outer += from + ".";
          from.clear();
        }
      }
      scope = std::move(out);
    }
  }

  /// The path of the module that has the weight, or the layer.
  template <typename See>
  static void each_owner(const Stmt& s, See&& see) {
    each_expr(s, [&](const Expr& e) {
      if (e.kind == ExprKind::Module) see(Path(e.module->path.begin(), e.module->path.end() - 1));
      if (e.kind != ExprKind::Param) return;
      // A number is of a list, which does no work of its own.
      const Path& path = e.param->path;
      see(Path(path.begin(), path.end() - (path.size() > 1 && is_number(path.back()) ? 2 : 1)));
    });
  }

  /// Where all its weights are, a step for each component that is no number.
  static std::optional<Scope> of_keys(const Stmt& s) {
    std::optional<Path> owner;
    each_owner(s, [&](const Path& path) {
      if (!owner) {
        owner = path;
        return;
      }
      std::size_t n = 0;
      while (n < std::min(owner->size(), path.size()) && (*owner)[n] == path[n]) ++n;
      owner->resize(n);
    });
    if (!owner) return std::nullopt;
    Scope out;
    for (const std::string& part : *owner) {
      if (is_number(part) && !out.empty()) {
        out.back().path += "." + part;
      } else {
        out.push_back({part, "", 0});
      }
    }
    return out;
  }

  /// What takes something from a module and gives all that it makes to it belongs to it: exporters lose
  /// the scope of what they put in for something else.
  void inside(std::vector<std::optional<Scope>>& scopes) const {
    std::map<int, std::size_t> maker;
    std::map<int, std::optional<Scope>> readers;  // what those that are known have in common
    for (std::size_t i = 0; i < scopes.size(); ++i)
      each_var(program_.forward[i], [&](const torch::VarPtr& v, bool sets) {
        if (sets) {
          maker.emplace(v->id, i);
        } else if (scopes[i]) {
          std::optional<Scope>& all = readers[v->id];
          all = all ? torch::common_scope(*all, *scopes[i]) : *scopes[i];
        }
      });
    for (std::size_t i = 0; i < scopes.size(); ++i) {
      const Stmt& s = program_.forward[i];
      if (scopes[i] || s.kind != Stmt::Kind::Assign) continue;
      std::optional<Scope> all;
      for (const auto& v : s.targets)
        if (const auto it = readers.find(v->id); it != readers.end() && it->second)
          all = all ? torch::common_scope(*all, *it->second) : *it->second;
      if (!all || all->empty()) continue;
      bool from_inside = false;
      each_var(s, [&](const torch::VarPtr& v, bool sets) {
        const auto it = maker.find(v->id);
        if (sets || it == maker.end() || !scopes[it->second]) return;
        from_inside = from_inside || torch::common_scope(*scopes[it->second], *all) == *all;
      });
      if (from_inside) scopes[i] = std::move(all);
    }
  }

  /// What lies between two statements belongs to what those have in common.
  static std::vector<Scope> filled(const std::vector<std::optional<Scope>>& known) {
    std::vector<Scope> out(known.size());
    std::vector<std::size_t> next(known.size() + 1, known.size());
    for (std::size_t i = known.size(); i-- > 0;) next[i] = known[i] ? i : next[i + 1];
    std::optional<std::size_t> last;
    for (std::size_t i = 0; i < known.size(); ++i) {
      if (known[i]) {
        out[i] = *known[i];
        last = i;
      } else if (last && next[i] < known.size()) {
        out[i] = torch::common_scope(*known[*last], *known[next[i]]);
      }
    }
    // The result is the model's.
    if (!out.empty()) out.back().clear();
    return out;
  }

  /// Leaves out steps until the module is at or above the owner of each weight.
  static void keep_to_keys(const Stmt& s, Scope& scope) {
    each_owner(s, [&](const Path& owner) {
      std::size_t at = 0;
      for (std::size_t i = 0; i < scope.size(); ++i) {
        for (const std::string& part : components(scope[i].path)) {
          if (at < owner.size() && owner[at] == part) {
            ++at;
            continue;
          }
          scope.resize(i);
          return;
        }
      }
    });
  }

  /// A layer of torch's has no statements of ours.
  void leave_layers(Scope& scope) const {
    std::string path;
    for (std::size_t i = 0; i < scope.size(); ++i) {
      path += (i > 0 ? "." : "") + scope[i].path;
      if (layers_.count(path) == 0) continue;
      scope.resize(i);
      return;
    }
  }

  /// What several modules read and none of them has a part in, such as a mask that exporters compute
  /// once, belongs to the module around them all.
  void share(std::vector<Scope>& scopes) const {
    std::map<int, std::size_t> maker;
    std::map<int, int> writes;
    std::map<int, Scope> readers;  // what all have in common
    std::map<int, bool> several;
    for (std::size_t i = 0; i < scopes.size(); ++i)
      each_var(program_.forward[i], [&](const torch::VarPtr& v, bool sets) {
        if (sets) {
          maker[v->id] = i;
          ++writes[v->id];
          return;
        }
        const auto [it, is_new] = readers.emplace(v->id, scopes[i]);
        if (is_new || it->second == scopes[i]) return;
        several[v->id] = true;
        it->second = torch::common_scope(it->second, scopes[i]);
      });
    for (std::size_t i = 0; i < scopes.size(); ++i) {
      const Stmt& s = program_.forward[i];
      if (s.kind != Stmt::Kind::Assign || scopes[i].empty()) continue;
      Scope outer = scopes[i];
      bool movable = true;
      for (const auto& v : s.targets) {
        movable = movable && writes[v->id] == 1;
        // A number of nn.Sequential's gives its value to the next one.
        const auto it = readers.find(v->id);
        if (it != readers.end() && (several[v->id] || !is_number(scopes[i].back().path)))
          outer = torch::common_scope(outer, it->second);
      }
      if (!movable || outer.size() == scopes[i].size()) continue;
      // Nothing of it comes from inside the module that it would leave.
      each_var(s, [&](const torch::VarPtr& v, bool sets) {
        const auto it = maker.find(v->id);
        if (sets || it == maker.end()) return;
        movable = movable && torch::common_scope(scopes[it->second], scopes[i]).size() <= outer.size();
      });
      each_owner(s, [&](const Path&) { movable = false; });
      if (movable) scopes[i] = std::move(outer);
    }
  }

  /// A scope without weights is a module where it has work enough to be worth one; a number of
  /// nn.Sequential's waits to be judged with its siblings.
  void drop_small(std::vector<Scope>& scopes) const {
    constexpr int kWorth = 4;
    std::map<std::pair<std::string, int>, int> counts;
    const auto each_bare = [&](Scope& scope, auto&& see) {
      std::string path;
      for (std::size_t i = 0; i < scope.size(); ++i) {
        path += (i > 0 ? "." : "") + scope[i].path;
        if (keys_.count(path) == 0 && !is_number(scope[i].path)) see(i, path);
      }
    };
    for (Scope& scope : scopes)
      each_bare(scope, [&](std::size_t i, const std::string& path) {
        ++counts[{path, scope[i].call}];
      });
    for (Scope& scope : scopes) {
      std::set<std::size_t> dropped;
      each_bare(scope, [&](std::size_t i, const std::string& path) {
        if (counts[{path, scope[i].call}] < kWorth) dropped.insert(i);
      });
      // What is inside of one that goes is inside of what is around it.
      for (auto it = dropped.rbegin(); it != dropped.rend(); ++it)
        scope.erase(scope.begin() + static_cast<std::ptrdiff_t>(*it), scope.end());
    }
  }

  const torch::Program& program_;
  std::set<std::string> keys_, layers_;
};

}  // namespace

std::vector<Scope> place_statements(const torch::Program& program) {
  return Placer(program).run();
}

}  // namespace onnx2nn::structure
