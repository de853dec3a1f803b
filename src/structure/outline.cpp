#include "structure/outline.h"

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "structure/walk.h"
#include "support/error.h"
#include "support/interrupt.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Scope;
using torch::Stmt;
using torch::VarPtr;

// A module that is entered more often than this has no methods of its own.
constexpr int kMaxMethods = 3;
// Comparisons of one level, at most; past that, what is not one run already stays inline.
constexpr std::size_t kMaxWork = 1 << 26;

struct Item {
  Stmt stmt;
  Scope rest;  // the steps from this level inwards
};

/// Statements that stand together: one of the level's own, or the work of one call.
struct Element {
  int key = -1;  // of the module that is called; -1: a statement of the level itself
  std::vector<int> items;
};

class Outliner {
 public:
  Outliner(const torch::Program& program, std::vector<Scope> scopes) : program_(program) {
    for (std::size_t i = 0; i < program.forward.size(); ++i)
      items_.push_back({program.forward[i], std::move(scopes[i])});
  }

  Tree run() {
    for (const auto& p : program_.inputs) seen(*p.var);
    for (const Item& item : items_)
      each_var(item.stmt, [&](const VarPtr& v, bool) { seen(*v); });
    Own* root = tree_.add(nullptr, {}, "");
    Method forward;
    forward.name = "forward";
    for (const auto& p : program_.inputs) forward.params.push_back(p.var);
    forward.body = level(*root, std::move(items_), {});
    root->methods.push_back(std::move(forward));
    return std::move(tree_);
  }

 private:
  void seen(const torch::Var& v) { tree_.next_var = std::max(tree_.next_var, v.id + 1); }

  // ---- one level

  using Needed = std::unordered_set<int>;

  Block level(Own& module, std::vector<Item> items, const Needed& needed) {
    check_interrupt();
    std::vector<Element> order;
    std::vector<std::pair<std::string, int>> keys;
    for (;;) {
      keys.clear();
      std::map<std::pair<std::string, int>, int> ids;
      order.clear();
      for (std::size_t i = 0; i < items.size(); ++i) {
        int key = -1;
        if (!items[i].rest.empty()) {
          const std::pair name(items[i].rest[0].path, items[i].rest[0].call);
          const auto [it, is_new] = ids.emplace(name, static_cast<int>(keys.size()));
          if (is_new) keys.push_back(name);
          key = it->second;
        }
        if (key >= 0 && !order.empty() && order.back().key == key) {
          order.back().items.push_back(static_cast<int>(i));
        } else {
          order.push_back({key, {static_cast<int>(i)}});
        }
      }
      if (keys.empty()) break;
      const std::set<int> inline_keys = contract(items, order, keys.size());
      if (inline_keys.empty()) break;
      for (Item& item : items) {
        if (item.rest.empty()) continue;
        const int key = ids.at({item.rest[0].path, item.rest[0].call});
        if (inline_keys.count(key) == 0) continue;
        // Its modules are this level's now.
        const std::string outer = item.rest[0].path;
        item.rest.erase(item.rest.begin());
        if (!item.rest.empty()) item.rest[0].path = outer + "." + item.rest[0].path;
      }
    }
    Block out;
    const Counts all = count(items);
    for (const Element& e : order) {
      if (e.key < 0) {
        for (const int i : e.items) out.push_back(std::move(items[static_cast<std::size_t>(i)].stmt));
        continue;
      }
      std::vector<Item> part;
      for (const int i : e.items) part.push_back(std::move(items[static_cast<std::size_t>(i)]));
      out.push_back(call_of(module, std::move(part), all, needed));
    }
    return out;
  }

  // ---- order

