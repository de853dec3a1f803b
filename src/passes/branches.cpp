#include "passes/branches.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "ops/torch_forms.h"
#include "passes/passes.h"
#include "support/error.h"

namespace onnx2nn::passes {
namespace {

using Values = std::unordered_map<const ir::Value*, ir::Value*>;

/// An input that one branch alone reads, and the axis along which it joins what is new to it.
struct Cache {
  ir::Value* input = nullptr;
  std::int64_t axis = 0;
};

/// An input that one branch alone reads, as it is, and the output that is computed of it in the other:
/// keys or values of an encoder's states.
struct Given {
  ir::Value* input = nullptr;
  std::size_t output = 0;
};

struct Branches {
  ir::Graph* with = nullptr;  // caches
  ir::Graph* without = nullptr;
  bool with_if_true = true;
  std::vector<Cache> caches;  // in the order of the model's inputs
  std::vector<Given> given;   // the same
};

ir::Graph* branch(const ir::Node& n, std::string_view name) {
  const ir::Attribute* a = n.attribute(name);
  const auto* graph = a != nullptr ? std::get_if<std::unique_ptr<ir::Graph>>(&a->data) : nullptr;
  return graph != nullptr ? graph->get() : nullptr;
}

/// The model's inputs that a branch reads; nothing where it has graphs inside.
std::optional<std::unordered_set<const ir::Value*>> inputs_read(const ir::Graph& g) {
  std::unordered_set<const ir::Value*> out;
  const auto read = [&](const ir::Node& n) {
    for (std::size_t i = 0; i < n.input_count(); ++i)
      if (n.input(i) != nullptr && n.input(i)->is_graph_input && n.input(i)->graph() != &g)
        out.insert(n.input(i));
  };
  for (const ir::Node* n = g.first(); n != nullptr; n = n->next()) {
    if (!n->subgraphs().empty()) return std::nullopt;
    read(*n);
  }
  read(*g.return_node());
  return out;
}

bool is_joined(const ir::Value& input, const ir::Graph& branch) {
  for (const ir::Use* u = input.first_use(); u != nullptr; u = u->next)
    if (u->user->graph() == &branch && u->user->is("Concat")) return true;
  return false;
}

/// The axis of the joins that a branch makes of an input with something; nothing where several
/// differ, or the size there is fixed.
std::optional<std::int64_t> joined_axis(const ir::Value& input, const ir::Graph& branch) {
  const ir::Shape& s = input.type.shape;
  const bool real = ir::info(input.type.dtype).kind == 'f';
  if (!input.type.is_tensor() || !real || !s.has_rank()) return std::nullopt;
  const auto rank = static_cast<std::int64_t>(s.rank());
  std::optional<std::int64_t> axis;
  for (const ir::Use* u = input.first_use(); u != nullptr; u = u->next) {
    if (u->user->graph() != &branch || !u->user->is("Concat")) continue;
    const ir::Attribute* a = u->user->attribute("axis");
    const auto* given = a != nullptr ? std::get_if<std::int64_t>(&a->data) : nullptr;
    if (given == nullptr || *given < -rank || *given >= rank) return std::nullopt;
    const std::int64_t at = *given < 0 ? *given + rank : *given;
    if (axis && *axis != at) return std::nullopt;
    axis = at;
  }
  if (axis && s[static_cast<std::size_t>(*axis)].is_const()) return std::nullopt;
  return axis;
}

/// What `v` is, whatever names it has been given.
const ir::Value* original(const ir::Value* v) {
  while (v != nullptr && v->producer() != nullptr && v->producer()->is("Identity"))
    v = v->producer()->input(0);
  return v;
}

/// Whether a branch gives out what it does not compute: a constant, or one of the inputs as it is.
bool is_handed_on(const ir::Value* v, const std::vector<ir::Value*>& inputs) {
  v = original(v);
  return v != nullptr && (v->constant || std::find(inputs.begin(), inputs.end(), v) != inputs.end());
}

/// Pairs inputs that are read as they are with the outputs that are not computed where they are, in
/// their order: whether that is right is part of the proof. False where these are not as many.
bool pair_given(Branches& b, const std::vector<ir::Value*>& inputs) {
  for (std::size_t i = 0; i < b.with->output_count(); ++i) {
    if (!is_handed_on(b.with->output(i), inputs)) continue;
    if (b.given.size() == inputs.size()) return false;
    b.given.push_back({inputs[b.given.size()], i});
  }
  return b.given.size() == inputs.size();
}

std::optional<Branches> branches_of(const ir::Node& n) {
  const ir::Value* condition = n.input(0);
  Branches b{branch(n, "then_branch"), branch(n, "else_branch"), true, {}, {}};
  if (!n.is("If") || n.unsound || condition == nullptr || !condition->is_graph_input ||
      condition->constant || b.with == nullptr || b.without == nullptr)
    return std::nullopt;
  auto read = inputs_read(*b.with);
  auto other = inputs_read(*b.without);
  if (!read || !other || b.with->output_count() != n.output_count() ||
      b.without->output_count() != n.output_count())
    return std::nullopt;
  if (other->size() > read->size()) {
    std::swap(read, other);
    std::swap(b.with, b.without);
    b.with_if_true = false;
  }
  std::vector<ir::Value*> unjoined;
  for (ir::Value* input : n.graph()->inputs) {
    if (read->count(input) == 0 || other->count(input) != 0) continue;
    if (!is_joined(*input, *b.with)) {
      unjoined.push_back(input);
      continue;
    }
    const std::optional<std::int64_t> axis = joined_axis(*input, *b.with);
    if (!axis) return std::nullopt;
    b.caches.push_back({input, *axis});
  }
  const bool all = std::all_of(other->begin(), other->end(),
                               [&](const ir::Value* v) { return read->count(v) != 0; });
  if (b.caches.empty() || (unjoined.empty() && !all)) return std::nullopt;
  if (!unjoined.empty() && !pair_given(b, unjoined)) return std::nullopt;
  return b;
}

// ---------------------------------------------------------------- the proof

void copy_attribute(const ir::Attribute& a, ir::Node& to) {
  std::visit(
      [&](const auto& data) {
        using Data = std::decay_t<decltype(data)>;
        if constexpr (std::is_copy_constructible_v<Data> && !std::is_same_v<Data, ir::Attribute::Graphs>)
          to.attributes.push_back({a.name, data});
      },
      a.data);
}

/// What stands in `trial` for a value of the model: a constant as it is, or an input.
ir::Value* outer_value(ir::Value* v, ir::Graph& trial, Values& outer) {
  if (v == nullptr) return nullptr;
  const auto [it, added] = outer.emplace(v, nullptr);
  if (!added) return it->second;
  if (v->constant && !v->is_graph_input) {
    it->second = trial.add_initializer(v->name, v->constant, v->is_initializer);
  } else {
    it->second = trial.new_value(v->name);
    it->second->type = v->type;
    it->second->is_graph_input = true;
    trial.inputs.push_back(it->second);
  }
  return it->second;
}

/// A copy of a node, whose outputs have names of their own, at the end of `to`; `inner` gets what
/// stands for them.
ir::Node* copy_node(const ir::Node& n, std::span<ir::Value* const> inputs, ir::Graph& to,
                    Values& inner) {
  std::vector<std::string> names;
  for (const ir::Value* v : n.outputs())
    names.push_back(v == nullptr ? "" : to.model()->new_name("value"));
  ir::Node* copy = to.add_node(n.op_type, n.domain, inputs, names);
  copy->overload = n.overload;
  copy->opset = n.opset;
  copy->op = n.op;
  for (const ir::Attribute& a : n.attributes) copy_attribute(a, *copy);
  for (std::size_t i = 0; i < n.output_count(); ++i)
    if (n.output(i) != nullptr) inner[n.output(i)] = copy->output(i);
  return copy;
}

/// The branch's nodes at the end of `trial`, and its results as outputs of that. given: what stands
/// for values of the model within this branch; outer: within both.
void append(const ir::Graph& branch, const Values& given, ir::Graph& trial, Values& outer) {
  Values inner = given;
  for (ir::Value* v : branch.initializers)
    if (v->constant) inner[v] = trial.add_initializer(v->name, v->constant, v->is_initializer);
  const auto of = [&](ir::Value* v) {
    const auto it = inner.find(v);
    return it != inner.end() ? it->second : outer_value(v, trial, outer);
  };
  for (const ir::Node* n = branch.first(); n != nullptr; n = n->next()) {
    std::vector<ir::Value*> inputs;
    for (std::size_t i = 0; i < n->input_count(); ++i) inputs.push_back(of(n->input(i)));
    copy_node(*n, inputs, trial, inner);
  }
  for (std::size_t i = 0; i < branch.output_count(); ++i)
    trial.add_output(of(branch.output(i)), trial.model()->new_name("result"), {});
}

/// `cache` without an element.
ir::Value* emptied(const Cache& cache, ir::Graph& trial, Values& outer) {
  const auto ints = [&](std::int64_t value) {
    return trial.add_initializer("", ir::Tensor::ints({value}), false);
  };
  ir::Value* const inputs[] = {outer_value(cache.input, trial, outer), ints(0), ints(0),
                               ints(cache.axis)};
  const std::vector<std::string> names{trial.model()->new_name("empty")};
  ir::Node* slice = trial.add_node("Slice", "", inputs, names);
  slice->opset = 13;
  slice->op = ops::find_op("", "Slice");
  return slice->output(0);
}

bool are_equal(const Branches& b, const ir::Model& model) {
  ir::Model trial;
  trial.info.opsets = model.info.opsets;
  trial.budget().add_listed_nodes(b.with->node_count() + b.without->node_count());
  Values outer;
  Values given;
  for (const Cache& cache : b.caches) given[cache.input] = emptied(cache, *trial.graph, outer);
  append(*b.without, {}, *trial.graph, outer);
  for (const Given& g : b.given) given[g.input] = trial.graph->output(g.output);
  append(*b.with, given, *trial.graph, outer);
  Options options;
  // All but those that compute weights.
  for (const RuleInfo& rule : rules())
    if (!rule.name.starts_with("fuse-") && rule.name != "collapse-factors")
      options.also.emplace(rule.name);
  Diagnostics found;
  std::map<std::string, std::size_t> counts;
  try {
    simplify(trial, options, found, counts);
  } catch (const Error&) {
    return false;  // the conversion says what is wrong with the model
  }
  if (!found.list().empty()) return false;
  const std::size_t count = b.with->output_count();
  std::vector<bool> is_given(count);
  for (const Given& g : b.given) is_given[g.output] = true;
  for (std::size_t i = 0; i < count; ++i)
    if (trial.graph->output(i) == nullptr ||
        (!is_given[i] && trial.graph->output(i) != trial.graph->output(count + i)))
      return false;
  return true;
}

// ---------------------------------------------------------------- the one function

/// Optimum gives the mask of the branch without caches, which is as long as the new tokens; with
/// caches it is as long as all tokens.
void free_mask(ir::Model& model) {
  for (ir::Value* v : model.graph->inputs) {
    ir::Shape& s = v->type.shape;
    if (v->name == "attention_mask" && v->type.is_tensor() && s.has_rank() && s.rank() == 2 &&
        !s[1].is_const())
      s.dims()[1] = ir::Dim::symbol(model.info.add_symbol("total_sequence_length"));
  }
}

/// Keys and values that nobody reads have any length, whatever the file says: Optimum gives one.
void free_given(ir::Model& model, const Branches& b) {
  std::map<std::string, std::string> lengths;
  for (const Given& g : b.given) {
    ir::Shape& shape = g.input->type.shape;
    if (!g.input->type.is_tensor() || !shape.has_rank()) continue;
    std::vector<ir::Dim>& dims = shape.dims();
    for (std::size_t i = 1; i < dims.size(); ++i) {
      const auto symbol = dims[i].symbol_name();
      if (!symbol) continue;
      const auto [it, added] = lengths.emplace(*symbol, "");
      if (added) {
        const auto name = model.info.symbols.find(*symbol);
        it->second = model.info.add_symbol(
            "past_" + (name != model.info.symbols.end() ? name->second : *symbol));
      }
      dims[i] = ir::Dim::symbol(it->second);
    }
  }
}

ir::Graph& add_body(ir::Node& n, std::string_view name) {
  auto body = std::make_unique<ir::Graph>(n.graph()->model(), &n);
  ir::Graph& out = *body;
  n.attributes.push_back({std::string(name), std::move(body)});
  return out;
}

/// What a branch computes some of its outputs of, in `to`, with the nodes' names; gives these.
std::vector<ir::Value*> copy_computation(const ir::Graph& branch, std::span<const Given> outputs,
                                         ir::Graph& to) {
  std::unordered_set<const ir::Node*> needed;
  std::vector<const ir::Value*> open;
  for (const Given& g : outputs) open.push_back(branch.output(g.output));
  while (!open.empty()) {
    const ir::Node* n = open.back() != nullptr ? open.back()->producer() : nullptr;
    open.pop_back();
    if (n == nullptr || n->graph() != &branch || !needed.insert(n).second) continue;
    for (std::size_t i = 0; i < n->input_count(); ++i) open.push_back(n->input(i));
  }
  Values inner;
  const auto of = [&](ir::Value* v) {
    const auto it = inner.find(v);
    if (it != inner.end()) return it->second;
    if (v != nullptr && v->graph() == &branch && v->constant)
      return inner[v] = to.add_initializer(v->name, v->constant, v->is_initializer);
    return v;
  };
  for (const ir::Node* n = branch.first(); n != nullptr; n = n->next()) {
    if (needed.count(n) == 0) continue;
    std::vector<ir::Value*> inputs;
    for (std::size_t i = 0; i < n->input_count(); ++i) inputs.push_back(of(n->input(i)));
    ir::Node* copy = copy_node(*n, inputs, to, inner);
    copy->name = n->name;
    copy->metadata = n->metadata;
  }
  std::vector<ir::Value*> out;
  for (const Given& g : outputs) out.push_back(of(branch.output(g.output)));
  return out;
}

/// Where the branch with caches reads keys and values that are given, it reads them or what the other
/// computes: a branch for each attention, whose keys and values stand one after the other.
void join_given(ir::Model& model, ir::Node& n, const Branches& b) {
  constexpr std::size_t kKeyAndValue = 2;
  for (std::size_t at = 0; at < b.given.size(); at += kKeyAndValue) {
    const auto pair = std::span(b.given).subspan(at, std::min(kKeyAndValue, b.given.size() - at));
    std::vector<std::string> names;
    for (const Given& g : pair) names.push_back(model.new_name(g.input->name));
    // Then what is given out, where that is not what is read.
    std::vector<std::size_t> given_out;
    for (std::size_t i = 0; i < pair.size(); ++i) {
      const bool same = original(b.with->output(pair[i].output)) == pair[i].input;
      given_out.push_back(same ? i : names.size());
      if (!same) names.push_back(model.new_name("present"));
    }
    ir::Value* const condition[] = {n.input(0)};
    ir::Node* choice = n.graph()->add_node("If", "", condition, names, &n);
    choice->opset = n.opset;
    choice->op = n.op;
    if (const ir::Node* last = b.without->output(pair[0].output)->producer(); last != nullptr) {
      choice->name = last->name;
      choice->metadata = last->metadata;
    }
    ir::Graph& with = add_body(*choice, b.with_if_true ? "then_branch" : "else_branch");
    ir::Graph& without = add_body(*choice, b.with_if_true ? "else_branch" : "then_branch");
    const std::vector<ir::Value*> kept = copy_computation(*b.with, pair, with);
    const std::vector<ir::Value*> computed = copy_computation(*b.without, pair, without);
    const auto add = [&](std::size_t i, ir::Value* in_with) {
      with.add_output(in_with, model.new_name("given"), {});
      without.add_output(computed[i], model.new_name("computed"), {});
    };
    for (std::size_t i = 0; i < pair.size(); ++i) add(i, pair[i].input);
    for (std::size_t i = 0; i < pair.size(); ++i)
      if (given_out[i] != i) add(i, kept[i]);
    for (std::size_t i = 0; i < pair.size(); ++i) {
      for (ir::Use* u : pair[i].input->uses())
        if (u->user->graph() == b.with) u->user->set_input(u->index, choice->output(i));
      b.with->return_node()->set_input(pair[i].output, choice->output(given_out[i]));
    }
  }
}

void join(ir::Model& model, ir::Node& n, const Branches& b) {
  // Caches along one axis go through one node.
  std::map<std::int64_t, std::vector<ir::Value*>> by_axis;
  for (const Cache& cache : b.caches) by_axis[cache.axis].push_back(cache.input);
  for (auto& [axis, caches] : by_axis) {
    std::vector<ir::Value*> inputs{n.input(0)};
    std::vector<std::string> names;
    for (ir::Value* cache : caches) {
      inputs.push_back(cache);
      names.push_back(model.new_name(cache->name));
    }
    ir::Node* kept = n.graph()->add_node("KeepIf", std::string(ops::kTorchDomain), inputs, names, &n);
    kept->opset = 1;
    kept->op = &ops::torch_form("KeepIf");
    kept->attributes.push_back({"axis", axis});
    kept->attributes.push_back({"negated", std::int64_t{b.with_if_true ? 0 : 1}});
    for (std::size_t i = 0; i < caches.size(); ++i)
      for (ir::Use* u : caches[i]->uses())
        if (u->user->graph() == b.with) u->user->set_input(u->index, kept->output(i));
  }
  free_given(model, b);
  join_given(model, n, b);
  const std::vector<std::int64_t> none;
  n.set_input(0, n.graph()->add_initializer(
                     "", ir::Tensor::from<std::uint8_t>(ir::DType::Bool, none,
                                                        {static_cast<std::uint8_t>(b.with_if_true)}),
                     false));
}

}  // namespace

void join_branches(ir::Model& model) {
  for (ir::Node* n = model.graph->first(); n != nullptr; n = n->next()) {
    const std::optional<Branches> b = branches_of(*n);
    if (!b) continue;
    free_mask(model);
    if (are_equal(*b, model)) join(model, *n, *b);
    return;  // no model has two, and each costs a simplification
  }
}

}  // namespace onnx2nn::passes
