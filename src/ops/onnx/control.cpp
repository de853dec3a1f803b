// If, Loop, Scan and SequenceMap: nested graphs as Python's own statements.
// https://onnx.ai/onnx/operators/onnx__Loop.html and its neighbours.
#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "ops/lower.h"
#include "ops/names.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

using torch::Block;
using torch::Stmt;
using torch::VarPtr;

// ---------------------------------------------------------------- types

/// What holds of both types.
Type common(const Type& a, const Type& b) {
  if (a.kind == Type::Kind::Unknown || a.kind != b.kind) return {};
  Type out = a;
  if (a.dtype != b.dtype) out.dtype = DType::Undefined;
  if (a.element && b.element)
    out.element = std::make_shared<const Type>(common(*a.element, *b.element));
  if (!a.shape.has_rank() || !b.shape.has_rank() || a.shape.rank() != b.shape.rank()) {
    out.shape = Shape();
    return out;
  }
  Dims dims = a.shape.dims();
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (!(dims[i] == b.shape[i])) dims[i] = Dim();
  out.shape = Shape(std::move(dims));
  return out;
}

Type without_shape(Type type);

/// What holds of a carried value, given what one round makes of it; the element type never changes.
Type common_carried(const Type& now, const Type& next) {
  if (now.kind == Type::Kind::Unknown) return without_shape(next);
  Type both = common(now, next);
  if (both.kind == Type::Kind::Unknown) return without_shape(now);
  if (both.dtype == DType::Undefined)
    both.dtype = now.dtype == DType::Undefined ? next.dtype : now.dtype;
  return both;
}

Type without_shape(Type type) {
  type.shape = Shape();
  if (type.element) type.element = std::make_shared<const Type>(without_shape(*type.element));
  return type;
}

/// Forgets what was said of the shapes inside `graph`: it held for other inputs.
void forget_shapes(const ir::Graph& graph) {
  ir::for_each_node(graph, [](ir::Node& node) {
    for (ir::Value* v : node.outputs())
      if (v != nullptr) v->type = without_shape(v->type);
  });
}

std::size_t depth_of(const ir::Graph* graph) {
  std::size_t depth = 0;
  for (; graph != nullptr; graph = graph->outer()) ++depth;
  return depth;
}

/// Types of carried values that hold on every round: begins with the initial ones and drops what a
/// round does not keep. `set_inputs` gives the body's inputs their types; afterwards the body is
/// inferred.
std::vector<Type> infer_carried(InferContext& c, ir::Graph& body, std::vector<Type> carried,
                                std::size_t first_output,
                                const std::function<void(const std::vector<Type>&)>& set_inputs) {
  // Each try may infer the bodies inside several times, so that deep nests would take exponential
  // time.
  constexpr int kMaxTries = 4;
  constexpr std::size_t kMaxDepth = 4;
  const std::uint64_t mark = c.mark();
  for (int attempt = depth_of(c.node().graph()) > kMaxDepth ? kMaxTries : 0;; ++attempt) {
    const bool last = attempt >= kMaxTries || c.in_a_hurry();
    if (last)
      for (Type& t : carried) t = without_shape(t);
    forget_shapes(body);
    set_inputs(carried);
    Diagnostics found;
    c.infer_graph(body, last ? nullptr : &found);
    if (last) return carried;
    bool stable = true;
    for (std::size_t i = 0; i < carried.size(); ++i) {
      Type both = common_carried(
          carried[i], c.without_symbols_since(mark, body.output(first_output + i)->type));
      stable = stable && both.str() == carried[i].str();
      carried[i] = std::move(both);
    }
    if (stable && !found.has_errors()) return carried;
    // A contradiction that the shapes of the first round caused goes away without them.
    if (stable) attempt = kMaxTries - 1;
  }
}

void check_outputs(const NodeContext& c, const ir::Graph& body, std::size_t inputs,
                   std::size_t outputs) {
  if (body.inputs.size() != inputs)
    c.fail("the body takes " + std::to_string(body.inputs.size()) + " inputs, not " +
           std::to_string(inputs));
  if (body.output_count() != outputs)
    c.fail("the body gives " + std::to_string(body.output_count()) + " outputs, not " +
           std::to_string(outputs));
}

// ---------------------------------------------------------------- names of results

/// Calls visit(id) for each variable that `e` reads.
template <typename Visit>
void for_each_read(const torch::Expr& e, const Visit& visit) {
  if (e.kind == torch::ExprKind::Var) visit(e.var->id);
  for (const auto& a : e.args) for_each_read(*a, visit);
  for (const auto& [_, v] : e.keywords) for_each_read(*v, visit);
}

