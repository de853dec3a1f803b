// Recurrent layers as conversion wants them: torch's modules, with several layers and the batch first.
// ONNX has an operator a layer, whose output and weights torch's exporters rearrange around it.
#include "ops/onnx/recurrent.h"

#include <algorithm>
#include <unordered_set>

#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

using ops::RecurrentForm;
using ops::WeightView;

constexpr std::size_t kW = 1;
constexpr std::size_t kR = 2;
constexpr std::size_t kB = 3;
constexpr std::size_t kInitialH = 5;
constexpr std::int64_t kShapeIsInput = 5;  // the opset from which Reshape has it so
constexpr std::size_t kPieceFields = 6;

bool is_module(const ir::Node* n) {
  return n != nullptr && n->op == &ops::recurrent_module_op();
}

bool is_recurrent(const ir::Node& n) {
  return is_module(&n) || n.is("LSTM") || n.is("GRU") || n.is("RNN");
}

/// Whether nobody but recurrent layers, and the nodes that prepare the weights for them, uses them.
bool are_for_layers(const std::vector<ir::Value*>& leaves,
                    const std::unordered_set<const ir::Node*>& nodes) {
  const auto fits = [&](const ir::Value* v) {
    for (const ir::Use* u = v->first_use(); u != nullptr; u = u->next)
      if (nodes.count(u->user) == 0 && !is_recurrent(*u->user)) return false;
    return true;
  };
  for (const ir::Node* n : nodes)
    for (const ir::Value* v : n->outputs())
      if (v != nullptr && !fits(v)) return false;
  return std::all_of(leaves.begin(), leaves.end(), [&](const ir::Value* v) {
    return v->constant && (nodes.empty() || fits(v));
  });
}

/// Whether `v` is [steps, batch, features]: the same sizes as those of `x`, and so many features.
bool is_sequence(const ir::Value* v, const ir::Value* x, std::int64_t features) {
  const ir::Shape& a = v->type.shape;
  const ir::Shape& b = x->type.shape;
  return v->type.is_tensor() && a.has_rank() && a.rank() == 3 && b.has_rank() && b.rank() == 3 &&
         a[0] == b[0] && a[1] == b[1] && a[2] == ir::Dim(features);
}

bool has_perm(const ir::Node& n, const Ints& perm) {
  return n.is("Transpose") && ints_of(n, "perm", n.input_count()) == perm;
}

/// Where the output of ONNX, [steps, directions, batch, hidden], is brought to torch's form, `y` is that.
void replace_output(Rewriter& w, ir::Value& old, ir::Value& y, const ir::Value& x,
                    std::int64_t directions) {
  const std::int64_t features = y.type.shape[2].value();
  const auto joins = [&](const ir::Node& n) {
    return (n.is("Reshape") || (n.is("Squeeze") && directions == 1)) &&
           is_sequence(n.output(0), &x, features);
  };
  for (const ir::Use* u : old.uses()) {
    ir::Node& user = *u->user;
    if (directions == 1 && u->index == 0 && joins(user)) w.replace(user.output(0), &y);
    if (!has_perm(user, {0, 2, 1, 3})) continue;
    for (const ir::Use* v : user.output(0)->uses())
      if (v->index == 0 && joins(*v->user)) w.replace(v->user->output(0), &y);
  }
}

/// What is left reads what ONNX's operator gives, made of torch's.
void restore_output(Rewriter& w, ir::Value& old, ir::Value& y, std::int64_t directions,
                    ir::Node& before) {
  ir::Graph& g = *before.graph();
  const std::int64_t hidden = y.type.shape[2].value() / directions;
  ir::Value apart = {};
  apart.type = ir::Type::tensor(
      y.type.dtype, ir::Shape({y.type.shape[0], y.type.shape[1], directions, hidden}));
  ir::Value* const parts[] = {
      &y, w.constant(g, "", ir::Tensor::ints({0, 0, directions, hidden}))};
  ir::Node* reshape = w.add("Reshape", parts, apart, before);
  reshape->opset = std::max(reshape->opset, kShapeIsInput);
  ir::Value* const moved[] = {reshape->output(0)};
  ir::Node* transpose = w.add("Transpose", moved, old, before);
  set_attr(*transpose, "perm", Ints{0, 2, 1, 3});
  w.replace(&old, transpose->output(0));
}

const Ints& ints(const ir::Node& module, std::string_view name) {
  return std::get<Ints>(module.attribute(name)->data);
}

