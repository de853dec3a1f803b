#include "structure/classes.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "structure/class_names.h"
#include "structure/loops.h"
#include "structure/members.h"
#include "structure/names.h"
#include "structure/normal.h"
#include "structure/optional.h"
#include "structure/parameters.h"
#include "structure/sequential.h"
#include "structure/shapes.h"
#include "structure/steps.h"
#include "structure/variants.h"
#include "structure/walk.h"
#include "support/counted.h"
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

/// Layers, weights and modules as attributes of `self`.
void localise(const Tree& tree, const Own& own, Block& block) {
  Access access(own);
  const std::function<ExprPtr(const ExprPtr&)> change = [&](const ExprPtr& e) -> ExprPtr {
    const auto called = [&](const Ex& on) {
      Args all{on};
      for (const auto& a : e->args) all.emplace_back(rewritten(a, change));
      return torch::op("call", all).ptr();
    };
    switch (e->kind) {
      case ExprKind::Module:
        return called(access(e->module->path));
      case ExprKind::Param:
        return as_weight(access(e->param->path), *e->param);
      case ExprKind::Constant:
        return access(e->constant->path).ptr();
      case ExprKind::Method: {
        const Ex on = access(tree.modules[static_cast<std::size_t>(e->integer)]->path);
        return called(e->text == "forward" ? on : torch::attribute(on, e->text));
      }
      default:
        return nullptr;
    }
  };
  rewrite(block, change);
}

/// Modules of one class.
struct Group {
  std::vector<Own*> modules;
  std::vector<Normal> normals;  // theirs
  OptionalPart optional;  // which only the first `with` modules have
  std::size_t with = 0;
};

class Classifier {
 public:
  Classifier(Tree& tree, std::string root_name, std::vector<torch::ParamPtr>& made)
      : tree_(tree), root_name_(std::move(root_name)), made_(made) {
    names_.insert(root_name_);
  }

  std::vector<torch::Class> run() {
    use_torch_modules(tree_);
    find_heights();
    std::map<int, std::vector<Own*>> levels;
    for (Own* own : tree_.modules) levels[heights_.at(own)].push_back(own);
    for (auto& [_, level] : levels) {
      std::stable_sort(level.begin(), level.end(),
                       [](const Own* a, const Own* b) { return a->order < b->order; });
      for (Own* own : level)
        if (!own->sequential) prepare(*own);
      std::map<std::string, Group> groups;
      for (Own* own : level) {
        if (own->sequential) continue;
        Normal normal = normal_form(*own);
        Group& group = groups[normal.text];
        group.modules.push_back(own);
        group.normals.push_back(std::move(normal));
      }
      name_chains(level);
      join_optional(groups);
      join_variants(groups);
      std::vector<Group*> order;
      for (auto& [text, group] : groups)
        if (!group.modules.empty()) order.push_back(&group);
      std::sort(order.begin(), order.end(), [](const Group* a, const Group* b) {
        return a->modules[0]->order < b->modules[0]->order;
      });
      for (Group* group : order) add_class(*group);
    }
    return std::move(classes_);
  }

 private:
  // ---- order

  /// Modules of one name are looked at together, though one has more inside than another.
  void find_heights() {
    std::vector<Own*> order = tree_.modules;  // what is inside of others first
    std::stable_sort(order.begin(), order.end(), [](const Own* a, const Own* b) {
      return a->path.size() > b->path.size();
    });
    std::map<std::string, int> role;
    for (int round = 0; round < kRounds; ++round) {
      bool changed = false;
      for (Own* own : order) {
        int height = 0;
        for (const Own* inner : inner_modules(*own)) height = std::max(height, heights_[inner] + 1);
        if (own->parent != nullptr && !is_nested_in_its_kind(*own))
          height = role[kind(*own)] = std::max(role[kind(*own)], height);
        int& mine = heights_[own];
        changed = changed || mine != height;
        mine = height;
      }
      if (!changed) return;
    }
    // Names go round in a circle: each by itself.
    heights_.clear();
    for (Own* own : order) {
      int height = 0;
      for (const Own* inner : inner_modules(*own)) height = std::max(height, heights_[inner] + 1);
      heights_[own] = height;
    }
  }

