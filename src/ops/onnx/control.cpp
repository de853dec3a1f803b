// If, Loop and SequenceMap: nested graphs as Python's own statements.
// https://onnx.ai/onnx/operators/onnx__Loop.html and its neighbours.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "ops/lower.h"
#include "ops/names.h"
#include "ops/onnx/loop_body.h"
#include "ops/onnx/nested_types.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

namespace {

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
  // Sizes that agree in either branch are one size, whichever runs.
  std::map<std::pair<std::string, std::string>, Dim> joint;
  for (std::size_t i = 0; i < c.output_count(); ++i) {
    const Type& a = yes.output(i)->type;
    const Type& b = no.output(i)->type;
    Type type = c.without_symbols_since(mark, common_type(a, b));
    for (std::size_t k = 0; type.shape.has_rank() && k < type.shape.rank(); ++k) {
      Dim& size = type.shape.dims()[k];
      if (size.known() || !a.shape[k].known() || !b.shape[k].known()) continue;
      Dim& known = joint[{a.shape[k].str(), b.shape[k].str()}];
      if (!known.known()) known = c.fresh_symbol();
      size = known;
    }
    if (ir::Value* v = c.node().output(i)) v->type = without_shape(v->type);
    c.set(i, std::move(type));
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

constexpr OpDef kControlOps[] = {
    {.type = "If", .changed_at = {1, 11}, .infer = infer_if, .lower = lower_if},
    {.type = "Loop", .changed_at = {1, 11}, .infer = infer_loop, .lower = lower_loop},
    {.type = "SequenceMap",
     .changed_at = {17},
     .infer = infer_sequence_map,
     .lower = lower_sequence_map},
};

}  // namespace

std::span<const OpDef> control_ops() {
  return kControlOps;
}

}  // namespace onnx2nn::ops