Stmt assignment(std::vector<VarPtr> targets, Ex value) {
  Stmt s;
  s.targets = std::move(targets);
  s.value = std::move(value);
  return s;
}

Stmt effect(Ex value) {
  Stmt s;
  s.value = std::move(value);
  return s;
}

/// Where the statements of a block assign and read variables, inner blocks included; found in one
/// walk, so that a block of many results stays linear.
class BlockIndex {
 public:
  explicit BlockIndex(Block& block) : block_(block) {
    for (std::size_t i = 0; i < block.size(); ++i) add(block[i], i);
  }

  void push(Stmt s) {
    add(s, block_.size());
    block_.push_back(std::move(s));
  }
  /// The first statement that assigns `id`, and the last one that reads it.
  std::optional<std::size_t> first_assigned(int id) const { return find(first_assigned_, id); }
  std::optional<std::size_t> last_read(int id) const { return find(last_read_, id); }

  /// Makes every variable that goes by `id` the variable `to`: a result that an inner node named
  /// before is several of them. False where the block assigns none.
  bool rename(int id, const torch::Var& to) {
    const auto it = targets_.find(id);
    if (it == targets_.end()) return false;
    std::vector<VarPtr> renamed = std::move(it->second);
    targets_.erase(it);
    for (const VarPtr& v : renamed) *v = to;
    std::vector<VarPtr>& all = targets_[to.id];
    all.insert(all.end(), renamed.begin(), renamed.end());
    return true;
  }

 private:
  static std::optional<std::size_t> find(const std::unordered_map<int, std::size_t>& map, int id) {
    const auto it = map.find(id);
    return it == map.end() ? std::nullopt : std::optional(it->second);
  }

  void add(const Stmt& s, std::size_t i) {
    for_each_read(*s.value, [&](int id) { last_read_[id] = i; });
    for (const VarPtr& v : s.targets) {
      first_assigned_.emplace(v->id, i);
      targets_[v->id].push_back(v);
    }
    for (const Block* inner : {&s.body, &s.orelse})
      for (const Stmt& t : *inner) add(t, i);
  }

  Block& block_;
  std::unordered_map<int, std::size_t> first_assigned_;
  std::unordered_map<int, std::size_t> last_read_;
  std::unordered_map<int, std::vector<VarPtr>> targets_;
};

/// Gives the variable that a branch assigned its result to the result's name, so that no copy is
/// needed.
bool rename(const Ex& value, const VarPtr& to, BlockIndex& block, std::set<int>& taken) {
  if (value->kind != torch::ExprKind::Var || taken.count(value->var->id) != 0) return false;
  if (!block.rename(value->var->id, *to)) return false;
  *value->var = *to;
  taken.insert(to->id);
  return true;
}

/// Ends `block` with `to = value`.
void settle(BlockIndex& block, const VarPtr& to, const Ex& value, std::set<int>& taken) {
  if (!rename(value, to, block, taken)) block.push(assignment({to}, value));
}

bool is_scalar(const ir::Value* v) {
  return v->type.shape.has_rank() && v->type.shape.rank() == 0;
}

/// A lowered value as a tensor.
Ex tensor(LowerContext& c, const Lowered& lowered, const ir::Value* value) {
  return c.materialise(lowered, value->type.dtype, is_scalar(value) || lowered.elements.empty());
}

VarPtr output_var(LowerContext& c, std::size_t i) {
  const ir::Value* v = c.node().output(i);
  return c.new_var(variable_hint(v->name, c.node().op_type), v);
}

// ---------------------------------------------------------------- If

/// The branch that a constant condition takes, or null.
ir::Graph* constant_branch(const NodeContext& c) {
  const ir::Tensor* t = c.constant(0);
  if (t == nullptr || t->size() != 1 || t->dtype() != DType::Bool) return nullptr;
  return c.attr_graph(t->int_at(0) != 0 ? "then_branch" : "else_branch");
}

void infer_if(InferContext& c) {
  if (ir::Graph* only = constant_branch(c)) {
    check_outputs(c, *only, 0, c.output_count());
    c.infer_graph(*only);
    for (std::size_t i = 0; i < c.output_count(); ++i) {
      c.set(i, only->output(i)->type);
      if (only->output(i)->contents) c.set_contents(i, *only->output(i)->contents);
    }
    return;
  }
  const std::uint64_t mark = c.mark();
  ir::Graph& yes = *c.attr_graph("then_branch");
  ir::Graph& no = *c.attr_graph("else_branch");
  check_outputs(c, yes, 0, c.output_count());
  check_outputs(c, no, 0, c.output_count());
  c.infer_graph(yes);
  c.infer_graph(no);
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    Type type = common(yes.output(i)->type, no.output(i)->type);
    if (ir::Value* v = c.node().output(i)) v->type = without_shape(v->type);
    c.set(i, c.without_symbols_since(mark, std::move(type)));
  }
}

