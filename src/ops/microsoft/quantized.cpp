// com.microsoft: quantised operators. Packed weights stay packed in the file and are made real in
// forward. https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
#include "ops/microsoft/microsoft.h"

#include <algorithm>

#include "ops/onnx/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- elementwise
// The type of the result is that of its zero point, which is the input's where it is absent.

void infer_qlinear_binary(InferContext& c) {
  c.set(0, c.dtype(0), broadcast(c.shape(0), c.shape(3)));
}
void lower_qlinear_add(LowerContext& c) {
  c.out(0, helper("qlinear_add", pass_inputs(c, 0, 8)));
}
void lower_qlinear_mul(LowerContext& c) {
  c.out(0, helper("qlinear_mul", pass_inputs(c, 0, 8)));
}
void lower_qlinear_sigmoid(LowerContext& c) {
  c.out(0, helper("qlinear_sigmoid", pass_inputs(c, 0, 5)));
}

void lower_qlinear_leaky_relu(LowerContext& c) {
  c.out(0, helper("qlinear_leaky_relu", pass_inputs(c, 0, 5),
                  pass_attributes(c, {{"alpha", AttrKind::Float}})));
}

void lower_qlinear_softmax(LowerContext& c) {
  c.out(0,
        helper("qlinear_softmax", pass_inputs(c, 0, 5), pass_attributes(c, {{"opset"}, {"axis"}})));
}

/// Inputs: the result's scale and zero point, then tensor, scale and zero point of each part.
void infer_qlinear_concat(InferContext& c) {
  Dim total(0);
  Shape out;
  for (std::size_t i = 2; i + 2 < c.input_count(); i += 3) {
    const Shape& s = c.shape(i);
    if (!s.has_rank() || s.rank() == 0) return c.set(0, c.dtype(1));
    if (!out.has_rank()) out = s;
    if (s.rank() != out.rank()) c.fail("inputs have different ranks");
    const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis"), s.rank()));
    total = total.known() && s[axis].known() ? total + s[axis] : Dim();
    out.dims()[axis] = total;
  }
  c.set(0, c.dtype(1), out);
}

void lower_qlinear_concat(LowerContext& c) {
  Args args;
  for (std::size_t i = 0; i < c.input_count(); ++i) args.push_back(c.in(i));
  c.out(0, helper("qlinear_concat", args, {{"axis", Ex(c.attr_int("axis"))}}));
}

void infer_qlinear_where(InferContext& c) {
  c.set(0, c.dtype(1), broadcast(broadcast(c.shape(0), c.shape(1)), c.shape(4)));
}
void lower_qlinear_where(LowerContext& c) {
  c.out(0, helper("qlinear_where", pass_inputs(c, 0, 9)));
}

// ---------------------------------------------------------------- poolings and convolutions

constexpr Passed kPads{"pads", AttrKind::IntList};
constexpr Passed kStrides{"strides", AttrKind::IntList};
constexpr Passed kDilations{"dilations", AttrKind::IntList};
constexpr Passed kAutoPad{"auto_pad", AttrKind::String};

