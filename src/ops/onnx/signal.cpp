// DFT, STFT, MelWeightMatrix and the three windows.
// https://onnx.ai/onnx/operators/onnx__DFT.html and its neighbours.
// DFT's axis is an attribute in opset 17 (default 1) and an input from 20 on (default -2).
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

/// The value of an integer input of one element, where it is known.
Dim scalar_dim(const NodeContext& c, std::size_t i) {
  const auto v = c.contents(i);
  return v && v->size() == 1 ? (*v)[0] : Dim();
}

// ---------------------------------------------------------------- DFT

std::optional<std::int64_t> dft_axis(const NodeContext& c) {
  if (c.opset() < 20) return c.attr_int("axis", 1);
  if (!c.has_input(2)) return -2;
  const auto v = c.const_ints(2);
  if (!v || v->size() != 1) return std::nullopt;
  return (*v)[0];
}

void infer_dft(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  if (s.rank() < 2)
    c.fail("the input needs an axis to transform and one for real and imaginary parts");
  Dims out = s.dims();
  const bool onesided = c.attr_int("onesided", 0) != 0;
  const bool inverse = c.attr_int("inverse", 0) != 0;
  out.back() = Dim(onesided && inverse ? 1 : 2);
  const auto given = dft_axis(c);
  if (!given) {
    for (std::size_t i = 0; i + 1 < out.size(); ++i) out[i] = Dim();
    return c.set(0, c.dtype(0), Shape(std::move(out)));
  }
  const auto axis = static_cast<std::size_t>(c.axis(*given, s.rank()));
  Dim& n = out[axis];
  if (c.has_input(1)) {
    n = scalar_dim(c, 1);
  } else if (onesided && inverse && n.known()) {
    n = (n - Dim(1)) * Dim(2);
  }
  if (onesided && !inverse && n.known()) n = Dim::floor_div(n, Dim(2)) + Dim(1);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_dft(LowerContext& c) {
  c.ignore_attr("axis");
  Args args{c.in(0)};
  if (c.has_input(1)) args.push_back(c.int_scalar(1));
  Kwargs kw;
  const auto axis = dft_axis(c);
  if (!axis) {
    kw.emplace_back("axis", c.int_scalar(2));
  } else if (*axis != -2) {
    kw.emplace_back("axis", Ex(*axis));
  }
  if (c.attr_int("inverse", 0) != 0) kw.emplace_back("inverse", Ex(true));
  if (c.attr_int("onesided", 0) != 0) kw.emplace_back("onesided", Ex(true));
  c.out(0, helper("dft", args, kw));
}

// ---------------------------------------------------------------- STFT

void infer_stft(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0), Shape::unknown_dims(4));
  // Exporters leave out the last axis of a real signal.
  if (s.rank() != 3 && s.rank() != 2)
    c.fail("the signal must have the axes batch, time and real or imaginary part");
  Dim length = scalar_dim(c, 3);
  if (!length.known() && c.shape(2).has_rank() && c.shape(2).rank() == 1) length = c.shape(2)[0];
  Dim frames;
  Dim bins;
  if (length.known()) {
    bins = c.attr_int("onesided", 1) != 0 ? Dim::floor_div(length, Dim(2)) + Dim(1) : length;
    const Dim step = scalar_dim(c, 1);
    if (step.known() && s[1].known()) frames = Dim::floor_div(s[1] - length, step) + Dim(1);
  }
  c.set(0, c.dtype(0), Shape({s[0], frames, bins, Dim(2)}));
}

void lower_stft(LowerContext& c) {
  const Ex signal = c.rank(0) == 2U ? aten("unsqueeze", {c.in(0), -1}) : c.in(0);
  Args args{signal, c.int_scalar(1)};
  if (c.has_input(2) || c.has_input(3)) args.push_back(c.in(2));
  if (c.has_input(3)) args.push_back(c.int_scalar(3));
  Kwargs kw;
  if (c.attr_int("onesided", 1) == 0) kw.emplace_back("onesided", Ex(false));
  c.out(0, helper("stft", args, kw));
}

// ---------------------------------------------------------------- MelWeightMatrix

