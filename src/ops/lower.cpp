#include "ops/lower.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "ops/onnx_attributes.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

using torch::ParamPtr;
using torch::Stmt;
using torch::VarPtr;

bool is_identifier(std::string_view s) {
  if (s.empty() || std::isdigit(static_cast<unsigned char>(s[0])) != 0) return false;
  return std::all_of(s.begin(), s.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  });
}

bool is_number(std::string_view s) {
  return !s.empty() && s.size() < 8 && std::all_of(s.begin(), s.end(), [](char c) {
    return std::isdigit(static_cast<unsigned char>(c)) != 0;
  });
}

std::string to_identifier(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, 80)) {
    const bool ok = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (ok) {
      out += c;
    } else if (!out.empty() && out.back() != '_') {
      out += '_';
    }
  }
  while (!out.empty() && out.back() == '_') out.pop_back();
  if (out.empty()) return "value";
  if (std::isdigit(static_cast<unsigned char>(out[0])) != 0) out = "v" + out;
  return out;
}

std::string snake(std::string_view op_type) {
  std::string out;
  for (std::size_t i = 0; i < op_type.size(); ++i) {
    const auto c = static_cast<unsigned char>(op_type[i]);
    const auto is_lower = [&](std::size_t k) {
      return k < op_type.size() && std::islower(static_cast<unsigned char>(op_type[k])) != 0;
    };
    // A word begins: MatMul has two, ReLU has one.
    if (std::isupper(c) != 0 && i > 0 && is_lower(i - 1) && is_lower(i + 1)) out += '_';
    out += static_cast<char>(std::tolower(c));
  }
  return out;
}

/// Components of a state_dict key, where the name can be one.
std::optional<std::vector<std::string>> key_components(std::string_view name) {
  std::vector<std::string> out;
  for (const std::string_view part : split(name, '.')) {
    if (!is_identifier(part) && !is_number(part)) return std::nullopt;
    out.emplace_back(part);
  }
  if (out.empty() || is_number(out[0])) return std::nullopt;
  return out;
}

/// Module path from exporter scopes in a node's name: /layer1/layer1.0/conv1/Conv is
/// layer1.0.conv1.
std::optional<std::vector<std::string>> scope_path(std::string_view node_name) {
  if (node_name.empty() || node_name[0] != '/') return std::nullopt;
  std::vector<std::string> out;
  const auto parts = split(node_name.substr(1), '/');
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const auto components = key_components(parts[i]);
    if (!components) return std::nullopt;
    // A dotted part repeats its parent.
    std::size_t from = 0;
    if (components->size() > 1 && !out.empty() && (*components)[0] == out.back()) from = 1;
    out.insert(out.end(), components->begin() + static_cast<std::ptrdiff_t>(from),
               components->end());
  }
  if (out.empty()) return std::nullopt;
  return out;
}

// Attributes and methods of nn.Module, and what the emitted class defines: no submodule may be
// called so.
const std::set<std::string>& reserved_members() {
  static const std::set<std::string> kNames = {"T_destination",
                                               "add_module",
                                               "apply",
                                               "bfloat16",
                                               "buffers",
                                               "call_super_init",
                                               "children",
                                               "compile",
                                               "cpu",
                                               "cuda",
                                               "double",
                                               "dump_patches",
                                               "eval",
                                               "extra_repr",
                                               "float",
                                               "forward",
                                               "get_buffer",
                                               "get_extra_state",
                                               "get_parameter",
                                               "get_submodule",
                                               "half",
                                               "ipu",
                                               "load_state_dict",
                                               "modules",
                                               "mtia",
                                               "named_buffers",
                                               "named_children",
                                               "named_modules",
                                               "named_parameters",
                                               "parameters",
                                               "register_backward_hook",
                                               "register_buffer",
                                               "register_forward_hook",
                                               "register_forward_pre_hook",
                                               "register_full_backward_hook",
                                               "register_module",
                                               "register_parameter",
                                               "requires_grad_",
                                               "set_extra_state",
                                               "set_submodule",
                                               "share_memory",
                                               "state_dict",
                                               "to",
                                               "to_empty",
                                               "train",
                                               "training",
                                               "type",
                                               "xpu",
                                               "zero_grad",
                                               "_apply",
                                               "_backward_hooks",
                                               "_backward_pre_hooks",
                                               "_buffers",
                                               "_call_impl",
                                               "_compiled_call_impl",
                                               "_forward_hooks",
                                               "_forward_hooks_always_called",
                                               "_forward_hooks_with_kwargs",
                                               "_forward_pre_hooks",
                                               "_forward_pre_hooks_with_kwargs",
                                               "_get_backward_hooks",
                                               "_get_backward_pre_hooks",
                                               "_get_name",
                                               "_is_full_backward_hook",
                                               "_load_from_state_dict",
                                               "_load_state_dict_post_hooks",
                                               "_load_state_dict_pre_hooks",
                                               "_maybe_warn_non_full_backward_hook",
                                               "_modules",
                                               "_named_members",
                                               "_non_persistent_buffers_set",
                                               "_parameters",
                                               "_register_load_state_dict_pre_hook",
                                               "_register_state_dict_hook",
                                               "_replicate_for_data_parallel",
                                               "_save_to_state_dict",
                                               "_slow_forward",
                                               "_state_dict_hooks",
                                               "_state_dict_pre_hooks",
                                               "_version",
                                               "_wrapped_call_impl"};
  return kNames;
}

