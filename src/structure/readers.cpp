#include "structure/readers.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "structure/walk.h"
#include "support/counted.h"
#include "support/text.h"
#include "torch/python_names.h"
#include "torch/schema.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Expr;
using torch::ExprKind;
using torch::Stmt;

constexpr const char* kResidual = "residual";

/// By the table: its role.
using Tables = std::unordered_map<const torch::Param*, std::string>;

class Reader {
 public:
  Reader(const Block& flat, Roles& roles, Tables& tables) : roles_(roles), tables_(&tables) {
    note(flat);
    each(flat);
  }
  Reader(const torch::Function& function, Roles& roles) : roles_(roles) {
    for (const auto& p : function.params) {
      made_.emplace(p.var->id, nullptr);
      if (&p != &function.params.front()) others_.insert(p.var->id);
    }
    note(function.body);
    each(function.body);
    for (const auto& p : function.params) {
      const auto it = roles_.find(p.var->id);
      if (it == roles_.end()) continue;
      const std::string role = it->second;
      if (role == kResidual) continue;  // to this method only
      for (const torch::Var* of = p.var->of.get(); of != nullptr; of = of->of.get())
        roles_.emplace(of->id, role);
    }
  }

 private:
  void note(const Block& b) {
    for (const Stmt& s : b) {
      for (const auto& v : s.targets) {
        const bool plain = s.kind == Stmt::Kind::Assign && s.targets.size() == 1;
        const auto [it, is_new] = made_.emplace(v->id, plain ? s.value.ptr() : nullptr);
        if (!is_new) it->second = nullptr;
      }
      note(s.body);
      note(s.orelse);
    }
  }

  void each(const Block& b) {
    for (const Stmt& s : b) {
      each_expr(*s.value, [&](const Expr& e) { see(e); });
      each(s.body);
      each(s.orelse);
    }
  }

  /// The expression that a variable stands for, where it is set once.
  const Expr& meant(const Expr& e) const {
    if (e.kind != ExprKind::Var) return e;
    const auto it = made_.find(e.var->id);
    return it == made_.end() || !it->second ? e : *it->second;
  }

  void mark(const Expr& e, const std::string& role) {
    constexpr int kSteps = 6;
    const Expr* at = &e;
    for (int step = 0; step < kSteps; ++step) {
      if (at->kind == ExprKind::Var) {
        if (!roles_.emplace(at->var->id, role).second) return;
        const Expr& made = meant(*at);
        if (&made == at) return;
        at = &made;
      }
      if (at->kind == ExprKind::Param && tables_ != nullptr)
        tables_->emplace(at->param.get(), role);
      if (!keeps_meaning(*at)) return;
      at = at->args[0].get();
    }
  }

  void see(const Expr& e) {
    if (is_aten(e, "scaled_dot_product_attention")) {
      static const std::string kNames[] = {"q", "k", "v", "mask"};
      see_context(e);
      for (std::size_t i = 0; i < 4 && i < e.args.size(); ++i) mark(*e.args[i], kNames[i]);
      for (const auto& [name, value] : e.keywords)
        if (name == "attn_mask") mark(*value, kNames[3]);
    }
    if (is_aten(e, "add") && e.args.size() >= 2) {
      see_rotation(meant(*e.args[0]), meant(*e.args[1]));
      for (const std::size_t i : {0, 1}) {
        const Expr& other = meant(*e.args[1 - i]);
        const bool of_layer = other.kind == ExprKind::Op && other.text == "call";
        if (of_layer && e.args[i]->kind == ExprKind::Var && others_.count(e.args[i]->var->id) != 0)
          mark(*e.args[i], kResidual);
      }
    }
    if (tables_ != nullptr) see_table(e);
  }

  /// What a method is given to make keys or values of, beside what it makes queries of.
  void see_context(const Expr& attention) {
    const torch::Var* query = projected(*attention.args[0]);
    for (const std::size_t i : {2, 1}) {
      const torch::Var* of = projected(*attention.args[i]);
      if (query != nullptr && of != nullptr && of->id != query->id && others_.count(of->id) != 0)
        roles_.emplace(of->id, "context");
    }
  }

