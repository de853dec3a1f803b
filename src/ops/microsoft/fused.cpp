// com.microsoft: products and convolutions that are fused with what follows them, and those of other
// layouts. https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
#include "ops/microsoft/microsoft.h"

#include <algorithm>

#include "ops/onnx/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

Ex plus(const Ex& a, const Ex& b) {
  return aten("add.Tensor", {a, b});
}
Ex times(const Ex& a, const Ex& b) {
  return aten("mul.Tensor", {a, b});
}

/// The dimensions after the transposes that FusedMatMul asks for.
Shape transposed(const Shape& s, bool matrix, bool batch) {
  if (!s.has_rank() || s.rank() < 2) return s;
  Dims d = s.dims();
  if (batch && d.size() > 2) std::rotate(d.begin(), d.begin() + 1, d.end() - 1);
  if (matrix) std::swap(d[d.size() - 1], d[d.size() - 2]);
  return Shape(std::move(d));
}

void infer_fused_matmul(InferContext& c) {
  const Shape a =
      transposed(c.shape(0), c.attr_int("transA", 0) != 0, c.attr_int("transBatchA", 0) != 0);
  const Shape b =
      transposed(c.shape(1), c.attr_int("transB", 0) != 0, c.attr_int("transBatchB", 0) != 0);
  c.set(0, c.dtype(0), matmul_shape_of(c, a, b));
}

void lower_fused_matmul(LowerContext& c) {
  const bool batches = c.attr_int("transBatchA", 0) != 0 || c.attr_int("transBatchB", 0) != 0;
  const bool known = c.rank(0).value_or(0) >= 2 && c.rank(1).value_or(0) >= 2;
  if (batches || !known) {
    return c.out(0, helper("fused_matmul", {c.in(0), c.in(1)},
                           pass_attributes(c, {{"alpha", AttrKind::Float},
                                               {"transA"},
                                               {"transB"},
                                               {"transBatchA"},
                                               {"transBatchB"}})));
  }
  const Ex a = c.attr_int("transA", 0) != 0 ? aten("transpose.int", {c.in(0), -2, -1}) : c.in(0);
  const Ex b = c.attr_int("transB", 0) != 0 ? aten("transpose.int", {c.in(1), -2, -1}) : c.in(1);
  const Ex y = aten("matmul", {a, b});
  const double alpha = c.attr_float("alpha", 1.0);
  c.out(0, alpha == 1.0 ? y : times(y, Ex(alpha)));
}

constexpr double kLeakySlope = 0.01;

/// The activation that a fused operator names, with its parameters.
Ex activated(LowerContext& c, const Ex& x, const std::string& activation,
             const std::vector<double>& params) {
  if (activation.empty()) return x;
  if (activation == "Relu") return aten("relu", {x});
  if (activation == "Tanh") return aten("tanh", {x});
  if (activation == "Sigmoid") return aten("sigmoid", {x});
  if (activation == "LeakyRelu")
    return aten("leaky_relu", {x, Ex(params.empty() ? kLeakySlope : params[0])});
  if (activation == "Clip" && params.size() >= 2)
    return aten("clamp", {x, Ex(params[0]), Ex(params[1])});
  static constexpr std::string_view kKnown[] = {
      "HardSigmoid",        "Elu",      "Selu",     "ThresholdedRelu", "ScaledTanh",
      "ParametricSoftplus", "Softplus", "Softsign", "HardSwish"};
  if (std::find(std::begin(kKnown), std::end(kKnown), activation) == std::end(kKnown))
    c.unsupported("the fused activation \"" + activation + "\" is not known");
  Args args{x, Ex(activation)};
  for (std::size_t i = 0; i < params.size() && i < 3; ++i) args.emplace_back(params[i]);
  return helper("fused_activation", args);
}

constexpr const char* kConv = "Conv";
constexpr const char* kGemm = "Gemm";

void infer_fused_conv(InferContext& c) {
  infer_like<kConv, 11>(c);
}

/// Conv, then the sum with Z, then the activation.
void lower_fused_conv(LowerContext& c) {
  const std::string activation = c.attr_string("activation", "");
  const auto params = c.attr_floats("activation_params").value_or(std::vector<double>{});
  lower_like<kConv, 11>(c);
  if (c.has_input(3)) c.out(0, plus(c.result(0), c.in(3)));
  if (!activation.empty()) c.out(0, activated(c, c.result(0), activation, params));
}

