// What follows or precedes a convolution and scales or shifts its channels goes into its weights.
// The new weights are computed in double precision and rounded once.
#include <algorithm>
#include <cmath>

#include "ops/onnx/training.h"
#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

using Doubles = std::vector<double>;

constexpr std::int64_t kBroadcasting = 7;  // the opset from which operators broadcast as numpy does

/// A MatMul of matrices is a Gemm that has no bias yet.
bool is_product_of_matrices(const ir::Node& n) {
  const auto is_matrix = [](const ir::Value* v) {
    return v != nullptr && v->type.is_tensor() && v->type.shape.has_rank() &&
           v->type.shape.rank() == 2 &&
           (v->type.dtype == ir::DType::Float32 || v->type.dtype == ir::DType::Float64);
  };
  return n.is("MatMul") && n.opset >= kBroadcasting && is_matrix(n.input(0)) &&
         is_matrix(n.input(1));
}

bool is_linear(const ir::Node& n) {
  return n.is("Conv") || n.is("ConvTranspose") || n.is("Gemm") || is_product_of_matrices(n);
}

/// The number that a ConstantOfShape of known shape fills a weight with: such a weight stays a
/// number, lest the file grow by the whole of it.
struct Fill {
  ir::Node* node;
  ir::TensorPtr number;
  Ints dims;
  static std::optional<Fill> of(const ir::Value* weight) {
    ir::Node* n = producer_of(weight, "ConstantOfShape");
    const ir::Attribute* a = n != nullptr ? n->attribute("value") : nullptr;
    const auto* number = a != nullptr ? std::get_if<ir::TensorPtr>(&a->data) : nullptr;
    if (number == nullptr || (*number)->size() != 1 || !is_weight_type((*number)->dtype()))
      return std::nullopt;
    auto dims = const_ints(n->input(0));
    if (!dims) return std::nullopt;
    return Fill{n, *number, std::move(*dims)};
  }
};

/// A linear operator with weights: Conv, ConvTranspose, Gemm or MatMul, its output or its input scaled
/// or shifted by channel.
class Linear {
 public:
  /// Of `n`, whose output `user` scales or shifts.
  static std::optional<Linear> of(Rewriter& rewriter, const ir::Node& user, ir::Node* n) {
    if (n->input_count() < 2) return std::nullopt;
    const ir::Value* w = n->input(1);
    auto fill = Fill::of(w);
    if (w == nullptr || (!fill && (!w->constant || !is_weight_type(w->constant->dtype())))) {
      rewriter.miss(user, "the weight of {} is not constant", n->describe());
      return std::nullopt;
    }
    // Weights that others use too would be there twice.
    if (!fill && !w->has_one_use()) {
      rewriter.miss(user, "the weight {} has other users", w->name);
      return std::nullopt;
    }
    if (n->input(2) != nullptr &&
        (!n->input(2)->constant || !is_weight_type(n->input(2)->constant->dtype())))
      return std::nullopt;
    Linear out(n, std::move(fill));
    if (!out.find_channels()) return std::nullopt;
    return out;
  }

  std::int64_t channels() const { return channels_; }
  std::size_t rank() const { return is_matrix() ? 2 : dims().size(); }
  /// The channels of its input.
  std::int64_t channels_in() const {
    if (is_matrix()) return dims()[rows_ ? 1 : 0];
    return transposed_ ? dims()[0] : dims()[1] * groups_;
  }

