#include "passes/upgrade_steps.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include "ops/context.h"
#include "ops/onnx/training.h"
#include "passes/match.h"
#include "passes/rewriter.h"

namespace onnx2nn::passes {

namespace {

using Inputs = std::vector<ir::Value*>;

void drop(ir::Node& n, std::string_view name) {
  auto& list = n.attributes;
  list.erase(std::remove_if(list.begin(), list.end(),
                            [&](const ir::Attribute& a) { return a.name == name; }),
             list.end());
}

/// Removes an attribute and returns what it said.
template <typename T>
std::optional<T> take(ir::Node& n, std::string_view name) {
  ir::Attribute* a = n.attribute(name);
  if (a == nullptr) return std::nullopt;
  T* value = std::get_if<T>(&a->data);
  if (value == nullptr) fail("bad-model", "the attribute {} is of a wrong type", name);
  T out = std::move(*value);
  drop(n, name);
  return out;
}

void put_input(ir::Node& n, std::size_t i, ir::Value* value) {
  while (n.input_count() <= i) n.add_input(nullptr);
  n.set_input(i, value);
}

std::size_t rank_of(const ir::Node& n, std::size_t i) {
  const ir::Value* v = n.input(i);
  if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank())
    fail("unsupported-operator", "the rank of input {} has to be known for a newer opset", i);
  return v->type.shape.rank();
}

/// A number in the element type of the node's first input.
ir::Value* number_like_input(ir::Node& n, std::string_view what, double value) {
  const ir::Value* x = n.input(0);
  const ir::DType dtype =
      x != nullptr && x->type.is_tensor() ? x->type.dtype : ir::DType::Undefined;
  const auto f = static_cast<float>(value);
  ir::TensorPtr tensor;
  if (dtype == ir::DType::Float32) tensor = ir::Tensor::from<float>(dtype, {}, {f});
  if (dtype == ir::DType::Float64) tensor = ir::Tensor::from<double>(dtype, {}, {value});
  if (dtype == ir::DType::Float16)
    tensor = ir::Tensor::from<std::uint16_t>(dtype, {}, {ir::float_to_half(f)});
  if (tensor == nullptr)
    fail("unsupported-operator",
         "{} becomes an input, and cannot be written in the type of the first input", what);
  return Upgrade::constant(n, what, std::move(tensor));
}

bool is_used(const ir::Node& n, std::size_t output) {
  return n.output(output) != nullptr && n.output(output)->has_uses();
}

void require_first_output_only(const ir::Node& n) {
  for (std::size_t i = 1; i < n.output_count(); ++i)
    if (is_used(n, i))
      fail("unsupported-operator", "its output {} is no longer what it was in a newer opset", i);
}

// The mode of BatchNormalization was an attribute, then told by the outputs, now an attribute.
constexpr std::int64_t kTrainingMode = 14;

/// Names for the outputs of a BatchNormalization that trains: its statistics are asked for by name.
std::vector<std::string> batch_norm_outputs(const ir::Node& n, std::size_t count) {
  std::vector<std::string> names = {"", "_mean", "_var", "_batch_mean", "_batch_var"};
  names.resize(count);
  for (std::size_t i = 1; i < count; ++i) names[i].insert(0, n.output(0)->name);
  return names;
}

/// With as many outputs as its mode has there: what nobody uses comes or goes.
void with_outputs(Upgrade& u, ir::Node& n, std::vector<std::string> names) {
  require_first_output_only(n);
  if (n.output_count() == names.size()) return;
  Inputs inputs;
  for (std::size_t i = 0; i < n.input_count(); ++i) inputs.push_back(n.input(i));
  names[0] = n.output(0)->name;
  n.output(0)->name.clear();
  ir::Node* fresh = u.add(*n.graph(), n.op_type, inputs, names, n, &n);
  fresh->attributes = std::move(n.attributes);
  fresh->metadata = n.metadata;
  fresh->doc_string = n.doc_string;
  fresh->output(0)->type = n.output(0)->type;
  n.output(0)->replace_all_uses(fresh->output(0));
  n.graph()->erase(&n);
}

}  // namespace

