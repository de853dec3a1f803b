// Branches whose condition is known, and loops whose trips are.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// A node before `before` that takes over everything of `n` but its inputs and the names of its
/// outputs.
ir::Node* take_over(ir::Node& n, std::span<ir::Value* const> inputs,
                    std::span<const std::string> names, ir::Node& before) {
  ir::Node* copy = before.graph()->add_node(n.op_type, n.domain, inputs, names, &before);
  copy->name = n.name;
  copy->overload = n.overload;
  copy->opset = n.opset;
  copy->op = n.op;
  copy->metadata = n.metadata;
  copy->doc_string = n.doc_string;
  copy->attributes = std::move(n.attributes);
  n.attributes.clear();
  for (ir::Graph* g : copy->subgraphs()) g->set_parent(copy);
  return copy;
}

void move_body(Rewriter& w, ir::Graph& body, ir::Node& before) {
  ir::Graph& outer = *before.graph();
  const std::vector<ir::Value*> initializers = body.initializers;
  for (ir::Value* v : initializers)
    if (v->constant)
      v->replace_all_uses(outer.add_initializer(v->name, v->constant, v->is_initializer));
  for (ir::Node* n = body.first(); n != nullptr; n = n->next()) {
    std::vector<ir::Value*> inputs;
    for (std::size_t i = 0; i < n->input_count(); ++i) inputs.push_back(n->input(i));
    std::vector<std::string> names;
    // An absent output stays absent; one without a name gets one.
    for (const ir::Value* v : n->outputs())
      names.push_back(v == nullptr ? "" : v->name.empty() ? w.model().new_name("value") : v->name);
    ir::Node* copy = take_over(*n, inputs, names, before);
    for (std::size_t i = 0; i < n->output_count(); ++i) {
      ir::Value* v = n->output(i);
      if (v == nullptr) continue;
      copy->output(i)->type = v->type;
      copy->output(i)->contents = v->contents;
      copy->output(i)->declared = v->declared;
      v->replace_all_uses(copy->output(i));
    }
    w.push(copy);
  }
}

// If({true}) then { Add(x, y) } else { ... } -> z   =>   Add(x, y) -> z
bool inline_if(Rewriter& w, ir::Node& n) {
  const ir::TensorPtr condition = n.input(0) != nullptr ? n.input(0)->constant : nullptr;
  if (!condition || condition->size() != 1 || condition->dtype() != ir::DType::Bool) return false;
  const ir::Attribute* a = n.attribute(condition->int_at(0) != 0 ? "then_branch" : "else_branch");
  const auto* body = a != nullptr ? std::get_if<std::unique_ptr<ir::Graph>>(&a->data) : nullptr;
  if (body == nullptr || (*body)->output_count() < n.output_count()) return false;
  for (std::size_t i = 0; i < n.output_count(); ++i)
    if (n.output(i) != nullptr && !compatible((*body)->output(i), n.output(i))) return false;
  move_body(w, **body, n);
  for (std::size_t i = 0; i < n.output_count(); ++i)
    if (n.output(i) != nullptr) w.replace(n.output(i), (*body)->output(i));
  return true;
}

ir::Value* scalar(Rewriter& w, ir::Graph& g, const ir::Value& like, ir::DType dtype, bool value) {
  // The specification lets both be scalars or of one element.
  const std::size_t rank = like.type.shape.has_rank() ? like.type.shape.rank() : 0;
  const Ints dims(rank, 1);
  return w.constant(
      g, like.name,
      dtype == ir::DType::Bool
          ? ir::Tensor::from<std::uint8_t>(dtype, dims, {static_cast<std::uint8_t>(value)})
          : ir::Tensor::from<std::int64_t>(dtype, dims, {static_cast<std::int64_t>(value)}));
}

/// The body of a Loop that runs once: as its first trip sees it.
bool inline_trip(Rewriter& w, ir::Node& n, ir::Graph& body, std::size_t carried) {
  ir::Graph& outer = *n.graph();
  for (std::size_t i = 0; i < carried; ++i)
    if (n.input(i + 2) == nullptr || !compatible(body.inputs[i + 2], n.input(i + 2))) return false;
  // What is gathered over the trips gets the dimension of trips.
  const bool axes_are_input = n.opset >= 13;
  ir::Value* axes = nullptr;
  body.inputs[0]->replace_all_uses(scalar(w, outer, *body.inputs[0], ir::DType::Int64, false));
  body.inputs[1]->replace_all_uses(scalar(w, outer, *body.inputs[1], ir::DType::Bool, true));
  for (std::size_t i = 0; i < carried; ++i)
    body.inputs[i + 2]->replace_all_uses(n.input(i + 2));
  move_body(w, body, n);
  for (std::size_t i = 0; i < n.output_count(); ++i) {
    if (n.output(i) == nullptr || !n.output(i)->has_uses()) continue;
    ir::Value* result = body.output(i + 1);
    if (i >= carried) {
      if (axes_are_input && axes == nullptr)
        axes = w.constant(outer, "axes", ir::Tensor::ints({0}));
      std::vector<ir::Value*> inputs = {result};
      if (axes_are_input) inputs.push_back(axes);
      ir::Node* stacked = w.add("Unsqueeze", inputs, *n.output(i), n);
      if (!axes_are_input) set_attr(*stacked, "axes", Ints{0});
      result = stacked->output(0);
    }
    w.replace(n.output(i), result);
  }
  return true;
}

