#include "structure/instances.h"

#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "structure/class_names.h"
#include "structure/layers.h"
#include "structure/members.h"
#include "structure/module_tree.h"
#include "structure/names.h"
#include "structure/outline.h"
#include "structure/precision.h"
#include "structure/sizes.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Args;
using torch::Attribute;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Instance;
using torch::InstancePtr;

/// The tree of modules; one module with all statements where the file's names make that impossible.
Tree tree_of(const torch::Program& program,
             const std::unordered_set<const torch::Param*>& shared) {
  try {
    return module_tree(program, shared);
  } catch (const Clash&) {
    Tree tree = outline(program, std::vector<torch::Scope>(program.forward.size()));
    add_members(tree, program);
    return tree;
  }
}

class Builder {
 public:
  Builder(const torch::Program& program, Tree& tree) : tree_(tree) {
    for (const torch::Tie& tie : program.ties) ties_[join(tie.path, ".")] = tie.param;
  }

  /// Callers come first: a parameter may be called as what is given for it.
  InstancePtr own(const Own& own) {
    auto out = std::make_shared<Instance>();
    out->type = wanted_class_name(own);
    for (const Method& m : own.methods) out->functions.push_back(function(own, m));
    for (const Member& m : own.members) member(*out, m);
    return out;
  }

 private:
  void member(Instance& owner, const Member& m) {
    switch (m.kind) {
      case Member::Kind::Module:
        if (m.module)
          owner.attributes.push_back({m.name, nullptr, layer_instance(*m.module, ties_, tree_.next_var)});
        return;
      case Member::Kind::Param:
        owner.attributes.push_back({m.name, m.param, nullptr});
        return;
      case Member::Kind::Constant:
        return;  // stands where it is used
      case Member::Kind::Own:
        owner.attributes.push_back({m.name, nullptr, own(*m.own)});
        return;
      case Member::Kind::List: {
        auto list = std::make_shared<Instance>();
        list->type = "ModuleList";
        for (const Member& item : m.list) member(*list, item);
        owner.attributes.push_back({m.name, nullptr, std::move(list)});
        return;
      }
    }
  }

  static Ex at(const Own& from, const std::vector<std::string>& path) {
    Ex out = torch::self();
    for (std::size_t i = from.path.size(); i < path.size(); ++i) out = torch::attribute(out, path[i]);
    return out;
  }

  static Ex called(const Ex& module, std::string method, const Args& args) {
    auto e = Ex::make(ExprKind::Method);
    e->text = std::move(method);
    e->add(module.ptr());
    for (const Ex& a : args) e->add(a.ptr());
    return Ex(ExprPtr(std::move(e)));
  }

  void localise(const Own& own, torch::Block& block) {
    const std::function<ExprPtr(const ExprPtr&)> change = [&](const ExprPtr& e) -> ExprPtr {
      const auto args = [&] {
        Args out;
        for (const auto& a : e->args) out.emplace_back(rewritten(a, change));
        return out;
      };
      switch (e->kind) {
        case ExprKind::Module: {
          const bool resumes = is_recurrent(e->module->type) && e->args.size() > 1;
          return called(at(own, e->module->path), resumes ? "resume" : "forward", args()).ptr();
        }
        case ExprKind::Param:
          return at(own, e->param->path).ptr();
        case ExprKind::Constant:
          return e->constant->value.ptr();
        case ExprKind::Method:
          return called(at(own, tree_.modules[static_cast<std::size_t>(e->integer)]->path), e->text,
                        args())
              .ptr();
        case ExprKind::Function: {
          auto copy = std::make_shared<Expr>(*e);
          for (auto& a : copy->args) a = rewritten(a, change);
          for (auto& [_, v] : copy->keywords) v = rewritten(v, change);
          const ExprPtr known = functional_as_aten(*copy);
          return known ? known : copy;
        }
        default:
          return nullptr;
      }
    };
    rewrite(block, change);
  }

  torch::Function function(const Own& own, const Method& m) {
    torch::Function f;
    f.name = m.name;
    for (const auto& v : m.params) f.params.push_back({v, v->type, std::nullopt});
    f.body = m.body;
    localise(own, f.body);
    if (own.parent != nullptr) {
      Args results;
      for (const auto& v : m.results) results.emplace_back(v);
      torch::Stmt give;
      give.kind = torch::Stmt::Kind::Return;
      give.value = results.size() == 1 ? results[0] : torch::tuple(results);
      f.body.push_back(std::move(give));
    }
    f.body = hoist_sizes(f);
    follow_weight_dtypes(f);
    name_variables(f, kReserved, {}, {});
    return f;
  }

  /// Words of TorchScript that are none of Python's.
  inline static const std::set<std::string> kReserved = {
      "aten",  "attribute", "CONSTANTS", "fork", "getattr", "inf",           "nan",
      "infj",  "nanj",      "ops",       "torch", "annotate", "uninitialized", "unchecked_cast"};

  Tree& tree_;
  std::map<std::string, torch::ParamPtr> ties_;
};

}  // namespace

InstancePtr instances(const torch::Program& program,
                      const std::unordered_set<const torch::Param*>& shared) {
  Tree tree = tree_of(program, shared);
  return Builder(program, tree).own(*tree.root);
}

}  // namespace onnx2nn::structure
