// Operators that pick and place elements: Gather, GatherElements, GatherND, ScatterElements,
// ScatterND, Where, OneHot, NonZero, Compress, Unique, Trilu, TensorScatter.
// https://onnx.ai/onnx/operators/onnx__Gather.html and its neighbours.
#include <algorithm>

#include "ops/lower.h"
#include "ops/registry.h"
#include "support/checked.h"

namespace onnx2nn::ops {
namespace {

/// Whether torch can gather, scatter and cut triangles from this dtype.
bool has_index_kernels(DType t) {
  switch (t) {
    case DType::UInt16:
    case DType::UInt32:
    case DType::UInt64:
    case DType::Float8E4M3FN:
    case DType::Float8E4M3FNUZ:
    case DType::Float8E5M2:
    case DType::Float8E5M2FNUZ:
    case DType::Float8E8M0:
      return false;
    default:
      return t != DType::Undefined;
  }
}

/// ONNX counts negative indices from the end; torch.gather and nn.Embedding refuse them.
bool never_negative(const ir::Value* v, int depth = 0) {
  constexpr int kMaxDepth = 8;
  if (v == nullptr || depth > kMaxDepth) return false;
  if (v->constant) {
    const Ints ints = v->constant->to_ints();
    return std::all_of(ints.begin(), ints.end(), [](std::int64_t i) { return i >= 0; });
  }
  const ir::Node* n = v->producer();
  if (n == nullptr || !n->domain.empty()) return false;
  if (n->is("TopK")) return v->output_index() == 1;
  if (n->is("Unsqueeze") || n->is("Squeeze") || n->is("Reshape") || n->is("Expand") ||
      n->is("Transpose") || n->is("Identity"))
    return never_negative(n->input(0), depth + 1);
  return n->is("ArgMax") || n->is("ArgMin") || n->is("NonZero");
}

/// torch.gather and scatter want 64-bit indices.
Ex long_index(LowerContext& c, std::size_t i) {
  return c.dtype(i) == DType::Int64 ? c.in(i) : aten("to.dtype", {c.in(i), DType::Int64});
}

/// `x[:, :, index]`
Ex indexed(const Ex& x, std::int64_t axis, const Ex& index) {
  Args all(static_cast<std::size_t>(axis), kNone);
  all.push_back(index);
  return aten("index.Tensor", {x, list(all)});
}

// ---------------------------------------------------------------- Gather

void infer_gather(InferContext& c) {
  const Shape& s = c.shape(0);
  const Shape& index = c.shape(1);
  if (!s.has_rank() || !index.has_rank()) return c.set(0, c.dtype(0));
  const auto axis = static_cast<std::size_t>(c.axis(c.attr_int("axis", 0), s.rank()));
  Dims out(s.dims().begin(), s.dims().begin() + static_cast<std::ptrdiff_t>(axis));
  out.insert(out.end(), index.dims().begin(), index.dims().end());
  out.insert(out.end(), s.dims().begin() + static_cast<std::ptrdiff_t>(axis) + 1, s.dims().end());
  c.set(0, c.dtype(0), Shape(std::move(out)));
  const auto v = c.contents(0);
  const auto at = c.const_ints(1);
  if (!v || !at || s.rank() != 1 || index.rank() > 1) return;
  Dims contents;
  for (const std::int64_t i : *at) {
    const auto n = static_cast<std::int64_t>(v->size());
    if (i < -n || i >= n) c.fail("index " + std::to_string(i) + " is out of range");
    contents.push_back((*v)[static_cast<std::size_t>(i < 0 ? i + n : i)]);
  }
  c.set_contents(0, std::move(contents));
}

/// Whether indices cannot be negative, given that those which the model's user gives, such as token
/// ids, are not.
bool is_index_like(const ir::Value* v, int depth = 0) {
  constexpr int kMaxDepth = 12;
  if (v == nullptr || depth > kMaxDepth) return false;
  if (v->constant)
    return (ir::is_integer(v->type.dtype) || v->type.dtype == DType::Bool) && never_negative(v);
  if (v->is_graph_input) return v->graph()->outer() == nullptr && ir::is_integer(v->type.dtype);
  if (v->type.dtype == DType::Bool) return true;
  const ir::Node* n = v->producer();
  if (n == nullptr || !n->domain.empty()) return false;
  const auto all = [&](std::size_t from) {
    for (std::size_t i = from; i < n->input_count(); ++i)
      if (!is_index_like(n->input(i), depth + 1)) return false;
    return n->input_count() > from;
  };
  if (n->is("Cast") || n->is("Unsqueeze") || n->is("Squeeze") || n->is("Reshape") ||
      n->is("Transpose") || n->is("Identity") || n->is("Slice") || n->is("Gather") ||
      n->is("Flatten") || n->is("Split") || n->is("Expand") || n->is("Tile") || n->is("CumSum"))
    return is_index_like(n->input(0), depth + 1);
  // Positions: a range that starts at a number or at a size and goes up.
  if (n->is("Range")) {
    const auto up = n->input(2) != nullptr && n->input(2)->constant && never_negative(n->input(2));
    const ir::Value* start = n->input(0);
    return up && start != nullptr &&
           (start->constant ? never_negative(start)
                            : start->contents && !start->contents->empty() &&
                                  (*start->contents)[0].never_negative());
  }
  if (n->is("Add") || n->is("Mul") || n->is("Concat")) return all(0);
  if (n->is("Where")) return all(1);
  return never_negative(v);
}

/// Whether the indices are a real input of the model, which a caller may give any sign.
bool is_real_input(const ir::Value* v) {
  while (v != nullptr && v->producer() != nullptr && v->producer()->is("Cast"))
    v = v->producer()->input(0);
  return v != nullptr && v->is_graph_input && ir::is_float(v->type.dtype);
}

/// A table of vectors that is looked up: nn.Embedding, which raises where an index is negative.
/// Indices that the model computes may be so on purpose: they index the table as a tensor.
std::optional<Ex> embedding(LowerContext& c) {
  const auto table = c.weight(0);
  const bool initializer = !c.is_constant(0) || c.input(0)->is_initializer;
  if (!table || table->rank() != 2 || !initializer || !ir::is_float(table->dtype) ||
      ir::info(table->dtype).bits < 16)
    return std::nullopt;
  const bool is_authors = c.is_layer("Embedding") && !is_real_input(c.input(1));
  if (!is_index_like(c.input(1)) && !is_authors) return std::nullopt;
  const Ints& dims = table->dims;
  if (dims[0] <= 0 || dims[1] <= 0) return std::nullopt;
  const Ex index = c.in(1);
  return c.module("Embedding", {dims[0], dims[1]}, {}, {{.name = "weight", .value = c.input(0)}},
                  {index});
}

/// Constant indices that a slice or a single position says.
std::optional<Ex> gather_constant(LowerContext& c, std::int64_t axis) {
  const ir::Tensor* index = c.constant(1);
  if (index == nullptr || index->rank() > 1 || index->size() == 0) return std::nullopt;
  const Ints at = index->to_ints();
  if (index->rank() == 0) return aten("select.int", {c.in(0), axis, at[0]});
  for (std::size_t i = 1; i < at.size(); ++i)
    if (at[i] <= at[i - 1] || at[i] - 1 != at[i - 1]) return std::nullopt;
  if (at[0] < 0 && at.back() >= 0) return std::nullopt;
  // A slice is silent where an index would be out of range: only within a known size.
  const Dim& size = c.shape(0)[static_cast<std::size_t>(axis)];
  const bool edge = at.size() == 1 && (at[0] == 0 || at[0] == -1);
  if (!edge && !(size.is_const() && at.back() < size.value() && at[0] >= -size.value()))
    return std::nullopt;
  const Ex end = at.back() == -1 || (size.is_const() && at.back() + 1 == size.value())
                     ? kNone
                     : Ex(at.back() + 1);
  return aten("slice.Tensor", {c.in(0), axis, at[0], end});
}

void lower_gather(LowerContext& c) {
  c.carry_strings({0});
  const std::int64_t given = c.attr_int("axis", 0);
  if (!c.rank(0) || !c.rank(1)) return c.out(0, helper("gather_slices", {c.in(0), c.in(1), given}));
  const std::int64_t axis = c.axis(given, *c.rank(0));
  if (axis == 0)
    if (const auto e = embedding(c)) return c.out(0, *e);
  if (const auto e = gather_constant(c, axis)) return c.out(0, *e);
  if (c.rank(1) == 0U) {
    if (const auto i = c.int_elements(1);
        i && i->size() == 1 && (c.contents(1) || c.lowered(1).host))
      return c.out(0, aten("select.int", {c.in(0), axis, (*i)[0]}));
    // Indexing with a tensor of rank 0 would read it back to the host.
    return c.out(0, helper("gather_slices", {c.in(0), c.in(1), axis}));
  }
  c.out(0, indexed(c.in(0), axis, c.in(1)));
}

// ---------------------------------------------------------------- GatherElements, GatherND

void infer_gather_elements(InferContext& c) {
  c.set(0, c.dtype(0), c.shape(1));
}

void lower_gather_elements(LowerContext& c) {
  c.carry_strings({0});
  const std::int64_t axis = c.attr_int("axis", 0);
  if (has_index_kernels(c.dtype(0)) && never_negative(c.input(1)))
    return c.out(0, aten("gather", {c.in(0), axis, long_index(c, 1)}));
  if (has_index_kernels(c.dtype(0)) && c.rank(0).value_or(0) > 0) {
    // The remainder of a negative index counts from the beginning.
    const Ex size = c.dim(0, c.axis(axis, *c.rank(0)));
    const Ex index = aten("remainder.Scalar", {long_index(c, 1), size});
    return c.out(0, aten("gather", {c.in(0), axis, index}));
  }
  c.out(0, helper("gather_elements", {c.in(0), c.in(1), axis}));
}

void infer_gather_nd(InferContext& c) {
  const Shape& s = c.shape(0);
  const Shape& index = c.shape(1);
  const std::int64_t batch = c.attr_int("batch_dims", 0);
  if (!s.has_rank() || !index.has_rank() || index.rank() == 0 || !index.dims().back().is_const())
    return c.set(0, c.dtype(0));
  const std::int64_t depth = index.dims().back().value();
  const auto rank = static_cast<std::int64_t>(s.rank());
  if (batch < 0 || depth < 0 || batch > rank || depth > rank - batch)
    c.fail("the indices are longer than the data's rank");
  if (batch >= static_cast<std::int64_t>(index.rank()))
    c.fail("batch_dims is " + std::to_string(batch) + ", and the indices have rank " +
           std::to_string(index.rank()));
  Dims out(index.dims().begin(), index.dims().end() - 1);
  out.insert(out.end(), s.dims().begin() + static_cast<std::ptrdiff_t>(batch + depth),
             s.dims().end());
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// Index tensors, one an axis, from the last dimension of ONNX's "ND" indices.
std::optional<Args> index_columns(LowerContext& c, std::size_t i) {
  const Shape& s = c.shape(i);
  if (!s.has_rank() || s.rank() < 2 || !s.dims().back().is_const()) return std::nullopt;
  const std::int64_t depth = s.dims().back().value();
  if (depth < 1 || depth > 4) return std::nullopt;
  const Ex index = c.in(i);
  Args out;
  for (std::int64_t d = 0; d < depth; ++d) out.push_back(aten("select.int", {index, -1, d}));
  return out;
}

void lower_gather_nd(LowerContext& c) {
  c.carry_strings({0});
  const std::int64_t batch = c.attr_int("batch_dims", 0);
  if (batch == 0)
    if (const auto columns = index_columns(c, 1))
      return c.out(0, aten("index.Tensor", {c.in(0), list(*columns)}));
  Args args{c.in(0), c.in(1)};
  if (batch != 0) args.emplace_back(batch);
  c.out(0, helper("gather_nd", args));
}

// ---------------------------------------------------------------- Scatter, ScatterElements,
// ScatterND Reductions came with opset 16 (add, mul) and 18 (max, min).

void infer_first(InferContext& c) {
  c.set(0, c.type(0));
}

/// How values that fall on the same element are joined.
std::string scatter_reduction(LowerContext& c) {
  std::string reduction = c.attr_string("reduction", "none");
  for (const char* known : {"none", "add", "mul", "min", "max"})
    if (reduction == known) return reduction;
  c.fail("the reduction '" + reduction + "' is none of none, add, mul, min and max");
}

void lower_scatter_elements(LowerContext& c) {
  c.carry_strings({0, 2});
  const std::int64_t axis = c.attr_int("axis", 0);
  const std::string reduction = scatter_reduction(c);
  if (has_index_kernels(c.dtype(0)) && never_negative(c.input(1))) {
    if (reduction == "none")
      return c.out(0, aten("scatter.src", {c.in(0), axis, long_index(c, 1), c.in(2)}));
    if (reduction == "add" && c.dtype(0) != DType::Bool)
      return c.out(0, aten("scatter_add", {c.in(0), axis, long_index(c, 1), c.in(2)}));
  }
  Kwargs kw;
  if (axis != 0) kw.emplace_back("axis", Ex(axis));
  if (reduction != "none") kw.emplace_back("reduction", Ex(reduction));
  c.out(0, helper("scatter_elements", {c.in(0), c.in(1), c.in(2)}, kw));
}

void lower_scatter_nd(LowerContext& c) {
  c.carry_strings({0, 2});
  const std::string reduction = scatter_reduction(c);
  const bool plain = has_index_kernels(c.dtype(0)) &&
                     (reduction == "none" || (reduction == "add" && c.dtype(0) != DType::Bool));
  if (plain)
    if (const auto columns = index_columns(c, 1)) {
      Args args{c.in(0), torch::tuple(*columns), c.in(2)};
      if (reduction == "add") args.emplace_back(true);
      return c.out(0, aten("index_put", args));
    }
  Kwargs kw;
  if (reduction != "none") kw.emplace_back("reduction", Ex(reduction));
  c.out(0, helper("scatter_nd", {c.in(0), c.in(1), c.in(2)}, kw));
}

void lower_tensor_scatter(LowerContext& c) {
  c.carry_strings({0, 1});
  Args args{c.in(0), c.in(1)};
  if (c.has_input(2)) args.push_back(c.in(2));
  Kwargs kw;
  if (const std::int64_t axis = c.attr_int("axis", -2); axis != -2)
    kw.emplace_back("axis", Ex(axis));
  if (const std::string mode = c.attr_string("mode", "linear"); mode != "linear")
    kw.emplace_back("mode", Ex(mode));
  c.out(0, helper("tensor_scatter", args, kw));
}

// ---------------------------------------------------------------- Where

/// Elements of a condition of rank 0 or 1, where known: 0 and 1.
std::optional<Dims> condition_contents(const NodeContext& c) {
  const ir::Tensor* t = c.constant(0);
  if (t == nullptr) return c.contents(0);
  if (t->rank() > 1 || t->size() > 64) return std::nullopt;
  const Ints ints = t->to_ints();
  return Dims(ints.begin(), ints.end());
}

void infer_where(InferContext& c) {
  const Shape out = broadcast(broadcast(c.shape(0), c.shape(1)), c.shape(2));
  c.set(0, c.dtype(1), out);
  if (!ir::is_integer(c.dtype(1)) || !out.has_rank() || out.rank() > 1) return;
  const auto a = c.contents(1);
  const auto b = c.contents(2);
  const auto condition = condition_contents(c);
  if (!a || !b) return;
  const std::size_t n =
      out.rank() == 0 ? 1 : std::max({a->size(), b->size(), condition ? condition->size() : 1});
  const auto at = [&](const Dims& d, std::size_t i) {
    return d.size() == 1 ? d[0] : i < d.size() ? d[i] : Dim();
  };
  Dims contents;
  for (std::size_t i = 0; i < n; ++i) {
    const Dim chosen = condition ? at(*condition, i) : Dim();
    if (chosen.is_const()) {
      contents.push_back(chosen.value() != 0 ? at(*a, i) : at(*b, i));
    } else {
      contents.push_back(at(*a, i) == at(*b, i) ? at(*a, i) : Dim());
    }
  }
  if (out.rank() == 0 || (out[0].is_const() && out[0].value() == static_cast<std::int64_t>(n)))
    c.set_contents(0, std::move(contents));
}

void lower_where(LowerContext& c) {
  if (c.dtype(1) == DType::String) return c.out(0, call("np.where", {c.in(0), c.in(1), c.in(2)}));
  const bool x_number = c.is_scalar_constant(1);
  const bool y_number = c.is_scalar_constant(2);
  // Two Python numbers would make a tensor of torch's default dtype.
  const bool both =
      c.dtype(1) == DType::Float32 || c.dtype(1) == DType::Int64 || c.dtype(1) == DType::Bool;
  if (x_number && y_number && both)
    return c.out(0, aten("where.Scalar", {c.in(0), c.operand(1), c.operand(2)}));
  if (x_number && !y_number)
    return c.out(0, aten("where.ScalarSelf", {c.in(0), c.operand(1), c.in(2)}));
  if (y_number) return c.out(0, aten("where.ScalarOther", {c.in(0), c.in(1), c.operand(2)}));
  c.out(0, aten("where.self", {c.in(0), c.in(1), c.in(2)}));
}

// ---------------------------------------------------------------- OneHot

void infer_one_hot(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(2));
  const auto axis = c.axis(c.attr_int("axis", -1), s.rank() + 1);
  const auto depth = c.contents(1);
  Dims out = s.dims();
  out.insert(out.begin() + static_cast<std::ptrdiff_t>(axis),
             depth && depth->size() == 1 ? (*depth)[0] : Dim());
  c.set(0, c.dtype(2), Shape(std::move(out)));
}

void lower_one_hot(LowerContext& c) {
  c.carry_strings({2});
  const auto number = c.const_number(1);
  const auto whole = number ? to_integer<std::int64_t>(*number) : std::nullopt;
  if (number && !whole) c.fail("the depth is no size");
  const Ex depth = whole ? Ex(*whole) : c.int_scalar(1);
  Args args{c.in(0), depth, c.in(2)};
  if (const std::int64_t axis = c.attr_int("axis", -1); axis != -1) args.emplace_back(axis);
  c.out(0, helper("one_hot", args));
}

// ---------------------------------------------------------------- NonZero, Compress, Unique, Trilu

void infer_non_zero(InferContext& c) {
  const auto rank = c.rank(0);
  c.set(0, DType::Int64,
        rank ? Shape({Dim(static_cast<std::int64_t>(*rank)), Dim()}) : Shape::unknown_dims(2));
}

void lower_non_zero(LowerContext& c) {
  if (!has_index_kernels(c.dtype(0))) return c.out(0, helper("non_zero", {c.in(0)}));
  c.out(0, aten("t", {aten("nonzero", {c.in(0)})}));
}

void infer_compress(InferContext& c) {
  if (!c.has_attr("axis")) return c.set(0, c.dtype(0), Shape::unknown_dims(1));
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  Dims out = s.dims();
  out[static_cast<std::size_t>(c.axis(c.attr_int("axis"), s.rank()))] = Dim();
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_compress(LowerContext& c) {
  c.carry_strings({0});
  if (c.has_attr("axis") && c.rank(0)) {
    const std::int64_t axis = c.axis(c.attr_int("axis"), *c.rank(0));
    const Shape& mask = c.shape(1);
    // A mask may be shorter than the axis in ONNX, not in torch.
    if (mask.has_rank() && mask.rank() == 1 &&
        mask[0] == c.shape(0)[static_cast<std::size_t>(axis)])
      return c.out(0, indexed(c.in(0), axis, c.in(1)));
    return c.out(0, helper("compress", {c.in(0), c.in(1)}, {{"axis", Ex(axis)}}));
  }
  Kwargs kw;
  if (c.has_attr("axis")) kw.emplace_back("axis", Ex(c.attr_int("axis")));
  c.out(0, helper("compress", {c.in(0), c.in(1)}, kw));
}

void infer_unique(InferContext& c) {
  Shape values = Shape::unknown_dims(1);
  if (c.has_attr("axis")) {
    values = c.shape(0);
    if (values.has_rank())
      values.dims()[static_cast<std::size_t>(c.axis(c.attr_int("axis"), values.rank()))] = Dim();
  }
  c.set(0, c.dtype(0), values);
  c.set(1, DType::Int64, Shape::unknown_dims(1));
  c.set(2, DType::Int64, Shape::unknown_dims(1));
  c.set(3, DType::Int64, Shape::unknown_dims(1));
}

void lower_unique(LowerContext& c) {
  Kwargs kw;
  if (c.has_attr("axis")) kw.emplace_back("axis", Ex(c.attr_int("axis")));
  if (const std::int64_t sorted = c.attr_int("sorted", 1); sorted != 1)
    kw.emplace_back("sorted", Ex(sorted));
  const std::string function = c.dtype(0) == DType::String ? "string_unique" : "unique_values";
  const auto all =
      c.lets(helper(function, {c.in(0)}, kw), {"values", "first", "inverse", "counts"});
  for (std::size_t i = 0; i < 4 && i < c.output_count(); ++i)
    if (c.has_output(i)) c.alias(i, all[i]);
}

void lower_trilu(LowerContext& c) {
  c.carry_strings({0});
  const bool upper = c.attr_int("upper", 1) != 0;
  const Ex k = c.has_input(1) ? c.int_scalar(1) : Ex(0);
  if (has_index_kernels(c.dtype(0))) return c.out(0, aten(upper ? "triu" : "tril", {c.in(0), k}));
  c.out(0, helper("trilu", {c.in(0), k}, {{"upper", Ex(upper ? 1 : 0)}}));
}

constexpr OpDef kIndexOps[] = {
    {.type = "Gather", .changed_at = {1}, .infer = infer_gather, .lower = lower_gather},
    {.type = "GatherElements",
     .changed_at = {11},
     .infer = infer_gather_elements,
     .lower = lower_gather_elements},
    {.type = "GatherND",
     .changed_at = {11, 12},
     .infer = infer_gather_nd,
     .lower = lower_gather_nd},
    {.type = "Scatter", .changed_at = {9}, .infer = infer_first, .lower = lower_scatter_elements},
    {.type = "ScatterElements",
     .changed_at = {11, 16, 18},
     .infer = infer_first,
     .lower = lower_scatter_elements},
    {.type = "ScatterND",
     .changed_at = {11, 16, 18},
     .infer = infer_first,
     .lower = lower_scatter_nd},
    {.type = "TensorScatter",
     .changed_at = {24},
     .infer = infer_first,
     .lower = lower_tensor_scatter},
    {.type = "Where", .changed_at = {9}, .infer = infer_where, .lower = lower_where},
    {.type = "OneHot", .changed_at = {9, 11}, .infer = infer_one_hot, .lower = lower_one_hot},
    {.type = "NonZero", .changed_at = {9}, .infer = infer_non_zero, .lower = lower_non_zero},
    {.type = "Compress", .changed_at = {9, 11}, .infer = infer_compress, .lower = lower_compress},
    {.type = "Unique", .changed_at = {11}, .infer = infer_unique, .lower = lower_unique},
    {.type = "Trilu", .changed_at = {14}, .infer = infer_first, .lower = lower_trilu},
};

}  // namespace

std::span<const OpDef> index_ops() {
  return kIndexOps;
}

}  // namespace onnx2nn::ops
