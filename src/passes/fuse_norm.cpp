// Normalisations that exporters spell in arithmetic: a deviation over a root of a mean of squares.
#include <algorithm>
#include <numeric>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

constexpr std::int64_t kLayerNorm = 17;
constexpr std::int64_t kRmsNorm = 23;
constexpr std::int64_t kGroupNormByChannel = 21;

ir::Value* binary_square(const ir::Value* v) {
  if (v == nullptr || !v->has_one_use()) return nullptr;
  if (const auto p = before_number(v->producer(), "Pow")) return p->number == 2.0 ? p->x : nullptr;
  const ir::Node* mul = producer_of(v, "Mul");
  return mul != nullptr && mul->input(0) == mul->input(1) ? mul->input(0) : nullptr;
}

/// x / sqrt(mean(x * x) + epsilon) over the last axes, or others.
struct RootMeanSquare {
  ir::Value* x = nullptr;
  Ints axes;
  double epsilon = 0.0;
};

/// mean(x * x) + epsilon under the root that is `v`, or its reciprocal.
std::optional<RootMeanSquare> mean_square_under(const ir::Value* v, bool reciprocal) {
  if (v == nullptr || v->producer() == nullptr || !v->has_one_use()) return std::nullopt;
  const ir::Node* n = v->producer();
  const ir::Value* sum = nullptr;
  if (const auto p = before_number(n, "Pow")) {
    if (p->number == (reciprocal ? -0.5 : 0.5)) sum = p->x;
  } else if (!reciprocal) {
    if (n->is("Sqrt")) sum = n->input(0);
  } else if (n->is("Reciprocal")) {
    return mean_square_under(n->input(0), false);
  } else if (n->is("Div") && splat(n->input(0)) == 1.0) {
    return mean_square_under(n->input(1), false);
  }
  if (sum == nullptr || !sum->has_one_use()) return std::nullopt;
  const auto with_epsilon = with_number(sum->producer(), "Add");
  if (!with_epsilon || with_epsilon->number < 0.0) return std::nullopt;
  const ir::Node* mean = sole_producer(with_epsilon->x, "ReduceMean");
  if (mean == nullptr) return std::nullopt;
  auto axes = kept_axes(*mean);
  ir::Value* x = binary_square(mean->input(0));
  if (!axes || x == nullptr) return std::nullopt;
  return RootMeanSquare{x, std::move(*axes), with_epsilon->number};
}

/// The value that `n` divides by the root of its mean square.
std::optional<std::pair<ir::Value*, RootMeanSquare>> divided_by_root(const ir::Node& n) {
  if (n.input_count() != 2) return std::nullopt;
  if (n.is("Div")) {
    if (auto r = mean_square_under(n.input(1), false)) return std::pair(n.input(0), std::move(*r));
    return std::nullopt;
  }
  for (std::size_t i = 0; i < 2; ++i)
    if (auto r = mean_square_under(n.input(i), true))
      return std::pair(n.input(1 - i), std::move(*r));
  return std::nullopt;
}

/// x, where `v` is x less its mean over `axes`.
ir::Value* centred(const ir::Value* v, const Ints& axes) {
  const ir::Node* sub = producer_of(v, "Sub");
  if (sub == nullptr || sub->input_count() != 2) return nullptr;
  const ir::Node* mean = producer_of(sub->input(1), "ReduceMean");
  if (mean == nullptr || mean->input(0) != sub->input(0)) return nullptr;
  return kept_axes(*mean) == axes ? sub->input(0) : nullptr;
}

bool are_last(const Ints& axes, std::size_t rank) {
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (axes[i] != static_cast<std::int64_t>(rank - axes.size() + i)) return false;
  return true;
}

/// The dimensions of x over which it is normalised, where they are numbers: no more elements than
/// any layer has.
std::optional<Ints> sizes(const ir::Value& x, const Ints& axes) {
  constexpr std::int64_t kMost = 1 << 22;
  Ints out;
  std::int64_t count = 1;
  for (const std::int64_t a : axes) {
    const ir::Dim& d = x.type.shape[static_cast<std::size_t>(a)];
    if (!d.is_const() || d.value() < 1 || d.value() > kMost / count) return std::nullopt;
    count *= d.value();
    out.push_back(d.value());
  }
  return out;
}

ir::Value* filled(Rewriter& w, ir::Graph& g, std::string_view stem, ir::DType t, const Ints& dims,
                  double value) {
  const std::int64_t count =
      std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>());
  return w.constant(
      g, stem, rounded(t, dims, std::vector<double>(static_cast<std::size_t>(count), value)));
}

