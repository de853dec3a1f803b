#include "eval/eval.h"

#include "eval/array.h"

namespace onnx2nn::eval {

std::int64_t Call::i(std::string_view name, std::int64_t otherwise) const {
  const auto* a = node_.attribute(name);
  const auto* v = a != nullptr ? std::get_if<std::int64_t>(&a->data) : nullptr;
  return v != nullptr ? *v : otherwise;
}

double Call::f(std::string_view name, double otherwise) const {
  const auto* a = node_.attribute(name);
  return a != nullptr ? a->number().value_or(otherwise) : otherwise;
}

std::string Call::s(std::string_view name, std::string_view otherwise) const {
  const auto* a = node_.attribute(name);
  const auto* v = a != nullptr ? std::get_if<std::string>(&a->data) : nullptr;
  return v != nullptr ? *v : std::string(otherwise);
}

std::optional<Ints> Call::ints(std::string_view name) const {
  const auto* a = node_.attribute(name);
  const auto* v = a != nullptr ? std::get_if<Ints>(&a->data) : nullptr;
  return v != nullptr ? std::optional(*v) : std::nullopt;
}

std::optional<Ints> Call::ints_or_input(std::string_view name, std::size_t input) const {
  if (auto v = ints(name)) return v;
  return in(input) != nullptr ? std::optional(in(input)->to_ints()) : std::nullopt;
}

TensorPtr Call::t(std::string_view name) const {
  const auto* a = node_.attribute(name);
  const auto* v = a != nullptr ? std::get_if<TensorPtr>(&a->data) : nullptr;
  return v != nullptr ? *v : nullptr;
}

std::int64_t Call::axis(std::int64_t a, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  if (a < -r || a >= r) fail("bad-model", "axis {} is out of range for rank {}", a, r);
  return a < 0 ? a + r : a;
}

std::optional<std::vector<std::byte>> Call::room(DType dtype, std::int64_t count) const {
  const std::uint64_t size = ir::packed_size(dtype, count);
  if (size > max_bytes_) return std::nullopt;
  return std::vector<std::byte>(static_cast<std::size_t>(size));
}

Ints strides_of(const Ints& dims) {
  Ints out(dims.size(), 1);
  for (std::size_t i = dims.size(); i-- > 1;) out[i - 1] = checked_mul(out[i], dims[i]);
  return out;
}

Ints broadcast_dims(const Ints& a, const Ints& b) {
  const std::size_t rank = std::max(a.size(), b.size());
  Ints out(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    const std::int64_t x = i + a.size() < rank ? 1 : a[i + a.size() - rank];
    const std::int64_t y = i + b.size() < rank ? 1 : b[i + b.size() - rank];
    if (x != y && x != 1 && y != 1)
      fail("bad-model", "dimensions {} and {} do not broadcast", x, y);
    out[i] = x == 1 ? y : x;
  }
  return out;
}

Ints broadcast_strides(const Ints& dims, const Ints& to) {
  const Ints own = strides_of(dims);
  Ints out(to.size(), 0);
  for (std::size_t i = 0; i < dims.size(); ++i)
    out[i + to.size() - dims.size()] =
        dims[i] == 1 && to[i + to.size() - dims.size()] != 1 ? 0 : own[i];
  return out;
}

std::size_t width_of(DType dtype) {
  const int bits = ir::info(dtype).bits;
  return bits >= 8 ? static_cast<std::size_t>(bits) / 8 : 0;
}

namespace {

/// The kernels of elements in whole bytes are no good for those of four bits and fewer.
bool unpacks(const ir::Node& n) {
  return n.op_type == "Cast" || n.op_type == "CastLike" || n.op_type == "Identity" ||
         n.op_type == "Shape" || n.op_type == "Size";
}

}  // namespace

namespace {

/// Nothing at all, in sizes that nobody has: kernels would count through the other dimensions.
bool is_vast_nothing(const Tensor& t) {
  constexpr std::int64_t kMost = 1 << 20;
  if (t.size() != 0) return false;
  std::int64_t others = 1;
  for (const std::int64_t d : t.dims()) {
    if (d == 0) continue;
    if (d > kMost / others) return true;
    others *= d;
  }
  return false;
}

}  // namespace

Result evaluate(const ir::Node& node, std::uint64_t max_bytes) {
  const bool microsoft = node.domain == "com.microsoft";
  if (!(node.domain.empty() || microsoft) || node.output_count() == 0 || node.input(0) == nullptr)
    return std::nullopt;
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    const ir::Value* v = node.input(i);
    if (v == nullptr) continue;
    if (!v->constant || v->constant->dtype() == DType::String) return std::nullopt;
    if (is_vast_nothing(*v->constant)) return std::nullopt;
    if (width_of(v->constant->dtype()) == 0 && !unpacks(node)) return std::nullopt;
  }
  const Call c(node, max_bytes);
  if (microsoft) return linear_algebra(c);
  for (const Kernel family : {elementwise, activation, movement, rearrangement, selection, order,
                              reduction, product, creation, resize, quantization})
    if (auto r = family(c)) return r;
  return std::nullopt;
}

}  // namespace onnx2nn::eval
