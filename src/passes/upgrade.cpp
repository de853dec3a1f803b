#include "passes/upgrade.h"

#include <string_view>
#include <unordered_map>
#include <vector>

#include "ops/context.h"
#include "passes/rewriter.h"
#include "passes/upgrade_steps.h"

namespace onnx2nn::passes {
namespace {

struct Step {
  std::string_view op_type;
  std::int64_t opset;  // in which the form or the meaning changed
  void (*apply)(Upgrade&, ir::Node&);
};

// What is not here takes a newer opset as it is: new types, new attributes whose default is the old
// meaning, inputs that became optional.
constexpr Step kSteps[] = {
    {"Abs", 6, drop_consumed_inputs},
    {"Add", 6, drop_consumed_inputs},
    {"Add", 7, align_broadcast},
    {"And", 7, align_broadcast},
    {"BatchNormalization", 6, drop_consumed_inputs},
    {"BatchNormalization", 7, batch_norm_7},
    {"BatchNormalization", 9, batch_norm_9},
    {"BatchNormalization", 14, batch_norm_14},
    {"Cast", 6, cast_6},
    {"Ceil", 6, drop_consumed_inputs},
    {"Clip", 6, drop_consumed_inputs},
    {"Clip", 11, clip_11},
    {"Concat", 4, concat_4},
    {"DFT", 20, dft_20},
    {"Div", 6, drop_consumed_inputs},
    {"Div", 7, align_broadcast},
    {"Dropout", 6, drop_consumed_inputs},
    {"Dropout", 7, dropout_7},
    {"Dropout", 10, dropout_10},
    {"Dropout", 12, dropout_12},
    {"Elu", 6, drop_consumed_inputs},
    {"Equal", 7, align_broadcast},
    {"Exp", 6, drop_consumed_inputs},
    {"Floor", 6, drop_consumed_inputs},
    {"GRU", 7, drop_output_sequence},
    {"Gemm", 7, drop_broadcast},
    {"GlobalLpPool", 2, lp_pool_2},
    {"Greater", 7, align_broadcast},
    {"GridSample", 20, grid_sample_20},
    {"GroupNormalization", 21, group_norm_21},
    {"HardSigmoid", 6, drop_consumed_inputs},
    {"Hardmax", 13, softmax_13},
    {"InstanceNormalization", 6, drop_consumed_inputs},
    {"LSTM", 7, drop_output_sequence},
    {"LeakyRelu", 6, drop_consumed_inputs},
    {"Less", 7, align_broadcast},
    {"Log", 6, drop_consumed_inputs},
    {"LogSoftmax", 13, softmax_13},
    {"LpPool", 2, lp_pool_2},
    {"Max", 6, drop_consumed_inputs},
    {"Mean", 6, drop_consumed_inputs},
    {"MeanVarianceNormalization", 13, mean_variance_normalization_13},
    {"Min", 6, drop_consumed_inputs},
    {"Mul", 6, drop_consumed_inputs},
    {"Mul", 7, align_broadcast},
    {"Neg", 6, drop_consumed_inputs},
    {"Or", 7, align_broadcast},
    {"PRelu", 6, drop_consumed_inputs},
    {"PRelu", 7, align_slope},
    {"Pad", 2, pad_2},
    {"Pad", 11, pad_11},
    {"Pow", 7, align_broadcast},
    {"RNN", 7, drop_output_sequence},
    {"Reciprocal", 6, drop_consumed_inputs},
    {"ReduceL1", 18, axes_as_input},
    {"ReduceL2", 18, axes_as_input},
    {"ReduceLogSum", 18, axes_as_input},
    {"ReduceLogSumExp", 18, axes_as_input},
    {"ReduceMax", 18, axes_as_input},
    {"ReduceMean", 18, axes_as_input},
    {"ReduceMin", 18, axes_as_input},
    {"ReduceProd", 18, axes_as_input},
    {"ReduceSum", 13, axes_as_input},
    {"ReduceSumSquare", 18, axes_as_input},
    {"Relu", 6, drop_consumed_inputs},
    {"Reshape", 5, reshape_5},
    {"Resize", 11, resize_11},
    {"Resize", 13, resize_13},
    {"RoiAlign", 16, roi_align_16},
    {"Scan", 9, scan_9},
    {"Scatter", 11, scatter_11},
    {"Selu", 6, selu_6},
    {"Sigmoid", 6, drop_consumed_inputs},
    {"Slice", 10, slice_10},
    {"Softmax", 13, softmax_13},
    {"Split", 2, split_2},
    {"Split", 13, split_13},
    {"Split", 18, split_18},
    {"Sqrt", 6, drop_consumed_inputs},
    {"Squeeze", 13, axes_as_input},
    {"Sub", 6, drop_consumed_inputs},
    {"Sub", 7, align_broadcast},
    {"Sum", 6, drop_consumed_inputs},
    {"Tanh", 6, drop_consumed_inputs},
    {"Tile", 6, tile_6},
    {"TopK", 10, top_k_10},
    {"Unsqueeze", 13, unsqueeze_13},
    {"Upsample", 7, upsample_7},
    {"Upsample", 9, upsample_9},
    {"Upsample", 10, upsample_10},
    {"Xor", 7, align_broadcast},
};

const Step* next_step(const ir::Node& n, std::int64_t target) {
  static const std::unordered_map<std::string_view, std::vector<const Step*>> kByOp = [] {
    std::unordered_map<std::string_view, std::vector<const Step*>> by_op;
    for (const Step& s : kSteps) by_op[s.op_type].push_back(&s);
    return by_op;
  }();
  const auto it = kByOp.find(n.op_type);
  if (it == kByOp.end()) return nullptr;
  for (const Step* s : it->second)  // in the order of opsets
    if (s->opset > n.opset && s->opset <= target) return s;
  return nullptr;
}

/// Returns whether it was rewritten.
bool upgrade_node(Upgrade& u, ir::Node& n) {
  if (n.opset > u.target())
    fail("bad-option", "it is of opset {}, and --opset {} would have to lower it", n.opset,
         u.target());
  if (n.opset == u.target()) return false;
  if (n.op == nullptr && ops::find_op("", n.op_type) == nullptr)
    fail("unsupported-operator", "what it means in opset {} is not known", u.target());
  bool changed = false;
  while (const Step* step = next_step(n, u.target())) {
    u.at(step->opset);
    step->apply(u, n);
    changed = true;
    if (n.erased()) return true;
    n.opset = step->opset;
  }
  n.opset = u.target();
  n.op = ops::find_op("", n.op_type);
  return changed;
}

}  // namespace

std::size_t upgrade(ir::Model& model, std::int64_t target, Diagnostics& diagnostics) {
  if (target > kNewestOpset)
    fail("bad-option", "opset {} is not known: the newest is {}", target, kNewestOpset);
  const auto imported = model.info.opsets.find("");
  if (imported != model.info.opsets.end() && imported->second > target)
    fail("bad-option", "the model is of opset {}: opsets are raised, and not lowered to {}",
         imported->second, target);
  std::vector<ir::Node*> nodes;
  ir::for_each_node(*model.graph, [&](ir::Node& n) {
    if (n.domain.empty()) nodes.push_back(&n);
  });
  std::size_t rewritten = 0;
  // Steps add nodes of the opset that they lead to, which have a way to go themselves.
  Upgrade u(target, nodes);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i]->op_type == "Return") continue;
    try {
      if (upgrade_node(u, *nodes[i])) ++rewritten;
    } catch (const Error& e) {
      diagnostics.add(ops::diagnose(*nodes[i], e));
    }
  }
  model.info.opsets[""] = target;
  return rewritten;
}

}  // namespace onnx2nn::passes
