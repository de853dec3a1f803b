#include "ir/dim.h"

#include <algorithm>

namespace onnx2nn::ir {
namespace {

using Term = Dim::Term;

// Expressions of more terms than this are not worth keeping: they become unknown.
constexpr std::size_t kMaxTerms = 24;
// As are longer products, and longer texts: symbols are sizes of inputs, of which a size has a few.
constexpr std::size_t kMaxFactors = 16;
constexpr std::size_t kMaxText = 2000;

bool factors_less(const std::vector<Dim::AtomPtr>& a, const std::vector<Dim::AtomPtr>& b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [](const auto& x, const auto& y) { return x->key < y->key; });
}

bool factors_equal(const std::vector<Dim::AtomPtr>& a, const std::vector<Dim::AtomPtr>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x->key == y->key; });
}

// Rounds towards minus infinity. `b` is neither 0 nor -1, whose quotients need not exist.
std::int64_t floor_div_int(std::int64_t a, std::int64_t b) {
  const std::int64_t q = a / b;
  return (a % b != 0 && (a % b < 0) != (b < 0)) ? q - 1 : q;
}

std::int64_t floor_mod_int(std::int64_t a, std::int64_t b) {
  const std::int64_t r = a % b;
  return (r != 0 && (r < 0) != (b < 0)) ? r + b : r;
}

// Bounds of what a dim can be, where symbols are sizes; nothing where there is none.
std::optional<std::int64_t> least(const Dim& d);

std::optional<std::int64_t> least(const Atom& a) {
  if (a.kind == Atom::Kind::Symbol) return 0;
  const auto x = least(a.args[0]);
  const auto y = least(a.args[1]);
  switch (a.kind) {
    case Atom::Kind::Mod:  // its sign is the divisor's
      if (y && *y >= 0) return 0;
      return std::nullopt;
    case Atom::Kind::FloorDiv:
      if (x && a.args[1].is_const() && *y > 0) return floor_div_int(*x, *y);
      if (x && *x >= 0 && y && *y >= 0) return 0;
      return std::nullopt;
    case Atom::Kind::Max:
      if (!x || !y) return x ? x : y;
      return std::max(*x, *y);
    default:
      if (!x || !y) return std::nullopt;
      return std::min(*x, *y);
  }
}

std::optional<std::int64_t> greatest(const Atom& a) {
  if (a.kind == Atom::Kind::Mod && a.args[1].is_const() && a.args[1].value() > 0)
    return a.args[1].value() - 1;
  return std::nullopt;
}

std::optional<std::int64_t> least(const Dim& d) {
  if (!d.known()) return std::nullopt;
  std::int64_t sum = d.constant_term();
  for (const Term& t : d.terms()) {
    std::optional<std::int64_t> bound;
    if (t.coefficient > 0) {
      bound = least(*t.factors[0]);
      for (std::size_t i = 1; i < t.factors.size() && bound; ++i) {
        const auto other = least(*t.factors[i]);
        bound = *bound >= 0 && other && *other >= 0 ? std::optional<std::int64_t>(0) : std::nullopt;
      }
    } else if (t.factors.size() == 1) {
      bound = greatest(*t.factors[0]);
    }
    std::int64_t part = 0;
    if (!bound || __builtin_mul_overflow(t.coefficient, *bound, &part) ||
        __builtin_add_overflow(sum, part, &sum))
      return std::nullopt;
  }
  return sum;
}

// Whether `a / b` is an integer that exists: INT64_MIN / -1 does not, and traps.
bool divides(std::int64_t b, std::int64_t a) {
  return b == -1 ? a != INT64_MIN : a % b == 0;
}

}  // namespace

Dim Dim::from_terms(std::vector<Term> terms, std::int64_t constant) {
  std::sort(terms.begin(), terms.end(),
            [](const Term& a, const Term& b) { return factors_less(a.factors, b.factors); });
  std::vector<Term> merged;
  for (Term& t : terms) {
    if (!merged.empty() && factors_equal(merged.back().factors, t.factors)) {
      if (__builtin_add_overflow(merged.back().coefficient, t.coefficient,
                                 &merged.back().coefficient))
        return {};
    } else {
      merged.push_back(std::move(t));
    }
  }
  std::erase_if(merged, [](const Term& t) { return t.coefficient == 0; });
  if (merged.size() > kMaxTerms) return {};
  std::size_t text = 0;
  for (const Term& t : merged)
    for (const AtomPtr& f : t.factors) text += f->key.size();
  if (text > kMaxText) return {};
  Dim d(constant);
  if (!merged.empty()) d.terms_ = std::make_shared<const std::vector<Term>>(std::move(merged));
  return d;
}

