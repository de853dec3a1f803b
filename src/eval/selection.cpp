// Elements taken from, or put to, places that another tensor names.
#include <algorithm>
#include <map>

#include "eval/numbers.h"

namespace onnx2nn::eval {
namespace {

std::int64_t place(std::int64_t i, std::int64_t n) {
  if (i < -n || i >= n) fail("bad-model", "the index {} is out of range for {} elements", i, n);
  return i < 0 ? i + n : i;
}

/// A buffer of elements in whole bytes.
class Elements {
 public:
  Elements(const Tensor& like, std::vector<std::byte> bytes)
      : dtype_(like.dtype()), width_(width_of(like.dtype())), bytes_(std::move(bytes)) {}
  void copy(std::int64_t to, const Tensor& x, std::int64_t from, std::int64_t count = 1) {
    if (count > 0)
      std::memcpy(bytes_.data() + static_cast<std::size_t>(to) * width_,
                  x.bytes().data() + static_cast<std::size_t>(from) * width_,
                  static_cast<std::size_t>(count) * width_);
  }
  Result done(const Ints& dims) { return one(Tensor::owned(dtype_, dims, std::move(bytes_))); }

 private:
  DType dtype_;
  std::size_t width_;
  std::vector<std::byte> bytes_;
};

std::optional<Elements> elements(const Call& c, const Tensor& like, const Ints& dims) {
  auto bytes = c.room(like.dtype(), element_count(dims));
  if (!bytes) return std::nullopt;
  return Elements(like, std::move(*bytes));
}

std::optional<Elements> copy_of(const Call& c, const Tensor& x) {
  auto out = elements(c, x, x.dims());
  if (out) out->copy(0, x, 0, x.size());
  return out;
}

// ---------------------------------------------------------------- Gather

Result gather_elements(const Call& c) {
  const Tensor& x = *c.in(0);
  const Tensor& index = *c.in(1);
  if (x.rank() == 0 || index.rank() != x.rank()) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", 0), x.rank()));
  for (std::size_t d = 0; d < x.rank(); ++d)
    if (d != axis && index.dims()[d] > x.dims()[d]) return std::nullopt;
  auto out = elements(c, x, index.dims());
  if (!out) return std::nullopt;
  const Ints strides = strides_of(x.dims());
  std::int64_t k = 0;
  for_each_index(index.dims(), [&](const Ints& at) {
    std::int64_t from = 0;
    for (std::size_t d = 0; d < at.size(); ++d)
      from += (d == axis ? place(index.int_at(k), x.dims()[axis]) : at[d]) * strides[d];
    out->copy(k++, x, from);
  });
  return out->done(index.dims());
}

/// Tuples of indices into the first axes of x after `batches`, and what each takes.
struct Tuples {
  std::int64_t count = 0, width = 0, run = 0;
  Ints strides;  // of the axes that a tuple names
  static std::optional<Tuples> of(const Tensor& x, const Tensor& index, std::size_t batches) {
    if (index.rank() == 0 || x.rank() == 0) return std::nullopt;
    Tuples t;
    t.width = index.dims().back();
    if (t.width < 0 || batches + static_cast<std::size_t>(t.width) > x.rank()) return std::nullopt;
    t.count = element_count(Ints(index.dims().begin(), index.dims().end() - 1));
    const auto named = x.dims().begin() + static_cast<std::ptrdiff_t>(batches) + t.width;
    t.run = element_count(Ints(named, x.dims().end()));
    const Ints all = strides_of(x.dims());
    t.strides.assign(all.begin() + static_cast<std::ptrdiff_t>(batches),
                     all.begin() + static_cast<std::ptrdiff_t>(batches) + t.width);
    return t;
  }
  /// Where tuple `k` points to.
  std::int64_t at(const Tensor& x, const Tensor& index, std::size_t batches, std::int64_t k) const {
    std::int64_t out = 0;
    for (std::int64_t i = 0; i < width; ++i)
      out += place(index.int_at(k * width + i), x.dims()[batches + static_cast<std::size_t>(i)]) *
             strides[static_cast<std::size_t>(i)];
    return out;
  }
};

Result gather_nd(const Call& c) {
  const Tensor& x = *c.in(0);
  const Tensor& index = *c.in(1);
  const std::int64_t given = c.i("batch_dims", 0);
  if (given < 0 || given >= static_cast<std::int64_t>(std::min(x.rank(), index.rank())))
    return std::nullopt;
  const auto batches = static_cast<std::size_t>(given);
  const auto t = Tuples::of(x, index, batches);
  if (!t) return std::nullopt;
  std::int64_t outer = 1;
  for (std::size_t d = 0; d < batches; ++d) {
    if (index.dims()[d] != x.dims()[d]) return std::nullopt;
    outer *= x.dims()[d];
  }
  Ints dims(index.dims().begin(), index.dims().end() - 1);
  dims.insert(dims.end(), x.dims().begin() + static_cast<std::ptrdiff_t>(batches) + t->width,
              x.dims().end());
  auto out = elements(c, x, dims);
  if (!out) return std::nullopt;
  const std::int64_t each = outer == 0 ? 0 : t->count / outer;
  const std::int64_t batch = outer == 0 ? 0 : x.size() / outer;
  for (std::int64_t k = 0; k < t->count; ++k)
    out->copy(k * t->run, x, k / each * batch + t->at(x, index, batches, k), t->run);
  return out->done(dims);
}

Result compress(const Call& c) {
  const Tensor& x = *c.in(0);
  const bool flat = c.node().attribute("axis") == nullptr;
  if (c.in(1)->rank() != 1 || c.in(1)->dtype() != DType::Bool || (!flat && x.rank() == 0))
    return std::nullopt;
  const auto axis = flat ? 0 : static_cast<std::size_t>(Call::axis(c.i("axis", 0), x.rank()));
  const Ints read = flat ? Ints{x.size()} : x.dims();
  Ints taken;
  for (std::int64_t i = 0; i < std::min(c.in(1)->size(), read[axis]); ++i)
    if (c.in(1)->int_at(i) != 0) taken.push_back(i);
  Ints dims = read;
  dims[axis] = static_cast<std::int64_t>(taken.size());
  auto out = elements(c, x, dims);
  if (!out) return std::nullopt;
  const auto a = static_cast<std::ptrdiff_t>(axis);
  const std::int64_t outer = element_count(Ints(read.begin(), read.begin() + a));
  const std::int64_t run = element_count(Ints(read.begin() + a + 1, read.end()));
  std::int64_t to = 0;
  for (std::int64_t o = 0; o < outer; ++o)
    for (const std::int64_t i : taken) out->copy(to++ * run, x, (o * read[axis] + i) * run, run);
  return out->done(dims);
}

// ---------------------------------------------------------------- Scatter

/// Integers wrap around.
template <typename T>
T combined(std::string_view reduction, T a, T b) {
  using Wide = std::conditional_t<std::is_integral_v<T>, std::uint64_t, T>;
  if (reduction == "add") return static_cast<T>(static_cast<Wide>(a) + static_cast<Wide>(b));
  if (reduction == "mul") return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b));
  return reduction == "min" ? std::min(a, b) : std::max(a, b);
}

