#include "ops/torch_forms.h"

#include <algorithm>
#include <iterator>

#include "ops/lower.h"
#include "support/error.h"

namespace onnx2nn::ops {
namespace {

void infer_same(InferContext& c) {
  c.set(0, c.type(0));
}

// ---------------------------------------------------------------- ScaledDotProductAttention

void infer_attention(InferContext& c) {
  const Shape& q = c.shape(0);
  const Shape& v = c.shape(2);
  if (!q.has_rank() || !v.has_rank() || q.rank() == 0 || v.rank() == 0)
    return c.set(0, c.dtype(0));
  Dims out = q.dims();
  out.back() = v.dims().back();
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_attention(LowerContext& c) {
  Kwargs kw;
  if (c.has_input(3)) kw.emplace_back("attn_mask", c.in(3));
  if (c.attr_int("is_causal", 0) != 0) kw.emplace_back("is_causal", Ex(true));
  if (c.has_attr("scale")) kw.emplace_back("scale", Ex(c.attr_float("scale", 1.0)));
  if (c.attr_int("enable_gqa", 0) != 0) kw.emplace_back("enable_gqa", Ex(true));
  c.out(0, aten("scaled_dot_product_attention", {c.in(0), c.in(1), c.in(2)}, kw));
}

// ---------------------------------------------------------------- Unbind

void infer_unbind(InferContext& c) {
  const Shape& s = c.shape(0);
  const std::int64_t axis = c.attr_int("axis");
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    Dims out = s.dims();
    if (s.has_rank()) out.erase(out.begin() + static_cast<std::ptrdiff_t>(axis));
    c.set(i, c.dtype(0), s.has_rank() ? Shape(std::move(out)) : Shape());
  }
}

void lower_unbind(LowerContext& c) {
  c.outs(aten("unbind.int", {c.in(0), c.attr_int("axis")}));
}

// ---------------------------------------------------------------- Roll, Normalize

void lower_roll(LowerContext& c) {
  const Ints shifts = *c.attr_ints("shifts");
  const Ints axes = *c.attr_ints("axes");
  // Several shifts stay several, even where they are equal.
  const bool one = shifts.size() == 1;
  c.out(0, torch::call("torch.roll", {c.in(0), one ? Ex(shifts[0]) : Ex(shifts)},
                       {{"dims", one ? Ex(axes[0]) : Ex(axes)}}));
}

void lower_normalize(LowerContext& c) {
  Kwargs kw{{"dim", Ex(c.attr_int("axis"))}};
  constexpr double kTorchs = 1e-12;
  if (const double eps = c.attr_float("epsilon", kTorchs);
      static_cast<float>(eps) != static_cast<float>(kTorchs))
    kw.emplace_back("eps", Ex(eps));
  c.out(0, torch::call("F.normalize", {c.in(0)}, kw));
}

// ---------------------------------------------------------------- Linear, RoundRows

void infer_linear(InferContext& c) {
  const Shape& x = c.shape(0);
  const Shape& weight = c.shape(1);
  if (!x.has_rank() || x.rank() == 0 || !weight.has_rank()) return c.set(0, c.dtype(0));
  Dims out = x.dims();
  out.back() = weight[0];
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_linear(LowerContext& c) {
  if (const auto weight = c.weight(1)) {
    std::vector<ModuleParam> params{{.name = "weight", .value = c.input(1)}};
    if (c.has_input(2)) params.push_back({.name = "bias", .value = c.input(2)});
    const Kwargs kw = c.has_input(2) ? Kwargs{} : Kwargs{{"bias", Ex(false)}};
    const Args sizes{weight->dims[1], weight->dims[0]};
    if (const auto y = c.module("Linear", sizes, kw, params, {c.in(0)})) return c.out(0, *y);
  }
  Args operands{c.in(0), c.in(1)};
  if (c.has_input(2)) operands.push_back(c.in(2));
  c.out(0, aten("linear", operands));
}

void lower_round_rows(LowerContext& c) {
  c.out(0, helper("rounded_rows", {c.in(0), c.attr_int("block_size")}));
}

// ---------------------------------------------------------------- KeepIf

void infer_keep_if(InferContext& c) {
  const auto axis = static_cast<std::size_t>(c.attr_int("axis"));
  std::vector<std::pair<Dim, Dim>> kept;  // what a length becomes: the same for all of that length
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    Dims out = c.shape(i + 1).dims();
    const Dim length = out[axis];
    auto it = std::find_if(kept.begin(), kept.end(),
                           [&](const auto& k) { return k.first == length; });
    if (it == kept.end()) it = kept.insert(it, {length, c.fresh_symbol()});
    out[axis] = it->second;
    c.set(i, c.dtype(i + 1), Shape(std::move(out)));
  }
}

void lower_keep_if(LowerContext& c) {
  const std::int64_t axis = c.attr_int("axis");
  std::vector<std::pair<Dim, Ex>> ends;
  const bool negated = c.attr_int("negated") != 0;
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    const Dim& length = c.shape(i + 1)[static_cast<std::size_t>(axis)];
    auto it = std::find_if(ends.begin(), ends.end(), [&](const auto& e) { return e.first == length; });
    if (it == ends.end()) {
      const Ex all = c.dim(i + 1, axis);
      const Ex end = negated ? op("if", {c.in(0), 0, all}) : op("if", {c.in(0), all, 0});
      it = ends.insert(it, {length, c.let(end, "past_length")});
    }
    c.out(i, aten("slice.Tensor", {c.in(i + 1), axis, 0, it->second, 1}));
  }
}

constexpr OpDef kForms[] = {
    {.type = "KeepIf",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_keep_if,
     .lower = lower_keep_if},
    {.type = "ScaledDotProductAttention",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_attention,
     .lower = lower_attention},
    {.type = "Unbind",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_unbind,
     .lower = lower_unbind},
    {.type = "Roll",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_same,
     .lower = lower_roll},
    {.type = "Normalize",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_same,
     .lower = lower_normalize},
    {.type = "Linear",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_linear,
     .lower = lower_linear},
    {.type = "RoundRows",
     .domain = kTorchDomain,
     .changed_at = {1},
     .infer = infer_same,
     .lower = lower_round_rows},
};

}  // namespace

const OpDef& torch_form(std::string_view type) {
  const auto* it = std::find_if(std::begin(kForms), std::end(kForms),
                                [&](const OpDef& op) { return op.type == type; });
  ONNX2NN_CHECK(it != std::end(kForms), "no such form of torch");
  return *it;
}

}  // namespace onnx2nn::ops
