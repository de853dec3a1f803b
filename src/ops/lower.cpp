#include "ops/lower.h"

#include <algorithm>

#include "ops/names.h"
#include "ops/onnx_schemas.h"
#include "ops/unknown.h"
#include "ops/weight_role.h"
#include "support/interrupt.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::ops {

using torch::ParamPtr;
using torch::Stmt;
using torch::VarPtr;

Ex number(const ir::Tensor& t, std::int64_t i) {
  if (t.dtype() == DType::Bool) return {t.int_at(i) != 0};
  if (ir::info(t.dtype()).kind == 'f') {
    const double v = t.double_at(i);
    return {v};
  }
  if (t.dtype() == DType::UInt64 && t.int_at(i) < 0)
    throw Error("unsupported-dtype", "an unsigned 64-bit constant exceeds torch's integers");
  return {t.int_at(i)};
}

Ex nested_list(const ir::Tensor& t) {
  if (t.rank() == 0) return t.dtype() == DType::String ? Ex(t.string_at(0)) : number(t);
  std::int64_t at = 0;
  // A tensor without elements may have any number of lists.
  constexpr std::size_t kMostLists = 1 << 16;
  std::size_t lists = 0;
  const auto build = [&](auto&& self, std::size_t d) -> Ex {
    if (++lists > kMostLists) throw Error("too-large", "a constant is too large to be spelt out");
    Args items;
    for (std::int64_t i = 0; i < t.dims()[d]; ++i) {
      if (d + 1 < t.rank()) {
        items.push_back(self(self, d + 1));
      } else {
        items.push_back(t.dtype() == DType::String ? Ex(t.string_at(at)) : number(t, at));
        ++at;
      }
    }
    return list(items);
  };
  return build(build, 0);
}

// ---------------------------------------------------------------- Lowering

Lowering::Lowering(const ir::Model& model, LowerOptions options, Diagnostics& diagnostics)
    : model_(model),
      keys_(model),
      producer_(are_counted(*model.graph) ? std::string_view() : model.info.producer_name),
      options_(std::move(options)), diagnostics_(diagnostics) {
  program_.class_name = options_.class_name;
}

VarPtr Lowering::new_var(std::string hint, const ir::Value* value) {
  auto v = std::make_shared<torch::Var>();
  v->hint = std::move(hint);
  v->id = next_var_++;
  if (value != nullptr) {
    v->onnx_name = value->name;
    if (value->type.is_tensor() && value->type.dtype != DType::String) v->type = "Tensor";
    if (value->type.is_tensor()) v->dtype = value->type.dtype;
    if (value->type.is_tensor() && value->type.shape.has_rank()) {
      v->has_dims = true;
      for (const Dim& d : value->type.shape.dims()) v->dims.push_back(d.known() ? d.str() : "?");
    }
  }
  return v;
}

Ex Lowering::param_expr(const ParamPtr& param) {
  auto e = Ex::make(torch::ExprKind::Param);
  e->param = param;
  return Ex(torch::ExprPtr(std::move(e)));
}

Ex Lowering::constant_expr(std::string_view hint, const Ex& value) {
  auto constant = std::make_shared<torch::Constant>();
  constant->value = value;
  program_.constants.push_back(constant);
  unnamed_.push_back({constant, &constant->path, to_identifier(hint)});
  auto e = Ex::make(torch::ExprKind::Constant);
  e->constant = std::move(constant);
  return Ex(torch::ExprPtr(std::move(e)));
}

ir::TensorPtr widen(const ir::TensorPtr& t) {
  if (!ir::is_sub_byte(t->dtype())) return t;
  if (ir::is_narrow_float(t->dtype())) {
    std::vector<float> v;
    for (std::int64_t i = 0; i < t->size(); ++i) v.push_back(static_cast<float>(t->double_at(i)));
    return ir::Tensor::from<float>(DType::Float32, t->dims(), v);
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(t->size()));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(t->int_at(static_cast<std::int64_t>(i)));
  return ir::Tensor::owned(ir::carrier(t->dtype()), t->dims(), std::move(bytes));
}

