#include "structure/members.h"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>

#include "structure/walk.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;

using Path = std::vector<std::string>;

// Places in a list that nothing uses, at most; with more it is a module with numbers for names.
constexpr std::size_t kMaxGap = 64;

/// Where each layer, weight and constant is used first.
class Uses {
 public:
  explicit Uses(const Tree& tree) { method(*tree.root, tree); }

  std::size_t of(const void* what) const {
    const auto it = order_.find(what);
    return it == order_.end() ? order_.size() : it->second;
  }

 private:
  void note(const void* what) { order_.emplace(what, order_.size()); }

  void method(const Own& own, const Tree& tree) {
    if (order_.count(&own) != 0) return;
    note(&own);
    for (const Method& m : own.methods)
      for (const torch::Stmt& s : m.body)
        each_expr(s, [&](const Expr& e) {
          if (e.module) note(e.module.get());
          if (e.param) note(e.param.get());
          if (e.kind == ExprKind::Constant) note(e.constant.get());
          if (e.kind == ExprKind::Method)
            method(*tree.modules[static_cast<std::size_t>(e.integer)], tree);
        });
  }

  std::unordered_map<const void*, std::size_t> order_;
};

struct Trie {
  std::map<std::string, Trie> children;
  Member leaf;
  bool is_leaf = false;
};

class Builder {
 public:
  Builder(Tree& tree, const torch::Program& program) : tree_(tree), uses_(tree) {
    std::unordered_map<const torch::Param*, bool> of_module;
    for (const auto& m : program.modules) {
      for (const auto& [_, p] : m->params) of_module[p.get()] = true;
      Member member;
      member.kind = Member::Kind::Module;
      member.module = m;
      member.order = uses_.of(m.get());
      add(m->path, std::move(member));
    }
    for (const auto& p : program.params) {
      if (of_module.count(p.get()) != 0 || p->quantized) continue;
      Member member;
      member.kind = Member::Kind::Param;
      member.param = p;
      member.order = uses_.of(p.get());
      add(p->path, std::move(member));
    }
    for (const auto& c : program.constants) {
      Member member;
      member.kind = Member::Kind::Constant;
      member.constant = c.get();
      member.order = uses_.of(c.get());
      add(c->path, std::move(member));
    }
    const std::vector<Own*> called = tree_.modules;
    for (Own* own : called) {
      if (own->parent == nullptr) continue;
      Member member;
      member.kind = Member::Kind::Own;
      member.own = own;
      member.order = uses_.of(own);
      add(own->path, std::move(member));
    }
  }

  void run() { fill(*tree_.root, root_); }

 private:
  void add(const Path& path, Member member) {
    Trie* at = &root_;
    for (const std::string& part : path) at = &at->children[part];
    if (at->is_leaf) throw Clash{join(path, ".")};
    member.name = path.back();
    at->leaf = std::move(member);
    at->is_leaf = true;
  }

  void fill(Own& own, Trie& trie) {
    for (auto& [name, child] : trie.children) own.members.push_back(member(own, name, child, own.path));
    std::stable_sort(own.members.begin(), own.members.end(), [](const Member& a, const Member& b) {
      if (is_number(a.name) && is_number(b.name)) return std::stoi(a.name) < std::stoi(b.name);
      return a.order < b.order;
    });
    for (const Member& m : own.members) own.order = std::min(own.order, m.order);
    if (!is_list(own)) return;
    std::vector<Member> all(static_cast<std::size_t>(std::stoi(own.members.back().name)) + 1);
    for (std::size_t i = 0; i < all.size(); ++i) all[i].name = std::to_string(i);
    for (Member& m : own.members) {
      const auto i = static_cast<std::size_t>(std::stoi(m.name));
      all[i] = std::move(m);
    }
    own.members = std::move(all);
  }

  /// Places of a list of modules, or of parameters, that the children are; 0 where they are none.
  static std::size_t length_of(const Trie& trie) {
    std::size_t most = 0;
    std::size_t parameters = 0;
    for (const auto& [name, child] : trie.children) {
      if (!is_number(name) || std::to_string(std::stoi(name)) != name) return 0;
      most = std::max(most, static_cast<std::size_t>(std::stoi(name)) + 1);
      if (!child.is_leaf || child.leaf.kind == Member::Kind::Module || child.leaf.kind == Member::Kind::Own)
        continue;
      if (child.leaf.kind != Member::Kind::Param || !child.leaf.param->trainable) return 0;
      ++parameters;
    }
    // nn.ParameterList has no gaps.
    if (parameters > 0) return parameters == most ? most : 0;
    return most <= trie.children.size() + kMaxGap ? most : 0;
  }

