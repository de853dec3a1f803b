// LSTM, GRU and RNN. https://onnx.ai/onnx/operators/onnx__LSTM.html and its neighbours.
// Torch's modules are the common form: the default activations, no peepholes, lengths, clip or
// input_forget, and of GRU the one that applies the linear map before the reset gate. All else goes
// to a helper. Opset 14 brought `layout`; `output_sequence` of opset 1 says nothing that the
// outputs do not.
#include "ops/onnx/recurrent.h"

#include <algorithm>
#include <array>

#include "ops/lower.h"
#include "ops/registry.h"
#include "support/checked.h"
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

const Kind* kind_of(std::string_view op_type) {
  return op_type == "LSTM" ? &kLstm : op_type == "GRU" ? &kGru : op_type == "RNN" ? &kRnn : nullptr;
}

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

/// Whether all that torch's modules do not have is absent.
bool is_plain(const NodeContext& c, const Kind& kind) {
  if (c.has_input(kLengths) || (kind.states == 2 && c.has_input(kPeepholes))) return false;
  if (kind.states == 2 && c.has_input(kInitialH) != c.has_input(kInitialC)) return false;
  if (c.has_attr("clip") || c.attr_int("input_forget", 0) != 0 || c.attr_int("layout", 0) != 0)
    return false;
  return kind.gates != kGru.gates || c.attr_int("linear_before_reset", 0) != 0;
}

/// "weight_ih_l0_reverse"
std::string weight_name(std::string_view stem, std::int64_t layer, std::int64_t direction) {
  return std::string(stem) + "_l" + std::to_string(layer) + (direction == 1 ? "_reverse" : "");
}

/// Rows of direction `d`, gate by gate in torch's order; of the bias from gate `first` on.
WeightView gates_of(const WeightView& all, const Kind& kind, std::int64_t d, std::int64_t hidden,
                    std::size_t first) {
  const WeightView one = all.select(0, d);
  std::vector<WeightView> gates;
  for (std::size_t g = 0; g < kind.gates; ++g) {
    const auto from = static_cast<std::int64_t>(first + kind.order[g]) * hidden;
    gates.push_back(one.slice(0, from, from + hidden));
  }
  return WeightView::concat(gates, 0);
}

/// As parameters of a module; those that are a constant as it is are that, unless `copies`.
std::vector<ModuleParam> module_params(const std::vector<RecurrentWeight>& weights, bool copies) {
  std::vector<ModuleParam> params;
  for (const RecurrentWeight& weight : weights) {
    ModuleParam p;
    p.name = weight.name;
    p.shape = weight.view.dims();
    if (ir::Value* whole = weight.view.whole(); whole != nullptr && !copies) {
      p.value = whole;
    } else {
      p.pieces = *weight.view.pieces();
    }
    params.push_back(std::move(p));
  }
  return params;
}

std::optional<WeightView> constant_view(const NodeContext& c, std::size_t i) {
  std::unordered_set<const ir::Node*> nodes;
  return c.constant(i) != nullptr ? WeightView::of(c.input(i), nodes) : std::nullopt;
}