void drop_consumed_inputs(Upgrade& /*u*/, ir::Node& n) {
  drop(n, "consumed_inputs");
}

void drop_broadcast(Upgrade& /*u*/, ir::Node& n) {
  drop(n, "broadcast");
}

void drop_output_sequence(Upgrade& /*u*/, ir::Node& n) {
  drop(n, "output_sequence");
}
// Add(a: [2, 3, 4], b: [3], broadcast=1, axis=1)   =>   Add(a, Unsqueeze(b, axes=[1]))
void align_broadcast(Upgrade& u, ir::Node& n) {
  drop(n, "broadcast");
  const auto axis = take<std::int64_t>(n, "axis");
  if (!axis) return;
  const auto a = static_cast<std::int64_t>(rank_of(n, 0));
  const auto b = static_cast<std::int64_t>(rank_of(n, 1));
  const std::int64_t start = *axis < 0 ? *axis + a : *axis;
  if (start < 0 || start > a - b) fail("bad-model", "axis {} is out of range", *axis);
  Ints axes;
  for (std::int64_t i = b; i < a - start; ++i) axes.push_back(i);
  if (b > 0 && !axes.empty()) set_attr(*u.insert(n, 1, "Unsqueeze"), "axes", axes);
}

// A slope for each channel was a vector; now it broadcasts to the input.
void align_slope(Upgrade& u, ir::Node& n) {
  if (n.input(1) != nullptr && n.input(1)->type.shape.has_rank() && rank_of(n, 1) == 0) return;
  const auto constant = n.input(1)->constant;
  if (constant && constant->size() == 1) return;
  if (rank_of(n, 1) != 1 || rank_of(n, 0) <= 2) return;
  Ints axes;
  for (std::int64_t i = 1; i + 1 < static_cast<std::int64_t>(rank_of(n, 0)); ++i) axes.push_back(i);
  set_attr(*u.insert(n, 1, "Unsqueeze"), "axes", axes);
}

void batch_norm_7(Upgrade& u, ir::Node& n) {
  const bool training = ops::batch_norm_mode(n) == ops::Mode::Training;
  drop(n, "is_test");
  if (!training) return with_outputs(u, n, {""});
  if (u.target() < kTrainingMode)
    fail("unsupported-operator",
         "it normalises by the statistics of its input, which opset {} to {} cannot say", 7,
         kTrainingMode - 1);
  with_outputs(u, n, batch_norm_outputs(n, 5));
}

void batch_norm_9(Upgrade& /*u*/, ir::Node& n) {
  if (take<std::int64_t>(n, "spatial").value_or(1) == 0)
    fail("unsupported-operator", "spatial=0 has no counterpart in opset 9 and later");
}

void batch_norm_14(Upgrade& u, ir::Node& n) {
  const bool training = ops::batch_norm_mode(n) == ops::Mode::Training;
  if (!training) return;
  set_attr(n, "training_mode", std::int64_t{1});
  with_outputs(u, n, batch_norm_outputs(n, 3));
}

void cast_6(Upgrade& /*u*/, ir::Node& n) {
  auto* to = n.attribute("to");
  auto* name = to != nullptr ? std::get_if<std::string>(&to->data) : nullptr;
  if (name == nullptr) return;
  static const std::unordered_map<std::string_view, ir::DType> kTypes = {
      {"FLOAT", ir::DType::Float32},     {"UINT8", ir::DType::UInt8},
      {"INT8", ir::DType::Int8},         {"UINT16", ir::DType::UInt16},
      {"INT16", ir::DType::Int16},       {"INT32", ir::DType::Int32},
      {"INT64", ir::DType::Int64},       {"STRING", ir::DType::String},
      {"BOOL", ir::DType::Bool},         {"FLOAT16", ir::DType::Float16},
      {"DOUBLE", ir::DType::Float64},    {"UINT32", ir::DType::UInt32},
      {"UINT64", ir::DType::UInt64},     {"COMPLEX64", ir::DType::Complex64},
      {"COMPLEX128", ir::DType::Complex128}};
  const auto it = kTypes.find(*name);
  if (it == kTypes.end()) fail("bad-model", "there is no element type \"{}\"", *name);
  to->data = static_cast<std::int64_t>(it->second);
}