  /// The operator's output times `scale` plus `shift`, of one element per channel.
  bool apply(Rewriter& w, const ir::Node& user, const Doubles& scale, const Doubles& shift) {
    const bool scales = std::any_of(scale.begin(), scale.end(), [](double s) { return s != 1.0; });
    if (scales && fill_ && std::any_of(scale.begin(), scale.end(),
                                       [&](double s) { return s != scale.front(); }))
      return w.miss(user, "the weight {} is one number, which its channels would not be",
                    node_->input(1)->name);
    ir::TensorPtr new_weight;
    if (scales) {
      Doubles values = fill_ ? fill_->number->to_doubles() : weight().to_doubles();
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] *= scale[static_cast<std::size_t>(channel(static_cast<std::int64_t>(i)))];
      new_weight = rounded(dtype(), fill_ ? fill_->number->dims() : dims(), values);
      if (!new_weight) return w.miss(user, "the new weights would not be finite");
    }
    Doubles bias = old_bias();
    for (std::size_t c = 0; c < bias.size(); ++c) bias[c] = bias[c] * scale[c] + shift[c];
    const bool needs_bias =
        node_->input(2) != nullptr ||
        std::any_of(bias.begin(), bias.end(), [](double b) { return b != 0.0; });
    const ir::TensorPtr new_bias = rounded(dtype(), {channels_}, bias);
    if (!new_bias) return w.miss(user, "the new weights would not be finite");
    set(w, node_->input(0), new_weight ? weight_of(w, new_weight) : node_->input(1),
        needs_bias ? new_bias : nullptr);
    return true;
  }

  /// The operator on `x`, where its input is x times `scale` plus `shift`, of one element per channel
  /// of the input.
  bool apply_before(Rewriter& w, ir::Value* x, const Doubles& scale, const Doubles& shift) {
    const ir::Node& n = *node_;
    if (fill_) return w.miss(n, "the weight {} is one number", n.input(1)->name);
    if (n.is("Gemm") && attr_int(n, "transA", 0) != 0) return false;
    const bool shifts = std::any_of(shift.begin(), shift.end(), [](double s) { return s != 0.0; });
    if (shifts && (transposed_ || !pads_nothing()))
      return w.miss(n, "what is added would have to be added to the padding as well");
    Doubles values = weight().to_doubles();
    Doubles bias = old_bias();
    const double alpha = n.is("Gemm") ? attr_float(n, "alpha", 1.0) : 1.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto from = static_cast<std::size_t>(channel_in(static_cast<std::int64_t>(i)));
      const auto to = static_cast<std::size_t>(channel(static_cast<std::int64_t>(i)));
      bias[to] += alpha * values[i] * shift[from];
      values[i] *= scale[from];
    }
    const ir::TensorPtr new_weight = rounded(dtype(), dims(), values);
    const ir::TensorPtr new_bias = rounded(dtype(), {channels_}, bias);
    if (!new_weight || !new_bias) return w.miss(n, "the new weights would not be finite");
    const bool needs_bias = n.input(2) != nullptr || shifts;
    set(w, x, weight_of(w, new_weight), needs_bias ? new_bias : nullptr);
    return true;
  }

 private:
  Linear(ir::Node* n, std::optional<Fill> fill) : node_(n), fill_(std::move(fill)) {}

  /// Its inputs from now on.
  void set(Rewriter& w, ir::Value* x, ir::Value* weight, const ir::TensorPtr& bias) {
    ir::Graph& g = *node_->graph();
    std::vector<ir::Value*> inputs = {x, weight};
    if (bias) {
      const ir::Value* named = node_->input(2);
      inputs.push_back(named != nullptr ? w.weight(g, *named, bias)
                                        : g.add_initializer(bias_name(), bias, true));
    }
    if (node_->is("MatMul") && bias) {
      node_->op_type = "Gemm";
      node_->op = ops::find_op("", "Gemm");
    }
    w.set_inputs(*node_, inputs);
    if (node_->is("Gemm")) set_attr(*node_, "beta", 1.0);
  }

  bool is_matrix() const { return node_->is("Gemm") || node_->is("MatMul"); }

  bool pads_nothing() const {
    if (is_matrix()) return true;
    const std::string automatic = attr_string(*node_, "auto_pad", "NOTSET");
    if (automatic == "VALID") return true;
    if (automatic != "NOTSET" && !automatic.empty()) return false;
    const auto pads = ints_of(*node_, "pads", node_->input_count());
    return !pads || std::all_of(pads->begin(), pads->end(), [](std::int64_t p) { return p == 0; });
  }

  const ir::Tensor& weight() const { return *node_->input(1)->constant; }
  const Ints& dims() const { return fill_ ? fill_->dims : weight().dims(); }
  ir::DType dtype() const { return (fill_ ? *fill_->number : weight()).dtype(); }

  /// The weight of these elements: its constant, or what fills it.
  ir::Value* weight_of(Rewriter& w, const ir::TensorPtr& elements) const {
    const ir::Value& old = *node_->input(1);
    if (!fill_) return w.weight(*node_->graph(), old, elements);
    const std::vector<ir::Value*> shape = {fill_->node->input(0)};
    ir::Node* n = w.add("ConstantOfShape", shape, old, *node_);
    set_attr(*n, "value", elements);
    return n->output(0);
  }

  std::string bias_name() const {
    const std::string& w = node_->input(1)->name;
    constexpr std::string_view kSuffix = "weight";
    if (w.size() >= kSuffix.size() && w.ends_with(kSuffix))
      return w.substr(0, w.size() - kSuffix.size()) + "bias";
    return w + "_bias";
  }

  bool find_channels() {
    const Ints& d = dims();
    if (std::any_of(d.begin(), d.end(), [](std::int64_t n) { return n < 1; })) return false;
    if (is_matrix()) {
      if (d.size() != 2 || node_->opset < kBroadcasting) return false;
      rows_ = attr_int(*node_, "transB", 0) != 0;
      channels_ = d[rows_ ? 0 : 1];
    } else {
      if (d.size() < 3) return false;
      groups_ = attr_int(*node_, "group", 1);
      if (groups_ < 1) return false;
      transposed_ = node_->is("ConvTranspose");
      if (d[0] % groups_ != 0) return false;
      channels_ = transposed_ ? d[1] * groups_ : d[0];
    }
    return bias_fits();
  }

  bool bias_fits() const {
    if (node_->input(2) == nullptr) return true;
    const ir::Tensor& b = *node_->input(2)->constant;
    if (!node_->is("Gemm")) return b.rank() == 1 && b.size() == channels_;
    // One row, or one number; a bias of several rows is no bias of channels.
    return b.size() == 1 ||
           (b.size() == channels_ && b.rank() >= 1 && b.dims().back() == channels_);
  }

  Doubles old_bias() const {
    Doubles out(static_cast<std::size_t>(channels_), 0.0);
    if (node_->input(2) == nullptr) return out;
    const ir::Tensor& b = *node_->input(2)->constant;
    const double beta = node_->is("Gemm") ? attr_float(*node_, "beta", 1.0) : 1.0;
    for (std::size_t c = 0; c < out.size(); ++c)
      out[c] = beta * b.double_at(b.size() == 1 ? 0 : static_cast<std::int64_t>(c));
    return out;
  }

  /// The output channel that element `i` of the weight belongs to.
  std::int64_t channel(std::int64_t i) const {
    const Ints& d = dims();
    if (is_matrix()) return rows_ ? i / d[1] : i % d[1];
    std::int64_t kernel = 1;
    for (std::size_t k = 2; k < d.size(); ++k) kernel *= d[k];
    if (!transposed_) return i / (kernel * d[1]);
    const std::int64_t in = i / (kernel * d[1]);
    return in / (d[0] / groups_) * d[1] + i / kernel % d[1];
  }

  /// The input channel that element `i` of the weight belongs to.
  std::int64_t channel_in(std::int64_t i) const {
    const Ints& d = dims();
    if (is_matrix()) return rows_ ? i % d[1] : i / d[1];
    std::int64_t kernel = 1;
    for (std::size_t k = 2; k < d.size(); ++k) kernel *= d[k];
    const std::int64_t row = i / (kernel * d[1]);
    return transposed_ ? row : row / (d[0] / groups_) * d[1] + i / kernel % d[1];
  }

  ir::Node* node_;
  std::optional<Fill> fill_;
  std::int64_t channels_ = 0;
  std::int64_t groups_ = 1;
  bool transposed_ = false;
  bool rows_ = false;
};