/// What `reduction` makes of x and of updates, which `each` gives as pairs of places.
template <typename Each>
Result scattered(const Call& c, const Tensor& updates, Each&& each) {
  const Tensor& x = *c.in(0);
  const std::string reduction = c.s("reduction", "none");
  if (updates.dtype() != x.dtype()) return std::nullopt;
  if (reduction == "none") {
    auto out = copy_of(c, x);
    if (!out) return std::nullopt;
    each([&](std::int64_t to, std::int64_t from, std::int64_t run) {
      out->copy(to, updates, from, run);
    });
    return out->done(x.dims());
  }
  // Halves are rounded after each step, which the order of the steps decides.
  if (x.dtype() == DType::Float16 || x.dtype() == DType::BFloat16) return std::nullopt;
  if (reduction != "add" && reduction != "mul" && reduction != "min" && reduction != "max")
    return std::nullopt;
  return by_type(x.dtype(), [&]<typename T>(T) -> Result {
    auto v = load<T>(x);
    const auto u = load<T>(updates);
    each([&](std::int64_t to, std::int64_t from, std::int64_t run) {
      for (std::int64_t i = 0; i < run; ++i) {
        T& a = v[static_cast<std::size_t>(to + i)];
        a = combined(reduction, a, u[static_cast<std::size_t>(from + i)]);
      }
    });
    return result(c, x.dtype(), x.dims(), v);
  });
}

Result scatter_elements(const Call& c) {
  const Tensor& x = *c.in(0);
  if (c.in(1) == nullptr || c.in(2) == nullptr) return std::nullopt;
  const Tensor& index = *c.in(1);
  if (x.rank() == 0 || index.rank() != x.rank() || index.dims() != c.in(2)->dims())
    return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", 0), x.rank()));
  for (std::size_t d = 0; d < x.rank(); ++d)
    if (d != axis && index.dims()[d] > x.dims()[d]) return std::nullopt;
  const Ints strides = strides_of(x.dims());
  return scattered(c, *c.in(2), [&](auto&& put_at) {
    std::int64_t k = 0;
    for_each_index(index.dims(), [&](const Ints& at) {
      std::int64_t to = 0;
      for (std::size_t d = 0; d < at.size(); ++d)
        to += (d == axis ? place(index.int_at(k), x.dims()[axis]) : at[d]) * strides[d];
      put_at(to, k++, 1);
    });
  });
}

