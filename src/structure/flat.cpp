#include "structure/flat.h"

#include <map>
#include <set>
#include <string_view>
#include <unordered_set>

#include "structure/members.h"
#include "structure/normal.h"
#include "structure/walk.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Args;
using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;
using torch::VarPtr;

using Path = std::vector<std::string>;

class Flattener {
 public:
  explicit Flattener(const torch::Program& program) : program_(program) {
    init_.name = "__init__";
    init_.returns = "None";
  }

  torch::Class run() {
    add(torch::op("call", {torch::attribute(torch::op("super", {}), "__init__")}));
    std::unordered_set<const torch::Param*> of_modules;
    for (const auto& m : program_.modules) {
      note(m->path, true);
      for (const auto& [_, p] : m->params) of_modules.insert(p.get());
    }
    for (const auto& p : program_.params)
      if (of_modules.count(p.get()) == 0 && !p->quantized) note(p->path, false);
    for (const auto& c : program_.constants) note(c->path, false);
    for (const auto& m : program_.modules) {
      containers(m->path);
      made_.insert(join(m->path, "."));
      Member member;
      member.module = m;
      set(m->path, Ex(without_defaults(constructor(member).ptr())), "add_module");
    }
    for (const auto& p : program_.params) {
      if (of_modules.count(p.get()) != 0 || p->quantized) continue;
      containers(p->path);
      Member member;
      member.kind = Member::Kind::Param;
      member.param = p;
      member.name = p->path.back();
      if (p->trainable || torch::is_attribute_name(member.name)) {
        set(p->path, constructor(member), "register_parameter");
      } else {
        add(registration(access(Path(p->path.begin(), p->path.end() - 1)), member));
      }
    }
    for (const auto& c : program_.constants) {
      containers(c->path);
      set(c->path, c->value, "");
    }
    for (const torch::Tie& tie : program_.ties) set(tie.path, access(tie.param->path), "");
    torch::Class out;
    out.name = program_.class_name;
    out.functions.push_back(std::move(init_));
    torch::Function forward;
    forward.name = "forward";
    for (const auto& p : program_.inputs) forward.params.push_back({p.var, "", std::nullopt});
    forward.body = program_.forward;
    rewrite(forward.body, [this](const ExprPtr& e) { return change(e); });
    out.functions.push_back(std::move(forward));
    return out;
  }

 private:
  void add(const Ex& value) {
    Stmt s;
    s.value = value;
    init_.body.push_back(std::move(s));
  }
  /// `how`: the method of nn.Module that takes a name which is none of Python's.
  void set(const Path& path, const Ex& value, const char* how) {
    const Path owner(path.begin(), path.end() - 1);
    if (!is_dict(owner) && !torch::is_attribute_name(path.back()))
      return add(torch::op("call", {torch::attribute(access(owner), how), Ex(path.back()), value}));
    Stmt s;
    s.kind = Stmt::Kind::Set;
    s.place = access(path);
    s.value = value;
    init_.body.push_back(std::move(s));
  }

  /// A container of modules with names that are none of Python's is a ModuleDict.
  void note(const Path& path, bool is_module) {
    std::string name;
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      name += (i > 0 ? "." : "") + path[i];
      const std::string& child = path[i + 1];
      const bool leaf = i + 2 == path.size() && !is_module;
      if (!torch::is_attribute_name(child)) (leaf ? no_dicts_ : dicts_).insert(name);
      if (torch::is_container_member(child)) no_dicts_.insert(name);
    }
  }
  bool is_dict(const Path& path) const {
    const std::string name = join(path, ".");
    return dicts_.count(name) != 0 && no_dicts_.count(name) == 0;
  }

  Ex access(const Path& path) const {
    Ex out = torch::self();
    Path owner;
    for (const std::string& part : path) {
      out = is_dict(owner) && !torch::is_attribute_name(part) ? torch::op("[]", {out, Ex(part)})
                                                              : torch::attribute(out, part);
      owner.push_back(part);
    }
    return out;
  }

  void containers(const Path& path) {
    std::string name;
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      name += (i > 0 ? "." : "") + path[i];
      if (!made_.insert(name).second) continue;
      const Path at(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      set(at, torch::call(is_dict(at) ? "nn.ModuleDict" : "nn.Module", {}), "add_module");
    }
  }

  ExprPtr change(const ExprPtr& e) const {
    if (e->kind == ExprKind::Param) return as_weight(access(e->param->path), *e->param);
    if (e->kind == ExprKind::Constant) return access(e->constant->path).ptr();
    if (e->kind != ExprKind::Module) return nullptr;
    Args all{access(e->module->path)};
    for (const auto& a : e->args)
      all.emplace_back(rewritten(a, [this](const ExprPtr& inner) { return change(inner); }));
    return torch::op("call", all).ptr();
  }

  const torch::Program& program_;
  torch::Function init_;
  std::set<std::string> dicts_, no_dicts_, made_;
};

}  // namespace

torch::Class flat_class(const torch::Program& program) {
  return Flattener(program).run();
}

void add_traces(torch::Function& forward) {
  struct Place {
    VarPtr var;
    std::size_t made = 0, used = 0;
    bool plain = false;
  };
  Block& body = forward.body;
  std::map<int, Place> places;  // in the order of the variables
  for (std::size_t i = 0; i < body.size(); ++i) {
    each_expr(body[i], [&](const Expr& e) {
      if (e.kind == ExprKind::Var) places[e.var->id].used = i;
    });
    const auto in_stmt = [&](auto&& again, const Stmt& s, bool outside) -> void {
      for (const auto& v : s.targets) {
        Place& p = places[v->id];
        p.var = v;
        p.made = i;
        p.plain = outside && s.kind == Stmt::Kind::Assign;
      }
      if (s.kind == Stmt::Kind::Def) return;
      for (const Stmt& inner : s.body) again(again, inner, false);
      for (const Stmt& inner : s.orelse) again(again, inner, false);
    };
    in_stmt(in_stmt, body[i], true);
  }
  // An operator of several steps names each of them after its output; the last is the output.
  std::map<std::string_view, const Place*> last;
  for (const auto& [_, p] : places) {
    if (!p.var || p.var->onnx_name.empty() || !(p.plain || p.used > p.made)) continue;
    if (p.var->hint == "_" || p.used <= p.made) continue;
    const Place*& best = last[p.var->onnx_name];
    if (best == nullptr || best->made <= p.made) best = &p;
  }
  std::vector<std::vector<VarPtr>> traced(body.size());
  for (const auto& [_, p] : last) traced[p->made].push_back(p->var);
  Block out;
  for (std::size_t i = 0; i < body.size(); ++i) {
    out.push_back(std::move(body[i]));
    for (const VarPtr& v : traced[i]) {
      Stmt s;
      s.targets = {v};
      s.value = torch::call("_trace", {Ex(v->onnx_name), Ex(v)});
      out.push_back(std::move(s));
    }
  }
  body = std::move(out);
}

}  // namespace onnx2nn::structure
