// Operators that make tensors: Constant, ConstantOfShape, Range, EyeLike, and the random ones.
// https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html and its neighbours.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/onnx/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

// Longer vectors of integers are data, not shapes.
constexpr std::int64_t kMaxContents = 64;

/// torch.full's and torch.arange's keywords.
Kwargs dtype_and_device(LowerContext& c, DType dtype, bool is_default) {
  Kwargs kw;
  if (!is_default) kw.emplace_back("dtype", Ex(dtype));
  if (const Ex d = c.device(); !d.is_none()) kw.emplace_back("device", d);
  return kw;
}

/// A shape given as an input, as far as it is known.
Shape shape_of_input(const NodeContext& c, std::size_t i) {
  if (const auto v = c.contents(i)) return Shape(*v);
  const Shape& s = c.shape(i);
  if (s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() >= 0 && s[0].value() < 64)
    return Shape::unknown_dims(static_cast<std::size_t>(s[0].value()));
  return {};
}

// ---------------------------------------------------------------- ConstantOfShape

void infer_constant_of_shape(InferContext& c) {
  const ir::TensorPtr value = c.attr_tensor("value");
  if (value && value->size() != 1)
    c.fail("value has " + std::to_string(value->size()) + " elements, not one");
  const DType dtype = value ? value->dtype() : DType::Float32;
  const Shape shape = shape_of_input(c, 0);
  c.set(0, dtype, shape);
  if (!value || !ir::is_integer(dtype) || !shape.has_rank() || shape.rank() > 1) return;
  const auto count = shape.element_count().constant();
  if (count && *count >= 0 && *count <= kMaxContents)
    c.set_contents(0, Dims(static_cast<std::size_t>(*count), Dim(value->int_at(0))));
}

void lower_constant_of_shape(LowerContext& c) {
  const ir::TensorPtr value = c.attr_tensor("value");
  const Ex sizes = c.int_list(0);
  if (!value) return c.out(0, aten("zeros", {sizes}, dtype_and_device(c, DType::Float32, true)));
  const DType dtype = value->dtype();
  if (dtype == DType::String)
    return c.out(0, call("np.full", {sizes, Ex(value->string_at(0))},
                         {{"dtype", torch::name("object")}}));
  const bool is_float = dtype == DType::Float32;
  // Zeros and ones have a function each; a negative zero is no zero.
  const bool exact = dtype != DType::Complex64 && dtype != DType::Complex128;
  if (!exact) {
    const Ex one = c.buffer("value", value);
    return c.out(0, aten("expand", {aten("reshape", {one, list({})}), sizes}));
  }
  const double v = value->double_at(0);
  if (v == 0 && !std::signbit(v))
    return c.out(0, aten("zeros", {sizes}, dtype_and_device(c, dtype, is_float)));
  if (v == 1) return c.out(0, aten("ones", {sizes}, dtype_and_device(c, dtype, is_float)));
  const bool inferred = is_float || dtype == DType::Int64 || dtype == DType::Bool;
  c.out(0, aten("full", {sizes, number(*value)}, dtype_and_device(c, dtype, inferred)));
}

// ---------------------------------------------------------------- Range

std::optional<std::int64_t> float_count(const NodeContext& c) {
  double v[3];
  for (std::size_t i = 0; i < 3; ++i) {
    const ir::Tensor* t = c.constant(i);
    if (t == nullptr || t->size() != 1 || !ir::is_float(t->dtype())) return std::nullopt;
    v[i] = t->double_at(0);
  }
  if (v[2] == 0 || !std::isfinite(v[0]) || !std::isfinite(v[1]) || !std::isfinite(v[2]))
    c.fail("delta is 0, or a bound is no number");
  const double n = std::ceil((v[1] - v[0]) / v[2]);
  if (n > 1e15) c.fail("the range is too long");
  return n > 0 ? static_cast<std::int64_t>(n) : 0;
}

void infer_range(InferContext& c) {
  const auto unknown = [&] { c.set(0, c.dtype(0), Shape::unknown_dims(1)); };
  if (!ir::is_integer(c.dtype(0))) {
    const auto n = float_count(c);
    return n ? c.set(0, c.dtype(0), Shape::of({*n})) : unknown();
  }
  const auto start = c.contents(0);
  const auto limit = c.contents(1);
  const auto delta = c.contents(2);
  if (!start || !limit || !delta || start->size() != 1 || limit->size() != 1 || delta->size() != 1)
    return unknown();
  const Dim& step = (*delta)[0];
  if (!step.is_const()) return unknown();
  if (step.value() == 0 || step.value() == INT64_MIN) c.fail("delta is " + step.str());
  const Dim span = step.value() > 0 ? (*limit)[0] - (*start)[0] : (*start)[0] - (*limit)[0];
  const Dim count = Dim::ceil_div(span, Dim(std::abs(step.value())));
  if (span.is_const()) {
    if (!count.is_const()) return unknown();
    const std::int64_t n = std::max<std::int64_t>(count.value(), 0);
    c.set(0, c.dtype(0), Shape::of({n}));
    if (n > kMaxContents || !(*start)[0].known()) return;
    Dims contents;
    for (std::int64_t i = 0; i < n; ++i) contents.push_back((*start)[0] + Dim(i) * step);
    return c.set_contents(0, std::move(contents));
  }
  if (!span.never_negative()) return unknown();
  c.set(0, c.dtype(0), Shape({count}));
}

