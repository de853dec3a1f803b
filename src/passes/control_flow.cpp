// Branches whose condition is known.
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

}  // namespace

std::span<const Rule> control_flow_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "inline-if",
       .what = "an If whose condition is known becomes its branch",
       .apply = inline_if,
       .ops = {"If"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
