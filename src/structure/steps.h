// Steps in which activations are quantised. Each layer has its own, found from data like its weights:
// where modules of one class differ in them, they are a buffer and not the constructor's arguments.
#pragma once

#include <string>
#include <vector>

#include "structure/normal.h"

namespace onnx2nn::structure {

/// Scales and zero points of one class: what becomes of each hole, and the values of each module.
struct Steps {
  std::string name;                          // of the buffer; empty: there is none
  std::vector<std::size_t> scales;           // the holes, a row of the buffer each
  std::vector<torch::ParamPtr> buffers;      // of each module, [rows, 2]
};

/// The helpers that round to integers between fixed ones, and read that back.
inline bool is_fake_quantize(std::string_view helper) {
  return helper == "fake_quantize" || helper == "fake_quantize_between";
}

/// Takes the calls of fake_quantize in which these modules differ. In `normals` they no longer do.
Steps take_steps(const std::vector<Own*>& modules, std::vector<Normal>& normals, std::size_t with,
                 const std::string& optional);

/// Puts rows of the buffer in the place of scales: numbers are those of `filled`.
void read_steps(const Steps& steps, std::vector<torch::ExprPtr>& numbers);

/// fake_quantize(x, *self.steps[0], ...) has no zero point of its own.
void drop_zero_points(torch::Block& block);

}  // namespace onnx2nn::structure
