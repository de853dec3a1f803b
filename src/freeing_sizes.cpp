// Nodes that repeat a size: targets of Reshape, Expand and Resize, ends of Slice.
#include <algorithm>
#include <limits>

#include "freeing.h"
#include "passes/rewriter.h"
#include "support/checked.h"

namespace onnx2nn {

namespace {

using ir::Dim;
using ir::Dims;
using Ints = std::vector<std::int64_t>;

}  // namespace

void Freeing::reshape(ir::Node& n) {
  const Dims* from = opened(n.input(0));
  const auto asked = known_ints(n.input(1));
  if (from == nullptr || !asked) return;
  const bool keeps_zero = passes::attr_int(n, "allowzero", 0) != 0;
  const Dims to = target(*from, *asked, keeps_zero);
  Ints out = *asked;
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const bool copied = out[i] == 0 && !keeps_zero;
    if (to[i].is_const() && !copied) {
      out[i] = to[i].value();
    } else if (!copied) {
      const bool same = i < from->size() && (*from)[i] == to[i] && !keeps_zero;
      if (same) out[i] = 0;
      open.push_back(i);
    }
  }
  // One size follows from the others; it is said so where it would have to be computed.
  std::size_t computed = 0;
  for (const std::size_t i : open)
    if (out[i] != 0) {
      out[i] = -1;
      ++computed;
    }
  if (computed > 1) fail("unsupported", "several sizes of its target would follow from an open one");
  if (open.size() == 1) out[open[0]] = -1;
  if (out != *asked) n.set_input(1, constant(out));
}

Dims Freeing::target(const Dims& from, const Ints& asked, bool keeps_zero) const {
  // Ones hold nothing.
  Dims x;
  for (const Dim& d : from)
    if (!d.is_const() || d.value() != 1) x.push_back(d);
  Ints sizes = asked;
  std::int64_t all = 1;
  for (const Dim& d : from) {
    const auto size = original(d);
    if (!size) fail("unsupported", "{} has other open dims", ir::Shape(from).str());
    all = checked_mul(all, *size);
  }
  std::int64_t known = 1;
  std::optional<std::size_t> rest;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && !keeps_zero && i < from.size()) sizes[i] = *original(from[i]);
    if (sizes[i] == -1)
      rest = i;
    else
      known = checked_mul(known, sizes[i]);
  }
  if (rest && known != 0) sizes[*rest] = all / known;
  Dims out(sizes.begin(), sizes.end());
  if (all == 0) return out;
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < x.size() && j < out.size()) {
    // An open dim that was one says nothing of where it goes: rows that are merged stay outside of
    // what they hold, and what is split has it outermost.
    if (j > 0 && original(x[i]) == 1 && sizes[j] != 1 && !splits(x, i + 1, sizes, j)) {
      out[j - 1] = out[j - 1] * x[i++];
      continue;
    }
    const std::size_t i0 = i;
    const std::size_t j0 = j;
    std::int64_t a = *original(x[i++]);
    std::int64_t b = sizes[j++];
    while (a != b && (a < b ? i < x.size() : j < out.size())) {
      if (a < b)
        a = checked_mul(a, *original(x[i++]));
      else
        b = checked_mul(b, sizes[j++]);
    }
    if (a != b) fail("bad-model", "its target has another number of elements");
    // Ones that follow may be what an open factor was.
    const bool whole = i == i0 + 1 && x[i0].symbol_name();
    const bool next_is_one = i < x.size() && original(x[i]) == 1;
    while (!whole && !next_is_one && j < out.size() && sizes[j] == 1) ++j;
    if (j == out.size()) i = x.size();
    place(x, i0, i, out, j0, j);
  }
  return out;
}

bool Freeing::splits(const Dims& x, std::size_t i, const Ints& sizes, std::size_t j) const {
  if (i == x.size()) return false;
  std::int64_t a = *original(x[i++]);
  std::int64_t b = sizes[j];
  while (a < b && i < x.size()) a = checked_mul(a, *original(x[i++]));
  return a > b;
}

