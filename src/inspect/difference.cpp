#include "inspect/difference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include <fmt/core.h>

#include "inspect/attributes.h"
#include "support/error.h"
#include "support/interrupt.h"
#include "support/text.h"

namespace onnx2nn::inspect {
namespace {

using ir::Graph;
using ir::Node;
using ir::Value;

// Elements that are compared one by one, of all weights: beyond that it is said that some differ.
constexpr std::int64_t kCompared = std::int64_t{1} << 24;

std::string type_of(const Node& n) {
  return n.domain.empty() ? n.op_type : n.domain + "::" + n.op_type;
}

std::string name_of(const Node& n) {
  if (!n.name.empty()) return n.name;
  return n.output_count() > 0 && n.output(0) != nullptr ? n.output(0)->name : "";
}

class Comparison {
 public:
  Comparison(const ir::Model& before, const ir::Model& after, ModelDifference& out)
      : before_(before), after_(after), out_(out) {}

  void run() {
    interface();
    alignment_ = align(*before_.graph, *after_.graph, contents_);
    nodes();
    weights();
    replacements();
    const bool same_weights = std::all_of(out_.weights.begin(), out_.weights.end(),
                                          [](const WeightChange& w) { return w.renamed_only; });
    out_.equal = out_.interface.empty() && out_.changed.empty() && out_.removed.empty() &&
                 out_.added.empty() && same_weights;
  }

 private:
  // ---- Interface ----

  void note(const std::string& what, const std::string& a, const std::string& b) {
    if (a != b) out_.interface.push_back({what, a, b});
  }

  template <typename Map, typename Show>
  void maps(const std::string& what, const Map& a, const Map& b, Show&& show) {
    std::set<std::string> keys;
    for (const auto& [key, _] : a) keys.insert(key);
    for (const auto& [key, _] : b) keys.insert(key);
    for (const std::string& key : keys) {
      const auto x = a.find(key);
      const auto y = b.find(key);
      note(what + (key.empty() ? "ai.onnx" : key), x == a.end() ? "" : show(x->second),
           y == b.end() ? "" : show(y->second));
    }
  }

  /// Inputs or outputs by name: those that only one has, other types, another order.
  void ports(const std::string& what, const std::vector<std::pair<std::string, std::string>>& a,
             const std::vector<std::pair<std::string, std::string>>& b) {
    std::map<std::string, std::string> of_a(a.begin(), a.end());
    std::map<std::string, std::string> of_b(b.begin(), b.end());
    const std::size_t had = out_.interface.size();
    maps(what + " ", of_a, of_b, [](const std::string& s) { return s; });
    const bool same_order = std::equal(a.begin(), a.end(), b.begin(), b.end(),
                                       [](const auto& x, const auto& y) { return x.first == y.first; });
    if (!same_order && out_.interface.size() == had)
      out_.interface.push_back({"order of " + what + "s", names(a), names(b)});
  }

  static std::string names(const std::vector<std::pair<std::string, std::string>>& list) {
    std::vector<std::string> out;
    for (const auto& [name, _] : list) out.push_back(name);
    return names_text(out);
  }

  static std::vector<std::pair<std::string, std::string>> inputs_of(const ir::Model& m) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const Value* v : m.graph->inputs)
      if (!v->is_constant() || !m.info.weights_are_inputs) out.emplace_back(v->name, text_of(v->type));
    return out;
  }

  static std::vector<std::pair<std::string, std::string>> outputs_of(const ir::Model& m) {
    std::vector<std::pair<std::string, std::string>> out;
    for (std::size_t i = 0; i < m.graph->output_count(); ++i)
      out.emplace_back(m.graph->output_names[i], text_of(m.graph->output(i)->type));
    return out;
  }