// Loop({1}, {true}, x) { y = Relu(x) } -> z   =>   Relu(x) -> z
// Loop({0}, , x) { ... } -> z   =>   x for z
bool unroll_loop(Rewriter& w, ir::Node& n) {
  const ir::Attribute* a = n.attribute("body");
  const auto* body = a != nullptr ? std::get_if<std::unique_ptr<ir::Graph>>(&a->data) : nullptr;
  if (body == nullptr || n.input_count() < 2 || (*body)->inputs.size() != n.input_count() ||
      (*body)->output_count() != n.output_count() + 1 ||
      n.output_count() + 2 < n.input_count())
    return false;
  const std::size_t carried = n.input_count() - 2;
  const auto known = [](const ir::Value* v) -> std::optional<std::int64_t> {
    if (v == nullptr || !v->constant || v->constant->size() != 1) return std::nullopt;
    return v->constant->int_at(0);
  };
  const auto trips = known(n.input(0));
  const auto goes = n.input(1) == nullptr ? std::optional<std::int64_t>(1) : known(n.input(1));
  const auto goes_on = known((*body)->output(0));
  if ((trips && *trips <= 0) || (goes && *goes == 0)) {
    if (n.output_count() != carried) return false;  // no type says how what is empty looks
    for (std::size_t i = 0; i < carried; ++i)
      if (n.input(i + 2) == nullptr ||
          (n.output(i) != nullptr && !compatible(n.output(i), n.input(i + 2))))
        return false;
    for (std::size_t i = 0; i < carried; ++i)
      if (n.output(i) != nullptr) w.replace(n.output(i), n.input(i + 2));
    return true;
  }
  if (!goes || !(trips ? *trips == 1 || goes_on == 0 : n.input(0) == nullptr && goes_on == 0))
    return false;
  return inline_trip(w, n, **body, carried);
}

/// Leaves out what is `dropped`, of a list whose first `skip` elements are before what that counts.
template <typename T>
void drop(std::vector<T>& list, const std::vector<bool>& dropped, std::size_t skip = 0) {
  std::vector<T> kept;
  for (std::size_t i = 0; i < list.size(); ++i)
    if (i < skip || i - skip >= dropped.size() || !dropped[i - skip])
      kept.push_back(std::move(list[i]));
  list = std::move(kept);
}

void drop_graph_outputs(Rewriter& w, ir::Graph& g, const std::vector<bool>& dropped,
                        std::size_t skip = 0) {
  std::vector<ir::Value*> kept;
  for (std::size_t i = 0; i < g.output_count(); ++i) kept.push_back(g.output(i));
  drop(kept, dropped, skip);
  w.set_inputs(*g.return_node(), kept);
  drop(g.output_names, dropped, skip);
  drop(g.output_types, dropped, skip);
  drop(g.output_infos, dropped, skip);
}

/// `n` on `inputs`, without the outputs that are in `dropped`.
void drop_outputs(Rewriter& w, ir::Node& n, std::span<ir::Value* const> inputs,
                  const std::vector<bool>& dropped) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < n.output_count(); ++i)
    if (!dropped[i]) {
      const ir::Value* v = n.output(i);
      names.push_back(v == nullptr ? "" : v->name.empty() ? w.model().new_name("value") : v->name);
    }
  ir::Node* made = take_over(n, inputs, names, n);
  std::size_t at = 0;
  for (std::size_t i = 0; i < n.output_count(); ++i) {
    if (dropped[i]) continue;
    if (n.output(i) != nullptr) w.replace(n.output(i), made->output(at));
    ++at;
  }
  w.push(made);
  w.erase(n);
}