/// `v`'s elements by channel (axis 1 of `rank` dimensions); nothing where they differ along another
/// axis.
std::optional<Doubles> by_channel(const ir::Node& n, const ir::Value* v, std::size_t rank,
                                  std::int64_t channels) {
  if (v == nullptr || !v->constant || !is_weight_type(v->constant->dtype())) return std::nullopt;
  const ir::Tensor& t = *v->constant;
  if (t.size() != 1 && t.size() != channels) return std::nullopt;
  if (n.opset < kBroadcasting) {
    // Older operators said which axis the second input begins at.
    if (t.rank() != 1 || t.size() != channels || attr_int(n, "axis", -1) != 1) return std::nullopt;
  } else if (t.rank() > rank) {
    return std::nullopt;
  } else if (t.size() != 1) {
    const std::size_t from_end = rank - 1;  // axis 1, counted from the last
    if (t.rank() < from_end || t.dims()[t.rank() - from_end] != channels) return std::nullopt;
  }
  Doubles out(static_cast<std::size_t>(channels));
  for (std::size_t c = 0; c < out.size(); ++c)
    out[c] = t.double_at(t.size() == 1 ? 0 : static_cast<std::int64_t>(c));
  return out;
}

/// The operator that makes `v`, for `user` alone.
std::optional<Linear> linear_before(Rewriter& w, const ir::Node& user, const ir::Value* v) {
  if (v == nullptr || v->producer() == nullptr || !is_linear(*v->producer())) return std::nullopt;
  if (!v->has_one_use()) {
    w.miss(user, "{} has other users", v->name);
    return std::nullopt;
  }
  return Linear::of(w, user, v->producer());
}