void clip_11(Upgrade& /*u*/, ir::Node& n) {
  auto low = take<double>(n, "min");
  auto high = take<double>(n, "max");
  // The defaults were float32's limits, and are the type's own now.
  constexpr double kFloatMax = 3.4028234663852886e38;
  const bool is_double = n.input(0) != nullptr && n.input(0)->type.dtype == ir::DType::Float64;
  if (is_double) {
    low = low.value_or(-kFloatMax);
    high = high.value_or(kFloatMax);
  }
  if (low && (is_double || *low != -kFloatMax)) put_input(n, 1, number_like_input(n, "min", *low));
  if (high && (is_double || *high != kFloatMax))
    put_input(n, 2, number_like_input(n, "max", *high));
}

void concat_4(Upgrade& /*u*/, ir::Node& n) {
  if (n.attribute("axis") == nullptr) set_attr(n, "axis", std::int64_t{1});
}

void dft_20(Upgrade& /*u*/, ir::Node& n) {
  const std::int64_t axis = take<std::int64_t>(n, "axis").value_or(1);
  put_input(n, 2, Upgrade::constant(n, "axis", ir::Tensor::scalar(axis)));
}

// Dropout's mask was of another type before opset 10, and no mask of ones before opset 12.
void dropout_7(Upgrade& /*u*/, ir::Node& n) {
  if (ops::dropout_mode(n) != ops::Mode::Inference)
    fail("unsupported-operator", "is_test=0 has no counterpart in opset 7 to 11");
  drop(n, "is_test");
}
void dropout_10(Upgrade& /*u*/, ir::Node& n) {
  require_first_output_only(n);
}
void dropout_12(Upgrade& /*u*/, ir::Node& n) {
  require_first_output_only(n);
  if (const auto ratio = take<double>(n, "ratio")) {
    const std::vector<float> value = {static_cast<float>(*ratio)};
    put_input(n, 1, Upgrade::constant(
                        n, "ratio", ir::Tensor::from<float>(ir::DType::Float32, {}, value)));
  }
}

void grid_sample_20(Upgrade& /*u*/, ir::Node& n) {
  const std::string mode = attr_string(n, "mode", "bilinear");
  if (mode == "bilinear") set_attr(n, "mode", std::string("linear"));
  if (mode == "bicubic") set_attr(n, "mode", std::string("cubic"));
}

// One scale and bias for each group became one for each channel.
// GroupNormalization(x: [n, 6, ..], s: [2])   =>   ... s as [s0, s0, s0, s1, s1, s1]
void group_norm_21(Upgrade& u, ir::Node& n) {
  const std::int64_t groups = attr_int(n, "num_groups", 0);
  const ir::Type& x = n.input(0)->type;
  if (rank_of(n, 0) < 2 || !x.shape[1].is_const() || groups <= 0 ||
      x.shape[1].value() % groups != 0)
    fail("unsupported-operator", "the number of channels has to be known for opset 21");
  if (x.dtype == ir::DType::Undefined)
    fail("unsupported-operator", "the element type has to be known for opset 21");
  const std::int64_t each = x.shape[1].value() / groups;
  for (std::size_t i = 1; i <= 2 && each > 1; ++i) {
    ir::Value* column = Upgrade::constant(n, "column", ir::Tensor::ints({groups, 1}));
    ir::Value* wide = Upgrade::constant(n, "wide", ir::Tensor::ints({groups, each}));
    ir::Value* flat = Upgrade::constant(n, "flat", ir::Tensor::ints({-1}));
    u.insert(n, i, "Reshape", {column});
    u.insert(n, i, "Expand", {wide});
    u.insert(n, i, "Reshape", {flat});
  }
  // It was computed in its own type.
  if (x.dtype != ir::DType::Float32)
    set_attr(n, "stash_type", static_cast<std::int64_t>(x.dtype));
}

