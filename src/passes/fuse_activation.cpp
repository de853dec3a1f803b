// Activations that exporters spell in arithmetic. A form whose value differs where it overflows, or
// for what is not a number, is left as it is.
#include <cmath>
#include <limits>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// `op_type` of `inputs` for the output of `n`.
ir::Node* become(Rewriter& w, ir::Node& n, std::string_view op_type, std::int64_t opset,
                 std::span<ir::Value* const> inputs) {
  ir::Node* made = w.add(op_type, inputs, *n.output(0), n);
  made->opset = opset;
  w.replace(n.output(0), made->output(0));
  return made;
}

/// x * f * scale, where `f` is what another node makes for this product alone.
struct Gated {
  ir::Value* x = nullptr;
  ir::Node* gate = nullptr;
  double scale = 1.0;
};

/// The products of two factors that `n` is, with either factor as the gate.
std::array<Gated, 2> gated(Rewriter& w, const ir::Node& n) {
  std::array<Gated, 2> out;
  if (n.output(0) == nullptr || !is_fusible_type(w, n.output(0))) return out;
  const auto p = product_of(n);
  if (!p || p->count != 2) return out;
  for (std::size_t i = 0; i < 2; ++i)
    if (p->factors[i]->has_one_use())
      out[i] = {p->factors[1 - i], p->factors[i]->producer(), p->scale};
  return out;
}

bool is_gate(const Gated& g, std::string_view op_type) {
  return g.gate != nullptr && g.gate->is(op_type);
}

ir::DType dtype(const ir::Node& n) {
  return n.output(0)->type.dtype;
}

// Mul(Mul(x, Add(Erf(Div(x, 1.41421)), 1)), 0.5)   =>   Gelu(x)
bool is_gelu(const Gated& g, ir::DType t) {
  const auto sum = with_number(g.gate, "Add");
  if (!sum || sum->number != 1.0 || !is_about(g.scale, 0.5, t)) return false;
  const ir::Node* erf = sole_producer(sum->x, "Erf");
  if (erf == nullptr || !erf->input(0)->has_one_use() || erf->input(0)->producer() == nullptr)
    return false;
  const auto inner = product_of(*erf->input(0)->producer());
  return inner && inner->count == 1 && inner->factors[0] == g.x &&
         is_about(inner->scale, std::sqrt(0.5), t);
}

/// x to the third, or to the second.
bool is_power(const ir::Value* v, const ir::Value* x, int power) {
  if (v == nullptr || v->producer() == nullptr) return false;
  if (const auto p = before_number(v->producer(), "Pow"))
    return p->x == x && p->number == static_cast<double>(power);
  const auto p = product_of(*v->producer());
  if (!p || p->scale != 1.0) return false;
  if (p->count == 2 && power == 3)
    return (p->factors[0] == x && is_power(p->factors[1], x, 2)) ||
           (p->factors[1] == x && is_power(p->factors[0], x, 2));
  if (static_cast<int>(p->count) != power) return false;
  for (std::size_t i = 0; i < p->count; ++i)
    if (p->factors[i] != x) return false;
  return true;
}

/// 0.044715 x^power, in any order.
bool is_small_power(const ir::Value* v, const ir::Value* x, int power, ir::DType t) {
  constexpr double kCubic = 0.044715;
  if (v == nullptr || v->producer() == nullptr || !v->has_one_use()) return false;
  const auto p = product_of(*v->producer());
  if (!p || !is_about(p->scale, kCubic, t)) return false;
  if (p->count == 1) return is_power(p->factors[0], x, power);
  if (p->count == 2 && power == 3)
    return (p->factors[0] == x && is_power(p->factors[1], x, 2)) ||
           (p->factors[1] == x && is_power(p->factors[0], x, 2));
  for (std::size_t i = 0; i < p->count; ++i)
    if (p->factors[i] != x) return false;
  return static_cast<int>(p->count) == power;
}

// Mul(Mul(x, 0.5), Add(Tanh(Mul(Add(x, Mul(Pow(x, 3), 0.044715)), 0.79788)), 1))
//   =>   Gelu(x) by tanh
bool is_tanh_gelu(const Gated& g, ir::DType t) {
  const auto sum = with_number(g.gate, "Add");
  if (!sum || sum->number != 1.0 || !is_about(g.scale, 0.5, t)) return false;
  const ir::Node* tanh = sole_producer(sum->x, "Tanh");
  if (tanh == nullptr || !tanh->input(0)->has_one_use() || tanh->input(0)->producer() == nullptr)
    return false;
  const auto inner = product_of(*tanh->input(0)->producer());
  if (!inner || !is_about(inner->scale, std::sqrt(2.0 / std::acos(-1.0)), t)) return false;
  if (inner->count == 1) {
    const ir::Node* add = sole_producer(inner->factors[0], "Add");
    if (add == nullptr || add->input_count() != 2) return false;
    return (add->input(0) == g.x && is_small_power(add->input(1), g.x, 3, t)) ||
           (add->input(1) == g.x && is_small_power(add->input(0), g.x, 3, t));
  }
  if (inner->count != 2) return false;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto one_more = with_number(sole_producer(inner->factors[i], "Add"), "Add");
    if (inner->factors[1 - i] == g.x && one_more && one_more->number == 1.0 &&
        is_small_power(one_more->x, g.x, 2, t))
      return true;
  }
  return false;
}