Result scatter_nd(const Call& c) {
  const Tensor& x = *c.in(0);
  if (c.in(1) == nullptr || c.in(2) == nullptr) return std::nullopt;
  const auto t = Tuples::of(x, *c.in(1), 0);
  if (!t || c.in(2)->size() != checked_mul(t->count, t->run)) return std::nullopt;
  return scattered(c, *c.in(2), [&](auto&& put_at) {
    for (std::int64_t k = 0; k < t->count; ++k)
      put_at(t->at(x, *c.in(1), 0, k), k * t->run, t->run);
  });
}

// ---------------------------------------------------------------- OneHot, NonZero, Unique

Result one_hot(const Call& c) {
  const Tensor& index = *c.in(0);
  if (c.in(1) == nullptr || c.in(2) == nullptr || c.in(1)->size() != 1 || c.in(2)->size() != 2)
    return std::nullopt;
  const auto depth = saturated<std::int64_t>(c.in(1)->double_at(0));
  if (depth < 1) return std::nullopt;
  const auto axis = static_cast<std::size_t>(Call::axis(c.i("axis", -1), index.rank() + 1));
  Ints dims = index.dims();
  dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis), depth);
  const Tensor& values = *c.in(2);
  auto out = elements(c, values, dims);
  if (!out) return std::nullopt;
  Ints strides = strides_of(index.dims());
  strides.insert(strides.begin() + static_cast<std::ptrdiff_t>(axis), 0);
  std::int64_t k = 0;
  for_each_index(dims, [&](const Ints& at) {
    std::int64_t from = 0;
    for (std::size_t d = 0; d < at.size(); ++d) from += at[d] * strides[d];
    auto hot = saturated<std::int64_t>(index.double_at(from));
    if (hot < 0) hot += depth;
    out->copy(k++, values, hot == at[axis] ? 1 : 0);
  });
  return out->done(dims);
}

Result non_zero(const Call& c) {
  const Tensor& x = *c.in(0);
  const char kind = ir::info(x.dtype()).kind;
  if (kind == 'c' || x.rank() == 0) return std::nullopt;
  std::vector<Ints> found;
  std::int64_t k = 0;
  for_each_index(x.dims(), [&](const Ints& at) {
    if (kind == 'f' ? x.double_at(k) != 0.0 : x.int_at(k) != 0) found.push_back(at);
    ++k;
  });
  const auto n = static_cast<std::int64_t>(found.size());
  const Ints dims = {static_cast<std::int64_t>(x.rank()), n};
  if (!c.room(DType::Int64, element_count(dims))) return std::nullopt;
  Ints out;
  for (std::size_t d = 0; d < x.rank(); ++d)
    for (const Ints& at : found) out.push_back(at[d]);
  return one(Tensor::from<std::int64_t>(DType::Int64, dims, out));
}

/// Of all elements; along an axis, slices are compared, which no exporter writes for constants.
Result unique(const Call& c) {
  const Tensor& x = *c.in(0);
  if (c.node().attribute("axis") != nullptr || c.i("sorted", 1) == 0) return std::nullopt;
  return by_type(x.dtype(), [&]<typename T>(T) -> Result {
    const auto v = load<T>(x);
    std::map<T, std::pair<std::int64_t, std::int64_t>> found;  // where first, and how often
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (v[i] != v[i]) return std::nullopt;
      auto& [first, count] = found.try_emplace(v[i], static_cast<std::int64_t>(i), 0).first->second;
      ++count;
    }
    std::vector<T> values;
    Ints first;
    Ints counts;
    Ints inverse;
    std::map<T, std::int64_t> number;
    for (const auto& [value, where] : found) {
      number.emplace(value, static_cast<std::int64_t>(values.size()));
      values.push_back(value);
      first.push_back(where.first);
      counts.push_back(where.second);
    }
    for (const T& value : v) inverse.push_back(number.at(value));
    auto y = store(c, x.dtype(), {static_cast<std::int64_t>(values.size())}, values);
    if (!y || !c.room(DType::Int64, x.size())) return std::nullopt;
    return std::vector<TensorPtr>{*y, Tensor::ints(first), Tensor::ints(inverse),
                                  Tensor::ints(counts)};
  });
}

}  // namespace

Result selection(const Call& c) {
  static const std::unordered_map<std::string_view, Kernel> kKernels = {
      {"GatherElements", gather_elements},
      {"GatherND", gather_nd},
      {"Compress", compress},
      {"Scatter", scatter_elements},
      {"ScatterElements", scatter_elements},
      {"ScatterND", scatter_nd},
      {"OneHot", one_hot},
      {"NonZero", non_zero},
      {"Unique", unique}};
  const bool of_two = c.node().op_type != "NonZero" && c.node().op_type != "Unique";
  if (of_two && c.in(1) == nullptr) return std::nullopt;
  return run(kKernels, c);
}

}  // namespace onnx2nn::eval
