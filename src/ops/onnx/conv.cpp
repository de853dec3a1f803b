// Convolutions. https://onnx.ai/onnx/operators/onnx__Conv.html and its neighbours.
// The meaning of Conv and ConvTranspose has not changed since opset 1.
#include <algorithm>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"
#include "ops/onnx/window.h"
#include "support/checked.h"

namespace onnx2nn::ops {
namespace {

/// The kernel's sizes: the attribute's, else those of the weight, input `i`. Nothing where they are
/// not known.
std::optional<Ints> kernel_of(const NodeContext& c, std::size_t i) {
  auto given = c.attr_ints("kernel_shape");
  const Shape& w = c.shape(i);
  if (w.has_rank() && w.rank() < 2) c.fail("the weight has less than two dimensions");
  if (given && !given->empty()) {
    if (w.has_rank() && w.rank() != given->size() + 2)
      c.fail("kernel_shape does not fit the weight's shape " + w.str());
    for (std::size_t d = 0; w.has_rank() && d < given->size(); ++d)
      if (w[d + 2].is_const() && w[d + 2].value() != (*given)[d])
        c.fail("kernel_shape does not fit the weight's shape " + w.str());
    return given;
  }
  if (!w.has_rank()) return std::nullopt;
  Ints kernel;
  for (std::size_t d = 2; d < w.rank(); ++d) {
    if (!w[d].is_const()) return std::nullopt;
    kernel.push_back(w[d].value());
  }
  return kernel;
}

std::int64_t group_of(const NodeContext& c) {
  const std::int64_t group = c.attr_int("group", 1);
  if (group < 1) c.fail("group is " + std::to_string(group) + ", not positive");
  return group;
}

Dim channels(const Shape& weight, std::size_t axis) {
  return weight.has_rank() && weight.rank() > axis ? weight[axis] : Dim();
}

// ---------------------------------------------------------------- Conv

/// Fails where the input's channels are known to be others than the weight's, `expected`.
void check_channels(const InferContext& c, const Dim& expected) {
  const Shape& x = c.shape(0);
  if (x.has_rank() && x.rank() > 1 && x[1].is_const() && expected.is_const() &&
      x[1].value() != expected.value())
    c.fail("the input has " + x[1].str() + " channels, not " + expected.str());
}

/// Of Conv and the integer ones, whose weight is input `w`.
void infer_conv_as(InferContext& c, std::size_t w, DType dtype) {
  const Shape& x = c.shape(0);
  const auto kernel = kernel_of(c, w);
  if (!kernel) return c.set(0, dtype, x.has_rank() ? Shape::unknown_dims(x.rank()) : Shape());
  const Window window = read_window(c, *kernel);
  if (x.has_rank() && x.rank() != window.n + 2)
    c.fail("the input has rank " + std::to_string(x.rank()) + ", not " +
           std::to_string(window.n + 2));
  check_channels(c, channels(c.shape(w), 1) * Dim(group_of(c)));
  Dims out(window.n + 2);
  if (x.has_rank()) out[0] = x[0];
  out[1] = channels(c.shape(w), 0);
  for (std::size_t i = 0; x.has_rank() && i < window.n; ++i)
    out[i + 2] = window_size(window, i, x[i + 2]);
  c.set(0, dtype, Shape(std::move(out)));
}

void infer_conv(InferContext& c) {
  infer_conv_as(c, 1, c.dtype(0));
}
void infer_conv_integer(InferContext& c) {
  infer_conv_as(c, 1, DType::Int32);
}
void infer_qlinear_conv(InferContext& c) {
  infer_conv_as(c, 3, c.dtype(7));
}

/// Keywords of conv_nd and of its quantised relatives.
Kwargs conv_keywords(const NodeContext& c, const Window& w) {
  Kwargs kw = window_keywords(w);
  if (const std::int64_t group = group_of(c); group != 1) kw.emplace_back("group", group);
  return kw;
}

/// The keywords where the kernel is known only at run time.
Kwargs conv_keywords_of_attributes(const NodeContext& c) {
  c.ignore_attr("kernel_shape");
  Kwargs kw;
  for (const char* name : {"strides", "pads", "dilations"})
    if (const auto v = c.attr_ints(name)) kw.emplace_back(name, Ex(*v));
  if (const std::string mode = c.attr_string("auto_pad", "NOTSET"); mode != "NOTSET")
    kw.emplace_back("auto_pad", mode);
  if (const std::int64_t group = group_of(c); group != 1) kw.emplace_back("group", group);
  return kw;
}

/// x padded with zeros where torch's convolution cannot pad it so itself; the window's pads become
/// zero.
Ex pad_outside(Window& w, const Shape& shape, const Ex& x) {
  if (!resolve_pads(w, shape)) {
    Kwargs kw;
    add_unless(kw, "dilations", w.dilations, 1);
    if (w.auto_pad == AutoPad::SameLower) kw.emplace_back("lower", true);
    w.auto_pad = AutoPad::NotSet;
    return helper("pad_same", {x, Ex(w.kernel), Ex(w.strides)}, kw);
  }
  if (w.symmetric()) return x;
  const Ints pads = torch_pads(w.pads);
  std::fill(w.pads.begin(), w.pads.end(), 0);
  return aten("pad", {x, Ex(pads)});
}

std::string dimensional(const char* stem, std::size_t n) {
  return stem + std::to_string(n) + "d";
}

/// Whether the weight (and the bias, where there is one) has the shape that a module would have.
bool fits_module(const LowerContext& c, std::int64_t features) {
  const auto w = c.weight(1);
  if (!w || w->size() == 0 || !ir::is_float(w->dtype)) return false;
  if (!c.has_input(2)) return true;
  const auto b = c.weight(2);
  return b && b->rank() == 1 && b->dims[0] == features && b->dtype == w->dtype;
}

std::vector<ModuleParam> weight_and_bias(const NodeContext& c) {
  std::vector<ModuleParam> params{{.name = "weight", .value = c.input(1)}};
  if (c.has_input(2)) params.push_back({.name = "bias", .value = c.input(2)});
  return params;
}

std::optional<Ex> conv_module(LowerContext& c, const Window& w, std::int64_t group, const Ex& x) {
  const auto weight = c.weight(1);
  if (!weight || weight->rank() < 2) return std::nullopt;
  const std::int64_t out = weight->dims[0];
  if (!fits_module(c, out) || out % group != 0) return std::nullopt;
  Kwargs kw{{"kernel_size", Ex(w.kernel)}};
  add_unless(kw, "stride", w.strides, 1);
  add_unless(kw, "padding", begins(w), 0);
  add_unless(kw, "dilation", w.dilations, 1);
  if (group != 1) kw.emplace_back("groups", group);
  if (!c.has_input(2)) kw.emplace_back("bias", false);
  return c.module(dimensional("Conv", w.n), {checked_mul(weight->dims[1], group), out}, kw,
                  weight_and_bias(c), {x});
}

void lower_conv(LowerContext& c) {
  const auto kernel = kernel_of(c, 1);
  if (!kernel || kernel->empty() || kernel->size() > 3) {
    const Kwargs kw =
        kernel ? conv_keywords(c, read_window(c, *kernel)) : conv_keywords_of_attributes(c);
    return c.out(0, helper("conv_nd", {c.in(0), c.in(1), c.in(2)}, kw));
  }
  Window w = read_window(c, *kernel);
  const std::int64_t group = group_of(c);
  const Ex x = pad_outside(w, c.shape(0), c.in(0));
  if (const auto y = conv_module(c, w, group, x)) return c.out(0, *y);
  c.out(0, aten(dimensional("conv", w.n),
                {x, c.in(1), c.in(2), Ex(w.strides), Ex(begins(w)), Ex(w.dilations), group}));
}

// ---------------------------------------------------------------- ConvTranspose

/// What torch's transposed convolution takes, and what is to be cut off its result.
struct Transposed {
  Window window;
  Ints output_padding;
  Ints padding;
  Ints crops;  // as ONNX's pads, not positive
};

Ints output_padding_of(const NodeContext& c, std::size_t n) {
  Ints extra = c.attr_ints("output_padding").value_or(Ints{});
  if (extra.empty()) extra.assign(n, 0);
  if (extra.size() != n)
    c.fail("output_padding has " + std::to_string(extra.size()) + " values, not " +
           std::to_string(n));
  for (const std::int64_t v : extra)
    if (v < 0 || v > (1 << 28)) c.fail("output_padding is out of range");
  return extra;
}

/// The attribute output_shape, of the spatial axes only.
std::optional<Ints> output_shape_of(const NodeContext& c, std::size_t n) {
  auto shape = c.attr_ints("output_shape");
  if (!shape || shape->empty()) return std::nullopt;
  if (shape->size() < n) c.fail("output_shape has less than " + std::to_string(n) + " values");
  shape->erase(shape->begin(), shape->end() - static_cast<std::ptrdiff_t>(n));
  return shape;
}

/// How much longer than asked the result along axis `i` would be, without pads; nothing where the
/// input's size is not known.
std::optional<std::int64_t> excess(const Window& w, const Ints& extra,
                                   const std::optional<Ints>& shape, const Shape& x,
                                   std::size_t i) {
  // With auto_pad the output is `stride` times as long as the input, whatever that is.
  if (!shape) return w.extent(i) + extra[i] - w.strides[i];
  if (!x.has_rank() || x.rank() != w.n + 2 || !x[i + 2].is_const()) return std::nullopt;
  const std::int64_t steps = checked_mul(w.strides[i], x[i + 2].value() - 1);
  return checked_sub(checked_add(steps, extra[i] + w.extent(i)), (*shape)[i]);
}

std::optional<Transposed> plan_transposed(const NodeContext& c, const Window& window) {
  const std::size_t n = window.n;
  Transposed t{window, output_padding_of(c, n), Ints(n), Ints(2 * n)};
  const auto shape = output_shape_of(c, n);
  const Shape& x = c.shape(0);
  for (std::size_t i = 0; i < n; ++i) {
    std::int64_t begin = window.pads[i];
    std::int64_t end = window.pads[n + i];
    if (shape || window.same()) {
      const auto total = excess(window, t.output_padding, shape, x, i);
      if (!total) return std::nullopt;
      const std::int64_t cut = std::max<std::int64_t>(*total, 0);
      begin = window.auto_pad == AutoPad::SameUpper ? cut / 2 : cut - cut / 2;
      end = cut - begin;
      if (*total < 0) t.output_padding[i] = checked_sub(t.output_padding[i], *total);
    }
    if (begin < 0 || end < 0) return std::nullopt;
    const std::int64_t most =
        std::max(window.strides[i], window.dilations[i]) - 1;  // that torch takes
    // Less padding at the end is more output padding, as far as torch takes it; the rest is cut
    // off.
    std::int64_t padding = begin;
    if (begin > end && t.output_padding[i] + begin - end <= most) {
      t.output_padding[i] += begin - end;
      end = begin;
    } else {
      padding = std::min(begin, end);
    }
    if (t.output_padding[i] > most) return std::nullopt;
    t.padding[i] = padding;
    t.crops[i] = padding - begin;
    t.crops[n + i] = padding - end;
  }
  return t;
}

void infer_conv_transpose(InferContext& c) {
  const Shape& x = c.shape(0);
  const auto kernel = kernel_of(c, 1);
  if (!kernel) return c.set(0, c.dtype(0), x.has_rank() ? Shape::unknown_dims(x.rank()) : Shape());
  const Window w = read_window(c, *kernel);
  if (x.has_rank() && x.rank() != w.n + 2)
    c.fail("the input has rank " + std::to_string(x.rank()) + ", not " + std::to_string(w.n + 2));
  check_channels(c, channels(c.shape(1), 0));
  const Ints extra = output_padding_of(c, w.n);
  const auto shape = output_shape_of(c, w.n);
  Dims out(w.n + 2);
  if (x.has_rank()) out[0] = x[0];
  out[1] = channels(c.shape(1), 1) * Dim(group_of(c));
  for (std::size_t i = 0; i < w.n; ++i) {
    if (shape) {
      out[i + 2] = (*shape)[i];
    } else if (x.has_rank() && w.same()) {
      out[i + 2] = x[i + 2] * Dim(w.strides[i]);
    } else if (x.has_rank()) {
      out[i + 2] = (x[i + 2] - Dim(1)) * Dim(w.strides[i]) +
                   Dim(w.extent(i) + extra[i] - w.pads[i] - w.pads[w.n + i]);
    }
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

std::optional<Ex> conv_transpose_module(LowerContext& c, const Transposed& t, std::int64_t group) {
  const auto weight = c.weight(1);
  if (!weight || weight->rank() < 2 || weight->dims[0] % group != 0) return std::nullopt;
  const Window& w = t.window;
  const std::int64_t in = weight->dims[0];
  const std::int64_t features = checked_mul(weight->dims[1], group);
  if (in == 0 || !fits_module(c, features)) return std::nullopt;
  Kwargs kw{{"kernel_size", Ex(w.kernel)}};
  add_unless(kw, "stride", w.strides, 1);
  add_unless(kw, "padding", t.padding, 0);
  add_unless(kw, "output_padding", t.output_padding, 0);
  if (group != 1) kw.emplace_back("groups", group);
  if (!c.has_input(2)) kw.emplace_back("bias", false);
  add_unless(kw, "dilation", w.dilations, 1);
  return c.module(dimensional("ConvTranspose", w.n), {in, features}, kw,
                  weight_and_bias(c), {c.in(0)});
}

void lower_conv_transpose(LowerContext& c) {
  const auto kernel = kernel_of(c, 1);
  const std::int64_t group = group_of(c);
  if (kernel && !kernel->empty() && kernel->size() <= 3) {
    if (const auto t = plan_transposed(c, read_window(c, *kernel))) {
      auto y = conv_transpose_module(c, *t, group);
      if (!y) {
        const std::string overload =
            dimensional("conv_transpose", t->window.n) + (t->window.n == 1 ? "" : ".input");
        y = aten(overload, {c.in(0), c.in(1), c.in(2), Ex(t->window.strides), Ex(t->padding),
                            Ex(t->output_padding), group, Ex(t->window.dilations)});
      }
      const bool crop =
          std::any_of(t->crops.begin(), t->crops.end(), [](std::int64_t p) { return p != 0; });
      return c.out(0, crop ? aten("pad", {*y, Ex(torch_pads(t->crops))}) : *y);
    }
  }
  Kwargs kw = kernel ? conv_keywords(c, read_window(c, *kernel)) : conv_keywords_of_attributes(c);
  for (const char* name : {"output_padding", "output_shape"})
    if (const auto v = c.attr_ints(name); v && !v->empty()) kw.emplace_back(name, Ex(*v));
  c.out(0, helper("conv_transpose_nd", {c.in(0), c.in(1), c.in(2)}, kw));
}

// ---------------------------------------------------------------- integers

void lower_conv_integer(LowerContext& c) {
  const auto kernel = kernel_of(c, 1);
  const Kwargs kw =
      kernel ? conv_keywords(c, read_window(c, *kernel)) : conv_keywords_of_attributes(c);
  c.out(0, helper("conv_integer", {c.in(0), c.in(1), c.in(2), c.in(3)}, kw));
}

void lower_qlinear_conv(LowerContext& c) {
  const auto kernel = kernel_of(c, 3);
  const Kwargs kw =
      kernel ? conv_keywords(c, read_window(c, *kernel)) : conv_keywords_of_attributes(c);
  Args args;
  for (std::size_t i = 0; i < 9; ++i) args.push_back(c.in(i));
  c.out(0, helper("qlinear_conv", args, kw));
}

// ---------------------------------------------------------------- DeformConv, Col2Im,
// CausalConvWithState

void infer_deform_conv(InferContext& c) {
  infer_conv(c);
  // The offsets say the output's sizes.
  const Shape& offset = c.shape(2);
  const Shape& x = c.shape(0);
  if (!offset.has_rank() || offset.rank() < 2 || (x.has_rank() && x.rank() != offset.rank()))
    return;
  Dims out = offset.dims();
  out[1] = channels(c.shape(1), 0);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_deform_conv(LowerContext& c) {
  const auto kernel = kernel_of(c, 1);
  Kwargs kw = kernel ? conv_keywords(c, read_window(c, *kernel)) : conv_keywords_of_attributes(c);
  if (const std::int64_t groups = c.attr_int("offset_group", 1); groups != 1)
    kw.emplace_back("offset_group", groups);
  c.out(0, helper("deform_conv", {c.in(0), c.in(1), c.in(2), c.in(3), c.in(4)}, kw));
}

void infer_col2im(InferContext& c) {
  const auto image = c.contents(1);
  const auto block = c.contents(2);
  if (!image) return c.set(0, c.dtype(0));
  Dims out(2);
  const Shape& x = c.shape(0);
  if (x.has_rank() && x.rank() == 3) {
    out[0] = x[0];
    Dim taps(1);
    for (std::size_t i = 0; block && i < block->size(); ++i) taps = taps * (*block)[i];
    if (block && !(taps.is_const() && taps.value() == 0)) out[1] = Dim::floor_div(x[1], taps);
  }
  out.insert(out.end(), image->begin(), image->end());
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// torch folds no integers, and adds up no wide unsigned ones.
void lower_col2im(LowerContext& c) {
  const auto block = c.const_ints(2);
  const DType t = c.dtype(0);
  const auto by_helper = [&](const Ex& kernel, const Kwargs& kw) {
    c.out(0, computed(t, helper("col2im", {computable(t, c.in(0)), c.int_list(1), kernel}, kw)));
  };
  if (!block || block->empty()) {
    Kwargs kw;
    for (const char* name : {"strides", "pads", "dilations"})
      if (const auto v = c.attr_ints(name)) kw.emplace_back(name, Ex(*v));
    return by_helper(c.int_list(2), kw);
  }
  const Window w = read_window(c, *block);
  if (w.n == 2 && w.symmetric() && !ir::is_integer(t))
    return c.out(0, aten("col2im", {c.in(0), c.int_list(1), Ex(w.kernel), Ex(w.dilations),
                                    Ex(begins(w)), Ex(w.strides)}));
  by_helper(Ex(w.kernel), window_keywords(w));
}

void infer_causal_conv(InferContext& c) {
  c.set(0, c.type(0));
  const Shape& x = c.shape(0);
  Dims state(3);
  if (x.has_rank() && x.rank() == 3) {
    state[0] = x[0];
    state[1] = x[1];
  }
  state[2] = channels(c.shape(1), 2) - Dim(1);
  c.set(1, c.dtype(0), Shape(std::move(state)));
}

void lower_causal_conv(LowerContext& c) {
  Kwargs kw;
  if (const std::string activation = c.attr_string("activation", "none"); activation != "none")
    kw.emplace_back("activation", activation);
  const Ex both = helper("causal_conv_with_state", {c.in(0), c.in(1), c.in(2), c.in(3)}, kw);
  const auto results = c.lets(both, {"y", c.has_output(1) ? "state" : "_"});
  c.alias(0, results[0]);
  c.alias(1, results[1]);
}

constexpr OpDef kConvOps[] = {
    {.type = "Conv", .changed_at = {1}, .infer = infer_conv, .lower = lower_conv},
    {.type = "ConvTranspose",
     .changed_at = {1},
     .infer = infer_conv_transpose,
     .lower = lower_conv_transpose},
    {.type = "ConvInteger",
     .changed_at = {10},
     .infer = infer_conv_integer,
     .lower = lower_conv_integer},
    {.type = "QLinearConv",
     .changed_at = {10},
     .infer = infer_qlinear_conv,
     .lower = lower_qlinear_conv},
    {.type = "DeformConv",
     .changed_at = {19},
     .infer = infer_deform_conv,
     .lower = lower_deform_conv},
    {.type = "Col2Im", .changed_at = {18}, .infer = infer_col2im, .lower = lower_col2im},
    {.type = "CausalConvWithState",
     .changed_at = {27},
     .infer = infer_causal_conv,
     .lower = lower_causal_conv},
};

}  // namespace

std::span<const OpDef> conv_ops() {
  return kConvOps;
}

}  // namespace onnx2nn::ops
