// Operators about pictures: DepthToSpace, SpaceToDepth, GridSample, AffineGrid, RoiAlign,
// NonMaxSuppression, ImageDecoder.
// https://onnx.ai/onnx/operators/onnx__GridSample.html and its neighbours.
#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"
#include "support/checked.h"

namespace onnx2nn::ops {
namespace {

bool is_common_float(DType t) {
  return t == DType::Float32 || t == DType::Float64 || t == DType::Float16 || t == DType::BFloat16;
}

// ---------------------------------------------------------------- DepthToSpace, SpaceToDepth

std::int64_t block_size(const NodeContext& c) {
  const std::int64_t b = c.attr_int("blocksize");
  if (b < 1 || b > 1 << 20) c.fail("blocksize is " + std::to_string(b));
  if (const auto rank = c.rank(0); rank && *rank != 4)
    c.fail("the input has rank " + std::to_string(*rank) + ", not 4");
  return b;
}

void infer_depth_to_space(InferContext& c) {
  const Dim b(block_size(c));
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0), Shape::unknown_dims(4));
  c.set(0, c.dtype(0), Shape({s[0], Dim::floor_div(s[1], b * b), s[2] * b, s[3] * b}));
}

void infer_space_to_depth(InferContext& c) {
  const Dim b(block_size(c));
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0), Shape::unknown_dims(4));
  c.set(0, c.dtype(0),
        Shape({s[0], s[1] * b * b, Dim::floor_div(s[2], b), Dim::floor_div(s[3], b)}));
}

/// Before opset 11 DepthToSpace had no mode: depth, column, row.
void lower_depth_to_space(LowerContext& c) {
  c.carry_strings({0});
  const std::int64_t b = block_size(c);
  const std::string mode = c.attr_string("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") c.unsupported("the mode \"" + mode + "\" is not known");
  const DType t = c.dtype(0);
  if (mode == "CRD" &&
      (is_common_float(t) || t == DType::Int64 || t == DType::Int32 || t == DType::UInt8))
    return c.out(0, aten("pixel_shuffle", {c.in(0), b}));
  Kwargs kw;
  if (mode != "DCR") kw.emplace_back("mode", Ex(mode));
  c.out(0, helper("depth_to_space", {c.in(0), b}, kw));
}

void lower_space_to_depth(LowerContext& c) {
  c.carry_strings({0});
  Kwargs kw;
  if (const std::string mode = c.attr_string("mode", "DCR"); mode != "DCR")
    kw.emplace_back("mode", Ex(mode));
  c.out(0, helper("space_to_depth", {c.in(0), block_size(c)}, kw));
}

// ---------------------------------------------------------------- GridSample, AffineGrid
// Opset 16 is for pictures and calls its modes bilinear and bicubic; from 20 on any rank, linear
// and cubic.