void lp_pool_2(Upgrade& /*u*/, ir::Node& n) {
  const auto p = take<double>(n, "p");
  if (!p) return;
  if (*p != std::floor(*p) || *p < 1 || *p > 1e6)
    fail("unsupported-operator", "p={} is no whole number", *p);
  set_attr(n, "p", static_cast<std::int64_t>(*p));
}

// The checker expands its definition, which from opset 13 on it takes to lack the default.
void mean_variance_normalization_13(Upgrade& /*u*/, ir::Node& n) {
  if (n.attribute("axes") == nullptr) set_attr(n, "axes", Ints{0, 2, 3});
}

void pad_2(Upgrade& /*u*/, ir::Node& n) {
  if (auto pads = take<Ints>(n, "paddings")) set_attr(n, "pads", std::move(*pads));
}
void pad_11(Upgrade& /*u*/, ir::Node& n) {
  const auto pads = take<Ints>(n, "pads");
  if (!pads) fail("bad-model", "the attribute pads is missing");
  put_input(n, 1, Upgrade::constant(n, "pads", ir::Tensor::ints(*pads)));
  const double value = take<double>(n, "value").value_or(0);
  if (value != 0) put_input(n, 2, number_like_input(n, "value", value));
}

/// The attribute `axes` as input 1; where it is absent, or empty, it means all of them.
void axes_as_input(Upgrade& /*u*/, ir::Node& n) {
  const auto axes = take<Ints>(n, "axes");
  if (axes && !axes->empty())
    put_input(n, 1, Upgrade::constant(n, "axes", ir::Tensor::ints(*axes)));
}
void unsqueeze_13(Upgrade& /*u*/, ir::Node& n) {
  const auto axes = take<Ints>(n, "axes");
  if (!axes) fail("bad-model", "the attribute axes is missing");
  put_input(n, 1, Upgrade::constant(n, "axes", ir::Tensor::ints(*axes)));
}

void reshape_5(Upgrade& /*u*/, ir::Node& n) {
  drop(n, "consumed_inputs");
  const auto shape = take<Ints>(n, "shape");
  if (!shape) fail("bad-model", "the attribute shape is missing");
  put_input(n, 1, Upgrade::constant(n, "shape", ir::Tensor::ints(*shape)));
}

// Resize of opset 10 is asymmetric, and of the nearest elements takes the one above where it makes
// smaller, the one below where it does not.
void resize_11(Upgrade& u, ir::Node& n) {
  set_attr(n, "coordinate_transformation_mode", std::string("asymmetric"));
  ir::Value* scales = n.input(1);
  if (attr_string(n, "mode", "nearest") == "nearest" && n.attribute("nearest_mode") == nullptr) {
    bool larger = false;
    bool smaller = false;
    if (scales == nullptr || !scales->constant)
      fail("unsupported-operator", "its scales have to be known for opset 11");
    for (const double s : scales->constant->to_doubles()) {
      larger = larger || s > 1;
      smaller = smaller || s < 1;
    }
    if (larger && smaller)
      fail("unsupported-operator",
           "it makes one axis larger and another smaller, which round differently");
    set_attr(n, "nearest_mode", std::string(smaller ? "ceil" : "floor"));
  }
  constexpr std::int64_t kOptionalRoi = 13;
  ir::Value* roi = u.target() >= kOptionalRoi
                       ? nullptr
                       : Upgrade::constant(n, "roi",
                                           ir::Tensor::from<float>(ir::DType::Float32, {0}, {}));
  const Inputs inputs = {n.input(0), roi, scales};
  n.set_inputs(inputs);
}

