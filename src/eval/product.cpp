// Sums of products. Floats are summed in double precision and rounded once.
#include <algorithm>
#include <map>

#include "eval/numbers.h"
#include "support/text.h"

namespace onnx2nn::eval {
namespace {

/// Integers are summed as they wrap around, floats in double precision.
template <typename T>
using Sum = std::conditional_t<std::is_floating_point_v<T>, double, std::uint64_t>;

bool is_few(std::initializer_list<std::int64_t> sizes) {
  std::int64_t steps = 1;
  for (const std::int64_t n : sizes)
    if (__builtin_mul_overflow(steps, std::max<std::int64_t>(n, 1), &steps) || steps > kMostSteps)
      return false;
  return true;
}

/// A matrix in row-major order, or its transpose.
template <typename T>
struct Matrix {
  const T* data;
  std::int64_t row, column;
  Sum<T> at(std::int64_t i, std::int64_t j) const {
    return static_cast<Sum<T>>(data[i * row + j * column]);
  }
};

template <typename T>
void multiply(const Matrix<T>& a, const Matrix<T>& b, std::int64_t m, std::int64_t n,
              std::int64_t k, std::vector<Sum<T>>& out) {
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      Sum<T> sum = 0;
      for (std::int64_t p = 0; p < k; ++p) sum += a.at(i, p) * b.at(p, j);
      out.push_back(sum);
    }
}

template <typename T>
std::vector<T> rounded(const std::vector<Sum<T>>& sums) {
  return {sums.begin(), sums.end()};
}

// ---------------------------------------------------------------- MatMul

Result mat_mul(const Call& c) {
  if (c.in(1) == nullptr || c.in(1)->dtype() != c.in(0)->dtype()) return std::nullopt;
  Ints a = c.in(0)->dims();
  Ints b = c.in(1)->dims();
  if (a.empty() || b.empty()) return std::nullopt;
  const bool row = a.size() == 1;
  const bool column = b.size() == 1;
  if (row) a.insert(a.begin(), 1);
  if (column) b.push_back(1);
  const std::int64_t m = a[a.size() - 2];
  const std::int64_t k = a.back();
  const std::int64_t n = b.back();
  if (b[b.size() - 2] != k) return std::nullopt;
  const Ints batches_a(a.begin(), a.end() - 2);
  const Ints batches_b(b.begin(), b.end() - 2);
  Ints dims = broadcast_dims(batches_a, batches_b);
  const Ints batches = dims;
  if (!is_few({element_count(batches), m, n, k})) return std::nullopt;
  if (!row) dims.push_back(m);
  if (!column) dims.push_back(n);
  if (!c.room(c.in(0)->dtype(), element_count(dims))) return std::nullopt;
  return by_type(c.in(0)->dtype(), [&]<typename T>(T) -> Result {
    const auto x = load<T>(*c.in(0));
    const auto y = load<T>(*c.in(1));
    std::vector<Sum<T>> sums;
    for_each_pair(batches, broadcast_strides(batches_a, batches),
                  broadcast_strides(batches_b, batches), [&](std::int64_t i, std::int64_t j) {
                    multiply<T>({x.data() + i * m * k, k, 1}, {y.data() + j * k * n, n, 1}, m, n, k,
                                sums);
                  });
    return result(c, c.in(0)->dtype(), dims, rounded<T>(sums));
  });
}

Result gemm(const Call& c) {
  if (c.opset() < 7 || c.in(1) == nullptr) return std::nullopt;
  const Tensor& a = *c.in(0);
  const Tensor& b = *c.in(1);
  const Tensor* bias = c.in(2);
  if (a.rank() != 2 || b.rank() != 2 || b.dtype() != a.dtype() ||
      (bias != nullptr && bias->dtype() != a.dtype()))
    return std::nullopt;
  const bool ta = c.i("transA", 0) != 0;
  const bool tb = c.i("transB", 0) != 0;
  const std::int64_t m = a.dims()[ta ? 1 : 0];
  const std::int64_t k = a.dims()[ta ? 0 : 1];
  const std::int64_t n = b.dims()[tb ? 0 : 1];
  if (b.dims()[tb ? 1 : 0] != k || !is_few({m, n, k})) return std::nullopt;
  const Ints dims = {m, n};
  if (bias != nullptr && broadcast_dims(bias->dims(), dims) != dims) return std::nullopt;
  if (!c.room(a.dtype(), element_count(dims))) return std::nullopt;
  return by_float(a.dtype(), [&]<typename T>(T) -> Result {
    const auto x = load<T>(a);
    const auto y = load<T>(b);
    std::vector<double> sums;
    multiply<T>({x.data(), ta ? 1 : k, ta ? m : 1}, {y.data(), tb ? 1 : n, tb ? k : 1}, m, n, k,
                sums);
    for (double& v : sums) v *= c.f("alpha", 1.0);
    if (bias != nullptr) {
      const Ints strides = broadcast_strides(bias->dims(), dims);
      std::size_t i = 0;
      for_each_pair(dims, strides, strides, [&](std::int64_t from, std::int64_t) {
        sums[i++] += c.f("beta", 1.0) * bias->double_at(from);
      });
    }
    return result(c, a.dtype(), dims, rounded<T>(sums));
  });
}

// ---------------------------------------------------------------- Einsum

/// The equation with a letter for each axis: those of an ellipsis are numbered from the back.
struct Equation {
  std::vector<std::vector<int>> terms;
  std::vector<int> output;
  std::map<int, std::int64_t> sizes;