void infer_mel(InferContext& c) {
  const Dim length = scalar_dim(c, 1);
  const Dim rows = length.known() ? Dim::floor_div(length, Dim(2)) + Dim(1) : Dim();
  c.set(0, c.attr_dtype("output_datatype", DType::Float32), Shape({rows, scalar_dim(c, 0)}));
}

Ex float_scalar(LowerContext& c, std::size_t i) {
  if (const auto v = c.const_number(i)) return Ex(*v);
  return op("float", {c.in(i)});
}

void lower_mel(LowerContext& c) {
  Kwargs kw;
  if (const DType t = c.attr_dtype("output_datatype", DType::Float32); t != DType::Float32)
    kw.emplace_back("dtype", Ex(t));
  if (const Ex d = c.device(); !d.is_none()) kw.emplace_back("device", d);
  c.out(0, helper("mel_weight_matrix",
                  {c.int_scalar(0), c.int_scalar(1), c.int_scalar(2), float_scalar(c, 3),
                   float_scalar(c, 4)},
                  kw));
}

// ---------------------------------------------------------------- windows

void infer_window(InferContext& c) {
  c.set(0, c.attr_dtype("output_datatype", DType::Float32), Shape({scalar_dim(c, 0)}));
}

enum class WindowKind { Hann, Hamming, Blackman };

/// a - b cos(x) + c cos(2x); ONNX's Hamming has exact coefficients, not the rounded 0.54 and 0.46
/// of torch.
Ex coefficients(WindowKind kind) {
  const Ex quotient = op("/", {Ex(21), Ex(46)});
  if (kind == WindowKind::Hann) return list({Ex(0.5), Ex(0.5), Ex(0.0)});
  if (kind == WindowKind::Hamming) return list({op("/", {Ex(25), Ex(46)}), quotient, Ex(0.0)});
  // In single precision ONNX Runtime's first one is 1 - 0.5 - 0.08.
  return list({Ex(static_cast<double>(0.42000002F)), Ex(0.5), Ex(static_cast<double>(0.08F))});
}

template <WindowKind kind>
void lower_window(LowerContext& c) {
  const DType to = c.attr_dtype("output_datatype", DType::Float32);
  const bool periodic = c.attr_int("periodic", 1) != 0;
  const Ex size = c.int_scalar(0);
  Kwargs kw;
  if (const Ex d = c.device(); !d.is_none()) kw.emplace_back("device", d);
  // A window of one element is always 1 in torch.
  if (!size.is_int() || size->integer <= 1) {
    if (to != DType::Float32) kw.insert(kw.begin(), {"dtype", Ex(to)});
    if (!periodic) kw.insert(kw.begin(), {"periodic", Ex(false)});
    return c.out(0, helper("cosine_window", {size, coefficients(kind)}, kw));
  }
  if (ir::is_float(to) && to != DType::Float32) kw.insert(kw.begin(), {"dtype", Ex(to)});
  Args args{size, Ex(periodic)};
  const char* overload =
      kind == WindowKind::Hann ? "hann_window.periodic" : "blackman_window.periodic";
  if (kind == WindowKind::Hamming) {
    overload = "hamming_window.periodic_alpha_beta";
    args.push_back(op("/", {Ex(25), Ex(46)}));
    args.push_back(op("/", {Ex(21), Ex(46)}));
  }
  const Ex window = aten(overload, args, kw);
  c.out(0, ir::is_float(to) ? window : aten("to.dtype", {window, Ex(to)}));
}

constexpr OpDef kSignalOps[] = {
    {.type = "DFT", .changed_at = {17, 20}, .infer = infer_dft, .lower = lower_dft},
    {.type = "STFT", .changed_at = {17}, .infer = infer_stft, .lower = lower_stft},
    {.type = "MelWeightMatrix", .changed_at = {17}, .infer = infer_mel, .lower = lower_mel},
    {.type = "HannWindow",
     .changed_at = {17},
     .infer = infer_window,
     .lower = lower_window<WindowKind::Hann>},
    {.type = "HammingWindow",
     .changed_at = {17},
     .infer = infer_window,
     .lower = lower_window<WindowKind::Hamming>},
    {.type = "BlackmanWindow",
     .changed_at = {17},
     .infer = infer_window,
     .lower = lower_window<WindowKind::Blackman>},
};

}  // namespace

std::span<const OpDef> signal_ops() {
  return kSignalOps;
}

}  // namespace onnx2nn::ops
