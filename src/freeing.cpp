#include "freeing.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "ops/op.h"
#include "passes/rewriter.h"
#include "support/checked.h"
#include "support/text.h"

namespace onnx2nn {

namespace {

using ir::Dim;
using ir::Dims;
using Ints = std::vector<std::int64_t>;

const std::set<std::string_view> kElementwise = {
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean",
    "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"};

/// Whether all rows of a constant along an axis hold the same bytes.
bool has_equal_rows(const ir::Tensor& t, std::size_t axis) {
  const auto count = [&](std::size_t from, std::size_t to) {
    std::int64_t out = 1;
    for (std::size_t i = from; i < to; ++i) out *= t.dims()[i];
    return static_cast<std::size_t>(out);
  };
  const std::size_t rows = count(axis, axis + 1);
  const std::size_t outer = count(0, axis);
  const auto bytes = t.bytes();
  if (rows == 0 || outer == 0 || bytes.size() % (rows * outer) != 0) return false;
  const std::size_t row = bytes.size() / (rows * outer);
  for (std::size_t i = 0; i < outer; ++i)
    for (std::size_t k = 1; k < rows; ++k)
      if (std::memcmp(&bytes[i * rows * row], &bytes[(i * rows + k) * row], row) != 0) return false;
  return true;
}

}  // namespace

std::string quoted_name(std::string_view name) {
  return "\"" + printable(name) + "\"";
}

std::optional<Ints> known_ints(const ir::Value* v) {
  if (v == nullptr) return std::nullopt;
  if (v->constant && v->constant->rank() <= 1 && ir::is_integer(v->constant->dtype()))
    return v->constant->to_ints();
  if (!v->contents) return std::nullopt;
  Ints out;
  for (const Dim& d : *v->contents) {
    if (!d.is_const()) return std::nullopt;
    out.push_back(d.value());
  }
  return out;
}

Freeing::Freeing(ir::Model& model, std::map<std::string, Freed> freed)
    : model_(model), freed_(std::move(freed)) {}

ir::Node* Freeing::visit(ir::Node& n) {
  first_ = &n;
  if (!n.domain.empty() && n.domain != "ai.onnx") return &n;
  if (n.is("Reshape")) reshape(n);
  else if (n.is("Expand")) expand(n);
  else if (n.is("Concat")) concat(n);
  else if (n.is("Slice")) slice(n);
  else if (n.is("Resize")) resize(n);
  else if (n.is("LSTM") || n.is("GRU") || n.is("RNN")) recurrent(n);
  else if (n.is("Squeeze") || n.is("Gather") || n.is("Split")) takes_apart(n);
  else if (n.is("MatMul") || n.is("Gemm") || n.is("Conv") || n.is("ConvTranspose")) sums(n);
  if (kElementwise.count(n.op_type) != 0 || n.is("MatMul")) broadcasts(n);
  return first_;
}

bool Freeing::depends(const Dim& d) const {
  if (!d.known() || d.is_const()) return false;
  for (const auto& term : d.terms())
    for (const auto& factor : term.factors) {
      if (factor->kind == ir::Atom::Kind::Symbol && freed_.count(factor->key) != 0) return true;
      for (const Dim& arg : factor->args)
        if (depends(arg)) return true;
    }
  return false;
}

std::optional<std::int64_t> Freeing::original(const Dim& d) const {
  if (!d.known()) return std::nullopt;
  std::int64_t sum = d.constant_term();
  if (d.is_const()) return d.value();
  for (const auto& term : d.terms()) {
    std::int64_t product = term.coefficient;
    for (const auto& factor : term.factors) {
      const auto found = freed_.find(factor->key);
      if (factor->kind != ir::Atom::Kind::Symbol || found == freed_.end()) return std::nullopt;
      product = checked_mul(product, found->second.size);
    }
    sum = checked_add(sum, product);
  }
  return sum;
}

bool Freeing::is_batch(const Dim& d) const {
  const auto name = d.symbol_name();
  const auto found = name ? freed_.find(*name) : freed_.end();
  return found != freed_.end() && found->second.is_batch;
}

const Dims* Freeing::opened(const ir::Value* v) const {
  if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank()) return nullptr;
  const Dims& dims = v->type.shape.dims();
  return std::any_of(dims.begin(), dims.end(), [&](const Dim& d) { return depends(d); })
             ? &dims
             : nullptr;
}