Dim Dim::symbol(std::string name) {
  auto atom = std::make_shared<Atom>();
  atom->key = std::move(name);
  return from_terms({Term{{atom}, 1}}, 0);
}

const std::vector<Term>& Dim::terms() const {
  static const std::vector<Term> kNone;
  return terms_ ? *terms_ : kNone;
}

std::optional<std::string> Dim::symbol_name() const {
  if (terms().size() != 1 || constant_ != 0) return std::nullopt;
  const Term& t = terms()[0];
  if (t.coefficient != 1 || t.factors.size() != 1) return std::nullopt;
  if (t.factors[0]->kind != Atom::Kind::Symbol) return std::nullopt;
  return t.factors[0]->key;
}

bool Dim::never_negative() const {
  const auto bound = least(*this);
  return bound && *bound >= 0;
}

std::size_t Dim::weight() const {
  std::size_t sum = 1;
  for (const Term& t : terms()) sum += 1 + t.factors.size();
  return sum;
}

std::string Dim::str() const {
  if (!known_) return "?";
  if (!terms_) return std::to_string(constant_);
  std::string out;
  for (const Term& t : *terms_) {
    if (!out.empty() && t.coefficient > 0) out += "+";
    if (t.coefficient == -1) {
      out += "-";
    } else if (t.coefficient != 1) {
      out += std::to_string(t.coefficient) + "*";
    }
    for (std::size_t i = 0; i < t.factors.size(); ++i) {
      if (i > 0) out += "*";
      out += t.factors[i]->key;
    }
  }
  if (constant_ > 0) out += "+" + std::to_string(constant_);
  if (constant_ < 0) out += std::to_string(constant_);
  return out;
}

Dim operator+(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_) return {};
  std::int64_t c = 0;
  if (__builtin_add_overflow(a.constant_, b.constant_, &c)) return {};
  if (!a.terms_ && !b.terms_) return {c};
  std::vector<Term> terms = a.terms();
  terms.insert(terms.end(), b.terms().begin(), b.terms().end());
  return Dim::from_terms(std::move(terms), c);
}

Dim operator-(const Dim& a, const Dim& b) {
  return a + b * Dim(-1);
}

Dim operator*(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_) return {};
  if (a.terms().size() * b.terms().size() > kMaxTerms * 4) return {};
  std::vector<Term> out;
  const Term one_a{{}, a.constant_};
  const Term one_b{{}, b.constant_};
  std::int64_t constant = 0;
  bool overflow = false;
  bool too_long = false;
  auto product = [&](const Term& x, const Term& y) {
    Term t;
    overflow |= __builtin_mul_overflow(x.coefficient, y.coefficient, &t.coefficient);
    if (t.coefficient == 0) return;
    too_long |= x.factors.size() + y.factors.size() > kMaxFactors;
    t.factors = x.factors;
    t.factors.insert(t.factors.end(), y.factors.begin(), y.factors.end());
    if (t.factors.empty()) {
      constant = t.coefficient;
      return;
    }
    std::sort(t.factors.begin(), t.factors.end(),
              [](const auto& p, const auto& q) { return p->key < q->key; });
    out.push_back(std::move(t));
  };
  for (const Term& x : a.terms()) {
    for (const Term& y : b.terms()) product(x, y);
    product(x, one_b);
  }
  for (const Term& y : b.terms()) product(one_a, y);
  product(one_a, one_b);
  if (overflow || too_long) return {};
  return Dim::from_terms(std::move(out), constant);
}