/// `v` as a tensor of just `dims`, where it is that but for ones before; else null.
ir::Value* of_shape(Rewriter& w, ir::Graph& g, ir::Value* v, ir::DType t, const Ints& dims) {
  if (v == nullptr || !v->type.is_tensor() || v->type.dtype != t) return nullptr;
  const auto have = v->type.shape.constant();
  if (!have || have->size() < dims.size()) return nullptr;
  const auto extra = static_cast<std::ptrdiff_t>(have->size() - dims.size());
  if (!std::equal(dims.begin(), dims.end(), have->begin() + extra)) return nullptr;
  if (extra == 0) return v;
  if (!v->constant || !v->has_one_use() ||
      std::any_of(have->begin(), have->begin() + extra, [](std::int64_t d) { return d != 1; }))
    return nullptr;
  return w.weight(g, *v, v->constant->reshaped(dims));
}

/// A constant of one element a channel, as the channels' vector; else null.
ir::Value* of_channels(Rewriter& w, ir::Graph& g, ir::Value* v, ir::DType t, std::size_t rank,
                       std::int64_t channels) {
  if (v == nullptr || !v->constant || v->constant->dtype() != t ||
      v->constant->size() != channels || v->constant->rank() + 1 < rank ||
      v->constant->rank() > rank)
    return nullptr;
  if (v->constant->dims()[v->constant->rank() + 1 - rank] != channels) return nullptr;
  return w.weight(g, *v, v->constant->reshaped({channels}));
}

/// What comes after the division: a Cast back, a scale, a shift. `last` is the node whose output is
/// replaced.
struct Tail {
  ir::Value* x = nullptr;   // what is normalised, before a Cast to float32
  ir::Node* last = nullptr;
  ir::Value* scale = nullptr;
  ir::Value* bias = nullptr;
};

/// Halves that are normalised as floats: Cast, normalisation, Cast; or a Cast that does nothing.
void pass_casts(Tail& tail, const ir::Value* normalized) {
  ir::Node* back = sole_user(normalized, "Cast");
  const bool is_float = normalized->type.dtype == ir::DType::Float32;
  if (back != nullptr && is_float && same_type(back->output(0), normalized)) {
    tail.last = back;
    return;
  }
  const ir::Node* to_float = producer_of(tail.x, "Cast");
  if (back == nullptr || to_float == nullptr || tail.x->type.dtype != ir::DType::Float32) return;
  ir::Value* halves = to_float->input(0);
  const ir::DType t = halves->type.is_tensor() ? halves->type.dtype : ir::DType::Undefined;
  if ((t != ir::DType::Float16 && t != ir::DType::BFloat16) ||
      back->output(0)->type.dtype != t || !halves->type.shape.same(tail.x->type.shape))
    return;
  tail.x = halves;
  tail.last = back;
}

/// Scale, and bias where `with_bias`, in the form that `fit` gives them; null where it does not.
template <typename Fit>
void take_affine(Tail& tail, bool with_bias, Fit&& fit) {
  ir::Node* mul = sole_user(tail.last->output(0), "Mul");
  if (mul == nullptr || !same_type(mul->output(0), tail.last->output(0))) return;
  tail.scale = fit(other_input(*mul, tail.last->output(0)));
  if (tail.scale == nullptr) return;
  tail.last = mul;
  ir::Node* add = with_bias ? sole_user(mul->output(0), "Add") : nullptr;
  if (add == nullptr || !same_type(add->output(0), mul->output(0))) return;
  tail.bias = fit(other_input(*add, mul->output(0)));
  if (tail.bias != nullptr) tail.last = add;
}

ir::Node* become(Rewriter& w, const Tail& tail, std::string_view op_type, std::int64_t opset,
                 std::span<ir::Value* const> inputs, double epsilon) {
  ir::Node* made = w.add(op_type, inputs, *tail.last->output(0), *tail.last);
  made->opset = opset;
  set_attr(*made, "epsilon", epsilon);
  w.replace(tail.last->output(0), made->output(0));
  return made;
}

void set_axis(ir::Node& n, const Ints& axes, std::size_t rank) {
  set_attr(n, "axis", axes.front() - static_cast<std::int64_t>(rank));
}

