#include "ops/onnx/loop_body.h"

#include <algorithm>

#include "ops/names.h"

namespace onnx2nn::ops {

namespace {

/// Calls visit(id) for each variable that `e` reads.
template <typename Visit>
void for_each_read(const torch::Expr& e, const Visit& visit) {
  if (e.kind == torch::ExprKind::Var) visit(e.var->id);
  for (const auto& a : e.args) for_each_read(*a, visit);
  for (const auto& [_, v] : e.keywords) for_each_read(*v, visit);
}

/// Gives the variable that a branch assigned its result to the result's name, so that no copy is
/// needed.
bool rename(const Ex& value, const VarPtr& to, BlockIndex& block, std::set<int>& taken) {
  if (value->kind != torch::ExprKind::Var || taken.count(value->var->id) != 0) return false;
  if (!block.rename(value->var->id, *to)) return false;
  *value->var = *to;
  taken.insert(to->id);
  return true;
}

bool is_scalar(const ir::Value* v) {
  return v->type.shape.has_rank() && v->type.shape.rank() == 0;
}

}  // namespace

void BlockIndex::add(const Stmt& s, std::size_t i) {
  for_each_read(*s.value, [&](int id) { last_read_[id] = i; });
  for (const VarPtr& v : s.targets) {
    first_assigned_.emplace(v->id, i);
    targets_[v->id].push_back(v);
  }
  for (const Block* inner : {&s.body, &s.orelse})
    for (const Stmt& t : *inner) add(t, i);
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

void settle(BlockIndex& block, const VarPtr& to, const Ex& value, std::set<int>& taken) {
  if (!rename(value, to, block, taken)) block.push(assignment({to}, value));
}

Ex tensor(LowerContext& c, const Lowered& lowered, const ir::Value* value) {
  return c.materialise(lowered, value->type.dtype, is_scalar(value) || lowered.elements.empty());
}

VarPtr output_var(LowerContext& c, std::size_t i) {
  const ir::Value* v = c.node().output(i);
  return c.new_var(variable_hint(v->name, c.node().op_type), v);
}

Collected collect(LowerContext& c, std::size_t output) {
  Collected out{c.node().output(output), nullptr};
  out.list = c.new_var(variable_hint(out.output->name, c.node().op_type) + "_list");
  c.emit(assignment({out.list}, list({})));
  return out;
}

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

VarPtr start(LowerContext& c, const ir::Value* body_input, const Ex& first) {
  const VarPtr var = c.new_var(variable_hint(body_input->name, c.node().op_type), body_input);
  c.emit(assignment({var}, first));
  return var;
}

}  // namespace onnx2nn::ops
