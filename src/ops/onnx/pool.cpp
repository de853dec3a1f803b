// Pooling over windows, over everything and over regions.
// https://onnx.ai/onnx/operators/onnx__MaxPool.html and its neighbours. Torch pads only equally at
// both ends, with at most half of the kernel.
#include <algorithm>
#include <limits>
#include <numeric>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"
#include "ops/onnx/window.h"

namespace onnx2nn::ops {
namespace {

Ints kernel_shape(const NodeContext& c) {
  auto kernel = c.attr_ints("kernel_shape");
  if (!kernel || kernel->empty()) c.fail("the attribute \"kernel_shape\" is missing");
  return *std::move(kernel);
}

Window pooling_window(const NodeContext& c) {
  Window w = read_window(c, kernel_shape(c));
  w.ceil_mode = c.attr_int("ceil_mode", 0) != 0;
  return w;
}

/// Axes from the third on.
Ints spatial_axes(std::size_t rank) {
  Ints axes(rank > 2 ? rank - 2 : 0);
  std::iota(axes.begin(), axes.end(), 2);
  return axes;
}

Shape pooled_shape(const NodeContext& c) {
  const Window w = pooling_window(c);
  const Shape& x = c.shape(0);
  if (!x.has_rank()) return Shape::unknown_dims(w.n + 2);
  if (x.rank() != w.n + 2)
    c.fail("the input has rank " + std::to_string(x.rank()) + ", not " + std::to_string(w.n + 2));
  Dims out{x[0], x[1]};
  for (std::size_t i = 0; i < w.n; ++i) out.push_back(window_size(w, i, x[i + 2]));
  return Shape(std::move(out));
}

void infer_pool(InferContext& c) {
  c.set(0, c.dtype(0), pooled_shape(c));
}

void infer_max_pool(InferContext& c) {
  const Shape shape = pooled_shape(c);
  c.set(0, c.dtype(0), shape);
  c.set(1, DType::Int64, shape);
}

/// Torch pads with at most half of the kernel.
bool half_padded(const Window& w) {
  for (std::size_t i = 0; i < w.n; ++i)
    if (2 * w.pads[i] > w.extent(i)) return false;
  return true;
}

std::string dimensional(const char* stem, std::size_t n) {
  return stem + std::to_string(n) + "d";
}

/// The strides of a pooling; torch's default is the kernel.
Ex pool_strides(const Window& w) {
  return w.strides == w.kernel ? list({}) : Ex(w.strides);
}

// ---------------------------------------------------------------- MaxPool
// Opset 8 brought the indices, 10 ceil_mode and dilations, 12 integers.

void lower_max_pool(LowerContext& c) {
  Window w = pooling_window(c);
  const std::int64_t storage_order = c.attr_int("storage_order", 0);
  if (c.has_output(1)) {
    Kwargs kw = window_keywords(w);
    if (storage_order != 0) kw.emplace_back("storage_order", storage_order);
    return c.outs(helper("max_pool_with_indices", {c.in(0), Ex(w.kernel)}, kw));
  }
  const Window given = w;
  Ex x = c.in(0);
  bool native = w.n <= 3 && ir::is_float(c.dtype(0)) && resolve_pads(w, c.shape(0));
  if (native && !(w.symmetric() && half_padded(w))) {
    native = resolve_ceil_mode(w, c.shape(0));
    if (native) {
      x = aten("pad", {x, Ex(torch_pads(w.pads)), "constant",
                       Ex(-std::numeric_limits<double>::infinity())});
      std::fill(w.pads.begin(), w.pads.end(), 0);
    }
  } else if (native && w.ceil_mode) {
    // Say so only where it matters.
    Window exact = w;
    if (resolve_ceil_mode(exact, c.shape(0)) && exact.pads == w.pads) w.ceil_mode = false;
  }
  if (!native)
    return c.out(0, helper("max_pool", {c.in(0), Ex(given.kernel)}, window_keywords(given)));
  c.out(0, aten(dimensional("max_pool", w.n),
                {x, Ex(w.kernel), pool_strides(w), Ex(begins(w)), Ex(w.dilations), w.ceil_mode}));
}

// ---------------------------------------------------------------- AveragePool
// count_include_pad came with opset 7 (before it padding did not count), ceil_mode with 10,
// dilations with 19.

void lower_average_pool(LowerContext& c) {
  Window w = pooling_window(c);
  const bool count_pads = c.attr_int("count_include_pad", 0) != 0;
  const Window given = w;
  Ex x = c.in(0);
  bool native = w.n <= 3 && !w.dilated() && ir::is_float(c.dtype(0)) && resolve_pads(w, c.shape(0));
  if (native && w.ceil_mode) {
    Window exact = w;
    if (resolve_ceil_mode(exact, c.shape(0)) && exact.pads == w.pads) w.ceil_mode = false;
  }
  if (native && !(w.symmetric() && half_padded(w))) {
    native = count_pads && !w.ceil_mode;
    if (native) {
      x = aten("pad", {x, Ex(torch_pads(w.pads))});
      std::fill(w.pads.begin(), w.pads.end(), 0);
    }
  }
  if (!native) {
    Kwargs kw = window_keywords(given);
    if (count_pads) kw.emplace_back("count_include_pad", true);
    return c.out(0, helper("average_pool", {c.in(0), Ex(given.kernel)}, kw));
  }
  const bool count_matters = !count_pads && w.padded();
  // On a CPU torch averages no volumes of halves.
  const DType t = c.dtype(0);
  const bool half = w.n == 3 && (t == DType::Float16 || t == DType::BFloat16);
  if (half) x = to_dtype(x, DType::Float32);
  const Ex y = aten(dimensional("avg_pool", w.n), {x, Ex(w.kernel), pool_strides(w), Ex(begins(w)),
                                                   w.ceil_mode, !count_matters});
  c.out(0, half ? to_dtype(y, t) : y);
}

// ---------------------------------------------------------------- LpPool, GlobalLpPool
// `p` was a float in opset 1; ceil_mode and dilations came with 18.

Ex norm_order(const NodeContext& c) {
  if (c.opset() < 2) return Ex(c.attr_float("p", 2.0));
  return Ex(c.attr_int("p", 2));
}

void lower_lp_pool(LowerContext& c) {
  const Window w = pooling_window(c);
  Kwargs kw;
  const Ex p = norm_order(c);
  if (!(p.is_int() && p->integer == 2)) kw.emplace_back("p", p);
  for (auto& entry : window_keywords(w)) kw.push_back(std::move(entry));
  c.out(0, helper("lp_pool", {c.in(0), Ex(w.kernel)}, kw));
}

void lower_global_lp_pool(LowerContext& c) {
  const Ex p = norm_order(c);
  if (const auto rank = c.rank(0); rank && *rank > 2)
    return c.out(0, aten("linalg_vector_norm", {c.in(0), p, Ex(spatial_axes(*rank)), true}));
  c.out(0, helper("global_lp_pool", {c.in(0)}, {{"p", p}}));
}

// ---------------------------------------------------------------- GlobalAveragePool, GlobalMaxPool

void infer_global(InferContext& c) {
  const Shape& x = c.shape(0);
  if (!x.has_rank()) return c.set(0, c.type(0));
  Dims out = x.dims();
  for (std::size_t i = 2; i < out.size(); ++i) out[i] = 1;
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// All axes from the third on, where the rank is known at run time only.
Ex spatial_axes_at_run_time(const Ex& x) {
  return op("tuple", {op("range", {2, op(".dim", {x})})});
}

void lower_global_average_pool(LowerContext& c) {
  const Ex x = c.in(0);
  const auto rank = c.rank(0);
  if (!rank) return c.out(0, aten("mean.dim", {x, spatial_axes_at_run_time(x), true}));
  if (*rank <= 2) return c.out(0, x);
  const Shape& s = c.shape(0);
  const bool pictured =
      *rank <= 5 && std::none_of(s.dims().begin() + 1, s.dims().end(),
                                 [](const Dim& d) { return d.is_const() && d.value() == 0; });
  if (pictured)
    return c.out(0, aten(dimensional("adaptive_avg_pool", *rank - 2), {x, Ex(Ints(*rank - 2, 1))}));
  c.out(0, aten("mean.dim", {x, Ex(spatial_axes(*rank)), true}));
}

void lower_global_max_pool(LowerContext& c) {
  const Ex x = c.in(0);
  const auto rank = c.rank(0);
  if (rank && *rank <= 2) return c.out(0, x);
  c.out(0, aten("amax", {x, rank ? Ex(spatial_axes(*rank)) : spatial_axes_at_run_time(x), true}));
}

// ---------------------------------------------------------------- MaxUnpool

void infer_max_unpool(InferContext& c) {
  const Window w = read_window(c, kernel_shape(c));
  Dims out(w.n + 2);
  const Shape& x = c.shape(0);
  if (const auto given = c.contents(2)) {
    out = *given;
  } else if (x.has_rank() && x.rank() == w.n + 2 && !c.has_input(2)) {
    out[0] = x[0];
    out[1] = x[1];
    for (std::size_t i = 0; i < w.n; ++i)
      out[i + 2] =
          (x[i + 2] - Dim(1)) * Dim(w.strides[i]) + Dim(w.kernel[i] - w.pads[i] - w.pads[w.n + i]);
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_max_unpool(LowerContext& c) {
  const Window w = read_window(c, kernel_shape(c));
  Kwargs kw = window_keywords(w);
  if (c.has_input(2)) kw.emplace_back("output_shape", c.int_list(2));
  c.out(0, helper("max_unpool", {c.in(0), c.in(1), Ex(w.kernel)}, kw));
}

// ---------------------------------------------------------------- MaxRoiPool

Ints pooled_sizes(const NodeContext& c) {
  auto pooled = c.attr_ints("pooled_shape");
  if (!pooled || pooled->size() != 2) c.fail("the attribute \"pooled_shape\" has not two values");
  for (const std::int64_t p : *pooled)
    if (p < 1 || p > 4096) c.fail("pooled_shape is out of range");
  return *std::move(pooled);
}

void infer_max_roi_pool(InferContext& c) {
  const Ints pooled = pooled_sizes(c);
  const Shape& rois = c.shape(1);
  const Shape& x = c.shape(0);
  c.set(0, c.dtype(0),
        Shape({rois.has_rank() && rois.rank() > 0 ? rois[0] : Dim(),
               x.has_rank() && x.rank() > 1 ? x[1] : Dim(), pooled[0], pooled[1]}));
}

void lower_max_roi_pool(LowerContext& c) {
  Kwargs kw;
  if (const double scale = c.attr_float("spatial_scale", 1.0); scale != 1.0)
    kw.emplace_back("spatial_scale", scale);
  c.out(0, helper("max_roi_pool", {c.in(0), c.in(1), Ex(pooled_sizes(c))}, kw));
}

constexpr OpDef kPoolOps[] = {
    {.type = "MaxPool",
     .changed_at = {1, 8, 10, 11, 12},
     .infer = infer_max_pool,
     .lower = lower_max_pool},
    {.type = "AveragePool",
     .changed_at = {1, 7, 10, 11, 19},
     .infer = infer_pool,
     .lower = lower_average_pool},
    {.type = "LpPool", .changed_at = {1, 2, 11, 18}, .infer = infer_pool, .lower = lower_lp_pool},
    {.type = "GlobalAveragePool",
     .changed_at = {1},
     .infer = infer_global,
     .lower = lower_global_average_pool},
    {.type = "GlobalMaxPool",
     .changed_at = {1},
     .infer = infer_global,
     .lower = lower_global_max_pool},
    {.type = "GlobalLpPool",
     .changed_at = {1, 2},
     .infer = infer_global,
     .lower = lower_global_lp_pool},
    {.type = "MaxUnpool",
     .changed_at = {9, 11},
     .infer = infer_max_unpool,
     .lower = lower_max_unpool},
    {.type = "MaxRoiPool",
     .changed_at = {1},
     .infer = infer_max_roi_pool,
     .lower = lower_max_roi_pool},
};

}  // namespace

std::span<const OpDef> pool_ops() {
  return kPoolOps;
}

}  // namespace onnx2nn::ops
