// Operators that do nothing, and pairs of which the second undoes the first.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "ops/onnx/training.h"
#include "passes/masks.h"
#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

bool pass_over(Rewriter& w, ir::Node& n, ir::Value* with) {
  if (with == nullptr || n.output(0) == nullptr || !n.output(0)->has_uses() ||
      !compatible(n.output(0), with))
    return false;
  w.replace(n.output(0), with);
  return true;
}

bool has_output_beyond_first(const ir::Node& n) {
  for (std::size_t i = 1; i < n.output_count(); ++i)
    if (n.output(i) != nullptr && n.output(i)->has_uses()) return true;
  return false;
}

// Dropout(x) -> y   =>   x for y, in inference
bool remove_dropout(Rewriter& w, ir::Node& n) {
  if (has_output_beyond_first(n)) return false;
  if (ops::dropout_mode(n) != ops::Mode::Inference) return false;
  return pass_over(w, n, n.input(0));
}

// Cast(x: f32) to f32 -> y   =>   x for y
bool remove_cast(Rewriter& w, ir::Node& n) {
  const ir::Value* x = n.input(0);
  const ir::Value* like = n.is("CastLike") ? n.input(1) : n.output(0);
  if (x == nullptr || like == nullptr || !x->type.is_tensor() || !like->type.is_tensor())
    return false;
  if (x->type.dtype == ir::DType::Undefined || x->type.dtype != like->type.dtype) return false;
  return pass_over(w, n, n.input(0));
}

/// Every value of `from` is one of `to`, so that nothing is lost on the way.
bool is_exact(ir::DType from, ir::DType to) {
  using ir::DType;
  const auto& a = ir::info(from);
  const auto& b = ir::info(to);
  if (from == to) return true;
  if (a.kind == 'b') return b.kind == 'f' ? b.bits >= 16 : b.kind == 'i' || b.kind == 'u';
  if (a.kind == 'u' && (b.kind == 'u' || b.kind == 'i')) return b.bits > a.bits;
  if (a.kind == 'i' && b.kind == 'i') return b.bits > a.bits;
  const int mantissa = to == DType::Float64    ? 53
                       : to == DType::Float32  ? 24
                       : to == DType::Float16  ? 11
                       : to == DType::BFloat16 ? 8
                                               : 0;
  if (a.kind == 'i' || a.kind == 'u') return mantissa > 0 && a.bits <= mantissa;
  if (from == DType::Float16 || from == DType::BFloat16)
    return to == DType::Float32 || to == DType::Float64;
  return from == DType::Float32 && to == DType::Float64;
}

// Cast(Cast(x: f16) to f32) to i64   =>   Cast(x) to i64, where the first loses nothing
bool collapse_casts(Rewriter& w, ir::Node& n) {
  ir::Node* first = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  if (first == nullptr || !first->is("Cast") || first->input(0) == nullptr) return false;
  const ir::Type& from = first->input(0)->type;
  const ir::Type& middle = first->output(0)->type;
  if (!from.is_tensor() || !middle.is_tensor() || from.dtype == ir::DType::Undefined ||
      !is_exact(from.dtype, middle.dtype))
    return false;
  w.set_input(n, 0, first->input(0));
  return true;
}

// Pad(x) by nothing -> y   =>   x for y
bool remove_pad(Rewriter& w, ir::Node& n) {
  const auto pads = n.opset < 2 ? ints_of(n, "paddings", 1) : ints_of(n, "pads", 1);
  if (!pads || pads->empty()) return false;
  for (const std::int64_t p : *pads)
    if (p != 0) return false;
  return pass_over(w, n, n.input(0));
}

// Slice(x)[0:] in steps of one -> y: as long as x   =>   x for y
bool remove_slice(Rewriter& w, ir::Node& n) {
  if (n.input(4) != nullptr) {
    const auto steps = const_ints(n.input(4));
    if (!steps) return false;
    for (const std::int64_t s : *steps)
      if (s != 1) return false;
  }
  return n.input(0) != nullptr && same_type(n.input(0), n.output(0)) && pass_over(w, n, n.input(0));
}

