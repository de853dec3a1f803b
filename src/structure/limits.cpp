#include "structure/limits.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "support/error.h"

namespace onnx2nn::structure {
namespace {

// Of brackets Python takes 200, of blocks 100 and of what its recursion meets a thousand or more.
constexpr int kTooDeep = 90;

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;
using torch::VarPtr;

/// Calls `seen` for each variable that is read or set, with whether it is set.
template <typename Seen>
void each_var(const Expr& e, Seen&& seen) {
  if (e.kind == ExprKind::Var) seen(e.var, false);
  for (const auto& a : e.args) each_var(*a, seen);
  for (const auto& [_, v] : e.keywords) each_var(*v, seen);
}

template <typename Seen>
void each_var(const Stmt& s, Seen&& seen) {
  each_var(*s.value, seen);
  for (const auto& v : s.targets) seen(v, true);
  for (const auto& v : s.params) seen(v, true);
  for (const Block* b : {&s.body, &s.orelse})
    for (const Stmt& inner : *b) each_var(inner, seen);
}

class Limiter {
 public:
  explicit Limiter(torch::Program program) : program_(std::move(program)) {}

  torch::Program run() {
    for (const auto& p : program_.inputs) {
      next_id_ = std::max(next_id_, p.var->id + 1);
      defined_.insert(p.var->id);
    }
    for (const Stmt& s : program_.forward)
      each_var(s, [&](const VarPtr& v, bool) {
        next_id_ = std::max(next_id_, v->id + 1);
        ++occurrences_[v->id];
      });
    for (const torch::ConstantPtr& c : program_.constants) {
      int depth = 0;
      shallow(c->value.ptr(), nullptr, depth);
      require_shallow(depth, c->path.back());
    }
    split(program_.forward);
    outline(program_.forward, 0, 0);
    // Inner ones first: a function is there before the one that calls it.
    program_.forward.insert(program_.forward.begin(), std::make_move_iterator(functions_.begin()),
                            std::make_move_iterator(functions_.end()));
    return std::move(program_);
  }

 private:
  VarPtr new_var(const char* hint) {
    auto v = std::make_shared<torch::Var>();
    v->id = next_id_++;
    v->hint = hint;
    return v;
  }

  // ---- expressions

  /// Whether its operands are computed only sometimes.
  static bool is_lazy(const Expr& e) {
    return e.kind == ExprKind::Op && (e.text == "if" || e.text == "and" || e.text == "or");
  }

  /// Whether it is a value of its own, and no part of what is around it.
  static bool is_value(const Expr& e) {
    switch (e.kind) {
      case ExprKind::Aten:
      case ExprKind::Helper:
      case ExprKind::Function:
      case ExprKind::Module:
        return true;
      case ExprKind::Op:
        return e.text != "slice" && e.text != "raw" && e.text != "*";
      default:
        return false;
    }
  }

  /// The expression with what lies deeper than the limit in variables, which `before` sets; where
  /// there is no `before`, nothing can move.
  ExprPtr shallow(const ExprPtr& e, Block* before, int& depth) {
    depth = 0;
    std::shared_ptr<Expr> copy;
    if (is_lazy(*e)) before = nullptr;
    const auto visit = [&](std::size_t i, const ExprPtr& inner, bool is_keyword) {
      int d = 0;
      ExprPtr r = shallow(inner, before, d);
      if (d >= kMaxDepth && before != nullptr && is_value(*inner)) {
        Stmt s;
        s.targets = {new_var("partial")};
        occurrences_[s.targets[0]->id] = 2;
        s.value = Ex(r);
        r = Ex(s.targets[0]).ptr();
        before->push_back(std::move(s));
        d = 0;
      }
      depth = std::max(depth, d + 1);
      if (r == inner) return;
      if (!copy) copy = std::make_shared<Expr>(*e);
      (is_keyword ? copy->keywords[i].second : copy->args[i]) = std::move(r);
    };
    for (std::size_t i = 0; i < e->args.size(); ++i) visit(i, e->args[i], false);
    for (std::size_t i = 0; i < e->keywords.size(); ++i) visit(i, e->keywords[i].second, true);
    return copy ? ExprPtr(std::move(copy)) : e;
  }

  void split(Block& block) {
    Block out;
    for (Stmt& s : block) {
      split(s.body);
      split(s.orelse);
      // A condition that is asked again in each round cannot be computed before the loop.
      int depth = 0;
      s.value = Ex(shallow(s.value.ptr(), s.kind == Stmt::Kind::While ? nullptr : &out, depth));
      require_shallow(depth, s.targets.empty() ? s.origin : s.targets[0]->onnx_name);
      out.push_back(std::move(s));
    }
    block = std::move(out);
  }

  static void require_shallow(int depth, const std::string& what) {
    if (depth > kTooDeep)
      throw Error("too-deep", "the expression of \"" + what + "\" has " + std::to_string(depth) +
                                  " levels, more than Python's compiler surely takes");
  }

  // ---- loops

  void outline(Block& block, int loops, int indents) {
    for (Stmt& s : block) {
      if (indents > kTooDeep)
        throw Error("too-deep", "graphs are nested deeper than Python's compiler takes blocks");
      const bool is_loop = s.kind == Stmt::Kind::For || s.kind == Stmt::Kind::While;
      if (is_loop && loops == kMaxLoops) {
        s = function_of(std::move(s));
      } else {
        // A function's loops are counted anew, and its variables are known in it alone.
        const bool is_function = s.kind == Stmt::Kind::Def;
        for (const auto& v : s.params) defined_.insert(v->id);
        if (s.kind == Stmt::Kind::For)
          for (const auto& v : s.targets) defined_.insert(v->id);
        outline(s.body, is_function ? 0 : loops + (is_loop ? 1 : 0), indents + 1);
        outline(s.orelse, loops, indents + 1);
      }
      for (const auto& v : s.targets) defined_.insert(v->id);
    }
  }

  /// Moves a loop into a function of what it reads, which returns what is read after it.
  Stmt function_of(Stmt loop) {
    std::unordered_map<int, int> inside;
    std::vector<VarPtr> order;
    std::unordered_set<int> set;
    each_var(loop, [&](const VarPtr& v, bool is_set) {
      if (inside[v->id]++ == 0) order.push_back(v);
      if (is_set) set.insert(v->id);
    });
    Stmt def;
    def.kind = Stmt::Kind::Def;
    def.targets = {new_var("loop")};
    torch::Args given{Ex(def.targets[0])};
    torch::Args results;
    Stmt call;
    for (const VarPtr& v : order) {
      if (inside[v->id] == occurrences_[v->id]) continue;
      if (defined_.count(v->id) != 0) {
        def.params.push_back(v);
        given.emplace_back(v);
      }
      if (set.count(v->id) != 0) {
        call.targets.push_back(v);
        results.emplace_back(v);
      }
    }
    call.origin = loop.origin;
    call.value = torch::op("call", given);
    def.body.push_back(std::move(loop));
    if (!results.empty()) {
      Stmt ret;
      ret.kind = Stmt::Kind::Return;
      ret.value = results.size() == 1 ? results[0] : torch::tuple(results);
      def.body.push_back(std::move(ret));
    }
    outline(def.body, 0, 1);
    functions_.push_back(std::move(def));
    return call;
  }

  torch::Program program_;
  int next_id_ = 0;
  std::unordered_map<int, int> occurrences_;
  std::unordered_set<int> defined_;
  Block functions_;
};

}  // namespace

torch::Program within_limits(torch::Program program) {
  return Limiter(std::move(program)).run();
}

}  // namespace onnx2nn::structure
