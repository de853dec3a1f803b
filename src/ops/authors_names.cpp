#include "ops/authors_names.h"

#include <string>
#include <string_view>
#include <unordered_set>

#include "support/text.h"

namespace onnx2nn::ops {
namespace {

/// "model.layers.32.final_norm_layernorm" as "model.norm", with either separator.
std::string without_last_layer(std::string name, char separator) {
  const std::string begin = separator == '/' ? "/model/layers." : "model.layers.";
  const std::string norm = std::string(1, separator) + "final_norm_layernorm" + separator;
  const std::size_t at = name.find(norm);
  if (!name.starts_with(begin) || at == std::string::npos ||
      !is_number(std::string_view(name).substr(begin.size(), at - begin.size())))
    return name;
  const std::string model = name.substr(0, begin.size() - std::string_view("layers.").size());
  return model + "norm" + name.substr(at + norm.size() - 1);
}

/// "q_proj.MatMul.weight" as "q_proj.weight".
std::string without_operator(std::string name) {
  const std::size_t leaf = name.rfind('.');
  if (leaf == std::string::npos || leaf == 0) return name;
  const std::size_t at = name.rfind('.', leaf - 1);
  if (at == std::string::npos) return name;
  const std::string_view between = std::string_view(name).substr(at + 1, leaf - at - 1);
  if (between != "MatMul" && between != "MatMulNBits" && between != "Add" && between != "layernorm")
    return name;
  return name.erase(at, leaf - at);
}

}  // namespace

void restore_authors_names(ir::Model& model) {
  if (model.info.producer_name != "onnxruntime-genai") return;
  std::unordered_set<std::string> taken;
  for (const ir::Value* v : model.graph->initializers) taken.insert(v->name);
  for (ir::Value* v : model.graph->initializers)
    if (std::string name = without_operator(without_last_layer(v->name, '.'));
        taken.insert(name).second)
      v->name = std::move(name);
  for (ir::Node* n = model.graph->first(); n != nullptr; n = n->next())
    n->name = without_last_layer(std::move(n->name), '/');
}

}  // namespace onnx2nn::ops