std::optional<Ints> perm_of(const ir::Node& n) {
  if (const auto perm = ints_of(n, "perm", n.input_count())) return perm;
  if (n.input(0) == nullptr || !n.input(0)->type.shape.has_rank()) return std::nullopt;
  Ints perm(n.input(0)->type.shape.rank());
  std::iota(perm.rbegin(), perm.rend(), 0);
  return perm;
}

bool is_permutation(const Ints& perm) {
  std::vector<bool> seen(perm.size(), false);
  for (const std::int64_t p : perm) {
    if (p < 0 || p >= static_cast<std::int64_t>(perm.size()) || seen[static_cast<std::size_t>(p)])
      return false;
    seen[static_cast<std::size_t>(p)] = true;
  }
  return true;
}

// Transpose(x) by (0, 1, 2) -> y   =>   x for y
bool remove_transpose(Rewriter& w, ir::Node& n) {
  const auto perm = perm_of(n);
  if (!perm || !is_permutation(*perm) || !std::is_sorted(perm->begin(), perm->end())) return false;
  return pass_over(w, n, n.input(0));
}

// Transpose(Transpose(x))   =>   Transpose(x) by both
bool collapse_transposes(Rewriter& w, ir::Node& n) {
  ir::Node* first = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  if (first == nullptr || !first->is("Transpose")) return false;
  const auto a = perm_of(*first);
  const auto b = perm_of(n);
  if (!a || !b || a->size() != b->size() || !is_permutation(*a) || !is_permutation(*b))
    return false;
  Ints both;
  for (const std::int64_t p : *b) both.push_back((*a)[static_cast<std::size_t>(p)]);
  set_attr(n, "perm", both);
  w.set_input(n, 0, first->input(0));
  return true;
}

// Concat(x, y: [2, 0], z) along axis 1   =>   Concat(x, z)
bool remove_empty(Rewriter& w, ir::Node& n) {
  if (n.output(0) == nullptr || !n.output(0)->type.shape.has_rank()) return false;
  const auto rank = static_cast<std::int64_t>(n.output(0)->type.shape.rank());
  const std::int64_t given = attr_int(n, "axis", n.opset < 4 ? 1 : rank);
  const std::int64_t axis = given < 0 ? given + rank : given;
  std::vector<ir::Value*> kept;
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    ir::Value* x = n.input(i);
    if (x == nullptr || axis < 0 || axis >= rank) return false;
    const ir::Shape& s = x->type.shape;
    if (!s.has_rank() || s.rank() != static_cast<std::size_t>(rank) ||
        !(s[static_cast<std::size_t>(axis)] == ir::Dim(0)))
      kept.push_back(x);
  }
  if (kept.empty() || kept.size() == n.input_count()) return false;
  w.set_inputs(n, kept);
  return true;
}

// Concat(x) -> y   =>   x for y
bool remove_single(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 1 || n.output_count() != 1) return false;
  if (n.is("Split") && !same_type(n.input(0), n.output(0))) return false;
  return pass_over(w, n, n.input(0));
}

// Expand(x: [2, 3]) to [2, 3] -> y   =>   x for y
// Reshape, Flatten, Squeeze and Unsqueeze keep the order of elements, and Expand and Tile repeat
// none where the shape stays as it is.
bool remove_same_shape(Rewriter& w, ir::Node& n) {
  if (n.input(0) == nullptr || n.output(0) == nullptr) return false;
  // One dimension that takes all elements is what it was, whatever its size.
  const ir::Shape& shape = n.input(0)->type.shape;
  const bool stays_flat = n.is("Reshape") && shape.has_rank() && shape.rank() == 1 &&
                          ints_of(n, "shape", 1) == Ints{-1};
  if (!stays_flat && !same_type(n.input(0), n.output(0))) return false;
  return pass_over(w, n, n.input(0));
}