bool Lowering::is_as_authored(const ir::Value* value) const {
  return is_authors_name(*named(value), keys_.said(), producer_);
}

ParamPtr Lowering::param_of(const ir::Value* value) {
  if (auto it = params_.find(value); it != params_.end()) return it->second;
  auto p = std::make_shared<torch::Param>();
  params_[value] = p;
  program_.params.push_back(p);
  const WeightType type = *weight_type(value);
  const bool is_float = ir::info(type.dtype).kind == 'f' && ir::info(type.dtype).bits >= 16;
  const WeightRole role =
      weight_role(*named(value), is_float, keys_.said(), producer_);
  p->shape = value->constant && is_as_authored(value) ? value->constant->first_dims() : type.dims;
  p->trainable = role.trainable;
  p->persistent = role.persistent;
  const std::string own_name = weight_name(value);
  auto components = key_components(own_name, is_as_authored(value));
  // What the exporter computed is of the module that reads it, and has no name of the author's.
  const bool is_computed = !p->trainable && !p->persistent;
  if (is_computed && components && components->size() == 1) components.reset();
  // Modules and parameters are numbered by lists, buffers by nothing.
  while (components && !p->trainable && components->size() > 1 && is_number(components->back())) {
    const std::string last = components->back();
    components->pop_back();
    components->back() += "_" + last;
  }
  if (components) {
    p->path = keys_.claim(std::move(*components));
  } else {
    std::string_view name = own_name;
    if (const auto slash = name.rfind('/');
        slash != std::string_view::npos && slash + 1 < name.size())
      name = name.substr(slash + 1);
    // "ReadVariableOp:0" of TensorFlow is how the weight was read.
    const std::size_t colon = name.rfind(':');
    const bool is_numbered = colon != std::string_view::npos && is_number(name.substr(colon + 1));
    if (is_numbered) name = name.substr(0, colon);
    const bool is_step = is_numbered && !name.empty() && (is_upper(name[0]) || name == "merged_input");
    const bool says_nothing =
        name.empty() || is_digit(name[0]) || name.find("::") != std::string_view::npos;
    unnamed_.push_back({p, &p->path,
                        is_step && p->trainable ? ""
                        : says_nothing || is_step ? (named(value)->is_initializer ? "weight" : "constant")
                                                  : to_identifier(name)});
  }
  store(p, value);
  return p;
}

Ex Lowering::buffer(std::string_view hint, const ir::TensorPtr& tensor) {
  auto p = std::make_shared<torch::Param>();
  p->tensor = widen(tensor);
  p->dtype = p->tensor->dtype();
  p->shape = p->tensor->dims();
  p->persistent = false;
  program_.params.push_back(p);
  unnamed_.push_back({p, &p->path, to_identifier(hint)});
  return param_expr(p);
}

namespace {

/// The scopes of all statements that read a weight or constant, as far as they are the same.
class Readers {
 public:
  explicit Readers(const torch::Block& block) { read(block); }

  /// What the call that reads a weight first takes it for.
  std::string stem(const void* what) const {
    const auto it = calls_.find(what);
    if (it == calls_.end()) return "weight";
    return it->second == "add" || it->second == "sub" ? "bias" : it->second == "mul" ? "scale" : "weight";
  }

  /// The components of their path; nothing where nobody reads it.
  std::optional<std::vector<std::string>> path(const void* what) const {
    const auto it = scopes_.find(what);
    if (it == scopes_.end()) return std::nullopt;
    return torch::components_of(it->second);
  }

 private:
  void read(const torch::Block& block) {
    for (const Stmt& s : block) {
      read(*s.value, s.scope ? *s.scope : torch::Scope{});
      read(s.body);
      read(s.orelse);
    }
  }