bool fuse_gelu(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kSince = 20;
  for (const Gated& g : gated(w, n)) {
    if (!is_gate(g, "Add")) continue;
    const bool by_tanh = is_tanh_gelu(g, dtype(n));
    if (!by_tanh && !is_gelu(g, dtype(n))) {
      if (const auto sum = with_number(g.gate, "Add");
          sum && (producer_of(sum->x, "Erf") != nullptr || producer_of(sum->x, "Tanh") != nullptr))
        w.miss(n, "a number or an operand is not Gelu's, or another node uses a part of it");
      continue;
    }
    const auto opset = opset_for(w, n, "Gelu", kSince);
    if (!opset) return false;
    ir::Value* const inputs[] = {g.x};
    ir::Node* gelu = become(w, n, "Gelu", *opset, inputs);
    if (by_tanh) set_attr(*gelu, "approximate", std::string("tanh"));
    return true;
  }
  return false;
}

// Mul(x, Sigmoid(x))   =>   Swish(x)
bool fuse_swish(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kSince = 24;
  for (const Gated& g : gated(w, n)) {
    if (!is_gate(g, "Sigmoid") || g.gate->input(0) != g.x || g.scale != 1.0) continue;
    // Runtimes know the product as one kernel, and Swish not yet.
    if (!w.options().any_opset) return w.miss(n, "runtimes are faster with the product");
    ir::Value* const inputs[] = {g.x};
    become(w, n, "Swish", std::max(n.opset, kSince), inputs);
    return true;
  }
  return false;
}

// Mul(x, Tanh(Softplus(x)))   =>   Mish(x)
bool fuse_mish(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kSince = 18;
  for (const Gated& g : gated(w, n)) {
    if (!is_gate(g, "Tanh") || g.scale != 1.0) continue;
    const ir::Node* softplus = sole_producer(g.gate->input(0), "Softplus");
    if (softplus == nullptr || softplus->input(0) != g.x) continue;
    const auto opset = opset_for(w, n, "Mish", kSince);
    if (!opset) return false;
    ir::Value* const inputs[] = {g.x};
    become(w, n, "Mish", *opset, inputs);
    return true;
  }
  return false;
}

