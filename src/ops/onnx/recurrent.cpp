// LSTM, GRU and RNN. https://onnx.ai/onnx/operators/onnx__LSTM.html and its neighbours.
// Torch's modules are the common form: the default activations, no peepholes, lengths, clip or
// input_forget, and of GRU the one that applies the linear map before the reset gate. All else goes
// to a helper. Opset 14 brought `layout`; `output_sequence` of opset 1 says nothing that the
// outputs do not.
#include <algorithm>
#include <array>
#include <cstring>

#include "ops/lower.h"
#include "ops/registry.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

struct Kind {
  const char* module;
  const char* function;
  std::size_t gates;
  std::array<std::size_t, 4> order;  // torch's gates by their place in ONNX
  std::array<std::string_view, 3> activations;
  std::size_t states;  // outputs after Y
};

constexpr Kind kLstm{"LSTM", "lstm", 4, {0, 2, 3, 1}, {"sigmoid", "tanh", "tanh"},
                     2};                                                         // iofc -> ifco
constexpr Kind kGru{"GRU", "gru", 3, {1, 0, 2, 0}, {"sigmoid", "tanh", ""}, 1};  // zrh -> rzh
constexpr Kind kRnn{"RNN", "rnn", 1, {0, 0, 0, 0}, {"tanh", "", ""}, 1};

constexpr std::size_t kW = 1;
constexpr std::size_t kR = 2;
constexpr std::size_t kB = 3;
constexpr std::size_t kLengths = 4;
constexpr std::size_t kInitialH = 5;
constexpr std::size_t kInitialC = 6;
constexpr std::size_t kPeepholes = 7;

std::string direction_of(const NodeContext& c) {
  const std::string d = to_lower(c.attr_string("direction", "forward"));
  if (d != "forward" && d != "reverse" && d != "bidirectional")
    c.fail("direction is none of forward, reverse and bidirectional");
  return d;
}

std::int64_t direction_count(const NodeContext& c) {
  return direction_of(c) == "bidirectional" ? 2 : 1;
}

void infer_recurrent(InferContext& c) {
  const Shape& x = c.shape(0);
  if (x.has_rank() && x.rank() != 3)
    c.fail("the input has rank " + std::to_string(x.rank()) + ", not 3");
  const bool batch_first = c.attr_int("layout", 0) != 0;
  const Dim steps = x.has_rank() ? x[batch_first ? 1 : 0] : Dim();
  const Dim batch = x.has_rank() ? x[batch_first ? 0 : 1] : Dim();
  const Dim count(direction_count(c));
  Dim hidden;
  if (c.has_attr("hidden_size")) {
    hidden = c.attr_int("hidden_size");
  } else if (const Shape& r = c.shape(kR); r.has_rank() && r.rank() == 3) {
    hidden = r[2];
  }
  const Shape state = batch_first ? Shape({batch, count, hidden}) : Shape({count, batch, hidden});
  c.set(0, c.dtype(0),
        batch_first ? Shape({batch, steps, count, hidden}) : Shape({steps, count, batch, hidden}));
  c.set(1, c.dtype(0), state);
  c.set(2, c.dtype(0), state);
}

// ---------------------------------------------------------------- torch's modules

/// Which nonlinearity a module has: "" is the default; nothing where torch has no such module.
std::optional<std::string> module_activation(const NodeContext& c, const Kind& kind) {
  const auto given = c.attr_strings("activations");
  if (!given || given->empty()) return "";
  const bool relu = kind.gates == 1 && to_lower((*given)[0]) == "relu";
  std::size_t per_direction = 0;
  while (per_direction < kind.activations.size() && !kind.activations[per_direction].empty())
    ++per_direction;
  for (std::size_t i = 0; i < given->size(); ++i)
    if (to_lower((*given)[i]) != (relu ? "relu" : kind.activations[i % per_direction]))
      return std::nullopt;
  return relu ? "relu" : "";
}

bool is_constant_of(const NodeContext& c, std::size_t i, const std::vector<std::int64_t>& dims) {
  const ir::Tensor* t = c.constant(i);
  return t != nullptr && t->dims() == dims && t->dtype() == c.dtype(kW);
}

