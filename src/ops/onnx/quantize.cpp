// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear; the first two in com.microsoft's domain
// too. https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html Opset 13 brought one scale per
// slice along `axis`, 19 float8, 21 blocks, `output_dtype` and four-bit types, 23 `precision`.
// Weights stay quantised in the file; they are made real where they are used.
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

bool is_float8(DType t) {
  return ir::is_float(t) && ir::info(t).bits == 8;
}

/// Where one scale serves a slice or a block: `axis` and `block_size` as keywords.
void add_layout(LowerContext& c, Kwargs& kw) {
  const std::int64_t block = c.attr_int("block_size", 0);
  std::int64_t axis = c.attr_int("axis", 1);
  if (block < 0) c.fail("block_size is negative");
  const auto scale_rank = c.rank(1);
  const bool one_scale =
      (scale_rank && *scale_rank == 0) ||
      (block == 0 && scale_rank == 1U && c.shape(1)[0].is_const() && c.shape(1)[0].value() == 1);
  if (one_scale) return;
  if (c.rank(0)) axis = c.axis(axis, *c.rank(0));
  if (axis != 1) kw.emplace_back("axis", Ex(axis));
  if (block != 0) kw.emplace_back("block_size", Ex(block));
}

// ---------------------------------------------------------------- QuantizeLinear

DType quantized_dtype(const NodeContext& c) {
  if (c.has_input(2)) return c.dtype(2);
  return c.attr_dtype("output_dtype", DType::UInt8);
}

void infer_quantize(InferContext& c) {
  c.set(0, quantized_dtype(c), c.shape(0));
}

void lower_quantize(LowerContext& c) {
  c.ignore_attr("output_dtype");
  const DType to = quantized_dtype(c);
  if (to == DType::Undefined) c.unsupported("the zero point's type is not known");
  Args args{c.in(0), c.in(1)};
  if (c.has_input(2)) args.push_back(c.in(2));
  Kwargs kw;
  if (to != DType::UInt8) kw.emplace_back("dtype", Ex(ir::carrier(to)));
  if (ir::is_sub_byte(to) && ir::is_integer(to)) kw.emplace_back("bits", Ex(ir::info(to).bits));
  if (ir::is_narrow_float(to)) kw.emplace_back("mantissa", Ex(ir::narrow_mantissa(to)));
  add_layout(c, kw);
  if (c.attr_int("saturate", 1) == 0 && is_float8(to)) kw.emplace_back("saturate", Ex(0));
  if (const DType p = c.attr_dtype("precision", DType::Undefined); p != DType::Undefined)
    kw.emplace_back("precision", Ex(p));
  c.out(0, helper("quantize_linear", args, kw));
}

// ---------------------------------------------------------------- DequantizeLinear

DType real_dtype(const NodeContext& c) {
  return c.attr_dtype("output_dtype", c.dtype(1));
}

void infer_dequantize(InferContext& c) {
  c.set(0, real_dtype(c), c.shape(0));
}

void lower_dequantize(LowerContext& c) {
  Args args{c.in(0), c.in(1)};
  if (c.has_input(2)) args.push_back(c.in(2));
  Kwargs kw;
  add_layout(c, kw);
  if (const DType to = real_dtype(c); to != c.dtype(1)) kw.emplace_back("dtype", Ex(to));
  c.out(0, helper("dequantize_linear", args, kw));
}

// ---------------------------------------------------------------- DynamicQuantizeLinear

void infer_dynamic(InferContext& c) {
  c.set(0, DType::UInt8, c.shape(0));
  c.set(1, DType::Float32, Shape::of({}));
  c.set(2, DType::UInt8, Shape::of({}));
}

void lower_dynamic(LowerContext& c) {
  c.outs(helper("dynamic_quantize_linear", {c.in(0)}));
}

constexpr OpDef kOps[] = {
    {.type = "QuantizeLinear",
     .changed_at = {10, 13, 19, 21, 23},
     .infer = infer_quantize,
     .lower = lower_quantize},
    {.type = "DequantizeLinear",
     .changed_at = {10, 13, 19, 21, 23},
     .infer = infer_dequantize,
     .lower = lower_dequantize},
    {.type = "DynamicQuantizeLinear",
     .changed_at = {11},
     .infer = infer_dynamic,
     .lower = lower_dynamic},
    {.type = "QuantizeLinear",
     .domain = "com.microsoft",
     .changed_at = {1},
     .infer = infer_quantize,
     .lower = lower_quantize},
    {.type = "DequantizeLinear",
     .domain = "com.microsoft",
     .changed_at = {1},
     .infer = infer_dequantize,
     .lower = lower_dequantize},
};

}  // namespace

std::span<const OpDef> quantize_ops() {
  return kOps;
}

}  // namespace onnx2nn::ops