  void interface() {
    ports("input", inputs_of(before_), inputs_of(after_));
    ports("output", outputs_of(before_), outputs_of(after_));
    const ir::ModelInfo& a = before_.info;
    const ir::ModelInfo& b = after_.info;
    maps("opset ", a.opsets, b.opsets, [](std::int64_t v) { return std::to_string(v); });
    note("IR version", std::to_string(a.ir_version), std::to_string(b.ir_version));
    note("producer", a.producer_name + " " + a.producer_version, b.producer_name + " " + b.producer_version);
    note("domain", a.domain, b.domain);
    note("model version", std::to_string(a.model_version), std::to_string(b.model_version));
    note("description", a.doc_string, b.doc_string);
    const std::map<std::string, std::string> of_a(a.metadata.begin(), a.metadata.end());
    const std::map<std::string, std::string> of_b(b.metadata.begin(), b.metadata.end());
    maps("metadata ", of_a, of_b, quoted);
  }

  // ---- Nodes ----

  void nodes() {
    ir::for_each_node(*before_.graph, [&](const Node& n) {
      ++out_.nodes_before;
      ++out_.operators_before[type_of(n)];
    });
    ir::for_each_node(*after_.graph, [&](const Node& n) {
      ++out_.nodes_after;
      ++out_.operators_after[type_of(n)];
    });
    for (const auto& [a, b] : alignment_.pairs) {
      check_interrupt();
      out_.renamed_nodes += a->name == b->name ? 0 : 1;
      NodeChange change{name_of(*a), type_of(*a), {}};
      compare(*a, *b, change.changes);
      if (change.changes.empty()) {
        ++out_.equal_nodes;
      } else {
        out_.changed.push_back(std::move(change));
      }
    }
    for (const Node* n : alignment_.removed) add_all(*n, out_.removed);
    for (const Node* n : alignment_.added) add_all(*n, out_.added);
  }

  static void add_all(const Node& n, std::vector<NodePlace>& out) {
    out.push_back({name_of(n), type_of(n)});
    for (const Graph* g : n.subgraphs())
      ir::for_each_node(*g, [&](const Node& inner) { out.push_back({name_of(inner), type_of(inner)}); });
  }

  void compare(const Node& a, const Node& b, std::vector<Change>& out) {
    const auto say = [&](std::string what, std::string x, std::string y) {
      if (x != y) out.push_back({std::move(what), std::move(x), std::move(y)});
    };
    say("operator", type_of(a), type_of(b));
    std::set<std::string> names;
    for (const ir::Attribute& x : a.attributes) names.insert(x.name);
    for (const ir::Attribute& x : b.attributes) names.insert(x.name);
    for (const std::string& name : names) {
      const ir::Attribute* x = a.attribute(name);
      const ir::Attribute* y = b.attribute(name);
      if (x != nullptr && y != nullptr && is_same(*x, *y, contents_)) continue;
      // Left out, it is what the schema of the other node's opset says.
      if (x == nullptr && is_at_default(a, *y)) continue;
      if (y == nullptr && is_at_default(b, *x)) continue;
      const std::string was = x == nullptr ? default_text(a, name) : text_of(*x);
      const std::string is = y == nullptr ? default_text(b, name) : text_of(*y);
      out.push_back({"attribute " + name, was, was == is ? is + " (other contents)" : is});
    }
    const std::size_t inputs = std::max(a.input_count(), b.input_count());
    for (std::size_t i = 0; i < inputs; ++i) operand(a, b, i, out);
    for (std::size_t i = 0; i < std::max(a.output_count(), b.output_count()); ++i) {
      const Value* x = a.output(i);
      const Value* y = b.output(i);
      if ((x == nullptr) != (y == nullptr)) {
        const Value* one = x == nullptr ? y : x;
        if (one->has_uses()) say("output " + std::to_string(i), x == nullptr ? "(none)" : text_of(x->type),
                                 y == nullptr ? "(none)" : text_of(y->type));
      } else if (x != nullptr) {
        say("output " + (x->name.empty() ? std::to_string(i) : x->name), text_of(x->type), text_of(y->type));
      }
    }
  }