void lower_if(LowerContext& c) {
  c.ignore_attr("then_branch");
  c.ignore_attr("else_branch");
  std::vector<Lowered> yes;
  std::vector<Lowered> no;
  if (const ir::Graph* only = constant_branch(c)) {
    c.inline_graph(*only, yes);
    for (std::size_t i = 0; i < c.output_count(); ++i)
      if (c.has_output(i)) c.define(c.node().output(i), yes[i]);
    return;
  }
  const ir::Graph& then_graph = *c.attr_graph("then_branch");
  const ir::Graph& else_graph = *c.attr_graph("else_branch");
  Stmt s;
  s.kind = Stmt::Kind::If;
  s.value = c.in(0);
  s.body = c.block(then_graph, {}, yes);
  s.orelse = c.block(else_graph, {}, no);
  std::set<int> taken;
  BlockIndex body(s.body);
  BlockIndex orelse(s.orelse);
  std::vector<std::pair<const ir::Value*, VarPtr>> results;
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    const ir::Value* v = c.node().output(i);
    if (v == nullptr || !v->has_uses()) continue;
    results.emplace_back(v, output_var(c, i));
    const VarPtr& var = results.back().second;
    settle(body, var, tensor(c, yes[i], then_graph.output(i)), taken);
    taken.erase(var->id);  // the branches never both run
    settle(orelse, var, tensor(c, no[i], else_graph.output(i)), taken);
    taken.insert(var->id);
  }
  if (s.body.empty() && s.orelse.empty()) return;
  if (s.body.empty()) {
    s.value = op("not", {s.value});
    std::swap(s.body, s.orelse);
  }
  c.emit(std::move(s));
  for (const auto& [v, var] : results) c.define(v, {.ex = Ex(var)});
}

// ---------------------------------------------------------------- lists that become tensors

/// A list that collects one output of every round.
struct Collected {
  const ir::Value* output = nullptr;
  VarPtr list;
};

Collected collect(LowerContext& c, std::size_t output) {
  Collected out{c.node().output(output), nullptr};
  out.list = c.new_var(variable_hint(out.output->name, c.node().op_type) + "_list");
  c.emit(assignment({out.list}, list({})));
  return out;
}

/// The collected values along a new axis. Where no round may have run, the dtype and sizes say what
/// is empty; ONNX Runtime takes 0 for a size that is not fixed.
Ex stacked(const Ex& values, std::int64_t axis, const Type& element, bool may_be_empty) {
  if (element.dtype != DType::String && !may_be_empty)
    return axis == 0 ? aten("stack", {values}) : aten("stack", {values, axis});
  std::vector<Ex> sizes;
  for (const Dim& d : element.shape.dims()) sizes.emplace_back(d.is_const() ? d.value() : 0);
  Kwargs kw;
  if (axis != 0) kw.emplace_back("axis", Ex(axis));
  if (element.dtype == DType::String)
    return helper("stack_string_rounds", {values, list(sizes)}, kw);
  const DType dtype = element.dtype == DType::Undefined ? DType::Float32 : element.dtype;
  return helper("stack_rounds", {values, list(sizes), dtype}, kw);
}

// ---------------------------------------------------------------- carried values

struct Carried {
  VarPtr var;  // null: it never changes
  Ex next;     // the body's value for the next round
};

/// Ends a loop's body: gives each carried variable its next value, all at once.
void advance(Block& body, std::vector<Carried>& carried) {
  std::set<int> taken;
  // Each variable's number of other values whose next one reads it.
  std::unordered_map<int, std::size_t> readers;
  for (const Carried& k : carried) {
    std::set<int> read;
    for_each_read(*k.next, [&](int id) { read.insert(id); });
    if (k.var) {
      taken.insert(k.var->id);
      read.erase(k.var->id);
    }
    for (const int id : read) ++readers[id];
  }
  BlockIndex index(body);
  std::vector<Carried*> rest;
  for (Carried& k : carried) {
    if (!k.var || (k.next->kind == torch::ExprKind::Var && k.next->var->id == k.var->id)) continue;
    bool free = k.next->kind == torch::ExprKind::Var && readers.count(k.var->id) == 0;
    // The old value must not be read once the new one has its name.
    if (free) {
      const auto set = index.first_assigned(k.next->var->id);
      const auto read = index.last_read(k.var->id);
      if (set && read)
        free = *read < *set || (*read == *set && body[*set].kind == Stmt::Kind::Assign);
    }
    if (!free || !rename(k.next, k.var, index, taken)) rest.push_back(&k);
  }
  bool at_once = false;
  std::set<int> before;
  for (const Carried* k : rest) {
    for_each_read(*k->next, [&](int id) { at_once = at_once || before.count(id) != 0; });
    before.insert(k->var->id);
  }
  if (!at_once) {
    for (Carried* k : rest) body.push_back(assignment({k->var}, k->next));
    return;
  }
  std::vector<VarPtr> targets;
  Args values;
  for (Carried* k : rest) {
    targets.push_back(k->var);
    values.push_back(k->next);
  }
  body.push_back(assignment(std::move(targets), torch::tuple(values)));
}

