// Stretches of a graph with channels last, between transposes, turned to channels first.
//
// Exporters of frameworks that have channels last put a Transpose before and after each convolution. What
// lies between two convolutions (activations, sums, concatenations, pads, reductions) does the same with
// channels first, on other axes. So the values with channels last are taken together that such operators
// connect, and turned where that leaves fewer transposes than before.
#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "eval/eval.h"
#include "passes/match.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

/// Bytes of the largest constant whose elements are put into another order.
constexpr std::uint64_t kLargestTurned = std::uint64_t{64} << 20;

/// What of an operator hangs on the order of its axes.
enum class Kind : std::uint8_t {
  Plain,     // nothing
  Axis,      // the attribute `axis`
  Axes,      // `axes`, an attribute or input `at`
  Pads,      // numbers for the beginning and the end of each axis, an attribute or input 1
  PerAxis,   // a number for each axis: the constant of input `at`
  Shape,     // what it gives
};

/// An operator that can work in either order of its axes.
struct Form {
  Kind kind = Kind::Plain;
  std::size_t at = 0;
  std::vector<std::size_t> data;       // inputs in the order of the axes
  std::vector<std::size_t> constants;  // constants that are broadcast to them
  bool ends = false;                   // its outputs are the same in either order
};

std::optional<std::size_t> rank_of(const ir::Value* v) {
  if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank()) return std::nullopt;
  return v->type.shape.rank();
}

/// The axes of x with channels last, in x with channels first: (0, 2, 3, 1).
Ints to_last(std::size_t rank) {
  Ints perm{0};
  for (std::size_t i = 2; i < rank; ++i) perm.push_back(static_cast<std::int64_t>(i));
  perm.push_back(1);
  return perm;
}

/// The other way round: (0, 3, 1, 2).
Ints to_first(std::size_t rank) {
  Ints perm{0, static_cast<std::int64_t>(rank) - 1};
  for (std::size_t i = 1; i + 1 < rank; ++i) perm.push_back(static_cast<std::int64_t>(i));
  return perm;
}

bool moves(const ir::Node* n, Ints (*perm)(std::size_t)) {
  if (n == nullptr || !n->is("Transpose")) return false;
  const auto rank = rank_of(n->output(0));
  const auto own = ints_of(*n, "perm", n->input_count());
  return rank && *rank >= 3 && own && *own == perm(*rank);
}

const std::set<std::string_view>& unary() {
  static const std::set<std::string_view> kOps = {
      "Abs",   "Acos",    "Asin",       "Atan",     "Cast",     "Ceil",        "Celu",
      "Clip",  "Cos",     "Dropout",    "Elu",      "Erf",      "Exp",         "Floor",
      "Gelu",  "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",      "LeakyRelu",
      "Log",   "Mish",    "Neg",        "Not",      "Reciprocal", "Relu",      "Round",
      "Selu",  "Shrink",  "Sigmoid",    "Sign",     "Sin",      "Softplus",    "Softsign",
      "Sqrt",  "Swish",   "Tanh",       "ThresholdedRelu"};
  return kOps;
}

const std::set<std::string_view>& broadcasting() {
  static const std::set<std::string_view> kOps = {
      "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean",
      "Min", "Mod", "Mul", "Or",    "PRelu",   "Pow",            "Sub",  "Sum",         "Where", "Xor"};
  return kOps;
}

bool is_fixed(const ir::Value* v) { return v != nullptr && v->constant && !v->is_graph_input; }
bool is_number(const ir::Value* v) { return is_fixed(v) && v->constant->size() == 1; }

/// Inputs of an operator that broadcasts, or whose inputs have all one rank.
bool take_inputs(const ir::Node& n, std::size_t rank, bool broadcasts, Form& form) {
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const ir::Value* v = n.input(i);
    const auto r = rank_of(v);
    if (!r || *r > rank || (!broadcasts && *r != rank)) return false;
    if (is_number(v) || *r == 0) continue;
    if (is_fixed(v)) {
      form.constants.push_back(i);
    } else if (*r == rank) {
      form.data.push_back(i);
    } else {
      return false;
    }
  }
  return !form.data.empty();
}

