// Tensors as the kernels see them: typed element access, strides, broadcasting.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "support/checked.h"
#include "support/error.h"
#include "support/interrupt.h"

namespace onnx2nn::eval {

using ir::DType;
using ir::Tensor;
using ir::TensorPtr;
using Ints = std::vector<std::int64_t>;

/// A node with its constant inputs and its attributes.
class Call {
 public:
  Call(const ir::Node& node, std::uint64_t max_bytes) : node_(node), max_bytes_(max_bytes) {}
  const ir::Node& node() const { return node_; }
  std::int64_t opset() const { return node_.opset; }
  std::size_t inputs() const { return node_.input_count(); }
  const Tensor* in(std::size_t i) const {
    return node_.input(i) != nullptr ? node_.input(i)->constant.get() : nullptr;
  }
  const TensorPtr& ptr(std::size_t i) const { return node_.input(i)->constant; }
  std::int64_t i(std::string_view name, std::int64_t otherwise) const;
  double f(std::string_view name, double otherwise) const;
  std::string s(std::string_view name, std::string_view otherwise) const;
  std::optional<Ints> ints(std::string_view name) const;
  /// An attribute of older opsets that is an input in newer ones.
  std::optional<Ints> ints_or_input(std::string_view name, std::size_t input) const;
  TensorPtr t(std::string_view name) const;
  /// An axis in [0, rank).
  static std::int64_t axis(std::int64_t a, std::size_t rank);
  /// A buffer for `count` elements; nothing where it would exceed the bound.
  std::optional<std::vector<std::byte>> room(DType dtype, std::int64_t count) const;

 private:
  const ir::Node& node_;
  std::uint64_t max_bytes_;
};

using Result = std::optional<std::vector<TensorPtr>>;

inline Result one(TensorPtr t) {
  return std::vector<TensorPtr>{std::move(t)};
}

/// Row-major strides in elements.
Ints strides_of(const Ints& dims);
/// Both under multidirectional broadcasting; throws where they do not fit.
Ints broadcast_dims(const Ints& a, const Ints& b);
/// Strides that read a tensor of `dims` as one of `to`: 0 along what is repeated.
Ints broadcast_strides(const Ints& dims, const Ints& to);

/// Calls f(offset_a, offset_b) for each element of `dims` in row-major order.
template <typename F>
void for_each_pair(const Ints& dims, const Ints& a, const Ints& b, F&& f) {
  const std::int64_t n = element_count(dims);
  if (n == 0) return;
  Ints at(dims.size(), 0);
  std::int64_t pa = 0;
  std::int64_t pb = 0;
  for (std::int64_t k = 0;;) {
    if (k % (1 << 16) == 0) check_interrupt();
    f(pa, pb);
    if (++k == n) return;
    for (std::size_t d = dims.size(); d-- > 0;) {
      pa += a[d];
      pb += b[d];
      if (++at[d] < dims[d]) break;
      pa -= a[d] * dims[d];
      pb -= b[d] * dims[d];
      at[d] = 0;
    }
  }
}

/// Calls f with the index of each element of `dims` in row-major order.
template <typename F>
void for_each_index(const Ints& dims, F&& f) {
  const std::int64_t n = element_count(dims);
  Ints at(dims.size(), 0);
  for (std::int64_t k = 0; k < n; ++k) {
    f(static_cast<const Ints&>(at));
    for (std::size_t d = dims.size(); d-- > 0;) {
      if (++at[d] < dims[d]) break;
      at[d] = 0;
    }
  }
}

/// Bytes of an element; 0 for strings and sub-byte types, which the kernels do not move.
std::size_t width_of(DType dtype);

/// What computes one operator: nothing where it lacks the type or form.
using Kernel = Result (*)(const Call&);

inline Result run(const std::unordered_map<std::string_view, Kernel>& kernels, const Call& c) {
  const auto it = kernels.find(c.node().op_type);
  return it == kernels.end() ? std::nullopt : it->second(c);
}

/// Products and sums of more steps are left to the run.
inline constexpr std::int64_t kMostSteps = std::int64_t{1} << 24;

// Families of kernels; each gives nothing for what is not its own.
Result elementwise(const Call& c);
Result cast(const Call& c);
Result activation(const Call& c);
Result movement(const Call& c);
Result rearrangement(const Call& c);
Result selection(const Call& c);
Result order(const Call& c);
Result reduction(const Call& c);
Result product(const Call& c);
Result creation(const Call& c);
Result resize(const Call& c);
Result quantization(const Call& c);
Result linear_algebra(const Call& c);  // of com.microsoft

}  // namespace onnx2nn::eval