  /// Whether an operand comes from the same place; constants are compared as weights.
  void operand(const Node& a, const Node& b, std::size_t i, std::vector<Change>& out) {
    const Value* x = a.input(i);
    const Value* y = b.input(i);
    if (x == nullptr && y == nullptr) return;
    const auto text = [](const Value* v) -> std::string {
      if (v == nullptr) return "(none)";
      if (v->is_constant()) return "constant " + text_of(*v->constant);
      return v->producer() != nullptr ? fmt::format("{} of {}", type_of(*v->producer()), name_of(*v->producer()))
                                      : v->name;
    };
    const std::string what = "operand " + std::to_string(i);
    if (x == nullptr || y == nullptr || x->is_constant() != y->is_constant()) {
      out.push_back({what, text(x), text(y)});
      return;
    }
    if (x->is_constant()) {
      constants_.emplace_back(x, y);
      return;
    }
    const Node* p = x->producer();
    const Node* q = y->producer();
    if (p == nullptr && q == nullptr) {
      // Inputs of nested graphs have names of their own.
      if (x->name != y->name && x->graph() == before_.graph.get()) out.push_back({what, text(x), text(y)});
      return;
    }
    // Past what only one has, it is said there.
    const auto other = p == nullptr ? alignment_.to_second.end() : alignment_.to_second.find(p);
    const bool p_alone = p != nullptr && other == alignment_.to_second.end();
    const bool q_alone = q != nullptr && !alignment_.to_first.contains(q);
    if (p_alone || q_alone) return;
    if (p == nullptr || q == nullptr || other->second != q || x->output_index() != y->output_index())
      out.push_back({what, text(x), text(y)});
  }

  // ---- Weights ----

  static std::vector<const Value*> constants_of(const Graph& graph) {
    std::vector<const Value*> out;
    const auto add = [&](const Graph& g) {
      for (const Value* v : g.initializers)
        if (v->has_uses()) out.push_back(v);
    };
    add(graph);
    ir::for_each_node(graph, [&](const Node& n) {
      for (const Graph* g : n.subgraphs()) add(*g);
    });
    return out;
  }

  void weights() {
    const auto before = constants_of(*before_.graph);
    const auto after = constants_of(*after_.graph);
    std::unordered_set<const Value*> said_before;
    std::unordered_set<const Value*> said_after;
    for (const auto& [a, b] : constants_) {
      if (!said_before.insert(a).second) continue;
      said_after.insert(b);
      weight(*a, *b);
    }
    // What moved to another operator, or stands twice, is there all the same.
    std::unordered_set<std::uint64_t> held_before;
    std::unordered_set<std::uint64_t> held_after;
    for (const Value* v : before) held_before.insert(contents_.of(*v->constant));
    for (const Value* v : after) held_after.insert(contents_.of(*v->constant));
    for (const Value* v : before)
      if (!said_before.contains(v)) {
        if (held_after.contains(contents_.of(*v->constant))) {
          ++out_.equal_weights;
        } else {
          out_.weights.push_back({v->name, "", {{"removed", text_of(*v->constant), ""}}});
        }
      }
    for (const Value* v : after)
      if (!said_after.contains(v) && !held_before.contains(contents_.of(*v->constant)))
        out_.weights.push_back({"", v->name, {{"added", "", text_of(*v->constant)}}});
  }