/// Whether the axes other than these come in the same order either way.
bool others_keep_order(const Ints& axes, std::size_t rank) {
  const Ints perm = to_last(rank);
  std::int64_t last = -1;
  for (std::size_t i = 0; i < rank; ++i) {
    if (std::find(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) != axes.end()) continue;
    if (perm[i] < last) return false;
    last = perm[i];
  }
  return true;
}

std::optional<Form> axis_form(const ir::Node& n, std::int64_t otherwise, std::size_t rank) {
  Form form{.kind = Kind::Axis, .data = {0}};
  const std::int64_t axis = attr_int(n, "axis", otherwise);
  const auto r = static_cast<std::int64_t>(rank);
  return axis >= -r && axis < r ? std::optional(form) : std::nullopt;
}

/// Reductions, and what drops axes of one.
std::optional<Form> reduced_form(const ir::Node& n, std::size_t rank) {
  Form form{.kind = Kind::Axes, .at = 1, .data = {0}};
  const auto axes = reduced_axes(n);
  if (!axes) return std::nullopt;
  form.ends = n.is("Squeeze") || attr_int(n, "keepdims", 1) == 0;
  if (form.ends && !others_keep_order(*axes, rank)) return std::nullopt;
  return form;
}

std::optional<Form> resize_form(const ir::Node& n, std::size_t rank) {
  Form form{.kind = Kind::PerAxis, .at = 1, .data = {0}};
  if (n.is("Upsample") ? n.opset < 9 : n.opset < 10) return std::nullopt;
  if (n.is("Resize") && n.opset >= 11) {
    if (n.attribute("axes") != nullptr ||
        attr_string(n, "coordinate_transformation_mode", "") == "tf_crop_and_resize")
      return std::nullopt;
    const bool sized = n.input(3) != nullptr;
    form.at = sized ? 3 : 2;
    if (sized && n.input(2) != nullptr && !(is_fixed(n.input(2)) && n.input(2)->constant->size() == 0))
      return std::nullopt;
  }
  const ir::Value* numbers = n.input(form.at);
  if (!is_fixed(numbers) || numbers->constant->size() != static_cast<std::int64_t>(rank))
    return std::nullopt;
  return form;
}

std::optional<Form> pad_form(const ir::Node& n, std::size_t rank) {
  const auto pads = n.opset >= 2 ? ints_of(n, "pads", 1) : std::nullopt;
  if (!pads || pads->size() != 2 * rank || n.input(3) != nullptr) return std::nullopt;
  return Form{.kind = Kind::Pads, .at = 1, .data = {0}};
}

std::optional<Form> slice_form(const ir::Node& n) {
  const bool old = n.opset < 10;
  auto axes = old ? ints_of(n, "axes", n.input_count()) : const_ints(n.input(3));
  if (!axes || !counted_axes(std::move(*axes), n.input(0), false)) return std::nullopt;
  return Form{.kind = Kind::Axes, .at = 3, .data = {0}};
}

/// A Reshape or Flatten of what has but one axis that is not one, the first aside.
std::optional<Form> flat_form(const ir::Node& n, std::size_t rank) {
  std::size_t longer = 0;
  for (std::size_t i = 1; i < rank; ++i) {
    const ir::Dim& d = n.input(0)->type.shape[i];
    longer += d.is_const() && d.value() == 1 ? 0 : 1;
  }
  if (longer > 1) return std::nullopt;
  const Form form{.data = {0}, .ends = true};
  if (n.is("Flatten")) return attr_int(n, "axis", 1) == 1 ? std::optional(form) : std::nullopt;
  const auto target = n.opset >= 5 ? const_ints(n.input(1)) : std::nullopt;
  // A 0 takes over the size of an axis.
  if (!target || target->empty() || std::find(target->begin() + 1, target->end(), 0) != target->end())
    return std::nullopt;
  return form;
}