/// Rows of direction `d`, gate by gate in torch's order; of the bias from gate `first` on.
ir::TensorPtr gates_of(const ir::Tensor& t, const Kind& kind, std::int64_t d, std::int64_t hidden,
                       std::size_t first) {
  const std::int64_t columns = t.rank() == 3 ? t.dims()[2] : 1;
  const auto gate_bytes = static_cast<std::size_t>(hidden * columns) *
                          static_cast<std::size_t>(ir::info(t.dtype()).bits / 8);
  const auto direction_bytes = t.bytes().size() / static_cast<std::size_t>(t.dims()[0]);
  std::vector<std::byte> bytes(kind.gates * gate_bytes);
  for (std::size_t g = 0; g < kind.gates; ++g)
    std::memcpy(bytes.data() + g * gate_bytes,
                t.bytes().data() + static_cast<std::size_t>(d) * direction_bytes +
                    (first + kind.order[g]) * gate_bytes,
                gate_bytes);
  std::vector<std::int64_t> dims{static_cast<std::int64_t>(kind.gates) * hidden};
  if (t.rank() == 3) dims.push_back(columns);
  return ir::Tensor::owned(t.dtype(), std::move(dims), std::move(bytes));
}

std::vector<ModuleParam> module_params(const NodeContext& c, const Kind& kind, std::int64_t count,
                                       std::int64_t hidden) {
  std::vector<ModuleParam> params;
  const auto add = [&](std::string name, std::size_t i, std::int64_t d, std::size_t first) {
    if (d == 1) name += "_reverse";
    params.push_back({.name = std::move(name),
                      .tensor = gates_of(*c.constant(i), kind, d, hidden, first),
                      .source = c.input(i)});
  };
  for (std::int64_t d = 0; d < count; ++d) {
    add("weight_ih_l0", kW, d, 0);
    add("weight_hh_l0", kR, d, 0);
    if (!c.has_input(kB)) continue;
    add("bias_ih_l0", kB, d, 0);
    add("bias_hh_l0", kB, d, kind.gates);
  }
  return params;
}

/// Whether all that torch's modules do not have is absent.
bool is_plain(const NodeContext& c, const Kind& kind) {
  if (c.has_input(kLengths) || (kind.states == 2 && c.has_input(kPeepholes))) return false;
  if (kind.states == 2 && c.has_input(kInitialH) != c.has_input(kInitialC)) return false;
  if (c.has_attr("clip") || c.attr_int("input_forget", 0) != 0 || c.attr_int("layout", 0) != 0)
    return false;
  return kind.gates != kGru.gates || c.attr_int("linear_before_reset", 0) != 0;
}

bool lower_as_module(LowerContext& c, const Kind& kind) {
  const ir::Tensor* w = c.constant(kW);
  const ir::Tensor* r = c.constant(kR);
  const auto activation = module_activation(c, kind);
  if (w == nullptr || r == nullptr || w->rank() != 3 || r->rank() != 3 || !is_plain(c, kind) ||
      !activation)
    return false;
  if (w->size() == 0 || r->size() == 0 || !ir::is_float(w->dtype()) ||
      ir::is_sub_byte(w->dtype()) || c.dtype(0) != w->dtype())
    return false;
  const std::int64_t count = direction_count(c);
  const std::int64_t hidden = r->dims()[2];
  const std::int64_t inputs = w->dims()[2];
  const std::int64_t rows = static_cast<std::int64_t>(kind.gates) * hidden;
  if (!is_constant_of(c, kW, {count, rows, inputs}) ||
      !is_constant_of(c, kR, {count, rows, hidden}))
    return false;
  if (c.has_input(kB) && !is_constant_of(c, kB, {count, 2 * rows})) return false;

  Kwargs kw;
  if (!activation->empty()) kw.emplace_back("nonlinearity", *activation);
  if (!c.has_input(kB)) kw.emplace_back("bias", false);
  if (count == 2) kw.emplace_back("bidirectional", true);
  const bool reverse = direction_of(c) == "reverse";
  Args args{reverse ? aten("flip", {c.in(0), Ex(Ints{0})}) : c.in(0)};
  if (c.has_input(kInitialH))
    args.push_back(kind.states == 2 ? torch::tuple({c.in(kInitialH), c.in(kInitialC)})
                                    : c.in(kInitialH));
  const auto call =
      c.module(kind.module, {inputs, hidden}, kw, module_params(c, kind, count, hidden), args);
  if (!call) return false;

  // Torch has [steps, batch, directions * hidden], ONNX [steps, directions, batch, hidden].
  const bool states = c.has_output(1) || c.has_output(2);
  std::vector<Ex> results;
  if (states)
    results = c.lets(*call,
                     {c.has_output(0) ? std::string("y") : std::string("_"), std::string("state")});
  if (c.has_output(0)) {
    Ex y = states ? results[0] : op("[]", {*call, 0});
    if (reverse) y = aten("flip", {y, Ex(Ints{0})});
    if (count == 1) {
      y = aten("unsqueeze", {y, 1});
    } else {
      if (!states) y = c.let(y, "y");
      y = aten("reshape", {y, list({torch::size(y, 0), torch::size(y, 1), count, hidden})});
      y = aten("transpose.int", {y, 1, 2});
    }
    c.out(0, y);
  }
  if (!states) return true;
  if (kind.states == 1) {
    c.alias(1, results[1]);
  } else {
    for (std::size_t i = 1; i <= 2; ++i)
      if (c.has_output(i)) c.out(i, op("[]", {results[1], static_cast<std::int64_t>(i) - 1}));
  }
  return true;
}