bool is_keyword(const std::string& s) {
  static const std::set<std::string> kWords = {
      "False",   "None",     "True",     "and",    "as",   "assert", "async",  "await",
      "break",   "class",    "continue", "def",    "del",  "elif",   "else",   "except",
      "finally", "for",      "from",     "global", "if",   "import", "in",     "is",
      "lambda",  "nonlocal", "not",      "or",     "pass", "raise",  "return", "try",
      "while",   "with",     "yield",    "match",  "case"};
  return kWords.count(s) != 0;
}

std::string member_name(std::string s) {
  if (s.rfind("__", 0) == 0) return "p" + s;  // inside a class Python changes such names
  if (is_keyword(s) || reserved_members().count(s) != 0 || s == "_") s += "_";
  return s;
}

}  // namespace

std::string variable_hint(std::string_view onnx_name, std::string_view op_type) {
  std::string_view name = onnx_name;
  if (const auto slash = name.rfind('/'); slash != std::string_view::npos) {
    // "/layer1/conv1/Conv_output_0": the scope says more than the operator.
    std::string_view scope = name.substr(0, slash);
    if (const auto s = scope.rfind('/'); s != std::string_view::npos) scope = scope.substr(s + 1);
    if (const auto dot = scope.rfind('.');
        dot != std::string_view::npos && !is_number(scope.substr(dot + 1)))
      scope = scope.substr(dot + 1);
    if (!scope.empty() && !is_number(scope) && scope.size() <= 24)
      return to_lower(to_identifier(scope));
    return snake(op_type);
  }
  const std::string id = to_identifier(name);
  // Counters such as "123" or "onnx::Conv_12" say nothing.
  const bool counter = name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) != 0 ||
                       name.find("::") != std::string_view::npos;
  if (counter || id.size() > 28) return snake(op_type);
  return to_lower(id);
}

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
  if (t.rank() == 0) return t.dtype() == DType::String ? Ex(t.strings()[0]) : number(t);
  std::int64_t at = 0;
  const auto build = [&](auto&& self, std::size_t d) -> Ex {
    Args items;
    for (std::int64_t i = 0; i < t.dims()[d]; ++i) {
      if (d + 1 < t.rank()) {
        items.push_back(self(self, d + 1));
      } else {
        items.push_back(t.dtype() == DType::String ? Ex(t.strings()[static_cast<std::size_t>(at)])
                                                   : number(t, at));
        ++at;
      }
    }
    return list(items);
  };
  return build(build, 0);
}

// ---------------------------------------------------------------- Lowering

Lowering::Lowering(const ir::Model& model, LowerOptions options, Diagnostics& diagnostics)
    : model_(model), options_(std::move(options)), diagnostics_(diagnostics) {
  program_.class_name = options_.class_name;
  for (const ir::Value* v : model_.graph->initializers) {
    const auto components = key_components(v->name);
    if (!components) continue;
    std::string path;
    for (std::size_t i = 0; i + 2 < components->size(); ++i) {
      path += (i > 0 ? "." : "") + (*components)[i];
      containers_.insert(path);
    }
  }
}

