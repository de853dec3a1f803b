#include "free_dims.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/core.h>

#include "ops/context.h"
#include "ops/op.h"
#include "ops/walk.h"
#include "passes/rewriter.h"
#include "support/checked.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

using ir::Dim;
using ir::Dims;
using Ints = std::vector<std::int64_t>;

constexpr const char* kHint = "the file holds for this size only: export it again with a dynamic axis";

std::string quoted(std::string_view name) {
  return "\"" + printable(name) + "\"";
}

const std::set<std::string_view> kElementwise = {
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean",
    "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"};

/// The numbers of a small integer tensor, where all are known.
std::optional<Ints> ints_of(const ir::Value* v) {
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

/// One walk over a graph whose inputs have been opened.
class Freeing {
 public:
  struct Freed {
    ir::Value* input = nullptr;
    std::size_t axis = 0;
    std::int64_t size = 0;
    bool is_batch = false;
  };

  Freeing(ir::Model& model, std::map<std::string, Freed> freed)
      : model_(model), freed_(std::move(freed)) {}

  ir::Node* visit(ir::Node& n) {
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

  bool depends(const Dim& d) const {
    if (!d.known() || d.is_const()) return false;
    for (const auto& term : d.terms())
      for (const auto& factor : term.factors) {
        if (factor->kind == ir::Atom::Kind::Symbol && freed_.count(factor->key) != 0) return true;
        for (const Dim& arg : factor->args)
          if (depends(arg)) return true;
      }
    return false;
  }

 private:
  /// The size that a dim had before; nothing where that is not known.
  std::optional<std::int64_t> original(const Dim& d) const {
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

  bool is_batch(const Dim& d) const {
    const auto name = d.symbol_name();
    const auto found = name ? freed_.find(*name) : freed_.end();
    return found != freed_.end() && found->second.is_batch;
  }

  /// The dims of an input where some of them have been opened; else null.
  const Dims* opened(const ir::Value* v) const {
    if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank()) return nullptr;
    const Dims& dims = v->type.shape.dims();
    return std::any_of(dims.begin(), dims.end(), [&](const Dim& d) { return depends(d); })
               ? &dims
               : nullptr;
  }

  ir::Value* constant(const Ints& values) {
    return model_.graph->add_initializer(model_.new_name("sizes"), ir::Tensor::ints(values), false);
  }

  ir::Value* add(const char* type, const std::vector<ir::Value*>& inputs, ir::Node& before,
                 std::optional<std::int64_t> axis = {}) {
    const std::string names[] = {model_.new_name("freed")};
    ir::Node* n = before.graph()->add_node(type, "", inputs, names, &before);
    n->opset = model_.opset("");
    n->op = ops::find_op("", type);
    n->name = before.name.empty() ? names[0] : before.name + "/" + names[0];
    if (axis) n->attributes.push_back({"axis", *axis});
    if (first_ == &before) first_ = n;
    return n->output(0);
  }

  /// The size of a freed dim as a tensor of one element.
  ir::Value* count_of(const Dim& d, ir::Node& before) {
    const auto name = d.symbol_name();
    const auto found = name ? freed_.find(*name) : freed_.end();
    if (found == freed_.end()) fail("unsupported", "it would need a tensor of the size {}", d.str());
    const Freed& f = found->second;
    if (before.graph() != model_.graph.get())
      fail("unsupported", "it lies in a nested graph and would need the size {}", d.str());
    ir::Value* shape = add("Shape", {f.input}, before);
    return add("Gather", {shape, constant({static_cast<std::int64_t>(f.axis)})}, before, 0);
  }

  /// `dims` as a tensor; those that are open are sizes of inputs.
  ir::Value* vector_of(const Dims& dims, ir::Node& before) {
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

  // ---- What repeats a size ----

  void reshape(ir::Node& n) {
    const Dims* from = opened(n.input(0));
    const auto asked = ints_of(n.input(1));
    if (from == nullptr || !asked) return;
    const bool keeps_zero = passes::attr_int(n, "allowzero", 0) != 0;
    const Dims to = target(*from, *asked, keeps_zero);
    Ints out = *asked;
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < to.size(); ++i) {
      const bool copied = out[i] == 0 && !keeps_zero;
      if (to[i].is_const() && !copied) {
        out[i] = to[i].value();
      } else if (!copied) {
        const bool same = i < from->size() && (*from)[i] == to[i] && !keeps_zero;
        if (same) out[i] = 0;
        open.push_back(i);
      }
    }
    // One size follows from the others; it is said so where it would have to be computed.
    std::size_t computed = 0;
    for (const std::size_t i : open)
      if (out[i] != 0) {
        out[i] = -1;
        ++computed;
      }
    if (computed > 1) fail("unsupported", "several sizes of its target would follow from an open one");
    if (open.size() == 1) out[open[0]] = -1;
    if (out != *asked) n.set_input(1, constant(out));
  }

  /// What a target of Reshape means for any size: dims in groups of equal products, each open dim in
  /// the place of its group that had its size.
  Dims target(const Dims& from, const Ints& asked, bool keeps_zero) const {
    // Ones hold nothing.
    Dims x;
    for (const Dim& d : from)
      if (!d.is_const() || d.value() != 1) x.push_back(d);
    Ints sizes = asked;
    std::int64_t all = 1;
    for (const Dim& d : from) {
      const auto size = original(d);
      if (!size) fail("unsupported", "{} has other open dims", ir::Shape(from).str());
      all = checked_mul(all, *size);
    }
    std::int64_t known = 1;
    std::optional<std::size_t> rest;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] == 0 && !keeps_zero && i < from.size()) sizes[i] = *original(from[i]);
      if (sizes[i] == -1)
        rest = i;
      else
        known = checked_mul(known, sizes[i]);
    }
    if (rest && known != 0) sizes[*rest] = all / known;
    Dims out(sizes.begin(), sizes.end());
    if (all == 0) return out;
    std::size_t i = 0;
    std::size_t j = 0;
    while (i < x.size() && j < out.size()) {
      // An open dim that was one says nothing of where it goes: rows that are merged stay outside of
      // what they hold, and what is split has it outermost.
      if (j > 0 && original(x[i]) == 1 && sizes[j] != 1 && !splits(x, i + 1, sizes, j)) {
        out[j - 1] = out[j - 1] * x[i++];
        continue;
      }
      const std::size_t i0 = i;
      const std::size_t j0 = j;
      std::int64_t a = *original(x[i++]);
      std::int64_t b = sizes[j++];
      while (a != b && (a < b ? i < x.size() : j < out.size())) {
        if (a < b)
          a = checked_mul(a, *original(x[i++]));
        else
          b = checked_mul(b, sizes[j++]);
      }
      if (a != b) fail("bad-model", "its target has another number of elements");
      // Ones that follow may be what an open factor was.
      const bool whole = i == i0 + 1 && x[i0].symbol_name();
      const bool next_is_one = i < x.size() && original(x[i]) == 1;
      while (!whole && !next_is_one && j < out.size() && sizes[j] == 1) ++j;
      if (j == out.size()) i = x.size();
      place(x, i0, i, out, j0, j);
    }
    return out;
  }

  /// Whether the next dims of a target are parts of the next dims of a tensor.
  bool splits(const Dims& x, std::size_t i, const Ints& sizes, std::size_t j) const {
    if (i == x.size()) return false;
    std::int64_t a = *original(x[i++]);
    std::int64_t b = sizes[j];
    while (a < b && i < x.size()) a = checked_mul(a, *original(x[i++]));
    return a > b;
  }

  /// Says the sizes of a group of a target, of which one follows from what is open in the tensor.
  void place(const Dims& x, std::size_t i0, std::size_t i1, Dims& out, std::size_t j0,
             std::size_t j1) const {
    Dim product(1);
    bool any = false;
    for (std::size_t i = i0; i < i1; ++i) {
      product = product * x[i];
      any = any || depends(x[i]);
    }
    if (!any) return;
    // What is merged with the dims behind it leaves an open factor that was one to the rows.
    if (j0 > 0 && j1 - j0 == 1 && i1 - i0 > 1 && depends(x[i0]))
      for (const auto& [symbol, freed] : freed_) {
        const Dim factor = Dim::symbol(symbol);
        const Dim rest = Dim::floor_div(product, factor);
        if (freed.size != 1 || !rest.is_const() || !(rest * factor == product)) continue;
        out[j0 - 1] = out[j0 - 1] * factor;
        return;
      }
    std::optional<std::size_t> at;
    Dim size;
    for (std::size_t j = j0; j < j1; ++j) {
      Dim others(1);
      for (std::size_t k = j0; k < j1; ++k)
        if (k != j) others = others * out[k];
      const Dim found = Dim::floor_div(product, others);
      if (!found.known() || !(found * others == product)) continue;
      // Where something had just the size of what is open, it is that.
      const bool exact = found.symbol_name().has_value();
      if (at && !exact) continue;
      at = j;
      size = found;
      if (exact) break;
    }
    if (!at) fail("unsupported", "{} elements cannot be split as its target says", product.str());
    out[*at] = size;
  }

  void expand(ir::Node& n) {
    const Dims* from = opened(n.input(0));
    auto sizes = ints_of(n.input(1));
    if (from == nullptr || !sizes) return;
    const Ints before = *sizes;
    for (std::size_t k = 1; k <= std::min(from->size(), sizes->size()); ++k) {
      const Dim& d = (*from)[from->size() - k];
      std::int64_t& size = (*sizes)[sizes->size() - k];
      if (depends(d) && original(d) == size) size = 1;
    }
    if (*sizes != before) n.set_input(1, constant(*sizes));
  }

  void slice(ir::Node& n) {
    const Dims* from = opened(n.input(0));
    const auto starts = ints_of(n.input(1));
    auto ends = ints_of(n.input(2));
    if (from == nullptr || !starts || !ends || n.opset < 10) return;
    const auto rank = static_cast<std::int64_t>(from->size());
    const auto axes = ints_of(n.input(3));
    const auto steps = ints_of(n.input(4));
    if ((n.input(3) != nullptr && !axes) || (n.input(4) != nullptr && !steps)) return;
    const Ints before = *ends;
    for (std::size_t k = 0; k < ends->size() && k < starts->size(); ++k) {
      std::int64_t axis = axes && k < axes->size() ? (*axes)[k] : static_cast<std::int64_t>(k);
      if (axis < 0) axis += rank;
      if (axis < 0 || axis >= rank) continue;
      const Dim& d = (*from)[static_cast<std::size_t>(axis)];
      if (!depends(d)) continue;
      const bool forward = !steps || (k < steps->size() && (*steps)[k] == 1);
      const auto size = original(d);
      if (forward && (*starts)[k] == 0 && size && (*ends)[k] >= *size)
        (*ends)[k] = std::numeric_limits<std::int64_t>::max();
      else if (is_batch(d))
        fail("unsupported", "it takes rows {} to {} of the batch", (*starts)[k], (*ends)[k]);
    }
    if (*ends != before) n.set_input(2, constant(*ends));
  }

  void resize(ir::Node& n) {
    const Dims* from = opened(n.input(0));
    const auto sizes = ints_of(n.input(3));
    if (from == nullptr || !sizes || sizes->size() != from->size()) return;
    Dims out(sizes->begin(), sizes->end());
    bool changed = false;
    for (std::size_t i = 0; i < out.size(); ++i)
      if (depends((*from)[i]) && original((*from)[i]) == (*sizes)[i]) {
        out[i] = (*from)[i];
        changed = true;
      }
    if (changed) n.set_input(3, vector_of(out, n));
  }

  // ---- What is there once a row ----

  void concat(ir::Node& n) {
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

  void recurrent(ir::Node& n) {
    const Dims* from = opened(n.input(0));
    if (from == nullptr || from->size() != 3) return;
    const std::size_t layout = passes::attr_int(n, "layout", 0) != 0 ? 0 : 1;
    const Dim batch = (*from)[layout];
    if (!depends(batch)) return;
    spread(n, 4, 0, batch);
    spread(n, 5, layout, batch);
    if (n.is("LSTM")) spread(n, 6, layout, batch);
  }

  /// Gives input `k`, which has a row for each of a fixed number, one for each of an open number.
  void spread(ir::Node& n, std::size_t k, std::size_t axis, const Dim& to) {
    ir::Value* v = n.input(k);
    if (v == nullptr || !v->type.is_tensor() || !v->type.shape.has_rank()) return;
    const Dims& dims = v->type.shape.dims();
    if (axis >= dims.size() || !dims[axis].is_const()) return;
    if (original(to) != dims[axis].value())
      fail("unsupported", "{} has {} rows, and not one for each of {}", quoted(v->name),
           dims[axis].value(), to.str());
    Dims target(dims.size(), Dim(1));
    target[axis] = to;
    ir::Value* row = first_row(n, v, axis);
    n.set_input(k, add("Expand", {row, vector_of(target, n)}, n));
  }

  /// Whether all rows of a value along an axis are known to be equal.
  static bool has_one_row(const ir::Value* v, std::size_t axis) {
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

  /// The row that all rows of a value are equal to.
  ir::Value* first_row(ir::Node& n, ir::Value* v, std::size_t axis) {
    const Dims& dims = v->type.shape.dims();
    if (dims[axis].is_const() && dims[axis].value() == 1) return v;
    const bool equal = has_one_row(v, axis);
    if (!equal || n.opset < 10)
      fail("unsupported", "{} holds another row for each of {}", quoted(v->name),
           dims[axis].value());
    const auto at = static_cast<std::int64_t>(axis);
    return add("Slice", {v, constant({0}), constant({1}), constant({at})}, n);
  }

  void broadcasts(ir::Node& n) {
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
            fail("unsupported", "{} is {} where the other is {}", quoted(v->name), fixed.value(),
                 open.str());
          n.set_input(k, first_row(n, v, axis));
          break;
        }
      }
    }
  }

  // ---- What cannot do with any size ----

  void takes_apart(ir::Node& n) {
    const Dims* from = opened(n.input(0));
    if (from == nullptr) return;
    const auto rank = static_cast<std::int64_t>(from->size());
    Ints axes;
    if (n.is("Squeeze")) {
      const ir::Attribute* given = n.attribute("axes");
      const Ints* listed = given != nullptr ? std::get_if<Ints>(&given->data) : nullptr;
      axes = listed != nullptr ? *listed : ints_of(n.input(1)).value_or(Ints{});
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

  void sums(ir::Node& n) {
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

  ir::Model& model_;
  std::map<std::string, Freed> freed_;
  ir::Node* first_ = nullptr;
};

/// The dims to open, by symbol.
std::map<std::string, Freeing::Freed> chosen(ir::Model& model, const FreeDims& asked) {
  std::map<std::string, Freeing::Freed> out;
  std::string batch;
  const auto open = [&](ir::Value& input, std::size_t axis, bool is_batch) {
    Dim& d = input.type.shape.dims()[axis];
    if (!d.is_const() || d.value() == 0) return;
    const std::string name =
        is_batch ? "batch" : printable(input.name) + "_" + std::to_string(axis);
    std::string symbol = is_batch ? batch : "";
    if (symbol.empty()) symbol = model.info.add_symbol(name);
    if (is_batch) batch = symbol;
    out.emplace(symbol, Freeing::Freed{&input, axis, d.value(), is_batch});
    d = Dim::symbol(symbol);
  };
  for (const auto& [name, axis] : asked.axes) {
    ir::Value* input = nullptr;
    for (ir::Value* v : model.graph->inputs)
      if (v->name == name) input = v;
    if (input == nullptr)
      throw Error("bad-option", "the model has no input " + quoted(name));
    const ir::Shape& s = input->type.shape;
    const auto rank = static_cast<std::int64_t>(s.rank());
    if (!s.has_rank() || axis < -rank || axis >= rank)
      throw Error("bad-option", fmt::format("the input {} has no dim {}: it is {}", quoted(name),
                                            axis, input->type.str()));
    open(*input, static_cast<std::size_t>(axis < 0 ? axis + rank : axis), false);
  }
  if (!asked.batch) return out;
  std::optional<std::int64_t> size;
  for (ir::Value* v : model.graph->inputs) {
    if (v->is_initializer || !v->type.is_tensor() || v->type.shape.rank() == 0) continue;
    const Dim& d = v->type.shape[0];
    if (!d.is_const() || d.value() == 0) continue;
    if (!size) size = d.value();
    if (d.value() == *size) open(*v, 0, true);
  }
  return out;
}

/// What inference minds, as text.
std::set<std::string> complaints(const Diagnostics& found) {
  std::set<std::string> out;
  for (const Diagnostic& d : found.list())
    if (d.severity == Severity::Error) out.insert(d.node + d.op_type + d.message);
  return out;
}

/// What the file says of values, in sizes that no longer hold.
void forget_shapes(ir::Graph& graph) {
  ir::for_each_node(graph, [](ir::Node& n) {
    for (ir::Value* v : n.outputs()) {
      if (v == nullptr || !v->type.is_tensor() || v->constant) continue;
      v->type.shape = ir::Shape();
      v->contents.reset();
      v->declared = nullptr;
    }
  });
}

}  // namespace

void free_dims(ir::Model& model, const FreeDims& asked, Diagnostics& diagnostics) {
  if (asked.empty()) return;
  ir::Graph& graph = *model.graph;
  Diagnostics before;
  ops::infer_graph(graph, before);
  auto freed = chosen(model, asked);
  if (freed.empty()) return;
  forget_shapes(graph);
  Freeing freeing(model, std::move(freed));
  Diagnostics after;
  const ir::Node* at = nullptr;
  try {
    ops::infer_graph(graph, after, [&](ir::Node& n) {
      at = &n;
      return freeing.visit(n);
    });
  } catch (const Error& e) {
    if (at == nullptr) throw;
    Diagnostic d = ops::diagnose(*at, e);
    d.code = "fixed-dim";
    if (d.hint.empty()) d.hint = kHint;
    diagnostics.add(std::move(d));
    return;
  }
  const std::set<std::string> known = complaints(before);
  for (Diagnostic d : after.list()) {
    if (d.severity != Severity::Error || known.count(d.node + d.op_type + d.message) != 0) continue;
    d.code = "fixed-dim";
    d.hint = kHint;
    diagnostics.add(std::move(d));
  }
  for (std::size_t i = 0; i < graph.output_count(); ++i) {
    ir::Type& declared = graph.output_types[i];
    const ir::Type& found = graph.output(i)->type;
    if (!declared.is_tensor() || !found.is_tensor()) continue;
    if (!found.shape.has_rank() || declared.shape.rank() != found.shape.rank()) {
      declared.shape = ir::Shape();
      continue;
    }
    for (std::size_t d = 0; d < found.shape.rank(); ++d)
      if (freeing.depends(found.shape[d]))
        declared.shape.dims()[d] = found.shape[d].symbol_name() ? found.shape[d] : Dim();
  }
}

}  // namespace onnx2nn
