// nn.LSTM, nn.GRU and nn.RNN as conversion puts them together from ONNX's operators of one layer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/context.h"
#include "ops/weight_view.h"

namespace onnx2nn::ops {

/// What torch's module of a recurrent node is, where there is one.
struct RecurrentForm {
  std::int64_t inputs = 0;
  std::int64_t hidden = 0;
  std::int64_t directions = 1;
  bool reverse = false;      // the only direction is backwards
  bool bias = false;
  std::string nonlinearity;  // empty: the module's default
};

/// Of LSTM, GRU or RNN of ai.onnx with torch's activations, without peepholes, lengths and the like.
std::optional<RecurrentForm> recurrent_form(const NodeContext& c);

/// A weight of torch's module: its name, and where it comes from.
struct RecurrentWeight {
  std::string name;  // "weight_ih_l0_reverse"
  WeightView view;
};
/// The weights of one layer from W, R and B; the gates in torch's order. Nothing where a weight cannot be
/// put together from its parts.
std::optional<std::vector<RecurrentWeight>> recurrent_weights(std::string_view op_type,
                                                              const RecurrentForm& form,
                                                              std::int64_t layer,
                                                              const WeightView& w,
                                                              const WeightView& r,
                                                              const WeightView* b);

/// A whole module: inputs x, h_0, c_0 (absent: zeros), then constants that the weights are made of;
/// outputs as torch's module has them: y [steps, batch, directions * hidden], h and c [layers *
/// directions, batch, hidden]. With attributes
///   num_layers, hidden_size, directions, bias, batch_first (of x and y), nonlinearity;
///   pieces: for each weight, in torch's order, the number of pieces, then for each the number of its
///   constant (0: the first), offset, rows, columns, stride, transpose.
/// Only conversion makes it, and no file can: it has no name in the table of operators. Its type is the
/// ONNX operator's with kTorchPrefix before it.
const OpDef& recurrent_module_op();
inline constexpr std::string_view kTorchPrefix = "torch.";
inline constexpr std::size_t kFirstWeight = 3;

}  // namespace onnx2nn::ops
