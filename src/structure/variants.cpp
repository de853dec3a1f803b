#include "structure/variants.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "structure/normal.h"
#include "torch/schema.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

constexpr int kNone = -1;
constexpr std::size_t kMost = 6;  // parameters of the common method

/// The same place in each of the methods.
using Exprs = std::vector<ExprPtr>;
using Stmts = std::vector<const Stmt*>;

struct Differs {};

class Generaliser {
 public:
  Generaliser(Tree& tree, const std::vector<const Method*>& methods) : tree_(tree), methods_(methods) {
    for (const Method* m : methods) {
      std::unordered_map<int, int> of;
      for (std::size_t p = 0; p < m->params.size(); ++p) of.emplace(m->params[p]->id, static_cast<int>(p));
      params_.push_back(std::move(of));
      locals_.emplace_back();
    }
  }

  Generalised run() {
    Generalised out;
    out.method = *methods_[0];
    std::vector<const torch::Block*> bodies;
    for (const Method* m : methods_) {
      bodies.push_back(&m->body);
      if (m->results.size() != out.method.results.size()) throw Differs{};
    }
    out.method.body = block(bodies);
    for (std::size_t r = 0; r < out.method.results.size(); ++r) {
      Exprs each;
      for (const Method* m : methods_) each.push_back(Ex(m->results[r]).ptr());
      out.method.results[r] = expr(each, false)->var;
    }
    name();
    // Those that every method has come first, as the first method has them.
    std::stable_sort(made_.begin(), made_.end(), [](const Made& a, const Made& b) {
      const bool a_optional = a.is_optional();
      const bool b_optional = b.is_optional();
      return a_optional != b_optional ? b_optional : a.given[0] < b.given[0];
    });
    out.method.params.clear();
    out.method.optional = 0;
    out.given.resize(methods_.size());
    for (const Made& m : made_) {
      out.method.params.push_back(m.var);
      if (m.is_optional()) ++out.method.optional;
      for (std::size_t i = 0; i < methods_.size(); ++i) out.given[i].push_back(m.given[i]);
    }
    return out;
  }

 private:
  struct Made {
    std::vector<int> given;
    torch::VarPtr var;
    bool is_optional() const { return std::count(given.begin(), given.end(), kNone) > 0; }
  };

  torch::Block block(const std::vector<const torch::Block*>& blocks) {
    torch::Block out;
    for (const torch::Block* b : blocks)
      if (b->size() != blocks[0]->size()) throw Differs{};
    for (std::size_t s = 0; s < blocks[0]->size(); ++s) {
      Stmts each;
      for (const torch::Block* b : blocks) each.push_back(&(*b)[s]);
      out.push_back(stmt(each));
    }
    return out;
  }

  Stmt stmt(const Stmts& each) {
    Stmt out = *each[0];
    Exprs values;
    std::vector<const torch::Block*> bodies;
    std::vector<const torch::Block*> others;
    for (const Stmt* s : each) {
      if (s->kind != out.kind || s->targets.size() != out.targets.size() || !s->params.empty() ||
          !s->place.is_none() || s->kind == Stmt::Kind::Def)
        throw Differs{};
      values.push_back(s->value.ptr());
      bodies.push_back(&s->body);
      others.push_back(&s->orelse);
    }
    out.value = Ex(expr(values, false));
    for (std::size_t t = 0; t < out.targets.size(); ++t) {
      std::vector<torch::VarPtr> targets;
      for (const Stmt* s : each) targets.push_back(s->targets[t]);
      define(targets);
    }
    out.body = block(bodies);
    out.orelse = block(others);
    return out;
  }