  /// The variable that a layer projects to this; null where there is none.
  const torch::Var* projected(const Expr& e) const {
    constexpr int kSteps = 8;
    const Expr* at = &meant(e);
    for (int step = 0; step < kSteps; ++step) {
      if (at->kind == ExprKind::Op && at->text == "call" && at->args.size() == 2)
        return at->args[1]->kind == ExprKind::Var ? at->args[1]->var.get() : nullptr;
      if (!keeps_meaning(*at) && !is_aten(*at, "mul")) return nullptr;
      at = &meant(*at->args[0]);
    }
    return nullptr;
  }

  void see_table(const Expr& e) {
    if (e.kind == ExprKind::Module && e.module->type == "Embedding" && !e.args.empty())
      return mark(*e.args[0], ids_of(e.module->path.back()));
    if (e.kind != ExprKind::Aten || e.args.empty()) return;
    const auto base = torch::function_of(e);
    if (base == "embedding" && e.args.size() > 1) return mark(*e.args[1], "ids");
    if (base == "index" && e.args.size() > 1)
      for (const auto& a : e.args[1]->args) mark(*a, "index");
    if (base == "where" || base == "bitwise_and" || base == "logical_and")
      for (const auto& a : e.args)
        if (a->kind == ExprKind::Param && a->param->dtype == ir::DType::Bool) mark(*a, "mask");
    if (base == "masked_fill" && e.args.size() > 1) mark(*e.args[1], "mask");
  }

  /// What an embedding looks up: position_ids of position_embeddings.
  static std::string ids_of(std::string name) {
    for (const std::string_view tail : {"_embeddings", "_embedding", "_embed", "_emb"})
      if (name.ends_with(tail) && name.size() > tail.size()) {
        name.resize(name.size() - tail.size());
        return name + "_ids";
      }
    return "ids";
  }

  /// x * cos + turned(x) * sin, where turned(x) holds a half of x negated.
  void see_rotation(const Expr& a, const Expr& b) {
    if (!is_aten(a, "mul") || !is_aten(b, "mul") || a.args.size() < 2 || b.args.size() < 2) return;
    if (!is_turned(*b.args[0], 0) || is_turned(*a.args[0], 0)) return;
    mark(*a.args[1], "cos");
    mark(*b.args[1], "sin");
  }

  bool is_turned(const Expr& e, int depth) const {
    constexpr int kDepth = 6;
    if (depth > kDepth) return false;
    const Expr& x = meant(e);
    if (is_aten(x, "neg")) return depth > 0;
    if (is_aten(x, "cat") || is_aten(x, "stack")) {
      if (x.args[0]->kind != ExprKind::List || x.args[0]->args.size() != 2) return false;
      for (const auto& half : x.args[0]->args)
        if (is_aten(half_of(*half), "neg")) return true;
      return false;
    }
    return keeps_meaning(x) && is_turned(*x.args[0], depth + 1);
  }

  const Expr& half_of(const Expr& e) const {
    constexpr int kSteps = 6;
    const Expr* x = &meant(e);
    for (int step = 0; step < kSteps && keeps_meaning(*x); ++step) x = &meant(*x->args[0]);
    return *x;
  }

  Roles& roles_;
  Tables* tables_ = nullptr;
  std::unordered_map<int, torch::ExprPtr> made_;
  std::set<int> others_;  // parameters but the first
};

/// Whether an input's name tells what it holds.
bool says_something(std::string_view name) {
  if (!torch::is_argument_name(name)) return false;
  name = without_count(name);
  for (const std::string_view plain :
       {"input", "inputs", "data", "image", "images", "tensor", "arg", "args", "in", "keras_tensor"})
    if (name == plain) return false;
  return name.size() > 1;
}

/// Whether the last two axes are a square of which all on and below the diagonal is true, and no more.
bool is_causal(const torch::Param& p) {
  constexpr std::int64_t kLongest = 1024;
  const std::size_t rank = p.shape.size();
  if (!p.tensor || p.dtype != ir::DType::Bool || rank < 2) return false;
  const std::int64_t n = p.shape[rank - 1];
  if (n < 2 || n > kLongest || p.shape[rank - 2] != n || p.tensor->size() != n * n) return false;
  const auto bytes = p.tensor->bytes();
  for (std::int64_t i = 0; i < n * n; ++i)
    if ((bytes[static_cast<std::size_t>(i)] != std::byte{0}) != (i % n <= i / n)) return false;
  return true;
}

/// A name that an exporter gave what it had computed; the author's have dots.
bool is_computed(const torch::Param& p) {
  return !p.trainable && !p.persistent && !p.quantized && !p.path.empty() &&
         (p.onnx_name.find('.') == std::string::npos || p.onnx_name.find('/') != std::string::npos);
}