// Div(Sub(x, m = ReduceMean(x)), Sqrt(Add(ReduceMean(Pow(Sub(x, m), 2)), e))) * s + b
//   =>   LayerNormalization(x, s, b)
bool fuse_layer_norm(Rewriter& w, ir::Node& n) {
  const auto found = divided_by_root(n);
  if (!found) return false;
  const auto& [dividend, root] = *found;
  ir::Value* x = centred(dividend, root.axes);
  if (x == nullptr || centred(root.x, root.axes) != x) return false;
  const std::size_t rank = x->type.shape.rank();
  if (!is_fusible_type(w, x) || !same_type(x, n.output(0)))
    return w.miss(n, "the element type or the shape changes on the way");
  if (!are_last(root.axes, rank)) return w.miss(n, "the axes are not the last ones");
  Tail tail{.x = x, .last = &n};
  pass_casts(tail, n.output(0));
  const ir::DType t = tail.x->type.dtype;
  if (tail.last == &n && t != ir::DType::Float32 && !w.options().any_opset)
    return w.miss(n, "the arithmetic is not in float32, as LayerNormalization's is");
  const auto dims = sizes(*x, root.axes);
  if (!dims) return w.miss(n, "the size of the normalised axes is not known");
  const auto opset = opset_for(w, n, "LayerNormalization", kLayerNorm);
  if (!opset) return false;
  ir::Graph& g = *n.graph();
  take_affine(tail, true, [&](ir::Value* v) { return of_shape(w, g, v, t, *dims); });
  if (tail.scale == nullptr) tail.scale = filled(w, g, "ones", t, *dims, 1.0);
  ir::Value* const inputs[] = {tail.x, tail.scale, tail.bias};
  ir::Node* made = become(w, tail, "LayerNormalization", *opset,
                          std::span(inputs, tail.bias != nullptr ? 3 : 2), root.epsilon);
  set_axis(*made, root.axes, rank);
  return true;
}

// Mul(Div(x, Sqrt(Add(ReduceMean(Pow(x, 2)), e))), s)   =>   RMSNormalization(x, s)
bool fuse_rms_norm(Rewriter& w, ir::Node& n) {
  const auto found = divided_by_root(n);
  if (!found) return false;
  const auto& [x, root] = *found;
  if (root.x != x) return false;
  const std::size_t rank = x->type.shape.rank();
  if (!is_fusible_type(w, x) || !same_type(x, n.output(0)))
    return w.miss(n, "the element type or the shape changes on the way");
  if (!are_last(root.axes, rank)) return w.miss(n, "the axes are not the last ones");
  Tail tail{.x = x, .last = &n};
  pass_casts(tail, n.output(0));
  const ir::DType t = tail.x->type.dtype;
  if (tail.last == &n && t != ir::DType::Float32 && !w.options().any_opset)
    return w.miss(n, "the arithmetic is not in float32, as RMSNormalization's is");
  const auto dims = sizes(*x, root.axes);
  if (!dims) return w.miss(n, "the size of the normalised axes is not known");
  const auto opset = opset_for(w, n, "RMSNormalization", kRmsNorm);
  if (!opset) return false;
  ir::Graph& g = *n.graph();
  take_affine(tail, false, [&](ir::Value* v) { return of_shape(w, g, v, t, *dims); });
  if (tail.scale == nullptr) tail.scale = filled(w, g, "ones", t, *dims, 1.0);
  ir::Value* const inputs[] = {tail.x, tail.scale};
  set_axis(*become(w, tail, "RMSNormalization", *opset, inputs, root.epsilon), root.axes, rank);
  return true;
}

// Add(Mul(InstanceNormalization(x, 1, 0), s), b)   =>   InstanceNormalization(x, s, b)
bool fuse_instance_affine(Rewriter& w, ir::Node& n) {
  const ir::Value* x = n.input(0);
  if (n.input_count() != 3 || !same_type(x, n.output(0)) || !x->type.shape.has_rank() ||
      x->type.shape.rank() < 3 || !is_fusible_type(w, x))
    return false;
  if (!w.options().any_opset) return w.miss(n, "runtimes know the longer form");
  if (splat(n.input(1)) != 1.0 || splat(n.input(2)) != 0.0 || n.input(1)->constant->rank() != 1)
    return false;
  const Ints channels = n.input(1)->constant->dims();
  ir::Graph& g = *n.graph();
  Tail tail{.x = n.input(0), .last = &n};
  take_affine(tail, true, [&](ir::Value* v) {
    return of_channels(w, g, v, x->type.dtype, x->type.shape.rank(), channels[0]);
  });
  if (tail.scale == nullptr) return w.miss(n, "no scale with one element a channel follows");
  if (tail.bias == nullptr) tail.bias = filled(w, g, "zeros", x->type.dtype, channels, 0.0);
  ir::Value* const inputs[] = {tail.x, tail.scale, tail.bias};
  become(w, tail, "InstanceNormalization", n.opset, inputs, attr_float(n, "epsilon", 1e-5));
  return true;
}