/// What broadcasts to all that `v` does, and would be there without an Expand: its input, or what
/// a Gather takes by constants that are expanded.
struct Unexpanded {
  const ir::Node* expand = nullptr;
  const ir::Node* gather = nullptr;
  ir::Shape shape;
  static std::optional<Unexpanded> of(const ir::Value* v) {
    if (const ir::Node* expand = producer_of(v, "Expand"))
      return expand->input(0) == nullptr
                 ? std::nullopt
                 : std::optional(Unexpanded{expand, nullptr, expand->input(0)->type.shape});
    const ir::Node* gather = sole_producer(v, "Gather");
    if (gather == nullptr || attr_int(*gather, "axis", 0) != 0 || gather->input(0) == nullptr ||
        !gather->input(0)->constant)
      return std::nullopt;
    const ir::Node* expand = producer_of(gather->input(1), "Expand");
    if (expand == nullptr || expand->input(0) == nullptr || !expand->input(0)->constant)
      return std::nullopt;
    const ir::Shape& wide = expand->output(0)->type.shape;
    const ir::Shape table = ir::Shape::of(gather->input(0)->constant->dims());
    if (!wide.has_rank() || wide.rank() != expand->input(0)->constant->rank() || table.rank() == 0)
      return std::nullopt;
    ir::Dims dims = ir::Shape::of(expand->input(0)->constant->dims()).dims();
    dims.insert(dims.end(), table.dims().begin() + 1, table.dims().end());
    return Unexpanded{expand, gather, ir::Shape(std::move(dims))};
  }
};

// Add(Expand(x: [1, 3]) to [2, 3], y: [2, 3])   =>   Add(x, y)
bool remove_expand(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kBroadcasting = 8;
  constexpr std::size_t kMostInputs = 16;  // each is compared with all others
  if (n.opset < kBroadcasting || n.input_count() > kMostInputs || n.output(0) == nullptr ||
      !n.output(0)->type.is_tensor())
    return false;
  // Runtimes know an attention by its mask's Expand before Where.
  for (std::size_t i = n.is("Where") ? 1 : 0; i < n.input_count(); ++i) {
    ir::Value* v = n.input(i);
    const auto narrow = v != nullptr ? Unexpanded::of(v) : std::nullopt;
    if (!narrow) continue;
    ir::Shape shape = narrow->shape;
    for (std::size_t k = 0; k < n.input_count(); ++k)
      if (k != i)
        shape = n.input(k) == nullptr ? ir::Shape()
                                      : ops::broadcast(shape, n.input(k)->type.shape);
    if (!shape.has_rank() || !shape.same(n.output(0)->type.shape)) {
      w.miss(n, "{} may be larger than what it meets", v->name);
      continue;
    }
    ir::Value* x = narrow->expand->input(0);
    if (narrow->gather != nullptr) {
      ir::Value* const inputs[] = {narrow->gather->input(0), x};
      x = w.add("Gather", inputs, *v, n)->output(0);
      x->type.shape = narrow->shape;
      x->declared.reset();
    }
    w.set_input(n, i, x);
    return true;
  }
  return false;
}

/// The scale or shift by which a layer norm of the opsets that have none ends.
bool ends_layer_norm(const ir::Node& n, const ir::Value* x) {
  constexpr std::int64_t kLayerNorm = 17;
  if (n.opset >= kLayerNorm || x == nullptr) return false;
  if (n.is("Add")) {
    const ir::Node* scaled = producer_of(x, "Mul");
    return scaled != nullptr && (ends_layer_norm(*scaled, scaled->input(0)) ||
                                 ends_layer_norm(*scaled, scaled->input(1)));
  }
  if (!n.is("Mul")) return false;
  if (const ir::Node* cast = producer_of(x, "Cast")) x = cast->input(0);
  const ir::Node* div = producer_of(x, "Div");
  return div != nullptr && producer_of(div->input(1), "Sqrt") != nullptr;
}

/// The bias of a projection in attention: to heads, from heads, or before an activation in Gemm.
bool is_projection_bias(const ir::Node& n, const ir::Value* x) {
  const ir::Node* product = producer_of(x, "MatMul");
  if (!n.is("Add") || product == nullptr || product->input(1) == nullptr ||
      !product->input(1)->constant)
    return false;
  // Beside the Reshape there may be the arithmetic of its shape.
  for (const ir::Use* use = n.output(0)->first_use(); use != nullptr; use = use->next)
    if (use->user != nullptr && use->user->is("Reshape") &&
        sole_user(use->user->output(0), "Transpose") != nullptr)
      return true;
  const ir::Node* from_heads = producer_of(product->input(0), "Reshape");
  if (from_heads != nullptr && producer_of(from_heads->input(0), "Transpose") != nullptr)
    return true;
  if (!x->type.shape.has_rank() || x->type.shape.rank() != 2) return false;
  const auto activates = [&](const char* op_type) {
    return sole_user(n.output(0), op_type) != nullptr;
  };
  return activates("Relu") || activates("LeakyRelu") || activates("Sigmoid") || activates("Tanh");
}