void lower_fused_matmul_activation(LowerContext& c) {
  const std::string activation = c.attr_string("activation", "");
  std::vector<double> params;
  for (const char* name : {"activation_alpha", "activation_beta", "activation_gamma"}) {
    if (!c.has_attr(name)) break;
    params.push_back(c.attr_float(name, 0.0));
  }
  const bool plain = activation == "Relu" || activation == "Tanh" || activation == "Sigmoid" ||
                     activation == "Softplus" || activation == "Softsign";
  if (!plain && params.empty() && activation != "LeakyRelu")
    c.unsupported("the parameters of the activation \"" + activation + "\" are missing");
  lower_fused_matmul(c);
  c.out(0, activated(c, c.result(0), activation, params));
}

void lower_fused_gemm(LowerContext& c) {
  const std::string activation = c.attr_string("activation", "");
  std::vector<double> params;
  for (const char* name : {"activation_alpha", "activation_beta", "activation_gamma"})
    if (c.has_attr(name)) params.push_back(c.attr_float(name, 0.0));
  lower_like<kGemm, 13>(c);
  if (!activation.empty()) c.out(0, activated(c, c.result(0), activation, params));
}

/// GemmFastGelu: a product, a bias and the approximate gelu.
void infer_gemm_fast_gelu(InferContext& c) {
  c.set(0, c.dtype(0), matmul_shape_of(c, c.shape(0), c.shape(1)));
}

void lower_gemm_fast_gelu(LowerContext& c) {
  Ex y = aten("matmul", {c.in(0), c.in(1)});
  if (c.has_input(2)) y = plus(y, c.in(2));
  c.out(0, aten("gelu", {y, Ex("tanh")}));
}

// Channels last: of the input, the result and, in NhwcConv, of the weight too.

Ex channels_first(const Ex& x) {
  return aten("movedim.int", {x, -1, 1});
}
Ex channels_last(const Ex& x) {
  return aten("movedim.int", {x, 1, -1});
}

