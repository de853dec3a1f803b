// For operators that a runtime helper does whole: their inputs and attributes go to it as they are.
#pragma once

#include <initializer_list>
#include <string_view>

#include "ops/lower.h"

namespace onnx2nn::ops {

enum class AttrKind : std::uint8_t { Int, Float, String, IntList, FloatList, StringList };

struct Passed {
  std::string_view name;
  AttrKind kind = AttrKind::Int;
};

/// Inputs [from, to) as positional arguments; absent ones at the end are left out.
Args pass_inputs(LowerContext& c, std::size_t from, std::size_t to);
/// The attributes that are set, as keywords of the same name.
Kwargs pass_attributes(LowerContext& c, std::initializer_list<Passed> attributes);
/// The outputs from a helper that returns a tuple of `count`, which may be more than the node has.
void outs_of(LowerContext& c, const Ex& tuple, std::size_t count);
/// An attribute that must have the value which makes it mean nothing.
void require_int(LowerContext& c, std::string_view name, std::int64_t wanted);
/// An input that no helper takes.
void require_absent(LowerContext& c, std::size_t i, std::string_view name);
/// Defines a function inside forward that computes the graph of an attribute, and names it.
Ex nested_function(LowerContext& c, std::string_view attribute);
/// `[first, ...]` of a value that is a tuple.
inline Ex item(const Ex& tuple, std::int64_t i) {
  return op("[]", {tuple, Ex(i)});
}

}  // namespace onnx2nn::ops