/// A module's node in front of `like`, with its name and attributes, and without outputs' types.
ir::Node* add_module(const ir::Node& like, std::string op_type, std::span<ir::Value* const> inputs,
                     ir::Node& before) {
  ir::Model& model = *before.graph()->model();
  const std::vector<std::string> names = {model.new_name("y"), model.new_name("h"),
                                          model.new_name("c")};
  ir::Node* n = before.graph()->add_node(std::move(op_type), "", inputs, names, &before);
  n->name = like.name;
  n->metadata = like.metadata;
  n->op = &ops::recurrent_module_op();
  n->opset = like.opset;
  return n;
}

/// Says what the outputs are, as inference will.
void set_types(ir::Node& n) {
  const ir::Shape& x = n.input(0)->type.shape;
  const ir::DType t = n.input(0)->type.dtype;
  const std::int64_t count = attr_int(n, "directions", 1);
  const std::int64_t hidden = attr_int(n, "hidden_size", 0);
  const std::size_t batch = attr_int(n, "batch_first", 0) != 0 ? 0 : 1;
  n.output(0)->type = ir::Type::tensor(t, ir::Shape({x[0], x[1], count * hidden}));
  for (std::size_t i = 1; i <= 2; ++i)
    n.output(i)->type = ir::Type::tensor(
        t, ir::Shape({count * attr_int(n, "num_layers", 1), x[batch], hidden}));
}

// LSTM(x, Concat(Slice(weight), ..), r, b), its output brought to torch's form   =>   nn.LSTM(x)
bool make_module(Rewriter& w, ir::Node& n) {
  std::optional<RecurrentForm> form;
  std::unordered_set<const ir::Node*> nodes;
  std::vector<WeightView> views;
  try {
    const ops::NodeContext c(n);
    form = ops::recurrent_form(c);
    if (!form || form->reverse || !c.shape(0).has_rank() || c.shape(0).rank() != 3) return false;
    for (std::size_t i = kW; i <= (form->bias ? kB : kR); ++i) {
      auto view = WeightView::of(n.input(i), nodes);
      if (!view) return false;
      views.push_back(std::move(*view));
    }
  } catch (const Error&) {
    return false;  // lowering says what is wrong with it
  }
  std::vector<ir::Value*> leaves;
  for (const WeightView& v : views)
    for (ir::Value* leaf : v.leaves())
      if (std::find(leaves.begin(), leaves.end(), leaf) == leaves.end()) leaves.push_back(leaf);
  if (!are_for_layers(leaves, nodes)) return false;
  const auto weights = ops::recurrent_weights(n.op_type, *form, 0, views[0], views[1],
                                              form->bias ? &views[2] : nullptr);
  if (!weights) return false;

  Ints listed;
  for (const ops::RecurrentWeight& weight : *weights) {
    const auto pieces = *weight.view.pieces();
    listed.push_back(static_cast<std::int64_t>(pieces.size()));
    for (const torch::Piece& p : pieces) {
      const auto at = std::find_if(leaves.begin(), leaves.end(),
                                   [&](const ir::Value* v) { return v->constant == p.tensor; });
      for (const std::int64_t field : {static_cast<std::int64_t>(at - leaves.begin()), p.offset,
                                       p.rows, p.columns, p.stride, std::int64_t{p.transpose}})
        listed.push_back(field);
    }
  }
  std::vector<ir::Value*> inputs{n.input(0), n.input(kInitialH),
                                 n.is("LSTM") ? n.input(kInitialH + 1) : nullptr};
  inputs.insert(inputs.end(), leaves.begin(), leaves.end());
  ir::Node* m = add_module(n, std::string(ops::kTorchPrefix) + n.op_type, inputs, n);
  for (const auto& [name, value] :
       {std::pair<const char*, std::int64_t>{"num_layers", 1}, {"hidden_size", form->hidden},
        {"input_size", form->inputs}, {"directions", form->directions},
        {"bias", form->bias ? 1 : 0}, {"batch_first", 0}})
    set_attr(*m, name, value);
  set_attr(*m, "nonlinearity", form->nonlinearity);
  set_attr(*m, "pieces", listed);
  set_types(*m);
  ir::Value& y = *m->output(0);
  for (std::size_t i = 1; i <= 2; ++i)
    if (n.output(i) != nullptr) w.replace(n.output(i), m->output(i));
  if (ir::Value* old = n.output(0); old != nullptr && old->has_uses()) {
    replace_output(w, *old, y, *n.input(0), form->directions);
    // Nodes that turned it are gone only later: whoever is left with a user needs ONNX's form.
    const auto uses = old->uses();
    const auto is_read = [](const ir::Use* u) {
      const auto& outputs = u->user->outputs();
      return u->user->op_type == "Return" ||
             std::any_of(outputs.begin(), outputs.end(),
                         [](const ir::Value* v) { return v != nullptr && v->has_uses(); });
    };
    if (std::any_of(uses.begin(), uses.end(), is_read))
      restore_output(w, *old, y, form->directions, n);
  }
  w.push(m);
  w.push_users(y);
  return true;
}

