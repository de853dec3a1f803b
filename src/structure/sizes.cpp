#include "structure/sizes.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;
using torch::VarPtr;

using Key = std::pair<int, std::int64_t>;  // variable, dimension

class Hoister {
 public:
  explicit Hoister(torch::Program program) : program_(std::move(program)) {}

  torch::Program run() {
    for (const auto& p : program_.inputs) seen_var(p.var);
    count(program_.forward);
    Block out;
    for (const auto& p : program_.inputs) name_sizes_of_input(p, out);
    rewrite(program_.forward, out);
    program_.forward = std::move(out);
    return std::move(program_);
  }

 private:
  struct Size {
    int uses = 0;
    std::string hint;
    VarPtr name;
  };

  void seen_var(const VarPtr& v) { next_id_ = std::max(next_id_, v->id + 1); }

  void count(const Expr& e) {
    if (e.kind == ExprKind::Size && e.args[0]->kind == ExprKind::Var) {
      Size& s = sizes_[{e.args[0]->var->id, e.integer}];
      ++s.uses;
      if (s.hint.empty()) s.hint = e.text;
    }
    for (const auto& a : e.args) count(*a);
    for (const auto& [_, v] : e.keywords) count(*v);
  }

  void count(const Block& block) {
    for (const Stmt& s : block) {
      count(*s.value);
      for (const auto& v : s.targets) {
        seen_var(v);
        // A variable that is set again has another size then.
        if (!set_.insert(v->id).second) twice_.insert(v->id);
      }
      for (const auto& v : s.params) seen_var(v);
      count(s.body);
      count(s.orelse);
    }
  }

  /// What a person calls the size.
  static std::string hint_of(const torch::Var& of, std::int64_t dim) {
    if (dim == 0) return "batch";
    if (of.dims.size() == 4 && dim > 0) return dim == 1 ? "channels" : dim == 2 ? "height" : "width";
    if (of.dims.size() == 3 && dim > 0) return dim == 1 ? "length" : "features";
    return "size";
  }

  VarPtr name(const Key& key, const torch::Var& of) {
    Size& s = sizes_[key];
    if (s.name) return s.name;
    auto v = std::make_shared<torch::Var>();
    v->id = next_id_++;
    v->hint = s.hint.empty() ? hint_of(of, key.second) : s.hint;
    v->type = "int";
    s.name = v;
    return v;
  }

  std::vector<std::int64_t> wanted(int id) const {
    std::vector<std::int64_t> out;
    if (twice_.count(id) != 0) return out;
    for (auto it = sizes_.lower_bound({id, INT64_MIN}); it != sizes_.end() && it->first.first == id;
         ++it)
      if (it->second.uses > 1) out.push_back(it->first.second);
    return out;
  }

  void name_sizes_of_input(const torch::Port& p, Block& out) {
    const auto dims = wanted(p.var->id);
    if (dims.size() > 1 && p.shape && dims.size() == p.shape->size()) {
      Stmt s;  // batch, seq = x.shape
      for (const std::int64_t d : dims) s.targets.push_back(name({p.var->id, d}, *p.var));
      s.value = torch::shape_of(Ex(p.var));
      out.push_back(std::move(s));
      return;
    }
    name_sizes(p.var, out);
  }

  void name_sizes(const VarPtr& v, Block& out) {
    for (const std::int64_t d : wanted(v->id)) {
      Stmt s;
      s.targets = {name({v->id, d}, *v)};
      s.value = torch::size(Ex(v), d);
      out.push_back(std::move(s));
    }
  }

  ExprPtr rewritten(const ExprPtr& e) {
    if (e->kind == ExprKind::Size && e->args[0]->kind == ExprKind::Var) {
      const auto it = sizes_.find({e->args[0]->var->id, e->integer});
      if (it != sizes_.end() && it->second.name) return Ex(it->second.name).ptr();
    }
    bool changed = false;
    auto copy = std::make_shared<Expr>(*e);
    for (auto& a : copy->args) {
      ExprPtr r = rewritten(a);
      changed = changed || r != a;
      a = std::move(r);
    }
    for (auto& [_, v] : copy->keywords) {
      ExprPtr r = rewritten(v);
      changed = changed || r != v;
      v = std::move(r);
    }
    return changed ? copy : e;
  }

  void rewrite(Block& block, Block& out) {
    for (Stmt& s : block) {
      s.value = Ex(rewritten(s.value.ptr()));
      Block body;
      Block orelse;
      for (const auto& p : s.params) name_sizes(p, body);
      rewrite(s.body, body);
      rewrite(s.orelse, orelse);
      s.body = std::move(body);
      s.orelse = std::move(orelse);
      const auto targets = s.kind == Stmt::Kind::Assign ? s.targets : std::vector<VarPtr>{};
      out.push_back(std::move(s));
      for (const auto& v : targets) name_sizes(v, out);
    }
  }

  torch::Program program_;
  std::map<Key, Size> sizes_;
  std::set<int> set_;
  std::set<int> twice_;
  int next_id_ = 0;
};

}  // namespace

torch::Program hoist_sizes(torch::Program program) {
  return Hoister(std::move(program)).run();
}

torch::Program as_program(const torch::Function& function) {
  torch::Program out;
  for (const auto& p : function.params) {
    torch::Port port;
    port.var = p.var;
    if (p.var->has_dims) port.shape = p.var->dims;
    out.inputs.push_back(std::move(port));
  }
  out.forward = function.body;
  return out;
}

torch::Block hoist_sizes(const torch::Function& function) {
  return hoist_sizes(as_program(function)).forward;
}

}  // namespace onnx2nn::structure