void Freeing::place(const Dims& x, std::size_t i0, std::size_t i1, Dims& out, std::size_t j0,
                    std::size_t j1) const {
  Dim product(1);
  bool any = false;
  for (std::size_t i = i0; i < i1; ++i) {
    product = product * x[i];
    any = any || depends(x[i]);
  }
  if (!any) return;
  // What is merged with the dims behind it leaves an open factor that was one to the rows.
  if (j0 > 0 && j1 - j0 == 1 && i1 - i0 > 1 && depends(x[i0]))
    for (const auto& [symbol, freed] : freed_) {
      const Dim factor = Dim::symbol(symbol);
      const Dim rest = Dim::floor_div(product, factor);
      if (freed.size != 1 || !rest.is_const() || !(rest * factor == product)) continue;
      out[j0 - 1] = out[j0 - 1] * factor;
      return;
    }
  std::optional<std::size_t> at;
  Dim size;
  for (std::size_t j = j0; j < j1; ++j) {
    Dim others(1);
    for (std::size_t k = j0; k < j1; ++k)
      if (k != j) others = others * out[k];
    const Dim found = Dim::floor_div(product, others);
    if (!found.known() || !(found * others == product)) continue;
    // Where something had just the size of what is open, it is that.
    const bool exact = found.symbol_name().has_value();
    if (at && !exact) continue;
    at = j;
    size = found;
    if (exact) break;
  }
  if (!at) fail("unsupported", "{} elements cannot be split as its target says", product.str());
  out[*at] = size;
}

void Freeing::expand(ir::Node& n) {
  const Dims* from = opened(n.input(0));
  auto sizes = known_ints(n.input(1));
  if (from == nullptr || !sizes) return;
  const Ints before = *sizes;
  for (std::size_t k = 1; k <= std::min(from->size(), sizes->size()); ++k) {
    const Dim& d = (*from)[from->size() - k];
    std::int64_t& size = (*sizes)[sizes->size() - k];
    if (depends(d) && original(d) == size) size = 1;
  }
  if (*sizes != before) n.set_input(1, constant(*sizes));
}

void Freeing::slice(ir::Node& n) {
  const Dims* from = opened(n.input(0));
  const auto starts = known_ints(n.input(1));
  auto ends = known_ints(n.input(2));
  if (from == nullptr || !starts || !ends || n.opset < 10) return;
  const auto rank = static_cast<std::int64_t>(from->size());
  const auto axes = known_ints(n.input(3));
  const auto steps = known_ints(n.input(4));
  if ((n.input(3) != nullptr && !axes) || (n.input(4) != nullptr && !steps)) return;
  const Ints before = *ends;
  for (std::size_t k = 0; k < ends->size() && k < starts->size(); ++k) {
    std::int64_t axis = axes && k < axes->size() ? (*axes)[k] : static_cast<std::int64_t>(k);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) continue;
    const Dim& d = (*from)[static_cast<std::size_t>(axis)];
    if (!depends(d)) continue;
    const bool forward = !steps || (k < steps->size() && (*steps)[k] == 1);
    const auto size = original(d);
    if (forward && (*starts)[k] == 0 && size && (*ends)[k] >= *size)
      (*ends)[k] = std::numeric_limits<std::int64_t>::max();
    else if (is_batch(d))
      fail("unsupported", "it takes rows {} to {} of the batch", (*starts)[k], (*ends)[k]);
  }
  if (*ends != before) n.set_input(2, constant(*ends));
}

void Freeing::resize(ir::Node& n) {
  const Dims* from = opened(n.input(0));
  const auto sizes = known_ints(n.input(3));
  if (from == nullptr || !sizes || sizes->size() != from->size()) return;
  Dims out(sizes->begin(), sizes->end());
  bool changed = false;
  for (std::size_t i = 0; i < out.size(); ++i)
    if (depends((*from)[i]) && original((*from)[i]) == (*sizes)[i]) {
      out[i] = (*from)[i];
      changed = true;
    }
  if (changed) n.set_input(3, vector_of(out, n));
}

}  // namespace onnx2nn