/// The module that a node was part of, as far as its names tell: of a weight, of the node, or what the
/// exporter has noted.
bool are_of_one_module(const ir::Node& a, const ir::Node& b) {
  const auto stem = [](const ir::Node& n) {
    for (std::size_t i = ops::kFirstWeight; i < n.input_count(); ++i)
      if (const auto at = n.input(i)->name.rfind("weight_ih_l"); at != std::string::npos)
        return n.input(i)->name.substr(0, at) + "weight_ih_l";
    return std::string();
  };
  if (!stem(a).empty() || !stem(b).empty()) return stem(a) == stem(b);
  if (!a.name.empty() && a.name[0] == '/' && b.name[0] == '/')
    return a.name.substr(0, a.name.rfind('/')) == b.name.substr(0, b.name.rfind('/'));
  for (const char* key : {"pkg.torch.onnx.name_scopes", "namespace"})
    for (const auto& [k, v] : a.metadata)
      if (k == key)
        return std::any_of(b.metadata.begin(), b.metadata.end(),
                           [&, &text = v](const auto& m) { return m.first == key && m.second == text; });
  return false;
}

/// Rows `from` to `to` of `v`.
ir::Value* rows_of(Rewriter& w, ir::Value& v, std::int64_t from, std::int64_t to,
                   const ir::Value& like, ir::Node& before) {
  constexpr std::int64_t kInputs = 10;  // the opset from which Slice has them
  ir::Graph& g = *before.graph();
  ir::Value* const inputs[] = {&v, w.constant(g, "", ir::Tensor::ints({from})),
                               w.constant(g, "", ir::Tensor::ints({to})),
                               w.constant(g, "", ir::Tensor::ints({0}))};
  ir::Node* slice = w.add("Slice", inputs, like, before);
  slice->opset = std::max(slice->opset, kInputs);
  return slice->output(0);
}

/// The state that both begin with: the parts of one, else joined; null where they begin with zeros.
ir::Value* joined_state(Rewriter& w, const ir::Node& first, ir::Node& second, std::size_t i) {
  ir::Value* const parts[] = {first.input(i), second.input(i)};
  if (parts[0] == nullptr) return nullptr;
  constexpr std::int64_t kInputs = 10;
  const auto rows = [](const ir::Value* v) {
    return v->type.shape.has_rank() && v->type.shape.rank() == 3 ? v->type.shape[0].constant()
                                                                 : std::nullopt;
  };
  const ir::Node* a = parts[0]->producer();
  const ir::Node* b = parts[1]->producer();
  const auto n = rows(parts[0]);
  const auto m = rows(parts[1]);
  if (n && m && a != nullptr && b != nullptr && a->is("Slice") && b->is("Slice") &&
      a->input(0) == b->input(0) && a->opset >= kInputs && b->opset >= kInputs &&
      rows(a->input(0)) == *n + *m) {
    const auto from = [](const ir::Node& s) {
      const auto starts = const_ints(s.input(1));
      const auto axes = const_ints(s.input(3));
      return s.input_count() <= 4 && starts && starts->size() == 1 && axes == Ints{0}
                 ? std::optional((*starts)[0])
                 : std::nullopt;
    };
    if (from(*a) == 0 && from(*b) == *n) return a->input(0);
  }
  ir::Node* concat = w.add("Concat", parts, *parts[0], second);
  set_attr(*concat, "axis", std::int64_t{0});
  ir::Dims dims = parts[0]->type.shape.dims();
  dims[0] = n && m ? ir::Dim(*n + *m) : ir::Dim();
  concat->output(0)->type.shape = ir::Shape(dims);
  concat->output(0)->declared.reset();
  return concat->output(0);
}

/// Where all that is wanted of two states is their join, `all` is that.
void replace_joined(Rewriter& w, const ir::Value& a, const ir::Value& b, ir::Value& all) {
  for (const ir::Use* u : a.uses()) {
    ir::Node& n = *u->user;
    if (!n.is("Concat") || attr_int(n, "axis", 1) != 0 || n.input(u->index + 1) != &b) continue;
    std::vector<ir::Value*> inputs;
    for (std::size_t i = 0; i < n.input_count(); ++i)
      if (i != u->index + 1) inputs.push_back(i == u->index ? &all : n.input(i));
    if (inputs.size() == 1) {
      w.replace(n.output(0), &all);
    } else {
      w.set_inputs(n, inputs);
    }
    return;
  }
}