/// What `n` limits its input to.
struct Limits {
  ir::Value* x = nullptr;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

std::optional<Limits> limits_of(const ir::Node* n) {
  if (n == nullptr || n->input(0) == nullptr) return std::nullopt;
  Limits out{n->input(0)};
  if (n->is("Relu")) {
    out.low = 0.0;
    return out;
  }
  if (!n->is("Clip")) return std::nullopt;
  constexpr std::int64_t kInputs = 11;
  if (n->opset < kInputs) {
    constexpr double kLargest = std::numeric_limits<float>::max();
    out.low = attr_float(*n, "min", -kLargest);
    out.high = attr_float(*n, "max", kLargest);
    return std::isnan(out.low) || std::isnan(out.high) ? std::nullopt : std::optional(out);
  }
  for (std::size_t i = 1; i < 3; ++i) {
    if (n->input(i) == nullptr) continue;
    const auto limit = splat(n->input(i));
    if (!limit || std::isnan(*limit)) return std::nullopt;
    (i == 1 ? out.low : out.high) = *limit;
  }
  return out;
}

/// relu6(x + 3), which nobody else uses.
ir::Value* relu6_of_three_more(const ir::Value* v) {
  if (v == nullptr || v->producer() == nullptr || !v->has_one_use()) return nullptr;
  const auto limits = limits_of(v->producer());
  if (!limits || limits->low != 0.0 || limits->high != 6.0) return nullptr;
  const auto sum = with_number(sole_producer(limits->x, "Add"), "Add");
  return sum && sum->number == 3.0 ? sum->x : nullptr;
}

bool is_hard_sigmoid(const ir::Node& n, ir::DType t) {
  return n.is("HardSigmoid") && is_about(attr_float(n, "alpha", 0.2), 1.0 / 6.0, t) &&
         attr_float(n, "beta", 0.5) == 0.5;
}

// Div(Mul(x, Clip(Add(x, 3), 0, 6)), 6), Mul(x, HardSigmoid(x))   =>   HardSwish(x)
bool fuse_hard_swish(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kSince = 14;
  for (const Gated& g : gated(w, n)) {
    if (g.gate == nullptr) continue;
    const bool by_gate =
        is_hard_sigmoid(*g.gate, dtype(n)) && g.scale == 1.0 && g.gate->input(0) == g.x;
    if (!by_gate && !(is_about(g.scale, 1.0 / 6.0, dtype(n)) &&
                      relu6_of_three_more(g.gate->output(0)) == g.x))
      continue;
    const auto opset = opset_for(w, n, "HardSwish", kSince);
    if (!opset) return false;
    ir::Value* const inputs[] = {g.x};
    become(w, n, "HardSwish", *opset, inputs);
    return true;
  }
  return false;
}

// Div(Clip(Add(x, 3), 0, 6), 6)   =>   HardSigmoid(x) by 1/6 and 0.5
bool fuse_hard_sigmoid(Rewriter& w, ir::Node& n) {
  if (n.output(0) == nullptr || !is_fusible_type(w, n.output(0))) return false;
  const auto p = product_of(n);
  if (!p || p->count != 1 || !is_about(p->scale, 1.0 / 6.0, dtype(n))) return false;
  ir::Value* x = relu6_of_three_more(p->factors[0]);
  if (x == nullptr) return false;
  ir::Value* const inputs[] = {x};
  ir::Node* made = become(w, n, "HardSigmoid", n.opset, inputs);
  set_attr(*made, "alpha", static_cast<double>(static_cast<float>(1.0 / 6.0)));
  set_attr(*made, "beta", 0.5);
  return true;
}

/// max(x, low) or min(x, high). What is not a number limits nothing, and makes everything so.
std::optional<Limits> half_limit(const ir::Node* n) {
  if (const auto max = with_number(n, "Max"); max && !std::isnan(max->number))
    return Limits{.x = max->x, .low = max->number};
  if (const auto min = with_number(n, "Min"); min && !std::isnan(min->number))
    return Limits{.x = min->x, .high = min->number};
  return std::nullopt;
}

bool has_kernels_to_limit(const Rewriter& w, const ir::Value* v) {
  return is_fusible_type(w, v) || (v->type.is_tensor() && v->type.dtype == ir::DType::Float64);
}

// Max(x, 0)   =>   Relu(x)
bool fuse_relu(Rewriter& w, ir::Node& n) {
  const auto limit = half_limit(&n);
  if (!limit || !n.is("Max") || !has_kernels_to_limit(w, n.output(0))) return false;
  // max(x, -0) has the sign of neither.
  if (limit->low != 0.0 || std::signbit(limit->low)) return false;
  ir::Value* const inputs[] = {limit->x};
  become(w, n, "Relu", n.opset, inputs);
  return true;
}

// Where(Greater(x, 20), x, Softplus(x))   =>   Softplus(x), as torch computes it anyway
bool fuse_softplus(Rewriter& w, ir::Node& n) {
  constexpr double kThreshold = 20.0;
  ir::Node* softplus = sole_producer(n.input(2), "Softplus");
  const ir::Node* greater = producer_of(n.input(0), "Greater");
  ir::Value* x = n.input(1);
  if (softplus == nullptr || greater == nullptr || softplus->input(0) != x ||
      greater->input(0) != x || splat(greater->input(1)) != kThreshold ||
      !same_type(x, n.output(0)))
    return false;
  ir::Value* const inputs[] = {x};
  become(w, n, "Softplus", softplus->opset, inputs);
  return true;
}

/// The limits as inputs of a Clip of the type of `x`.
bool clip(Rewriter& w, ir::Node& n, const Limits& limits) {
  constexpr std::int64_t kInputs = 11;
  if (n.opset < kInputs)
    return w.miss(n, "Clip's limits are attributes before opset {}", kInputs);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (limits.low == kInfinity || limits.high == -kInfinity)
    return w.miss(n, "the limits leave nothing but an infinity");
  ir::Value* inputs[] = {limits.x, nullptr, nullptr};
  for (std::size_t i = 1; i < 3; ++i) {
    const double limit = i == 1 ? limits.low : limits.high;
    if (!std::isinf(limit))
      inputs[i] = w.constant(*n.graph(), i == 1 ? "min" : "max",
                             number_tensor(n.output(0)->type.dtype, limit));
  }
  become(w, n, "Clip", n.opset, std::span(inputs, inputs[2] != nullptr ? 3 : 2));
  return true;
}

// Min(Max(x, 0), 6)   =>   Clip(x, 0, 6)
bool fuse_clip(Rewriter& w, ir::Node& n) {
  const auto outer = half_limit(&n);
  if (!outer || !has_kernels_to_limit(w, n.output(0)) || !outer->x->has_one_use()) return false;
  auto inner = half_limit(outer->x->producer());
  if (!inner) inner = limits_of(outer->x->producer());
  if (!inner) return false;
  const Limits both{inner->x, std::max(inner->low, outer->low), std::min(inner->high, outer->high)};
  // Where nothing is in between, the order decides.
  if (!(both.low <= both.high)) return w.miss(n, "the limits leave nothing in between");
  return clip(w, n, both);
}

// Clip(Clip(x, 0, 6), -1, 5)   =>   Clip(x, 0, 5), Relu(Relu(x))   =>   Relu(x)
bool collapse_clips(Rewriter& w, ir::Node& n) {
  const auto outer = limits_of(&n);
  if (!outer || !outer->x->has_one_use() || !has_kernels_to_limit(w, n.output(0))) return false;
  const auto inner = limits_of(outer->x->producer());
  if (!inner) return false;
  const Limits both{inner->x, std::max(inner->low, outer->low), std::min(inner->high, outer->high)};
  if (!(both.low <= both.high)) return w.miss(n, "the limits leave nothing in between");
  if (both.low == inner->low && both.high == inner->high) {
    w.replace(n.output(0), outer->x);
    return true;
  }
  if (both.low == outer->low && both.high == outer->high) {
    w.set_input(n, 0, inner->x);
    return true;
  }
  return clip(w, n, both);
}

// Abs(Abs(x))   =>   Abs(x)
bool remove_repeated(Rewriter& w, ir::Node& n) {
  const ir::Node* first = producer_of(n.input(0), n.op_type);
  if (first == nullptr || !compatible(n.output(0), n.input(0))) return false;
  w.replace(n.output(0), n.input(0));
  return true;
}

// Max(x, Mul(x, 0.1))   =>   LeakyRelu(x), where 0 < slope < 1
bool fuse_leaky_relu(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 2 || n.output(0) == nullptr || !is_fusible_type(w, n.output(0)))
    return false;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto scaled = with_number(sole_producer(n.input(i), "Mul"), "Mul");
    if (!scaled || scaled->x != n.input(1 - i)) continue;
    // Zero times infinity is not a number.
    if (!(scaled->number > 0.0 && scaled->number < 1.0))
      return w.miss(n, "a slope of {} is not between 0 and 1", scaled->number);
    ir::Value* const inputs[] = {scaled->x};
    ir::Node* made = become(w, n, "LeakyRelu", n.opset, inputs);
    set_attr(*made, "alpha", scaled->number);
    return true;
  }
  return false;
}

}  // namespace