/// How `n` works in either order, if it does.
std::optional<Form> form_of(const ir::Node& n) {
  if (n.op == nullptr || n.unsound || !n.domain.empty() || n.output(0) == nullptr) return std::nullopt;
  const std::string_view type = n.op_type;
  if (broadcasting().count(type) != 0) {
    const auto rank = rank_of(n.output(0));
    Form form;
    if (!rank || *rank < 3 || n.opset < 8 || !take_inputs(n, *rank, true, form)) return std::nullopt;
    return form;
  }
  const auto rank = rank_of(n.input(0));
  if (!rank || *rank < 3) return std::nullopt;
  if (unary().count(type) != 0) {
    for (std::size_t i = 1; i < n.output_count(); ++i)
      if (n.output(i) != nullptr && n.output(i)->has_uses()) return std::nullopt;
    return Form{.data = {0}};
  }
  if (type == "Concat") {
    auto form = axis_form(n, 1, *rank);
    if (!form || n.attribute("axis") == nullptr) return std::nullopt;
    form->data.clear();
    return take_inputs(n, *rank, false, *form) ? form : std::nullopt;
  }
  // Before opset 13 all axes from the given one on were taken together.
  if (type == "Softmax" || type == "LogSoftmax" || type == "Hardmax")
    return n.opset >= 13 ? axis_form(n, -1, *rank) : std::nullopt;
  if (type == "LpNormalization") return axis_form(n, -1, *rank);
  if (type == "Split") return axis_form(n, 0, *rank);
  if (type == "ArgMax" || type == "ArgMin") {
    auto form = axis_form(n, 0, *rank);
    if (!form) return form;
    const std::int64_t axis = attr_int(n, "axis", 0);
    form->ends = attr_int(n, "keepdims", 1) == 0;
    const Ints gone{axis < 0 ? axis + static_cast<std::int64_t>(*rank) : axis};
    return form->ends && !others_keep_order(gone, *rank) ? std::nullopt : form;
  }
  if (type.substr(0, 6) == "Reduce" || type == "Squeeze") return reduced_form(n, *rank);
  if (type == "Resize" || type == "Upsample") return resize_form(n, *rank);
  if (type == "Reshape" || type == "Flatten") return flat_form(n, *rank);
  if (type == "Pad") return pad_form(n, *rank);
  if (type == "Slice") return slice_form(n);
  if (type == "Tile") {
    const auto repeats = n.opset >= 6 ? const_ints(n.input(1)) : std::nullopt;
    if (!repeats || repeats->size() != *rank || !is_fixed(n.input(1))) return std::nullopt;
    return Form{.kind = Kind::PerAxis, .at = 1, .data = {0}};
  }
  if (type == "QuantizeLinear" || type == "DequantizeLinear")
    return is_number(n.input(1)) ? std::optional(Form{.data = {0}}) : std::nullopt;
  if (type == "Shape" && n.attribute("start") == nullptr && n.attribute("end") == nullptr)
    return Form{.kind = Kind::Shape, .data = {0}, .ends = true};
  return std::nullopt;
}

/// Values with channels last that operators of either order connect.
struct Region {
  std::vector<ir::Node*> nodes;
  std::vector<ir::Value*> values;
};

class Channels {
 public:
  Channels(Rewriter& w, ir::Graph& g) : w_(w), g_(g) {}

  std::size_t run(std::size_t most) {
    std::size_t done = 0;
    for (const Region& r : regions()) {
      if (done == most) break;
      // What another region handed on is not what was found here: there is another sweep.
      const bool is_stale = std::any_of(r.values.begin(), r.values.end(),
                                        [&](const ir::Value* v) { return touched_.count(v) != 0; });
      if (is_stale || r.nodes.empty() || gain(r) <= 0) continue;
      turn(r);
      ++done;
    }
    return done;
  }

 private:
  std::vector<Region> regions();
  std::size_t root(std::size_t i);
  std::size_t index(ir::Value* v);
  bool is_member(const ir::Node* n) const { return forms_.count(n) != 0; }
  bool is_known(const ir::Node& n, const Form& form) const;
  bool in_region(const ir::Use& u) const;
  bool made_inside(const ir::Value* v) const {
    return v->producer() != nullptr && is_member(v->producer());
  }
  std::int64_t gain(const Region& r) const;
  void turn(const Region& r);
  ir::Value* transposed(ir::Value* v, const Ints& perm, ir::Node& before);
  void turn_constant(ir::Node& n, std::size_t i, std::size_t rank);
  void turn_node(ir::Node& n, const Form& form, std::size_t rank);