  void read(const torch::Expr& e, const torch::Scope& scope) {
    for (const void* what : {static_cast<const void*>(e.param.get()),
                             static_cast<const void*>(e.constant.get())}) {
      if (what == nullptr) continue;
      const auto [it, is_new] = scopes_.emplace(what, scope);
      if (!is_new) it->second = torch::common_scope(it->second, scope);
    }
    for (const auto& a : e.args) {
      if (e.kind == torch::ExprKind::Aten && a->param)
        calls_.emplace(a->param.get(), torch::function_of(e));
      read(*a, scope);
    }
    for (const auto& [_, v] : e.keywords) read(*v, scope);
  }

  std::unordered_map<const void*, torch::Scope> scopes_;
  std::unordered_map<const void*, std::string> calls_;
};

}  // namespace

/// What the file has no name for goes to the module that reads it.
void Lowering::name_rest() {
  if (unnamed_.empty()) return;
  const Readers readers(program_.forward);
  for (const Unnamed& u : unnamed_) {
    auto path = readers.path(u.what.get());
    if (!path) path.emplace();
    while (!path->empty() && keys_.is_claimed(*path)) path->pop_back();
    path->push_back(u.hint.empty() ? readers.stem(u.what.get()) : u.hint);
    *u.path = keys_.claim(std::move(*path));
  }
  for (const ParamPtr& p : program_.params) {
    if (!p->quantized) continue;
    const std::string name = p->path.back();
    p->path = p->quantized->path;
    p->path.push_back(name);
  }
}

Ex Lowering::device() {
  for (const torch::Port& p : program_.inputs)
    if (p.kind == "tensor" && p.dtype != "string") return op(".device", {Ex(p.var)});
  return kNone;
}

void Lowering::bind_symbol(const std::string& symbol, const ir::Value* value, std::int64_t dim) {
  if (symbols_.emplace(symbol, std::pair(value, dim)).second) bound_.push_back(symbol);
}

void Lowering::bind_symbols(const ir::Value* value) {
  if (!value->type.is_tensor() || !value->type.shape.has_rank()) return;
  const Dims& dims = value->type.shape.dims();
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (const auto s = dims[i].symbol_name())
      bind_symbol(*s, value, static_cast<std::int64_t>(i));
}

void Lowering::define(const ir::Value* value, Lowered lowered) {
  const bool is_tensor = !lowered.host;
  // A Python integer that nothing else is known of, such as a loop's counter, stands for its
  // symbol.
  if (!is_tensor && lowered.elements.size() == 1 && value->contents && value->contents->size() == 1)
    if (const auto s = value->contents->front().symbol_name()) bind_symbol(*s, value, 0);
  values_[value] = std::move(lowered);
  if (is_tensor) bind_symbols(value);
}

std::optional<Ex> Lowering::integer(const Dim& dim) {
  if (!dim.known()) return std::nullopt;
  if (dim.is_const()) return Ex(dim.value());
  const auto atom = [&](const ir::Atom& a) -> std::optional<Ex> {
    if (a.kind == ir::Atom::Kind::Symbol) {
      const auto it = symbols_.find(a.key);
      if (it == symbols_.end()) return std::nullopt;
      const auto v = values_.find(it->second.first);
      if (v == values_.end()) return std::nullopt;
      if (v->second.host)
        return v->second.elements.empty() ? std::nullopt : std::optional(v->second.elements[0]);
      // The model's own symbols name what they stand for.
      const std::string hint = a.key[0] == '%' ? "" : to_lower(a.key);
      return torch::size(v->second.ex, it->second.second, hint);
    }
    const auto x = integer(a.args[0]);
    const auto y = integer(a.args[1]);
    if (!x || !y) return std::nullopt;
    switch (a.kind) {
      case ir::Atom::Kind::FloorDiv:
        return op("//", {*x, *y});
      case ir::Atom::Kind::Mod:
        return op("%", {*x, *y});
      case ir::Atom::Kind::Max:
        return op("max", {*x, *y});
      default:
        return op("min", {*x, *y});
    }
  };
  // The least integer has no opposite.
  const auto has_none = [](std::int64_t n) { return n == INT64_MIN; };
  if (has_none(dim.constant_term()) ||
      std::any_of(dim.terms().begin(), dim.terms().end(),
                  [&](const Dim::Term& t) { return has_none(t.coefficient); }))
    return std::nullopt;
  std::optional<Ex> sum;
  for (const bool negative : {false, true}) {  // positive terms first: n - 1, not -1 + n
    for (const auto& t : dim.terms()) {
      if ((t.coefficient < 0) != negative) continue;
      std::optional<Ex> product;
      for (const auto& f : t.factors) {
        const auto x = atom(*f);
        if (!x) return std::nullopt;
        product = product ? op("*", {*product, *x}) : *x;
      }
      const std::int64_t c = negative ? -t.coefficient : t.coefficient;
      if (c != 1) product = op("*", {*product, Ex(c)});
      if (!sum) {
        sum = negative ? op("neg", {*product}) : *product;
      } else {
        sum = op(negative ? "-" : "+", {*sum, *product});
      }
    }
  }
  const std::int64_t c = dim.constant_term();
  if (c > 0) return op("+", {*sum, Ex(c)});
  if (c < 0) return op("-", {*sum, Ex(-c)});
  return sum;
}

