// Branches whose condition is known, and loops whose trips are.
#include <unordered_map>

#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

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
    ir::Node* copy = outer.add_node(n->op_type, n->domain, inputs, names, &before);
    copy->name = n->name;
    copy->overload = n->overload;
    copy->opset = n->opset;
    copy->op = n->op;
    copy->metadata = n->metadata;
    copy->doc_string = n->doc_string;
    copy->attributes = std::move(n->attributes);
    n->attributes.clear();
    for (ir::Graph* g : copy->subgraphs()) g->set_parent(copy);
    for (std::size_t i = 0; i < n->output_count(); ++i) {
      ir::Value* v = n->output(i);
      if (v == nullptr) continue;
      copy->output(i)->type = v->type;
      copy->output(i)->contents = v->contents;
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
  };
  return kRules;
}

}  // namespace onnx2nn::passes