std::span<const Rule> activation_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-gelu",
       .what = "Gelu in its arithmetic, by Erf or by Tanh",
       .apply = fuse_gelu,
       .ops = {"Mul", "Div"},
       .in_conversion = true},
      {.name = "fuse-swish",
       .what = "x * Sigmoid(x), for torch",
       .apply = fuse_swish,
       .ops = {"Mul"},
       .in_conversion = true},
      {.name = "fuse-mish",
       .what = "x * Tanh(Softplus(x))",
       .apply = fuse_mish,
       .ops = {"Mul"},
       .in_conversion = true},
      {.name = "fuse-hard-swish",
       .what = "x * Clip(x + 3, 0, 6) / 6, x * HardSigmoid(x)",
       .apply = fuse_hard_swish,
       .ops = {"Mul", "Div"},
       .in_conversion = true},
      {.name = "fuse-hard-sigmoid",
       .what = "Clip(x + 3, 0, 6) / 6",
       .apply = fuse_hard_sigmoid,
       .ops = {"Mul", "Div"},
       .in_conversion = true},
      {.name = "fuse-leaky-relu",
       .what = "Max(x, x * slope)",
       .apply = fuse_leaky_relu,
       .ops = {"Max"},
       .in_conversion = true},
      {.name = "fuse-clip",
       .what = "Min and Max by numbers become Clip",
       .apply = fuse_clip,
       .ops = {"Min", "Max"},
       .in_conversion = true},
      {.name = "fuse-relu",
       .what = "Max(x, 0) becomes Relu",
       .apply = fuse_relu,
       .ops = {"Max"},
       .in_conversion = true},
      {.name = "fuse-softplus",
       .what = "Softplus that keeps large numbers as they are, as torch's does",
       .apply = fuse_softplus,
       .ops = {"Where"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "collapse-clips",
       .what = "Clip and Relu of Clip and Relu",
       .apply = collapse_clips,
       .ops = {"Clip", "Relu"}},
      {.name = "remove-repeated",
       .what = "what is done twice and changes nothing the second time",
       .apply = remove_repeated,
       .ops = {"Abs", "Ceil", "Floor", "Round", "Sign", "Relu"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
