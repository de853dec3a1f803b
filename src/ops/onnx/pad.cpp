// Pad in all its modes, and CenterCropPad.
// https://onnx.ai/onnx/operators/onnx__Pad.html
// Opset 1 has the attributes `paddings` and `value`, 2 calls the first `pads`; from 11 on both are
// inputs, from 18 on `axes` chooses axes, and 19 brought the mode "wrap". A negative pad takes
// away.
#include <algorithm>
#include <cmath>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"
#include "support/checked.h"

namespace onnx2nn::ops {
namespace {

std::optional<Dims> pad_amounts(const NodeContext& c) {
  auto given = c.attr_ints("pads");
  if (!given) given = c.attr_ints("paddings");
  if (given) return Dims(given->begin(), given->end());
  return c.contents(1);
}

/// The axes that are padded, where they are known: all without the input.
std::optional<Ints> pad_axes(const NodeContext& c, std::size_t rank) {
  if (c.has_input(3)) {
    const auto axes = c.const_ints(3);
    if (!axes) return std::nullopt;
    return c.axes(*axes, rank);
  }
  Ints all(rank);
  for (std::size_t i = 0; i < rank; ++i) all[i] = static_cast<std::int64_t>(i);
  return all;
}

void infer_pad(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  const auto pads = pad_amounts(c);
  const auto axes = pad_axes(c, s.rank());
  if (!pads || !axes) return c.set(0, c.dtype(0), Shape::unknown_dims(s.rank()));
  if (pads->size() != 2 * axes->size())
    c.fail("there are " + std::to_string(pads->size()) + " pads for " +
           std::to_string(axes->size()) + " axes");
  Dims out = s.dims();
  for (std::size_t i = 0; i < axes->size(); ++i) {
    Dim& d = out[static_cast<std::size_t>((*axes)[i])];
    d = d + (*pads)[i] + (*pads)[i + axes->size()];
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// The pads as F.pad has them: pairs from the last axis backwards, without the axes that have none.
struct TorchPads {
  std::vector<Ex> amounts;
  std::optional<Ints> constant;  // the same where all are numbers
};

std::optional<TorchPads> torch_pads(LowerContext& c) {
  const auto rank = c.rank(0);
  if (!rank) return std::nullopt;
  const auto axes = pad_axes(c, *rank);
  std::optional<std::vector<Ex>> given;
  if (const auto p = pad_amounts(c); p && (c.has_attr("pads") || c.has_attr("paddings"))) {
    given.emplace();
    for (const Dim& d : *p) given->emplace_back(d.value());
  } else {
    given = c.int_elements(1);
  }
  if (!axes || !given || given->size() != 2 * axes->size()) return std::nullopt;
  std::vector<Ex> begin(*rank, Ex(0));
  std::vector<Ex> end(*rank, Ex(0));
  for (std::size_t i = 0; i < axes->size(); ++i) {
    begin[static_cast<std::size_t>((*axes)[i])] = (*given)[i];
    end[static_cast<std::size_t>((*axes)[i])] = (*given)[i + axes->size()];
  }
  TorchPads out;
  for (std::size_t i = *rank; i-- > 0;) {
    out.amounts.push_back(begin[i]);
    out.amounts.push_back(end[i]);
  }
  const auto zero = [](const Ex& e) { return e.is_int() && e->integer == 0; };
  while (out.amounts.size() >= 2 && zero(out.amounts.back()) &&
         zero(out.amounts[out.amounts.size() - 2]))
    out.amounts.resize(out.amounts.size() - 2);
  out.constant.emplace();
  for (const Ex& e : out.amounts) {
    if (!e.is_int()) {
      out.constant.reset();
      break;
    }
    out.constant->push_back(e->integer);
  }
  return out;
}

/// Whether F.pad has this mode for these axes: the last one, two or three of a batch of pictures.
bool is_native(LowerContext& c, const std::string& mode, TorchPads& pads) {
  const std::size_t rank = *c.rank(0);
  if (!pads.constant || rank < 3 || rank > 5 || pads.amounts.size() > 2 * (rank - 2)) return false;
  const DType t = c.dtype(0);
  if (t != DType::Float32 && t != DType::Float64 && t != DType::Float16 && t != DType::BFloat16)
    return false;
  for (std::size_t i = 0; i < pads.constant->size(); ++i) {
    const std::int64_t p = (*pads.constant)[i];
    const Dim& size = c.shape(0)[rank - 1 - i / 2];
    // A pad that reaches further than the axis is repeated in ONNX; torch raises where sizes are
    // not known here.
    if (p < 0 ||
        (size.is_const() && (size.value() == 0 || (mode == "reflect" && p >= size.value()) ||
                             (mode == "circular" && p > size.value()))))
      return false;
  }
  pads.amounts.resize(2 * (rank - 2), Ex(0));
  return true;
}

/// A constant that F.pad's float can hold.
std::optional<Ex> pad_value(LowerContext& c) {
  if (c.has_attr("value")) {
    const double v = held(c.dtype(0), c.attr_float("value", 0));
    return ir::is_float(c.dtype(0)) ? Ex(v) : Ex(saturated<std::int64_t>(v));
  }
  if (!c.has_input(2)) return Ex(0);
  const ir::Tensor* t = c.constant(2);
  if (t == nullptr || t->size() != 1 || t->dtype() == DType::String || t->dtype() == DType::Complex64 ||
      t->dtype() == DType::Complex128)
    return std::nullopt;
  if (std::abs(t->double_at(0)) > 9e15 && !ir::is_float(t->dtype())) return std::nullopt;
  if (t->double_at(0) == 0) return Ex(0);
  return t->dtype() == DType::Bool ? Ex(1) : number(*t);
}

void lower_pad(LowerContext& c) {
  c.carry_strings({0, 2});
  std::string mode = c.attr_string("mode", "constant");
  // The runtime's own function takes any pads, known or not.
  const auto general = [&] {
    Kwargs kw;
    if (mode != "constant") kw.emplace_back("mode", Ex(mode));
    if (mode == "constant" && c.has_attr("value"))
      kw.emplace_back("value", Ex(held(c.dtype(0), c.attr_float("value", 0))));
    if (mode == "constant" && c.has_input(2)) kw.emplace_back("value", c.in(2));
    if (c.has_input(3)) kw.emplace_back("axes", c.int_list(3));
    c.ignore_attr("value");
    const auto given = c.attr_ints("pads") ? c.attr_ints("pads") : c.attr_ints("paddings");
    c.out(0, helper("pad_nd", {c.in(0), given ? Ex(*given) : c.int_list(1)}, kw));
  };
  auto pads = torch_pads(c);
  if (!pads) return general();
  if (pads->amounts.empty()) {
    c.ignore_attr("value");
    return c.out(0, c.in(0));
  }
  if (mode == "constant") {
    const auto value = pad_value(c);
    if (!value || c.dtype(0) == DType::Float8E8M0) return general();
    Args args{c.in(0), list(pads->amounts)};
    if (!(value->is_int() && (*value)->integer == 0)) {
      args.emplace_back("constant");
      args.push_back(*value);
    }
    return c.out(0, aten("pad", args));
  }
  c.ignore_attr("value");
  if (mode != "reflect" && mode != "edge" && mode != "wrap")
    c.unsupported("the mode \"" + mode + "\" is not known");
  const std::string torch_mode = mode == "edge" ? "replicate" : mode == "wrap" ? "circular" : mode;
  if (!is_native(c, torch_mode, *pads)) return general();
  c.out(0, aten("pad", {c.in(0), list(pads->amounts), Ex(torch_mode)}));
}

// ---------------------------------------------------------------- CenterCropPad

void infer_center_crop_pad(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  const auto target = c.contents(1);
  Ints axes(s.rank());
  for (std::size_t i = 0; i < axes.size(); ++i) axes[i] = static_cast<std::int64_t>(i);
  if (const auto given = c.attr_ints("axes")) axes = c.axes(*given, s.rank());
  Dims out = s.dims();
  for (std::size_t i = 0; i < axes.size(); ++i)
    out[static_cast<std::size_t>(axes[i])] = target && i < target->size() ? (*target)[i] : Dim();
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_center_crop_pad(LowerContext& c) {
  c.carry_strings({0});
  Kwargs kw;
  if (const auto axes = c.attr_ints("axes")) kw.emplace_back("axes", Ex(*axes));
  c.out(0, helper("center_crop_pad", {c.in(0), c.int_list(1)}, kw));
}

constexpr OpDef kPadOps[] = {
    {.type = "Pad", .changed_at = {1, 2, 11, 18, 19}, .infer = infer_pad, .lower = lower_pad},
    {.type = "CenterCropPad",
     .changed_at = {18},
     .infer = infer_center_crop_pad,
     .lower = lower_center_crop_pad},
};

}  // namespace

std::span<const OpDef> pad_ops() {
  return kPadOps;
}

}  // namespace onnx2nn::ops