VarPtr Lowering::new_var(std::string hint, const ir::Value* value) {
  auto v = std::make_shared<torch::Var>();
  v->hint = std::move(hint);
  v->id = next_var_++;
  if (value != nullptr) {
    v->onnx_name = value->name;
    if (value->type.is_tensor() && value->type.shape.has_rank()) {
      // Fresh symbols are ours, not the model's; people see "?".
      std::string text = "[";
      for (std::size_t i = 0; i < value->type.shape.rank(); ++i) {
        const std::string d = value->type.shape[i].str();
        text += (i > 0 ? ", " : "") + (d.find('%') == std::string::npos && d.size() < 24 ? d : "?");
      }
      v->comment = text + "]";
    }
  }
  return v;
}

std::vector<std::string> Lowering::claim_path(std::vector<std::string> path) {
  for (std::size_t i = 0; i < path.size(); ++i)
    if (!is_number(path[i])) path[i] = member_name(path[i]);
  const std::string stem = path.back();
  // Numbers go on where they stopped, so that many weights of one name stay linear.
  int& attempt = path_attempts_[join(path, ".")];
  for (;; ++attempt) {
    if (attempt > 0) {
      path.back() = is_number(stem) ? "n" + stem + "_" + std::to_string(attempt)
                                    : stem + "_" + std::to_string(attempt);
    }
    const std::string full = join(path, ".");
    bool ok = leaf_paths_.count(full) == 0 && inner_paths_.count(full) == 0;
    std::string prefix;
    for (std::size_t i = 0; ok && i + 1 < path.size(); ++i) {
      prefix += (i > 0 ? "." : "") + path[i];
      if (leaf_paths_.count(prefix) != 0) {
        // The container's name is taken by a weight or module: give the whole a flat name.
        return claim_path({to_identifier(full)});
      }
    }
    if (!ok) continue;
    prefix.clear();
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      prefix += (i > 0 ? "." : "") + path[i];
      inner_paths_.insert(prefix);
    }
    leaf_paths_.insert(full);
    return path;
  }
}

Ex Lowering::param_expr(const ParamPtr& param) {
  auto e = Ex::make(torch::ExprKind::Param);
  e->param = param;
  return Ex(torch::ExprPtr(std::move(e)));
}

Ex Lowering::constant_expr(std::string_view hint, const Ex& value) {
  const auto path = claim_path({to_identifier(hint)});
  program_.constants.push_back({path[0], value});
  return Ex(torch::Ex::with_text(torch::ExprKind::Constant, path[0]));
}

/// The bytes as torch holds them: sub-byte types widened.
static ir::TensorPtr widen(const ir::TensorPtr& t) {
  if (!ir::is_sub_byte(t->dtype())) return t;
  if (t->dtype() == DType::Float4E2M1) {
    std::vector<float> v;
    for (std::int64_t i = 0; i < t->size(); ++i) v.push_back(static_cast<float>(t->double_at(i)));
    return ir::Tensor::from<float>(DType::Float32, t->dims(), v);
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(t->size()));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(t->int_at(static_cast<std::int64_t>(i)));
  return ir::Tensor::owned(ir::carrier(t->dtype()), t->dims(), std::move(bytes));
}

ParamPtr Lowering::param_of(const ir::Value* value) {
  if (auto it = params_.find(value); it != params_.end()) return it->second;
  auto p = std::make_shared<torch::Param>();
  p->tensor = widen(value->constant);
  p->dtype = p->tensor->dtype();
  p->shape = p->tensor->dims();
  p->trainable = value->is_initializer && ir::info(value->constant->dtype()).kind == 'f' &&
                 ir::info(value->constant->dtype()).bits >= 16;
  p->onnx_name = value->name;
  auto components = key_components(value->name);
  // A container's numbered children are modules, never parameters.
  if (components && is_number(components->back()))
    components = std::vector<std::string>{to_identifier(value->name)};
  if (!components) {
    std::string_view name = value->name;
    if (const auto slash = name.rfind('/');
        slash != std::string_view::npos && slash + 1 < name.size())
      name = name.substr(slash + 1);
    components = std::vector<std::string>{to_identifier(name)};
    if (std::isdigit(static_cast<unsigned char>(name.empty() ? '0' : name[0])) != 0 ||
        name.find("::") != std::string_view::npos)
      components = std::vector<std::string>{value->is_initializer ? "weight" : "constant"};
  }
  // No container of torch holds parameters, buffers and modules alike under numbers.
  while (components->size() > 1 && is_number(components->back())) {
    const std::string last = components->back();
    components->pop_back();
    components->back() += "_" + last;
  }
  p->path = claim_path(std::move(*components));
  params_[value] = p;
  program_.params.push_back(p);
  return p;
}