bool Lowering::is_counted(const Dim& dim) const {
  const auto counted = [&](const Dim::AtomPtr& a) {
    if (a->kind != ir::Atom::Kind::Symbol) return is_counted(a->args[0]) || is_counted(a->args[1]);
    const auto it = symbols_.find(a->key);
    return it != symbols_.end() && it->second.first->producer() != nullptr;
  };
  return std::any_of(dim.terms().begin(), dim.terms().end(), [&](const Dim::Term& t) {
    return std::any_of(t.factors.begin(), t.factors.end(), counted);
  });
}

Lowered Lowering::lowered(const ir::Value* value) {
  if (value == nullptr) throw Error("bad-model", "an input or output that it needs is missing");
  value = first_of(value);
  if (const auto it = values_.find(value); it != values_.end()) return it->second;
  if (!is_weight(value))
    throw Error("skipped", "depends on a value that could not be converted: " + value->name);
  Lowered out;
  if (value->constant && value->constant->dtype() == DType::String) {
    std::vector<Ex> strings;
    for (const std::string& s : value->constant->strings()) strings.emplace_back(s);
    Args reshaped{helper("string_array", {list(strings)})};
    for (const std::int64_t d : value->constant->dims()) reshaped.emplace_back(d);
    if (value->constant->rank() == 0) reshaped.push_back(torch::tuple({}));
    out.ex = constant_expr(value->name,
                           value->constant->rank() == 1 ? reshaped[0] : op(".reshape", reshaped));
    values_[value] = out;
    return out;
  }
  if (value->constant && value->constant->size() == 0 && !value->is_initializer &&
      value->constant->rank() > 0) {
    // There is nothing to keep.
    Kwargs kw;
    if (value->type.dtype != DType::Float32) kw.emplace_back("dtype", Ex(value->type.dtype));
    if (const Ex d = device(); !d.is_none()) kw.emplace_back("device", d);
    out.ex = aten("zeros", {Ex(value->constant->dims())}, kw);
    values_[value] = out;
    return out;
  }
  const ParamPtr param = param_of(value);
  out.ex = param_expr(param);
  // The state_dict has it as its author did.
  if (const Ints dims = weight_type(value)->dims; dims != param->shape)
    out.ex = aten("reshape", {out.ex, Ex(dims)});
  values_[value] = out;
  return out;
}

Ex Lowering::tensor_of(const ir::Value* value) {
  const bool scalar = value->type.shape.has_rank() && value->type.shape.rank() == 0;
  return materialise(lowered(value), value->type.dtype, scalar);
}

