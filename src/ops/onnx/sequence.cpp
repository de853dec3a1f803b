// Sequences are Python lists, optionals a value or None.
// https://onnx.ai/onnx/operators/onnx__SequenceAt.html and its neighbours.
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

Type element_of(const Type& t) {
  return t.element ? *t.element : Type{};
}

/// The elements of a sequence may differ in shape: only what all have in common is said.
Type element_without_shape(Type t) {
  t.shape = Shape();
  return t;
}

// ---------------------------------------------------------------- making

void infer_construct(InferContext& c) {
  Type element = c.type(0);
  for (std::size_t i = 1; i < c.input_count(); ++i)
    if (!element.shape.same(c.shape(i))) element = element_without_shape(element);
  c.set(0, Type::sequence(std::move(element)));
}

void lower_construct(LowerContext& c) {
  Args items;
  for (std::size_t i = 0; i < c.input_count(); ++i) items.push_back(c.in(i));
  c.out(0, list(items));
}

void infer_empty(InferContext& c) {
  c.set(0, Type::sequence(Type::tensor(c.attr_dtype("dtype", DType::Float32))));
}

void lower_empty(LowerContext& c) {
  c.ignore_attr("dtype");
  c.out(0, list({}));
}

// ---------------------------------------------------------------- reading

void infer_at(InferContext& c) {
  c.set(0, element_of(c.type(0)));
}

void lower_at(LowerContext& c) {
  c.out(0, op("[]", {c.in(0), c.int_scalar(1)}));
}

void infer_length(InferContext& c) {
  c.set(0, DType::Int64, Shape(Dims{}));
}

void lower_length(LowerContext& c) {
  if (const ir::Value* v = c.node().output(0))
    c.define(v, {.host = true, .elements = {op("len", {c.in(0)})}});
}

// ---------------------------------------------------------------- changing: always a new list

void infer_insert(InferContext& c) {
  Type t = c.type(0);
  Type element = element_of(t);
  if (!element.shape.same(c.shape(1)))
    element = element_without_shape(element.kind == Type::Kind::Unknown ? c.type(1) : element);
  c.set(0, Type::sequence(std::move(element)));
}

void lower_insert(LowerContext& c) {
  if (!c.has_input(2)) return c.out(0, list({op("*", {c.in(0)}), c.in(1)}));
  c.out(0, helper("sequence_insert", {c.in(0), c.in(1), c.int_scalar(2)}));
}

void infer_erase(InferContext& c) {
  c.set(0, c.type(0));
}

void lower_erase(LowerContext& c) {
  if (!c.has_input(1)) return c.out(0, op("[]", {c.in(0), op("raw", {":-1"})}));
  c.out(0, helper("sequence_erase", {c.in(0), c.int_scalar(1)}));
}

// ---------------------------------------------------------------- splitting and joining

/// Whether each piece is a slice without the axis. With `split` the specification ignores
/// `keepdims`, but ONNX Runtime does not where `split` is the number 1: PyTorch writes unbind so.
bool unbinds(const NodeContext& c) {
  if (c.attr_int("keepdims", 1) != 0) return false;
  if (!c.has_input(1)) return true;
  const auto size = c.contents(1);
  return c.rank(1) == 0U && size && size->size() == 1 && size->front() == Dim(1);
}

void infer_split(InferContext& c) {
  Type element = element_without_shape(c.type(0));
  const Shape& s = c.shape(0);
  if (s.has_rank() && s.rank() > 0) {
    Dims dims = s.dims();
    const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", 0), dims.size()));
    if (unbinds(c)) {
      dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
      element.shape = Shape(std::move(dims));
    } else if (c.attr_int("keepdims", 1) != 0 || c.rank(1) == 1U) {
      dims[axis] = c.has_input(1) ? Dim() : Dim(1);
      element.shape = Shape(std::move(dims));
    }
  }
  c.set(0, Type::sequence(std::move(element)));
}

void lower_split(LowerContext& c) {
  const std::int64_t axis = c.attr_int("axis", 0);
  const bool keep = c.attr_int("keepdims", 1) != 0;
  const bool tensor = c.dtype(0) != DType::String && c.type(0).is_tensor();
  if (tensor && unbinds(c))
    return c.out(0, op("list", {axis == 0 ? aten("unbind.int", {c.in(0)})
                                          : aten("unbind.int", {c.in(0), axis})}));
  Kwargs kw;
  if (axis != 0) kw.emplace_back("axis", Ex(axis));
  if (!keep) kw.emplace_back("keepdims", 0);
  Args args{c.in(0)};
  if (c.has_input(1))
    args.push_back(c.rank(1) == 0U ? c.int_scalar(1) : c.rank(1) ? c.int_list(1) : c.in(1));
  c.out(0, helper("split_to_sequence", args, kw));
}