bool is_inference(const ir::Node& n) {
  if (n.input_count() != 5 || ops::batch_norm_mode(n) != ops::Mode::Inference ||
      attr_int(n, "spatial", 1) != 1)
    return false;
  for (std::size_t i = 1; i < n.output_count(); ++i)
    if (n.output(i) != nullptr && n.output(i)->has_uses()) return false;
  return true;
}

/// `n` as a scale and a shift of its input `i`, by channel; nothing where its other input is none
/// of the kind.
struct Affine {
  Doubles scale, shift;
  static std::optional<Affine> of(const ir::Node& n, std::size_t i, std::size_t rank,
                                  std::int64_t channels) {
    const auto other = by_channel(n, n.input(1 - i), rank, channels);
    if (!other) return std::nullopt;
    Affine a{Doubles(other->size(), 1.0), Doubles(other->size(), 0.0)};
    for (std::size_t c = 0; c < other->size(); ++c) {
      const double v = (*other)[c];
      if (n.is("Mul")) a.scale[c] = v;
      if (n.is("Div")) a.scale[c] = 1.0 / v;
      if (n.is("Add")) a.shift[c] = v;
      if (n.is("Sub")) {
        a.scale[c] = i == 0 ? 1.0 : -1.0;
        a.shift[c] = i == 0 ? -v : v;
      }
    }
    return a;
  }

  /// Of a BatchNormalization in inference.
  static std::optional<Affine> of_norm(const ir::Node& n, std::int64_t channels) {
    if (!is_inference(n)) return std::nullopt;
    Doubles p[4];
    for (std::size_t i = 0; i < 4; ++i) {
      const ir::Value* v = n.input(i + 1);
      if (v == nullptr || !v->constant || !is_weight_type(v->constant->dtype()) ||
          v->constant->rank() != 1 || v->constant->size() != channels)
        return std::nullopt;
      p[i] = v->constant->to_doubles();
    }
    const double epsilon = attr_float(n, "epsilon", 1e-5);
    Affine a{Doubles(p[0].size()), Doubles(p[0].size())};
    for (std::size_t c = 0; c < a.scale.size(); ++c) {
      a.scale[c] = p[0][c] / std::sqrt(p[3][c] + epsilon);
      a.shift[c] = p[1][c] - p[2][c] * a.scale[c];
    }
    return a;
  }
};

