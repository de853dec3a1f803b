// Resize and Upsample.
// https://onnx.ai/onnx/operators/onnx__Resize.html
// Upsample 1 has the attributes width_scale and height_scale, 7 `scales`, 9 an input. Resize 10 is
// Upsample 9 that may shrink too; 11 brought regions, sizes and coordinate modes, 18 axes,
// antialiasing and aspect ratios. F.interpolate is used where it gives the same answer, which for
// "nearest" depends on float32 rounding and so is tried out with the very numbers.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/registry.h"
#include "support/checked.h"

namespace onnx2nn::ops {
namespace {

/// What a Resize or Upsample asks for, all axes given.
struct Plan {
  std::string mode;                           // nearest, linear, cubic
  std::string coordinates;                    // coordinate_transformation_mode
  std::string nearest;                        // nearest_mode; "simple" before opset 11
  std::optional<std::vector<double>> scales;  // where constant
  std::optional<Dims> sizes;                  // where given as sizes
  std::size_t scales_input = 0;               // the input that holds them; 0 none
  std::size_t sizes_input = 0;
  bool plain = true;  // nothing that F.interpolate does not know
};

/// An input that is there and not the empty tensor, which stands for an absent one.
bool is_given(const NodeContext& c, std::size_t i) {
  if (!c.has_input(i)) return false;
  const Shape& s = c.shape(i);
  return !(s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() == 0);
}

bool is_upsample(const NodeContext& c) {
  return c.node().is("Upsample");
}

Plan plan_of(const NodeContext& c) {
  Plan p;
  const bool legacy = is_upsample(c) || c.opset() < 11;
  p.mode = c.attr_string("mode", "nearest");
  if (p.mode == "bilinear") p.mode = "linear";
  p.coordinates =
      legacy ? "asymmetric" : c.attr_string("coordinate_transformation_mode", "half_pixel");
  p.nearest = legacy ? "simple" : c.attr_string("nearest_mode", "round_prefer_floor");
  if (legacy) {
    if (c.has_attr("width_scale")) {
      p.scales = std::vector<double>{1, 1, c.attr_float("height_scale", 1),
                                     c.attr_float("width_scale", 1)};
    } else if (c.has_attr("scales")) {
      p.scales = c.attr_floats("scales");
    } else {
      p.scales_input = 1;
    }
  } else if (is_given(c, 3)) {
    p.sizes_input = 3;
    p.sizes = c.contents(3);
  } else if (is_given(c, 2)) {
    p.scales_input = 2;
  } else {
    c.fail("neither scales nor sizes are given");
  }
  if (p.scales_input != 0)
    if (const ir::Tensor* t = c.constant(p.scales_input)) p.scales = t->to_doubles();
  p.plain =
      legacy ||
      (c.attr_int("antialias", 0) == 0 && c.attr_int("exclude_outside", 0) == 0 &&
       c.attr_string("keep_aspect_ratio_policy", "stretch") == "stretch" &&
       (p.mode != "cubic" || static_cast<float>(c.attr_float("cubic_coeff_a", -0.75)) == -0.75F));
  const auto rank = c.rank(0);
  if (const auto axes = c.attr_ints("axes"); axes && rank) {
    // Spread over all axes.
    const Ints a = c.axes(*axes, *rank);
    if (p.scales && p.scales->size() == a.size()) {
      std::vector<double> all(*rank, 1.0);
      for (std::size_t i = 0; i < a.size(); ++i)
        all[static_cast<std::size_t>(a[i])] = (*p.scales)[i];
      p.scales = std::move(all);
    }
    if (p.sizes && p.sizes->size() == a.size()) {
      Dims all = c.shape(0).dims();
      for (std::size_t i = 0; i < a.size(); ++i)
        all[static_cast<std::size_t>(a[i])] = (*p.sizes)[i];
      p.sizes = std::move(all);
    }
  }
  if (rank && ((p.scales && p.scales->size() != *rank) || (p.sizes && p.sizes->size() != *rank)))
    c.fail("the number of scales or sizes is not that of the axes");
  if (p.scales)
    for (const double s : *p.scales)
      if (!(s > 0) || !std::isfinite(s)) c.fail("a scale is not positive");
  return p;
}

/// ONNX's length of a scaled axis, in float32 as ONNX Runtime computes it.
std::int64_t scaled_length(std::int64_t length, double scale) {
  const float exact = static_cast<float>(static_cast<double>(length) *
                                         static_cast<double>(static_cast<float>(scale)));
  return exact < 1e15F ? static_cast<std::int64_t>(std::floor(exact)) : 0;
}

void infer_resize(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  const Plan p = plan_of(c);
  Dims out(s.rank());
  const bool stretched = is_upsample(c) || c.opset() < 18 ||
                         c.attr_string("keep_aspect_ratio_policy", "stretch") == "stretch";
  // Where the aspect ratio is kept, one of the axes decides for all of them.
  std::vector<bool> open(s.rank(), p.sizes && !stretched && !Shape(*p.sizes).same(s));
  if (const auto axes = c.attr_ints("axes"); axes && p.sizes) {
    const Ints a = c.axes(*axes, s.rank());
    for (std::size_t i = 0; i < open.size(); ++i)
      if (std::find(a.begin(), a.end(), static_cast<std::int64_t>(i)) == a.end()) open[i] = false;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (p.sizes) {
      if (!open[i]) out[i] = (*p.sizes)[i];
      continue;
    }
    if (!p.scales) continue;
    const double scale = (*p.scales)[i];
    if (scale == 1) {
      out[i] = s[i];
    } else if (s[i].is_const()) {
      out[i] = scaled_length(s[i].value(), scale);
    } else if (scale == std::floor(scale) && scale < 1e6) {
      out[i] = s[i] * Dim(static_cast<std::int64_t>(scale));
    } else if (1 / scale == std::floor(1 / scale) && scale > 1e-6) {
      out[i] = Dim::floor_div(s[i], Dim(static_cast<std::int64_t>(1 / scale)));
    }
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

// ---------------------------------------------------------------- where F.interpolate says the
// same

/// Where ONNX's result `i` of `count` lies on an axis of this length, in float32.
float onnx_place(const std::string& coordinates, std::int64_t i, std::int64_t length,
                 std::int64_t count, float scale) {
  const auto at = static_cast<float>(i);
  if (coordinates == "asymmetric") return at / scale;
  if (coordinates == "tf_half_pixel_for_nn") return (at + 0.5F) / scale;
  if (coordinates == "pytorch_half_pixel" && count <= 1) return 0;
  if (coordinates == "align_corners") {
    // Rounded, as a scale that float32 cannot hold must not move the last pixel off its corner.
    const double exact =
        static_cast<float>(static_cast<double>(length) * static_cast<double>(scale));
    return exact == 1 || count == 1
               ? 0
               : at * static_cast<float>(static_cast<double>(length - 1) / (exact - 1));
  }
  if (coordinates == "half_pixel_symmetric") {
    const double middle = static_cast<double>(length) / 2;
    const double offset = middle * (1 - static_cast<double>(count) / (static_cast<double>(length) *
                                                                      static_cast<double>(scale)));
    return static_cast<float>(offset) + (at + 0.5F) / scale - 0.5F;
  }
  return (at + 0.5F) / scale - 0.5F;
}

std::int64_t onnx_nearest(const std::string& mode, float at, float scale, std::int64_t length) {
  const float low = std::floor(at);
  const float rest = at - low;
  float index = low;
  if (mode == "round_prefer_floor") index = low + (rest > 0.5F ? 1.0F : 0.0F);
  if (mode == "round_prefer_ceil") index = low + (rest >= 0.5F ? 1.0F : 0.0F);
  if (mode == "ceil" || (mode == "simple" && scale < 1)) index = std::ceil(at);
  return std::clamp<std::int64_t>(saturated<std::int64_t>(index), 0, length - 1);
}

/// Whether F.interpolate takes the same elements along an axis of this length.
bool same_elements(const Plan& p, bool exact_mode, std::int64_t length, std::int64_t count,
                   double onnx_scale, std::optional<double> factor) {
  if (length <= 0 || count <= 0) return false;
  if (factor &&
      saturated<std::int64_t>(std::floor(static_cast<double>(length) * *factor)) != count)
    return false;
  const auto scale = static_cast<float>(onnx_scale);
  const float step = factor ? static_cast<float>(1.0 / *factor)
                            : static_cast<float>(length) / static_cast<float>(count);
  for (std::int64_t i = 0; i < count; ++i) {
    const float at =
        exact_mode ? (static_cast<float>(i) + 0.5F) * step : static_cast<float>(i) * step;
    const std::int64_t theirs = std::min(saturated<std::int64_t>(std::floor(at)), length - 1);
    if (theirs !=
        onnx_nearest(p.nearest, onnx_place(p.coordinates, i, length, count, scale), scale, length))
      return false;
  }
  return true;
}

/// One axis that is resized.
struct Axis {
  Dim length;
  Dim count;
  std::optional<double> scale;
};

constexpr std::int64_t kLargestTried = 8192;

bool nearest_agrees(const Plan& p, const Axis& a, bool exact_mode) {
  if (a.scale) {
    if (a.length.is_const())
      return static_cast<double>(a.length.value()) * *a.scale <= kLargestTried &&
             same_elements(p, exact_mode, a.length.value(),
                           scaled_length(a.length.value(), *a.scale), *a.scale, a.scale);
    if (*a.scale > 64) return false;
    for (std::int64_t length = 1; length <= 96; ++length) {
      const std::int64_t count = scaled_length(length, *a.scale);
      if (count > 0 && !same_elements(p, exact_mode, length, count, *a.scale, a.scale))
        return false;
    }
    return true;
  }
  if (a.length.is_const() && a.count.is_const()) {
    const double scale = static_cast<double>(a.count.value()) /
                         static_cast<double>(std::max<std::int64_t>(a.length.value(), 1));
    return a.count.value() <= kLargestTried &&
           same_elements(p, exact_mode, a.length.value(), a.count.value(), scale, std::nullopt);
  }
  // Sizes known at run time only: the same formula, which may round otherwise where the ratio is no
  // float.
  return !exact_mode && p.coordinates == "asymmetric" && p.nearest == "floor";
}

bool is_whole(double v) {
  return v == std::floor(v);
}

/// Whether linear or cubic interpolation lies on the same places.
bool places_agree(const Plan& p, const Axis& a, bool& align_corners) {
  align_corners = p.coordinates == "align_corners";
  if (a.scale) {
    // torch computes the length in double from the number as printed.
    if (!a.length.is_const() && !is_whole(*a.scale) && !is_whole(1 / *a.scale)) return false;
    if (a.length.is_const() &&
        saturated<std::int64_t>(std::floor(static_cast<double>(a.length.value()) * *a.scale)) !=
            scaled_length(a.length.value(), *a.scale))
      return false;
  }
  if (align_corners) {
    if (!a.scale) return true;
    if (!a.length.is_const()) return is_whole(*a.scale);
    return is_whole(static_cast<double>(a.length.value()) * *a.scale);
  }
  if (p.coordinates == "half_pixel") return true;
  if (p.coordinates == "half_pixel_symmetric")
    return !a.scale || is_whole(*a.scale) ||
           (a.length.is_const() && is_whole(static_cast<double>(a.length.value()) * *a.scale));
  // One pixel lies at 0 in ONNX, in the middle in torch.
  if (p.coordinates == "pytorch_half_pixel")
    return a.count.is_const() ? a.count.value() > 1 : !a.scale || *a.scale >= 2;
  return false;
}

std::optional<Ex> interpolate(LowerContext& c, const Plan& p) {
  const auto rank = c.rank(0);
  // A region is cut out by the runtime's function alone.
  if (p.coordinates == "tf_crop_and_resize" || !p.plain || !rank || *rank < 3 || *rank > 5 ||
      (!p.scales && !p.sizes))
    return std::nullopt;
  const DType t = c.dtype(0);
  const bool floating =
      t == DType::Float32 || t == DType::Float64 || t == DType::Float16 || t == DType::BFloat16;
  if (!floating && !(t == DType::UInt8 && p.mode == "nearest")) return std::nullopt;
  if (p.mode == "cubic" && *rank != 4) return std::nullopt;
  const Shape& in = c.shape(0);
  std::vector<Axis> axes;
  std::vector<Ex> sizes;
  for (std::size_t i = 0; i < *rank; ++i) {
    Axis a{in[i],
           c.node().output(0)->type.shape.has_rank() ? c.node().output(0)->type.shape[i] : Dim(),
           std::nullopt};
    if (p.scales) a.scale = (*p.scales)[i];
    if (p.sizes) a.count = (*p.sizes)[i];
    if (i < 2) {
      if (p.scales ? *a.scale != 1 : !(a.count == a.length)) return std::nullopt;
      continue;
    }
    if (p.sizes) {
      const auto e = c.integer(a.count);
      if (!e) return std::nullopt;
      sizes.push_back(*e);
    }
    axes.push_back(a);
  }
  std::string mode;
  bool align_corners = false;
  if (p.mode == "nearest") {
    const auto all = [&](bool exact) {
      return std::all_of(axes.begin(), axes.end(),
                         [&](const Axis& a) { return nearest_agrees(p, a, exact); });
    };
    if (all(false)) {
      mode = "nearest";
    } else if (all(true)) {
      mode = "nearest-exact";
    } else {
      return std::nullopt;
    }
  } else {
    for (const Axis& a : axes)
      if (!places_agree(p, a, align_corners)) return std::nullopt;
    mode = p.mode == "cubic" ? "bicubic"
           : *rank == 3      ? "linear"
           : *rank == 4      ? "bilinear"
                             : "trilinear";
  }
  Kwargs kw;
  const auto tuple_or_one = [](const std::vector<Ex>& all) {
    const bool same = std::all_of(all.begin(), all.end(), [&](const Ex& e) {
      return e->kind == all[0]->kind && e->kind == torch::ExprKind::Float &&
             e->number == all[0]->number;
    });
    return same ? all[0] : torch::tuple(all);
  };
  if (p.scales) {
    std::vector<Ex> factors;
    for (const Axis& a : axes) factors.emplace_back(*a.scale);
    kw.emplace_back("scale_factor", tuple_or_one(factors));
  } else {
    kw.emplace_back("size", torch::tuple(sizes));
  }
  kw.emplace_back("mode", Ex(mode));
  if (align_corners) kw.emplace_back("align_corners", Ex(true));
  return call("F.interpolate", {c.in(0)}, kw);
}

// ---------------------------------------------------------------- lowering

Ex number_list(LowerContext& c, std::size_t i) {
  if (const ir::Tensor* t = c.constant(i)) return Ex(t->to_doubles());
  return op(".tolist", {c.in(i)});
}

void lower_resize(LowerContext& c) {
  const Plan p = plan_of(c);
  const bool legacy = is_upsample(c) || c.opset() < 11;
  if (!legacy)
    for (const char* name : {"antialias", "axes", "exclude_outside", "extrapolation_value",
                             "cubic_coeff_a", "keep_aspect_ratio_policy", "nearest_mode"})
      c.ignore_attr(name);
  else
    for (const char* name : {"width_scale", "height_scale", "scales"}) c.ignore_attr(name);
  if (p.scales &&
      std::all_of(p.scales->begin(), p.scales->end(), [](double s) { return s == 1; }) &&
      p.coordinates != "tf_crop_and_resize")
    return c.out(0, c.in(0));
  if (const auto e = interpolate(c, p)) return c.out(0, *e);
  const Ex scales = p.scales_input != 0 ? number_list(c, p.scales_input)
                    : p.scales          ? Ex(*p.scales)
                                        : kNone;
  if (legacy) {
    Kwargs kw;
    if (p.mode != "nearest") kw.emplace_back("mode", Ex(p.mode));
    return c.out(0, helper("upsample", {c.in(0), scales}, kw));
  }
  Kwargs kw;
  kw.emplace_back(p.sizes_input != 0 ? "sizes" : "scales",
                  p.sizes_input != 0 ? c.int_list(p.sizes_input) : scales);
  if (p.coordinates == "tf_crop_and_resize" && is_given(c, 1))
    kw.emplace_back("roi", number_list(c, 1));
  if (const auto axes = c.attr_ints("axes")) kw.emplace_back("axes", Ex(*axes));
  kw.emplace_back("mode", Ex(p.mode));
  if (p.mode == "nearest" && p.nearest != "round_prefer_floor")
    kw.emplace_back("nearest_mode", Ex(p.nearest));
  if (p.coordinates != "half_pixel")
    kw.emplace_back("coordinate_transformation_mode", Ex(p.coordinates));
  if (const double a = c.attr_float("cubic_coeff_a", -0.75); p.mode == "cubic" && a != -0.75)
    kw.emplace_back("cubic_coeff_a", Ex(a));
  if (c.attr_int("exclude_outside", 0) != 0) kw.emplace_back("exclude_outside", Ex(true));
  if (const double v = c.attr_float("extrapolation_value", 0); v != 0)
    kw.emplace_back("extrapolation_value", Ex(v));
  if (c.attr_int("antialias", 0) != 0) kw.emplace_back("antialias", Ex(true));
  if (const std::string policy = c.attr_string("keep_aspect_ratio_policy", "stretch");
      policy != "stretch" && p.sizes_input != 0)
    kw.emplace_back("keep_aspect_ratio_policy", Ex(policy));
  c.out(0, helper("resize", {c.in(0)}, kw));
}

constexpr OpDef kResizeOps[] = {
    {.type = "Resize",
     .changed_at = {10, 11, 13, 18, 19},
     .infer = infer_resize,
     .lower = lower_resize},
    {.type = "Upsample", .changed_at = {1, 7, 9}, .infer = infer_resize, .lower = lower_resize},
};

}  // namespace

std::span<const OpDef> resize_ops() {
  return kResizeOps;
}

}  // namespace onnx2nn::ops