  static std::optional<Equation> of(const Call& c) {
    std::string text;
    for (const char ch : c.s("equation", ""))
      if (ch != ' ') text += ch;
    const auto arrow = text.find("->");
    const std::string left = text.substr(0, arrow);
    Equation e;
    std::size_t from = 0;
    for (std::size_t i = 0; i < c.inputs(); ++i) {
      if (c.in(i) == nullptr || from > left.size()) return std::nullopt;
      const auto to = std::min(left.find(',', from), left.size());
      const auto letters = read(left.substr(from, to - from), c.in(i)->rank());
      if (!letters || !e.add(*letters, c.in(i)->dims())) return std::nullopt;
      from = to + 1;
    }
    if (from != left.size() + 1) return std::nullopt;
    return e.find_output(arrow == std::string::npos ? "" : text.substr(arrow + 2),
                         arrow == std::string::npos)
               ? std::optional(std::move(e))
               : std::nullopt;
  }

 private:
  /// Ellipses stand for -1 (the last axis that they cover), -2 and so on.
  static std::optional<std::vector<int>> read(const std::string& term, std::size_t rank) {
    const auto dots = term.find("...");
    const std::size_t letters = dots == std::string::npos ? term.size() : term.size() - 3;
    if (letters > rank || (dots == std::string::npos && letters != rank)) return std::nullopt;
    std::vector<int> out;
    for (std::size_t i = 0; i < term.size(); ++i) {
      if (i == dots) {
        for (auto k = static_cast<int>(rank - letters); k > 0; --k) out.push_back(-k);
        i += 2;
      } else if (is_letter(term[i])) {
        out.push_back(term[i]);
      } else {
        return std::nullopt;
      }
    }
    return out;
  }

  bool add(const std::vector<int>& letters, const Ints& dims) {
    for (std::size_t i = 0; i < letters.size(); ++i) {
      std::int64_t& size = sizes.try_emplace(letters[i], dims[i]).first->second;
      if (size == 1) size = dims[i];
      if (dims[i] != size && dims[i] != 1) return false;
    }
    terms.push_back(letters);
    return true;
  }

  bool find_output(const std::string& text, bool implicit) {
    std::size_t covered = 0;
    for (const auto& [letter, size] : sizes) covered += letter < 0 ? 1 : 0;
    if (!implicit) {
      const auto dots = text.find("...");
      const std::size_t letters = dots == std::string::npos ? text.size() : text.size() - 3;
      const auto found = read(text, letters + (dots == std::string::npos ? 0 : covered));
      if (!found) return false;
      output = *found;
    } else {
      for (auto k = static_cast<int>(covered); k > 0; --k) output.push_back(-k);
      std::map<int, int> seen;
      for (const auto& term : terms)
        for (const int letter : term) ++seen[letter];
      for (const auto& [letter, times] : seen)
        if (letter > 0 && times == 1) output.push_back(letter);
    }
    std::vector<int> sorted = output;
    std::sort(sorted.begin(), sorted.end());
    return std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end() &&
           std::all_of(output.begin(), output.end(),
                       [&](int letter) { return sizes.count(letter) != 0; });
  }
};

Result einsum(const Call& c) {
  const auto e = Equation::of(c);
  if (!e) return std::nullopt;
  // The output's axes first, then those that are summed over.
  std::vector<int> letters = e->output;
  for (const auto& [letter, size] : e->sizes)
    if (std::find(letters.begin(), letters.end(), letter) == letters.end())
      letters.push_back(letter);
  Ints space;
  std::int64_t steps = static_cast<std::int64_t>(c.inputs());
  for (const int letter : letters) {
    space.push_back(e->sizes.at(letter));
    if (__builtin_mul_overflow(steps, std::max<std::int64_t>(space.back(), 1), &steps) ||
        steps > kMostSteps)
      return std::nullopt;
  }
  const Ints dims(space.begin(), space.begin() + static_cast<std::ptrdiff_t>(e->output.size()));
  const DType dtype = c.in(0)->dtype();
  if (!c.room(dtype, element_count(dims))) return std::nullopt;
  std::vector<Ints> strides;  // of each input along each letter
  for (std::size_t i = 0; i < c.inputs(); ++i) {
    if (c.in(i)->dtype() != dtype) return std::nullopt;
    const Ints own = strides_of(c.in(i)->dims());
    Ints along(letters.size(), 0);
    for (std::size_t d = 0; d < e->terms[i].size(); ++d) {
      const auto at = std::find(letters.begin(), letters.end(), e->terms[i][d]) - letters.begin();
      if (c.in(i)->dims()[d] != 1) along[static_cast<std::size_t>(at)] += own[d];
    }
    strides.push_back(std::move(along));
  }
  const std::int64_t each = element_count(
      Ints(space.begin() + static_cast<std::ptrdiff_t>(e->output.size()), space.end()));
  return by_type(dtype, [&]<typename T>(T) -> Result {
    std::vector<std::vector<T>> x;
    for (std::size_t i = 0; i < c.inputs(); ++i) x.push_back(load<T>(*c.in(i)));
    std::vector<Sum<T>> sums(static_cast<std::size_t>(element_count(dims)), 0);
    std::int64_t k = 0;
    for_each_index(space, [&](const Ints& at) {
      Sum<T> factor = 1;
      for (std::size_t i = 0; i < x.size(); ++i) {
        std::int64_t from = 0;
        for (std::size_t d = 0; d < at.size(); ++d) from += at[d] * strides[i][d];
        factor *= static_cast<Sum<T>>(x[i][static_cast<std::size_t>(from)]);
      }
      sums[static_cast<std::size_t>(k++ / each)] += factor;
    });
    return result(c, dtype, dims, rounded<T>(sums));
  });
}

}  // namespace

Result product(const Call& c) {
  static const std::unordered_map<std::string_view, Kernel> kKernels = {
      {"MatMul", mat_mul}, {"Gemm", gemm}, {"Einsum", einsum}};
  return run(kKernels, c);
}

}  // namespace onnx2nn::eval