// BatchNormalization(Conv(x, w, b), s, t, m, v)   =>   Conv(x, w * s / sqrt(v + e), (b - m) * s /
// sqrt(v + e) + t)
bool fuse_batch_norm(Rewriter& w, ir::Node& n) {
  if (!is_inference(n)) return false;
  auto linear = linear_before(w, n, n.input(0));
  if (!linear || !compatible(n.input(0), n.output(0))) return false;
  const auto affine = Affine::of_norm(n, linear->channels());
  if (!affine || !linear->apply(w, n, affine->scale, affine->shift)) return false;
  w.replace_by_changed(n.output(0), n.input(0));
  return true;
}

// Add(BatchNormalization(x, s, t, m, v), k: [C, 1, 1])   =>   BatchNormalization(x, s, t + k, m,
// v); Mul, Sub and Div alike
bool fuse_into_batch_norm(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 2) return false;
  for (std::size_t i = 0; i < (n.is("Div") ? 1U : 2U); ++i) {
    ir::Node* norm = sole_producer(n.input(i), "BatchNormalization");
    if (norm == nullptr || !is_inference(*norm) || !same_type(n.input(i), n.output(0))) continue;
    const ir::Value* s = norm->input(1);
    const ir::Value* t = norm->input(2);
    if (s == nullptr || t == nullptr || !s->constant || !t->constant ||
        !is_weight_type(s->constant->dtype()))
      continue;
    if (s->constant->rank() != 1 || t->constant->dims() != s->constant->dims() ||
        t->constant->dtype() != s->constant->dtype())
      continue;
    const auto affine = Affine::of(n, i, n.input(i)->type.shape.rank(), s->constant->size());
    if (!affine) continue;
    Doubles scale = s->constant->to_doubles();
    Doubles shift = t->constant->to_doubles();
    for (std::size_t c = 0; c < scale.size(); ++c) {
      scale[c] *= affine->scale[c];
      shift[c] = shift[c] * affine->scale[c] + affine->shift[c];
    }
    const ir::TensorPtr new_scale = rounded(s->constant->dtype(), s->constant->dims(), scale);
    const ir::TensorPtr new_shift = rounded(s->constant->dtype(), s->constant->dims(), shift);
    if (!new_scale || !new_shift) continue;
    ir::Graph& g = *norm->graph();
    const std::vector<ir::Value*> inputs = {norm->input(0), w.weight(g, *s, new_scale),
                                            w.weight(g, *t, new_shift), norm->input(3),
                                            norm->input(4)};
    w.set_inputs(*norm, inputs);
    w.replace_by_changed(n.output(0), n.input(i));
    return true;
  }
  return false;
}

// Mul(Conv(x, w, b), s: [C, 1, 1])   =>   Conv(x, w * s, b * s); Add, Sub and Div alike
bool fuse_arithmetic(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 2) return false;
  for (std::size_t i = 0; i < (n.is("Div") ? 1U : 2U); ++i) {
    // There the constant becomes the bias as it is.
    if (n.is("Add") && producer_of(n.input(i), "MatMul") != nullptr) continue;
    auto linear = linear_before(w, n, n.input(i));
    if (!linear) continue;
    // The same shape: the constant must not repeat the convolution's output.
    if (!same_type(n.input(i), n.output(0))) {
      w.miss(n, "{} may be repeated", n.input(i)->name);
      continue;
    }
    const auto affine = Affine::of(n, i, linear->rank(), linear->channels());
    if (!affine) {
      w.miss(n, "{} is not one constant per channel", n.input(1 - i)->name);
      continue;
    }
    if (!linear->apply(w, n, affine->scale, affine->shift)) continue;
    w.replace_by_changed(n.output(0), n.input(i));
    return true;
  }
  return false;
}