  Rewriter& w_;
  ir::Graph& g_;
  std::unordered_map<const ir::Node*, Form> forms_;
  std::unordered_map<const ir::Value*, std::size_t> indices_;
  std::vector<ir::Value*> values_;
  std::vector<std::size_t> parents_;
  std::unordered_set<const ir::Value*> touched_;
  std::map<std::pair<const ir::Value*, std::size_t>, ir::Value*> turned_;  // constants
};

std::size_t Channels::root(std::size_t i) {
  while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
  return i;
}

std::size_t Channels::index(ir::Value* v) {
  const auto [it, added] = indices_.emplace(v, values_.size());
  if (added) {
    values_.push_back(v);
    parents_.push_back(parents_.size());
  }
  return it->second;
}

/// Whether all that is to be turned is of this graph, and of one rank.
bool Channels::is_known(const ir::Node& n, const Form& form) const {
  const auto rank = rank_of(n.input(form.data.front()));
  for (const std::size_t i : form.data)
    if (n.input(i)->graph() != &g_) return false;
  // A state_dict of the author's has weights in their own shapes.
  const bool has_author = w_.model().info.producer_name == "pytorch";
  for (const std::size_t i : form.constants)
    if (has_author && n.input(i)->is_initializer) return false;
  return form.ends || std::all_of(n.outputs().begin(), n.outputs().end(), [&](const ir::Value* v) {
           return v == nullptr || rank_of(v) == rank;
         });
}

std::vector<Region> Channels::regions() {
  std::vector<ir::Node*> nodes;
  for (ir::Node* n = g_.first(); n != nullptr; n = n->next()) {
    if (w_.options().kept.count({n->domain, n->op_type}) != 0) continue;
    auto form = form_of(*n);
    if (!form || !is_known(*n, *form)) continue;
    nodes.push_back(n);
    const std::size_t first = index(n->input(form->data.front()));
    const auto join = [&](ir::Value* v) { parents_[root(index(v))] = root(first); };
    for (const std::size_t i : form->data) join(n->input(i));
    if (!form->ends)
      for (ir::Value* v : n->outputs())
        if (v != nullptr) join(v);
    forms_.emplace(n, std::move(*form));
  }
  std::vector<Region> out;
  std::unordered_map<std::size_t, std::size_t> of_root;
  const auto region = [&](ir::Value* v) -> Region& {
    const auto [it, added] = of_root.emplace(root(index(v)), out.size());
    if (added) out.emplace_back();
    return out[it->second];
  };
  for (ir::Node* n : nodes) region(n->input(forms_.at(n).data.front())).nodes.push_back(n);
  for (std::size_t i = 0; i < values_.size(); ++i) region(values_[i]).values.push_back(values_[i]);
  return out;
}

/// Whether a use of a value with channels last is one in that order by a node of its region.
bool Channels::in_region(const ir::Use& u) const {
  const auto it = forms_.find(u.user);
  if (it == forms_.end()) return false;
  const auto& data = it->second.data;
  return std::find(data.begin(), data.end(), u.index) != data.end();
}

/// By how many there are fewer transposes, once it is turned.
std::int64_t Channels::gain(const Region& r) const {
  std::int64_t fewer = 0;
  for (const ir::Value* v : r.values) {
    bool leaves = false;
    for (const ir::Use* u = v->first_use(); u != nullptr; u = u->next) {
      if (in_region(*u)) continue;
      if (moves(u->user, to_first)) {
        ++fewer;
      } else {
        leaves = true;
      }
    }
    if (made_inside(v)) {
      fewer -= leaves ? 1 : 0;
    } else if (moves(v->producer(), to_last)) {
      fewer += leaves ? 0 : 1;
    } else {
      --fewer;
    }
  }
  return fewer;
}

