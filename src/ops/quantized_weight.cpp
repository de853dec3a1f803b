// Weights that the file holds in integers, and `load` makes real.
#include <algorithm>

#include "ops/lower.h"

namespace onnx2nn::ops {

bool Lowering::is_weight(const ir::Value* value) const {
  return value->constant || quantized_.count(value) != 0;
}

const ir::Value* Lowering::first_of(const ir::Value* value) const {
  const auto it = quantized_.find(value);
  return it != quantized_.end() && it->second.same_as != nullptr ? it->second.same_as : value;
}

const ir::Value* Lowering::named(const ir::Value* value) const {
  const auto it = quantized_.find(value);
  return it == quantized_.end() ? value : it->second.integers;
}

std::string Lowering::weight_name(const ir::Value* value) const {
  const std::string& name = named(value)->name;
  if (named(value) == value) return name;
  // ONNX Runtime's quantisers add one of these to the name of what they quantise.
  for (const std::string_view suffix : {"_quantized", "_DQ_Q4", "_DQ_Q8", "_Q4", "_Q8"})
    if (name.size() > suffix.size() && name.ends_with(suffix))
      return name.substr(0, name.size() - suffix.size());
  return name;
}

std::optional<WeightType> Lowering::weight_type(const ir::Value* value) const {
  if (value == nullptr) return std::nullopt;
  if (value->constant)
    return WeightType{value->constant->dtype(), value->constant->dims()};
  const auto it = quantized_.find(value);
  if (it == quantized_.end()) return std::nullopt;
  return WeightType{it->second.scale->dtype(), it->second.integers->constant->dims()};
}

void Lowering::store(const torch::ParamPtr& param, const ir::Value* value) {
  param->onnx_name = named(value)->name;
  const ir::TensorPtr& stored = named(value)->constant;
  const auto it = quantized_.find(value);
  // Two elements of four bits stay one byte, where no other order of them is asked for.
  const bool packed = it != quantized_.end() && !param->transpose && !ir::is_float(stored->dtype()) &&
                      ir::info(stored->dtype()).bits == 4 && stored->rank() > 0 &&
                      stored->dims().back() % 2 == 0;
  param->tensor = packed ? stored : widen(stored);
  param->dtype = it == quantized_.end() ? param->tensor->dtype() : it->second.scale->dtype();
  if (it == quantized_.end()) return;
  const auto beside = [&](const char* name, const ir::TensorPtr& tensor) {
    if (tensor == nullptr) return;
    auto p = std::make_shared<torch::Param>();
    p->tensor = widen(tensor);
    p->dtype = p->tensor->dtype();
    p->shape = p->tensor->dims();
    if (param->transpose && p->shape.size() == 2) {
      // Where one of the two axes is of one element, the bytes stay in order.
      p->transpose = p->shape[0] != 1 && p->shape[1] != 1;
      std::swap(p->shape[0], p->shape[1]);
    }
    p->path = param->path;
    p->path.emplace_back(name);
    p->quantized = param;
    program_.params.push_back(std::move(p));
  };
  beside("scale", it->second.scale);
  beside("zero_point", it->second.zero_point);
}

void LowerContext::keep_quantized(QuantizedWeight weight) {
  const auto same_input = [&](const ir::Node& other, std::size_t i) {
    return input(i) == (i < other.input_count() ? other.input(i) : nullptr);
  };
  // Each reader of a weight may have a node of its own.
  for (const ir::Use* u = weight.integers->first_use(); u != nullptr; u = u->next) {
    const ir::Node& other = *u->user;
    if (&other == &node_ || other.output_count() != 1 || other.output(0) == nullptr) continue;
    const auto it = l_.quantized_.find(other.output(0));
    if (it == l_.quantized_.end() || it->second.same_as != nullptr) continue;
    const bool same = same_input(other, 1) && same_input(other, 2) &&
                      it->second.scale->dims() == weight.scale->dims();
    if (same) weight.same_as = other.output(0);
  }
  l_.quantized_[node_.output(0)] = std::move(weight);
}

}  // namespace onnx2nn::ops