void infer_concat_sequence(InferContext& c) {
  const Type element = element_of(c.type(0));
  if (!element.shape.has_rank()) return c.set(0, element.dtype);
  const bool fresh = c.attr_int("new_axis", 0) != 0;
  Dims dims = element.shape.dims();
  const auto axis =
      static_cast<std::size_t>(c.axis(c.attr_int("axis"), dims.size() + (fresh ? 1 : 0)));
  if (fresh) {
    dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis), Dim());
  } else {
    dims[axis] = Dim();
  }
  c.set(0, element.dtype, Shape(std::move(dims)));
}

void lower_concat_sequence(LowerContext& c) {
  const std::int64_t axis = c.attr_int("axis");
  const std::int64_t fresh = c.attr_int("new_axis", 0);
  const DType dtype = element_of(c.type(0)).dtype;
  if (dtype == DType::Undefined || dtype == DType::String) {
    Kwargs kw{{"axis", Ex(axis)}};
    if (fresh != 0) kw.emplace_back("new_axis", Ex(fresh));
    return c.out(0, helper("concat_from_sequence", {c.in(0)}, kw));
  }
  c.out(0, aten(fresh != 0 ? "stack" : "cat", {c.in(0), axis}));
}

// ---------------------------------------------------------------- optionals
// From opset 18 on the value itself may stand where an optional is asked for.

void infer_optional(InferContext& c) {
  if (c.has_input(0)) return c.set(0, Type::optional(c.type(0)));
  const ir::Attribute* a = c.node().attribute("type");
  if (a != nullptr)
    if (const auto* t = std::get_if<Type>(&a->data)) c.set(0, Type::optional(*t));
}

void lower_optional(LowerContext& c) {
  c.ignore_attr("type");
  c.alias(0, c.in(0));
}

void infer_has_element(InferContext& c) {
  c.set(0, DType::Bool, Shape(Dims{}));
}

void lower_has_element(LowerContext& c) {
  c.out(0, helper("optional_has_element", c.has_input(0) ? Args{c.in(0)} : Args{}));
}

void infer_get_element(InferContext& c) {
  const Type& t = c.type(0);
  c.set(0, t.kind == Type::Kind::Optional ? element_of(t) : t);
}

void lower_get_element(LowerContext& c) {
  if (c.type(0).kind != Type::Kind::Optional) return c.alias(0, c.in(0));
  c.out(0, helper("optional_get_element", {c.in(0)}));
}

constexpr OpDef kSequenceOps[] = {
    {.type = "SequenceConstruct",
     .changed_at = {11},
     .infer = infer_construct,
     .lower = lower_construct},
    {.type = "SequenceEmpty", .changed_at = {11}, .infer = infer_empty, .lower = lower_empty},
    {.type = "SequenceAt", .changed_at = {11}, .infer = infer_at, .lower = lower_at},
    {.type = "SequenceLength", .changed_at = {11}, .infer = infer_length, .lower = lower_length},
    {.type = "SequenceInsert", .changed_at = {11}, .infer = infer_insert, .lower = lower_insert},
    {.type = "SequenceErase", .changed_at = {11}, .infer = infer_erase, .lower = lower_erase},
    {.type = "SplitToSequence", .changed_at = {11}, .infer = infer_split, .lower = lower_split},
    {.type = "ConcatFromSequence",
     .changed_at = {11},
     .infer = infer_concat_sequence,
     .lower = lower_concat_sequence},
    {.type = "Optional", .changed_at = {15}, .infer = infer_optional, .lower = lower_optional},
    {.type = "OptionalHasElement",
     .changed_at = {15, 18},
     .infer = infer_has_element,
     .lower = lower_has_element},
    {.type = "OptionalGetElement",
     .changed_at = {15, 18},
     .infer = infer_get_element,
     .lower = lower_get_element},
};

}  // namespace

std::span<const OpDef> sequence_ops() {
  return kSequenceOps;
}

}  // namespace onnx2nn::ops
