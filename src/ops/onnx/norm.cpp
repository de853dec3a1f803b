// Normalisations. https://onnx.ai/onnx/operators/onnx__BatchNormalization.html and its neighbours.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/training.h"

namespace onnx2nn::ops {
namespace {

constexpr double kEpsilon = 1e-5;  // ONNX's and torch's

double epsilon_of(const NodeContext& c) {
  return c.attr_float("epsilon", static_cast<double>(static_cast<float>(kEpsilon)));
}

bool is_default_epsilon(double epsilon) {
  return static_cast<float>(epsilon) == static_cast<float>(kEpsilon);
}

/// The keyword `name`, which torch and our helpers have at 1e-5 too.
void add_epsilon(const NodeContext& c, Kwargs& kw, const char* name) {
  if (const double e = epsilon_of(c); !is_default_epsilon(e)) kw.emplace_back(name, e);
}

bool is_vector(const ir::Tensor* t, std::int64_t n) {
  return t != nullptr && t->rank() == 1 && t->dims()[0] == n;
}

/// A scale or shift that no weight of the model holds: ONNX has no form without one. Where the
/// author's module has such a weight it was not trained yet, and is kept.
bool is_filler(const LowerContext& c, std::size_t i, double value) {
  const ir::Tensor* t = c.constant(i);
  return t != nullptr && !c.input(i)->is_initializer && t->is_splat() && t->double_at(0) == value &&
         !c.scope_has(i == 1 ? "weight" : "bias");
}

// ---------------------------------------------------------------- BatchNormalization
// `spatial` = 0 (opset 1-8) has statistics for each place of a channel.

constexpr std::size_t kMean = 3;
constexpr std::size_t kVar = 4;

void infer_batch_norm(InferContext& c) {
  c.set(0, c.type(0));
  for (std::size_t i = 1; i < c.output_count(); ++i) c.set(i, c.type(i % 2 == 1 ? kMean : kVar));
}

/// Scale, bias and statistics are constants of one dtype, with one value a channel.
bool batch_norm_fits_module(const NodeContext& c) {
  const ir::Tensor* scale = c.constant(1);
  if (scale == nullptr || scale->rank() != 1 || scale->dims()[0] == 0) return false;
  for (std::size_t i = 1; i <= kVar; ++i)
    if (!is_vector(c.constant(i), scale->dims()[0]) || c.dtype(i) != scale->dtype()) return false;
  return true;
}

std::optional<Ex> batch_norm_module(LowerContext& c, double momentum) {
  if (!batch_norm_fits_module(c)) return std::nullopt;
  Kwargs kw;
  add_epsilon(c, kw, "eps");
  // Torch's is the weight of the new value; rounded, as 1 - 0.9f is not quite 0.1.
  constexpr double kDigits = 1e7;
  const double mine = std::round((1.0 - momentum) * kDigits) / kDigits;
  if (mine != 0.1) kw.emplace_back("momentum", mine);
  static const ir::TensorPtr kNoBatches = ir::Tensor::scalar(0);
  const std::size_t spatial = std::max<std::size_t>(c.known_rank(0), 3) - 2;
  return c.module("BatchNorm" + std::to_string(spatial) + "d", {c.constant(1)->dims()[0]}, kw,
                  {{.name = "weight", .value = c.input(1)},
                   {.name = "bias", .value = c.input(2)},
                   {.name = "running_mean", .value = c.input(kMean), .buffer = true},
                   {.name = "running_var", .value = c.input(kVar), .buffer = true},
                   {.name = "num_batches_tracked", .tensor = kNoBatches, .buffer = true}},
                  {c.in(0)});
}

/// A channel has more than one value, as torch demands; sizes not known are taken for that.
bool many_places(const Shape& x) {
  Dim places(1);
  for (std::size_t i = 2; i < x.rank(); ++i) places = places * x[i];
  return !places.is_const() || places.value() > 1;
}

/// The mean of `x` over all axes but the channels'.
bool is_batch_mean(const ir::Value* v, const ir::Value* x, bool keeps) {
  const ir::Node* n = v != nullptr ? v->producer() : nullptr;
  if (n == nullptr || !n->is("ReduceMean") || n->input(0) != x) return false;
  const NodeContext c(*n);
  auto axes = c.attr_ints("axes");
  if (!axes && c.has_input(1) && c.constant(1) != nullptr) axes = c.constant(1)->to_ints();
  const auto rank = c.rank(0);
  if (!axes || !rank || axes->size() + 1 != *rank || (c.attr_int("keepdims", 1) != 0) != keeps)
    return false;
  const Ints sorted = c.axes(*axes, *rank);
  return std::count(sorted.begin(), sorted.end(), 1) == 0;
}

/// The mean of the squares of `x` less its mean.
bool is_batch_variance(const ir::Value* v, const ir::Value* x) {
  const ir::Node* n = v != nullptr ? v->producer() : nullptr;
  const ir::Value* square = n != nullptr && n->is("ReduceMean") ? n->input(0) : nullptr;
  const ir::Node* mul = square != nullptr ? square->producer() : nullptr;
  if (mul == nullptr || !is_batch_mean(v, square, false)) return false;
  const bool squares = mul->is("Mul") ? mul->input(0) == mul->input(1)
                                      : mul->is("Pow") && NodeContext(*mul).constant(1) != nullptr &&
                                            NodeContext(*mul).constant(1)->size() == 1 &&
                                            NodeContext(*mul).constant(1)->double_at(0) == 2.0;
  const ir::Node* less = squares ? mul->input(0)->producer() : nullptr;
  return less != nullptr && less->is("Sub") && less->input(0) == x &&
         is_batch_mean(less->input(1), x, true);
}

/// Weights of a convolution that it standardises: nobody else reads them, and they go through a
/// Reshape to it, whose dimensions they had.
std::optional<Ints> standardised(const LowerContext& c) {
  const ir::Value* w = c.input(0);
  const ir::Value* y = c.node().output(0);
  if (!c.is_constant(0) || c.is_as_authored(w) || !ir::is_float(c.dtype(0)) || !y->has_one_use())
    return std::nullopt;
  const ir::Node* reshape = y->first_use()->user;
  const ir::Value* weight = reshape->is("Reshape") ? reshape->output(0) : nullptr;
  if (weight == nullptr || weight->first_use() == nullptr || !weight->first_use()->user->is("Conv") ||
      weight->first_use()->index != 1)
    return std::nullopt;
  return weight->type.shape.constant();
}

/// With the statistics of its own input.
Ex normalised_by_itself(LowerContext& c) {
  const auto dims = standardised(c);
  const Ex x = dims ? c.own_weight(0, "weight", *dims) : c.in(0);
  Kwargs kw{{"weight", c.in(1)}, {"bias", c.in(2)}};
  if (is_filler(c, 2, 0.0)) kw.pop_back();
  kw.emplace_back("training", true);
  add_epsilon(c, kw, "eps");
  return call("F.batch_norm", {x, kNone, kNone}, kw);
}

/// Where nobody reads the running statistics: what torch's batch norm does while it trains.
std::optional<Ex> batch_norm_of_batch(LowerContext& c, bool spatial) {
  for (std::size_t i = 1; i < c.output_count(); ++i)
    if (c.has_output(i) && c.node().output(i)->has_uses()) return std::nullopt;
  const DType t = c.dtype(0);
  if (!spatial || (t != DType::Float32 && t != DType::Float64)) return std::nullopt;
  for (std::size_t i = 1; i <= kVar; ++i)
    if (c.dtype(i) != t) return std::nullopt;
  if (c.rank(0).value_or(0) < 3 || !many_places(c.shape(0))) return std::nullopt;
  return normalised_by_itself(c);
}

void lower_batch_norm_training(LowerContext& c, bool spatial, double momentum) {
  if (const auto y = batch_norm_of_batch(c, spatial)) return c.out(0, *y);
  Kwargs kw;
  add_epsilon(c, kw, "epsilon");
  if (momentum != static_cast<double>(0.9F)) kw.emplace_back("momentum", momentum);
  if (!spatial) kw.emplace_back("spatial", false);
  const Ex all = helper("batch_normalization_training",
                        {c.in(0), c.in(1), c.in(2), c.in(kMean), c.in(kVar)}, kw);
  std::vector<std::string> hints{"y", "mean", "var", "batch_mean", "batch_var"};
  for (std::size_t i = 1; i < hints.size(); ++i)
    if (!c.has_output(i)) hints[i] = "_";
  const auto results = c.lets(all, hints);
  for (std::size_t i = 0; i < c.output_count() && i < results.size(); ++i) c.alias(i, results[i]);
}

void lower_batch_norm(LowerContext& c) {
  for (const char* a : {"consumed_inputs", "is_test", "training_mode"}) c.ignore_attr(a);
  const double momentum = c.attr_float("momentum", static_cast<double>(0.9F));
  const bool spatial = c.opset() >= 9 || c.attr_int("spatial", 1) != 0;
  if (batch_norm_mode(c.node()) == Mode::Training)
    return lower_batch_norm_training(c, spatial, momentum);
  const auto rank = c.rank(0);
  bool same_dtype = true;
  for (std::size_t i = 1; i <= kVar; ++i) same_dtype = same_dtype && c.dtype(i) == c.dtype(0);
  const bool vectors = spatial || c.rank(kMean) == 1U;
  const ir::Value* x = c.input(0);
  if (same_dtype && rank.value_or(0) >= 3 && many_places(c.shape(0)) && is_batch_mean(c.input(kMean), x, false) &&
      is_batch_variance(c.input(kVar), x))
    return c.out(0, normalised_by_itself(c));
  if (vectors && rank && *rank >= 2 && *rank <= 5 && same_dtype)
    if (const auto y = batch_norm_module(c, momentum)) return c.out(0, *y);
  Kwargs kw;
  // Torch gives statistics no gradients.
  const bool given = c.is_constant(kMean) && c.is_constant(kVar);
  if (vectors && same_dtype && given && rank.value_or(2) >= 2) {
    kw = {{"weight", c.in(1)}, {"bias", c.in(2)}};
    add_epsilon(c, kw, "eps");
    return c.out(0, call("F.batch_norm", {c.in(0), c.in(kMean), c.in(kVar)}, kw));
  }
  add_epsilon(c, kw, "epsilon");
  c.out(0, helper("batch_normalization", {c.in(0), c.in(1), c.in(2), c.in(kMean), c.in(kVar)}, kw));
}

void infer_same(InferContext& c) {
  c.set(0, c.type(0));
}

// ---------------------------------------------------------------- InstanceNormalization

void lower_instance_norm(LowerContext& c) {
  c.ignore_attr("consumed_inputs");
  const auto rank = c.rank(0);
  const bool same_dtype = c.dtype(0) == c.dtype(1) && c.dtype(0) == c.dtype(2);
  Kwargs kw;
  if (rank && *rank >= 3 && same_dtype && many_places(c.shape(0))) {
    const ir::Tensor* scale = c.constant(1);
    if (is_filler(c, 1, 1.0) && is_filler(c, 2, 0.0)) {
      add_epsilon(c, kw, "eps");
      return c.out(0, call("F.instance_norm", {c.in(0)}, kw));
    }
    if (*rank <= 5 && scale != nullptr && scale->rank() == 1 && scale->dims()[0] > 0 &&
        is_vector(c.constant(2), scale->dims()[0])) {
      add_epsilon(c, kw, "eps");
      kw.emplace_back("affine", true);
      const auto y =
          c.module("InstanceNorm" + std::to_string(*rank - 2) + "d", {scale->dims()[0]}, kw,
                   {{.name = "weight", .value = c.input(1)}, {.name = "bias", .value = c.input(2)}},
                   {c.in(0)});
      if (y) return c.out(0, *y);
    }
    kw = {{"weight", c.in(1)}, {"bias", c.in(2)}};
    add_epsilon(c, kw, "eps");
    return c.out(0, call("F.instance_norm", {c.in(0)}, kw));
  }
  add_epsilon(c, kw, "epsilon");
  c.out(0, helper("instance_normalization", {c.in(0), c.in(1), c.in(2)}, kw));
}

// ---------------------------------------------------------------- LayerNormalization,
// RMSNormalization Scale and bias may broadcast against the normalised axes; torch's have just
// their shape.

DType stash_type(const NodeContext& c) {
  return c.attr_dtype("stash_type", DType::Float32);
}

void infer_layer_norm(InferContext& c) {
  c.set(0, c.type(0));
  const Shape& x = c.shape(0);
  Shape reduced;
  if (x.has_rank() && x.rank() > 0) {
    Dims dims = x.dims();
    for (auto i = static_cast<std::size_t>(c.axis(c.attr_int("axis", -1), x.rank()));
         i < dims.size(); ++i)
      dims[i] = 1;
    reduced = Shape(std::move(dims));
  }
  c.set(1, stash_type(c), reduced);
  c.set(2, stash_type(c), reduced);
}

void infer_rms_norm(InferContext& c) {
  c.set(0, c.dtype(1), c.shape(0));
}

/// The normalised shape, where it is known and input `i` (the scale) has just it.
std::optional<Ints> normalized_shape(const NodeContext& c, std::size_t i) {
  const Shape& s = c.shape(i);
  const auto dims = s.constant();
  if (!dims || dims->empty()) return std::nullopt;
  const std::int64_t axis = c.attr_int("axis", -1);
  const Shape& x = c.shape(0);
  if (!x.has_rank()) {
    if (axis != -static_cast<std::int64_t>(dims->size())) return std::nullopt;
    return std::none_of(dims->begin(), dims->end(), [](std::int64_t d) { return d == 1; })
               ? dims
               : std::nullopt;
  }
  if (x.rank() == 0) return std::nullopt;
  const auto first = static_cast<std::size_t>(c.axis(axis, x.rank()));
  if (x.rank() - first != dims->size()) return std::nullopt;
  for (std::size_t d = 0; d < dims->size(); ++d) {
    const Dim& size = x[first + d];
    // One that is not 1 does not broadcast: it is the size of x.
    if (size.is_const() ? size.value() != (*dims)[d] : (*dims)[d] == 1) return std::nullopt;
  }
  return dims;
}

/// A module's weight has the dtype and shape that it is created with; statistics are at least of
/// stash_type's precision.
bool norm_is_native(const NodeContext& c, const std::optional<Ints>& shape) {
  if (!shape || c.dtype(0) != c.dtype(1)) return false;
  const DType stash = stash_type(c);
  return stash == DType::Float32 || stash == c.dtype(0);
}

bool same_shape(const NodeContext& c, std::size_t i, const Ints& shape) {
  const auto dims = c.shape(i).constant();
  return dims && *dims == shape && c.dtype(i) == c.dtype(0);
}

void lower_layer_norm(LowerContext& c) {
  c.ignore_attr("epsion");  // old fusions misspelt epsilon; ONNX Runtime takes the default then
  const auto shape = normalized_shape(c, 1);
  const bool more_outputs = c.has_output(1) || c.has_output(2);
  const bool has_bias = c.has_input(2);
  Kwargs kw;
  if (!more_outputs && norm_is_native(c, shape) && (!has_bias || same_shape(c, 2, *shape))) {
    add_epsilon(c, kw, "eps");
    if (!has_bias && is_filler(c, 1, 1.0))
      return c.out(0, call("F.layer_norm", {c.in(0), Ex(*shape)}, kw));
    if (!has_bias) kw.emplace_back("bias", false);
    std::vector<ModuleParam> params{{.name = "weight", .value = c.input(1)}};
    if (has_bias) params.push_back({.name = "bias", .value = c.input(2)});
    const Ex size = shape->size() == 1 ? Ex((*shape)[0]) : Ex(*shape);
    if (const auto y = c.module("LayerNorm", {size}, kw, params, {c.in(0)})) return c.out(0, *y);
    return c.out(0, aten("layer_norm", {c.in(0), Ex(*shape), c.in(1), c.in(2), epsilon_of(c)}));
  }
  if (const std::int64_t axis = c.attr_int("axis", -1); axis != -1) kw.emplace_back("axis", axis);
  add_epsilon(c, kw, "epsilon");
  if (stash_type(c) != DType::Float32) kw.emplace_back("stash_type", stash_type(c));
  const auto results =
      c.lets(helper("layer_normalization", {c.in(0), c.in(1), c.in(2)}, kw),
             {"y", c.has_output(1) ? "mean" : "_", c.has_output(2) ? "inv_std" : "_"});
  for (std::size_t i = 0; i < results.size(); ++i) c.alias(i, results[i]);
}

void lower_rms_norm(LowerContext& c) {
  const auto shape = normalized_shape(c, 1);
  Kwargs kw;
  if (norm_is_native(c, shape)) {
    const double epsilon = epsilon_of(c);
    if (is_filler(c, 1, 1.0))
      return c.out(0, call("F.rms_norm", {c.in(0), Ex(*shape)}, {{"eps", epsilon}}));
    const Ex size = shape->size() == 1 ? Ex((*shape)[0]) : Ex(*shape);
    if (const auto y = c.module("RMSNorm", {size}, {{"eps", epsilon}},
                                {{.name = "weight", .value = c.input(1)}}, {c.in(0)}))
      return c.out(0, *y);
    return c.out(0, aten("rms_norm", {c.in(0), Ex(*shape), c.in(1), epsilon}));
  }
  if (const std::int64_t axis = c.attr_int("axis", -1); axis != -1) kw.emplace_back("axis", axis);
  add_epsilon(c, kw, "epsilon");
  if (stash_type(c) != DType::Float32) kw.emplace_back("stash_type", stash_type(c));
  c.out(0, helper("rms_normalization", {c.in(0), c.in(1)}, kw));
}

// ---------------------------------------------------------------- GroupNormalization
// Opset 18 has scale and bias for each group, 21 for each channel.

void lower_group_norm(LowerContext& c) {
  const std::int64_t groups = c.attr_int("num_groups");
  if (groups < 1) c.fail("num_groups is not positive");
  c.ignore_attr("stash_type");  // helpers and torch compute in float32 at least
  const Shape& x = c.shape(0);
  const Shape& scale = c.shape(1);
  const Dim count = scale.has_rank() && scale.rank() == 1 ? scale[0] : Dim();
  const bool of_channels = count.is_const() && count.value() > 0 && count.value() % groups == 0 &&
                           x.has_rank() && x.rank() >= 2 &&
                           (c.opset() >= 21 || (x[1].is_const() && x[1].value() == count.value()));
  const bool same_dtype = c.dtype(0) == c.dtype(1) && c.dtype(0) == c.dtype(2);
  const bool many = of_channels && (count.value() > groups || many_places(x));
  Kwargs kw;
  if (of_channels && same_dtype && many) {
    add_epsilon(c, kw, "eps");
    if (is_filler(c, 1, 1.0) && is_filler(c, 2, 0.0))
      return c.out(0, call("F.group_norm", {c.in(0), groups}, kw));
    if (is_vector(c.constant(1), count.value()) && is_vector(c.constant(2), count.value()))
      if (const auto y = c.module(
              "GroupNorm", {groups, count.value()}, kw,
              {{.name = "weight", .value = c.input(1)}, {.name = "bias", .value = c.input(2)}},
              {c.in(0)}))
        return c.out(0, *y);
    return c.out(0, aten("group_norm", {c.in(0), groups, c.in(1), c.in(2), epsilon_of(c)}));
  }
  add_epsilon(c, kw, "epsilon");
  c.out(0, helper("group_normalization", {c.in(0), c.in(1), c.in(2), groups}, kw));
}

// ---------------------------------------------------------------- LRN, LpNormalization,
// MeanVarianceNormalization

void lower_lrn(LowerContext& c) {
  const std::int64_t size = c.attr_int("size");
  if (size < 1) c.fail("size is not positive");
  const double alpha = c.attr_float("alpha", static_cast<double>(1e-4F));
  const double beta = c.attr_float("beta", 0.75);
  const double bias = c.attr_float("bias", 1.0);
  // Torch looks one channel further back where the size is even.
  // Nor has it a pooling of halves for it on the CPU.
  const bool half = c.dtype(0) == DType::Float16 || c.dtype(0) == DType::BFloat16;
  const bool native = size % 2 == 1 && c.rank(0).value_or(0) >= 3 && !half;
  Kwargs kw;
  if (alpha != static_cast<double>(1e-4F)) kw.emplace_back("alpha", alpha);
  if (beta != 0.75) kw.emplace_back("beta", beta);
  if (bias != 1.0) kw.emplace_back(native ? "k" : "bias", bias);
  if (native) return c.out(0, call("F.local_response_norm", {c.in(0), size}, kw));
  c.out(0, helper("lrn", {c.in(0), size}, kw));
}

void lower_lp_norm(LowerContext& c) {
  Kwargs kw;
  if (const std::int64_t axis = c.attr_int("axis", -1); axis != -1) kw.emplace_back("axis", axis);
  if (const std::int64_t p = c.attr_int("p", 2); p != 2) kw.emplace_back("p", p);
  c.out(0, helper("lp_normalization", {c.in(0)}, kw));
}

void lower_mean_variance_norm(LowerContext& c) {
  Kwargs kw;
  if (const auto axes = c.attr_ints("axes"); axes && *axes != Ints{0, 2, 3})
    kw.emplace_back("axes", Ex(*axes));
  c.out(0, helper("mean_variance_normalization", {c.in(0)}, kw));
}

constexpr OpDef kNormOps[] = {
    {.type = "BatchNormalization",
     .changed_at = {1, 6, 7, 9, 14, 15},
     .infer = infer_batch_norm,
     .lower = lower_batch_norm},
    {.type = "InstanceNormalization",
     .changed_at = {1, 6},
     .infer = infer_same,
     .lower = lower_instance_norm},
    {.type = "LayerNormalization",
     .changed_at = {17},
     .infer = infer_layer_norm,
     .lower = lower_layer_norm},
    {.type = "RMSNormalization",
     .changed_at = {23},
     .infer = infer_rms_norm,
     .lower = lower_rms_norm},
    {.type = "GroupNormalization",
     .changed_at = {18, 21},
     .infer = infer_same,
     .lower = lower_group_norm},
    {.type = "LRN", .changed_at = {1}, .infer = infer_same, .lower = lower_lrn},
    {.type = "LpNormalization", .changed_at = {1}, .infer = infer_same, .lower = lower_lp_norm},
    {.type = "MeanVarianceNormalization",
     .changed_at = {9},
     .infer = infer_same,
     .lower = lower_mean_variance_norm},
};

}  // namespace

std::span<const OpDef> norm_ops() {
  return kNormOps;
}

}  // namespace onnx2nn::ops
