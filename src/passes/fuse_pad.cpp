// Padding, into operators that pad themselves.
#include <algorithm>
#include <limits>

#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// No tensor is padded further; sums of a few such numbers fit.
constexpr std::int64_t kFarthest = std::int64_t{1} << 40;

bool is_far(std::int64_t pad) {
  return pad > kFarthest || pad < -kFarthest;
}

/// What a Pad by one number adds before and after each axis but the first two.
struct Padding {
  Ints pads;
  double value = 0.0;
};

std::optional<Padding> padding_of(Rewriter& w, const ir::Node& n, const ir::Node& pad) {
  const auto none = [&](const char* why) -> std::optional<Padding> {
    w.miss(n, "{}", why);
    return std::nullopt;
  };
  if (pad.input(0) == nullptr) return std::nullopt;
  if (attr_string(pad, "mode", "constant") != "constant") return none("it is not by a constant");
  if (pad.input(3) != nullptr) return none("only some axes are padded");
  Padding out{.value = attr_float(pad, "value", 0.0)};
  if (pad.input(2) != nullptr) {
    const auto value = splat(pad.input(2));
    if (!value) return none("what it pads with is not known");
    out.value = *value;
  }
  const auto pads = pad.opset < 2 ? ints_of(pad, "paddings", 1) : ints_of(pad, "pads", 1);
  if (!pads || pads->size() < 6 || pads->size() % 2 != 0) return none("the pads are not known");
  const std::size_t rank = pads->size() / 2;
  for (std::size_t end = 0; end < 2; ++end)
    for (std::size_t i = 0; i < rank; ++i) {
      const std::int64_t p = (*pads)[end * rank + i];
      if (p < 0) return none("it cuts");
      if (is_far(p)) return none("it pads further than any tensor reaches");
      if (i < 2 && p != 0) return none("samples or channels are padded");
      if (i >= 2) out.pads.push_back(p);
    }
  return out;
}

/// The operator's own pads; nothing where they follow from the input's size.
std::optional<Ints> own_pads(const ir::Node& n, std::size_t count) {
  const std::string automatic = attr_string(n, "auto_pad", "NOTSET");
  Ints none(count, 0);
  if (automatic == "VALID") return none;
  if (automatic != "NOTSET" && !automatic.empty()) return std::nullopt;
  const auto own = ints_of(n, "pads", n.input_count());
  if (!own) return none;
  if (own->size() != count || std::any_of(own->begin(), own->end(), is_far)) return std::nullopt;
  return own;
}

/// `n` with the pads of both, on what `pad` pads.
bool take_over(Rewriter& w, ir::Node& n, const ir::Node& pad, const Padding& padding, Ints own) {
  for (std::size_t i = 0; i < own.size(); ++i) own[i] += padding.pads[i];
  set_attr(n, "auto_pad", std::string("NOTSET"));
  set_attr(n, "pads", std::move(own));
  w.set_input(n, 0, pad.input(0));
  return true;
}

// Conv(Pad(x) by zeros)   =>   Conv(x) with these pads
bool fuse_pad(Rewriter& w, ir::Node& n) {
  const ir::Node* pad = sole_producer(n.input(0), "Pad");
  if (pad == nullptr) return false;
  const auto padding = padding_of(w, n, *pad);
  if (!padding) return false;
  if (padding->value != 0.0) return w.miss(n, "it does not pad with zeros");
  auto own = own_pads(n, padding->pads.size());
  if (!own) return w.miss(n, "the convolution's own pads follow from the input's size");
  return take_over(w, n, *pad, *padding, std::move(*own));
}

/// What a Pad pads with, and how much; nothing where either is not known, or it cuts.
std::optional<Padding> whole_padding(const ir::Node& pad) {
  if (attr_string(pad, "mode", "constant") != "constant" || pad.input(3) != nullptr)
    return std::nullopt;
  Padding out{.value = attr_float(pad, "value", 0.0)};
  if (pad.input(2) != nullptr) {
    const auto value = splat(pad.input(2));
    if (!value) return std::nullopt;
    out.value = *value;
  }
  const auto pads = pad.opset < 2 ? ints_of(pad, "paddings", 1) : ints_of(pad, "pads", 1);
  if (!pads || std::any_of(pads->begin(), pads->end(),
                           [](std::int64_t p) { return p < 0 || is_far(p); }))
    return std::nullopt;
  out.pads = *pads;
  return out;
}

