// Activations, Softmax and its kin, Dropout.
// https://onnx.ai/onnx/operators/onnx__Relu.html and its neighbours.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/training.h"
#include "ops/onnx/widen.h"

namespace onnx2nn::ops {
namespace {

void infer_same(InferContext& c) {
  c.set(0, c.dtype(0), c.shape(0));
}

/// As a float32 attribute: 0.2 in a file is not 0.2 in double.
bool is_about(double v, double expected) {
  return static_cast<float>(v) == static_cast<float>(expected);
}

constexpr const char* kRelu = "relu";
constexpr const char* kSigmoid = "sigmoid";
constexpr const char* kHardSwish = "hardswish";
constexpr const char* kSoftplus = "softplus";
constexpr const char* kMish = "mish";

void lower_leaky_relu(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  c.out(0, aten("leaky_relu", {c.in(0), c.attr_float("alpha", 0.01)}));
}

void lower_elu(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  c.out(0, aten("elu", {c.in(0), c.attr_float("alpha", 1.0)}));
}

void lower_celu(LowerContext& c) {
  const double alpha = c.attr_float("alpha", 1.0);
  if (alpha != 0.0) return c.out(0, aten("celu", {c.in(0), alpha}));
  // torch refuses an alpha of 0, with which ONNX's formula makes NaN of what is positive.
  auto below = aten("mul.Tensor", {aten("expm1", {aten("div.Tensor", {c.in(0), 0.0})}), 0.0});
  c.out(0, aten("add.Tensor", {aten("relu", {c.in(0)}), aten("clamp_max", {below, 0.0})}));
}

/// torch's constants are ONNX's of opset 6 on; those of opset 1 had fewer digits.
void lower_selu(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const double alpha = c.attr_float("alpha", c.opset() < 6 ? 1.6732 : 1.67326319217681884765625);
  const double gamma = c.attr_float("gamma", c.opset() < 6 ? 1.0507 : 1.05070102214813232421875);
  if (std::abs(alpha - 1.6732632423543772) < 1e-6 && std::abs(gamma - 1.0507009873554805) < 1e-6)
    return c.out(0, aten("selu", {c.in(0)}));
  c.out(0, aten("mul.Tensor", {gamma, aten("elu", {c.in(0), alpha})}));
}

void lower_hard_sigmoid(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const double alpha = c.attr_float("alpha", 0.2);
  const double beta = c.attr_float("beta", 0.5);
  if (is_about(alpha, 1.0 / 6.0) && is_about(beta, 0.5))
    return c.out(0, aten("hardsigmoid", {c.in(0)}));
  c.out(0, aten("clamp", {aten("add.Tensor", {aten("mul.Tensor", {c.in(0), alpha}), beta}), 0, 1}));
}

/// Not torch's threshold, which keeps a NaN.
void lower_thresholded_relu(LowerContext& c) {
  const Ex x = c.in(0);
  c.out(0, aten("where.ScalarOther",
                {aten("gt.Scalar", {x, neat(c.attr_float("alpha", 1.0))}), x, 0}));
}

void lower_softsign(LowerContext& c) {
  const Ex x = c.in(0);
  c.out(0, aten("div.Tensor", {x, aten("add.Tensor", {1, aten("abs", {x})})}));
}

void lower_gelu(LowerContext& c) {
  Kwargs kw;
  if (const auto by = c.attr_string("approximate", "none"); by != "none")
    kw.emplace_back("approximate", Ex(by));
  c.out(0, aten("gelu", {c.in(0)}, kw));
}

Ex swish(const Ex& x, double alpha) {
  if (alpha == 1.0) return aten("silu", {x});
  return aten("mul.Tensor", {x, aten("sigmoid", {aten("mul.Tensor", {alpha, x})})});
}

void lower_swish(LowerContext& c) {
  c.out(0, swish(c.in(0), c.attr_float("alpha", 1.0)));
}

/// Swish of the first input gates the second.
void lower_swiglu(LowerContext& c) {
  c.out(0, aten("mul.Tensor", {swish(c.in(0), c.attr_float("alpha", 1.0)), c.in(1)}));
}

void infer_swiglu(InferContext& c) {
  c.set(0, c.dtype(0), broadcast(c.shape(0), c.shape(1)));
}

void lower_shrink(LowerContext& c) {
  const double bias = c.attr_float("bias", 0.0);
  const DType t = c.dtype(0);
  const double lambd = held(t, c.attr_float("lambd", 0.5));
  if (ir::is_float(t) && bias == 0 && lambd >= 0)
    return c.out(0, aten("hardshrink", {c.in(0), lambd}));
  if (ir::is_float(t) && bias == lambd && lambd >= 0)
    return c.out(0, aten("softshrink", {c.in(0), lambd}));
  const Ex x = c.let(computable(t, c.in(0)), "x");
  const Ex upper = aten("where.ScalarOther", {aten("gt.Scalar", {x, neat(lambd)}),
                                              aten("sub.Tensor", {x, neat(bias)}), 0});
  const Ex y = aten("where.self", {aten("lt.Scalar", {x, neat(-lambd)}),
                                   aten("add.Tensor", {x, neat(bias)}), upper});
  // An integer and a bias of 1.5 make a float.
  c.out(0, ir::is_float(t) && !lacks_arithmetic(t) ? y : aten("to.dtype", {y, Ex(t)}));
}

// ---------------------------------------------------------------- PRelu
// Before opset 7 the slope was one number or one a channel; since then it broadcasts to the input.

/// Slopes a channel of torch's prelu: 1, or the size of the input's axis 1; 0 where it is neither.
std::int64_t slopes(const NodeContext& c) {
  const auto slope = c.shape(1).constant();
  const auto rank = c.rank(0);
  if (!slope || !rank || !ir::is_float(c.dtype(0))) return 0;
  std::int64_t count = 1;
  for (const std::int64_t d : *slope) count *= d;
  if (count == 1) return slope->size() <= *rank ? 1 : 0;
  if (*rank < 2) return 0;
  const Dim& channels = c.shape(0)[1];
  // Where the size of axis 1 is not known, 1 would have to broadcast.
  if (!channels.is_const() || channels.value() != count) return 0;
  if (c.opset() < 7 && slope->size() == 1) return count;
  if (slope->size() > *rank || slope->size() < *rank - 1) return 0;
  return (*slope)[slope->size() + 1 - *rank] == count ? count : 0;
}

void lower_prelu(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const std::int64_t n = slopes(c);
  const Ex x = c.in(0);
  if (n > 0) {
    if (const auto y = c.module("PReLU", {}, {{"num_parameters", Ex(n)}},
                                {{.name = "weight", .value = c.input(1), .shape = {n}}}, {x}))
      return c.out(0, *y);
    return c.out(
        0, aten("prelu", {x, c.rank(1) == 1U ? c.in(1) : aten("reshape", {c.in(1), list({-1})})}));
  }
  const DType t = c.dtype(0);
  Ex slope = c.in(1);
  if (c.opset() < 7 && c.rank(0) && *c.rank(0) > 2 && c.rank(1) == 1U) {
    Args sizes{-1};
    for (std::size_t i = 2; i < *c.rank(0); ++i) sizes.emplace_back(1);
    slope = aten("reshape", {slope, list(sizes)});
  }
  const Ex scaled = computed(t, aten("mul.Tensor", {computable(t, x), computable(t, slope)}));
  // What is unsigned is never below zero.
  if (ir::is_unsigned(t)) return c.out(0, x);
  c.out(0, aten("where.self", {aten("lt.Scalar", {x, 0}), scaled, x}));
}

// ---------------------------------------------------------------- Softmax, LogSoftmax, Hardmax
// Opsets 1-12 flatten to two dimensions before `axis` (default 1); from 13 on one axis is
// normalised (default -1).

void lower_softmax(LowerContext& c) {
  const bool flattens = c.opset() < 13;
  const auto rank = c.rank(0);
  std::int64_t axis = c.attr_int("axis", flattens ? 1 : -1);
  // One past the end is no axis, except to flatten; a scalar is its own softmax axis.
  if (rank && *rank > 0 && !(flattens && axis == static_cast<std::int64_t>(*rank)))
    axis = c.axis(axis, *rank);
  const bool hard = c.node().op_type == "Hardmax";
  const char* overload = c.node().op_type == "Softmax" ? "softmax.int" : "log_softmax.int";
  const DType t = c.dtype(0);
  const auto along = [&](const Ex& x, std::int64_t dim) {
    if (hard) return helper("hardmax", {x}, {{"axis", Ex(dim)}});
    return computed(t, aten(overload, {computable(t, x), dim}));
  };
  const Ex x = c.in(0);
  if (!flattens) return c.out(0, along(x, axis));
  bool last = rank.has_value();  // nothing but ones after the axis
  for (auto i = static_cast<std::size_t>(axis) + 1; rank && i < *rank; ++i) {
    const Dim& d = c.shape(0)[i];
    last = last && d.is_const() && d.value() == 1;
  }
  if (last && rank && axis < static_cast<std::int64_t>(*rank)) return c.out(0, along(x, axis));
  if (rank && axis >= static_cast<std::int64_t>(*rank)) {
    // Each element is a row of its own.
    return c.out(0, aten("reshape", {along(aten("unsqueeze", {x, -1}), -1), torch::shape_of(x)}));
  }
  c.out(0, aten("reshape", {along(aten("flatten.using_ints", {x, axis}), -1), torch::shape_of(x)}));
}

// ---------------------------------------------------------------- Dropout
// The ratio was an attribute before opset 12. The mask is of the data's type before opset 10.

DType mask_dtype(const NodeContext& c) {
  return c.opset() < 10 ? c.dtype(0) : DType::Bool;
}

void infer_dropout(InferContext& c) {
  c.set(0, c.dtype(0), c.shape(0));
  c.set(1, mask_dtype(c), c.shape(0));
}

bool fold_dropout(FoldContext& c) {
  if (dropout_mode(c.node()) != Mode::Inference || (c.has_output(1) && c.node().output(1)->has_uses())) return false;
  c.set(0, c.input(0));
  return true;
}

void lower_dropout(LowerContext& c) {
  for (const char* a : {"consumed_inputs", "is_test", "ratio", "seed"}) c.ignore_attr(a);
  const Ex x = c.in(0);
  const Mode mode = dropout_mode(c.node());
  if (mode == Mode::Inference) {
    c.out(0, x);
    if (c.has_output(1)) c.out(1, aten("ones_like", {x}, {{"dtype", Ex(mask_dtype(c))}}));
    return;
  }
  auto ratio = std::optional(0.5);
  if (c.opset() < 12) {
    ratio = c.attr_float("ratio", 0.5);
  } else if (c.has_input(1)) {
    ratio = c.const_number(1);
  }
  const bool always = mode == Mode::Training;
  const bool mask_used = c.has_output(1) && c.node().output(1)->has_uses();
  const bool seeded = c.has_attr("seed");
  if (ratio && always && !mask_used && !seeded) return c.out(0, aten("dropout", {x, *ratio, true}));
  const Ex p = ratio ? Ex(*ratio) : c.in(1);
  const auto parts = c.lets(helper("dropout_with_mask", {x, p, always ? Ex(true) : c.in(2)},
                                   seeded ? Kwargs{{"seed", Ex(c.attr_int("seed"))}} : Kwargs{}),
                            {"dropped", "mask"});
  c.out(0, parts[0]);
  c.out(1, mask_dtype(c) == DType::Bool ? parts[1] : aten("to.dtype", {parts[1], Ex(mask_dtype(c))}));
}

// ---------------------------------------------------------------- ScaledTanh, ParametricSoftplus
// Experimental in opset 1, and still in files of that time. Neither has defaults.

double required_float(const NodeContext& c, std::string_view name) {
  if (!c.has_attr(name)) c.fail("the attribute \"" + std::string(name) + "\" is missing");
  return c.attr_float(name, 0.0);
}

void lower_scaled_tanh(LowerContext& c) {
  const double alpha = required_float(c, "alpha");
  const double beta = required_float(c, "beta");
  Ex x = c.in(0);
  if (beta != 1.0) x = aten("mul.Tensor", {x, beta});
  x = aten("tanh", {x});
  c.out(0, alpha == 1.0 ? x : aten("mul.Tensor", {x, alpha}));
}

void lower_parametric_softplus(LowerContext& c) {
  const double alpha = required_float(c, "alpha");
  const double beta = required_float(c, "beta");
  Ex x = c.in(0);
  if (beta != 1.0) x = aten("mul.Tensor", {x, beta});
  x = aten("softplus", {x});
  c.out(0, alpha == 1.0 ? x : aten("mul.Tensor", {x, alpha}));
}

constexpr OpDef kActivationOps[] = {
    {.type = "Relu", .changed_at = {1, 6, 14}, .infer = infer_same, .lower = lower_unary<kRelu>},
    {.type = "LeakyRelu", .changed_at = {1, 6}, .infer = infer_same, .lower = lower_leaky_relu},
    {.type = "PRelu", .changed_at = {1, 6, 7}, .infer = infer_same, .lower = lower_prelu},
    {.type = "Elu", .changed_at = {1, 6}, .infer = infer_same, .lower = lower_elu},
    {.type = "Celu", .changed_at = {12}, .infer = infer_same, .lower = lower_celu},
    {.type = "Selu", .changed_at = {1, 6}, .infer = infer_same, .lower = lower_selu},
    {.type = "Sigmoid", .changed_at = {1, 6}, .infer = infer_same, .lower = lower_unary<kSigmoid>},
    {.type = "HardSigmoid", .changed_at = {1, 6}, .infer = infer_same, .lower = lower_hard_sigmoid},
    {.type = "HardSwish",
     .changed_at = {14},
     .infer = infer_same,
     .lower = lower_unary<kHardSwish>},
    {.type = "ThresholdedRelu",
     .changed_at = {10},
     .infer = infer_same,
     .lower = lower_thresholded_relu},
    {.type = "Softplus", .changed_at = {1}, .infer = infer_same, .lower = lower_unary<kSoftplus>},
    {.type = "Softsign", .changed_at = {1}, .infer = infer_same, .lower = lower_softsign},
    {.type = "ScaledTanh", .changed_at = {1}, .infer = infer_same, .lower = lower_scaled_tanh},
    {.type = "ParametricSoftplus",
     .changed_at = {1},
     .infer = infer_same,
     .lower = lower_parametric_softplus},
    {.type = "Gelu", .changed_at = {20}, .infer = infer_same, .lower = lower_gelu},
    {.type = "Mish", .changed_at = {18}, .infer = infer_same, .lower = lower_unary<kMish>},
    {.type = "Swish", .changed_at = {24}, .infer = infer_same, .lower = lower_swish},
    {.type = "SwiGLU", .changed_at = {28}, .infer = infer_swiglu, .lower = lower_swiglu},
    {.type = "Shrink", .changed_at = {9}, .infer = infer_same, .lower = lower_shrink},
    {.type = "Softmax", .changed_at = {1, 11, 13}, .infer = infer_same, .lower = lower_softmax},
    {.type = "LogSoftmax", .changed_at = {1, 11, 13}, .infer = infer_same, .lower = lower_softmax},
    {.type = "Hardmax", .changed_at = {1, 11, 13}, .infer = infer_same, .lower = lower_softmax},
    {.type = "Dropout",
     .changed_at = {1, 6, 7, 10, 12},
     .infer = infer_dropout,
     .fold = fold_dropout,
     .lower = lower_dropout},
};

}  // namespace

std::span<const OpDef> activation_ops() {
  return kActivationOps;
}

}  // namespace onnx2nn::ops