Ex Lowering::materialise(const Lowered& lowered, DType dtype, bool scalar) {
  if (!lowered.host) return lowered.ex;
  Kwargs kw;
  if (dtype != DType::Int64 || lowered.elements.empty()) kw.emplace_back("dtype", Ex(dtype));
  if (const Ex d = device(); !d.is_none()) kw.emplace_back("device", d);
  if (scalar && lowered.elements.size() != 1)
    throw Error("bad-model", "a scalar has " + std::to_string(lowered.elements.size()) +
                                 " elements");
  return aten("tensor", {scalar ? lowered.elements.front() : list(lowered.elements)}, kw);
}

bool Lowering::lower_as_integers(const ir::Node& node) {
  if (node.output_count() == 0 || (node.op != nullptr && node.op->nondeterministic)) return false;
  std::vector<std::pair<const ir::Value*, Lowered>> all;
  for (const ir::Value* v : node.outputs()) {
    if (v == nullptr) continue;
    if (!v->contents || !v->type.is_tensor() || !v->type.shape.has_rank() ||
        v->type.shape.rank() > 1)
      return false;
    Lowered l;
    l.host = true;
    for (const Dim& d : *v->contents) {
      const auto e = integer(d);
      if (!e) return false;
      l.elements.push_back(*e);
    }
    all.emplace_back(v, std::move(l));
  }
  for (auto& [v, l] : all) define(v, std::move(l));
  return true;
}

bool Lowering::is_unknown(const ir::Node& node) const {
  return options_.custom.count({node.domain, node.op_type}) == 0 &&
         (node.op == nullptr || node.op->lower == nullptr);
}

void Lowering::report_unknown(const ir::Node& node) {
  if (!reported_.insert(&node).second) return;
  const char* hint =
      "--allow-unknown writes a stub for it; onnx2nn.register_op supplies torch code";
  Diagnostic d = diagnose(
      node,
      Error("unsupported-operator", "the operator " + qualified_type(node) + " is not supported",
            options_.allow_unknown ? "put your own code where unknown_operator is called" : hint));
  if (options_.allow_unknown) d.severity = Severity::Warning;
  diagnostics_.add(std::move(d));
}

void Lowering::check_attributes(const NodeContext& c) {
  for (const std::string& name : c.unread_attributes()) {
    const ir::Node& node = c.node();
    bool known = false;
    const Error e("unsupported-attribute",
                  "the attribute \"" + name + "\" is not known to this operator");
    if (defined_by_onnx(node.domain, node.op_type, name, known) || !known) throw e;
    // ONNX never had it: a slip of the exporter, which runtimes pass over too.
    Diagnostic d = diagnose(node, e);
    d.severity = Severity::Warning;
    d.code = "unknown-attribute";
    d.message += " and was ignored";
    diagnostics_.add(std::move(d));
  }
}

void Lowering::lower_node(const ir::Node& node) {
  check_interrupt();
  node_ = &node;
  if (done_.count(&node) != 0) return;
  try {
    if (const auto custom = options_.custom.find({node.domain, node.op_type});
        custom != options_.custom.end()) {
      LowerContext c(node, *this);
      return lower_custom(c, custom->second);
    }
    if (is_unknown(node)) {
      report_unknown(node);
      if (!options_.allow_unknown) throw Error("skipped", "its operator is not supported");
      LowerContext c(node, *this);
      return lower_stub(c);
    }
    if (node.unsound) throw Error("skipped", "it was refused before");
    if (lower_as_integers(node)) return;
    LowerContext c(node, *this);
    node.op->lower(c);
    check_attributes(c);
  } catch (const Error& e) {
    // What depends on a failed node is not reported again.
    if (e.code() != "skipped") diagnostics_.add(diagnose(node, e));
    // Nobody will look into its bodies, and all unknown operators are to be listed at once.
    for (const ir::Graph* g : node.subgraphs())
      ir::for_each_node(*g, [&](const ir::Node& n) {
        if (is_unknown(n)) report_unknown(n);
      });
  }
}

void Lowering::lower_nodes(const ir::Graph& graph) {
  for (const ir::Node* n = graph.first(); n != nullptr; n = n->next()) lower_node(*n);
}