Ex Lowering::device() {
  for (const torch::Port& p : program_.inputs)
    if (p.kind == "tensor" && p.dtype != "string") return op(".device", {Ex(p.var)});
  return kNone;
}

void Lowering::bind_symbols(const ir::Value* value) {
  if (!value->type.is_tensor() || !value->type.shape.has_rank()) return;
  const Dims& dims = value->type.shape.dims();
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (const auto s = dims[i].symbol_name(); s && symbols_.count(*s) == 0)
      symbols_[*s] = {value, static_cast<std::int64_t>(i)};
}

void Lowering::define(const ir::Value* value, Lowered lowered) {
  const bool is_tensor = !lowered.host;
  // A Python integer that nothing else is known of, such as a loop's counter, stands for its
  // symbol.
  if (!is_tensor && lowered.elements.size() == 1 && value->contents && value->contents->size() == 1)
    if (const auto s = value->contents->front().symbol_name(); s && symbols_.count(*s) == 0)
      symbols_[*s] = {value, 0};
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
      if (v->second.host) return v->second.elements.at(0);
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

Lowered Lowering::lowered(const ir::Value* value) {
  if (const auto it = values_.find(value); it != values_.end()) return it->second;
  if (!value->constant)
    throw Error("skipped", "depends on a value that could not be converted: " + value->name);
  Lowered out;
  if (value->constant->dtype() == DType::String) {
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
  out.ex = param_expr(param_of(value));
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
  return aten("tensor", {scalar ? lowered.elements.at(0) : list(lowered.elements)}, kw);
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

namespace {

std::string qualified_type(const ir::Node& node) {
  return (node.domain.empty() ? "" : node.domain + "::") + node.op_type;
}

/// An attribute as a Python value; nothing where there is none (a graph).
std::optional<Ex> attribute_value(LowerContext& c, const ir::Attribute& a) {
  if (const auto* i = std::get_if<std::int64_t>(&a.data)) return Ex(*i);
  if (const auto* f = std::get_if<double>(&a.data)) return Ex(*f);
  if (const auto* s = std::get_if<std::string>(&a.data)) return Ex(*s);
  if (const auto* is = std::get_if<Ints>(&a.data)) return Ex(*is);
  if (const auto* fs = std::get_if<std::vector<double>>(&a.data)) return Ex(*fs);
  if (const auto* ss = std::get_if<std::vector<std::string>>(&a.data)) return Ex(*ss);
  if (const auto* t = std::get_if<ir::TensorPtr>(&a.data)) return c.buffer(a.name, *t);
  return std::nullopt;
}

bool is_keyword_name(const std::string& name) {
  return is_identifier(name) && !is_keyword(name);
}

/// A node that a user's function computes: inputs, then attributes as keywords.
void lower_custom(LowerContext& c, const std::string& function) {
  Args args;
  for (std::size_t i = 0; i < c.input_count(); ++i) args.push_back(c.in(i));
  Kwargs keywords;
  for (const ir::Attribute& a : c.node().attributes) {
    const auto value = attribute_value(c, a);
    if (!value) c.unsupported("the attribute \"" + a.name + "\" cannot be given to a function");
    if (!is_keyword_name(a.name))
      c.unsupported("the attribute \"" + a.name + "\" is no Python name");
    keywords.emplace_back(a.name, *value);
  }
  const Ex result = helper(function, args, keywords);
  if (c.output_count() == 1) {
    c.out(0, result);
  } else {
    c.outs(result);
  }
}

/// A call that raises with the operator's name, and holds what there is to know of the node.
void lower_stub(LowerContext& c) {
  Args args{Ex(qualified_type(c.node()))};
  for (std::size_t i = 0; i < c.input_count(); ++i) args.push_back(c.in(i));
  Kwargs keywords{{"outputs", Ex(static_cast<std::int64_t>(c.output_count()))}};
  for (const ir::Attribute& a : c.node().attributes)
    if (is_keyword_name(a.name) && a.name != "outputs")
      if (const auto value = attribute_value(c, a)) keywords.emplace_back(a.name, *value);
  const Ex result = helper("unknown_operator", args, keywords);
  if (c.output_count() == 1) {
    c.out(0, result);
  } else {
    c.outs(result);
  }
}

}  // namespace

bool Lowering::is_unknown(const ir::Node& node) const {
  return options_.custom.count({node.domain, node.op_type}) == 0 &&
         (node.op == nullptr || node.op->lower == nullptr);
}

void Lowering::report_unknown(const ir::Node& node) {
  if (!reported_.insert(&node).second) return;
  const char* hint = "--allow-unknown writes a stub for it; onnx2nn.register_op supplies torch code";
  Diagnostic d = diagnose(
      node, Error("unsupported-operator",
                  "the operator " + qualified_type(node) + " is not supported",
                  options_.allow_unknown ? "put your own code where unknown_operator is called"
                                         : hint));
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
    std::map<std::string, std::pair<const ir::Value*, std::int64_t>> symbols;
    ~Scope() {
      l.block_ = block;
      l.node_ = node;
      l.symbols_ = std::move(symbols);
    }
  } scope{*this, std::exchange(block_, &block), node_, symbols_};
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
    std::vector<std::string> dims;
    for (const Dim& d : t.shape.dims()) {
      const std::string text = d.str();
      dims.push_back(text.find('%') == std::string::npos ? text : "?");
    }
    p.type_text = std::string(ir::info(t.dtype).short_name) + "[" + join(dims, ", ") + "]";
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
  return std::move(program_);
}

// ---------------------------------------------------------------- LowerContext

void LowerContext::carry_strings(std::initializer_list<std::size_t> inputs) {
  if (dtype(*inputs.begin()) != DType::String) return;
  for (const std::size_t i : inputs) {
    if (!has_input(i)) continue;
    const Ex x = in(i);
    Args args{x};
    args.insert(args.end(), strings_.begin(), strings_.end());
    places_[i] = let(helper("string_places", args), "places");
    strings_.push_back(x);
  }
}

Ex LowerContext::carried(const Ex& value) {
  if (strings_.empty()) return value;
  Args args{value};
  args.insert(args.end(), strings_.begin(), strings_.end());
  return helper("strings_at", args);
}

Ex LowerContext::in(std::size_t i) {
  if (const auto it = places_.find(i); it != places_.end()) return it->second;
  return has_input(i) ? l_.tensor_of(input(i)) : kNone;
}

bool LowerContext::is_scalar_constant(std::size_t i) const {
  const ir::Tensor* t = constant(i);
  return t != nullptr && t->rank() == 0 && ir::info(t->dtype()).kind != 's' &&
         ir::info(t->dtype()).kind != 'c';
}

Ex LowerContext::operand(std::size_t i) {
  if (is_scalar_constant(i)) return number(*constant(i));
  if (has_input(i)) {
    const Lowered l = l_.lowered(input(i));
    // A Python integer is as good as a tensor of rank 0 where the other operand is one.
    if (l.host && l.elements.size() == 1 && rank(i) == 0U) return l.elements[0];
  }
  return in(i);
}

std::optional<std::vector<Ex>> LowerContext::int_elements(std::size_t i) {
  if (!has_input(i)) return std::nullopt;
  if (const auto dims = contents(i)) {
    std::vector<Ex> out;
    for (const Dim& d : *dims) {
      const auto e = l_.integer(d);
      if (!e) break;
      out.push_back(*e);
    }
    if (out.size() == dims->size()) return out;
  }
  if (const ir::Tensor* t = constant(i)) {
    const Ints ints = t->to_ints();
    return std::vector<Ex>(ints.begin(), ints.end());
  }
  const Lowered l = l_.lowered(input(i));
  if (l.host) return l.elements;
  const Shape& s = shape(i);
  if (s.has_rank() && s.rank() == 0) return std::vector<Ex>{op("int", {l.ex})};
  if (s.has_rank() && s.rank() == 1 && s[0].is_const() && s[0].value() == 1)
    return std::vector<Ex>{op("int", {l.ex})};
  return std::nullopt;
}

Ex LowerContext::int_list(std::size_t i) {
  if (auto elements = int_elements(i)) return list(*elements);
  return op(".tolist", {in(i)});
}

Ex LowerContext::int_scalar(std::size_t i) {
  if (auto elements = int_elements(i); elements && elements->size() == 1) return (*elements)[0];
  return op("int", {in(i)});
}

std::optional<double> LowerContext::const_number(std::size_t i) const {
  const ir::Tensor* t = constant(i);
  if (t == nullptr || t->size() != 1 || ir::info(t->dtype()).kind == 's' ||
      ir::info(t->dtype()).kind == 'c')
    return std::nullopt;
  return t->double_at(0);
}

Ex LowerContext::dim(std::size_t i, std::int64_t a) {
  const Shape& s = shape(i);
  if (s.has_rank()) {
    a = axis(a, s.rank());
    if (const auto e = l_.integer(s[static_cast<std::size_t>(a)])) return *e;
  }
  return torch::size(in(i), a);
}

std::optional<std::vector<Ex>> LowerContext::sizes(const Shape& shape) {
  if (!shape.has_rank()) return std::nullopt;
  std::vector<Ex> out;
  for (const Dim& d : shape.dims()) {
    const auto e = l_.integer(d);
    if (!e) return std::nullopt;
    out.push_back(*e);
  }
  return out;
}

void LowerContext::emit(Stmt statement) {
  statement.origin = node_.name;
  l_.block_->push_back(std::move(statement));
}

void LowerContext::out(std::size_t i, const Ex& moved) {
  const ir::Value* v = node_.output(i);
  if (v == nullptr) return;
  const Ex value = carried(moved);
  // What is said already needs no second name.
  if (value->kind == torch::ExprKind::Var) return alias(i, value);
  const VarPtr var = l_.new_var(variable_hint(v->name, node_.op_type), v);
  Stmt s;
  s.targets = {var};
  s.value = value;
  emit(std::move(s));
  l_.define(v, {.ex = Ex(var)});
}

void LowerContext::outs(const Ex& tuple) {
  Stmt s;
  s.value = tuple;
  for (std::size_t i = 0; i < node_.output_count(); ++i) {
    const ir::Value* v = node_.output(i);
    s.targets.push_back(l_.new_var(v != nullptr ? variable_hint(v->name, node_.op_type) : "_", v));
  }
  const auto targets = s.targets;
  emit(std::move(s));
  for (std::size_t i = 0; i < node_.output_count(); ++i)
    if (const ir::Value* v = node_.output(i))
      l_.define(v, {.ex = strings_.empty() ? Ex(targets[i]) : let(carried(Ex(targets[i])))});
}

void LowerContext::alias(std::size_t i, const Ex& value) {
  if (const ir::Value* v = node_.output(i)) l_.define(v, {.ex = value});
}

Ex LowerContext::let(const Ex& value, std::string hint) {
  const VarPtr var = l_.new_var(std::move(hint), nullptr);
  Stmt s;
  s.targets = {var};
  s.value = value;
  emit(std::move(s));
  return Ex(var);
}

std::vector<Ex> LowerContext::lets(const Ex& tuple, const std::vector<std::string>& hints) {
  Stmt s;
  s.value = tuple;
  std::vector<Ex> out;
  for (const std::string& h : hints) {
    s.targets.push_back(l_.new_var(h, nullptr));
    out.emplace_back(s.targets.back());
  }
  emit(std::move(s));
  return out;
}

const ir::Node* LowerContext::only_user(std::string_view type) const {
  const ir::Value* v = node_.output(0);
  if (v == nullptr || !v->has_one_use()) return nullptr;
  const ir::Node* user = v->first_use()->user;
  return user->is(type) && user->graph() == node_.graph() ? user : nullptr;
}

void LowerContext::absorb(const ir::Node& other, const Ex& value) {
  const ir::Value* v = other.output(0);
  const VarPtr var = l_.new_var(variable_hint(v->name, other.op_type), v);
  Stmt s;
  s.targets = {var};
  s.value = value;
  emit(std::move(s));
  l_.define(v, {.ex = Ex(var)});
  l_.done_[&other] = true;
}

Ex LowerContext::buffer(std::string_view hint, ir::TensorPtr tensor) {
  auto p = std::make_shared<torch::Param>();
  p->tensor = widen(tensor);
  p->dtype = p->tensor->dtype();
  p->shape = p->tensor->dims();
  p->path = l_.claim_path({to_identifier(hint)});
  l_.program_.params.push_back(p);
  return l_.param_expr(p);
}

namespace {

std::string key_text(const Ex& e) {
  std::string out = std::to_string(static_cast<int>(e->kind)) + ":" + std::to_string(e->integer) +
                    ":" + std::to_string(e->number) + ":" + e->text;
  for (const auto& a : e->args) out += "(" + key_text(Ex(a)) + ")";
  return out;
}

}  // namespace

std::optional<Ex> LowerContext::module(const std::string& type, const Args& args,
                                       const Kwargs& keywords,
                                       const std::vector<ModuleParam>& params,
                                       const Args& call_args) {
  for (const ModuleParam& p : params)
    if (p.value != nullptr && (!p.value->constant || ir::is_sub_byte(p.value->constant->dtype())))
      return std::nullopt;
  std::string key = type;
  for (const Ex& a : args) key += "|" + key_text(a);
  for (const auto& [k, v] : keywords) key += "|" + k + "=" + key_text(v);
  for (const ModuleParam& p : params)
    key +=
        "|" + p.name + (p.transpose ? "^" : "=") +
        std::to_string(reinterpret_cast<std::uintptr_t>(p.value != nullptr ? p.value : p.source));
  const auto called = [&](const torch::ModulePtr& m) {
    auto e = Ex::make(torch::ExprKind::Module);
    e->module = m;
    for (const Ex& a : call_args) e->args.push_back(a.ptr());
    return Ex(torch::ExprPtr(std::move(e)));
  };
  if (const auto it = l_.modules_by_key_.find(key); it != l_.modules_by_key_.end())
    return called(it->second);
  for (const ModuleParam& p : params) {
    if (p.value == nullptr) continue;
    if (l_.params_.count(p.value) != 0) return std::nullopt;
    // A weight twice in one module would be two parameters.
    for (const ModuleParam& q : params)
      if (&q != &p && q.value == p.value) return std::nullopt;
  }
  auto m = std::make_shared<torch::Module>();
  m->type = type;
  m->args = args;
  m->keywords = keywords;
  // The path: the weights' own prefix, else the node's scope, else the operator and a number.
  std::vector<std::string> path;
  for (const ModuleParam& p : params) {
    if (p.value == nullptr || !p.value->is_initializer) continue;
    if (auto components = key_components(p.value->name);
        components && components->size() > 1 && components->back() == p.name) {
      components->pop_back();
      path = std::move(*components);
      break;
    }
    // "attention.in_proj_bias" is of attention.in_proj.
    const std::string suffix = "_" + p.name;
    if (auto components = key_components(p.value->name)) {
      std::string& last = components->back();
      if (last.size() <= suffix.size() || !last.ends_with(suffix)) continue;
      last.resize(last.size() - suffix.size());
      path = std::move(*components);
      break;
    }
  }
  if (path.empty())
    if (auto scope = scope_path(node_.name)) path = std::move(*scope);
  std::string stem = snake(type);
  if (stem.size() > 2 && stem.ends_with("d") &&
      std::isdigit(static_cast<unsigned char>(stem[stem.size() - 2])) != 0)
    stem.resize(stem.size() - 2);
  if (path.empty()) path = {stem + "_" + std::to_string(++l_.stem_counts_[stem])};
  // A module of torch's has no children: where weights have names inside this one, it becomes such
  // a child.
  while (l_.containers_.count(join(path, ".")) != 0) path.push_back(stem);
  m->path = l_.claim_path(path);
  for (const ModuleParam& p : params) {
    auto param = std::make_shared<torch::Param>();
    param->tensor = p.value != nullptr ? p.value->constant : p.tensor;
    param->dtype = param->tensor->dtype();
    param->shape = p.shape.empty() ? param->tensor->dims() : p.shape;
    if (p.transpose && p.shape.empty()) std::swap(param->shape[0], param->shape[1]);
    param->transpose = p.transpose;
    param->trainable = !p.buffer && ir::info(param->dtype).kind == 'f';
    param->path = m->path;
    param->path.push_back(p.name);
    if (p.value != nullptr) {
      param->onnx_name = p.value->name;
      l_.params_[p.value] = param;
      // Another use of the weight reads the module's parameter, in ONNX's layout.
      Ex ex = l_.param_expr(param);
      if (p.transpose) ex = aten("t", {ex});
      if (param->shape != p.value->constant->dims() && !p.transpose)
        ex = aten("reshape", {ex, Ex(p.value->constant->dims())});
      l_.values_[p.value] = {.ex = ex};
    }
    m->params.emplace_back(p.name, param);
    l_.program_.params.push_back(param);
  }
  l_.program_.modules.push_back(m);
  l_.modules_by_key_[key] = m;
  return called(m);
}

}  // namespace onnx2nn::ops
