// The sliding window of convolutions and poolings: kernel, strides, dilations and pads, and the
// sizes that follow.
#pragma once

#include <optional>
#include <string>

#include "ops/lower.h"

namespace onnx2nn::ops {

enum class AutoPad { NotSet, Valid, SameUpper, SameLower };

struct Window {
  std::size_t n = 0;  // spatial axes
  Ints kernel;
  Ints strides;
  Ints dilations;
  Ints pads;  // all begins, then all ends; as given, not yet what auto_pad asks for
  AutoPad auto_pad = AutoPad::NotSet;
  bool ceil_mode = false;

  /// How far the kernel reaches along axis `i`.
  std::int64_t extent(std::size_t i) const { return (kernel[i] - 1) * dilations[i] + 1; }
  bool same() const { return auto_pad == AutoPad::SameUpper || auto_pad == AutoPad::SameLower; }
  bool dilated() const;
  /// Equal pads at both ends of each axis, none of them negative.
  bool symmetric() const;
  bool padded() const;
};

/// Reads the attributes of a convolution or pooling with this kernel; an Error where they are
/// wrong.
Window read_window(const NodeContext& c, Ints kernel);
/// Turns auto_pad into pads where the sizes that it depends on are known, and says whether it
/// could.
bool resolve_pads(Window& w, const Shape& x);
/// Turns ceil_mode into pads at the end where all sizes are known, and says whether none is left to
/// do.
bool resolve_ceil_mode(Window& w, const Shape& x);
/// The size of the output along axis `i`, of an input of size `in`.
Dim window_size(const Window& w, std::size_t i, const Dim& in);

/// The name that helpers and ONNX have for it.
const char* auto_pad_name(AutoPad mode);
/// ONNX's pads (all begins, then all ends) in F.pad's order: last axis first, in pairs.
Ints torch_pads(const Ints& pads);
Ints begins(const Window& w);
/// strides, pads, dilations, auto_pad and ceil_mode as a helper's keywords, without those at their
/// defaults.
Kwargs window_keywords(const Window& w);
/// A keyword argument, left out where all of `values` are `otherwise`.
void add_unless(Kwargs& keywords, const char* name, const Ints& values, std::int64_t otherwise);

}  // namespace onnx2nn::ops