bool reads_any(const torch::Expr& e, const std::vector<Carried>& carried) {
  std::set<int> read;
  for_each_read(e, [&](int id) { read.insert(id); });
  return std::any_of(carried.begin(), carried.end(),
                     [&](const Carried& k) { return k.var && read.count(k.var->id) != 0; });
}

/// A variable for a body's input, assigned its first value before the loop.
VarPtr start(LowerContext& c, const ir::Value* body_input, const Ex& first) {
  const VarPtr var = c.new_var(variable_hint(body_input->name, c.node().op_type), body_input);
  c.emit(assignment({var}, first));
  return var;
}

// ---------------------------------------------------------------- Loop

bool constant_true(const ir::Value* v) {
  return v != nullptr && v->constant && v->constant->dtype() == DType::Bool &&
         v->constant->size() == 1 && v->constant->int_at(0) != 0;
}

/// What a Loop is made of.
struct LoopForm {
  explicit LoopForm(const NodeContext& c) : body(*c.attr_graph("body")) {
    carried = c.input_count() > 2 ? c.input_count() - 2 : 0;
    if (c.output_count() < carried) c.fail("it has fewer outputs than loop-carried values");
    scans = c.output_count() - carried;
    check_outputs(c, body, 2 + carried, 1 + carried + scans);
    const bool begins = !c.has_input(1) || constant_true(c.input(1));
    const ir::Value* next = body.output(0);
    // The condition never changes: true all along, or false from the start.
    may_break = !constant_true(next) && !(next == body.inputs[1] && begins);
    always_begins = begins;
    if (const auto n = c.const_ints(0); n && n->size() == 1) trips = n->front();
    bounded = c.has_input(0) && (!trips || *trips < kForever);
  }

  // Exporters say "as long as the condition holds" by a number that no loop reaches.
  static constexpr std::int64_t kForever = std::int64_t{1} << 31;
  ir::Graph& body;
  std::size_t carried = 0;
  std::size_t scans = 0;
  bool may_break = false;
  bool always_begins = false;
  bool bounded = false;
  std::optional<std::int64_t> trips;

  bool unchanged(std::size_t i) const { return body.output(1 + i) == body.inputs[2 + i]; }
  bool never_empty() const { return always_begins && (!bounded || trips.value_or(0) > 0); }
};

void infer_loop(InferContext& c) {
  const LoopForm form(c);
  ir::Graph& body = form.body;
  const std::uint64_t mark = c.mark();
  const Dim counter = c.fresh_symbol();
  std::vector<Type> initial;
  for (std::size_t i = 0; i < form.carried; ++i) {
    Type t = c.type(2 + i);
    if (t.kind == Type::Kind::Unknown) t = without_shape(body.inputs[2 + i]->type);
    // The elements of a sequence need not be alike.
    if (!t.is_tensor() && !form.unchanged(i)) t = without_shape(t);
    initial.push_back(std::move(t));
  }
  // Both may be scalars or of one element.
  const auto own_shape = [&](std::size_t i) {
    const Shape& s = body.inputs[i]->type.shape;
    return s.has_rank() && s.rank() == 1 ? Shape({Dim(1)}) : Shape(Dims{});
  };
  const Type count = Type::tensor(DType::Int64, own_shape(0));
  const Type condition = c.has_input(1) ? c.type(1) : Type::tensor(DType::Bool, own_shape(1));
  const auto set_inputs = [&](const std::vector<Type>& carried) {
    body.inputs[0]->type = count;
    body.inputs[0]->contents = Dims{counter};
    body.inputs[1]->type = condition;
    for (std::size_t i = 0; i < form.carried; ++i) {
      body.inputs[2 + i]->type = carried[i];
      body.inputs[2 + i]->contents.reset();
      if (form.unchanged(i)) body.inputs[2 + i]->contents = c.contents(2 + i);
    }
  };
  const std::vector<Type> carried = infer_carried(c, body, std::move(initial), 1, set_inputs);
  for (std::size_t i = 0; i < c.output_count(); ++i)
    if (ir::Value* v = c.node().output(i)) v->type = without_shape(v->type);
  for (std::size_t i = 0; i < form.carried; ++i)
    c.set(i, c.without_symbols_since(mark, carried[i]));
  for (std::size_t i = 0; i < form.scans; ++i) {
    const Type t = c.without_symbols_since(mark, body.output(1 + form.carried + i)->type);
    if (!t.shape.has_rank()) {
      c.set(form.carried + i, t.dtype);
      continue;
    }
    Dims dims{Dim()};
    const auto n = c.contents(0);
    if (n && n->size() == 1 && !form.may_break && form.always_begins)
      dims[0] = Dim::max(n->front(), 0);
    dims.insert(dims.end(), t.shape.dims().begin(), t.shape.dims().end());
    c.set(form.carried + i, t.dtype, Shape(std::move(dims)));
  }
}

