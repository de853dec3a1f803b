#include "ops/onnx/window.h"

#include <algorithm>

namespace onnx2nn::ops {
namespace {

// Sizes stay far below this, so that no sum or product of a few of them overflows.
constexpr std::int64_t kMaxAttribute = std::int64_t{1} << 28;

// Of inputs: those that reach further have no window that anybody could compute.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 48;

/// The size of an input's axis, where it is known and arithmetic with it is safe.
std::optional<std::int64_t> fixed_size(const Dim& d) {
  return d.is_const() && d.value() <= kMaxSize ? d.constant() : std::nullopt;
}

Ints read_list(const NodeContext& c, const char* name, std::size_t n, std::int64_t otherwise) {
  auto given = c.attr_ints(name);
  if (!given || given->empty()) return Ints(n, otherwise);
  if (given->size() != n)
    c.fail("the attribute \"" + std::string(name) + "\" has " + std::to_string(given->size()) +
           " values, not " + std::to_string(n));
  return *std::move(given);
}

void check_range(const NodeContext& c, const char* name, const Ints& values, std::int64_t least) {
  for (const std::int64_t v : values)
    if (v < least || v > kMaxAttribute)
      c.fail("the attribute \"" + std::string(name) + "\" is out of range: " + std::to_string(v));
}

AutoPad read_auto_pad(const NodeContext& c) {
  const std::string text = c.attr_string("auto_pad", "NOTSET");
  if (text.empty() || text == "NOTSET") return AutoPad::NotSet;
  if (text == "VALID") return AutoPad::Valid;
  if (text == "SAME_UPPER") return AutoPad::SameUpper;
  if (text == "SAME_LOWER") return AutoPad::SameLower;
  c.fail("auto_pad is none of NOTSET, VALID, SAME_UPPER and SAME_LOWER");
}

}  // namespace

bool Window::dilated() const {
  return std::any_of(dilations.begin(), dilations.end(), [](std::int64_t d) { return d != 1; });
}

bool Window::symmetric() const {
  for (std::size_t i = 0; i < n; ++i)
    if (pads[i] != pads[n + i] || pads[i] < 0) return false;
  return true;
}

bool Window::padded() const {
  return std::any_of(pads.begin(), pads.end(), [](std::int64_t p) { return p != 0; });
}

Window read_window(const NodeContext& c, Ints kernel) {
  Window w;
  w.n = kernel.size();
  w.kernel = std::move(kernel);
  w.strides = read_list(c, "strides", w.n, 1);
  w.dilations = read_list(c, "dilations", w.n, 1);
  w.pads = read_list(c, "pads", 2 * w.n, 0);
  w.auto_pad = read_auto_pad(c);
  if (w.auto_pad != AutoPad::NotSet) std::fill(w.pads.begin(), w.pads.end(), 0);
  check_range(c, "kernel_shape", w.kernel, 1);
  check_range(c, "strides", w.strides, 1);
  check_range(c, "dilations", w.dilations, 1);
  check_range(c, "pads", w.pads, -kMaxAttribute);
  return w;
}

bool resolve_pads(Window& w, const Shape& x) {
  if (!w.same()) {
    w.auto_pad = AutoPad::NotSet;
    return true;
  }
  Ints pads(2 * w.n);
  for (std::size_t i = 0; i < w.n; ++i) {
    std::int64_t total = 0;
    if (w.strides[i] == 1) {
      total = w.extent(i) - 1;  // whatever the size
    } else {
      const auto in = x.has_rank() && x.rank() == w.n + 2 ? fixed_size(x[i + 2]) : std::nullopt;
      if (!in) return false;
      const std::int64_t s = w.strides[i];
      total = std::max<std::int64_t>(((*in + s - 1) / s - 1) * s + w.extent(i) - *in, 0);
    }
    const std::int64_t half = total / 2;
    pads[i] = w.auto_pad == AutoPad::SameLower ? total - half : half;
    pads[w.n + i] = total - pads[i];
  }
  w.pads = std::move(pads);
  w.auto_pad = AutoPad::NotSet;
  w.ceil_mode = false;  // sizes come from the input's alone
  return true;
}

bool resolve_ceil_mode(Window& w, const Shape& x) {
  if (!w.ceil_mode) return true;
  bool whole = true;  // every window fits
  for (std::size_t i = 0; i < w.n; ++i)
    whole = whole && w.strides[i] == 1 && w.pads[w.n + i] < w.extent(i);
  if (whole) {
    w.ceil_mode = false;
    return true;
  }
  if (!x.has_rank() || x.rank() != w.n + 2) return false;
  Ints pads = w.pads;
  for (std::size_t i = 0; i < w.n; ++i) {
    const auto in = fixed_size(x[i + 2]);
    if (!in) return false;
    const std::int64_t padded = *in + pads[i] + pads[w.n + i];
    const std::int64_t s = w.strides[i];
    if (padded < w.extent(i)) return false;
    std::int64_t count = (padded - w.extent(i) + s - 1) / s + 1;
    // No window starts in the padding at the end.
    if ((count - 1) * s >= *in + pads[i]) --count;
    if (const std::int64_t floor_count = (padded - w.extent(i)) / s + 1; count != floor_count)
      pads[w.n + i] += (count - 1) * s + w.extent(i) - padded;
  }
  w.pads = std::move(pads);
  w.ceil_mode = false;
  return true;
}

Dim window_size(const Window& w, std::size_t i, const Dim& in) {
  const std::int64_t s = w.strides[i];
  if (w.same()) return Dim::ceil_div(in, Dim(s));
  const Dim room = in + Dim(w.pads[i] + w.pads[w.n + i] - w.extent(i));
  if (!w.ceil_mode) {
    const Dim size = Dim::floor_div(room, Dim(s)) + Dim(1);
    return size.is_const() ? Dim(std::max<std::int64_t>(size.value(), 0)) : size;
  }
  const auto size = fixed_size(in);
  if (!size) return {};
  std::int64_t count = Dim::ceil_div(room, Dim(s)).value() + 1;
  if ((count - 1) * s >= *size + w.pads[i]) --count;
  return {std::max<std::int64_t>(count, 0)};
}

const char* auto_pad_name(AutoPad mode) {
  switch (mode) {
    case AutoPad::Valid:
      return "VALID";
    case AutoPad::SameUpper:
      return "SAME_UPPER";
    case AutoPad::SameLower:
      return "SAME_LOWER";
    default:
      return "NOTSET";
  }
}

Ints torch_pads(const Ints& pads) {
  const std::size_t n = pads.size() / 2;
  Ints out;
  for (std::size_t i = n; i-- > 0;) {
    out.push_back(pads[i]);
    out.push_back(pads[n + i]);
  }
  // Trailing axes without pads need not be named.
  while (out.size() > 2 && out[out.size() - 1] == 0 && out[out.size() - 2] == 0)
    out.resize(out.size() - 2);
  return out;
}

Ints begins(const Window& w) {
  return {w.pads.begin(), w.pads.begin() + static_cast<std::ptrdiff_t>(w.n)};
}

void add_unless(Kwargs& keywords, const char* name, const Ints& values, std::int64_t otherwise) {
  if (std::any_of(values.begin(), values.end(), [&](std::int64_t v) { return v != otherwise; }))
    keywords.emplace_back(name, Ex(values));
}

Kwargs window_keywords(const Window& w) {
  Kwargs kw;
  add_unless(kw, "strides", w.strides, 1);
  add_unless(kw, "pads", w.pads, 0);
  add_unless(kw, "dilations", w.dilations, 1);
  if (w.same()) kw.emplace_back("auto_pad", auto_pad_name(w.auto_pad));
  if (w.ceil_mode) kw.emplace_back("ceil_mode", true);
  return kw;
}

}  // namespace onnx2nn::ops
