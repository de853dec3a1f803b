#include "ops/ml/scores.h"

#include <algorithm>

#include "ops/ml/trees.h"

namespace onnx2nn::ops {

Dim batch_size(const NodeContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() == 0) return {};
  // A vector is a batch of one.
  return s.rank() == 1 ? Dim(1) : s[0];
}

std::string checked_choice(const NodeContext& c, const std::string& name, const std::string& value,
                           std::initializer_list<const char*> choices) {
  if (std::none_of(choices.begin(), choices.end(),
                   [&](const char* choice) { return value == choice; }))
    c.fail("the " + name + " \"" + value + "\" is not known");
  return value;
}

std::string post_transform(const NodeContext& c) {
  return checked_choice(c, "post_transform", c.attr_string("post_transform", "NONE"),
                        {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"});
}

void add_post_transform(Kwargs& kw, const std::string& value) {
  if (value != "NONE") kw.emplace_back("post_transform", Ex(value));
}

Ex string_list(const Strings& strings) {
  return list(std::vector<Ex>(strings.begin(), strings.end()));
}

Ex strings_constant(LowerContext& c, std::string_view hint, const Strings& strings) {
  return c.constant_value(hint, string_list(strings));
}

Ex floats_buffer(LowerContext& c, std::string_view hint, const std::vector<double>& values) {
  return c.buffer(hint,
                  float_tensor(DType::Float32, {static_cast<std::int64_t>(values.size())}, values));
}

std::vector<double> floats(const NodeContext& c, std::string_view name) {
  return c.attr_floats(name).value_or(std::vector<double>{});
}

Labels::Labels(const NodeContext& c, std::string_view ints_name) {
  strings = c.attr_strings("classlabels_strings").value_or(Strings{});
  ints = c.attr_ints(ints_name).value_or(Ints{});
  are_strings = !strings.empty();
  count = are_strings ? strings.size() : ints.size();
}

Ex Labels::lower(LowerContext& c) const {
  return are_strings ? strings_constant(c, "classes", strings)
                     : c.buffer("classes", ir::Tensor::ints(ints));
}

void set_classes(InferContext& c, const Labels& labels, const Dim& columns) {
  c.set(0, labels.dtype(), Shape({batch_size(c)}));
  c.set(1, DType::Float32, Shape({batch_size(c), columns}));
}

bool all_positive(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return v >= 0; });
}

}  // namespace onnx2nn::ops