/// Batch and channels; the spatial axes are `spatial`.
void infer_pool(InferContext& c, const Dim& spatial) {
  const Shape& x = c.shape(0);
  if (!x.has_rank() || x.rank() < 3) return c.set(0, c.dtype(0));
  Dims out(x.rank(), spatial);
  const std::size_t channel = c.attr_int("channels_last", 0) != 0 ? x.rank() - 1 : 1;
  out[0] = x[0];
  out[channel] = x[channel];
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void infer_average_pool(InferContext& c) {
  infer_pool(c, Dim());
}
void infer_global_pool(InferContext& c) {
  infer_pool(c, Dim(1));
}

void lower_average_pool(LowerContext& c) {
  c.out(0, helper("qlinear_average_pool", pass_inputs(c, 0, 5),
                  pass_attributes(c, {{"kernel_shape", AttrKind::IntList},
                                      kStrides,
                                      kPads,
                                      kAutoPad,
                                      {"ceil_mode"},
                                      {"count_include_pad"},
                                      {"channels_last"}})));
}

void lower_global_pool(LowerContext& c) {
  c.out(0, helper("qlinear_global_average_pool", pass_inputs(c, 0, 5),
                  pass_attributes(c, {{"channels_last"}})));
}

void infer_reduce_mean(InferContext& c) {
  const Shape& x = c.shape(0);
  const bool keep = c.attr_int("keepdims", 1) != 0;
  if (!x.has_rank()) return c.set(0, c.dtype(0));
  Ints axes = c.attr_ints("axes").value_or(Ints{});
  std::vector<bool> reduced(x.rank(), axes.empty());
  for (const std::int64_t a : c.axes(axes, x.rank())) reduced[static_cast<std::size_t>(a)] = true;
  Dims out;
  for (std::size_t i = 0; i < x.rank(); ++i) {
    if (!reduced[i]) {
      out.push_back(x[i]);
    } else if (keep) {
      out.emplace_back(1);
    }
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_reduce_mean(LowerContext& c) {
  c.out(0, helper("qlinear_reduce_mean", pass_inputs(c, 0, 5),
                  pass_attributes(c, {{"axes", AttrKind::IntList}, {"keepdims"}})));
}

constexpr const char* kQLinearConv = "QLinearConv";

void infer_qlinear_conv(InferContext& c) {
  if (c.attr_int("channels_last", 0) == 0) return infer_like<kQLinearConv, 10>(c);
  const Shape& x = c.shape(0);
  if (!x.has_rank() || x.rank() < 3) return c.set(0, c.dtype(7));
  Dims out(x.rank());
  out[0] = x[0];
  out.back() = dim_of(c.shape(3), 0);
  c.set(0, c.dtype(7), Shape(std::move(out)));
}

void lower_qlinear_conv(LowerContext& c) {
  if (c.attr_int("channels_last", 0) == 0) return lower_like<kQLinearConv, 10>(c);
  c.ignore_attr("kernel_shape");
  Args args = pass_inputs(c, 0, 9);
  args[0] = aten("movedim.int", {args[0], -1, 1});
  const Ex y = helper("qlinear_conv", args,
                      pass_attributes(c, {kAutoPad, kDilations, {"group"}, kPads, kStrides}));
  c.out(0, aten("movedim.int", {y, 1, -1}));
}

// ---------------------------------------------------------------- products

void infer_qgemm(InferContext& c) {
  const bool ta = c.attr_int("transA", 0) != 0;
  const bool tb = c.attr_int("transB", 0) != 0;
  c.set(0, c.has_input(8) ? c.dtype(8) : DType::Float32,
        Shape({dim_of(c.shape(0), ta ? 1 : 0), dim_of(c.shape(3), tb ? 0 : 1)}));
}

void lower_qgemm(LowerContext& c) {
  c.out(0, helper("qgemm", pass_inputs(c, 0, 9),
                  pass_attributes(c, {{"alpha", AttrKind::Float}, {"transA"}, {"transB"}})));
}

void infer_integer_to_float(InferContext& c) {
  c.set(0, c.dtype(2), matmul_shape_of(c, c.shape(0), c.shape(1)));
}
void lower_integer_to_float(LowerContext& c) {
  c.out(0, helper("matmul_integer_to_float", pass_inputs(c, 0, 7)));
}
void infer_dynamic_matmul(InferContext& c) {
  c.set(0, c.dtype(0), matmul_shape_of(c, c.shape(0), c.shape(1)));
}
void lower_dynamic_matmul(LowerContext& c) {
  c.out(0, helper("dynamic_quantize_matmul", pass_inputs(c, 0, 5)));
}

void infer_matmul_nbits(InferContext& c) {
  const Shape& a = c.shape(0);
  if (!a.has_rank() || a.rank() == 0) return c.set(0, c.dtype(0));
  Dims out = a.dims();
  out.back() = Dim(c.attr_int("N"));
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// With accuracy_level 4 ONNX Runtime rounds the other factor to int8 too, if it can pack the
/// weight beforehand: it must be constant, its groups in order, its zero points integers.
bool rounds_rows(const NodeContext& c, std::int64_t bits, std::int64_t block) {
  if (c.attr_int("accuracy_level", 0) != 4 || c.has_input(4)) return false;
  for (std::size_t i = 1; i < 4; ++i)
    if (c.has_input(i) && c.constant(i) == nullptr) return false;
  if (c.has_input(3) && c.dtype(3) != DType::UInt8) return false;
  return bits == 4 || bits == 8 || (bits == 2 && block >= 32);
}

void lower_matmul_nbits(LowerContext& c) {
  require_int(c, "weight_prepacked", 0);
  const std::int64_t bits = c.attr_int("bits", 4);
  const std::int64_t block = c.attr_int("block_size");
  if (c.attr_int("K") <= 0 || c.attr_int("N") <= 0 || block <= 0)
    c.fail("K, N and block_size must be positive");
  if (bits != 1 && bits != 2 && bits != 4 && bits != 8)
    c.unsupported("weights of " + std::to_string(bits) + " bits are not supported");
  Kwargs kw = pass_attributes(c, {{"K"}, {"N"}, {"block_size"}, {"bits"}});
  if (rounds_rows(c, bits, block)) kw.emplace_back("accuracy_level", Ex(4));
  c.out(0, helper("matmul_nbits", pass_inputs(c, 0, 6), kw));
}

void lower_matmul_bnb4(LowerContext& c) {
  c.ignore_attr("training_mode");
  if (c.attr_int("K") <= 0 || c.attr_int("N") <= 0 || c.attr_int("block_size") <= 0)
    c.fail("K, N and block_size must be positive");
  const std::int64_t type = c.attr_int("quant_type");
  if (type != 0 && type != 1)
    c.unsupported("weights of quant_type " + std::to_string(type) + " are not supported");
  c.out(0, helper("matmul_bnb4", pass_inputs(c, 0, 3),
                  pass_attributes(
                      c, {{"K"}, {"N"}, {"block_size"}, {"quant_type"}, {"transB"}})));
}

void infer_matmul_integer16(InferContext& c) {
  const bool is_signed = c.dtype(0) == DType::Int16 || c.dtype(1) == DType::Int16;
  c.set(0, is_signed ? DType::Int32 : DType::UInt32, matmul_shape_of(c, c.shape(0), c.shape(1)));
}

void lower_matmul_integer16(LowerContext& c) {
  if (c.dtype(0) != DType::Int16 || c.dtype(1) != DType::Int16)
    c.unsupported("it is known for int16 alone, as ONNX Runtime's kernel is");
  c.out(0, helper("matmul_integer16", {c.in(0), c.in(1)}));
}

// ---------------------------------------------------------------- GatherBlockQuantized

void infer_gather_block(InferContext& c) {
  const Shape& data = c.shape(0);
  const Shape& indices = c.shape(1);
  if (!data.has_rank() || data.rank() == 0 || !indices.has_rank()) return c.set(0, c.dtype(2));
  const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("gather_axis", 0), data.rank()));
  const std::int64_t bits = c.attr_int("bits", 4);
  Dims d = data.dims();
  if (c.dtype(0) == DType::UInt8 && bits > 0 && bits < 8) d.back() = d.back() * Dim(8 / bits);
  Dims out(d.begin(), d.begin() + static_cast<std::ptrdiff_t>(axis));
  out.insert(out.end(), indices.dims().begin(), indices.dims().end());
  out.insert(out.end(), d.begin() + static_cast<std::ptrdiff_t>(axis) + 1, d.end());
  c.set(0, c.dtype(2), Shape(std::move(out)));
}

void lower_gather_block(LowerContext& c) {
  Kwargs kw = pass_attributes(c, {{"gather_axis"}, {"quantize_axis"}, {"block_size"}, {"bits"}});
  if (c.dtype(0) == DType::UInt8) kw.emplace_back("packed", Ex(true));
  c.out(0, helper("gather_block_quantized", pass_inputs(c, 0, 4), kw));
}

// ---------------------------------------------------------------- DynamicQuantizeLSTM

void infer_lstm(InferContext& c) {
  infer_lstm_outputs(c, 1);
}

void lower_lstm(LowerContext& c) {
  outs_of(c, helper("dynamic_quantize_lstm", pass_inputs(c, 0, 12), lstm_attributes(c)), 3);
}

constexpr std::string_view kNhwc = "com.ms.internal.nhwc";

// ---------------------------------------------------------------- tables and weights in blocks

void infer_matmul_fp_q4(InferContext& c) {
  const Shape& a = c.shape(0);
  if (!a.has_rank() || a.rank() == 0) return c.set(0, DType::Float32);
  Dims out = a.dims();
  const auto shape = c.contents(2);
  out.back() = shape && shape->size() == 2 ? (*shape)[1] : Dim();
  c.set(0, DType::Float32, Shape(std::move(out)));
}

void lower_matmul_fp_q4(LowerContext& c) {
  const auto shape = c.const_ints(2);
  if (!shape || shape->size() != 2) c.unsupported("B_shape must be two constants");
  if ((*shape)[0] < 1 || (*shape)[1] < 1) c.fail("B_shape must be positive");
  const std::int64_t type = c.attr_int("blk_quant_type", 1);
  if (type != 0 && type != 1)
    c.unsupported("weights of blk_quant_type " + std::to_string(type) + " are not supported");
  Kwargs kw{{"K", Ex((*shape)[0])}, {"N", Ex((*shape)[1])}};
  if (type == 0) kw.emplace_back("blk_quant_type", Ex(0));
  c.out(0, helper("matmul_fp_q4", {c.in(0), c.in(1)}, kw));
}

void infer_gather_packed(InferContext& c) {
  const Shape& s = c.shape(1);
  const DType t = c.attr_dtype("output_dtype", DType::BFloat16);
  if (!s.has_rank()) return c.set(0, t);
  Dims out = s.dims();
  out.emplace_back(c.attr_int("K"));
  c.set(0, t, Shape(std::move(out)));
}

/// GatherPacked: packed_type numbers the types of GGML. Those whose values come from long tables
/// are not known.
void lower_gather_packed(LowerContext& c) {
  static constexpr std::int64_t kKnown[] = {0, 1, 2, 6, 8, 13, 14, 20, 23, 30};
  const std::int64_t type = c.attr_int("packed_type");
  if (std::find(std::begin(kKnown), std::end(kKnown), type) == std::end(kKnown))
    c.unsupported("tables of packed_type " + std::to_string(type) + " are not supported");
  const bool whole = type == 13 || type == 14 || type == 23;
  const bool single = type == 0 || type == 1 || type == 30;
  const std::int64_t block = whole ? 256 : single ? 1 : 32;
  const std::int64_t k = c.attr_int("K");
  if (k < 1 || k % block != 0) c.fail("K must be a multiple of " + std::to_string(block));
  Kwargs kw = pass_attributes(c, {{"packed_type"}, {"K"}});
  const DType t = c.attr_dtype("output_dtype", DType::BFloat16);
  if (t != DType::BFloat16) kw.emplace_back("output_dtype", Ex(t));
  c.out(0, helper("gather_packed", {c.in(0), c.in(1)}, kw));
}

void infer_mul_integer(InferContext& c) {
  c.set(0, DType::Int32, broadcast(c.shape(0), c.shape(2)));
}

void lower_mul_integer(LowerContext& c) {
  c.out(0, helper("mul_integer", pass_inputs(c, 0, 4)));
}

constexpr OpDef kQuantizedOps[] = {
    {.type = "QLinearAdd",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qlinear_binary,
     .lower = lower_qlinear_add},
    {.type = "QLinearMul",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qlinear_binary,
     .lower = lower_qlinear_mul},
    {.type = "QLinearSigmoid",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_qlinear_sigmoid},
    {.type = "QLinearLeakyRelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_qlinear_leaky_relu},
    {.type = "QLinearSoftmax",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_qlinear_softmax},
    {.type = "QLinearConcat",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qlinear_concat,
     .lower = lower_qlinear_concat},
    {.type = "QLinearWhere",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qlinear_where,
     .lower = lower_qlinear_where},
    {.type = "QLinearAveragePool",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_average_pool,
     .lower = lower_average_pool},
    {.type = "QLinearGlobalAveragePool",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_global_pool,
     .lower = lower_global_pool},
    {.type = "QLinearReduceMean",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_reduce_mean,
     .lower = lower_reduce_mean},
    {.type = "QLinearConv",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qlinear_conv,
     .lower = lower_qlinear_conv},
    {.type = "QGemm",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_qgemm,
     .lower = lower_qgemm},
    {.type = "MatMulIntegerToFloat",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_integer_to_float,
     .lower = lower_integer_to_float},
    {.type = "DynamicQuantizeMatMul",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_dynamic_matmul,
     .lower = lower_dynamic_matmul},
    {.type = "MatMulNBits",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_matmul_nbits,
     .lower = lower_matmul_nbits},
    {.type = "MatMulBnb4",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_matmul_nbits,
     .lower = lower_matmul_bnb4},
    {.type = "MatMulInteger16",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_matmul_integer16,
     .lower = lower_matmul_integer16},
    {.type = "MatMulFpQ4",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_matmul_fp_q4,
     .lower = lower_matmul_fp_q4},
    {.type = "GatherPacked",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_gather_packed,
     .lower = lower_gather_packed},
    {.type = "MulInteger",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_mul_integer,
     .lower = lower_mul_integer},
    {.type = "GatherBlockQuantized",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_gather_block,
     .lower = lower_gather_block},
    {.type = "DynamicQuantizeLSTM",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_lstm,
     .lower = lower_lstm},
    {.type = "QLinearAveragePool",
     .domain = kNhwc,
     .changed_at = {1},
     .infer = infer_average_pool,
     .lower = lower_average_pool},
};

}  // namespace

std::span<const OpDef> microsoft_quantized_ops() {
  return kQuantizedOps;
}

}  // namespace onnx2nn::ops
