// What a value is: a tensor of some element type and shape, or a sequence, optional or map of such.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/dim.h"
#include "ir/dtype.h"

namespace onnx2nn::ir {

/// The most dimensions that a tensor of torch has.
constexpr std::size_t kMaxRank = 64;

/// Dimensions, where at least their number is known.
class Shape {
 public:
  Shape() = default;                                          // unknown rank
  Shape(Dims dims) : known_(true), dims_(std::move(dims)) {}  // NOLINT: dimensions are a shape
  static Shape of(const std::vector<std::int64_t>& dims) {
    return Shape(Dims(dims.begin(), dims.end()));
  }
  static Shape unknown_dims(std::size_t rank) { return Shape(Dims(rank)); }

  bool has_rank() const { return known_; }
  std::size_t rank() const { return dims_.size(); }  // only where has_rank()
  const Dims& dims() const { return dims_; }
  Dims& dims() { return dims_; }
  const Dim& operator[](std::size_t i) const { return dims_[i]; }
  /// All dimensions, where each is a number.
  std::optional<std::vector<std::int64_t>> constant() const;
  /// Product of the dimensions; unknown where one is.
  Dim element_count() const;
  /// Both ranks known and all dimensions provably equal.
  bool same(const Shape& other) const;
  std::string str() const;  // "[N, 3, 224]" or "[...]"

 private:
  bool known_ = false;
  Dims dims_;
};

struct Type {
  enum class Kind : std::uint8_t { Unknown, Tensor, SparseTensor, Sequence, Optional, Map };
  Kind kind = Kind::Unknown;
  DType dtype = DType::Undefined;       // of a tensor's elements; of a map's keys
  Shape shape;                          // of a tensor
  std::shared_ptr<const Type> element;  // of a sequence, optional or map

  static Type tensor(DType dtype, Shape shape = {}) {
    return {Kind::Tensor, dtype, std::move(shape), nullptr};
  }
  static Type sequence(Type element) {
    return {Kind::Sequence, DType::Undefined, {}, std::make_shared<const Type>(std::move(element))};
  }
  static Type optional(Type element) {
    return {Kind::Optional, DType::Undefined, {}, std::make_shared<const Type>(std::move(element))};
  }
  static Type map(DType key, Type element) {
    return {Kind::Map, key, {}, std::make_shared<const Type>(std::move(element))};
  }
  bool is_tensor() const { return kind == Kind::Tensor; }
  /// "f32[N, 3]", "seq(f32[...])", "?"
  std::string str() const;
};

/// What both say together: the more precise of each fact. Where they contradict, `a` wins.
Type merge(const Type& a, const Type& b);

}  // namespace onnx2nn::ir