/// A graph's input, or what adds and multiplies one by constants: nothing that a larger form ends in.
bool is_raw(const ir::Value* v, int depth = 0) {
  constexpr int kDeepest = 4;
  if (v->producer() == nullptr) return v->is_graph_input;
  const ir::Node& n = *v->producer();
  if (depth == kDeepest || n.input_count() == 0 || n.input(0) == nullptr) return false;
  const bool is_arithmetic = n.is("Add") || n.is("Sub") || n.is("Mul") || n.is("Div");
  if (is_arithmetic && n.input_count() == 2 && n.input(1) != nullptr)
    return (n.input(1)->constant && is_raw(n.input(0), depth + 1)) ||
           (n.input(0)->constant && is_raw(n.input(1), depth + 1));
  return (n.is("Transpose") || n.is("Reshape") || n.is("Cast")) && is_raw(n.input(0), depth + 1);
}

/// The value that `n` scales or shifts by one of the channels of `linear`'s input, and by how much.
struct Prepared {
  ir::Value* x;
  Affine affine;
  static std::optional<Prepared> of(const ir::Node& n, const ir::Node& user, const Linear& linear) {
    if (n.is("BatchNormalization")) {
      auto affine = Affine::of_norm(n, linear.channels_in());
      if (!affine || n.input(0) == nullptr) return std::nullopt;
      return Prepared{n.input(0), std::move(*affine)};
    }
    if ((!n.is("Mul") && !n.is("Div") && !n.is("Add") && !n.is("Sub")) || n.input_count() != 2)
      return std::nullopt;
    for (std::size_t i = 0; i < (n.is("Div") ? 1U : 2U); ++i) {
      ir::Value* x = n.input(i);
      if (x == nullptr || !same_type(x, n.output(0))) continue;
      // Before a product there stands a layer norm's end, before either a Gelu's.
      const bool may_end_more = !user.is("Conv") && !user.is("ConvTranspose");
      if ((may_end_more || producer_of(x, "Mul") != nullptr) && !is_raw(x)) continue;
      auto affine = Affine::of(n, i, linear.rank(), linear.channels_in());
      if (affine) return Prepared{x, std::move(*affine)};
    }
    return std::nullopt;
  }
};

/// Whether much is added, as where a mean of 117 is taken from pixels: x - 117 has small numbers,
/// the sum over w * x - w * 117 has not.
bool shifts_far(const Affine& affine) {
  constexpr double kMost = 8.0;
  for (std::size_t i = 0; i < affine.shift.size(); ++i)
    if (std::abs(affine.shift[i]) > kMost * std::max(1.0, std::abs(affine.scale[i]))) return true;
  return false;
}

// Conv(Mul(x, s: [C, 1, 1]), w)   =>   Conv(x, w * s); Add, Sub, Div and BatchNormalization alike,
// where nothing is padded
bool fuse_into_next(Rewriter& w, ir::Node& n) {
  const ir::Value* v = n.input(0);
  if (v == nullptr || v->producer() == nullptr || !v->has_one_use() || !is_linear(n)) return false;
  const ir::Node& before = *v->producer();
  static constexpr std::string_view kTaken[] = {"BatchNormalization", "Mul", "Div", "Add", "Sub"};
  if (std::none_of(std::begin(kTaken), std::end(kTaken),
                   [&](std::string_view op_type) { return before.is(op_type); }))
    return false;
  auto linear = Linear::of(w, n, &n);
  if (!linear) return false;
  const auto prepared = Prepared::of(before, n, *linear);
  if (!prepared) return false;
  if (shifts_far(prepared->affine))
    return w.miss(n, "what is added before it would be taken off again, with the last digits");
  return linear->apply_before(w, prepared->x, prepared->affine.scale,
                                          prepared->affine.shift);
}

