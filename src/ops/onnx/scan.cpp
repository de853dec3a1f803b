// Scan: a loop over slices.
// https://onnx.ai/onnx/operators/onnx__Scan.html
// Opset 8 had a batch axis in front of everything and optional lengths; from 9 on there is none.
#include <algorithm>
#include <optional>

#include "ops/lower.h"
#include "ops/names.h"
#include "ops/onnx/loop_body.h"
#include "ops/onnx/nested_types.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

namespace {

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

constexpr OpDef kScanOps[] = {
    {.type = "Scan", .changed_at = {8, 9, 11}, .infer = infer_scan, .lower = lower_scan},
};

}  // namespace

std::span<const OpDef> scan_ops() {
  return kScanOps;
}

}  // namespace onnx2nn::ops