/// Which of the carried values of a Loop whose `used` are wanted are needed for them, or to know
/// when it ends.
std::vector<bool> needed_carried(const ir::Graph& body, const std::vector<bool>& used,
                                 std::size_t carried) {
  std::vector<bool> needed(carried, false);
  std::unordered_map<const ir::Value*, std::size_t> carried_at;
  for (std::size_t i = 0; i < carried; ++i) carried_at.emplace(body.inputs[i + 2], i);
  std::unordered_set<const ir::Value*> seen;
  std::vector<const ir::Value*> work = {body.output(0)};
  for (std::size_t i = 0; i < used.size(); ++i)
    if (used[i]) work.push_back(body.output(i + 1));
  while (!work.empty()) {
    const ir::Value* v = work.back();
    work.pop_back();
    // What nested graphs hold themselves is looked through as a whole.
    if (v == nullptr || v->graph() != &body || !seen.insert(v).second) continue;
    const ir::Node* n = v->producer();
    if (const auto it = carried_at.find(v); n == nullptr && it != carried_at.end()) {
      needed[it->second] = true;
      work.push_back(body.output(it->second + 1));
    }
    if (n == nullptr) continue;
    for (std::size_t i = 0; i < n->input_count(); ++i) work.push_back(n->input(i));
    for (const ir::Graph* g : n->subgraphs()) {
      ir::for_each_node(*g, [&](const ir::Node& inner) {
        for (std::size_t i = 0; i < inner.input_count(); ++i) work.push_back(inner.input(i));
        for (const ir::Graph* nested : inner.subgraphs())
          for (std::size_t i = 0; i < nested->output_count(); ++i)
            work.push_back(nested->output(i));
      });
      for (std::size_t i = 0; i < g->output_count(); ++i) work.push_back(g->output(i));
    }
  }
  for (std::size_t i = 0; i < carried; ++i) needed[i] = needed[i] || used[i];
  return needed;
}

bool drop_of_loop(Rewriter& w, ir::Node& n, ir::Graph& body, const std::vector<bool>& used) {
  if (n.input_count() < 2 || body.inputs.size() != n.input_count() ||
      body.output_count() != n.output_count() + 1 || n.output_count() + 2 < n.input_count())
    return false;
  const std::size_t carried = n.input_count() - 2;
  const std::vector<bool> needed = needed_carried(body, used, carried);
  std::vector<bool> dropped(n.output_count());
  for (std::size_t i = 0; i < dropped.size(); ++i) dropped[i] = i < carried ? !needed[i] : !used[i];
  if (std::find(dropped.begin(), dropped.end(), true) == dropped.end() ||
      std::find(dropped.begin(), dropped.end(), false) == dropped.end())
    return false;
  std::vector<ir::Value*> inputs = {n.input(0), n.input(1)};
  for (std::size_t i = 0; i < carried; ++i)
    if (!dropped[i]) inputs.push_back(n.input(i + 2));
  drop_graph_outputs(w, body, dropped, 1);
  const std::vector<bool> not_carried(dropped.begin(),
                                      dropped.begin() + static_cast<std::ptrdiff_t>(carried));
  drop(body.inputs, not_carried, 2);
  drop(body.input_infos, not_carried, 2);
  drop_outputs(w, n, inputs, dropped);
  return true;
}

bool drop_of_branches(Rewriter& w, ir::Node& n, const std::vector<bool>& used) {
  const auto branches = n.subgraphs();
  for (const ir::Graph* g : branches)
    if (g->output_count() != n.output_count()) return false;
  std::vector<bool> dropped(used);
  dropped.flip();
  for (ir::Graph* g : branches) drop_graph_outputs(w, *g, dropped);
  ir::Value* const inputs[] = {n.input(0)};
  drop_outputs(w, n, inputs, dropped);
  return true;
}

// a, b = If(c) <then () => (x, y) { ... }, ...>, b unused   =>   a = If(c) <then () => (x) { ... }, ...>
// Loop alike, with the carried values that only lead to themselves.
bool remove_unused_outputs(Rewriter& w, ir::Node& n) {
  std::vector<bool> used;
  for (const ir::Value* v : n.outputs()) used.push_back(v != nullptr && v->has_uses());
  if (std::find(used.begin(), used.end(), false) == used.end() ||
      std::find(used.begin(), used.end(), true) == used.end())
    return false;
  if (n.is("If")) return drop_of_branches(w, n, used);
  const ir::Attribute* a = n.attribute("body");
  const auto* body = a != nullptr ? std::get_if<std::unique_ptr<ir::Graph>>(&a->data) : nullptr;
  return body != nullptr && drop_of_loop(w, n, **body, used);
}

}  // namespace

std::span<const Rule> control_flow_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "inline-if",
       .what = "an If whose condition is known becomes its branch",
       .apply = inline_if,
       .ops = {"If"},
       .in_conversion = true},
      {.name = "unroll-loop",
       .what = "a Loop that runs once becomes its body",
       .apply = unroll_loop,
       .ops = {"Loop"},
       .in_conversion = true},
      {.name = "remove-unused-outputs",
       .what = "what If and Loop compute that nobody reads",
       .apply = remove_unused_outputs,
       .ops = {"If", "Loop"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