ir::Value* Freeing::constant(const Ints& values) {
  return model_.graph->add_initializer(model_.new_name("sizes"), ir::Tensor::ints(values), false);
}

ir::Value* Freeing::add(const char* type, const std::vector<ir::Value*>& inputs, ir::Node& before,
                        std::optional<std::int64_t> axis) {
  const std::string names[] = {model_.new_name("freed")};
  ir::Node* n = before.graph()->add_node(type, "", inputs, names, &before);
  n->opset = model_.opset("");
  n->op = ops::find_op("", type);
  n->name = before.name.empty() ? names[0] : before.name + "/" + names[0];
  if (axis) n->attributes.push_back({"axis", *axis});
  if (first_ == &before) first_ = n;
  return n->output(0);
}

ir::Value* Freeing::count_of(const Dim& d, ir::Node& before) {
  const auto name = d.symbol_name();
  const auto found = name ? freed_.find(*name) : freed_.end();
  if (found == freed_.end()) fail("unsupported", "it would need a tensor of the size {}", d.str());
  const Freed& f = found->second;
  if (before.graph() != model_.graph.get())
    fail("unsupported", "it lies in a nested graph and would need the size {}", d.str());
  ir::Value* shape = add("Shape", {f.input}, before);
  return add("Gather", {shape, constant({static_cast<std::int64_t>(f.axis)})}, before, 0);
}

ir::Value* Freeing::vector_of(const Dims& dims, ir::Node& before) {
  std::vector<ir::Value*> parts;
  Ints run;
  const auto flush = [&] {
    if (!run.empty()) parts.push_back(constant(run));
    run.clear();
  };
  for (const Dim& d : dims) {
    if (d.is_const()) {
      run.push_back(d.value());
      continue;
    }
    flush();
    parts.push_back(count_of(d, before));
  }
  flush();
  return parts.size() == 1 ? parts[0] : add("Concat", parts, before, 0);
}

void Freeing::concat(ir::Node& n) {
  std::int64_t along = passes::attr_int(n, "axis", 1);
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const Dims* from = opened(n.input(i));
    if (from == nullptr) continue;
    if (along < 0) along += static_cast<std::int64_t>(from->size());
    for (std::size_t d = 0; d < from->size(); ++d)
      if (static_cast<std::int64_t>(d) != along && depends((*from)[d]))
        for (std::size_t k = 0; k < n.input_count(); ++k) spread(n, k, d, (*from)[d]);
    return;
  }
}

void Freeing::recurrent(ir::Node& n) {
  const Dims* from = opened(n.input(0));
  if (from == nullptr || from->size() != 3) return;
  const std::size_t layout = passes::attr_int(n, "layout", 0) != 0 ? 0 : 1;
  const Dim batch = (*from)[layout];
  if (!depends(batch)) return;
  spread(n, 4, 0, batch);
  spread(n, 5, layout, batch);
  if (n.is("LSTM")) spread(n, 6, layout, batch);
}

void Freeing::spread(ir::Node& n, std::size_t k, std::size_t axis, const Dim& to) {
  ir::Value* v = n.input(k);
  if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank()) return;
  const Dims& dims = v->type.shape.dims();
  if (axis >= dims.size() || !dims[axis].is_const()) return;
  if (original(to) != dims[axis].value())
    fail("unsupported", "{} has {} rows, and not one for each of {}", quoted_name(v->name),
         dims[axis].value(), to.str());
  Dims target(dims.size(), Dim(1));
  target[axis] = to;
  ir::Value* row = first_row(n, v, axis);
  n.set_input(k, add("Expand", {row, vector_of(target, n)}, n));
}

bool Freeing::has_one_row(const ir::Value* v, std::size_t axis) {
  const ir::Shape& shape = v->type.shape;
  if (!shape.has_rank() || axis >= shape.rank()) return false;
  if (v->constant) return has_equal_rows(*v->constant, axis);
  const ir::Node* made = v->producer();
  if (made == nullptr) return false;
  if (made->is("ConstantOfShape")) return true;
  if (!made->is("Expand") || !made->input(0)->type.shape.has_rank()) return false;
  const ir::Shape& inner = made->input(0)->type.shape;
  const std::size_t added = shape.rank() - std::min(shape.rank(), inner.rank());
  if (axis < added) return true;
  const Dim& d = inner[axis - added];
  return (d.is_const() && d.value() == 1) || has_one_row(made->input(0), axis - added);
}