// ---------------------------------------------------------------- the helpers

Kwargs helper_keywords(const NodeContext& c, const Kind& kind) {
  Kwargs kw;
  if (const std::string d = direction_of(c); d != "forward") kw.emplace_back("direction", d);
  if (const auto names = c.attr_strings("activations"); names && !names->empty()) {
    Args items;
    for (const std::string& n : *names) items.emplace_back(n);
    kw.emplace_back("activations", list(items));
  }
  for (const char* name : {"activation_alpha", "activation_beta"})
    if (const auto v = c.attr_floats(name); v && !v->empty()) kw.emplace_back(name, Ex(*v));
  if (const double clip = c.attr_float("clip", 0.0); clip > 0.0) kw.emplace_back("clip", clip);
  if (kind.states == 2 && c.attr_int("input_forget", 0) != 0) kw.emplace_back("input_forget", true);
  if (kind.gates == kGru.gates && c.attr_int("linear_before_reset", 0) != 0)
    kw.emplace_back("linear_before_reset", true);
  if (const std::int64_t layout = c.attr_int("layout", 0); layout != 0)
    kw.emplace_back("layout", layout);
  return kw;
}

void lower_recurrent(LowerContext& c, const Kind& kind) {
  for (const char* name : {"hidden_size", "output_sequence", "activation_alpha", "activation_beta"})
    c.ignore_attr(name);
  if (lower_as_module(c, kind)) return;
  Args args;
  for (std::size_t i = 0; i < (kind.states == 2 ? kPeepholes : kInitialH) + 1; ++i)
    args.push_back(c.in(i));
  while (args.size() > 3 && args.back().is_none()) args.pop_back();
  std::vector<std::string> hints{"y", "h", "c"};
  hints.resize(kind.states + 1);
  for (std::size_t i = 0; i < hints.size(); ++i)
    if (!c.has_output(i)) hints[i] = "_";
  const auto results = c.lets(helper(kind.function, args, helper_keywords(c, kind)), hints);
  for (std::size_t i = 0; i < results.size(); ++i) c.alias(i, results[i]);
}

void lower_lstm(LowerContext& c) {
  lower_recurrent(c, kLstm);
}
void lower_gru(LowerContext& c) {
  lower_recurrent(c, kGru);
}
void lower_rnn(LowerContext& c) {
  lower_recurrent(c, kRnn);
}

// ---------------------------------------------------------------- GRUUnit
// Experimental in opset 1, and Caffe2's: hidden [1, batch, size], gates [1, batch, 3 * size].

void infer_gru_unit(InferContext& c) {
  c.set(0, c.type(0));
}

void lower_gru_unit(LowerContext& c) {
  Kwargs kw;
  if (c.attr_int("drop_states", 0) != 0) kw.emplace_back("drop_states", Ex(1));
  c.out(0, helper("gru_unit", {c.in(0), c.in(1), c.in(2), c.in(3)}, kw));
}

constexpr OpDef kOps[] = {
    {.type = "LSTM", .changed_at = {1, 7, 14}, .infer = infer_recurrent, .lower = lower_lstm},
    {.type = "GRU", .changed_at = {1, 3, 7, 14}, .infer = infer_recurrent, .lower = lower_gru},
    {.type = "RNN", .changed_at = {1, 7, 14}, .infer = infer_recurrent, .lower = lower_rnn},
    {.type = "GRUUnit", .changed_at = {1}, .infer = infer_gru_unit, .lower = lower_gru_unit},
};

}  // namespace

std::span<const OpDef> recurrent_ops() {
  return kOps;
}

}  // namespace onnx2nn::ops
