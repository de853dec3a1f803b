#include "ir/type.h"

namespace onnx2nn::ir {

std::optional<std::vector<std::int64_t>> Shape::constant() const {
  if (!known_) return std::nullopt;
  std::vector<std::int64_t> out;
  out.reserve(dims_.size());
  for (const Dim& d : dims_) {
    if (!d.is_const()) return std::nullopt;
    out.push_back(d.value());
  }
  return out;
}

Dim Shape::element_count() const {
  if (!known_) return Dim::unknown();
  Dim n(1);
  for (const Dim& d : dims_) {
    if (d.is_const() && d.value() == 0) return Dim(0);
    n = n * d;
  }
  return n;
}

bool Shape::same(const Shape& other) const {
  if (!known_ || !other.known_ || dims_.size() != other.dims_.size()) return false;
  for (std::size_t i = 0; i < dims_.size(); ++i) {
    if (!(dims_[i] == other.dims_[i])) return false;
  }
  return true;
}

std::string Shape::str() const {
  if (!known_) return "[...]";
  std::string out = "[";
  for (std::size_t i = 0; i < dims_.size(); ++i) {
    if (i > 0) out += ", ";
    out += dims_[i].str();
  }
  return out + "]";
}

std::string Type::str() const {
  switch (kind) {
    case Kind::Unknown:
      return "?";
    case Kind::Tensor:
      return std::string(info(dtype).short_name) + shape.str();
    case Kind::SparseTensor:
      return "sparse " + std::string(info(dtype).short_name) + shape.str();
    case Kind::Sequence:
      return "seq(" + (element ? element->str() : "?") + ")";
    case Kind::Optional:
      return "optional(" + (element ? element->str() : "?") + ")";
    case Kind::Map:
      return "map(" + std::string(info(dtype).short_name) + ", " +
             (element ? element->str() : "?") + ")";
  }
  return "?";
}

Type merge(const Type& a, const Type& b) {
  if (a.kind == Type::Kind::Unknown) return b;
  if (b.kind == Type::Kind::Unknown || a.kind != b.kind) return a;
  Type out = a;
  if (out.dtype == DType::Undefined) out.dtype = b.dtype;
  if (a.element && b.element) {
    out.element = std::make_shared<const Type>(merge(*a.element, *b.element));
  } else if (b.element) {
    out.element = b.element;
  }
  if (!a.shape.has_rank()) {
    out.shape = b.shape;
  } else if (b.shape.has_rank() && b.shape.rank() == a.shape.rank()) {
    Dims dims = a.shape.dims();
    for (std::size_t i = 0; i < dims.size(); ++i) {
      const Dim& other = b.shape[i];
      if (!dims[i].known() || (!dims[i].is_const() && other.is_const())) dims[i] = other;
    }
    out.shape = Shape(std::move(dims));
  }
  return out;
}

}  // namespace onnx2nn::ir