void lower_range(LowerContext& c) {
  const DType dtype = c.dtype(0);
  const bool integers = dtype == DType::Int64 || dtype == DType::Int32 || dtype == DType::Int16;
  const bool floats = (dtype == DType::Float32 || dtype == DType::Float64) && c.is_constant(0) &&
                      c.is_constant(1) && c.is_constant(2);
  const auto steps = c.const_number(2);
  if ((!integers && !floats) || !steps)
    return c.out(0, helper("number_range", pass_inputs(c, 0, 3)));
  const auto bound = [&](std::size_t i) {
    return integers ? c.int_scalar(i) : number(*c.constant(i));
  };
  const Ex start = bound(0);
  Ex limit = bound(1);
  const Ex step = bound(2);
  // torch.arange refuses a range that runs the other way, which is an empty one in ONNX.
  const Shape& shape = c.node().output(0)->type.shape;
  const Dim count = shape.has_rank() && shape.rank() == 1 ? shape[0] : Dim();
  if (count.is_const() && count.value() == 0) {
    limit = start;
  } else if (integers && !count.is_const()) {
    const auto a = c.contents(0);
    const auto b = c.contents(1);
    const bool forward = a && b && a->size() == 1 && b->size() == 1 && *steps > 0 &&
                         ((*b)[0] - (*a)[0]).never_negative();
    if (!forward) limit = op(*steps > 0 ? "max" : "min", {start, limit});
  }
  const bool from_zero = start.is_int() && start->integer == 0;
  const bool by_one = step.is_int() && step->integer == 1;
  const Kwargs kw = dtype_and_device(c, dtype, dtype == DType::Int64 || dtype == DType::Float32);
  if (!by_one) return c.out(0, aten("arange.start_step", {start, limit, step}, kw));
  c.out(0, from_zero ? aten("arange", {limit}, kw) : aten("arange.start", {start, limit}, kw));
}

// ---------------------------------------------------------------- EyeLike

void infer_eye_like(InferContext& c) {
  c.set(0, c.attr_dtype("dtype", c.dtype(0)), c.shape(0));
}

void lower_eye_like(LowerContext& c) {
  Kwargs kw;
  if (const std::int64_t k = c.attr_int("k", 0); k != 0) kw.emplace_back("k", Ex(k));
  if (const DType d = c.attr_dtype("dtype", c.dtype(0)); d != c.dtype(0))
    kw.emplace_back("dtype", Ex(d));
  c.out(0, helper("eye_like", {c.in(0)}, kw));
}

// ---------------------------------------------------------------- random values

void infer_random(InferContext& c) {
  const auto shape = c.attr_ints("shape");
  c.set(0, c.attr_dtype("dtype", DType::Float32), shape ? Shape::of(*shape) : Shape());
}

void infer_random_like(InferContext& c) {
  c.set(0, c.attr_dtype("dtype", c.dtype(0)), c.shape(0));
}

/// Keywords of the runtime's random functions: floats that differ from their defaults, and the
/// seed.
Kwargs random_keywords(LowerContext& c,
                       const std::vector<std::pair<std::string, double>>& numbers) {
  Kwargs kw;
  for (const auto& [key, otherwise] : numbers)
    if (const double v = c.attr_float(key, otherwise); v != otherwise) kw.emplace_back(key, Ex(v));
  if (c.has_attr("seed")) kw.emplace_back("seed", Ex(c.attr_float("seed", 0)));
  return kw;
}

void lower_random(LowerContext& c, const std::string& function,
                  const std::vector<std::pair<std::string, double>>& numbers) {
  const auto shape = c.attr_ints("shape");
  if (!shape) c.fail("the attribute \"shape\" is missing");
  Kwargs kw = random_keywords(c, numbers);
  if (const DType d = c.attr_dtype("dtype", DType::Float32); d != DType::Float32)
    kw.emplace_back("dtype", Ex(d));
  if (const Ex d = c.device(); !d.is_none()) kw.emplace_back("device", d);
  c.out(0, helper(function, {Ex(*shape)}, kw));
}