void resize_13(Upgrade& /*u*/, ir::Node& n) {
  if (attr_string(n, "coordinate_transformation_mode", "") == "tf_half_pixel_for_nn")
    fail("unsupported-operator", "tf_half_pixel_for_nn has no counterpart in opset 13 and later");
  // Sizes alone were said with empty scales.
  const ir::Value* scales = n.input(2);
  if (n.input(3) != nullptr && scales != nullptr && scales->constant &&
      scales->constant->size() == 0)
    n.set_input(2, nullptr);
}

void upsample_7(Upgrade& /*u*/, ir::Node& n) {
  const auto height = take<double>(n, "height_scale");
  const auto width = take<double>(n, "width_scale");
  if (!height || !width) fail("bad-model", "height_scale and width_scale are missing");
  set_attr(n, "scales", std::vector<double>{1, 1, *height, *width});
  if (attr_string(n, "mode", "nearest") == "bilinear") set_attr(n, "mode", std::string("linear"));
}
void upsample_9(Upgrade& /*u*/, ir::Node& n) {
  const auto scales = take<std::vector<double>>(n, "scales");
  if (!scales) fail("bad-model", "the attribute scales is missing");
  const std::vector<float> values(scales->begin(), scales->end());
  put_input(n, 1,
            Upgrade::constant(n, "scales",
                              ir::Tensor::from<float>(ir::DType::Float32,
                                                      {static_cast<std::int64_t>(values.size())},
                                                      values)));
}
void upsample_10(Upgrade& u, ir::Node& n) {
  if (attr_string(n, "mode", "nearest") == "bilinear") set_attr(n, "mode", std::string("linear"));
  n.op_type = "Resize";
  // It only ever made larger: this is known here, whatever its scales.
  constexpr std::int64_t kNearestMode = 11;
  if (u.target() >= kNearestMode && attr_string(n, "mode", "nearest") == "nearest")
    set_attr(n, "nearest_mode", std::string("floor"));
}

void roi_align_16(Upgrade& /*u*/, ir::Node& n) {
  if (n.attribute("coordinate_transformation_mode") == nullptr)
    set_attr(n, "coordinate_transformation_mode", std::string("output_half_pixel"));
}

void scan_9(Upgrade& /*u*/, ir::Node& /*n*/) {
  fail("unsupported-operator", "Scan of opset 8 runs over a batch, which opset 9 cannot say");
}

void scatter_11(Upgrade& /*u*/, ir::Node& n) {
  n.op_type = "ScatterElements";
}

void selu_6(Upgrade& /*u*/, ir::Node& n) {
  drop(n, "consumed_inputs");
  if (n.attribute("alpha") == nullptr) set_attr(n, "alpha", 1.6732);
  if (n.attribute("gamma") == nullptr) set_attr(n, "gamma", 1.0507);
}

void slice_10(Upgrade& /*u*/, ir::Node& n) {
  const auto starts = take<Ints>(n, "starts");
  const auto ends = take<Ints>(n, "ends");
  const auto axes = take<Ints>(n, "axes");
  if (!starts || !ends) fail("bad-model", "the attributes starts and ends are missing");
  put_input(n, 1, Upgrade::constant(n, "starts", ir::Tensor::ints(*starts)));
  put_input(n, 2, Upgrade::constant(n, "ends", ir::Tensor::ints(*ends)));
  if (axes) put_input(n, 3, Upgrade::constant(n, "axes", ir::Tensor::ints(*axes)));
}