// Mul(x, 1) -> y: of x's shape   =>   x for y
bool remove_neutral(Rewriter& w, ir::Node& n) {
  if (n.input_count() != 2 || n.input(0) == nullptr || n.input(1) == nullptr) return false;
  const bool commutes = !n.is("Sub") && !n.is("Div") && !n.is("Pow");
  for (std::size_t i = 0; i < (commutes ? 2U : 1U); ++i) {
    ir::Value* x = n.input(i);
    const auto other = splat(n.input(1 - i));
    if (!other || !same_type(x, n.output(0))) continue;
    const bool is_zero = *other == 0.0;
    // x + 0 makes a positive zero of a negative one, and goes nevertheless, with a fiftieth of all
    // nodes in real models: they are biases of zero, after sums that tell the sign of a zero by
    // the order in which a runtime adds. x - (-0) is nothing that exporters write.
    const bool neutral = n.is("Add")                 ? is_zero
                         : n.is("Sub")               ? is_zero && !std::signbit(*other)
                         : n.is("Or") || n.is("Xor") ? is_zero
                                                     : *other == 1.0;
    if (!neutral) continue;
    // Runtimes fuse a layer norm or an attention by its whole form, ones and zeros included.
    if (n.input(1 - i)->constant->rank() == 1 && (ends_layer_norm(n, x) || is_projection_bias(n, x)))
      return w.miss(n, "it completes a form that runtimes fuse");
    return pass_over(w, n, x);
  }
  return false;
}

bool all_are(const std::optional<Ints>& values, std::int64_t what) {
  return !values ||
         std::all_of(values->begin(), values->end(), [&](std::int64_t v) { return v == what; });
}

// AveragePool(x) by windows of one -> y   =>   x for y; GlobalAveragePool and ReduceMean of one
// element alike
bool remove_pool(Rewriter& w, ir::Node& n) {
  if (n.input(0) == nullptr || n.output(0) == nullptr || has_output_beyond_first(n)) return false;
  const ir::Shape& shape = n.input(0)->type.shape;
  if (!same_type(n.input(0), n.output(0))) return false;
  if (n.is("AveragePool") || n.is("MaxPool")) {
    const auto kernel = ints_of(n, "kernel_shape", n.input_count());
    if (!kernel || !all_are(kernel, 1) || !all_are(ints_of(n, "strides", n.input_count()), 1) ||
        !all_are(ints_of(n, "pads", n.input_count()), 0))
      return false;
  } else if (n.is("GlobalAveragePool") || n.is("GlobalMaxPool")) {
    for (std::size_t i = 2; i < shape.rank(); ++i)
      if (!shape[i].is_const() || shape[i].value() != 1) return false;
  } else if (attr_int(n, "keepdims", 1) == 0) {
    // A reduction that keeps dimensions keeps the shape only where each had one element.
    return false;
  }
  return pass_over(w, n, n.input(0));
}