void infer_nhwc(InferContext& c) {
  const Shape& x = c.shape(0);
  if (!x.has_rank() || x.rank() < 3) return c.set(0, c.dtype(0));
  Dims out(x.rank());
  out[0] = x[0];
  out.back() = dim_of(c.shape(1), 0);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

constexpr Passed kPads{"pads", AttrKind::IntList};
constexpr Passed kStrides{"strides", AttrKind::IntList};
constexpr Passed kDilations{"dilations", AttrKind::IntList};
constexpr Passed kAutoPad{"auto_pad", AttrKind::String};

template <bool WeightToo>
void lower_nhwc_conv(LowerContext& c) {
  c.ignore_attr("kernel_shape");
  const std::string activation = c.attr_string("activation", "");
  const auto params = c.attr_floats("activation_params").value_or(std::vector<double>{});
  const Ex w = WeightToo ? channels_first(c.in(1)) : c.in(1);
  Args args{channels_first(c.in(0)), w};
  if (c.has_input(2)) args.push_back(c.in(2));
  Ex y = channels_last(helper(
      "conv_nd", args, pass_attributes(c, {kAutoPad, kDilations, {"group"}, kPads, kStrides})));
  if (c.has_input(3)) y = plus(y, c.in(3));
  c.out(0, activated(c, y, activation, params));
}

void infer_nhwc_pool(InferContext& c) {
  const Shape& x = c.shape(0);
  if (!x.has_rank() || x.rank() < 3) return c.set(0, c.dtype(0));
  Dims out(x.rank());
  out[0] = x[0];
  out.back() = x[x.rank() - 1];
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

Ints required_kernel(LowerContext& c) {
  const auto kernel = c.attr_ints("kernel_shape");
  if (!kernel) c.fail("kernel_shape is missing");
  return *kernel;
}

void lower_nhwc_max_pool(LowerContext& c) {
  if (c.has_output(1)) c.unsupported("the indices of a channels-last pooling are not supported");
  c.ignore_attr("storage_order");
  Kwargs kw = pass_attributes(c, {kStrides, kPads, kDilations, kAutoPad});
  if (c.attr_int("ceil_mode", 0) != 0) kw.emplace_back("ceil_mode", Ex(true));
  c.out(0,
        channels_last(helper("max_pool", {channels_first(c.in(0)), Ex(required_kernel(c))}, kw)));
}

void infer_masked_pool(InferContext& c) {
  const Shape& x = c.shape(0);
  if (!x.has_rank() || x.rank() < 3) return c.set(0, c.dtype(0));
  Dims out(x.rank());
  out[0] = x[0];
  out[1] = x[1];
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// MaxpoolWithMask: ONNX Runtime's kernel steps through the mask in a way that means its first
/// picture only where the sizes go together.
void lower_masked_pool(LowerContext& c) {
  require_int(c, "storage_order", 0);
  const Shape& x = c.shape(0);
  const Shape& m = c.shape(1);
  if (!x.has_rank() || !m.has_rank() || m.rank() != x.rank() || x.rank() < 3 || !m[0].is_const() ||
      !m[1].is_const())
    c.unsupported("the shape of the mask is not known");
  const Dim pictures = m[0] * m[1];
  Dim area(1);
  for (std::size_t i = 2; i < x.rank(); ++i) area = area * x[i];
  const bool first = pictures.is_const() && (pictures.value() == 1 ||
                                             (area.is_const() && pictures.value() > 0 &&
                                              area.value() % pictures.value() == 0));
  if (!first) c.unsupported("a mask of several pictures is not supported");
  c.out(0, helper("max_pool_with_mask", {c.in(0), c.in(1), Ex(required_kernel(c))},
                  pass_attributes(c, {kStrides, kPads, kAutoPad})));
}

/// ConvTransposeWithDynamicPads: ConvTranspose whose pads are input 2, the bias input 3.
void infer_dynamic_conv_transpose(InferContext& c) {
  const Shape& x = c.shape(0);
  if (!x.has_rank() || x.rank() < 3) return c.set(0, c.dtype(0));
  Dims out(x.rank());
  out[0] = x[0];
  if (const Dim d = dim_of(c.shape(1), 1); d.known()) out[1] = d * Dim(c.attr_int("group", 1));
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_dynamic_conv_transpose(LowerContext& c) {
  c.ignore_attr("kernel_shape");  // the weight's shape says it
  const std::string same = c.attr_string("auto_pad", "NOTSET");
  if (same != "NOTSET") c.unsupported("auto_pad together with pads is not supported");
  Args args{c.in(0), c.in(1)};
  if (c.has_input(3)) args.push_back(c.in(3));
  Kwargs kw = pass_attributes(
      c, {kDilations, {"group"}, {"output_padding", AttrKind::IntList}, kStrides});
  if (c.has_input(2)) kw.emplace_back("pads", c.int_list(2));
  c.out(0, helper("conv_transpose_nd", args, kw));
}

constexpr OpDef kFusedOps[] = {
    {.type = "FusedMatMul",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_fused_matmul,
     .lower = lower_fused_matmul},
    {.type = "TransposeMatMul",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_fused_matmul,
     .lower = lower_fused_matmul},
    {.type = "FusedConv",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_fused_conv,
     .lower = lower_fused_conv},
    {.type = "FusedGemm",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kGemm, 13>,
     .lower = lower_fused_gemm},
    {.type = "GemmFastGelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_gemm_fast_gelu,
     .lower = lower_gemm_fast_gelu},
    {.type = "NhwcConv",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_nhwc,
     .lower = lower_nhwc_conv<true>},
    {.type = "NhwcFusedConv",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_nhwc,
     .lower = lower_nhwc_conv<false>},
    {.type = "NhwcMaxPool",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_nhwc_pool,
     .lower = lower_nhwc_max_pool},
    {.type = "MaxpoolWithMask",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_masked_pool,
     .lower = lower_masked_pool},
    {.type = "ConvTransposeWithDynamicPads",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_dynamic_conv_transpose,
     .lower = lower_dynamic_conv_transpose},
    {.type = "FusedMatMulActivation",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_fused_matmul,
     .lower = lower_fused_matmul_activation},
};

}  // namespace

std::span<const OpDef> microsoft_fused_ops() {
  return kFusedOps;
}

}  // namespace onnx2nn::ops
