#include "inspect/facts.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "inspect/multiply_adds.h"
#include "ops/scope.h"
#include "support/checked.h"
#include "support/interrupt.h"
#include "support/text.h"

namespace onnx2nn::inspect {
namespace {

using ir::Dim;
using ir::Graph;
using ir::Node;
using ir::Value;

// Blocks inside blocks that are told apart.
constexpr std::size_t kDepth = 10;

/// Bytes of a value; unknown where its size is, and for what is no tensor of numbers.
Dim bytes_of(const Value& v) {
  if (!v.type.is_tensor() || !v.type.shape.has_rank()) return Dim::unknown();
  const std::int64_t bits = ir::info(v.type.dtype).bits;
  if (bits == 0) return Dim::unknown();
  const Dim count = v.type.shape.element_count();
  const Dim bytes =
      bits % 8 == 0 ? count * Dim(bits / 8) : Dim::ceil_div(count * Dim(bits), Dim(8));
  return is_said(bytes) ? bytes : Dim::unknown();
}

/// Whether it is never below zero where no size is: what has no elements is no matter here.
bool never_negative(const Dim& d) {
  if (d.never_negative()) return true;
  if (!d.known()) return false;
  std::int64_t least = d.constant_term();
  for (const Dim::Term& term : d.terms()) {
    if (term.coefficient < 0 || __builtin_add_overflow(least, term.coefficient, &least))
      return false;
    for (const Dim::AtomPtr& factor : term.factors)
      if (factor->kind != ir::Atom::Kind::Symbol) return false;
  }
  return least >= 0;
}

/// The largest of sums, where one of them is.
class Largest {
 public:
  void add(const Dim& sum) {
    if (!known_) return;
    if (!sum.known()) {
      known_ = false;
      return;
    }
    for (const Dim& m : most_)
      if (never_negative(m - sum)) return;
    std::erase_if(most_, [&](const Dim& m) { return never_negative(sum - m); });
    most_.push_back(sum);
    // Sums that cannot be compared: no more of them than this are worth a look.
    constexpr std::size_t kMost = 8;
    if (most_.size() > kMost) known_ = false;
  }
  Dim get() const {
    if (!known_ || most_.size() > 1) return Dim::unknown();
    return most_.empty() ? Dim(0) : most_[0];
  }

 private:
  bool known_ = true;
  std::vector<Dim> most_;
};

/// The node of `graph` that uses something, itself or by a graph nested in it.
const Node* user_in(const Graph& graph, const Node* user) {
  while (user != nullptr && user->graph() != &graph) user = user->graph()->parent();
  return user;
}

/// Most bytes of the graph's own values at one time.
Dim peak(const Graph& graph) {
  std::unordered_map<const Node*, std::size_t> order;
  for (const Node* n = graph.first(); n != nullptr; n = n->next()) order.emplace(n, order.size());
  const std::size_t end = order.size();
  // What dies after each node.
  std::vector<std::vector<const Value*>> dying(end);
  const auto born = [&](const Value* v, std::size_t at) {
    std::size_t last = at;
    for (const ir::Use* use = v->first_use(); use != nullptr; use = use->next) {
      const auto it = order.find(user_in(graph, use->user));
      // The graph's outputs stay.
      last = it == order.end() ? end : std::max(last, it->second);
      if (last == end) return;
    }
    if (last < end) dying[last].push_back(v);
  };
  Largest largest;
  Dim live = 0;
  for (const Value* v : graph.inputs) {
    if (v->is_constant() || !v->has_uses()) continue;
    live = live + bytes_of(*v);
    born(v, 0);
  }
  largest.add(live);
  std::size_t at = 0;
  for (const Node* n = graph.first(); n != nullptr; n = n->next(), ++at) {
    check_interrupt();
    for (const Value* v : n->outputs()) {
      if (v == nullptr || v->is_constant()) continue;
      live = live + bytes_of(*v);
      born(v, at);
    }
    largest.add(live);
    for (const Graph* g : n->subgraphs()) largest.add(live + peak(*g));
    for (const Value* v : dying[at]) live = live - bytes_of(*v);
    if (!live.known()) return Dim::unknown();
  }
  return largest.get();
}

/// The module that a node's weights are of, by the first name that is a key: "layer1.0.conv1" of
/// "layer1.0.conv1.weight".
std::string_view module_of_weights(const Node& n) {
  const auto is_step = [](std::string_view part) {
    return !part.empty() && std::all_of(part.begin(), part.end(),
                                        [](char c) { return is_alphanumeric(c) || c == '_'; });
  };
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const Value* v = n.input(i);
    if (v == nullptr || !v->is_initializer) continue;
    const std::string_view name = v->name;
    const auto steps = split(name, '.');
    if (steps.size() < 2 || is_digit(steps.back().front()) ||
        !std::all_of(steps.begin(), steps.end(), is_step))
      continue;
    return name.substr(0, name.rfind('.'));
  }
  return {};
}

class Collector {
 public:
  Collector(Facts& facts, bool has_scopes) : facts_(facts), has_scopes_(has_scopes) {}

