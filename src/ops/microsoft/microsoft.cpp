// com.microsoft: activations, norms, and operators that ai.onnx has too.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md Attention, fused
// products, generation, hybrid models, what is quantised and signals have files of their own.
#include "ops/microsoft/microsoft.h"

#include <algorithm>

#include "ops/onnx/pass_on.h"
#include "ops/registry.h"
#include "ops/onnx/training.h"

namespace onnx2nn::ops {

const OpDef& standard_op(std::string_view type) {
  const OpDef* op = find_op("", type);
  if (op == nullptr || op->infer == nullptr || op->lower == nullptr)
    throw Error("unsupported-operator", "the operator " + std::string(type) + " is not supported");
  return *op;
}

void infer_as_input(InferContext& c) {
  c.set(0, c.type(0));
}

Dim dim_of(const Shape& s, std::size_t axis) {
  return s.has_rank() && axis < s.rank() ? s[axis] : Dim();
}

void infer_lstm_outputs(InferContext& c, std::size_t hidden_axis) {
  const Shape& x = c.shape(0);
  const Dim directions(c.attr_string("direction", "forward") == "bidirectional" ? 2 : 1);
  const Dim hidden = dim_of(c.shape(2), hidden_axis);
  c.set(0, c.dtype(0), Shape({dim_of(x, 0), directions, dim_of(x, 1), hidden}));
  for (std::size_t i = 1; i < 3; ++i)
    c.set(i, c.dtype(0), Shape({directions, dim_of(x, 1), hidden}));
}

Kwargs lstm_attributes(LowerContext& c) {
  c.ignore_attr("hidden_size");  // the weights' shapes say it
  return pass_attributes(c, {{"direction", AttrKind::String},
                             {"activations", AttrKind::StringList},
                             {"activation_alpha", AttrKind::FloatList},
                             {"activation_beta", AttrKind::FloatList},
                             {"clip", AttrKind::Float},
                             {"input_forget"}});
}

Shape matmul_shape_of(InferContext& c, const Shape& a, const Shape& b) {
  if (!a.has_rank() || !b.has_rank()) return {};
  if (a.rank() < 1 || b.rank() < 1) c.fail("an operand is a scalar");
  if (a.rank() == 1 || b.rank() == 1) return {};
  Shape out = broadcast(Shape(Dims(a.dims().begin(), a.dims().end() - 2)),
                        Shape(Dims(b.dims().begin(), b.dims().end() - 2)));
  out.dims().push_back(a[a.rank() - 2]);
  out.dims().push_back(b[b.rank() - 1]);
  return out;
}

namespace {

Ex plus(const Ex& a, const Ex& b) {
  return aten("add.Tensor", {a, b});
}
Ex times(const Ex& a, const Ex& b) {
  return aten("mul.Tensor", {a, b});
}

// ---------------------------------------------------------------- activations

void infer_broadcast(InferContext& c) {
  c.set(0, c.dtype(0), c.has_input(1) ? broadcast(c.shape(0), c.shape(1)) : c.shape(0));
}

/// Input 0, with the bias of input 1 where there is one.
Ex biased(LowerContext& c) {
  return c.has_input(1) ? plus(c.in(0), c.in(1)) : c.in(0);
}

void lower_gelu(LowerContext& c) {
  c.out(0, aten("gelu", {biased(c)}));
}
void lower_fast_gelu(LowerContext& c) {
  c.out(0, aten("gelu", {biased(c), Ex("tanh")}));
}

void lower_quick_gelu(LowerContext& c) {
  const Ex x = c.in(0);
  const double alpha = c.attr_float("alpha", static_cast<double>(1.702F));
  if (alpha == 1.0) return c.out(0, aten("silu", {x}));
  c.out(0, times(x, aten("sigmoid", {times(x, Ex(alpha))})));
}

void infer_split_gelu(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() == 0) return c.set(0, c.dtype(0));
  Dims out = s.dims();
  out.back() = Dim::floor_div(out.back(), Dim(2));
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_split_gelu(LowerContext& c) {
  c.out(0, helper("bias_split_gelu", {c.in(0), c.in(1)}));
}

void lower_bias_add(LowerContext& c) {
  c.out(0, plus(plus(c.in(0), c.in(1)), c.in(2)));
}

void refuse_training(LowerContext& c) {
  if (dropout_mode(c.node()) != Mode::Inference) c.unsupported("training mode is not supported");
}

/// As in inference: dropout does nothing, bias and residual are added.
void lower_bias_dropout(LowerContext& c) {
  c.ignore_attr("seed");
  if (c.has_output(1)) c.unsupported("the mask of a dropout is not known in inference");
  refuse_training(c);
  Ex y = biased(c);
  if (c.has_input(2)) y = plus(y, c.in(2));
  c.out(0, y);
}

void infer_bias_dropout(InferContext& c) {
  infer_broadcast(c);
  if (c.has_output(1)) c.set(1, DType::Bool, c.shape(0));
}

/// BiasSoftmax: softmax over all axes from `axis` on, at once; the bias broadcasts as in Add.
void lower_bias_softmax(LowerContext& c) {
  const std::size_t rank = c.known_rank(0);
  const std::int64_t axis = c.axis(c.attr_int("axis", 1), rank);
  c.ignore_attr("is_inner_broadcast");  // the shape of the bias says it
  const Ex x = plus(c.in(0), c.in(1));
  if (axis + 1 == static_cast<std::int64_t>(rank))
    return c.out(0, aten("softmax.int", {x, Ex(-1)}));
  const Ex sum = c.let(x, "biased");
  const Ex flat = aten("flatten.using_ints", {sum, Ex(axis)});
  c.out(0, aten("reshape_as", {aten("softmax.int", {flat, Ex(-1)}), sum}));
}

/// BitmaskDropout: as in inference, the input.
void lower_bitmask_dropout(LowerContext& c) {
  c.ignore_attr("seed");
  if (c.has_output(1)) c.unsupported("the bits of a dropout's mask are not known in inference");
  refuse_training(c);
  c.out(0, c.in(0));
}

void infer_bitmask_dropout(InferContext& c) {
  c.set(0, c.type(0));
  c.set(1, DType::UInt32, Shape({Dim()}));
}

void infer_bitmask_bias_dropout(InferContext& c) {
  infer_broadcast(c);
  c.set(1, DType::UInt32, Shape({Dim()}));
}

// ---------------------------------------------------------------- norms
// Outputs: Y, mean, inverse deviation, the sum that was normalised.

constexpr double kSkipEpsilon = 1e-12;

double skip_epsilon(const NodeContext& c) {
  return c.attr_float("epsilon", static_cast<double>(static_cast<float>(kSkipEpsilon)));
}

void infer_skip_norm(InferContext& c) {
  const Shape& s = c.shape(0);
  c.set(0, c.type(0));
  Shape statistics;
  if (s.has_rank() && s.rank() > 0) {
    Dims d = s.dims();
    d.back() = Dim(1);
    statistics = Shape(std::move(d));
  }
  c.set(1, DType::Float32, statistics);
  c.set(2, DType::Float32, statistics);
  c.set(3, c.type(0));
}

/// nn.LayerNorm over the last axis where gamma and beta are constants, else the function.
Ex layer_norm(LowerContext& c, const Ex& x, std::size_t gamma, std::size_t beta, double epsilon) {
  const ir::Tensor* g = c.constant(gamma);
  const ir::Tensor* b = c.constant(beta);
  const bool fits =
      g != nullptr && g->rank() == 1 &&
      (!c.has_input(beta) || (b != nullptr && b->dims() == g->dims() && b->dtype() == g->dtype()));
  if (fits) {
    std::vector<ModuleParam> params{{.name = "weight", .value = c.input(gamma)}};
    Kwargs kw{{"eps", Ex(epsilon)}};
    if (b != nullptr) {
      params.push_back({.name = "bias", .value = c.input(beta)});
    } else {
      kw.emplace_back("bias", Ex(false));
    }
    if (const auto y = c.module("LayerNorm", {Ex(g->dims()[0])}, kw, params, {x})) return *y;
  }
  const Ex shape = list({c.dim(gamma, 0)});
  return aten("layer_norm", {x, shape, c.in(gamma), c.in(beta), Ex(epsilon)});
}

Ex rms_norm(LowerContext& c, const Ex& x, std::size_t gamma, double epsilon) {
  if (const ir::Tensor* g = c.constant(gamma); g != nullptr && g->rank() == 1)
    if (const auto y = c.module("RMSNorm", {Ex(g->dims()[0])}, {{"eps", Ex(epsilon)}},
                                {{.name = "weight", .value = c.input(gamma)}}, {x}))
      return *y;
  return aten("rms_norm", {x, list({c.dim(gamma, 0)}), c.in(gamma), Ex(epsilon)});
}

/// x + skip (+ bias), which is output 3 as well where that is asked for.
Ex skip_sum(LowerContext& c, std::size_t bias) {
  Ex sum = plus(c.in(0), c.in(1));
  if (c.has_input(bias)) sum = plus(sum, c.in(bias));
  if (!c.has_output(3)) return c.residual(c.let(sum, "x"));
  c.out(3, sum);
  return c.residual(c.result(3));
}

void lower_skip_layer_norm(LowerContext& c) {
  const double epsilon = skip_epsilon(c);
  if (c.has_output(1) || c.has_output(2) || c.known_rank(2) != 1)
    return outs_of(c, helper("skip_layer_norm", pass_inputs(c, 0, 5), {{"epsilon", Ex(epsilon)}}),
                   4);
  const Ex sum = skip_sum(c, 4);
  c.out(0, layer_norm(c, sum, 2, 3, epsilon));
}

void lower_skip_rms_norm(LowerContext& c) {
  const double epsilon = skip_epsilon(c);
  if (c.has_output(1) || c.has_output(2) || c.known_rank(2) != 1)
    return outs_of(
        c, helper("skip_simplified_layer_norm", pass_inputs(c, 0, 4), {{"epsilon", Ex(epsilon)}}),
        4);
  const Ex sum = skip_sum(c, 3);
  c.out(0, rms_norm(c, sum, 2, epsilon));
}

void infer_simplified_norm(InferContext& c) {
  c.set(0, c.dtype(1) == DType::Undefined ? c.dtype(0) : c.dtype(1), c.shape(0));
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() == 0) return c.set(1, DType::Float32);
  Dims d = s.dims();
  const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", -1), s.rank()));
  std::fill(d.begin() + static_cast<std::ptrdiff_t>(axis), d.end(), Dim(1));
  c.set(1, DType::Float32, Shape(std::move(d)));
}

void lower_simplified_norm(LowerContext& c) {
  c.ignore_attr("stash_type");
  const double epsilon = c.attr_float("epsilon", static_cast<double>(1e-5F));
  const std::int64_t axis = c.attr_int("axis", -1);
  const bool last = axis == -1 || (c.rank(0) && axis + 1 == static_cast<std::int64_t>(*c.rank(0)));
  if (!c.has_output(1) && last && c.rank(1) == 1U && c.dtype(0) == c.dtype(1))
    return c.out(0, rms_norm(c, c.in(0), 1, epsilon));
  Kwargs kw;
  if (axis != -1) kw.emplace_back("axis", Ex(axis));
  kw.emplace_back("epsilon", Ex(epsilon));
  outs_of(c, helper("simplified_layer_norm", {c.in(0), c.in(1)}, kw), 2);
}

/// GroupNorm and SkipGroupNorm (inputs X, gamma, beta, skip, bias): channels last unless said
/// otherwise.
template <bool Skip>
void infer_group_norm(InferContext& c) {
  c.set(0, c.type(0));
  if (Skip) c.set(1, c.type(0));
}

template <bool Skip>
void lower_group_norm(LowerContext& c) {
  Ex x = c.in(0);
  if (Skip) {
    Ex skip = c.in(3);
    if (c.known_rank(3) == 2) skip = aten("unsqueeze", {aten("unsqueeze", {skip, 1}), 1});
    x = plus(x, skip);
    if (c.has_input(4)) x = plus(x, c.in(4));
    c.out(1, x);
    if (c.has_output(1)) x = c.result(1);
  }
  const bool last = c.attr_int("channels_last", 1) != 0;
  if (last) x = aten("movedim.int", {x, -1, 1});
  Ex y = aten("group_norm", {x, Ex(c.attr_int("groups")), c.in(1), c.in(2),
                             Ex(c.attr_float("epsilon", static_cast<double>(1e-5F)))});
  if (last) y = aten("movedim.int", {y, 1, -1});
  c.out(0, c.attr_int("activation") == 1 ? aten("silu", {y}) : y);
}

// ---------------------------------------------------------------- what ai.onnx has too

constexpr const char* kTrilu = "Trilu";
constexpr const char* kPad = "Pad";
constexpr const char* kGridSample = "GridSample";
constexpr const char* kGatherNd = "GatherND";
constexpr const char* kRange = "Range";

void lower_inverse(LowerContext& c) {
  const DType t = c.dtype(0);
  if (t != DType::Float16 && t != DType::BFloat16) return c.out(0, aten("linalg_inv", {c.in(0)}));
  // Torch has no inverse of halves.
  const Ex wide = aten("to.dtype", {c.in(0), Ex(DType::Float32)});
  c.out(0, aten("to.dtype", {aten("linalg_inv", {wide}), Ex(t)}));
}

void infer_expand_dims(InferContext& c) {
  const Shape& s = c.shape(0);
  const auto axis = c.const_ints(1);
  if (!s.has_rank() || !axis || axis->size() != 1)
    return c.set(0, c.dtype(0), s.has_rank() ? Shape::unknown_dims(s.rank() + 1) : Shape());
  Dims d = s.dims();
  d.insert(d.begin() + static_cast<std::ptrdiff_t>(c.axis((*axis)[0], s.rank() + 1)), Dim(1));
  c.set(0, c.dtype(0), Shape(std::move(d)));
}

void lower_expand_dims(LowerContext& c) {
  c.out(0, aten("unsqueeze", {c.in(0), c.int_scalar(1)}));
}

void infer_unique(InferContext& c) {
  const Dim n = Dim::unknown();
  c.set(0, c.dtype(0), Shape({n}));
  c.set(1, DType::Int64, c.shape(0));
  c.set(2, DType::Int64, Shape({n}));
}

/// The values in the order in which they first appear, the index of each element's value, the
/// counts.
void lower_unique(LowerContext& c) {
  const auto parts = c.lets(helper("unique_values", {c.in(0)}, {{"sorted", Ex(0)}}),
                            {"values", "_", "inverse", "counts"});
  c.out(0, parts[0]);
  c.out(1, parts[2]);
  c.out(2, parts[3]);
}

void infer_crop_and_resize(InferContext& c) {
  Dims out(4);
  out[0] = dim_of(c.shape(1), 0);
  out[1] = dim_of(c.shape(0), 1);
  if (const auto size = c.contents(3); size && size->size() == 2) {
    out[2] = (*size)[0];
    out[3] = (*size)[1];
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_crop_and_resize(LowerContext& c) {
  c.out(0, helper("crop_and_resize", {c.in(0), c.in(1), c.in(2), c.int_list(3)},
                  pass_attributes(
                      c, {{"mode", AttrKind::String}, {"extrapolation_value", AttrKind::Float}})));
}

void lower_identity(LowerContext& c) {
  c.out(0, c.in(0));
}

void infer_bifurcation(InferContext& c) {
  c.set(0, DType::Int64, Shape({Dim::unknown()}));
  c.set(1, DType::Int64, Shape::of({}));
}

void lower_bifurcation(LowerContext& c) {
  outs_of(c,
          helper("bifurcation_detector", pass_inputs(c, 0, 4),
                 pass_attributes(c, {{"min_ngram_size"}, {"max_ngram_size"}})),
          2);
}

void infer_complex_mul(InferContext& c) {
  c.set(0, c.dtype(0), broadcast(c.shape(0), c.shape(1)));
}

template <bool Conjugate>
void lower_complex_mul(LowerContext& c) {
  const auto complex = [&](std::size_t i) {
    return aten("view_as_complex", {aten("contiguous", {c.in(i)})});
  };
  const Ex b = Conjugate ? aten("conj", {complex(1)}) : complex(1);
  c.out(0, aten("view_as_real", {times(complex(0), b)}));
}

void infer_cdist(InferContext& c) {
  c.set(0, c.dtype(0), Shape({dim_of(c.shape(0), 0), dim_of(c.shape(1), 0)}));
}

void lower_cdist(LowerContext& c) {
  const std::string metric = c.attr_string("metric", "sqeuclidean");
  if (metric != "sqeuclidean" && metric != "euclidean")
    c.unsupported("the metric \"" + metric + "\" is not known");
  const Ex y = aten("cdist", {c.in(0), c.in(1)});
  c.out(0, metric == "euclidean" ? y : aten("square", {y}));
}

constexpr OpDef kMicrosoftOps[] = {
    {.type = "Gelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_gelu},
    {.type = "BiasGelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_broadcast,
     .lower = lower_gelu},
    {.type = "FastGelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_broadcast,
     .lower = lower_fast_gelu},
    {.type = "QuickGelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_quick_gelu},
    {.type = "BiasSplitGelu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_split_gelu,
     .lower = lower_split_gelu},
    {.type = "BiasAdd",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_bias_add},
    {.type = "BiasDropout",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_bias_dropout,
     .lower = lower_bias_dropout},
    {.type = "BitmaskBiasDropout",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_bitmask_bias_dropout,
     .lower = lower_bias_dropout},
    {.type = "BitmaskDropout",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_bitmask_dropout,
     .lower = lower_bitmask_dropout},
    {.type = "BiasSoftmax",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_bias_softmax},
    {.type = "SkipLayerNormalization",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_skip_norm,
     .lower = lower_skip_layer_norm},
    {.type = "SkipSimplifiedLayerNormalization",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_skip_norm,
     .lower = lower_skip_rms_norm},
    {.type = "SimplifiedLayerNormalization",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_simplified_norm,
     .lower = lower_simplified_norm},
    {.type = "SimplifiedLayerNormalization",
     .changed_at = {1},
     .infer = infer_simplified_norm,
     .lower = lower_simplified_norm},
    {.type = "GroupNorm",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_group_norm<false>,
     .lower = lower_group_norm<false>},
    {.type = "SkipGroupNorm",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_group_norm<true>,
     .lower = lower_group_norm<true>},
    {.type = "Inverse",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_inverse},
    {.type = "Trilu",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kTrilu, 14>,
     .lower = lower_like<kTrilu, 14>},
    {.type = "Pad",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kPad, 13>,
     .lower = lower_like<kPad, 13>},
    {.type = "GridSample",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kGridSample, 16>,
     .lower = lower_like<kGridSample, 16>},
    {.type = "GatherND",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kGatherNd, 11>,
     .lower = lower_like<kGatherNd, 11>},
    {.type = "Range",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_like<kRange, 11>,
     .lower = lower_like<kRange, 11>},
    {.type = "ExpandDims",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_expand_dims,
     .lower = lower_expand_dims},
    {.type = "Unique",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_unique,
     .lower = lower_unique},
    {.type = "CropAndResize",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_crop_and_resize,
     .lower = lower_crop_and_resize},
    {.type = "SampleOp",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_as_input,
     .lower = lower_identity},
    {.type = "BifurcationDetector",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_bifurcation,
     .lower = lower_bifurcation},
    {.type = "ComplexMul",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_complex_mul,
     .lower = lower_complex_mul<false>},
    {.type = "ComplexMulConj",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_complex_mul,
     .lower = lower_complex_mul<true>},
    {.type = "CDist",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_cdist,
     .lower = lower_cdist},
};

}  // namespace

std::span<const OpDef> microsoft_ops() {
  return kMicrosoftOps;
}

}  // namespace onnx2nn::ops
