#include "ops/onnx/nested_types.h"

#include <memory>
#include <string>
#include <utility>

namespace onnx2nn::ops {

namespace {

/// What holds of a carried value, given what one round makes of it; the element type never changes.
Type common_carried(const Type& now, const Type& next) {
  if (now.kind == Type::Kind::Unknown) return without_shape(next);
  Type both = common_type(now, next);
  if (both.kind == Type::Kind::Unknown) return without_shape(now);
  if (both.dtype == DType::Undefined)
    both.dtype = now.dtype == DType::Undefined ? next.dtype : now.dtype;
  return both;
}

std::size_t depth_of(const ir::Graph* graph) {
  std::size_t depth = 0;
  for (; graph != nullptr; graph = graph->outer()) ++depth;
  return depth;
}

}  // namespace

Type common_type(const Type& a, const Type& b) {
  if (a.kind == Type::Kind::Unknown || a.kind != b.kind) return {};
  Type out = a;
  if (a.dtype != b.dtype) out.dtype = DType::Undefined;
  if (a.element && b.element)
    out.element = std::make_shared<const Type>(common_type(*a.element, *b.element));
  if (!a.shape.has_rank() || !b.shape.has_rank() || a.shape.rank() != b.shape.rank()) {
    out.shape = Shape();
    return out;
  }
  Dims dims = a.shape.dims();
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (!(dims[i] == b.shape[i])) dims[i] = Dim();
  out.shape = Shape(std::move(dims));
  return out;
}

Type without_shape(Type type) {
  type.shape = Shape();
  if (type.element) type.element = std::make_shared<const Type>(without_shape(*type.element));
  return type;
}

void forget_shapes(const ir::Graph& graph) {
  ir::for_each_node(graph, [](ir::Node& node) {
    for (ir::Value* v : node.outputs())
      if (v != nullptr) v->type = without_shape(v->type);
  });
}

std::vector<Type> infer_carried(InferContext& c, ir::Graph& body, std::vector<Type> carried,
                                std::size_t first_output,
                                const std::function<void(const std::vector<Type>&)>& set_inputs) {
  // Each try may infer the bodies inside several times, so that deep nests would take exponential
  // time.
  constexpr int kMaxTries = 4;
  constexpr std::size_t kMaxDepth = 4;
  const std::uint64_t mark = c.mark();
  for (int attempt = depth_of(c.node().graph()) > kMaxDepth ? kMaxTries : 0;; ++attempt) {
    const bool last = attempt >= kMaxTries || c.in_a_hurry();
    if (last)
      for (Type& t : carried) t = without_shape(t);
    forget_shapes(body);
    set_inputs(carried);
    Diagnostics found;
    c.infer_graph(body, last ? nullptr : &found);
    if (last) return carried;
    bool stable = true;
    for (std::size_t i = 0; i < carried.size(); ++i) {
      Type both = common_carried(
          carried[i], c.without_symbols_since(mark, body.output(first_output + i)->type));
      stable = stable && both.str() == carried[i].str();
      carried[i] = std::move(both);
    }
    if (stable && !found.has_errors()) return carried;
    // A contradiction that the shapes of the first round caused goes away without them.
    if (stable) attempt = kMaxTries - 1;
  }
}

void check_outputs(const NodeContext& c, const ir::Graph& body, std::size_t inputs,
                   std::size_t outputs) {
  if (body.inputs.size() != inputs)
    c.fail("the body takes " + std::to_string(body.inputs.size()) + " inputs, not " +
           std::to_string(inputs));
  if (body.output_count() != outputs)
    c.fail("the body gives " + std::to_string(body.output_count()) + " outputs, not " +
           std::to_string(outputs));
}

}  // namespace onnx2nn::ops
