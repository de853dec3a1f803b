// What a weight of the file is to a module of torch: a parameter, a buffer, or a constant of the code.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "ir/graph.h"

namespace onnx2nn::ops {

struct WeightRole {
  bool trainable = false;  // an nn.Parameter; else a buffer
  bool persistent = true;  // an entry of the state_dict
  std::size_t order = 0;   // of its registration, among those that the file tells of
};

/// What torch's newer exporter says of the author's parameters and buffers, by their names. Empty where
/// it says nothing.
using Signature = std::unordered_map<std::string, WeightRole>;
Signature read_signature(const ir::Graph& graph);

/// Whether nearly all weights and values of the graph are called by one stem and a number: t12, t13. A tool
/// that took the names away counts so; none of them is an author's.
bool are_counted(const ir::Graph& graph);

/// Whether the weight's name is its author's. Torch's exporters keep such a weight as it was; what they
/// turned, joined or computed has a name of their own.
bool is_authors_name(const ir::Value& weight, const Signature& said, std::string_view producer);

/// The role of a constant that is read by itself, and not as the weight of a torch.nn module. Where the
/// exporter says nothing, a floating-point initialiser is a parameter unless its name was made up by a
/// tool, or it is called, used or filled like a constant.
/// is_float: whether it is read as floats, which a weight stored in integers is too.
WeightRole weight_role(const ir::Value& weight, bool is_float, const Signature& said,
                       std::string_view producer);

}  // namespace onnx2nn::ops