  void define(const std::vector<torch::VarPtr>& targets) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (params_[i].count(targets[i]->id) != 0) throw Differs{};
      const auto [it, is_new] = locals_[i].emplace(targets[i]->id, targets[0]->id);
      if (!is_new && it->second != targets[0]->id) throw Differs{};
    }
  }

  ExprPtr expr(const Exprs& each, bool may_be_none) {
    const Expr& first = *each[0];
    const bool variables = std::any_of(each.begin(), each.end(), [](const ExprPtr& e) {
      return e->kind == ExprKind::Var;
    });
    if (variables) return variable(each, may_be_none);
    bool numbers = true;
    for (const ExprPtr& e : each) {
      if (e->kind != first.kind) throw Differs{};
      numbers = numbers && is_numeral(*e);
    }
    if (numbers) return each[0];  // they are the constructor's
    for (const ExprPtr& e : each) {
      if (e->text != first.text || e->integer != first.integer || e->param != first.param ||
          e->module != first.module || e->constant != first.constant)
        throw Differs{};
    }
    // Which element of a list it is belongs to the form.
    if (first.kind == ExprKind::Op && first.text == "[]" && first.args[1]->kind == ExprKind::Int)
      for (const ExprPtr& e : each)
        if (e->args[1]->kind != ExprKind::Int || e->args[1]->integer != first.args[1]->integer) throw Differs{};
    std::vector<torch::SchemaArg> schema;
    if (first.kind == ExprKind::Aten) schema = torch::schema_of(first.text);
    std::size_t most = 0;
    for (const ExprPtr& e : each) most = std::max(most, e->args.size());
    auto out = std::make_shared<Expr>(first);
    out->args.clear();
    for (std::size_t a = 0; a < most; ++a) {
      const bool may_lack = a < schema.size() && schema[a].type == "Tensor?";
      out->add(expr(column(each, [&](const Expr& e) {
        if (a < e.args.size()) return e.args[a];
        if (!may_lack) throw Differs{};
        return Ex().ptr();
      }), may_lack));
    }
    out->keywords.clear();
    const ExprPtr& longest = *std::max_element(each.begin(), each.end(), [](const ExprPtr& x, const ExprPtr& y) {
      return x->keywords.size() < y->keywords.size();
    });
    for (const ExprPtr& e : each)
      for (const auto& [name, _] : e->keywords)
        if (keyword(*longest, name) == nullptr) throw Differs{};
    for (const auto& said : longest->keywords) {
      const std::string& name = said.first;
      const auto argument = std::find_if(schema.begin(), schema.end(), [&](const auto& a) { return a.name == name; });
      const bool may_lack = argument != schema.end() && argument->type == "Tensor?";
      out->add(name, expr(column(each, [&](const Expr& e) {
        const ExprPtr* value = keyword(e, name);
        if (value == nullptr && !may_lack) throw Differs{};
        return value != nullptr ? *value : Ex().ptr();
      }), may_lack));
    }
    return out;
  }

  static const ExprPtr* keyword(const Expr& e, const std::string& name) {
    for (const auto& [key, value] : e.keywords)
      if (key == name) return &value;
    return nullptr;
  }

  template <typename Part>
  static Exprs column(const Exprs& each, Part&& part) {
    Exprs out;
    for (const ExprPtr& e : each) out.push_back(part(*e));
    return out;
  }

  ExprPtr variable(const Exprs& each, bool may_be_none) {
    std::vector<int> given;
    bool locals = true;
    const Expr* some = nullptr;
    for (std::size_t i = 0; i < each.size(); ++i) {
      const Expr& e = *each[i];
      if (e.kind == ExprKind::None && may_be_none) {
        locals = false;
        given.push_back(kNone);
        continue;
      }
      if (e.kind != ExprKind::Var) throw Differs{};
      const auto p = params_[i].find(e.var->id);
      if (p != params_[i].end()) {
        locals = false;
        given.push_back(p->second);
        if (some == nullptr) some = &e;
        continue;
      }
      const auto l = locals_[i].find(e.var->id);
      if (l == locals_[i].end() || each[0]->kind != ExprKind::Var || l->second != each[0]->var->id)
        throw Differs{};
    }
    if (locals) return each[0];
    if (given.size() != each.size()) throw Differs{};  // here a parameter, there none
    return Ex(parameter(given, some->var)).ptr();
  }

  /// One parameter for each combination of theirs.
  torch::VarPtr parameter(const std::vector<int>& given, const torch::VarPtr& like) {
    const auto it = std::find_if(made_.begin(), made_.end(), [&](const Made& m) { return m.given == given; });
    if (it != made_.end()) return it->var;
    if (made_.size() == kMost) throw Differs{};
    made_.push_back({given, tree_.clone(like)});
    return made_.back().var;
  }

  /// What a parameter is for the caller, who may give one value for two of them: as where there are two.
  void name() {
    for (const Made& m : made_) {
      m.var->of = nullptr;
      for (std::size_t i = 0; i < methods_.size(); ++i) {
        const auto shared = [&](const Made& other) { return other.given[i] == m.given[i]; };
        if (m.given[i] == kNone || std::count_if(made_.begin(), made_.end(), shared) > 1) continue;
        const torch::Var& like = *methods_[i]->params[static_cast<std::size_t>(m.given[i])];
        m.var->hint = like.hint;
        m.var->onnx_name = like.onnx_name;
        m.var->of = like.of;
        break;
      }
    }
  }

  Tree& tree_;
  const std::vector<const Method*>& methods_;
  std::vector<std::unordered_map<int, int>> params_;  // by method: the number of a parameter
  std::vector<std::unordered_map<int, int>> locals_;  // by method: the first method's variable
  std::vector<Made> made_;
};

}  // namespace

std::optional<Generalised> generalised(Tree& tree, const std::vector<const Method*>& methods) {
  std::size_t most = 0;
  for (const Method* m : methods) most = std::max(most, m->params.size());
  try {
    Generalised out = Generaliser(tree, methods).run();
    if (out.method.params.size() > most + 1 || out.method.optional > 1) return std::nullopt;
    return out;
  } catch (const Differs&) {
    return std::nullopt;
  }
}

}  // namespace onnx2nn::structure