// Pad(Pad(x) by 1) by 2   =>   Pad(x) by 3, where both pad with one number
bool collapse_pads(Rewriter& w, ir::Node& n) {
  const ir::Node* first = sole_producer(n.input(0), "Pad");
  if (first == nullptr || first->input(0) == nullptr) return false;
  const auto inner = whole_padding(*first);
  auto outer = whole_padding(n);
  if (!inner || !outer) return w.miss(n, "the pads are not known, cut, or are of some axes only");
  if (inner->value != outer->value || inner->pads.size() != outer->pads.size())
    return w.miss(n, "they pad with different numbers");
  for (std::size_t i = 0; i < outer->pads.size(); ++i) outer->pads[i] += inner->pads[i];
  constexpr std::int64_t kPadsAreInput = 11;
  if (n.opset >= kPadsAreInput) {
    w.set_input(n, 1, w.constant(*n.graph(), "pads", ir::Tensor::ints(outer->pads)));
  } else {
    set_attr(n, n.opset < 2 ? "paddings" : "pads", std::move(outer->pads));
  }
  w.set_input(n, 0, first->input(0));
  return true;
}

/// Nothing in `v` is below zero, as its node says.
bool is_never_negative(const ir::Value* v) {
  const ir::Node* n = v->producer();
  return n != nullptr && (n->is("Relu") || n->is("Sigmoid") || n->is("Abs") || n->is("Exp"));
}

bool all_ones(const ir::Node& n, std::string_view name) {
  const auto v = ints_of(n, name, n.input_count());
  return !v || std::all_of(v->begin(), v->end(), [](std::int64_t d) { return d == 1; });
}

// AveragePool(Pad(x) by zeros), MaxPool(Pad(Relu(x)) by zeros)   =>   the pool of x with these pads
bool fuse_pad_into_pool(Rewriter& w, ir::Node& n) {
  constexpr std::int64_t kCountsPads = 7;
  const ir::Node* pad = sole_producer(n.input(0), "Pad");
  if (pad == nullptr || n.opset < kCountsPads) return false;
  const auto padding = padding_of(w, n, *pad);
  if (!padding) return false;
  auto own = own_pads(n, padding->pads.size());
  const auto kernel = ints_of(n, "kernel_shape", n.input_count());
  if (!own || !kernel || 2 * kernel->size() != own->size())
    return w.miss(n, "the pool's own pads follow from the input's size");
  if (attr_int(n, "ceil_mode", 0) != 0 || !all_ones(n, "dilations"))
    return w.miss(n, "the pool rounds its size up, or takes places apart");
  for (std::size_t i = 0; i < own->size(); ++i)
    if ((*own)[i] + padding->pads[i] >= (*kernel)[i % kernel->size()])
      return w.miss(n, "a window would hold nothing but padding");
  const ir::Value* x = pad->input(0);
  if (n.is("AveragePool")) {
    if (padding->value != 0.0) return w.miss(n, "it does not pad with zeros");
    const bool counts = attr_int(n, "count_include_pad", 0) != 0;
    if (!counts && std::any_of(own->begin(), own->end(), [](std::int64_t p) { return p != 0; }))
      return w.miss(n, "the pool's own pads do not count");
    set_attr(n, "count_include_pad", std::int64_t{1});
    return take_over(w, n, *pad, *padding, std::move(*own));
  }
  if (n.output_count() > 1 && n.output(1) != nullptr)
    return w.miss(n, "the places of the maxima would change");
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (padding->value != -kInfinity && !(padding->value == 0.0 && is_never_negative(x)))
    return w.miss(n, "what it pads with may be the maximum");
  return take_over(w, n, *pad, *padding, std::move(*own));
}

}  // namespace

std::span<const Rule> pad_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "collapse-pads",
       .what = "Pad of Pad by the same number",
       .apply = collapse_pads,
       .ops = {"Pad"}},
      {.name = "fuse-pad",
       .what = "padding by zeros into Conv",
       .apply = fuse_pad,
       .ops = {"Conv"}},
      {.name = "fuse-pad-into-pool",
       .what = "padding that counts for nothing, into AveragePool and MaxPool",
       .apply = fuse_pad_into_pool,
       .ops = {"AveragePool", "MaxPool"}},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