void infer_grid_sample(InferContext& c) {
  const Shape& x = c.shape(0);
  const Shape& grid = c.shape(1);
  if (!x.has_rank() || !grid.has_rank()) return c.set(0, c.dtype(0));
  if (x.rank() < 3 || grid.rank() != x.rank())
    c.fail("the ranks are " + std::to_string(x.rank()) + " and " + std::to_string(grid.rank()));
  Dims out{x[0], x[1]};
  out.insert(out.end(), grid.dims().begin() + 1, grid.dims().end() - 1);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_grid_sample(LowerContext& c) {
  std::string mode = c.attr_string("mode", c.opset() < 20 ? "bilinear" : "linear");
  const std::string padding = c.attr_string("padding_mode", "zeros");
  const bool align = c.attr_int("align_corners", 0) != 0;
  if (mode == "bilinear") mode = "linear";
  if (mode == "bicubic") mode = "cubic";
  const auto rank = c.rank(0);
  const bool native = (rank == 4U || (rank == 5U && mode != "cubic")) && c.dtype(0) == c.dtype(1) &&
                      is_common_float(c.dtype(0));
  Kwargs kw;
  if (native) {
    if (mode != "linear") kw.emplace_back("mode", Ex(mode == "cubic" ? "bicubic" : mode));
  } else if (mode != "linear") {
    kw.emplace_back("mode", Ex(mode));
  }
  if (padding != "zeros") kw.emplace_back("padding_mode", Ex(padding));
  if (native || align) kw.emplace_back("align_corners", Ex(align));
  c.out(0, native ? call("F.grid_sample", {c.in(0), c.in(1)}, kw)
                  : helper("grid_sample", {c.in(0), c.in(1)}, kw));
}

void infer_affine_grid(InferContext& c) {
  const auto size = c.contents(1);
  if (!size || size->size() < 4 || size->size() > 5) return c.set(0, c.dtype(0));
  Dims out{(*size)[0]};
  out.insert(out.end(), size->begin() + 2, size->end());
  out.emplace_back(static_cast<std::int64_t>(size->size()) - 2);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// On a CPU torch makes no grid of halves.
void lower_affine_grid(LowerContext& c) {
  const DType t = c.dtype(0);
  const bool half = t == DType::Float16 || t == DType::BFloat16;
  const Ex theta = half ? to_dtype(c.in(0), DType::Float32) : c.in(0);
  const Ex grid = call("F.affine_grid", {theta, c.int_list(1)},
                       {{"align_corners", Ex(c.attr_int("align_corners", 0) != 0)}});
  c.out(0, half ? to_dtype(grid, t) : grid);
}

// ---------------------------------------------------------------- RoiAlign, NonMaxSuppression

void infer_roi_align(InferContext& c) {
  const Dim count = c.rank(1) == 2U ? c.shape(1)[0] : Dim();
  const Dim channels = c.rank(0) == 4U ? c.shape(0)[1] : Dim();
  c.set(0, c.dtype(0),
        Shape({count, channels, Dim(c.attr_int("output_height", 1)),
               Dim(c.attr_int("output_width", 1))}));
}

/// Opset 10 knows only what opset 16 calls output_half_pixel.
void lower_roi_align(LowerContext& c) {
  Kwargs kw;
  for (const char* name : {"output_height", "output_width"})
    if (const std::int64_t v = c.attr_int(name, 1); v != 1) kw.emplace_back(name, Ex(v));
  if (const std::int64_t v = c.attr_int("sampling_ratio", 0); v != 0)
    kw.emplace_back("sampling_ratio", Ex(v));
  if (const double v = c.attr_float("spatial_scale", 1); v != 1)
    kw.emplace_back("spatial_scale", Ex(v));
  if (const std::string mode = c.attr_string("mode", "avg"); mode != "avg")
    kw.emplace_back("mode", Ex(mode));
  const std::string coordinates = c.attr_string(
      "coordinate_transformation_mode", c.opset() < 16 ? "output_half_pixel" : "half_pixel");
  if (coordinates != "half_pixel")
    kw.emplace_back("coordinate_transformation_mode", Ex(coordinates));
  c.out(0, helper("roi_align", {c.in(0), c.in(1), c.in(2)}, kw));
}

void infer_non_max_suppression(InferContext& c) {
  c.set(0, DType::Int64, Shape({Dim(), Dim(3)}));
}

void lower_non_max_suppression(LowerContext& c) {
  const auto threshold = [&](std::size_t i) {
    const auto v = c.const_number(i);
    return v ? Ex(*v) : c.in(i);
  };
  Args args{c.in(0), c.in(1)};
  if (c.has_input(2)) args.push_back(c.int_scalar(2));
  Kwargs kw;
  if (c.has_input(3)) kw.emplace_back("iou_threshold", threshold(3));
  if (c.has_input(4)) kw.emplace_back("score_threshold", threshold(4));
  if (c.attr_int("center_point_box", 0) != 0) kw.emplace_back("center_point_box", Ex(true));
  c.out(0, helper("non_max_suppression", args, kw));
}

// ---------------------------------------------------------------- ImageDecoder

void infer_image_decoder(InferContext& c) {
  c.set(0, DType::UInt8,
        Shape({Dim(), Dim(), Dim(c.attr_string("pixel_format", "RGB") == "Grayscale" ? 1 : 3)}));
}

void lower_image_decoder(LowerContext& c) {
  Kwargs kw;
  if (const std::string format = c.attr_string("pixel_format", "RGB"); format != "RGB")
    kw.emplace_back("pixel_format", Ex(format));
  c.out(0, helper("image_decoder", {c.in(0)}, kw));
}

// ---------------------------------------------------------------- ImageScaler
// Experimental in opset 1, and still in files of that time: x * scale + bias of the channel.

void infer_image_scaler(InferContext& c) {
  c.set(0, c.type(0));
}

void lower_image_scaler(LowerContext& c) {
  Ex x = c.in(0);
  if (const double scale = c.attr_float("scale", 1.0); scale != 1.0)
    x = aten("mul.Tensor", {x, scale});
  if (const auto bias = c.attr_floats("bias"); bias && !bias->empty()) {
    const auto channels = static_cast<std::int64_t>(bias->size());
    const auto tensor = ir::Tensor::from<float>(DType::Float32, {channels, 1, 1},
                                                std::vector<float>(bias->begin(), bias->end()));
    x = aten("add.Tensor", {x, c.buffer("image_bias", tensor)});
  }
  c.out(0, x);
}

// ---------------------------------------------------------------- Crop
// Experimental in opset 1: `border` is left, top, right, bottom; `scale` is the height and width to
// keep.

struct Box {
  std::int64_t top = 0;
  std::int64_t left = 0;
  Dim height;
  Dim width;
};

Box crop_box(const NodeContext& c) {
  const auto border = c.attr_ints("border");
  if (!border || border->size() != 4) c.fail("border needs four numbers");
  const Shape& s = c.shape(0);
  if (s.has_rank() && s.rank() != 4) c.fail("the input must have rank 4");
  Box box{(*border)[1], (*border)[0], Dim(), Dim()};
  if (const auto scale = c.attr_ints("scale"); scale && scale->size() == 2) {
    box.height = Dim((*scale)[0]);
    box.width = Dim((*scale)[1]);
  } else if (s.has_rank()) {
    box.height = s[2] - Dim((*border)[1]) - Dim((*border)[3]);
    box.width = s[3] - Dim((*border)[0]) - Dim((*border)[2]);
  }
  return box;
}

void infer_crop(InferContext& c) {
  const Box box = crop_box(c);
  const Shape& s = c.shape(0);
  c.set(0, c.dtype(0),
        s.has_rank() ? Shape({s[0], s[1], box.height, box.width}) : Shape::unknown_dims(4));
}

void lower_crop(LowerContext& c) {
  const Box box = crop_box(c);
  const auto border = c.attr_ints("border");
  const bool to_size = c.attr_ints("scale").value_or(Ints{}).size() == 2;
  // Without a size the end is counted from the back, which needs no size of the input.
  const auto end = [&](std::int64_t start, const Dim& length, std::int64_t beyond) {
    if (to_size) return Ex(checked_add(start, length.value()));
    return beyond == 0 ? kNone : Ex(checked_sub<std::int64_t>(0, beyond));
  };
  const Ex rows = aten("slice.Tensor", {c.in(0), 2, box.top, end(box.top, box.height, (*border)[3])});
  c.out(0, aten("slice.Tensor", {rows, 3, box.left, end(box.left, box.width, (*border)[2])}));
}

// ---------------------------------------------------------------- Affine, Scale
// Experimental in opset 1: alpha * x + beta, and scale * x.

void lower_affine(LowerContext& c) {
  Ex x = c.in(0);
  if (const double alpha = c.attr_float("alpha", 1.0); alpha != 1.0)
    x = aten("mul.Tensor", {x, alpha});
  if (const double beta = c.attr_float("beta", 0.0); beta != 0.0) x = aten("add.Tensor", {x, beta});
  c.out(0, x);
}

void lower_scale(LowerContext& c) {
  const double scale = c.attr_float("scale", 1.0);
  c.out(0, scale == 1.0 ? c.in(0) : aten("mul.Tensor", {c.in(0), scale}));
}

constexpr OpDef kImageOps[] = {
    {.type = "Affine", .changed_at = {1}, .infer = infer_image_scaler, .lower = lower_affine},
    {.type = "Crop", .changed_at = {1}, .infer = infer_crop, .lower = lower_crop},
    {.type = "ImageScaler",
     .changed_at = {1},
     .infer = infer_image_scaler,
     .lower = lower_image_scaler},
    {.type = "Scale", .changed_at = {1}, .infer = infer_image_scaler, .lower = lower_scale},
    {.type = "DepthToSpace",
     .changed_at = {1, 11},
     .infer = infer_depth_to_space,
     .lower = lower_depth_to_space},
    {.type = "SpaceToDepth",
     .changed_at = {1},
     .infer = infer_space_to_depth,
     .lower = lower_space_to_depth},
    {.type = "GridSample",
     .changed_at = {16, 20},
     .infer = infer_grid_sample,
     .lower = lower_grid_sample},
    {.type = "AffineGrid",
     .changed_at = {20},
     .infer = infer_affine_grid,
     .lower = lower_affine_grid},
    {.type = "RoiAlign",
     .changed_at = {10, 16},
     .infer = infer_roi_align,
     .lower = lower_roi_align},
    {.type = "NonMaxSuppression",
     .changed_at = {10},
     .infer = infer_non_max_suppression,
     .lower = lower_non_max_suppression},
    {.type = "ImageDecoder",
     .changed_at = {20},
     .infer = infer_image_decoder,
     .lower = lower_image_decoder},
};

}  // namespace

std::span<const OpDef> image_ops() {
  return kImageOps;
}

}  // namespace onnx2nn::ops