  /// What modules are that may share a class; a list is of another kind than what is in it.
  static std::string kind(const Own& own) { return wanted_class_name(own) + (is_list(own) ? "[]" : ""); }

  static bool is_nested_in_its_kind(const Own& own) {
    for (const Own* p = own.parent; p != nullptr && p->parent != nullptr; p = p->parent)
      if (kind(*p) == kind(own)) return true;
    return false;
  }

  void prepare(Own& own) {
    for (Method& m : own.methods) localise(tree_, own, m.body);
    join_methods(own);
    if (make_sequential(own)) return;
    for (Method& m : own.methods) roll_loops(tree_, own, m);
  }

  /// A method that does what another does is that one.
  void join_methods(Own& own) {
    if (own.methods.size() < 2) return;
    std::map<std::string, std::string> seen;
    std::map<std::string, std::string> same;
    std::vector<Method> kept;
    for (Method& m : own.methods) {
      Own alone;
      alone.methods.push_back(m);
      alone.methods[0].name.clear();
      Normal n = normal_form(alone);
      std::string text = n.text;
      for (const Hole& h : n.holes)
        text += "|" + std::to_string(h.value->integer) + "," +
                std::to_string(std::bit_cast<std::uint64_t>(h.value->number));
      const auto [it, is_new] = seen.emplace(text, m.name);
      if (is_new) {
        kept.push_back(std::move(m));
        continue;
      }
      same[m.name] = it->second;
      for (Method& k : kept)
        if (k.name == it->second) keep_common_sizes(k.body, m.body);
    }
    own.methods = std::move(kept);
    if (same.empty() || own.parent == nullptr) return;
    for (Own* p = own.parent; p != nullptr; p = p->parent)
      for (Method& m : p->methods)
        rewrite(m.body, [&](const ExprPtr& e) -> ExprPtr {
          if (e->kind != ExprKind::Method || e->integer != own.id) return nullptr;
          const auto it = same.find(e->text);
          if (it == same.end()) return nullptr;
          auto copy = std::make_shared<Expr>(*e);
          copy->text = it->second;
          return copy;
        });
  }

  // ---- chains

  /// A plain chain that comes often with other numbers is shorter as a class.
  void name_chains(const std::vector<Own*>& level) {
    std::map<std::string, Group> groups;
    for (Own* own : level) {
      // What torch has a module for is none of ours any more.
      if (!own->sequential || own->members.size() < kChain || !is_list(*own)) continue;
      Normal normal = normal_form(*own);
      Group& group = groups[normal.text];
      group.modules.push_back(own);
      group.normals.push_back(std::move(normal));
    }
    for (auto& [_, group] : groups) {
      // Inside of modules that share a class it is written once.
      std::set<std::pair<const void*, std::string>> places;
      for (const Own* own : group.modules) {
        const Own& parent = *own->parent;
        const bool alone = parent.parent == nullptr || parent.sequential || is_list(parent) ||
                           is_number(own->path.back());
        places.emplace(alone ? own : nullptr, alone ? "" : kind(parent) + "." + own->path.back());
      }
      bool differs = false;
      for (const Normal& n : group.normals)
        for (std::size_t h = 0; h < n.holes.size(); ++h)
          differs = differs || !equal(*n.holes[h].value, *group.normals[0].holes[h].value);
      if (!differs || places.size() < kPlaces ||
          places.size() * group.modules[0]->members.size() < kLines)
        continue;
      for (Own* own : group.modules) own->methods.clear();
      add_class(group);
    }
  }

  // ---- optional members

  static void join_optional(std::map<std::string, Group>& groups) {
    if (groups.size() < 2) return;
    for (auto& [_, group] : groups) {
      if (group.modules.empty() || group.with > 0 || group.modules[0]->parent == nullptr) continue;
      for (const auto& [part, bare] : optional_parts(*group.modules[0])) {
        const auto other = groups.find(bare.text);
        if (other == groups.end() || !joins(group, other->second)) continue;
        join(group, other->second, part);
        break;
      }
    }
  }

  static bool joins(const Group& group, const Group& other) {
    return &other != &group && !other.modules.empty() && other.with == 0 &&
           wanted_class_name(*other.modules[0]) == wanted_class_name(*group.modules[0]);
  }