ir::Value* Channels::transposed(ir::Value* v, const Ints& perm, ir::Node& before) {
  ir::Type type = v->type;
  for (std::size_t i = 0; i < perm.size(); ++i)
    type.shape.dims()[i] = v->type.shape[static_cast<std::size_t>(perm[i])];
  ir::Value* const inputs[] = {v};
  ir::Node* n = w_.add_new("Transpose", inputs, v->name, std::move(type),
                           std::max<std::int64_t>(1, w_.model().opset("")), before);
  n->attributes.push_back({"perm", perm});
  if (w_.options().any_opset) n->metadata = before.metadata;
  return n->output(0);
}

/// A constant that is broadcast, with its channels first.
void Channels::turn_constant(ir::Node& n, std::size_t i, std::size_t rank) {
  ir::Value* c = n.input(i);
  Ints dims(rank, 1);
  const auto& own = c->constant->dims();
  std::copy(own.begin(), own.end(), dims.end() - static_cast<std::ptrdiff_t>(own.size()));
  const Ints perm = to_first(rank);
  if (const auto it = turned_.find({c, rank}); it != turned_.end())
    return w_.set_input(n, i, it->second);
  Ints moved;
  for (const std::int64_t p : perm)
    if (const std::int64_t d = dims[static_cast<std::size_t>(p)]; d != 1 || !moved.empty())
      moved.push_back(d);
  const auto reshaped = [&](const Ints& target) {
    if (target == own) return c;
    ir::Value* v = w_.weight(g_, *c, c->constant->reshaped(target));
    v->type = c->type;
    v->type.shape = ir::Shape::of(target);
    return v;
  };
  ir::Value* v = c;
  if (std::count(dims.begin(), dims.end(), 1) + 1 >= static_cast<std::int64_t>(rank)) {
    v = reshaped(moved);
  } else {
    v = transposed(reshaped(dims), perm, n);
    // Where it is too large, there is a transpose more.
    const auto known = eval::evaluate(*v->producer(), kLargestTurned);
    if (known && known->size() == 1 && known->front()) {
      const ir::Type type = v->type;
      v = w_.weight(g_, *c, known->front());
      v->type = type;
    }
  }
  turned_.emplace(std::pair(c, rank), v);
  w_.set_input(n, i, v);
}

void Channels::turn_node(ir::Node& n, const Form& form, std::size_t rank) {
  const Ints first = to_first(rank), last = to_last(rank);
  const auto moved = [&](std::int64_t axis) {
    return last[static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis)];
  };
  const auto give = [&](std::string_view name, Ints values) {
    if (n.attribute(name) != nullptr) return set_attr(n, name, std::move(values));
    w_.set_input(n, form.at,
                 w_.constant(g_, w_.model().new_name(name), ir::Tensor::ints(values)));
  };
  switch (form.kind) {
    case Kind::Plain: break;
    case Kind::Axis: {
      const std::int64_t otherwise = n.is("Split") || n.is("ArgMax") || n.is("ArgMin") ? 0 : -1;
      set_attr(n, "axis", moved(attr_int(n, "axis", otherwise)));
      break;
    }
    case Kind::Axes: {
      Ints axes = *ints_of(n, "axes", form.at);
      for (std::int64_t& a : axes) a = moved(a);
      give("axes", std::move(axes));
      break;
    }
    case Kind::Pads: {
      const Ints pads = *ints_of(n, "pads", form.at);
      Ints out(2 * rank);
      for (std::size_t i = 0; i < rank; ++i) {
        out[i] = pads[static_cast<std::size_t>(first[i])];
        out[rank + i] = pads[rank + static_cast<std::size_t>(first[i])];
      }
      give("pads", std::move(out));
      break;
    }
    case Kind::PerAxis: {
      const ir::Tensor& t = *n.input(form.at)->constant;
      ir::TensorPtr out;
      if (ir::is_integer(t.dtype())) {
        const Ints own = t.to_ints();
        Ints values;
        for (const std::int64_t p : first) values.push_back(own[static_cast<std::size_t>(p)]);
        out = ir::Tensor::ints(values);
      } else {
        std::vector<float> values;
        for (const std::int64_t p : first)
          values.push_back(static_cast<float>(t.double_at(static_cast<std::size_t>(p))));
        out = ir::Tensor::from(ir::DType::Float32, {static_cast<std::int64_t>(rank)}, values);
      }
      w_.set_input(n, form.at, w_.constant(g_, w_.model().new_name("sizes"), std::move(out)));
      break;
    }
    case Kind::Shape: {
      ir::Value* const shape_of[] = {n.input(0)};
      ir::Type type = n.output(0)->type;
      ir::Node* shape = w_.add_new("Shape", shape_of, n.output(0)->name, type, n.opset, n);
      ir::Value* const inputs[] = {
          shape->output(0), w_.constant(g_, w_.model().new_name("axes"), ir::Tensor::ints(last))};
      w_.replace(n.output(0), w_.add("Gather", inputs, *n.output(0), n)->output(0));
      break;
    }
  }
}

