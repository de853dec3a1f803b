// com.microsoft.nchwc and com.ms.internal.nhwc: operators of ai.onnx in layouts that runtimes keep
// to themselves. passes/layouts.cpp says them in ai.onnx before anything else sees them.
#include "ops/microsoft/microsoft.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

constexpr std::string_view kNchwc = "com.microsoft.nchwc";
constexpr std::string_view kNhwc = "com.ms.internal.nhwc";

/// The rank, which is all that is asked for until then.
void infer_rank(InferContext& c) {
  const auto rank = c.rank(0);
  c.set(0, c.dtype(0), rank ? Shape::unknown_dims(*rank) : Shape());
}

void infer_quantized_rank(InferContext& c) {
  const auto rank = c.rank(0);
  c.set(0, c.dtype(7), rank ? Shape::unknown_dims(*rank) : Shape());
}

constexpr OpDef kLayoutsOps[] = {
    {.type = "AveragePool",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "Conv",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "GlobalAveragePool",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "GlobalMaxPool",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "MaxPool",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "ReorderInput",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "ReorderOutput",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "Upsample",
     .domain = kNchwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "AveragePool",
     .domain = kNhwc,
     .changed_at = {7},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "BatchNormalization",
     .domain = kNhwc,
     .changed_at = {9},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "Conv",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "ConvTranspose",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "DepthToSpace",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "GlobalAveragePool",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "GlobalLpPool",
     .domain = kNhwc,
     .changed_at = {2},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "GlobalMaxPool",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "GridSample",
     .domain = kNhwc,
     .changed_at = {16},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "InstanceNormalization",
     .domain = kNhwc,
     .changed_at = {6},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "LRN",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "LpPool",
     .domain = kNhwc,
     .changed_at = {2},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "MaxPool",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "QLinearConv",
     .domain = kNhwc,
     .changed_at = {10},
     .other_layout = true,
     .infer = infer_quantized_rank},
    {.type = "Resize",
     .domain = kNhwc,
     .changed_at = {10},
     .other_layout = true,
     .infer = infer_rank},
    {.type = "SpaceToDepth",
     .domain = kNhwc,
     .changed_at = {1},
     .other_layout = true,
     .infer = infer_rank},
};

}  // namespace

std::span<const OpDef> layout_ops() {
  return kLayoutsOps;
}

}  // namespace onnx2nn::ops