/// Of the commutative Mul, either way round: what is multiplied, and the constant.
struct Factor {
  ir::Value* x;
  const ir::Value* constant;
  static std::optional<Factor> of(const ir::Node& n) {
    if (!n.is("Mul") || n.input_count() != 2 || n.opset < kBroadcasting) return std::nullopt;
    for (std::size_t i = 0; i < 2; ++i) {
      const ir::Value* c = n.input(i);
      if (c != nullptr && c->constant && is_weight_type(c->constant->dtype()) &&
          n.input(1 - i) != nullptr && !n.input(1 - i)->constant)
        return Factor{n.input(1 - i), c};
    }
    return std::nullopt;
  }
};

// Mul(Mul(x, a), {0.5})   =>   Mul(x, a * 0.5)
bool collapse_factors(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kLargest = 1 << 20;
  const auto outer = Factor::of(n);
  const ir::Node* first = outer ? sole_producer(outer->x, "Mul") : nullptr;
  const auto inner = first != nullptr ? Factor::of(*first) : std::nullopt;
  if (!inner) return false;
  // One is a number: nothing grows.
  const auto is_number = [](const ir::Value* v) { return v->constant->size() == 1; };
  const bool outer_is_number = is_number(outer->constant);
  if (!outer_is_number && !is_number(inner->constant)) return false;
  const ir::Value& number = outer_is_number ? *outer->constant : *inner->constant;
  const ir::Value& other = outer_is_number ? *inner->constant : *outer->constant;
  if (number.constant->rank() > other.constant->rank() || other.constant->size() > kLargest ||
      number.constant->dtype() != other.constant->dtype())
    return false;
  // Neither product may leave the range of the type where the other stays within.
  const auto is_moderate = [](double v) {
    constexpr double kMost = 1e4;
    return v == 0.0 || (std::abs(v) <= kMost && std::abs(v) >= 1 / kMost);
  };
  const double factor = number.constant->double_at(0);
  Doubles values = other.constant->to_doubles();
  if (!is_moderate(factor) || !std::all_of(values.begin(), values.end(), is_moderate))
    return w.miss(n, "the factors are too large or too small to be sure that nothing overflows");
  for (double& v : values) v *= factor;
  const ir::TensorPtr product = rounded(other.constant->dtype(), other.constant->dims(), values);
  if (!product) return false;
  ir::Value* const inputs[] = {inner->x, w.weight(*n.graph(), other, product)};
  w.set_inputs(n, inputs);
  return true;
}

}  // namespace

std::span<const Rule> conv_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "fuse-batch-norm",
       .what = "BatchNormalization into Conv, ConvTranspose, Gemm, MatMul",
       .apply = fuse_batch_norm,
       .ops = {"BatchNormalization"}},
      {.name = "fuse-arithmetic",
       .what = "Mul, Add, Sub, Div by channel into Conv, ConvTranspose, Gemm, MatMul",
       .apply = fuse_arithmetic,
       .ops = {"Mul", "Add", "Sub", "Div"}},
      {.name = "fuse-into-batch-norm",
       .what = "Mul, Add, Sub, Div by channel into BatchNormalization",
       .apply = fuse_into_batch_norm,
       .ops = {"Mul", "Add", "Sub", "Div"}},
      {.name = "fuse-into-next",
       .what = "BatchNormalization, Mul, Add, Sub, Div by channel into the Conv or product after it",
       .apply = fuse_into_next,
       .ops = {"Conv", "ConvTranspose", "Gemm", "MatMul"}},
      {.name = "collapse-factors",
       .what = "Mul of Mul by constants",
       .apply = collapse_factors,
       .ops = {"Mul"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