void Channels::turn(const Region& r) {
  // What lies outside gets values as they were; what comes from outside is turned on its way in.
  std::unordered_map<const ir::Value*, ir::Value*> entering;
  for (ir::Value* v : r.values) {
    const std::size_t rank = *rank_of(v);
    const bool inside = made_inside(v);
    ir::Value* first = nullptr;
    if (!inside) {
      ir::Node* producer = v->producer();
      ir::Node* before = producer != nullptr ? producer->next() : g_.first();
      first = moves(producer, to_last) ? producer->input(0) : transposed(v, to_first(rank), *before);
      entering.emplace(v, first);
      touched_.insert(first);
    }
    std::vector<ir::Use*> leaving;
    for (ir::Use* u : v->uses()) {
      if (in_region(*u) || (first != nullptr && u->user == first->producer())) continue;
      if (moves(u->user, to_first)) {
        touched_.insert(u->user->output(0));
        if (!inside) w_.replace(u->user->output(0), first);
      } else if (inside) {
        leaving.push_back(u);
      }
    }
    if (!inside) continue;
    ir::Value* last = nullptr;
    if (!leaving.empty()) {
      // It has the type of what is turned already.
      ir::Node* producer = v->producer();
      last = transposed(v, to_last(rank), *producer);
      g_.move_before(producer, last->producer());
      last->type = v->type;
      last->contents = v->contents;
      last->declared = v->declared;
      std::swap(last->name, v->name);
      for (const ir::Use* u : leaving) w_.set_input(*u->user, u->index, last);
    } else {
      v->name = w_.model().new_name(v->name);
    }
    v->contents.reset();
    v->declared.reset();
    ir::Shape shape = v->type.shape;
    const Ints perm = to_first(rank);
    for (std::size_t i = 0; i < rank; ++i)
      shape.dims()[i] = v->type.shape[static_cast<std::size_t>(perm[i])];
    v->type.shape = std::move(shape);
    for (const ir::Use* u : v->uses())
      if (moves(u->user, to_first)) w_.replace_by_changed(u->user->output(0), v);
  }
  for (ir::Node* n : r.nodes) {
    const Form& form = forms_.at(n);
    const std::size_t rank = *rank_of(n->input(form.data.front()));
    for (const std::size_t i : form.data)
      if (const auto it = entering.find(n->input(i)); it != entering.end())
        w_.set_input(*n, i, it->second);
    for (const std::size_t i : form.constants) turn_constant(*n, i, rank);
    turn_node(*n, form, rank);
    w_.push(n);
    for (const ir::Value* v : n->outputs())
      if (v != nullptr) w_.push_users(*v);
  }
}

}  // namespace

std::size_t move_channels(Rewriter& w, ir::Graph& g, std::size_t most) {
  std::size_t done = Channels(w, g).run(most);
  for (ir::Node* n = g.first(); n != nullptr; n = n->next())
    for (ir::Graph* inner : n->subgraphs()) done += move_channels(w, *inner, most - done);
  return done;
}

}  // namespace onnx2nn::passes