  Member member(Own& owner, const std::string& name, Trie& trie, Path path) {
    path.push_back(name);
    if (trie.is_leaf) {
      Member out = std::move(trie.leaf);
      if (out.kind == Member::Kind::Own) {
        out.own->parent = &owner;
        fill(*out.own, trie);
        out.own->order = out.order;
      }
      return out;
    }
    Member out;
    out.name = name;
    if (const std::size_t most = length_of(trie); most > 0) {
      out.kind = Member::Kind::List;
      out.list.resize(most);
      out.order = SIZE_MAX;
      for (std::size_t i = 0; i < most; ++i) {
        out.list[i].name = std::to_string(i);
        const auto it = trie.children.find(out.list[i].name);
        if (it == trie.children.end()) continue;
        out.list[i] = member(owner, it->first, it->second, path);
        out.order = std::min(out.order, out.list[i].order);
      }
      return out;
    }
    out.kind = Member::Kind::Own;
    out.own = tree_.add(&owner, path, "");
    out.own->order = SIZE_MAX;
    fill(*out.own, trie);
    out.order = out.own->order;
    return out;
  }

  Tree& tree_;
  Uses uses_;
  Trie root_;
};

}  // namespace

std::vector<Own*> inner_modules(const Own& own) {
  std::vector<Own*> out;
  const std::function<void(const std::vector<Member>&)> see = [&](const std::vector<Member>& members) {
    for (const Member& m : members) {
      if (m.own != nullptr) out.push_back(m.own);
      see(m.list);
    }
  };
  see(own.members);
  return out;
}

void add_members(Tree& tree, const torch::Program& program) {
  Builder(tree, program).run();
}

bool is_list(const Own& own) {
  std::size_t next = 0;
  for (const Member& m : own.members) {
    if (!is_number(m.name) || m.kind == Member::Kind::Param || m.kind == Member::Kind::Constant)
      return false;
    const auto i = static_cast<std::size_t>(std::stoi(m.name));
    if (i > next + kMaxGap || std::to_string(i) != m.name) return false;
    next = i + 1;
  }
  return !own.members.empty();
}

const Access::Index& Access::index_of(const Own& own) {
  const auto [it, added] = indices_.try_emplace(&own);
  if (added) {
    it->second.in_list = is_list(own);
    for (const Member& m : own.members) it->second.members.insert_or_assign(m.name, &m);
  }
  return it->second;
}

Ex Access::operator()(const Path& path) {
  Ex out = torch::self();
  const Index* own = &index_of(from_);
  const std::vector<Member>* list = nullptr;
  bool in_list = own->in_list;
  for (std::size_t i = from_.path.size(); i < path.size(); ++i) {
    const Member* found = nullptr;
    if (list != nullptr) {
      found = &list->at(static_cast<std::size_t>(std::stoi(path[i])));
    } else if (const auto it = own->members.find(path[i]); it != own->members.end()) {
      found = it->second;
    }
    if (in_list) {
      out = torch::op("[]", {out, Ex(std::stoll(path[i]))});
    } else {
      out = torch::attribute(out, path[i]);
    }
    if (found == nullptr || i + 1 == path.size()) {
      // A weight of a layer of torch's.
      for (++i; i < path.size(); ++i) out = torch::attribute(out, path[i]);
      return out;
    }
    if (found->kind == Member::Kind::Own) {
      own = &index_of(*found->own);
      list = nullptr;
      in_list = own->in_list;
    } else if (found->kind == Member::Kind::List) {
      list = &found->list;
      in_list = true;
    } else {
      for (++i; i < path.size(); ++i) out = torch::attribute(out, path[i]);
      return out;
    }
  }
  return out;
}

torch::ExprPtr as_weight(const Ex& access, const torch::Param& param) {
  if (param.trainable || access->kind != ExprKind::Attribute) return access.ptr();
  auto copy = std::make_shared<Expr>(*access);
  copy->integer = 1;
  return copy;
}

}  // namespace onnx2nn::structure