// the same as for LayerNormalization, over all axes after the channels' and with a scale a channel
//   =>   InstanceNormalization(x, s, b)
bool fuse_instance_norm(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kSince = 6;
  const auto found = divided_by_root(n);
  if (!found || n.opset < kSince) return false;
  const auto& [dividend, root] = *found;
  ir::Value* x = centred(dividend, root.axes);
  if (x == nullptr || centred(root.x, root.axes) != x || !same_type(x, n.output(0))) return false;
  const std::size_t rank = x->type.shape.rank();
  if (rank < 3 || root.axes.size() != rank - 2 || !are_last(root.axes, rank)) return false;
  if (x->type.dtype != ir::DType::Float32) return w.miss(n, "it is not in float32");
  const ir::Dim& channels = x->type.shape[1];
  if (!channels.is_const() || channels.value() < 1)
    return w.miss(n, "the number of channels is not known");
  ir::Graph& g = *n.graph();
  Tail tail{.x = x, .last = &n};
  take_affine(tail, true, [&](ir::Value* v) {
    return of_channels(w, g, v, x->type.dtype, rank, channels.value());
  });
  if (tail.scale == nullptr) return w.miss(n, "no scale with one element a channel follows");
  if (tail.bias == nullptr)
    tail.bias = filled(w, g, "zeros", x->type.dtype, {channels.value()}, 0.0);
  ir::Value* const inputs[] = {x, tail.scale, tail.bias};
  become(w, tail, "InstanceNormalization", n.opset, inputs, root.epsilon);
  return true;
}

// Reshape(InstanceNormalization(Reshape(x, [0, G, -1]), 1, 0), Shape(x)) * s + b
//   =>   GroupNormalization(x, s, b), which runtimes compute in many small steps, but torch in one
bool fuse_group_norm(Rewriter& w, ir::Node& n) {
  const ir::Node* norm = sole_producer(n.input(0), "InstanceNormalization");
  if (norm == nullptr || norm->input_count() != 3) return false;
  const ir::Node* flat = sole_producer(norm->input(0), "Reshape");
  ir::Value* x = flat != nullptr ? flat->input(0) : nullptr;
  if (x == nullptr || !same_type(x, n.output(0)) || !is_fusible_type(w, x)) return false;
  if (!w.options().any_opset) return w.miss(n, "runtimes are faster with InstanceNormalization");
  const ir::Shape& shape = x->type.shape;
  const ir::Shape& groups = flat->output(0)->type.shape;
  if (!groups.has_rank() || groups.rank() != 3 || shape.rank() < 3 || !(groups[0] == shape[0]) ||
      !groups[1].is_const() || !shape[1].is_const() || shape[1].value() % groups[1].value() != 0)
    return w.miss(n, "the shapes are not those of groups of channels");
  if (splat(norm->input(1)) != 1.0 || splat(norm->input(2)) != 0.0)
    return w.miss(n, "the groups are scaled or shifted themselves");
  ir::Graph& g = *n.graph();
  const std::int64_t channels = shape[1].value();
  const ir::DType t = x->type.dtype;
  Tail tail{.x = x, .last = &n};
  take_affine(tail, true,
              [&](ir::Value* v) { return of_channels(w, g, v, t, shape.rank(), channels); });
  if (tail.scale == nullptr) tail.scale = filled(w, g, "ones", t, {channels}, 1.0);
  if (tail.bias == nullptr) tail.bias = filled(w, g, "zeros", t, {channels}, 0.0);
  ir::Value* const inputs[] = {x, tail.scale, tail.bias};
  ir::Node* made = become(w, tail, "GroupNormalization", std::max(n.opset, kGroupNormByChannel),
                          inputs, attr_float(*norm, "epsilon", 1e-5));
  set_attr(*made, "num_groups", groups[1].value());
  return true;
}

}  // namespace

std::span<const Rule> norm_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-instance-norm",
       .what = "InstanceNormalization in its arithmetic",
       .apply = fuse_instance_norm,
       .ops = {"Div", "Mul"},
       .in_conversion = true},
      {.name = "fuse-instance-affine",
       .what = "Mul and Add by channel into InstanceNormalization, for torch",
       .apply = fuse_instance_affine,
       .ops = {"InstanceNormalization"},
       .in_conversion = true},
      {.name = "fuse-layer-norm",
       .what = "LayerNormalization in its arithmetic",
       .apply = fuse_layer_norm,
       .ops = {"Div", "Mul"},
       .in_conversion = true},
      {.name = "fuse-rms-norm",
       .what = "RMSNormalization in its arithmetic",
       .apply = fuse_rms_norm,
       .ops = {"Div", "Mul"},
       .in_conversion = true},
      {.name = "fuse-group-norm",
       .what = "InstanceNormalization of groups becomes GroupNormalization, for torch",
       .apply = fuse_group_norm,
       .ops = {"Reshape"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