// Softmax over all axes from `axis` on became Softmax over `axis`.
// Softmax(x: [a, b, c], axis=1)   =>   Reshape(Softmax(Flatten(x, axis=1), axis=1), Shape(x))
void softmax_13(Upgrade& u, ir::Node& n) {
  const std::int64_t axis = attr_int(n, "axis", 1);
  ir::Value* x = n.input(0);
  ir::Value* out = n.output(0);
  if (x == nullptr || out == nullptr) fail("bad-model", "it lacks an input or output");
  const ir::Shape shape = x->type.is_tensor() ? x->type.shape : ir::Shape();
  bool all_positive = shape.has_rank();
  if (shape.has_rank()) {
    const auto rank = static_cast<std::int64_t>(shape.rank());
    const std::int64_t at = axis < 0 ? axis + rank : axis;
    bool alone = true;
    for (std::int64_t i = 0; i < rank; ++i) {
      const ir::Dim& d = shape[static_cast<std::size_t>(i)];
      alone = alone && (i <= at || (d.is_const() && d.value() == 1));
      // Reshape copies zeros of the first two from the flattened value, which has them too.
      all_positive = all_positive && (i < 2 || (d.is_const() && d.value() > 0));
    }
    if (alone && at < rank) return set_attr(n, "axis", at == rank - 1 ? std::int64_t{-1} : at);
  }
  ir::Graph& g = *n.graph();
  std::optional<Ints> fixed = Ints();
  for (std::size_t i = 0; shape.has_rank() && i < shape.rank(); ++i) {
    if (fixed && shape[i].is_const() && shape[i].value() > 0) {
      fixed->push_back(shape[i].value());
    } else {
      fixed.reset();
    }
  }
  ir::Value* to = shape.has_rank() && fixed
                      ? Upgrade::constant(n, "shape", ir::Tensor::ints(*fixed))
                      : u.add(g, "Shape", {x}, out->name + "_shape", n, &n)->output(0);
  set_attr(*u.insert(n, 0, "Flatten"), "axis", axis);
  set_attr(n, "axis", std::int64_t{1});
  const ir::Type type = std::exchange(
      out->type, ir::Type::tensor(x->type.dtype, ir::Shape::unknown_dims(2)));
  ir::Node* back = u.add(g, "Reshape", {nullptr, to}, out->name, n, n.next());
  out->name += "_flat";
  back->output(0)->type = type;
  constexpr std::int64_t kAllowZero = 14;
  if (u.target() >= kAllowZero && !all_positive) set_attr(*back, "allowzero", std::int64_t{1});
  out->replace_all_uses(back->output(0));
  back->set_input(0, out);
}

void split_2(Upgrade& /*u*/, ir::Node& n) {
  if (n.input(1) == nullptr) return;
  auto sizes = const_ints(n.input(1));
  if (!sizes) fail("unsupported-operator", "its sizes have to be known for opset 2");
  set_attr(n, "split", std::move(*sizes));
  const Inputs inputs = {n.input(0)};
  n.set_inputs(inputs);
}
void split_13(Upgrade& /*u*/, ir::Node& n) {
  if (const auto sizes = take<Ints>(n, "split"))
    put_input(n, 1, Upgrade::constant(n, "split", ir::Tensor::ints(*sizes)));
}
void split_18(Upgrade& /*u*/, ir::Node& n) {
  if (n.input(1) == nullptr)
    set_attr(n, "num_outputs", static_cast<std::int64_t>(n.output_count()));
}

void tile_6(Upgrade& /*u*/, ir::Node& n) {
  const auto tiles = const_ints(n.input(1));
  const auto axis = const_ints(n.input(2));
  const auto rank = static_cast<std::int64_t>(rank_of(n, 0));
  if (!tiles || !axis || tiles->size() != 1 || axis->size() != 1)
    fail("unsupported-operator", "its tiles and axis have to be known for opset 6");
  const std::int64_t at = axis->front() < 0 ? axis->front() + rank : axis->front();
  if (at < 0 || at >= rank) fail("bad-model", "axis {} is out of range", axis->front());
  Ints repeats(static_cast<std::size_t>(rank), 1);
  repeats[static_cast<std::size_t>(at)] = tiles->front();
  const Inputs inputs = {n.input(0),
                         Upgrade::constant(n, "repeats", ir::Tensor::ints(repeats))};
  n.set_inputs(inputs);
}

void top_k_10(Upgrade& /*u*/, ir::Node& n) {
  const auto k = take<std::int64_t>(n, "k");
  if (!k) fail("bad-model", "the attribute k is missing");
  put_input(n, 1, Upgrade::constant(n, "k", ir::Tensor::ints({*k})));
}

}  // namespace onnx2nn::passes
