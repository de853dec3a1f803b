#include "input_shapes.h"

#include <algorithm>

#include "support/error.h"

namespace onnx2nn {

void apply_input_shapes(ir::Graph& graph,
                        const std::map<std::string, std::vector<std::int64_t>>& shapes) {
  for (const auto& [name, shape] : shapes) {
    const auto it =
        std::find_if(graph.inputs.begin(), graph.inputs.end(),
                     [&wanted = name](const ir::Value* v) { return v->name == wanted; });
    if (it == graph.inputs.end())
      throw Error("bad-option", "the model has no input \"" + name + "\"");
    const auto& known = (*it)->type.shape;
    if (known.has_rank() && known.rank() != shape.size())
      throw Error("bad-option", "the input \"" + name + "\" has rank " +
                                    std::to_string(known.rank()) + ", not " +
                                    std::to_string(shape.size()));
    ir::Dims dims;
    for (std::size_t i = 0; i < shape.size(); ++i)
      dims.push_back(shape[i] >= 0 ? ir::Dim(shape[i]) : known.has_rank() ? known[i] : ir::Dim());
    (*it)->type.shape = ir::Shape(std::move(dims));
  }
}

}  // namespace onnx2nn
