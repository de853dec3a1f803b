#include "ops/operands.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "ops/context.h"
#include "ops/onnx_schemas.h"

namespace onnx2nn::ops {
namespace {

void refuse(const ir::Node& node, const std::string& message, Diagnostics& diagnostics) {
  diagnostics.add(diagnose(node, Error("bad-model", message)));
}

/// `what` is "input" or "output", `get` gives one by its number.
template <typename Get>
void check(const ir::Node& node, std::uint32_t needed, std::int32_t most, std::size_t count,
           const std::string& what, const Get& get, Diagnostics& diagnostics) {
  for (; needed != 0; needed &= needed - 1) {
    const auto i = static_cast<std::size_t>(std::countr_zero(needed));
    if (i >= count || get(i) == nullptr)
      return refuse(node, what + " " + std::to_string(i) + " is missing", diagnostics);
  }
  while (count > 0 && get(count - 1) == nullptr) --count;
  if (count > static_cast<std::size_t>(most))
    refuse(node,
           "has " + std::to_string(count) + " " + what + "s where there can be " +
               std::to_string(most),
           diagnostics);
}

/// Names of attributes that hold graphs. Rules drop attributes that lost their meaning, and keep
/// lists of nodes meanwhile: what they drop may hold none.
bool may_hold_graph(std::string_view name) {
  static constexpr std::string_view kNames[] = {"then_branch", "else_branch",  "body",    "function",
                                                "encoder",     "init_decoder", "decoder", "score_mod",
                                                "prob_mod"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

void check_graphs(const ir::Node& node, Diagnostics& diagnostics) {
  for (const ir::Attribute& a : node.attributes) {
    const bool graph = std::holds_alternative<std::unique_ptr<ir::Graph>>(a.data) ||
                       std::holds_alternative<ir::Attribute::Graphs>(a.data);
    if (graph && !may_hold_graph(a.name))
      return refuse(node, "the attribute \"" + a.name + "\" is a graph", diagnostics);
  }
}

}  // namespace

void check_operands(ir::Graph& graph, Diagnostics& diagnostics) {
  ir::for_each_node(graph, [&](ir::Node& n) {
    if (n.op == nullptr) return;
    const auto outputs = n.outputs();
    if (std::all_of(outputs.begin(), outputs.end(), [](const auto* v) { return v == nullptr; }))
      return n.graph()->erase(&n);
    check_graphs(n, diagnostics);
    const Arity a = arity_of(n.domain, n.op_type);
    check(
        n, a.needed_inputs, a.most_inputs, n.input_count(), "input",
        [&](std::size_t i) { return n.input(i); }, diagnostics);
    check(
        n, a.needed_outputs, a.most_outputs, n.output_count(), "output",
        [&](std::size_t i) { return n.output(i); }, diagnostics);
  });
}

}  // namespace onnx2nn::ops
