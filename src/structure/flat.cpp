#include "structure/flat.h"

#include <map>
#include <set>
#include <string_view>
#include <unordered_set>

#include "structure/members.h"
#include "structure/normal.h"
#include "structure/walk.h"
#include "support/text.h"

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

Ex access(const Path& path) {
  Ex out = torch::self();
  for (const std::string& part : path) {
    // The model itself is no ModuleDict.
    const bool root = out->kind == ExprKind::Self;
    out = !is_digit(part[0]) ? torch::attribute(out, part)
          : root             ? torch::op(".get_submodule", {out, Ex(part)})
                             : torch::op("[]", {out, Ex(part)});
  }
  return out;
}

class Flattener {
 public:
  explicit Flattener(const torch::Program& program) : program_(program) {
    init_.name = "__init__";
    init_.returns = "None";
  }

  torch::Class run() {
    add(torch::op("call", {torch::attribute(torch::op("super", {}), "__init__")}));
    for (const auto& m : program_.modules) note(m->path);
    for (const auto& p : program_.params) note(p->path);
    for (const auto& c : program_.constants) note(c->path);
    std::unordered_set<const torch::Param*> of_modules;
    for (const auto& m : program_.modules) {
      for (const auto& [_, p] : m->params) of_modules.insert(p.get());
      containers(m->path);
      made_.insert(join(m->path, "."));
      Member member;
      member.module = m;
      set(access(m->path), Ex(without_defaults(constructor(member).ptr())));
    }
    for (const auto& p : program_.params) {
      if (of_modules.count(p.get()) != 0 || p->quantized) continue;
      containers(p->path);
      Member member;
      member.kind = Member::Kind::Param;
      member.param = p;
      member.name = p->path.back();
      if (const Ex value = constructor(member); !value.is_none()) {
        set(access(p->path), value);
        continue;
      }
      if (p->path.size() == 1) tensors_.push_back(p->path[0]);
      auto call = std::make_shared<Expr>(*registration(member));
      call->args[0] = torch::attribute(access(Path(p->path.begin(), p->path.end() - 1)),
                                       "register_buffer").ptr();
      add(Ex(ExprPtr(std::move(call))));
    }
    for (const auto& c : program_.constants) {
      containers(c->path);
      set(access(c->path), c->value);
    }
    for (const torch::Tie& tie : program_.ties) set(access(tie.path), access(tie.param->path));
    torch::Class out;
    out.name = program_.class_name;
    out.tensors = std::move(tensors_);
    out.functions.push_back(std::move(init_));
    torch::Function forward;
    forward.name = "forward";
    for (const auto& p : program_.inputs) forward.params.push_back({p.var, "", std::nullopt});
    forward.body = program_.forward;
    rewrite(forward.body, change_);
    out.functions.push_back(std::move(forward));
    return out;
  }

 private:
  void add(const Ex& value) {
    Stmt s;
    s.value = value;
    init_.body.push_back(std::move(s));
  }
  void set(const Ex& place, const Ex& value) {
    if (place->kind == ExprKind::Op && place->text == ".get_submodule")
      return add(torch::op("call", {torch::attribute(Ex(place->args[0]), "add_module"),
                                    Ex(place->args[1]), value}));
    Stmt s;
    s.kind = Stmt::Kind::Set;
    s.place = place;
    s.value = value;
    init_.body.push_back(std::move(s));
  }

  /// A container whose children are numbers is a ModuleDict.
  void note(const Path& path) {
    std::string name;
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      name += (i > 0 ? "." : "") + path[i];
      if (is_digit(path[i + 1][0])) numbered_.insert(name);
    }
  }

  void containers(const Path& path) {
    std::string name;
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      name += (i > 0 ? "." : "") + path[i];
      if (!made_.insert(name).second) continue;
      set(access(Path(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(i) + 1)),
          torch::call(numbered_.count(name) != 0 ? "nn.ModuleDict" : "nn.Module", {}));
    }
  }

  struct Change {
    ExprPtr operator()(const ExprPtr& e) const {
      if (e->kind == ExprKind::Param) return as_weight(access(e->param->path), *e->param);
      if (e->kind == ExprKind::Constant) return access(e->constant->path).ptr();
      if (e->kind != ExprKind::Module) return nullptr;
      Args all{access(e->module->path)};
      for (const auto& a : e->args) all.emplace_back(rewritten(a, *this));
      return torch::op("call", all).ptr();
    }
  };

  const torch::Program& program_;
  torch::Function init_;
  std::vector<std::string> tensors_;
  std::set<std::string> numbered_, made_;
  Change change_;
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
