// What tensor parallelism may split of a program, layer by layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

enum class Style : std::uint8_t { Whole, Columns, Rows };

struct SplitLayer {
  torch::ModulePtr layer;
  Style style;
  std::string reason;  // of Whole
};

/// All linear layers in the order of their first calls, each with how it may be split; changes the
/// program's sizes that would be another with each number of processes. `parts`: what that number
/// divides.
std::vector<SplitLayer> split_layers(torch::Program& program, std::int64_t& parts);

}  // namespace onnx2nn::structure