/// What the first call that reads a table takes it for: the name of its argument, or what sums and
/// products do with it; "" where that says nothing.
class Uses {
 public:
  explicit Uses(const torch::Program& program) {
    for (const Stmt& s : program.forward) each_expr(s, [&](const Expr& e) { see(e); });
  }

  std::string of(const torch::Param& p) const {
    const auto it = uses_.find(&p);
    return it == uses_.end() ? "" : it->second;
  }

 private:
  void see(const Expr& e) {
    const auto is_table = [](const auto& a) { return a->kind == ExprKind::Param; };
    if (e.kind != ExprKind::Aten || std::none_of(e.args.begin(), e.args.end(), is_table)) return;
    const std::vector<torch::SchemaArg> schema = torch::schema_of(e.text);
    const std::string function(torch::function_of(e));
    for (std::size_t i = 0; i < e.args.size(); ++i)
      if (e.args[i]->kind == ExprKind::Param)
        uses_.emplace(e.args[i]->param.get(), role(function, i < schema.size() ? schema[i].name : ""));
  }

  static std::string role(const std::string& function, std::string_view argument) {
    if (function == "mul" || function == "div") return "scale";
    if (function == "add" || function == "sub") return "bias";
    if (function == "where") return argument == "condition" ? "mask" : "";
    for (const std::string_view said : {"weight", "bias", "mask", "index", "indices", "running_mean",
                                        "running_var", "attn_mask", "grid"})
      if (argument == said) return argument == "attn_mask" ? "mask" : std::string(argument);
    return "";
  }

  std::unordered_map<const torch::Param*, std::string> uses_;
};

/// An exporter's name without the number that it was counted with: mul of mul_46.
std::string uncounted(const std::string& name) {
  const std::string_view stem = without_count(name);
  return stem.empty() ? "table" : std::string(stem);
}

/// Whether the name says how the exporter came to the value, rather than what it is.
bool says_nothing(const std::string& name) {
  bool is_operator = false;
  torch::schema_of(name, &is_operator);
  return is_operator || uncounted(name) != name;
}

}  // namespace

Roles roles_of(const torch::Program& program, Roles known) {
  Roles out = known;
  for (const torch::Port& p : program.inputs)
    if (p.var && p.kind == "tensor" && torch::is_ascii_identifier(p.var->hint) && says_something(p.var->hint))
      known.emplace(p.var->id, p.var->hint);
  for (const torch::Class& c : program.classes) {
    for (const torch::Function& f : c.functions) {
      for (const auto& p : f.params)
        for (const torch::Var* of = p.var->of.get(); of != nullptr; of = of->of.get())
          if (const auto it = known.find(of->id); it != known.end()) out.emplace(p.var->id, it->second);
      Reader(f, out);
    }
  }
  return out;
}

void name_tables(torch::Program& program) {
  Roles roles;
  Tables tables;
  Reader(program.forward, roles, tables);
  const Uses uses(program);
  std::set<std::string> keys;
  const auto taken = [&](const std::vector<std::string>& path) {
    std::string key;
    for (const std::string& part : path) keys.insert(key += (key.empty() ? "" : ".") + part);
  };
  for (const auto& m : program.modules) taken(m->path);
  for (const auto& p : program.params) taken(p->path);
  for (const auto& c : program.constants) taken(c->path);
  for (const torch::Tie& t : program.ties) taken(t.path);
  for (const auto& p : program.params) {
    if (!is_computed(*p)) continue;
    // Without the exporter's number, modules that do the same have the same names.
    const auto it = tables.find(p.get());
    if (it == tables.end() && !says_nothing(p->path.back())) continue;
    std::string role = it != tables.end() ? it->second : uses.of(*p);
    if (role == "mask" && is_causal(*p)) role = "causal_mask";
    if (role.empty()) role = uncounted(p->path.back());
    keys.erase(p->key());
    std::vector<std::string> path = p->path;
    for (int k = 1;; ++k) {
      path.back() = role + (k > 1 ? std::to_string(k) : "");
      if (torch::is_module_member(path.back()) || torch::is_python_keyword(path.back())) continue;
      if (keys.count(join(path, ".")) == 0) break;
    }
    keys.insert(join(path, "."));
    p->path = std::move(path);
  }
}

}  // namespace onnx2nn::structure
