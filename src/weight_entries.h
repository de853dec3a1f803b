// Parameters of the program as entries of a weight file.
#pragma once

#include <cstdint>
#include <vector>

#include "emit/weights.h"
#include "torch/program.h"

namespace onnx2nn {

/// As the file has it: of a weight of four bits, two elements are one byte.
std::vector<std::int64_t> stored_shape(const torch::Param& param);

/// The bytes as the ONNX file has them.
emit::WeightEntry entry_of(const torch::Param& param);

/// The same; a weight that the file holds in integers, with a scale and perhaps a zero point, as the
/// real one that they mean.
emit::WeightEntry real_entry_of(const torch::Program& program, const torch::Param& param);

}  // namespace onnx2nn
