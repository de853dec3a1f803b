// What the layers of torch.nn compute, as calls of ATen.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "torch/instance.h"

namespace onnx2nn::structure {

/// LSTM, GRU or RNN: a layer that may be given states.
bool is_recurrent(std::string_view type);

/// The layer as a module whose forward calls ATen; `ties` are weights that it shares with other
/// modules, by their keys. `next_var`: numbers for its variables.
torch::InstancePtr layer_instance(const torch::Module& layer,
                                  const std::map<std::string, torch::ParamPtr>& ties, int& next_var);

/// A function of torch.nn.functional, as lowering calls it, in terms of ATen; null where it cannot be
/// said without the rank of a tensor that is not known.
torch::ExprPtr functional_as_aten(const torch::Expr& call);

}  // namespace onnx2nn::structure
