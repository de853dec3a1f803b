// What brings a node from one opset to the next, where an operator's form or meaning changed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "ops/registry.h"

namespace onnx2nn::passes {

/// What a step has at hand: the opset that it brings a node to, and the one wanted in the end.
class Upgrade {
 public:
  Upgrade(std::int64_t target, std::vector<ir::Node*>& made) : target_(target), made_(made) {}

  std::int64_t target() const { return target_; }
  void at(std::int64_t opset) { opset_ = opset; }

  /// A node of ai.onnx with one output called `name`, before `before` (null: at the end).
  ir::Node* add(ir::Graph& g, std::string_view op_type, const std::vector<ir::Value*>& inputs,
                std::string name, const ir::Node& like, ir::Node* before) {
    return add(g, op_type, inputs, std::vector<std::string>{std::move(name)}, like, before);
  }
  ir::Node* add(ir::Graph& g, std::string_view op_type, const std::vector<ir::Value*>& inputs,
                const std::vector<std::string>& names, const ir::Node& like, ir::Node* before) {
    ir::Node* n = g.add_node(std::string(op_type), "", inputs, names, before);
    n->name = like.name;
    n->op = ops::find_op("", op_type);
    n->opset = opset_;
    made_.push_back(n);
    return n;
  }
  /// `op_type` of `value` and `more`, for input `i` of `n`.
  ir::Node* insert(ir::Node& n, std::size_t i, std::string_view op_type,
                   const std::vector<ir::Value*>& more = {}) {
    ir::Value* value = n.input(i);
    std::vector<ir::Value*> inputs = {value};
    inputs.insert(inputs.end(), more.begin(), more.end());
    std::string name = value->name + "_" + std::string(op_type);
    ir::Node* made = add(*n.graph(), op_type, inputs, std::move(name), n, &n);
    made->output(0)->type.kind = ir::Type::Kind::Tensor;
    made->output(0)->type.dtype = value->type.dtype;
    n.set_input(i, made->output(0));
    return made;
  }
  /// A constant named after the node's first output.
  static ir::Value* constant(ir::Node& n, std::string_view what, ir::TensorPtr tensor) {
    const std::string stem = n.output(0) != nullptr ? n.output(0)->name : n.name;
    return n.graph()->add_initializer(stem + "_" + std::string(what), std::move(tensor), false);
  }

 private:
  std::int64_t target_;
  std::int64_t opset_ = 0;
  std::vector<ir::Node*>& made_;
};

// Steps are called after the opset that they lead to, or after what they do where several operators share
// them. Each throws Error where the new form cannot say what the node means.
void drop_consumed_inputs(Upgrade& u, ir::Node& n);
void drop_broadcast(Upgrade& u, ir::Node& n);
void drop_output_sequence(Upgrade& u, ir::Node& n);
void align_broadcast(Upgrade& u, ir::Node& n);
void align_slope(Upgrade& u, ir::Node& n);
void batch_norm_7(Upgrade& u, ir::Node& n);
void batch_norm_9(Upgrade& u, ir::Node& n);
void batch_norm_14(Upgrade& u, ir::Node& n);
void cast_6(Upgrade& u, ir::Node& n);
void clip_11(Upgrade& u, ir::Node& n);
void concat_4(Upgrade& u, ir::Node& n);
void dft_20(Upgrade& u, ir::Node& n);
void dropout_7(Upgrade& u, ir::Node& n);
void dropout_10(Upgrade& u, ir::Node& n);
void dropout_12(Upgrade& u, ir::Node& n);
void grid_sample_20(Upgrade& u, ir::Node& n);
void group_norm_21(Upgrade& u, ir::Node& n);
void lp_pool_2(Upgrade& u, ir::Node& n);
void mean_variance_normalization_13(Upgrade& u, ir::Node& n);
void pad_2(Upgrade& u, ir::Node& n);
void pad_11(Upgrade& u, ir::Node& n);
void axes_as_input(Upgrade& u, ir::Node& n);
void unsqueeze_13(Upgrade& u, ir::Node& n);
void reshape_5(Upgrade& u, ir::Node& n);
void resize_11(Upgrade& u, ir::Node& n);
void resize_13(Upgrade& u, ir::Node& n);
void upsample_7(Upgrade& u, ir::Node& n);
void upsample_9(Upgrade& u, ir::Node& n);
void upsample_10(Upgrade& u, ir::Node& n);
void roi_align_16(Upgrade& u, ir::Node& n);
void scan_9(Upgrade& u, ir::Node& n);
void scatter_11(Upgrade& u, ir::Node& n);
void selu_6(Upgrade& u, ir::Node& n);
void slice_10(Upgrade& u, ir::Node& n);
void softmax_13(Upgrade& u, ir::Node& n);
void split_2(Upgrade& u, ir::Node& n);
void split_13(Upgrade& u, ir::Node& n);
void split_18(Upgrade& u, ir::Node& n);
void tile_6(Upgrade& u, ir::Node& n);
void top_k_10(Upgrade& u, ir::Node& n);

}  // namespace onnx2nn::passes
