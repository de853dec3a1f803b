// What the models of ai.onnx.ml have in common: choices, scores, class labels.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "ops/lower.h"

namespace onnx2nn::ops {

inline constexpr std::string_view kMl = "ai.onnx.ml";

using Strings = std::vector<std::string>;

/// Rows of the first input; a vector is a batch of one.
Dim batch_size(const NodeContext& c);
/// `value`; fails where it is none of the choices for the attribute `name`.
std::string checked_choice(const NodeContext& c, const std::string& name, const std::string& value,
                           std::initializer_list<const char*> choices);
/// The attribute of that name, checked.
std::string post_transform(const NodeContext& c);
/// "NONE" is every helper's default.
void add_post_transform(Kwargs& kw, const std::string& value);
Ex string_list(const Strings& strings);
/// A few strings where they are used, many in __init__.
Ex strings_constant(LowerContext& c, std::string_view hint, const Strings& strings);
/// A buffer of float32 [N].
Ex floats_buffer(LowerContext& c, std::string_view hint, const std::vector<double>& values);
/// An attribute of floats; empty where it is absent.
std::vector<double> floats(const NodeContext& c, std::string_view name);

/// The class labels of a classifier: strings or integers.
struct Labels {
  Labels(const NodeContext& c, std::string_view ints_name);
  DType dtype() const { return are_strings ? DType::String : DType::Int64; }
  Ex lower(LowerContext& c) const;
  Strings strings;
  Ints ints;
  bool are_strings = false;
  std::size_t count = 0;
};

/// Both outputs of a classifier: labels [N] and scores [N, columns].
void set_classes(InferContext& c, const Labels& labels, const Dim& columns);
bool all_positive(const std::vector<double>& values);

}  // namespace onnx2nn::ops