void lower_loop(LowerContext& c) {
  const LoopForm form(c);
  const ir::Graph& body = form.body;
  std::vector<Lowered> inputs(2 + form.carried);
  std::vector<Collected> lists;
  for (std::size_t i = 0; i < form.scans; ++i)
    if (c.has_output(form.carried + i) && c.node().output(form.carried + i)->has_uses()) {
      lists.push_back(collect(c, form.carried + i));
    } else {
      lists.emplace_back();
    }

  std::vector<Carried> carried(form.carried);
  for (std::size_t i = 0; i < form.carried; ++i) {
    if (form.unchanged(i)) {
      inputs[2 + i] = c.lowered(2 + i);
      continue;
    }
    carried[i].var = start(c, body.inputs[2 + i], c.in(2 + i));
    inputs[2 + i] = {.ex = Ex(carried[i].var)};
  }
  // `while` needs the condition as a variable, and so does a body that reads it.
  const bool loops_while = !form.bounded;
  const bool reads_condition = body.inputs[1]->has_uses();
  VarPtr condition;
  if (reads_condition || (loops_while && (form.may_break || !form.always_begins)))
    condition = start(c, body.inputs[1], c.has_input(1) ? c.in(1) : aten("tensor", {true}));
  inputs[1] = condition ? Lowered{.ex = Ex(condition)} : Lowered{};
  const VarPtr counter = c.new_var(variable_hint(body.inputs[0]->name, "i"));
  const bool counts = body.inputs[0]->has_uses();
  if (loops_while && counts) c.emit(assignment({counter}, 0));
  inputs[0] = {.host = true, .elements = {Ex(counter)}};

  std::vector<Lowered> outputs;
  Stmt loop;
  loop.body = c.block(body, inputs, outputs);
  for (std::size_t i = 0; i < form.scans; ++i)
    if (lists[i].list)
      loop.body.push_back(
          effect(op(".append", {Ex(lists[i].list), tensor(c, outputs[1 + form.carried + i],
                                                          body.output(1 + form.carried + i))})));
  for (std::size_t i = 0; i < form.carried; ++i)
    if (carried[i].var) carried[i].next = tensor(c, outputs[1 + i], body.output(1 + i));
  Ex keep;
  if (form.may_break) {
    keep = tensor(c, outputs[0], body.output(0));
    if (condition) {
      carried.push_back({condition, keep});
      keep = Ex(condition);
    } else if (reads_any(*keep, carried)) {
      const VarPtr var = c.new_var("keep");
      loop.body.push_back(assignment({var}, keep));
      keep = Ex(var);
    }
  }
  advance(loop.body, carried);

  if (!loops_while) {
    loop.kind = Stmt::Kind::For;
    loop.targets = {counter};
    Ex count = op("range", {c.int_scalar(0)});
    if (!form.always_begins) count = op("range", {op("if", {c.in(1), c.int_scalar(0), 0})});
    loop.value = count;
    if (form.may_break) {
      Stmt stop;
      stop.kind = Stmt::Kind::Break;
      stop.value = op("not", {keep});
      loop.body.push_back(std::move(stop));
    }
  } else {
    loop.kind = Stmt::Kind::While;
    loop.value = condition ? Ex(condition) : Ex(true);
    if (counts) loop.body.push_back(assignment({counter}, op("+", {Ex(counter), 1})));
  }
  c.emit(std::move(loop));

  for (std::size_t i = 0; i < form.carried; ++i)
    if (const ir::Value* v = c.node().output(i))
      c.define(v, carried[i].var ? Lowered{.ex = Ex(carried[i].var)} : inputs[2 + i]);
  for (std::size_t i = 0; i < form.scans; ++i)
    if (lists[i].list)
      c.out(form.carried + i, stacked(Ex(lists[i].list), 0, body.output(1 + form.carried + i)->type,
                                      !form.never_empty()));
}

