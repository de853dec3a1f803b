#include "support/budget.h"

#include <algorithm>
#include <limits>

#include "support/error.h"

namespace onnx2nn {
namespace {

/// What every model may have, and what a larger file may have beyond.
struct Limit {
  std::string_view what;
  std::uint64_t floor;
  std::uint64_t per_byte;
  std::uint64_t per_node;
  std::string_view hint;
};

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;

// In the order of Resource. Real models stay far below: the largest uses a tenth of one of these.
constexpr std::array<Limit, kResourceCount> kLimits = {{
    {"nodes", 100'000, 0, 16, "its functions multiply: inline them first, with onnx.inliner"},
    {"bytes of names, attributes and tensors", 256 * kMiB, 64, 0,
     "store its sparse tensors as dense ones, and inline its functions with onnx.inliner"},
    {"bytes of folded constants", 256 * kMiB, 64, 0, ""},
    {"steps of folding", 1024 * kMiB, 64, 0, ""},
    {"inferences of a node", 200'000, 0, 40, ""},
    {"terms of dimensions", 1'000'000, 0, 128, ""},
    {"rewrites", 10'000, 0, 50, ""},
    {"bytes of source", 16 * kMiB, 16, 0, "simplify the model first: onnx2nn simplify"},
}};

std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<std::uint64_t>::max() : sum;
}

std::uint64_t saturating_mul(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<std::uint64_t>::max()
                                                : product;
}

}  // namespace

void Budget::add_file(std::uint64_t bytes) {
  bytes_ = saturating_add(bytes_, bytes);
}

void Budget::add_listed_nodes(std::uint64_t count) {
  listed_nodes_ = saturating_add(listed_nodes_, count);
}

std::uint64_t Budget::limit(Resource resource) const {
  const Limit& l = kLimits[index(resource)];
  return saturating_add(l.floor, saturating_add(saturating_mul(l.per_byte, bytes_),
                                                saturating_mul(l.per_node, listed_nodes_)));
}

std::uint64_t Budget::left(Resource resource) const {
  const std::uint64_t most = limit(resource);
  const std::uint64_t used = used_[index(resource)];
  return used < most ? most - used : 0;
}

void Budget::spend(Resource resource, std::uint64_t amount) {
  used_[index(resource)] += std::min(amount, left(resource));
}

bool Budget::take(Resource resource, std::uint64_t amount) {
  if (amount > left(resource)) return false;
  used_[index(resource)] += amount;
  return true;
}

void Budget::charge(Resource resource, std::uint64_t amount, std::string_view who) {
  check(resource, amount, who);
  used_[index(resource)] += amount;
}

void Budget::check(Resource resource, std::uint64_t amount, std::string_view who) const {
  if (amount <= left(resource)) return;
  constexpr std::size_t kReadable = 200;
  const Limit& l = kLimits[index(resource)];
  throw Error("too-large",
              fmt::format("the model comes to more than {} {}, which is out of proportion to its "
                          "file; the last are for {}",
                          limit(resource), l.what, who.substr(0, kReadable)),
              std::string(l.hint));
}

}  // namespace onnx2nn