Dim Dim::function(Atom::Kind kind, const Dim& a, const Dim& b) {
  auto atom = std::make_shared<Atom>();
  atom->kind = kind;
  atom->args = {a, b};
  switch (kind) {
    case Atom::Kind::FloorDiv:
      atom->key = "((" + a.str() + ")//(" + b.str() + "))";
      break;
    case Atom::Kind::Mod:
      atom->key = "((" + a.str() + ")%(" + b.str() + "))";
      break;
    case Atom::Kind::Max:
      atom->key = "max(" + a.str() + "," + b.str() + ")";
      break;
    case Atom::Kind::Min:
      atom->key = "min(" + a.str() + "," + b.str() + ")";
      break;
    case Atom::Kind::Symbol:
      break;
  }
  // Nested functions of functions grow without bound in loops of the graph; past this they say
  // nothing.
  if (atom->key.size() > 400) return {};
  return from_terms({Term{{atom}, 1}}, 0);
}

Dim Dim::floor_div(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_) return {};
  if (b.is_const()) {
    const std::int64_t d = b.value();
    if (d == 0) return {};
    if (d == 1) return a;
    if (d == -1) return a * b;
    if (a.is_const()) return {floor_div_int(a.value(), d)};
    // (p*d*x + q*d*y + c) // d = p*x + q*y + c//d where every coefficient divides.
    std::vector<Term> divided;
    std::vector<Term> rest;
    for (const Term& t : a.terms()) {
      if (divides(d, t.coefficient)) {
        divided.push_back({t.factors, t.coefficient / d});
      } else {
        rest.push_back(t);
      }
    }
    if (rest.empty()) return from_terms(std::move(divided), floor_div_int(a.constant_, d));
    if (!divided.empty()) {
      return from_terms(std::move(divided), floor_div_int(a.constant_, d)) +
             function(Atom::Kind::FloorDiv,
                      from_terms(std::move(rest), floor_mod_int(a.constant_, d)), b);
    }
    return function(Atom::Kind::FloorDiv, a, b);
  }
  if (a == b) return {1};
  // A single product divides what contains all of its factors.
  if (b.terms().size() == 1 && b.constant_ == 0 && a.constant_ == 0) {
    const Term& t = b.terms()[0];
    std::vector<Term> out;
    for (const Term& x : a.terms()) {
      if (!divides(t.coefficient, x.coefficient)) break;
      std::vector<AtomPtr> factors = x.factors;
      bool divides = true;
      for (const AtomPtr& f : t.factors) {
        auto it = std::find_if(factors.begin(), factors.end(),
                               [&](const AtomPtr& g) { return g->key == f->key; });
        if (it == factors.end()) {
          divides = false;
          break;
        }
        factors.erase(it);
      }
      if (!divides) break;
      out.push_back({std::move(factors), x.coefficient / t.coefficient});
    }
    if (out.size() == a.terms().size()) {
      std::int64_t constant = 0;
      std::vector<Term> terms;
      for (Term& x : out) {
        if (x.factors.empty()) {
          constant += x.coefficient;
        } else {
          terms.push_back(std::move(x));
        }
      }
      return from_terms(std::move(terms), constant);
    }
  }
  return function(Atom::Kind::FloorDiv, a, b);
}

Dim Dim::ceil_div(const Dim& a, const Dim& b) {
  return floor_div(a + b - Dim(1), b);
}

Dim Dim::mod(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_) return {};
  const Dim q = floor_div(a, b);
  if (!q.known()) return {};
  if (q.terms().size() == 1 && q.terms()[0].factors.size() == 1 &&
      q.terms()[0].factors[0]->kind == Atom::Kind::FloorDiv)
    return function(Atom::Kind::Mod, a, b);
  return a - q * b;
}

Dim Dim::max(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_) return {};
  const Dim diff = a - b;
  if (diff.is_const()) return diff.value() >= 0 ? a : b;
  return function(Atom::Kind::Max, a, b);
}

Dim Dim::min(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_) return {};
  const Dim diff = a - b;
  if (diff.is_const()) return diff.value() <= 0 ? a : b;
  return function(Atom::Kind::Min, a, b);
}

bool operator==(const Dim& a, const Dim& b) {
  if (!a.known_ || !b.known_ || a.constant_ != b.constant_) return false;
  const auto& x = a.terms();
  const auto& y = b.terms();
  return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const Term& s, const Term& t) {
    return s.coefficient == t.coefficient && factors_equal(s.factors, t.factors);
  });
}

}  // namespace onnx2nn::ir