// ---------------------------------------------------------------- Scan
// Opset 8 had a batch axis in front of everything and optional lengths; from 9 on there is none.

struct ScanForm {
  explicit ScanForm(const NodeContext& c) : body(*c.attr_graph("body")), batched(c.opset() < 9) {
    first = batched ? 1 : 0;
    const std::int64_t n = c.attr_int("num_scan_inputs");
    const auto given =
        static_cast<std::int64_t>(c.input_count() - std::min(c.input_count(), first));
    if (n < 1 || n > given)
      c.fail("num_scan_inputs is " + std::to_string(n) + " of " + std::to_string(given) +
             " inputs");
    inputs = static_cast<std::size_t>(n);
    states = static_cast<std::size_t>(given - n);
    if (c.output_count() < states) c.fail("it has fewer outputs than state variables");
    outputs = c.output_count() - states;
    check_outputs(c, body, states + inputs, states + outputs);
    input_axes = numbers(c, "scan_input_axes", inputs);
    output_axes = numbers(c, "scan_output_axes", outputs);
    input_reversed = numbers(c, batched ? "directions" : "scan_input_directions", inputs);
    output_reversed = numbers(c, "scan_output_directions", outputs);
  }

  static Ints numbers(const NodeContext& c, std::string_view name, std::size_t count) {
    Ints out = c.attr_ints(name).value_or(Ints{});
    if (out.empty()) out.assign(count, 0);
    if (out.size() != count)
      c.fail(std::string(name) + " has " + std::to_string(out.size()) + " numbers, not " +
             std::to_string(count));
    return out;
  }

  ir::Graph& body;
  bool batched;
  std::size_t first = 0;  // input, after the sequence lengths of opset 8
  std::size_t inputs = 0;
  std::size_t states = 0;
  std::size_t outputs = 0;
  Ints input_axes;
  Ints output_axes;
  Ints input_reversed;
  Ints output_reversed;

  std::size_t input(std::size_t i) const { return first + states + i; }
};

Type without_axis(const NodeContext& c, Type type, std::int64_t axis) {
  if (!type.shape.has_rank()) return type;
  Dims dims = type.shape.dims();
  dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(c.axis(axis, dims.size())));
  type.shape = Shape(std::move(dims));
  return type;
}

void infer_scan(InferContext& c) {
  const ScanForm form(c);
  ir::Graph& body = form.body;
  const std::uint64_t mark = c.mark();
  std::vector<Type> initial;
  for (std::size_t i = 0; i < form.states; ++i) {
    const Type t = c.type(form.first + i);
    initial.push_back(form.batched ? without_axis(c, t, 0) : t);
  }
  const auto set_inputs = [&](const std::vector<Type>& states) {
    for (std::size_t i = 0; i < form.states; ++i) {
      body.inputs[i]->type = states[i];
      body.inputs[i]->contents.reset();
    }
    for (std::size_t i = 0; i < form.inputs; ++i) {
      Type t = c.type(form.input(i));
      t = without_axis(c, t, form.batched ? 1 : form.input_axes[i]);
      if (form.batched) t = without_axis(c, t, 0);
      body.inputs[form.states + i]->type = t;
      body.inputs[form.states + i]->contents.reset();
    }
  };
  const std::vector<Type> states = infer_carried(c, body, std::move(initial), 0, set_inputs);
  Dim length;
  Dim batch;
  if (const Shape& s = c.shape(form.input(0)); s.has_rank()) {
    length = s[static_cast<std::size_t>(c.axis(form.batched ? 1 : form.input_axes[0], s.rank()))];
    batch = s[0];
  }
  for (std::size_t i = 0; i < c.output_count(); ++i)
    if (ir::Value* v = c.node().output(i)) v->type = without_shape(v->type);
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    Type t = c.without_symbols_since(mark, i < form.states ? states[i] : body.output(i)->type);
    if (t.shape.has_rank()) {
      Dims dims = t.shape.dims();
      if (i >= form.states) {
        const std::int64_t axis = c.axis(form.output_axes[i - form.states], dims.size() + 1);
        dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis), length);
      }
      if (form.batched) dims.insert(dims.begin(), batch);
      t.shape = Shape(std::move(dims));
    }
    c.set(i, t);
  }
}

/// What is iterated over: the slices of `x` along `axis`.
Ex slices(const Ex& x, std::int64_t axis, bool reversed) {
  const Ex parts = axis == 0 ? aten("unbind.int", {x}) : aten("unbind.int", {x, axis});
  return reversed ? op("reversed", {parts}) : parts;
}