// nn.LSTM(nn.LSTM(x)) of one module   =>   nn.LSTM(x) with both layers
bool stack_layers(Rewriter& w, ir::Node& n) {
  if (!is_module(&n)) return false;
  ir::Node* first = n.input(0)->producer();
  if (!is_module(first) || first->op_type != n.op_type || first->graph() != n.graph() ||
      n.input(0) != first->output(0) || !first->output(0)->has_one_use())
    return false;
  for (const char* name : {"hidden_size", "directions", "bias", "batch_first"})
    if (attr_int(*first, name, 0) != attr_int(n, name, 0)) return false;
  if (attr_string(*first, "nonlinearity", "") != attr_string(n, "nonlinearity", "")) return false;
  if ((first->input(1) == nullptr) != (n.input(1) == nullptr)) return false;
  if (!are_of_one_module(*first, n))
    return w.miss(n, "nothing says that {} is a layer of the same module", first->name);

  const auto layers_of = [](const ir::Node& m) { return attr_int(m, "num_layers", 1); };
  std::vector<ir::Value*> inputs{first->input(0), joined_state(w, *first, n, 1),
                                 joined_state(w, *first, n, 2)};
  for (const ir::Node* m : {static_cast<const ir::Node*>(first), static_cast<const ir::Node*>(&n)})
    for (std::size_t i = ops::kFirstWeight; i < m->input_count(); ++i) inputs.push_back(m->input(i));
  Ints listed = ints(*first, "pieces");
  const Ints more = ints(n, "pieces");
  for (std::size_t i = 0; i < more.size();) {
    const std::int64_t count = more[i++];
    listed.push_back(count);
    for (std::int64_t k = 0; k < count; ++k, i += kPieceFields) {
      listed.push_back(more[i] +
                       static_cast<std::int64_t>(first->input_count() - ops::kFirstWeight));
      listed.insert(listed.end(), more.begin() + static_cast<std::ptrdiff_t>(i + 1),
                    more.begin() + static_cast<std::ptrdiff_t>(i + kPieceFields));
    }
  }
  ir::Node* m = add_module(*first, n.op_type, inputs, n);
  for (const char* name : {"hidden_size", "input_size", "directions", "bias", "batch_first"})
    set_attr(*m, name, attr_int(*first, name, 0));
  set_attr(*m, "nonlinearity", attr_string(*first, "nonlinearity", ""));
  set_attr(*m, "num_layers", layers_of(*first) + layers_of(n));
  set_attr(*m, "pieces", listed);
  set_types(*m);
  w.replace(n.output(0), m->output(0));
  const std::int64_t count = attr_int(n, "directions", 1);
  const std::int64_t middle = layers_of(*first) * count;
  for (std::size_t i = 1; i <= 2; ++i) {
    ir::Value& all = *m->output(i);
    replace_joined(w, *first->output(i), *n.output(i), all);
    if (first->output(i)->has_uses())
      w.replace(first->output(i), rows_of(w, all, 0, middle, *first->output(i), n));
    if (n.output(i)->has_uses())
      w.replace(n.output(i), rows_of(w, all, middle, layers_of(*m) * count, *n.output(i), n));
  }
  w.push(m);
  return true;
}

// Transpose(nn.LSTM(Transpose(x)))   =>   nn.LSTM(x) with batch_first
bool put_batch_first(Rewriter& w, ir::Node& n) {
  const Ints kTurned{1, 0, 2};
  if (!is_module(&n) || attr_int(n, "batch_first", 0) != 0) return false;
  const ir::Node* turn = n.input(0)->producer();
  if (turn == nullptr || !has_perm(*turn, kTurned)) return false;
  const auto uses = n.output(0)->uses();
  for (const ir::Use* u : uses)
    if (!has_perm(*u->user, kTurned)) return false;
  w.set_input(n, 0, turn->input(0));
  set_attr(n, "batch_first", std::int64_t{1});
  set_types(n);
  n.output(0)->contents.reset();
  n.output(0)->declared.reset();
  for (const ir::Use* u : uses) w.replace(u->user->output(0), n.output(0));
  return true;
}

}  // namespace

std::span<const Rule> recurrent_rules() {
  static const std::vector<Rule> kRules = {
      {.name = "make-recurrent-module",
       .what = "LSTM, GRU and RNN with their weights become torch's modules",
       .apply = make_module,
       .ops = {"LSTM", "GRU", "RNN"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "stack-recurrent-layers",
       .what = "the layers of one recurrent module become one",
       .apply = stack_layers,
       .ops = {"torch.LSTM", "torch.GRU", "torch.RNN"},
       .in_conversion = true,
       .conversion_only = true},
      {.name = "recurrent-batch-first",
       .what = "transposes around a recurrent module that bring the batch first",
       .apply = put_batch_first,
       .ops = {"torch.LSTM", "torch.GRU", "torch.RNN"},
       .in_conversion = true,
       .conversion_only = true},
  };
  return kRules;
}

}  // namespace onnx2nn::passes