  /// Modules of `other` lack what the group has.
  static void join(Group& group, Group& other, const OptionalPart& optional) {
    group.optional = optional;
    group.with = group.modules.size();
    group.modules.insert(group.modules.end(), other.modules.begin(), other.modules.end());
    for (Normal& n : other.normals) group.normals.push_back(std::move(n));
    other.modules.clear();
  }

  // ---- methods that are given more or less

  /// What modules have, without what they do.
  static std::string members_text(const Own& own) {
    Own bare;
    bare.members = own.members;
    return normal_form(bare).text;
  }

  /// Modules with the same members whose one method differs in what it is given share a class.
  void join_variants(std::map<std::string, Group>& groups) {
    std::map<std::string, std::vector<Group*>> alike;
    for (auto& [_, group] : groups) {
      if (group.modules.empty() || group.with > 0) continue;
      const Own& own = *group.modules[0];
      if (own.parent == nullptr || is_list(own) || own.members.size() < 2 || own.methods.size() != 1 ||
          own.methods[0].name != "forward")
        continue;
      alike[members_text(own)].push_back(&group);
    }
    std::unordered_map<int, std::vector<int>> given;  // by module
    for (auto& [_, same] : alike) {
      std::sort(same.begin(), same.end(), [](const Group* a, const Group* b) {
        return a->modules[0]->order < b->modules[0]->order;
      });
      while (same.size() > 1) {
        std::vector<Group*> joined{same[0]};
        std::optional<Generalised> common;
        for (std::size_t g = 1; g < same.size(); ++g) {
          joined.push_back(same[g]);
          std::vector<const Method*> methods;
          for (const Group* j : joined) methods.push_back(&j->modules[0]->methods[0]);
          auto all = generalised(tree_, methods);
          if (all && same[g]->normals[0].holes.size() == same[0]->normals[0].holes.size()) {
            common = std::move(all);
          } else {
            joined.pop_back();
          }
        }
        std::erase_if(same, [&](Group* g) {
          return std::find(joined.begin(), joined.end(), g) != joined.end();
        });
        if (!common) continue;
        for (std::size_t g = 0; g < joined.size(); ++g) {
          for (const Own* own : joined[g]->modules) given.emplace(own->id, common->given[g]);
          if (g == 0) continue;
          Group& first = *joined[0];
          first.modules.insert(first.modules.end(), joined[g]->modules.begin(), joined[g]->modules.end());
          for (Normal& n : joined[g]->normals) first.normals.push_back(std::move(n));
          joined[g]->modules.clear();
        }
        joined[0]->modules[0]->methods[0] = std::move(common->method);
      }
    }
    if (!given.empty()) give(given);
  }

  /// Calls of the modules with what the common method takes.
  void give(const std::unordered_map<int, std::vector<int>>& given) {
    for (Own* own : tree_.modules)
      for (Method& m : own->methods)
        rewrite(m.body, [&](const ExprPtr& e) { return given_anew(e, given); });
  }

  static ExprPtr given_anew(const ExprPtr& e, const std::unordered_map<int, std::vector<int>>& given) {
    if (e->kind != ExprKind::Method) return nullptr;
    const auto it = given.find(static_cast<int>(e->integer));
    if (it == given.end()) return nullptr;
    auto copy = std::make_shared<Expr>(*e);
    copy->args.clear();
    for (const int p : it->second)
      copy->args.push_back(p < 0 ? Ex().ptr()
                                 : rewritten(e->args[static_cast<std::size_t>(p)], [&](const ExprPtr& inner) {
                                     return given_anew(inner, given);
                                   }));
    while (!copy->args.empty() && copy->args.back()->kind == ExprKind::None) copy->args.pop_back();
    return copy;
  }

  // ---- one class

  std::string claim(const Group& group) {
    const std::string wanted = wanted_class_name(group.modules);
    const auto is_free = [&](const std::string& name) {
      return names_.count(name) == 0 && !torch::is_source_name(name) &&
             !torch::is_python_keyword(name);
    };
    std::string name = wanted;
    if (!is_free(name) && group.modules[0]->parent != nullptr &&
        group.modules[0]->parent->parent != nullptr)
      name = wanted_class_name(*group.modules[0]->parent) + wanted;
    const std::string stem = name;
    for (int k = 2; !is_free(name); ++k) name = stem + std::to_string(k);
    names_.insert(name);
    return name;
  }