/// The loop over the steps; `states` are the variables, `columns` what the slices come from.
void scan_steps(LowerContext& c, const ScanForm& form, const std::vector<VarPtr>& states,
                const Args& columns, const Ints& axes, const std::vector<VarPtr>& lists,
                const std::function<void(Stmt)>& emit) {
  Stmt loop;
  loop.kind = Stmt::Kind::For;
  std::vector<Lowered> inputs(form.states + form.inputs);
  for (std::size_t i = 0; i < form.states; ++i) inputs[i] = {.ex = Ex(states[i])};
  Args iterables;
  for (std::size_t i = 0; i < form.inputs; ++i) {
    const ir::Value* v = form.body.inputs[form.states + i];
    loop.targets.push_back(c.new_var(variable_hint(v->name, "x"), v));
    inputs[form.states + i] = {.ex = Ex(loop.targets.back())};
    iterables.push_back(slices(columns[i], axes[i], form.input_reversed[i] != 0));
  }
  loop.value = iterables.size() == 1 ? iterables[0] : op("zip", iterables);
  std::vector<Lowered> outputs;
  loop.body = c.block(form.body, inputs, outputs);
  for (std::size_t i = 0; i < form.outputs; ++i)
    if (lists[i])
      loop.body.push_back(effect(op(
          ".append",
          {Ex(lists[i]), tensor(c, outputs[form.states + i], form.body.output(form.states + i))})));
  std::vector<Carried> carried;
  for (std::size_t i = 0; i < form.states; ++i)
    carried.push_back({states[i], tensor(c, outputs[i], form.body.output(i))});
  advance(loop.body, carried);
  emit(std::move(loop));
}

Ex in_order(const Ex& values, bool reversed) {
  return reversed ? op("[]", {values, op("raw", {"::-1"})}) : values;
}

bool may_be_empty(const NodeContext& c, std::size_t input, std::int64_t axis) {
  const Shape& s = c.shape(input);
  if (!s.has_rank()) return true;
  const Dim& d = s[static_cast<std::size_t>(c.axis(axis, s.rank()))];
  return !d.is_const() || d.value() == 0;
}

void lower_scan(LowerContext& c) {
  const ScanForm form(c);
  const auto emit = [&](Stmt s) { c.emit(std::move(s)); };
  std::vector<VarPtr> lists(form.outputs);
  for (std::size_t i = 0; i < form.outputs; ++i)
    if (c.has_output(form.states + i)) lists[i] = collect(c, form.states + i).list;

  if (!form.batched) {
    std::vector<VarPtr> states;
    Args columns;
    for (std::size_t i = 0; i < form.states; ++i)
      states.push_back(start(c, form.body.inputs[i], c.in(i)));
    for (std::size_t i = 0; i < form.inputs; ++i) columns.push_back(c.in(form.input(i)));
    scan_steps(c, form, states, columns, form.input_axes, lists, emit);
    for (std::size_t i = 0; i < form.states; ++i)
      if (const ir::Value* v = c.node().output(i)) c.define(v, {.ex = Ex(states[i])});
    const bool empty = may_be_empty(c, form.input(0), form.input_axes[0]);
    for (std::size_t i = 0; i < form.outputs; ++i)
      if (lists[i])
        c.out(form.states + i,
              stacked(in_order(Ex(lists[i]), form.output_reversed[i] != 0), form.output_axes[i],
                      form.body.output(form.states + i)->type, empty));
    return;
  }

  // One batch entry after the other, each as long as it is; what is shorter is padded with zeros.
  std::vector<VarPtr> finals(form.states);
  for (std::size_t i = 0; i < form.states; ++i)
    if (c.has_output(i)) finals[i] = collect(c, i).list;
  Stmt batch;
  batch.kind = Stmt::Kind::For;
  const VarPtr entry = c.new_var("b");
  batch.targets = {entry};
  batch.value = op("range", {c.dim(form.input(0), 0)});
  std::vector<VarPtr> states;
  for (std::size_t i = 0; i < form.states; ++i) {
    const ir::Value* v = form.body.inputs[i];
    states.push_back(c.new_var(variable_hint(v->name, "state"), v));
    batch.body.push_back(
        assignment({states[i]}, aten("select.int", {c.in(form.first + i), 0, Ex(entry)})));
  }
  Args columns;
  for (std::size_t i = 0; i < form.inputs; ++i) {
    Ex column = aten("select.int", {c.in(form.input(i)), 0, Ex(entry)});
    if (c.has_input(0))
      column = aten("slice.Tensor", {column, 0, 0, op("int", {op("[]", {c.in(0), Ex(entry)})})});
    columns.push_back(column);
  }
  std::vector<VarPtr> steps(form.outputs);
  for (std::size_t i = 0; i < form.outputs; ++i) {
    if (!lists[i]) continue;
    steps[i] = c.new_var("steps");
    batch.body.push_back(assignment({steps[i]}, list({})));
  }
  scan_steps(c, form, states, columns, Ints(form.inputs, 0), steps,
             [&](Stmt s) { batch.body.push_back(std::move(s)); });
  for (std::size_t i = 0; i < form.states; ++i)
    if (finals[i]) batch.body.push_back(effect(op(".append", {Ex(finals[i]), Ex(states[i])})));
  for (std::size_t i = 0; i < form.outputs; ++i) {
    if (!lists[i]) continue;
    Ex steps_tensor = stacked(Ex(steps[i]), 0, form.body.output(form.states + i)->type, true);
    if (c.has_input(0)) steps_tensor = helper("pad_rows", {steps_tensor, c.dim(form.input(0), 1)});
    batch.body.push_back(effect(op(".append", {Ex(lists[i]), steps_tensor})));
  }
  c.emit(std::move(batch));
  for (std::size_t i = 0; i < form.states; ++i)
    if (finals[i]) c.out(i, aten("stack", {Ex(finals[i])}));
  for (std::size_t i = 0; i < form.outputs; ++i)
    if (lists[i]) c.out(form.states + i, aten("stack", {Ex(lists[i])}));
}