void lower_random_like(LowerContext& c, const std::string& function,
                       const std::vector<std::pair<std::string, double>>& numbers) {
  Kwargs kw = random_keywords(c, numbers);
  if (const DType d = c.attr_dtype("dtype", c.dtype(0)); d != c.dtype(0))
    kw.emplace_back("dtype", Ex(d));
  c.out(0, helper(function, {c.in(0)}, kw));
}

void lower_random_normal(LowerContext& c) {
  lower_random(c, "random_normal", {{"mean", 0.0}, {"scale", 1.0}});
}
void lower_random_uniform(LowerContext& c) {
  lower_random(c, "random_uniform", {{"low", 0.0}, {"high", 1.0}});
}
void lower_random_normal_like(LowerContext& c) {
  lower_random_like(c, "random_normal_like", {{"mean", 0.0}, {"scale", 1.0}});
}
void lower_random_uniform_like(LowerContext& c) {
  lower_random_like(c, "random_uniform_like", {{"low", 0.0}, {"high", 1.0}});
}

void lower_bernoulli(LowerContext& c) {
  Kwargs kw = random_keywords(c, {});
  const DType dtype = c.attr_dtype("dtype", c.dtype(0));
  if (kw.empty() && dtype == c.dtype(0))
    return c.out(0, aten("bernoulli", {aten("clamp", {c.in(0), 0, 1})}));
  if (dtype != c.dtype(0)) kw.emplace_back("dtype", Ex(dtype));
  c.out(0, helper("bernoulli", {c.in(0)}, kw));
}

void infer_multinomial(InferContext& c) {
  const Dim batch = c.rank(0) == 2U ? c.shape(0)[0] : Dim();
  c.set(0, c.attr_dtype("dtype", DType::Int32), Shape({batch, Dim(c.attr_int("sample_size", 1))}));
}

void lower_multinomial(LowerContext& c) {
  Kwargs kw = random_keywords(c, {});
  if (const std::int64_t n = c.attr_int("sample_size", 1); n != 1)
    kw.emplace_back("sample_size", Ex(n));
  if (const DType d = c.attr_dtype("dtype", DType::Int32); d != DType::Int32)
    kw.emplace_back("dtype", Ex(d));
  c.out(0, helper("multinomial", {c.in(0)}, kw));
}

// ---------------------------------------------------------------- GivenTensorFill
// Experimental in opset 1, and Caffe2's: the numbers of an attribute in a shape.

Ints filled_shape(const NodeContext& c) {
  if (c.has_input(0)) c.unsupported("a shape that is an input is not supported");
  const auto shape = c.attr_ints("shape");
  if (!shape || c.attr_ints("extra_shape").value_or(Ints{}).size() != 0)
    c.fail("without an input it needs shape, and takes no extra_shape");
  return *shape;
}

void infer_given_tensor(InferContext& c) {
  const Ints shape = filled_shape(c);
  c.set(0, DType::Float32, Shape(Dims(shape.begin(), shape.end())));
}

void lower_given_tensor(LowerContext& c) {
  c.ignore_attr("input_as_shape");
  const auto values = c.attr_floats("values").value_or(std::vector<double>{});
  const std::vector<float> numbers(values.begin(), values.end());
  c.out(0, c.buffer("values",
                    ir::Tensor::from<float>(DType::Float32, filled_shape(c), numbers)));
}

constexpr OpDef kCreateOps[] = {
    {.type = "ConstantOfShape",
     .changed_at = {9},
     .infer = infer_constant_of_shape,
     .lower = lower_constant_of_shape},
    {.type = "GivenTensorFill",
     .changed_at = {1},
     .infer = infer_given_tensor,
     .lower = lower_given_tensor},
    {.type = "Range", .changed_at = {11}, .infer = infer_range, .lower = lower_range},
    {.type = "EyeLike", .changed_at = {9}, .infer = infer_eye_like, .lower = lower_eye_like},
    {.type = "RandomNormal",
     .changed_at = {1},
     .nondeterministic = true,
     .infer = infer_random,
     .lower = lower_random_normal},
    {.type = "RandomUniform",
     .changed_at = {1},
     .nondeterministic = true,
     .infer = infer_random,
     .lower = lower_random_uniform},
    {.type = "RandomNormalLike",
     .changed_at = {1},
     .nondeterministic = true,
     .infer = infer_random_like,
     .lower = lower_random_normal_like},
    {.type = "RandomUniformLike",
     .changed_at = {1},
     .nondeterministic = true,
     .infer = infer_random_like,
     .lower = lower_random_uniform_like},
    {.type = "Bernoulli",
     .changed_at = {15},
     .nondeterministic = true,
     .infer = infer_random_like,
     .lower = lower_bernoulli},
    {.type = "Multinomial",
     .changed_at = {7},
     .nondeterministic = true,
     .infer = infer_multinomial,
     .lower = lower_multinomial},
};

}  // namespace

std::span<const OpDef> create_ops() {
  return kCreateOps;
}

}  // namespace onnx2nn::ops
