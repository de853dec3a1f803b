#include "passes/rewriter.h"

#include <algorithm>

#include "support/checked.h"
#include "support/interrupt.h"

namespace onnx2nn::passes {
namespace {

/// Erased, or in a nested graph of an erased node.
bool gone(const ir::Node* n) {
  for (; n != nullptr; n = n->graph()->parent())
    if (n->erased()) return true;
  return false;
}

}  // namespace

void Rewriter::push(ir::Node* n) {
  if (n != nullptr && n->op_type != "Return" && queued_.insert(n).second) work_.push_back(n);
}

void Rewriter::push_users(const ir::Value& v) {
  for (const ir::Use* u = v.first_use(); u != nullptr; u = u->next) push(u->user);
}

ir::Node* Rewriter::pop() {
  check_interrupt();
  while (!work_.empty()) {
    ir::Node* n = work_.front();
    work_.pop_front();
    queued_.erase(n);
    if (!gone(n)) return n;
  }
  return nullptr;
}

void Rewriter::add_miss(const ir::Node& n, std::string reason) {
  if (!missed_.emplace(&n, fmt::format("{}: {}", rule_, reason)).second) return;
  options_.misses->push_back({std::string(rule_), n.describe(), std::move(reason)});
}

void Rewriter::forget_misses() {
  missed_.clear();
  if (options_.misses != nullptr) options_.misses->clear();
}

void Rewriter::touched(const ir::Value* v) {
  if (v == nullptr) return;
  push(v->producer());
  if (!v->has_one_use()) return;
  // Fusion spares what others use: the only user left, and what follows it, may be fused now.
  ir::Node* user = v->first_use()->user;
  push(user);
  for (const ir::Value* out : user->outputs())
    if (out != nullptr && out->has_one_use()) push(out->first_use()->user);
}

void Rewriter::replace(ir::Value* old, ir::Value* with) {
  push_users(*old);
  // What the old value was known to be, the new one is.
  if (with->producer() != nullptr) {
    with->type = ir::merge(with->type, old->type);
    if (!with->contents) with->contents = old->contents;
    if (!with->declared) with->declared = old->declared;
    push(with->producer());
  }
  old->replace_all_uses(with);
  touched(old);
}

void Rewriter::replace_by_changed(ir::Value* old, ir::Value* with) {
  replace(old, with);
  std::swap(old->name, with->name);
}

void Rewriter::set_input(ir::Node& n, std::size_t i, ir::Value* value) {
  ir::Value* old = n.input(i);
  n.set_input(i, value);
  touched(old);
  push(&n);
}

void Rewriter::set_inputs(ir::Node& n, std::span<ir::Value* const> values) {
  std::vector<ir::Value*> old;
  for (std::size_t i = 0; i < n.input_count(); ++i) old.push_back(n.input(i));
  n.set_inputs(values);
  for (const ir::Value* v : old) touched(v);
  push(&n);
}

ir::Node* Rewriter::add(std::string_view op_type, std::span<ir::Value* const> inputs,
                        const ir::Value& like, ir::Node& before) {
  const std::vector<std::string> names = {like.name.empty() ? model_.new_name("value") : like.name};
  ir::Node* n = before.graph()->add_node(std::string(op_type), "", inputs, names, &before);
  n->name = before.name;
  if (options_.any_opset) n->metadata = before.metadata;  // conversion asks which module it was in
  n->op = ops::find_op("", op_type);
  n->opset = before.domain.empty() ? before.opset : std::max<std::int64_t>(1, model_.opset(""));
  n->output(0)->type = like.type;
  n->output(0)->contents = like.contents;
  n->output(0)->declared = like.declared;
  push(n);
  return n;
}

ir::Node* Rewriter::add_new(std::string_view op_type, std::span<ir::Value* const> inputs,
                            std::string_view stem, ir::Type type, std::int64_t opset,
                            ir::Node& before) {
  const std::vector<std::string> names = {model_.new_name(stem)};
  ir::Node* n = before.graph()->add_node(std::string(op_type), "", inputs, names, &before);
  n->name = before.name;
  n->op = ops::find_op("", op_type);
  n->opset = opset;
  n->output(0)->type = std::move(type);
  push(n);
  return n;
}

ir::Node* Rewriter::add_many(std::string_view op_type, std::span<ir::Value* const> inputs,
                             std::span<ir::Value* const> like, ir::Node& before) {
  std::vector<std::string> names;
  for (const ir::Value* v : like) names.push_back(v->name);
  ir::Node* n = before.graph()->add_node(std::string(op_type), "", inputs, names, &before);
  n->name = before.name;
  if (options_.any_opset) n->metadata = before.metadata;
  n->op = ops::find_op("", op_type);
  n->opset = before.domain.empty() ? before.opset : std::max<std::int64_t>(1, model_.opset(""));
  for (std::size_t i = 0; i < like.size(); ++i) {
    n->output(i)->type = like[i]->type;
    n->output(i)->contents = like[i]->contents;
    n->output(i)->declared = like[i]->declared;
  }
  push(n);
  return n;
}

ir::Node* Rewriter::add_torch(std::string_view form, std::span<ir::Value* const> inputs,
                              std::span<ir::Value* const> like, ir::Node& before) {
  ir::Node* n = add_many(form, inputs, like, before);
  n->domain = ops::kTorchDomain;
  n->op = &ops::torch_form(form);
  n->opset = 1;
  return n;
}

ir::Value* Rewriter::constant(ir::Graph& g, std::string_view stem, ir::TensorPtr tensor) {
  return g.add_initializer(std::string(stem), std::move(tensor), false);
}

ir::Value* Rewriter::weight(ir::Graph& g, const ir::Value& from, ir::TensorPtr tensor) {
  return g.add_initializer(from.name, std::move(tensor), from.is_initializer);
}

void Rewriter::erase(ir::Node& n) {
  std::vector<ir::Value*> inputs;
  for (std::size_t i = 0; i < n.input_count(); ++i) inputs.push_back(n.input(i));
  // Nested graphs use outer values too.
  for (ir::Graph* g : n.subgraphs()) {
    ir::for_each_node(*g, [&](const ir::Node& inner) {
      for (std::size_t i = 0; i < inner.input_count(); ++i) inputs.push_back(inner.input(i));
    });
    for (std::size_t i = 0; i < g->output_count(); ++i) inputs.push_back(g->output(i));
  }
  n.graph()->erase(&n);
  for (const ir::Value* v : inputs) touched(v);
}

// ---------------------------------------------------------------- what rules ask

bool same_type(const ir::Value* a, const ir::Value* b) {
  return a->type.is_tensor() && b->type.is_tensor() && a->type.dtype != ir::DType::Undefined &&
         a->type.dtype == b->type.dtype && a->type.shape.same(b->type.shape);
}

bool compatible(const ir::Value* a, const ir::Value* b) {
  const ir::Type& x = a->type;
  const ir::Type& y = b->type;
  if (x.kind == ir::Type::Kind::Unknown || y.kind == ir::Type::Kind::Unknown) return true;
  if (x.kind != y.kind) return false;
  if (!x.is_tensor()) return true;
  if (x.dtype != y.dtype && x.dtype != ir::DType::Undefined && y.dtype != ir::DType::Undefined)
    return false;
  if (!x.shape.has_rank() || !y.shape.has_rank()) return true;
  if (x.shape.rank() != y.shape.rank()) return false;
  for (std::size_t i = 0; i < x.shape.rank(); ++i)
    if (x.shape[i].is_const() && y.shape[i].is_const() && x.shape[i].value() != y.shape[i].value())
      return false;
  return true;
}

std::optional<Ints> const_ints(const ir::Value* v) {
  if (v == nullptr) return std::nullopt;
  if (v->constant) {
    if (!ir::is_integer(v->constant->dtype()) || v->constant->size() > 4096) return std::nullopt;
    return v->constant->to_ints();
  }
  if (!v->contents) return std::nullopt;
  Ints out;
  for (const ir::Dim& d : *v->contents) {
    if (!d.is_const()) return std::nullopt;
    out.push_back(d.value());
  }
  return out;
}

std::int64_t attr_int(const ir::Node& n, std::string_view name, std::int64_t otherwise) {
  const ir::Attribute* a = n.attribute(name);
  const auto* v = a != nullptr ? std::get_if<std::int64_t>(&a->data) : nullptr;
  return v != nullptr ? *v : otherwise;
}

double attr_float(const ir::Node& n, std::string_view name, double otherwise) {
  const ir::Attribute* a = n.attribute(name);
  return a != nullptr ? a->number().value_or(otherwise) : otherwise;
}

std::string attr_string(const ir::Node& n, std::string_view name, std::string_view otherwise) {
  const ir::Attribute* a = n.attribute(name);
  const auto* v = a != nullptr ? std::get_if<std::string>(&a->data) : nullptr;
  return v != nullptr ? *v : std::string(otherwise);
}

std::optional<Ints> ints_of(const ir::Node& n, std::string_view name, std::size_t i) {
  if (const ir::Attribute* a = n.attribute(name)) {
    const auto* v = std::get_if<Ints>(&a->data);
    return v != nullptr ? std::optional(*v) : std::nullopt;
  }
  return const_ints(n.input(i));
}

std::optional<double> splat(const ir::Value* v) {
  if (v == nullptr || !v->constant || v->constant->size() == 0 || v->constant->size() > 65536)
    return std::nullopt;
  const char kind = ir::info(v->constant->dtype()).kind;
  if (kind == 's' || kind == 'c' || !v->constant->is_splat()) return std::nullopt;
  return v->constant->double_at(0);
}

void set_attr(ir::Node& n, std::string_view name, ir::Attribute::Data data) {
  if (ir::Attribute* a = n.attribute(name)) {
    a->data = std::move(data);
  } else {
    n.attributes.push_back({std::string(name), std::move(data)});
  }
}

ir::Node* sole_producer(const ir::Value* v, std::string_view op_type) {
  if (v == nullptr || v->producer() == nullptr || !v->has_one_use()) return nullptr;
  ir::Node* n = v->producer();
  return n->is(op_type) ? n : nullptr;
}

}  // namespace onnx2nn::passes