// ---------------------------------------------------------------- SequenceMap

void infer_sequence_map(InferContext& c) {
  ir::Graph& body = *c.attr_graph("body");
  check_outputs(c, body, c.input_count(), c.output_count());
  const std::uint64_t mark = c.mark();
  for (std::size_t i = 0; i < c.input_count(); ++i) {
    const Type& t = c.type(i);
    const bool sequence = i == 0 || t.kind == Type::Kind::Sequence;
    body.inputs[i]->type = !sequence   ? t
                           : t.element ? *t.element
                                       : without_shape(body.inputs[i]->type);
    body.inputs[i]->contents.reset();
  }
  forget_shapes(body);
  c.infer_graph(body);
  for (std::size_t i = 0; i < c.output_count(); ++i)
    c.set(i, Type::sequence(c.without_symbols_since(mark, body.output(i)->type)));
}

void lower_sequence_map(LowerContext& c) {
  const ir::Graph& body = *c.attr_graph("body");
  std::vector<VarPtr> lists(c.output_count());
  for (std::size_t i = 0; i < c.output_count(); ++i)
    if (c.has_output(i)) {
      lists[i] = output_var(c, i);
      c.emit(assignment({lists[i]}, list({})));
    }
  Stmt loop;
  loop.kind = Stmt::Kind::For;
  std::vector<Lowered> inputs;
  Args iterables;
  for (std::size_t i = 0; i < c.input_count(); ++i) {
    if (i > 0 && c.type(i).kind != Type::Kind::Sequence) {
      inputs.push_back(c.lowered(i));
      continue;
    }
    loop.targets.push_back(c.new_var(variable_hint(body.inputs[i]->name, "x"), body.inputs[i]));
    inputs.push_back({.ex = Ex(loop.targets.back())});
    iterables.push_back(c.in(i));
  }
  loop.value = iterables.size() == 1 ? iterables[0] : op("zip", iterables);
  std::vector<Lowered> outputs;
  loop.body = c.block(body, inputs, outputs);
  for (std::size_t i = 0; i < c.output_count(); ++i)
    if (lists[i])
      loop.body.push_back(
          effect(op(".append", {Ex(lists[i]), tensor(c, outputs[i], body.output(i))})));
  c.emit(std::move(loop));
  for (std::size_t i = 0; i < c.output_count(); ++i)
    if (lists[i]) c.define(c.node().output(i), {.ex = Ex(lists[i])});
}

constexpr OpDef kOps[] = {
    {.type = "If", .changed_at = {1, 11}, .infer = infer_if, .lower = lower_if},
    {.type = "Loop", .changed_at = {1, 11}, .infer = infer_loop, .lower = lower_loop},
    {.type = "Scan", .changed_at = {8, 9, 11}, .infer = infer_scan, .lower = lower_scan},
    {.type = "SequenceMap",
     .changed_at = {17},
     .infer = infer_sequence_map,
     .lower = lower_sequence_map},
};

}  // namespace

std::span<const OpDef> control_ops() {
  return kOps;
}

}  // namespace onnx2nn::ops
