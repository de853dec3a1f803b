// A dimension: an integer, an integer expression over symbols, or unknown.
// Expressions are kept as sums of products in one canonical form, so that equal ones compare equal:
// `2*seq+1` is the same however it was computed. What is no polynomial (a floor division that does
// not come out, a maximum) is an atom of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace onnx2nn::ir {

class Dim;

/// A factor that is no number: a symbol, or a function of two expressions.
struct Atom {
  enum class Kind { Symbol, FloorDiv, Mod, Max, Min };
  Kind kind = Kind::Symbol;
  std::string key;        // canonical text; equal atoms have equal keys
  std::vector<Dim> args;  // of the functions
};

class Dim {
 public:
  using AtomPtr = std::shared_ptr<const Atom>;
  struct Term {
    std::vector<AtomPtr> factors;  // sorted by key
    std::int64_t coefficient = 0;
  };

  Dim() = default;                                             // unknown
  Dim(std::int64_t value) : known_(true), constant_(value) {}  // NOLINT: a number is a dimension
  static Dim unknown() { return {}; }
  static Dim symbol(std::string name);

  bool known() const { return known_; }
  bool is_const() const { return known_ && !terms_; }
  /// The number; only where is_const().
  std::int64_t value() const { return constant_; }
  std::optional<std::int64_t> constant() const {
    return is_const() ? std::optional(constant_) : std::nullopt;
  }
  /// The symbol's name where the dimension is just one symbol.
  std::optional<std::string> symbol_name() const;
  /// Terms with factors, in canonical order, and the constant term.
  const std::vector<Term>& terms() const;
  std::int64_t constant_term() const { return constant_; }

  /// Whether it is a sum of products of symbols, which are sizes, so that it cannot be negative.
  bool never_negative() const;

  /// How much there is to keep: its terms and their factors.
  std::size_t weight() const;

  std::string str() const;  // "?" where unknown

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  /// Rounds towards minus infinity; unknown where the divisor is zero.
  static Dim floor_div(const Dim& a, const Dim& b);
  /// ceil(a / b) for positive b.
  static Dim ceil_div(const Dim& a, const Dim& b);
  static Dim mod(const Dim& a, const Dim& b);
  static Dim max(const Dim& a, const Dim& b);
  static Dim min(const Dim& a, const Dim& b);

  /// Known and provably equal; unknown dimensions are equal to nothing.
  friend bool operator==(const Dim& a, const Dim& b);

 private:
  static Dim from_terms(std::vector<Term> terms, std::int64_t constant);
  static Dim function(Atom::Kind kind, const Dim& a, const Dim& b);

  bool known_ = false;
  std::int64_t constant_ = 0;
  std::shared_ptr<const std::vector<Term>> terms_;  // null where constant
};

using Dims = std::vector<Dim>;

}  // namespace onnx2nn::ir