ir::Value* Freeing::first_row(ir::Node& n, ir::Value* v, std::size_t axis) {
  const Dims& dims = v->type.shape.dims();
  if (dims[axis].is_const() && dims[axis].value() == 1) return v;
  const bool equal = has_one_row(v, axis);
  if (!equal || n.opset < 10)
    fail("unsupported", "{} holds another row for each of {}", quoted_name(v->name),
         dims[axis].value());
  const auto at = static_cast<std::int64_t>(axis);
  return add("Slice", {v, constant({0}), constant({1}), constant({at})}, n);
}

void Freeing::broadcasts(ir::Node& n) {
  for (std::size_t i = 0; i < n.input_count(); ++i) {
    const Dims* from = opened(n.input(i));
    if (from == nullptr) continue;
    const std::size_t least = n.is("MatMul") ? 3 : 1;
    for (std::size_t k = 0; k < n.input_count(); ++k) {
      ir::Value* v = n.input(k);
      if (k == i || v == nullptr || !v->type.shape.has_rank()) continue;
      for (std::size_t d = least; d <= std::min(from->size(), v->type.shape.rank()); ++d) {
        const Dim& open = (*from)[from->size() - d];
        const std::size_t axis = v->type.shape.rank() - d;
        const Dim& fixed = v->type.shape[axis];
        if (!depends(open) || !fixed.is_const() || fixed.value() == 1) continue;
        if (original(open) != fixed.value())
          fail("unsupported", "{} is {} where the other is {}", quoted_name(v->name), fixed.value(),
               open.str());
        n.set_input(k, first_row(n, v, axis));
        break;
      }
    }
  }
}

void Freeing::takes_apart(ir::Node& n) {
  const Dims* from = opened(n.input(0));
  if (from == nullptr) return;
  const auto rank = static_cast<std::int64_t>(from->size());
  Ints axes;
  if (n.is("Squeeze")) {
    const ir::Attribute* given = n.attribute("axes");
    const Ints* listed = given != nullptr ? std::get_if<Ints>(&given->data) : nullptr;
    axes = listed != nullptr ? *listed : known_ints(n.input(1)).value_or(Ints{});
    if (axes.empty())
      for (std::int64_t d = 0; d < rank; ++d)
        if (original((*from)[static_cast<std::size_t>(d)]) == 1) axes.push_back(d);
  } else {
    axes = {passes::attr_int(n, "axis", 0)};
  }
  for (std::int64_t axis : axes) {
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) continue;
    const Dim& d = (*from)[static_cast<std::size_t>(axis)];
    if (depends(d) && (n.is("Squeeze") || is_batch(d)))
      fail("unsupported", "it takes the dim apart that was {} and is to be {}",
           original(d).value_or(-1), d.str());
  }
}

void Freeing::sums(ir::Node& n) {
  const auto dim = [&](std::size_t i, bool last) -> Dim {
    const ir::Value* v = n.input(i);
    if (v == nullptr || !v->type.shape.has_rank() || v->type.shape.rank() == 0) return {};
    const std::size_t rank = v->type.shape.rank();
    return v->type.shape[rank - (last || rank == 1 ? 1 : 2)];
  };
  Dim a;
  Dim b;
  if (n.is("Conv") || n.is("ConvTranspose")) {
    const ir::Value* x = n.input(0);
    if (x == nullptr || !x->type.shape.has_rank() || x->type.shape.rank() < 2) return;
    a = x->type.shape[1];
    b = Dim(0);
  } else {
    a = dim(0, passes::attr_int(n, "transA", 0) == 0);
    b = dim(1, passes::attr_int(n, "transB", 0) != 0);
  }
  const bool open = depends(a) || depends(b);
  if (open && a.known() && b.known() && !(a == b))
    fail("unsupported", "it sums over a dim that is to be {}", depends(a) ? a.str() : b.str());
}

}  // namespace onnx2nn