  /// often: how many times the graph runs.
  void run(const Graph& graph, const Dim& often) {
    for (const Value* v : graph.initializers) {
      const ir::Tensor& t = *v->constant;
      Weights& w = facts_.weights[std::string(ir::info(t.dtype()).name)];
      ++w.tensors;
      w.elements = checked_add(w.elements, static_cast<std::uint64_t>(t.size()), "parameters");
      w.bytes = checked_add(w.bytes, t.byte_size(), "parameters");
      if (is_parameter(t.dtype()))
        facts_.total.parameters = checked_add(facts_.total.parameters,
                                              static_cast<std::uint64_t>(t.size()), "parameters");
      if (v->is_initializer && !v->has_uses()) facts_.unused_initializers.push_back(v);
    }
    for (const Node* n = graph.first(); n != nullptr; n = n->next()) {
      check_interrupt();
      add(*n, often);
      for (const Graph* g : n->subgraphs()) run(*g, times(often, adds_.runs(*n, *g)));
    }
  }

 private:
  void add(const Node& n, const Dim& often) {
    const bool holds_graphs = !n.subgraphs().empty();
    const Dim once = adds_.of(n);
    facts_.nodes.push_back({&n, once});
    std::uint64_t parameters = 0;
    for (std::size_t i = 0; i < n.input_count(); ++i) {
      const Value* v = n.input(i);
      if (v == nullptr || !v->is_constant() || !is_parameter(v->constant->dtype())) continue;
      if (counted_.insert(v).second) parameters += static_cast<std::uint64_t>(v->constant->size());
    }
    const auto count = [&](Figures& f) {
      ++f.nodes;
      f.parameters += parameters;
      // The nodes of a nested graph count for themselves.
      if (!holds_graphs) f.multiply_adds.add(times(once, often));
      for (const Value* v : n.outputs())
        if (v != nullptr && !v->is_constant() && v->has_uses())
          f.activation_bytes.add(bytes_of(*v));
    };
    const std::uint64_t all = facts_.total.parameters;
    count(facts_.total);
    facts_.total.parameters = all;  // those that no node reads are parameters as well
    count(facts_.by_operator[replace_invalid(n.domain.empty() ? n.op_type
                                                              : n.domain + "::" + n.op_type)]);
    std::string path;
    std::size_t depth = 0;
    const auto enter = [&](std::string_view step, const std::string& type) {
      if (step.empty() || ++depth > kDepth) return;
      const std::size_t outer = path.size();
      if (!path.empty()) path += '.';
      path += step;
      const auto [it, is_new] = blocks_.emplace(path, facts_.blocks.size());
      if (is_new) facts_.blocks.push_back({path, outer, depth, type, {}});
      count(facts_.blocks[it->second].figures);
    };
    if (const auto scope = ops::scope_of(n)) {
      for (const torch::ScopeStep& step : *scope) enter(step.path, step.type);
    } else if (!has_scopes_) {
      for (const std::string_view step : split(module_of_weights(n), '.')) enter(step, "");
    }
  }

  Facts& facts_;
  bool has_scopes_;
  MultiplyAdds adds_;
  std::unordered_set<const Value*> counted_;
  std::unordered_map<std::string, std::size_t> blocks_;
};

/// Blocks, each before those inside it, which stand together.
void put_in_order(std::vector<BlockFigures>& blocks) {
  std::unordered_map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < blocks.size(); ++i) index.emplace(blocks[i].path, i);
  std::vector<std::vector<std::size_t>> inside(blocks.size());
  std::vector<std::size_t> todo;  // the next one last
  for (std::size_t i = blocks.size(); i-- > 0;) {
    const BlockFigures& b = blocks[i];
    const auto it =
        b.outer == 0 ? index.end() : index.find(std::string_view(b.path).substr(0, b.outer));
    (it == index.end() ? todo : inside[it->second]).push_back(i);
  }
  std::vector<BlockFigures> out;
  out.reserve(blocks.size());
  while (!todo.empty()) {
    const std::size_t i = todo.back();
    todo.pop_back();
    todo.insert(todo.end(), inside[i].begin(), inside[i].end());
    out.push_back(std::move(blocks[i]));
  }
  blocks = std::move(out);
}

}  // namespace

void Count::add(const Dim& part) {
  const Dim sum = known + part;
  if (is_said(part) && sum.known()) {
    known = sum;
  } else {
    ++unknown;
  }
}

bool is_parameter(ir::DType dtype) {
  const ir::DTypeInfo& info = ir::info(dtype);
  return info.kind == 'f' || info.kind == 'c' ||
         (ir::is_integer(dtype) && info.bits > 0 && info.bits <= 8);
}

Facts facts_of(const Graph& graph) {
  Facts facts;
  bool has_scopes = false;
  ir::for_each_node(graph,
                    [&](const Node& n) { has_scopes = has_scopes || ops::scope_of(n) != nullptr; });
  Collector(facts, has_scopes).run(graph, 1);
  put_in_order(facts.blocks);
  facts.peak_bytes = peak(graph);
  for (const Value* v : graph.inputs)
    if (!v->has_uses() && !v->is_constant()) facts.unused_inputs.push_back(v);
  return facts;
}

}  // namespace onnx2nn::inspect