  /// How the values of two constants of one type and shape differ.
  std::string values_text(const ir::Tensor& a, const ir::Tensor& b) {
    const char kind = ir::info(a.dtype()).kind;
    const bool is_number = kind == 'f' || kind == 'i' || kind == 'u';
    if (a.source().is_missing() || b.source().is_missing()) return "not compared, for external data are missing";
    if (!is_number || a.size() > left_) return "other values";
    left_ -= a.size();
    double most = 0;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < a.size(); ++i) {
      if (i % 65536 == 0) check_interrupt();
      const double x = a.double_at(i);
      const double y = b.double_at(i);
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      ++count;
      const double difference = std::abs(x - y);
      most = std::isnan(difference) ? INFINITY : std::max(most, difference);
    }
    return fmt::format("{} of {} values differ, by at most {:.3g}", count, a.size(), most);
  }

  void weight(const Value& a, const Value& b) {
    const ir::Tensor& x = *a.constant;
    const ir::Tensor& y = *b.constant;
    WeightChange change{a.name, b.name, {}};
    if (contents_.of(x) != contents_.of(y)) {
      const std::string was = text_of(x);
      const std::string is = text_of(y);
      if (x.dtype() != y.dtype() || x.dims() != y.dims()) {
        change.changes.push_back({"type", was, is});
      } else if (x.size() == 1) {
        change.changes.push_back({"value", was, is == was ? values_text(x, y) : is});
      } else {
        change.changes.push_back({"values", was, values_text(x, y)});
      }
    }
    // Constant nodes' values are called after the nodes.
    change.renamed_only = change.changes.empty();
    if (a.name != b.name && a.is_initializer && b.is_initializer) {
      change.changes.push_back({"name", a.name, b.name});
    }
    if (change.changes.empty()) {
      ++out_.equal_weights;
    } else {
      out_.weights.push_back(std::move(change));
    }
  }

  // ---- Groups of nodes ----

  /// The place of a node among those that only one has.
  std::size_t find(std::size_t i) {
    while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
    return i;
  }

  void join_places(const Node* a, const Node* b) {
    const auto x = places_.find(a);
    const auto y = places_.find(b);
    if (x == places_.end() || y == places_.end()) return;
    const std::size_t i = find(x->second);
    const std::size_t j = find(y->second);
    parents_[std::max(i, j)] = std::min(i, j);
  }

  /// The only reader of a value that one graph alone has.
  const Node* lone_reader(const Value& v) const {
    const Node* found = nullptr;
    for (const ir::Use* use = v.first_use(); use != nullptr; use = use->next) {
      if (!places_.contains(use->user)) continue;
      if (found != nullptr && found != use->user) return nullptr;
      found = use->user;
    }
    return found;
  }

  void replacements() {
    std::vector<const Node*> all(alignment_.removed);
    all.insert(all.end(), alignment_.added.begin(), alignment_.added.end());
    for (const Node* n : all) places_.emplace(n, places_.size());
    parents_.resize(all.size());
    std::iota(parents_.begin(), parents_.end(), std::size_t{0});
    for (const Node* n : all)
      for (std::size_t i = 0; i < n->input_count(); ++i)
        if (n->input(i) != nullptr && n->input(i)->producer() != nullptr) join_places(n, n->input(i)->producer());
    for (const auto& [a, b] : alignment_.pairs) {
      for (std::size_t i = 0; i < std::min(a->input_count(), b->input_count()); ++i)
        if (a->input(i) != nullptr && b->input(i) != nullptr)
          join_places(a->input(i)->producer(), b->input(i)->producer());
      for (std::size_t j = 0; j < std::min(a->output_count(), b->output_count()); ++j)
        if (a->output(j) != nullptr && b->output(j) != nullptr)
          join_places(lone_reader(*a->output(j)), lone_reader(*b->output(j)));
    }
    struct Place {
      Replacement what;
      const Node* first = nullptr;
    };
    std::map<std::size_t, Place> places;
    for (std::size_t i = 0; i < all.size(); ++i) {
      Place& place = places[find(i)];
      if (place.first == nullptr) place.first = all[i];
      auto& list = i < alignment_.removed.size() ? place.what.before : place.what.after;
      list.push_back(type_of(*all[i]));
    }
    std::map<std::pair<std::vector<std::string>, std::vector<std::string>>, std::size_t> index;
    for (auto& [_, place] : places) {
      const auto [it, is_new] =
          index.emplace(std::pair(place.what.before, place.what.after), out_.replacements.size());
      if (is_new) out_.replacements.push_back(std::move(place.what));
      out_.replacements[it->second].places.push_back(name_of(*place.first));
    }
    std::stable_sort(out_.replacements.begin(), out_.replacements.end(), [](const auto& x, const auto& y) {
      return x.places.size() > y.places.size();
    });
  }

  const ir::Model& before_;
  const ir::Model& after_;
  ModelDifference& out_;
  Contents contents_;
  Alignment alignment_;
  std::int64_t left_ = kCompared;
  std::vector<std::pair<const Value*, const Value*>> constants_;  // operands that stand for each other
  std::unordered_map<const Node*, std::size_t> places_;
  std::vector<std::size_t> parents_;
};

}  // namespace

void compare(const ir::Model& before, const ir::Model& after, ModelDifference& out) {
  Comparison(before, after, out).run();
}

}  // namespace onnx2nn::inspect