bool lower_as_module(LowerContext& c, const Kind& kind) {
  const auto form = recurrent_form(c);
  const auto w = constant_view(c, kW);
  const auto r = constant_view(c, kR);
  const auto b = constant_view(c, kB);
  if (!form || !w || !r || (form->bias && !b)) return false;
  const auto weights =
      recurrent_weights(c.node().op_type, *form, 0, *w, *r, form->bias ? &*b : nullptr);
  if (!weights) return false;

  Kwargs kw;
  if (!form->nonlinearity.empty()) kw.emplace_back("nonlinearity", form->nonlinearity);
  if (!form->bias) kw.emplace_back("bias", false);
  if (form->directions == 2) kw.emplace_back("bidirectional", true);
  Args args{form->reverse ? aten("flip", {c.in(0), Ex(Ints{0})}) : c.in(0)};
  if (c.has_input(kInitialH))
    args.push_back(kind.states == 2 ? torch::tuple({c.in(kInitialH), c.in(kInitialC)})
                                    : c.in(kInitialH));
  auto call = c.module(kind.module, {form->inputs, form->hidden}, kw,
                       module_params(*weights, false), args);
  if (!call)
    call = c.module(kind.module, {form->inputs, form->hidden}, kw, module_params(*weights, true),
                    args);
  if (!call) return false;

  // Torch has [steps, batch, directions * hidden], ONNX [steps, directions, batch, hidden].
  const bool states = c.has_output(1) || c.has_output(2);
  std::vector<Ex> results;
  if (states)
    results = c.lets(*call,
                     {c.has_output(0) ? std::string("y") : std::string("_"), std::string("state")});
  if (c.has_output(0)) {
    Ex y = states ? results[0] : op("[]", {*call, 0});
    if (form->reverse) y = aten("flip", {y, Ex(Ints{0})});
    if (form->directions == 1) {
      y = aten("unsqueeze", {y, 1});
    } else {
      if (!states) y = c.let(y, "y");
      y = aten("reshape", {y, list({torch::size(y, 0), torch::size(y, 1), form->directions,
                                    form->hidden})});
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

// ---------------------------------------------------------------- modules of several layers

std::string_view plain_type(const ir::Node& n) {
  return std::string_view(n.op_type).substr(kTorchPrefix.size());
}

void infer_module(InferContext& c) {
  const Shape& x = c.shape(0);
  const std::int64_t count = c.attr_int("directions");
  const std::int64_t hidden = c.attr_int("hidden_size");
  const std::size_t batch_at = c.attr_int("batch_first") != 0 ? 0 : 1;
  const bool ranked = x.has_rank() && x.rank() == 3;
  Dims y(3);
  y[2] = Dim(count * hidden);
  if (ranked) y[0] = x[0];
  if (ranked) y[1] = x[1];
  const Shape state({Dim(count * c.attr_int("num_layers")), ranked ? x[batch_at] : Dim(), hidden});
  c.set(0, c.dtype(0), Shape(y));
  c.set(1, c.dtype(0), state);
  c.set(2, c.dtype(0), state);
}

/// The weights that a module's node lists.
std::vector<ModuleParam> listed_params(const LowerContext& c, std::int64_t inputs, bool copies) {
  const Ints listed = *c.attr_ints("pieces");
  const std::int64_t hidden = c.attr_int("hidden_size");
  const std::int64_t count = c.attr_int("directions");
  const auto rows = static_cast<std::int64_t>(kind_of(plain_type(c.node()))->gates) * hidden;
  std::vector<ModuleParam> params;
  std::size_t at = 0;
  const auto next = [&] { return listed.at(at++); };
  for (std::int64_t layer = 0; layer < c.attr_int("num_layers"); ++layer) {
    for (std::int64_t d = 0; d < count; ++d) {
      const auto add = [&](std::string_view stem, Ints shape) {
        ModuleParam p;
        p.name = weight_name(stem, layer, d);
        p.shape = std::move(shape);
        const ir::Value* whole = nullptr;
        for (std::int64_t left = next(); left > 0; --left) {
          torch::Piece piece;
          whole = c.input(kFirstWeight + static_cast<std::size_t>(next()));
          piece.tensor = whole->constant;
          piece.offset = next();
          piece.rows = next();
          piece.columns = next();
          piece.stride = next();
          piece.transpose = next() != 0;
          p.pieces.push_back(std::move(piece));
        }
        const torch::Piece& first = p.pieces.at(0);
        if (!copies && p.pieces.size() == 1 && !first.transpose && first.offset == 0 &&
            (first.rows == 1 || first.stride == first.columns) &&
            first.rows * first.columns == first.tensor->size()) {
          p.value = whole;
          p.pieces.clear();
        }
        params.push_back(std::move(p));
      };
      add("weight_ih", {rows, layer == 0 ? inputs : count * hidden});
      add("weight_hh", {rows, hidden});
      if (c.attr_int("bias") == 0) continue;
      add("bias_ih", {rows});
      add("bias_hh", {rows});
    }
  }
  return params;
}

void lower_module(LowerContext& c) {
  const Kind& kind = *kind_of(plain_type(c.node()));
  const std::int64_t inputs = c.attr_int("input_size");
  const std::int64_t layers = c.attr_int("num_layers");
  const std::string nonlinearity = c.attr_string("nonlinearity", "");
  c.ignore_attr("pieces");
  Kwargs kw;
  if (layers != 1) kw.emplace_back("num_layers", layers);
  if (!nonlinearity.empty()) kw.emplace_back("nonlinearity", nonlinearity);
  if (c.attr_int("bias") == 0) kw.emplace_back("bias", false);
  if (c.attr_int("batch_first") != 0) kw.emplace_back("batch_first", true);
  if (c.attr_int("directions") == 2) kw.emplace_back("bidirectional", true);
  Args args{c.in(0)};
  if (c.has_input(1))
    args.push_back(kind.states == 2 ? torch::tuple({c.in(1), c.in(2)}) : c.in(1));
  const Args sizes{inputs, c.attr_int("hidden_size")};
  auto call = c.module(kind.module, sizes, kw, listed_params(c, inputs, false), args);
  // A weight that is used elsewhere too stays there as well.
  if (!call) call = c.module(kind.module, sizes, kw, listed_params(c, inputs, true), args);
  if (!call) c.fail("its weights are no parameters of a module");

  const bool states = c.node().output(1)->has_uses() ||
                      (kind.states == 2 && c.node().output(2)->has_uses());
  if (!states) return c.out(0, op("[]", {*call, 0}));
  const bool has_y = c.node().output(0)->has_uses();
  const auto results =
      c.lets(*call, {has_y ? "y" : "_", kind.states == 2 ? "state" : "h"});
  c.alias(0, results[0]);
  if (kind.states == 1) return c.alias(1, results[1]);
  if (c.node().output(1)->has_uses() && c.node().output(2)->has_uses()) {
    const auto both = c.lets(results[1], {"h", "c"});
    c.alias(1, both[0]);
    c.alias(2, both[1]);
    return;
  }
  for (std::size_t i = 1; i <= 2; ++i)
    if (c.node().output(i)->has_uses())
      c.out(i, op("[]", {results[1], static_cast<std::int64_t>(i) - 1}));
}

constexpr OpDef kModule = {
    .type = "torch.recurrent", .changed_at = {1}, .infer = infer_module, .lower = lower_module};

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

constexpr OpDef kRecurrentOps[] = {
    {.type = "LSTM", .changed_at = {1, 7, 14}, .infer = infer_recurrent, .lower = lower_lstm},
    {.type = "GRU", .changed_at = {1, 3, 7, 14}, .infer = infer_recurrent, .lower = lower_gru},
    {.type = "RNN", .changed_at = {1, 7, 14}, .infer = infer_recurrent, .lower = lower_rnn},
    {.type = "GRUUnit", .changed_at = {1}, .infer = infer_gru_unit, .lower = lower_gru_unit},
};

}  // namespace

std::optional<RecurrentForm> recurrent_form(const NodeContext& c) {
  const Kind* kind = kind_of(c.node().op_type);
  if (kind == nullptr || !is_plain(c, *kind)) return std::nullopt;
  const auto activation = module_activation(c, *kind);
  const auto fixed = [&](std::size_t i) {
    return c.has_input(i) && c.dtype(i) == c.dtype(0) && c.shape(i).has_rank()
               ? c.shape(i).constant()
               : std::nullopt;
  };
  const auto w = fixed(kW);
  const auto r = fixed(kR);
  if (!activation || !ir::is_float(c.dtype(0)) || ir::is_sub_byte(c.dtype(0)) || !w || !r ||
      w->size() != 3 || r->size() != 3)
    return std::nullopt;
  RecurrentForm form;
  form.inputs = (*w)[2];
  form.hidden = (*r)[2];
  form.directions = direction_count(c);
  form.reverse = direction_of(c) == "reverse";
  form.bias = c.has_input(kB);
  form.nonlinearity = *activation;
  if (form.inputs <= 0 || form.hidden <= 0) return std::nullopt;
  const std::int64_t rows = checked_mul(form.hidden, static_cast<std::int64_t>(kind->gates));
  if (*w != Ints{form.directions, rows, form.inputs} ||
      *r != Ints{form.directions, rows, form.hidden} ||
      (form.bias && fixed(kB) != Ints{form.directions, checked_mul(rows, 2)}))
    return std::nullopt;
  return form;
}

std::optional<std::vector<RecurrentWeight>> recurrent_weights(std::string_view op_type,
                                                              const RecurrentForm& form,
                                                              std::int64_t layer,
                                                              const WeightView& w,
                                                              const WeightView& r,
                                                              const WeightView* b) {
  const Kind& kind = *kind_of(op_type);
  std::vector<RecurrentWeight> out;
  for (std::int64_t d = 0; d < form.directions; ++d) {
    const auto add = [&](std::string_view stem, const WeightView& from, std::size_t first) {
      out.push_back(
          {weight_name(stem, layer, d), gates_of(from, kind, d, form.hidden, first)});
    };
    add("weight_ih", w, 0);
    add("weight_hh", r, 0);
    if (b == nullptr) continue;
    add("bias_ih", *b, 0);
    add("bias_hh", *b, kind.gates);
  }
  for (const RecurrentWeight& weight : out)
    if (!weight.view.pieces()) return std::nullopt;
  return out;
}

const OpDef& recurrent_module_op() {
  return kModule;
}

std::span<const OpDef> recurrent_ops() {
  return kRecurrentOps;
}

}  // namespace onnx2nn::ops