  /// What differs from module to module is no size of the class's.
  /// What is called after a number in one module and another in the next is called after none.
  static void share_hints(Group& group) {
    if (group.modules.size() < 2 || group.with > 0) return;
    for (std::size_t m = 0; m < group.modules[0]->methods.size(); ++m) {
      Method& a = group.modules[0]->methods[m];
      const Method& b = group.modules[1]->methods[m];
      for (std::size_t p = 0; p < a.params.size() && p < b.params.size(); ++p) {
        const std::string hint = a.params[p]->hint;
        share_hint(*a.params[p], *b.params[p]);
        if (a.params[p]->hint == hint || a.params[p]->hint == without_count(hint)) continue;
        // The caller's own name for it has the number too.
        auto said = std::make_shared<torch::Var>();
        said->id = -1;
        said->name = a.params[p]->hint;
        a.params[p]->of = std::move(said);
      }
      share_hints(a.body, b.body);
    }
  }

  static void share_hints(Block& a, const Block& b) {
    for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
      for (std::size_t t = 0; t < a[i].targets.size() && t < b[i].targets.size(); ++t)
        share_hint(*a[i].targets[t], *b[i].targets[t]);
      share_hints(a[i].body, b[i].body);
      share_hints(a[i].orelse, b[i].orelse);
    }
  }

  static void share_hint(torch::Var& a, const torch::Var& b) { a.hint = common_hint(a.hint, b.hint); }

  static void share_sizes(Group& group) {
    Own& own = *group.modules[0];
    for (std::size_t k = 0; k < own.methods.size(); ++k) {
      Block& body = own.methods[k].body;
      const torch::Var* extra = nullptr;
      for (const Stmt& s : body) {
        if (group.with > 0 && is_of(s, group.optional)) extra = s.targets[0].get();
      }
      for (std::size_t i = 1; i < group.modules.size(); ++i)
        keep_common_sizes(body, group.modules[i]->methods[k].body, i >= group.with ? extra : nullptr);
    }
  }

  void add_class(Group& group) {
    Own& own = *group.modules[0];
    torch::Class out;
    out.name = own.parent == nullptr ? root_name_ : claim(group);
    share_sizes(group);
    share_hints(group);
    Steps steps = take_steps(group.modules, group.normals, group.with, group.optional.name);
    Parameters parameters = find_parameters(tree_, own, group.modules, group.normals, group.with,
                                            group.optional.name);
    if (group.optional.call) parameters.stored.push_back(parameters.flag);
    read_steps(steps, parameters.numbers);
    for (std::size_t i = 0; i < group.modules.size(); ++i) {
      group.modules[i]->class_name = out.name;
      group.modules[i]->args = parameters.args[i];
      group.modules[i]->positional = parameters.positional;
      group.modules[i]->keywords = parameters.keywords[i];
    }
    const bool list = is_list(own);
    if (list) out.base = own.sequential ? "nn.Sequential" : "nn.ModuleList";

    torch::Function init;
    init.name = "__init__";
    init.returns = "None";
    init.params = parameters.declared;
    const Ex super = torch::attribute(torch::op("super", {}), "__init__");
    const auto add = [&](const Ex& value) {
      Stmt s;
      s.value = value;
      init.body.push_back(std::move(s));
    };
    const auto set = [&](const Ex& place, const Ex& value) {
      Stmt s;
      s.kind = Stmt::Kind::Set;
      s.place = place;
      s.value = value;
      init.body.push_back(std::move(s));
    };
    for (const torch::Parameter& p : parameters.declared)
      if (p.otherwise) defaults_[out.name].emplace(p.var->name, p.otherwise->ptr());
    std::size_t next = 0;
    const auto made = [&](const Ex& value) {
      return Ex(without_own_defaults(without_defaults(filled(value.ptr(), parameters.numbers, next))));
    };
    const auto store = [&] {
      for (const torch::VarPtr& v : parameters.stored)
        set(torch::attribute(torch::self(), v->name), Ex(v));
      if (steps.name.empty()) return;
      Member m;
      m.name = steps.name;
      m.kind = Member::Kind::Param;
      m.param = steps.buffers[0];
      set(torch::attribute(torch::self(), m.name), constructor(m));
      for (torch::ParamPtr& p : steps.buffers) made_.push_back(std::move(p));
    };
    if (list) {
      Args items;
      for (const Member& m : own.members) items.push_back(made(constructor(m)));
      if (own.sequential) {
        items.insert(items.begin(), super);
        add(torch::op("call", items));
      } else {
        add(torch::op("call", {super, torch::list(items)}));
      }
      store();
    } else {
      add(torch::op("call", {super}));
      store();
      for (const Member& m : own.members) {
        const bool buffer = m.kind == Member::Kind::Param && !m.param->trainable;
        if (buffer && !torch::is_attribute_name(m.name)) {
          add(made(registration(torch::self(), m)));
          continue;
        }
        Ex value = made(constructor(m));
        if (!torch::is_attribute_name(m.name)) {
          const char* how = m.kind == Member::Kind::Param ? "register_parameter" : "add_module";
          add(torch::op("call", {torch::attribute(torch::self(), how), Ex(m.name), value}));
        } else {
          if (m.name == group.optional.name && !group.optional.call) value = torch::op("if", {Ex(parameters.flag), value, Ex()});
          set(torch::attribute(torch::self(), m.name), value);
        }
      }
    }
    out.functions.push_back(std::move(init));
    for (Method& m : own.methods) {
      fill(m.body, parameters, next);
      if (!steps.name.empty()) drop_zero_points(m.body);
      if (group.with > 0) make_optional(m, group.optional);
      out.functions.push_back(function(m, own.parent == nullptr));
    }
    classes_.push_back(std::move(out));
  }

  /// Calls of the file's own classes without what their constructors take by default.
  ExprPtr without_own_defaults(const ExprPtr& e) {
    return rewritten(e, [&](const ExprPtr& x) -> ExprPtr {
      const auto of = x->kind == ExprKind::Function ? defaults_.find(x->text) : defaults_.end();
      if (of == defaults_.end()) return nullptr;
      auto copy = std::make_shared<Expr>(*x);
      std::erase_if(copy->keywords, [&](const auto& keyword) {
        const auto it = of->second.find(keyword.first);
        return it != of->second.end() && equal(*keyword.second, *it->second);
      });
      return copy;
    });
  }

  void fill(Block& block, const Parameters& parameters, std::size_t& next) {
    for (Stmt& s : block) {
      s.value = Ex(filled(s.value.ptr(), parameters.numbers, next));
      fill(s.body, parameters, next);
      fill(s.orelse, parameters, next);
    }
  }

  static torch::Function function(Method& m, bool root) {
    torch::Function f;
    f.name = m.name;
    for (const auto& v : m.params) f.params.push_back({v, v->type, std::nullopt});
    for (std::size_t p = f.params.size() - m.optional; p < f.params.size(); ++p) {
      f.params[p].type += " | None";
      f.params[p].otherwise = Ex();
    }
    f.body = std::move(m.body);
    if (root) return f;
    Stmt ret;
    ret.kind = Stmt::Kind::Return;
    Args results;
    bool known = true;
    std::vector<std::string> types;
    for (const auto& v : m.results) {
      results.emplace_back(v);
      types.push_back(v->type);
      known = known && !v->type.empty();
    }
    ret.value = results.size() == 1 ? results[0] : torch::tuple(results);
    f.body.push_back(std::move(ret));
    if (known && !types.empty())
      f.returns = types.size() == 1 ? types[0] : "tuple[" + onnx2nn::join(types, ", ") + "]";
    return f;
  }

  static constexpr int kRounds = 12;
  // Layers of a chain, its places, and both together, for a class of its own.
  static constexpr std::size_t kChain = 3, kPlaces = 3, kLines = 16;
  Tree& tree_;
  std::string root_name_;
  std::vector<torch::ParamPtr>& made_;
  std::unordered_map<const Own*, int> heights_;
  std::set<std::string> names_;
  std::map<std::string, std::map<std::string, ExprPtr>> defaults_;  // of constructors, by class
  std::vector<torch::Class> classes_;
};

}  // namespace

std::vector<torch::Class> make_classes(Tree& tree, const std::string& root_name,
                                       std::vector<torch::ParamPtr>& made) {
  return Classifier(tree, root_name, made).run();
}

}  // namespace onnx2nn::structure