torch::Block Lowering::lower_block(const ir::Graph& graph, const std::vector<Lowered>& inputs,
                                   std::vector<Lowered>& outputs) {
  torch::Block block;
  // What the block binds is known in the block alone: it may not run.
  struct Scope {
    Lowering& l;
    torch::Block* block;
    const ir::Node* node;
    std::size_t bound;
    ~Scope() {
      l.block_ = block;
      l.node_ = node;
      for (; l.bound_.size() > bound; l.bound_.pop_back()) l.symbols_.erase(l.bound_.back());
    }
  } scope{*this, std::exchange(block_, &block), node_, bound_.size()};
  for (std::size_t i = 0; i < graph.inputs.size() && i < inputs.size(); ++i)
    define(graph.inputs[i], inputs[i]);
  lower_nodes(graph);
  outputs.clear();
  for (std::size_t i = 0; i < graph.output_count(); ++i)
    outputs.push_back(lowered(graph.output(i)));
  return block;
}

void Lowering::lower_inline(const ir::Graph& graph, std::vector<Lowered>& outputs) {
  const ir::Node* node = node_;
  lower_nodes(graph);
  node_ = node;
  outputs.clear();
  for (std::size_t i = 0; i < graph.output_count(); ++i)
    outputs.push_back(lowered(graph.output(i)));
}

torch::Port Lowering::port(const ir::Value* value, const std::string& onnx_name, const Type& type) {
  torch::Port p;
  p.onnx_name = onnx_name;
  const Type& t = type.kind == Type::Kind::Unknown && value != nullptr ? value->type : type;
  p.kind = t.kind == Type::Kind::Sequence   ? "sequence"
           : t.kind == Type::Kind::Optional ? "optional"
           : t.kind == Type::Kind::Map      ? "map"
                                            : "tensor";
  p.dtype = std::string(ir::info(t.dtype).name);
  if (t.shape.has_rank()) {
    constexpr std::size_t kReadable = 40;  // characters of a size
    std::vector<std::string> dims;
    std::vector<std::string> short_dims;
    for (const Dim& d : t.shape.dims()) {
      const std::string text = d.str();
      dims.push_back(text.find('%') == std::string::npos ? text : "?");
      short_dims.push_back(text.size() > kReadable ? "?" : dims.back());
    }
    p.type_text = std::string(ir::info(t.dtype).short_name) + "[" + join(short_dims, ", ") + "]";
    p.shape = std::move(dims);
  } else {
    p.type_text = t.str();
  }
  return p;
}

torch::Program Lowering::run() {
  const ir::Graph& graph = *model_.graph;
  block_ = &program_.forward;
  for (const ir::Value* v : graph.inputs) {
    if (v->constant) continue;  // an input with a default is a weight
    torch::Port p = port(v, v->name, v->type);
    p.var = new_var(to_identifier(v->name), v);
    program_.inputs.push_back(p);
    define(v, {.ex = Ex(p.var)});
  }
  lower_nodes(graph);
  Args results;
  for (std::size_t i = 0; i < graph.output_count(); ++i) {
    const ir::Value* v = graph.output(i);
    program_.outputs.push_back(
        port(v, graph.output_names[i], merge(v->type, graph.output_types[i])));
    try {
      results.push_back(tensor_of(v));
    } catch (const Error& e) {
      if (e.code() != "skipped") diagnostics_.add(e);
    }
  }
  Stmt ret;
  ret.kind = Stmt::Kind::Return;
  // A sequence or map that stands alone could be taken for several outputs.
  const bool alone = results.size() == 1 && (program_.outputs[0].kind == "tensor" ||
                                             program_.outputs[0].kind == "optional");
  ret.value = alone ? results[0] : torch::tuple(results);
  program_.forward.push_back(std::move(ret));
  torch::remove_unused(program_);
  name_rest();
  tie_rest();
  return std::move(program_);
}

}  // namespace onnx2nn::ops
