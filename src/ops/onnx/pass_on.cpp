#include "ops/onnx/pass_on.h"

#include "ops/names.h"

namespace onnx2nn::ops {

Args pass_inputs(LowerContext& c, std::size_t from, std::size_t to) {
  Args out;
  std::size_t end = from;
  for (std::size_t i = from; i < to; ++i)
    if (c.has_input(i)) end = i + 1;
  for (std::size_t i = from; i < end; ++i) out.push_back(c.in(i));
  return out;
}

Kwargs pass_attributes(LowerContext& c, std::initializer_list<Passed> attributes) {
  Kwargs out;
  for (const auto& [name, kind] : attributes) {
    if (!c.has_attr(name)) continue;
    Ex value;
    switch (kind) {
      case AttrKind::Int:
        value = Ex(c.attr_int(name));
        break;
      case AttrKind::Float:
        value = Ex(c.attr_float(name, 0.0));
        break;
      case AttrKind::String:
        value = Ex(c.attr_string(name, ""));
        break;
      case AttrKind::IntList:
        value = Ex(*c.attr_ints(name));
        break;
      case AttrKind::FloatList:
        value = Ex(*c.attr_floats(name));
        break;
      case AttrKind::StringList:
        value = Ex(*c.attr_strings(name));
        break;
    }
    out.emplace_back(std::string(name), value);
  }
  return out;
}

void outs_of(LowerContext& c, const Ex& tuple, std::size_t count) {
  const std::size_t n = c.output_count();
  if (n > count) c.fail("it has more than " + std::to_string(count) + " outputs");
  std::size_t used = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (!c.has_output(i)) continue;
    ++used;
    last = i;
  }
  if (used == 1) return c.out(last, item(tuple, static_cast<std::int64_t>(last)));
  c.outs(n == count ? tuple : op("[]", {tuple, op("slice", {kNone, Ex(n)})}));
}

void require_int(LowerContext& c, std::string_view name, std::int64_t wanted) {
  if (c.attr_int(name, wanted) != wanted)
    c.unsupported("the attribute \"" + std::string(name) + "\" is supported with the value " +
                  std::to_string(wanted) + " only");
}

void require_absent(LowerContext& c, std::size_t i, std::string_view name) {
  if (c.has_input(i)) c.unsupported("the input \"" + std::string(name) + "\" is not supported");
}

Ex nested_function(LowerContext& c, std::string_view attribute) {
  const ir::Graph& graph = *c.attr_graph(attribute);
  torch::Stmt def;
  def.kind = torch::Stmt::Kind::Def;
  def.targets = {c.new_var(std::string(attribute))};
  std::vector<Lowered> inputs;
  for (const ir::Value* v : graph.inputs) {
    def.params.push_back(c.new_var(variable_hint(v->name, "input"), v));
    inputs.push_back({.ex = Ex(def.params.back())});
  }
  std::vector<Lowered> outputs;
  def.body = c.block(graph, inputs, outputs);
  Args results;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Type& type = graph.output(i)->type;
    results.push_back(
        c.materialise(outputs[i], type.dtype, type.shape.has_rank() && type.shape.rank() == 0));
  }
  torch::Stmt ret;
  ret.kind = torch::Stmt::Kind::Return;
  ret.value = results.size() == 1 ? results[0] : torch::tuple(results);
  def.body.push_back(std::move(ret));
  const Ex function(def.targets[0]);
  c.emit(std::move(def));
  return function;
}

}  // namespace onnx2nn::ops