  static std::vector<std::vector<int>> dependences(const std::vector<Item>& items) {
    std::vector<std::vector<int>> before(items.size());
    std::unordered_map<int, int> writer;
    std::unordered_map<int, std::vector<int>> readers;
    int drawn = -1;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const int at = static_cast<int>(i);
      auto& b = before[i];
      const auto see = [&](const VarPtr& v, bool sets) {
        if (const auto it = writer.find(v->id); it != writer.end() && it->second != at)
          b.push_back(it->second);
        if (!sets) {
          readers[v->id].push_back(at);
          return;
        }
        if (const auto it = readers.find(v->id); it != readers.end()) {
          for (const int r : it->second)
            if (r != at) b.push_back(r);
          it->second.clear();
        }
        writer[v->id] = at;
      };
      each_var(items[i].stmt, see);
      bool random = false;
      each_expr(items[i].stmt, [&](const Expr& e) {
        random = random || draws(e);
        if (e.kind == ExprKind::Op && e.text == ".append" && e.args[0]->kind == ExprKind::Var)
          see(e.args[0]->var, true);  // what the list holds is another thing from here on
      });
      if (random) {
        if (drawn >= 0) b.push_back(drawn);
        drawn = at;
      }
      std::sort(b.begin(), b.end());
      b.erase(std::unique(b.begin(), b.end()), b.end());
    }
    return before;
  }

  /// Makes each key one element, or as few as dependences allow; returns the keys for which those are
  /// too many.
  static std::set<int> contract(const std::vector<Item>& items, std::vector<Element>& order,
                                std::size_t keys) {
    std::vector<int> runs(keys, 0);
    for (const Element& e : order)
      if (e.key >= 0) ++runs[static_cast<std::size_t>(e.key)];
    std::set<int> too_many;
    std::optional<std::vector<std::vector<int>>> before;
    std::size_t work = 0;
    for (int key = 0; key < static_cast<int>(keys); ++key) {
      if (runs[static_cast<std::size_t>(key)] < 2) continue;
      if (!before) before = dependences(items);
      work += items.size();
      if (work > kMaxWork || !gather(*before, order, key)) too_many.insert(key);
    }
    return too_many;
  }

  static bool gather(const std::vector<std::vector<int>>& before, std::vector<Element>& order,
                     int key) {
    std::vector<int> element(before.size());
    for (std::size_t e = 0; e < order.size(); ++e)
      for (const int i : order[e].items) element[static_cast<std::size_t>(i)] = static_cast<int>(e);
    // How often the way to an element has left the module and come back.
    std::vector<int> left(order.size(), -1);
    int calls = 0;
    for (std::size_t e = 0; e < order.size(); ++e) {
      const bool inside = order[e].key == key;
      int most = inside ? 0 : -1;
      for (const int i : order[e].items) {
        for (const int b : before[static_cast<std::size_t>(i)]) {
          const auto from = static_cast<std::size_t>(element[static_cast<std::size_t>(b)]);
          if (from == e) continue;
          const bool crosses = inside && order[from].key != key;
          most = std::max(most, left[from] + (crosses ? 1 : 0));
        }
      }
      left[e] = most;
      if (inside) calls = std::max(calls, most + 1);
    }
    if (calls > kMaxMethods) return false;
    std::vector<Element> merged;
    std::vector<int> call_at(static_cast<std::size_t>(calls), -1);
    for (std::size_t e = 0; e < order.size(); ++e) {
      if (order[e].key != key) {
        merged.push_back(std::move(order[e]));
        continue;
      }
      int& at = call_at[static_cast<std::size_t>(left[e])];
      if (at < 0) {
        at = static_cast<int>(merged.size());
        merged.push_back({key, {}});
      }
      auto& all = merged[static_cast<std::size_t>(at)].items;
      all.insert(all.end(), order[e].items.begin(), order[e].items.end());
    }
    order = sorted(before, std::move(merged));
    return true;
  }

  /// Each element after those that it depends on, else in the order of the statements.
  static std::vector<Element> sorted(const std::vector<std::vector<int>>& before,
                                     std::vector<Element> elements) {
    std::vector<int> element(before.size());
    for (std::size_t e = 0; e < elements.size(); ++e) {
      std::sort(elements[e].items.begin(), elements[e].items.end());
      for (const int i : elements[e].items)
        element[static_cast<std::size_t>(i)] = static_cast<int>(e);
    }
    std::vector<std::vector<int>> after(elements.size());
    std::vector<int> waits(elements.size(), 0);
    for (std::size_t i = 0; i < before.size(); ++i) {
      for (const int b : before[i]) {
        const int from = element[static_cast<std::size_t>(b)];
        if (from == element[i]) continue;
        after[static_cast<std::size_t>(from)].push_back(element[i]);
        ++waits[static_cast<std::size_t>(element[i])];
      }
    }
    using Ready = std::pair<int, int>;  // the first statement, the element
    std::priority_queue<Ready, std::vector<Ready>, std::greater<>> ready;
    const auto add = [&](int e) {
      ready.emplace(elements[static_cast<std::size_t>(e)].items[0], e);
    };
    for (std::size_t e = 0; e < elements.size(); ++e)
      if (waits[e] == 0) add(static_cast<int>(e));
    std::vector<Element> out;
    while (!ready.empty()) {
      const int e = ready.top().second;
      ready.pop();
      for (const int next : after[static_cast<std::size_t>(e)])
        if (--waits[static_cast<std::size_t>(next)] == 0) add(next);
      out.push_back(std::move(elements[static_cast<std::size_t>(e)]));
    }
    ONNX2NN_CHECK(out.size() == elements.size(), "calls of modules that wait for each other");
    return out;
  }

  // ---- one call

  struct Counts {
    std::unordered_map<int, int> reads, writes;
  };
  static Counts count(const std::vector<Item>& items) {
    Counts out;
    for (const Item& item : items)
      each_var(item.stmt, [&](const VarPtr& v, bool sets) { ++(sets ? out.writes : out.reads)[v->id]; });
    return out;
  }

  Own& child(Own& module, const torch::ScopeStep& step) {
    std::vector<std::string> path = module.path;
    for (std::string& part : torch::components_of({step})) path.push_back(std::move(part));
    const std::string key = join(path, ".");
    if (const auto it = by_path_.find(key); it != by_path_.end()) return *it->second;
    return *(by_path_[key] = tree_.add(&module, std::move(path), step.type));
  }

  Stmt call_of(Own& module, std::vector<Item> items, const Counts& all, const Needed& needed) {
    Own& own = child(module, items[0].rest[0]);
    Stmt call;
    call.origin = items[0].stmt.origin;
    for (Item& item : items) item.rest.erase(item.rest.begin());

    const Counts inside = count(items);
    const auto at = [](const std::unordered_map<int, int>& m, int id) {
      const auto it = m.find(id);
      return it == m.end() ? 0 : it->second;
    };
    // Set here and nowhere else: nobody outside sees it before.
    const auto is_local = [&](int id) {
      return at(inside.writes, id) > 0 && at(inside.writes, id) == at(all.writes, id);
    };
    std::vector<VarPtr> taken;    // as tensors, in the order of use
    std::vector<VarPtr> results;  // in the order in which they are made
    std::unordered_set<int> seen_taken;
    std::unordered_set<int> seen_result;
    // What is set for the first time here is not taken, though it is set again elsewhere.
    std::unordered_set<int> made;
    const auto take = [&](const VarPtr& v) {
      if (!is_local(v->id) && made.count(v->id) == 0 && seen_taken.insert(v->id).second)
        taken.push_back(v);
    };
    for (const Item& item : items) {
      each_taken(item.stmt, take);
      if (item.stmt.kind == Stmt::Kind::Assign)
        for (const VarPtr& v : item.stmt.targets) made.insert(v->id);
      each_var(item.stmt, [&](const VarPtr& v, bool sets) {
        if (!sets) return;
        take(v);
        const bool used = at(all.reads, v->id) > at(inside.reads, v->id) || needed.count(v->id) != 0 ||
                          !is_local(v->id);
        if (used && seen_result.insert(v->id).second) results.push_back(v);
      });
    }
    Method method;
    std::unordered_map<int, VarPtr> names;
    torch::Args args;
    for (const VarPtr& v : taken) {
      names[v->id] = tree_.clone(v);
      method.params.push_back(names[v->id]);
      args.emplace_back(v);
    }
    Needed inner;
    for (const VarPtr& v : results) {
      if (names.count(v->id) == 0) names[v->id] = tree_.clone(v);
      method.results.push_back(names[v->id]);
      inner.insert(names[v->id]->id);
    }
    Sizes sizes;
    for (Item& item : items) {
      Block one;
      one.push_back(std::move(item.stmt));
      rewrite(one, [&](const ExprPtr& e) -> ExprPtr {
        if (const auto of = size_of(*e); of && !is_local(of->var->id) && names.count(of->var->id) == 0)
          return local_size(e, taken, names, sizes);
        if (e->kind != ExprKind::Var) return nullptr;
        const auto it = names.find(e->var->id);
        return it == names.end() ? nullptr : Ex(it->second).ptr();
      });
      rename_targets(one, [&](const VarPtr& v) {
        const auto it = names.find(v->id);
        return it == names.end() ? v : it->second;
      });
      item.stmt = std::move(one[0]);
    }
    for (auto& [value, var] : sizes) {
      method.params.push_back(var);
      args.emplace_back(value);
    }
    method.body = level(own, std::move(items), inner);
    method.name = own.methods.empty() ? "forward" : "forward_" + std::to_string(own.methods.size() + 1);
    auto e = Ex::make(ExprKind::Method);
    e->integer = own.id;
    e->text = method.name;
    for (const Ex& a : args) e->add(a.ptr());
    own.methods.push_back(std::move(method));
    call.value = Ex(ExprPtr(std::move(e)));
    call.targets = results;
    return call;
  }

  // ---- sizes: a module takes them from its own arguments, not from an input of the model

  using Sizes = std::vector<std::pair<Ex, VarPtr>>;  // as the caller says it, as the method does

  ExprPtr local_size(const ExprPtr& e, const std::vector<VarPtr>& taken,
                     const std::unordered_map<int, VarPtr>& names, Sizes& sizes) {
    const torch::Var& v = *e->args[0]->var;
    if (e->kind == ExprKind::Op) {
      for (const VarPtr& t : taken)
        if (t->type == "Tensor") return torch::op(".device", {Ex(names.at(t->id))}).ptr();
    }
    const auto k = static_cast<std::size_t>(e->integer);
    std::string text;
    if (e->kind == ExprKind::Size && e->integer >= 0 && k < v.dims.size()) text = v.dims[k];
    if (!text.empty() && text != "?") {
      for (const VarPtr& t : taken)
        for (std::size_t d = 0; d < t->dims.size(); ++d)
          if (t->dims[d] == text)
            return torch::size(Ex(names.at(t->id)), static_cast<std::int64_t>(d), e->text).ptr();
    }
    // Nothing that comes in has it.
    const auto same = [&](const auto& s) {
      return s.first->kind == e->kind && s.first->integer == e->integer &&
             s.first->text == e->text && s.first->args[0]->var == e->args[0]->var;
    };
    auto it = std::find_if(sizes.begin(), sizes.end(), same);
    if (it == sizes.end()) {
      std::string hint = e->kind == ExprKind::Op        ? "device"
                         : e->kind == ExprKind::ShapeOf ? "shape"
                         : !e->text.empty()             ? e->text
                                                        : "size";
      VarPtr var = tree_.new_var(std::move(hint));
      if (e->kind == ExprKind::Size) var->type = "int";
      it = sizes.insert(sizes.end(), {Ex(e), var});
    }
    return Ex(it->second).ptr();
  }

  const torch::Program& program_;
  std::vector<Item> items_;
  std::map<std::string, Own*> by_path_;
  Tree tree_;
};

}  // namespace

Tree outline(const torch::Program& program, std::vector<Scope> scopes) {
  return Outliner(program, std::move(scopes)).run();
}

}  // namespace onnx2nn::structure