// Resize(x) by scales of one -> y   =>   x for y
bool remove_resize(Rewriter& w, ir::Node& n) {
  if (n.input(0) == nullptr || n.output(0) == nullptr || !same_type(n.input(0), n.output(0)) ||
      attr_string(n, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize")
    return false;
  // Scales may be near one and give the same shape: only sizes, or ones, say that each element
  // stays where it is.
  const bool by_sizes = n.opset >= 11 && n.is("Resize") && n.input(3) != nullptr &&
                        attr_string(n, "keep_aspect_ratio_policy", "stretch") == "stretch";
  const bool later = n.is("Resize") && n.opset >= 11;
  if (!by_sizes && splat(n.input(later ? 2 : 1)) != 1.0) return false;
  return pass_over(w, n, n.input(0));
}

// Relu(Relu(x)) -> y   =>   Relu(x) for y
bool remove_repeated_unary(Rewriter& w, ir::Node& n) {
  const ir::Node* first = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  return first != nullptr && first->is(n.op_type) && first->opset == n.opset &&
         pass_over(w, n, n.input(0));
}

// Where({true}, x, y) -> z: of x's shape   =>   x for z
// Or(x, {true}: [2, 3]) -> z: [2, 3]   =>   {true} for z
bool remove_choice(Rewriter& w, ir::Node& n) {
  if (n.is("Where")) {
    if (n.input_count() != 3 || n.output(0) == nullptr) return false;
    std::size_t chosen = 1;
    if (n.input(1) != n.input(2)) {
      const auto condition = splat(n.input(0));
      if (!condition) return false;
      if (*condition == 0.0) chosen = 2;
    }
    return n.input(chosen) != nullptr && same_type(n.input(chosen), n.output(0)) &&
           pass_over(w, n, n.input(chosen));
  }
  for (std::size_t i = 0; i < 2; ++i) {
    const auto decided = splat(n.input(i));
    if (decided && (*decided != 0.0) == n.is("Or") && same_type(n.input(i), n.output(0)))
      return pass_over(w, n, n.input(i));
  }
  return false;
}

/// Whether every element of `v` is zero, as far as the `budget` of nodes that make it tells.
bool is_zero(const ir::Value* v, int& budget) {
  if (v == nullptr || budget <= 0) return false;
  --budget;
  if (v->constant) return splat(v) == 0.0;
  const ir::Node* n = v->producer();
  if (n == nullptr || !n->domain.empty()) return false;
  if (n->is("ConstantOfShape")) {
    const ir::Attribute* a = n->attribute("value");
    const auto* t = a != nullptr ? std::get_if<ir::TensorPtr>(&a->data) : nullptr;
    return a == nullptr || (t != nullptr && (*t)->size() == 1 && (*t)->double_at(0) == 0.0);
  }
  if (n->is("Concat")) {
    for (std::size_t i = 0; i < n->input_count(); ++i)
      if (!is_zero(n->input(i), budget)) return false;
    return true;
  }
  static const std::set<std::string_view> kMoves = {
      "Expand",    "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose",
      "Slice",     "Tile",    "Cast",    "Gather",    "Split",   "Identity"};
  return kMoves.count(n->op_type) != 0 && is_zero(n->input(0), budget);
}

// LSTM(x, w, r, b, , zeros, zeros)   =>   LSTM(x, w, r, b)
bool remove_zero_state(Rewriter& w, ir::Node& n) {
  std::vector<ir::Value*> inputs;
  for (std::size_t i = 0; i < n.input_count(); ++i) inputs.push_back(n.input(i));
  bool found = false;
  for (std::size_t i = 5; i < std::min<std::size_t>(inputs.size(), n.is("LSTM") ? 7 : 6); ++i) {
    int budget = 32;
    if (!is_zero(inputs[i], budget)) continue;
    inputs[i] = nullptr;
    found = true;
  }
  if (!found) return false;
  while (inputs.back() == nullptr) inputs.pop_back();
  w.set_inputs(n, inputs);
  return true;
}

// Not(Not(x)) -> y   =>   x for y
bool remove_double_not(Rewriter& w, ir::Node& n) {
  const ir::Node* first = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  if (first == nullptr || !first->is("Not")) return false;
  return pass_over(w, n, first->input(0));
}

// SequenceAt(SequenceConstruct(a, b), 1) -> y   =>   b for y
bool take_from_sequence(Rewriter& w, ir::Node& n) {
  const ir::Node* made = n.input(0) != nullptr ? n.input(0)->producer() : nullptr;
  const auto index = const_ints(n.input(1));
  if (made == nullptr || !made->is("SequenceConstruct") || !index || index->size() != 1)
    return false;
  const auto count = static_cast<std::int64_t>(made->input_count());
  const std::int64_t i = (*index)[0] < 0 ? (*index)[0] + count : (*index)[0];
  if (i < 0 || i >= count) return false;
  return pass_over(w, n, made->input(static_cast<std::size_t>(i)));
}

// Mul(Trilu(Expand({c}, s)) <upper=1>, Cast(keys > queries))   =>   Mul(Expand({c}, s), Cast(keys > queries))
bool remove_triangle(Rewriter& w, ir::Node& n) {
  for (std::size_t i = 0; i < 2; ++i) {
    const ir::Node* trilu = n.input(i) != nullptr ? n.input(i)->producer() : nullptr;
    if (trilu == nullptr || !trilu->is("Trilu") || !is_masked_again(*trilu, n.input(1 - i))) continue;
    w.set_input(n, i, trilu->input(0));
    return true;
  }
  return false;
}

}  // namespace

std::span<const Rule> noop_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "remove-dropout",
       .what = "Dropout does nothing in inference",
       .apply = remove_dropout,
       .ops = {"Dropout"}},
      {.name = "remove-cast",
       .what = "casts to the type that is there",
       .apply = remove_cast,
       .ops = {"Cast", "CastLike"},
       .in_conversion = true},
      {.name = "collapse-casts",
       .what = "a cast of a cast that loses nothing",
       .apply = collapse_casts,
       .ops = {"Cast"},
       .in_conversion = true},
      {.name = "remove-pad",
       .what = "padding by nothing",
       .apply = remove_pad,
       .ops = {"Pad"},
       .in_conversion = true},
      {.name = "remove-slice",
       .what = "slices that take everything",
       .apply = remove_slice,
       .ops = {"Slice"},
       .in_conversion = true},
      {.name = "remove-transpose",
       .what = "transposes that move nothing",
       .apply = remove_transpose,
       .ops = {"Transpose"},
       .in_conversion = true},
      {.name = "collapse-transposes",
       .what = "a transpose of a transpose",
       .apply = collapse_transposes,
       .ops = {"Transpose"},
       .in_conversion = true},
      {.name = "remove-empty",
       .what = "what Concat joins that has no elements",
       .apply = remove_empty,
       .ops = {"Concat"},
       .in_conversion = true},
      {.name = "remove-single",
       .what = "Concat, Sum, Mean, Max, Min of one",
       .apply = remove_single,
       .ops = {"Concat", "Sum", "Mean", "Max", "Min", "Split"},
       .in_conversion = true},
      {.name = "remove-same-shape",
       .what = "reshapes and repeats that change no shape",
       .apply = remove_same_shape,
       .ops = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile"},
       .in_conversion = true},
      {.name = "remove-expand",
       .what = "Expand to what an operator broadcasts to anyway",
       .apply = remove_expand,
       .ops = {"Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "Equal", "Less", "Greater",
               "LessOrEqual", "GreaterOrEqual", "Max", "Min", "Sum", "Mean", "Where"}},
      {.name = "remove-neutral",
       .what = "adding zero, multiplying by one",
       .apply = remove_neutral,
       .ops = {"Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor"}},
      {.name = "remove-pool",
       .what = "pooling and reducing over one element",
       .apply = remove_pool,
       .ops = {"AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean",
               "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"},
       .in_conversion = true},
      {.name = "remove-resize",
       .what = "resizing to the size that is there",
       .apply = remove_resize,
       .ops = {"Resize", "Upsample"},
       .in_conversion = true},
      {.name = "remove-repeated-unary",
       .what = "Relu of Relu, and the like",
       .apply = remove_repeated_unary,
       .ops = {"Relu", "Abs", "Floor", "Ceil", "Round", "Sign"}},
      {.name = "remove-choice",
       .what = "Where, And and Or that a constant decides",
       .apply = remove_choice,
       .ops = {"Where", "And", "Or"}},
      {.name = "remove-zero-state",
       .what = "initial states of zeros, which LSTM, GRU and RNN begin with anyway",
       .apply = remove_zero_state,
       .ops = {"LSTM", "GRU", "RNN"},
       .in_conversion = true},
      {.name = "remove-double-not",
       .what = "Not of Not",
       .apply = remove_double_not,
       .ops = {"Not"},
       .in_conversion = true},
      {.name = "remove-triangle",
       .what = "Trilu of one number, where a mask of the same triangle is multiplied with it",
       .apply = remove_triangle,
       .ops = {"Mul"},
       .in_conversion = true},
      {.name = "take-from-sequence",
       .what = "an element of a sequence made here",
       .apply = take_from_sequence,
       .ops = {"SequenceAt"},
       .in_conversion = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
