#include "structure/precision.h"

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "structure/elementwise.h"
#include "structure/walk.h"

namespace onnx2nn::structure {
namespace {

using ir::DType;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;
using torch::Var;
using torch::VarPtr;

constexpr double kLowest = -static_cast<double>(std::numeric_limits<float>::max());
/// Added to a score, this or less leaves nothing of it.
constexpr double kMasks = -1e3;

// ---------------------------------------------------------------- What masks

bool is_float(const Expr& e) { return e.kind == ExprKind::Float; }
bool is_lowest(const Expr& e) { return is_float(e) && e.number == kLowest; }
bool masks(const Expr& e) { return is_float(e) && e.number <= kMasks; }

/// `torch.where` of two numbers, one of which masks.
bool makes_mask(const Expr& e) {
  return is_aten(e, "where") && e.args.size() == 3 && is_float(*e.args[1]) && is_float(*e.args[2]) &&
         (masks(*e.args[1]) || masks(*e.args[2]));
}

/// The lowest number in the place of elements of a tensor: which argument is it? 0: none is.
std::size_t lowest_of(const Expr& e) {
  if (e.args.size() != 3) return 0;
  if (is_aten(e, "masked_fill")) return is_lowest(*e.args[2]) ? 2 : 0;
  if (!is_aten(e, "where")) return 0;
  return is_lowest(*e.args[1]) ? 1 : is_lowest(*e.args[2]) ? 2 : 0;
}

// ---------------------------------------------------------------- Which variables follow

/// What an operand says of the dtype of a result.
enum class Says : std::uint8_t {
  Nothing,  // it is a number, integers or booleans
  Weights,  // floats in the dtype of the weights, computed from nothing but weights
  Follows,  // floats in that dtype, computed from inputs
  Made,     // float32 whatever that dtype is: computed from integers, or from them and weights
  Unknown,
};

bool compares(std::string_view f) {
  return is_one_of(f, {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "logical_and", "logical_or",
                       "logical_not", "logical_xor", "argmax", "argmin"});
}

/// Whether a call names a dtype: `x.to(torch.float32)`, `x.sum(dtype=torch.float64)`.
bool names_dtype(const Expr& e) {
  const auto is_dtype = [](const ExprPtr& a) { return a->kind == ExprKind::DType; };
  return std::any_of(e.args.begin(), e.args.end(), is_dtype) ||
         std::any_of(e.keywords.begin(), e.keywords.end(), [&](const auto& k) { return is_dtype(k.second); });
}

Says of_dtype(DType t) {
  if (t == DType::Float32) return Says::Weights;
  return ir::is_integer(t) || t == DType::Bool ? Says::Nothing : Says::Unknown;
}

/// Goes through the program as it is lowered.
class Marking {
 public:
  explicit Marking(torch::Program& program) {
    for (const torch::Port& p : program.inputs)
      if (p.var && p.var->dtype == DType::Float32 && p.kind == "tensor") p.var->in_weight_dtype = true;
    count(program.forward);
    mark(program.forward);
    for (const auto& [param, n] : positions_)
      if (n == reads_of_params_.at(param.get())) param->exact = true;
  }

 private:
  /// How often variables are set, and variables and weights are read.
  void count(const torch::Block& block) {
    for (const Stmt& s : block) {
      // One of several results, or one that is set in several places, cannot be converted alone.
      for (const VarPtr& v : s.targets)
        times_[v.get()] += s.kind == Stmt::Kind::Assign && s.targets.size() == 1 ? 1 : 2;
      const auto read = [&](const Expr& e) {
        if (e.kind == ExprKind::Var) ++reads_[e.var.get()];
        if (e.kind == ExprKind::Param) ++reads_of_params_[e.param.get()];
      };
      each_expr(*s.value, read);
      each_expr(*s.place, read);
      count(s.body);
      count(s.orelse);
    }
  }

  void mark(torch::Block& block) {
    for (Stmt& s : block) {
      if (is_aten(*s.value, "matmul") || is_aten(*s.value, "bmm")) keep_float32(s.value);
      const Says all = says(*s.value);
      if (s.kind == Stmt::Kind::Assign)
        for (const VarPtr& v : s.targets) set(v, s, all);
      mark(s.body);
      mark(s.orelse);
    }
  }

  /// Frequencies times positions as a product of matrices, which takes one dtype.
  void keep_float32(Ex& product) {
    const Says first = says(*product->args[0]);
    const Says second = says(*product->args[1]);
    if (std::min(first, second) != Says::Weights || std::max(first, second) != Says::Made) return;
    const std::size_t i = first == Says::Weights ? 0 : 1;
    if (const torch::ParamPtr param = weight_of(*product->args[i])) ++positions_[param];
    auto copy = std::make_shared<Expr>(*product);
    copy->args[i] = torch::aten("to.dtype", {Ex(copy->args[i]), Ex(DType::Float32)}).ptr();
    product = Ex(ExprPtr(std::move(copy)));
  }

  void set(const VarPtr& v, const Stmt& s, Says all) {
    const bool once = times_.at(v.get()) == 1 || (s.targets.size() > 1 && times_.at(v.get()) == 2);
    if (!once || (v->dtype != DType::Float32 && v->dtype != DType::Undefined)) return;
    v->in_weight_dtype = all == Says::Follows;
    if (all == Says::Made && s.targets.size() == 1) made_.insert(v.get());
    if (all != Says::Weights) return;
    weights_.insert(v.get());
    if (const torch::ParamPtr param = weight_of(*s.value)) weight_of_[v.get()] = param;
  }

  /// The one weight that the expression is computed from, where nothing else is computed from it; null: none is.
  torch::ParamPtr weight_of(const Expr& e) const {
    torch::ParamPtr found;
    int weights = 0;
    each_expr(e, [&](const Expr& x) {
      if (x.kind == ExprKind::Param) {
        ++weights;
        found = x.param;
      }
      if (x.kind != ExprKind::Var || weights_.count(x.var.get()) == 0) return;
      ++weights;
      if (const auto it = weight_of_.find(x.var.get()); it != weight_of_.end() && reads_.at(x.var.get()) == 1)
        found = it->second;
    });
    return weights == 1 ? found : nullptr;
  }

  Says of_variable(const VarPtr& v) const {
    if (v->in_weight_dtype || v->to_weight_dtype) return Says::Follows;
    if (weights_.count(v.get()) != 0) return Says::Weights;
    // A float without axes has no say beside one with some.
    if (v->type == "int" || (v->has_dims && v->dims.empty())) return Says::Nothing;
    if (made_.count(v.get()) != 0) return Says::Made;
    return v->dtype == DType::Float32 ? Says::Unknown : of_dtype(v->dtype);
  }

  /// Whether it is a variable that can be converted where it is set.
  bool is_convertible(const Expr& e) const {
    return e.kind == ExprKind::Var && e.var->dtype == DType::Float32 && of_variable(e.var) == Says::Made;
  }

  Says operands(const Expr& e, std::size_t first = 0) {
    std::vector<ExprPtr> all;
    for (std::size_t i = first; i < e.args.size(); ++i) all.push_back(e.args[i]);
    for (const auto& [_, v] : e.keywords) all.push_back(v);
    std::vector<VarPtr> made;
    Says others = Says::Nothing;  // what those say that cannot be converted
    for (const ExprPtr& a : all) {
      if (const Says one = says(*a); one == Says::Made && is_convertible(*a)) {
        made.push_back(a->var);
      } else {
        others = std::max(others, one);
      }
    }
    if (made.empty()) return others;
    if (others == Says::Follows) {
      for (const VarPtr& v : made) v->to_weight_dtype = true;
      return Says::Follows;
    }
    // What is computed from weights and positions is float32 still, and so are these weights: angles need that.
    const bool multiplies = is_aten(e, "mul") || (e.kind == ExprKind::Op && e.text == "*");
    if (others == Says::Weights && multiplies)
      for (const ExprPtr& a : all)
        if (const torch::ParamPtr param = weight_of(*a)) ++positions_[param];
    return std::max(others, Says::Made);
  }

  Says of_call(const Expr& e) {
    const std::string_view f = e.kind == ExprKind::Aten ? torch::function_of(e) : std::string_view(e.text);
    if (makes_mask(e)) return Says::Follows;
    if (is_one_of(f, {"index", "index_select", "gather", "select", "slice"}) && !e.args.empty())
      return says(*e.args[0]);
    const Says all = operands(e, f == "where" ? 1 : 0);
    if (compares(f)) return Says::Nothing;
    // With no floats among its operands torch.ones makes float32.
    if (all == Says::Nothing) return Says::Made;
    if (!names_dtype(e)) return all;
    return all == Says::Weights ? Says::Made : Says::Unknown;
  }

  Says of_module(const Expr& e) {
    const Says all = operands(e);
    if (e.module->type == "Embedding") return Says::Follows;  // of a tied weight, too
    const bool has_weights = std::any_of(e.module->params.begin(), e.module->params.end(),
                                         [](const auto& p) { return p.second->dtype == DType::Float32; });
    if (!has_weights) return all;
    for (const ExprPtr& a : e.args)
      if (is_convertible(*a)) a->var->to_weight_dtype = true;
    return Says::Follows;
  }

  Says says(const Expr& e) {
    switch (e.kind) {
      case ExprKind::Var: return of_variable(e.var);
      case ExprKind::Param: return of_dtype(e.param->dtype);
      case ExprKind::Module: return of_module(e);
      case ExprKind::Aten:
      case ExprKind::Helper:
      case ExprKind::Function: return of_call(e);
      case ExprKind::Op:
        if (is_one_of(e.text, {".device", ".shape", ".dim", ".numel", "len", "int"})) return Says::Nothing;
        return operands(e);
      case ExprKind::List:
      case ExprKind::Tuple: return operands(e);
      case ExprKind::None:
      case ExprKind::Bool:
      case ExprKind::Int:
      case ExprKind::Float:
      case ExprKind::Str:
      case ExprKind::Name:
      case ExprKind::DType:
      case ExprKind::Size:
      case ExprKind::ShapeOf: return Says::Nothing;
      case ExprKind::Constant:
      case ExprKind::Dict:
      case ExprKind::Lambda:
      case ExprKind::Self:
      case ExprKind::Attribute:
      case ExprKind::Method: return Says::Unknown;
    }
    return Says::Unknown;
  }

  std::unordered_map<const Var*, int> times_;    // how often each is set
  std::unordered_map<const Var*, int> reads_;
  std::unordered_map<const torch::Param*, int> reads_of_params_;
  std::unordered_set<const Var*> weights_;  // computed from weights alone
  std::unordered_set<const Var*> made_;     // from integers, or from them and weights
  std::unordered_map<const Var*, torch::ParamPtr> weight_of_;  // those computed from one weight: which
  std::unordered_map<torch::ParamPtr, int> positions_;       // how often a weight meets positions
};

// ---------------------------------------------------------------- Making them follow

bool is_marked(const Var& v) {
  if (v.type != "Tensor") return false;
  for (const Var* p = &v; p != nullptr; p = p->of.get())
    if (p->in_weight_dtype) return true;
  return false;
}

Ex dtype_of(const VarPtr& x) { return torch::op(".dtype", {Ex(x)}); }

/// The value in the dtype of `x`.
Ex converted(const Ex& value, const VarPtr& x) {
  if (is_aten(*value, "zeros") || is_aten(*value, "ones") || is_aten(*value, "full")) {
    auto copy = std::make_shared<Expr>(*value);
    copy->keywords.clear();
    copy->add("dtype", dtype_of(x).ptr());
    for (const auto& [word, v] : value->keywords)
      if (word != "dtype") copy->add(word, v);
    return Ex(ExprPtr(std::move(copy)));
  }
  if (!is_aten(*value, "to") || value->args.size() != 2) return torch::aten("to.dtype", {value, dtype_of(x)});
  // positions.float().to(x.dtype)
  return torch::aten("to.dtype", {Ex(value->args[0]), dtype_of(x)});
}

class Followed {
 public:
  explicit Followed(torch::Function& f) {
    // Of the parameters the first is the nearest: `x`, or the queries.
    for (auto p = f.params.rbegin(); p != f.params.rend(); ++p) {
      note(p->var);
      set_.insert(p->var.get());
    }
    find_reads(f.body);
    at_ = 0;
    walk(f.body);
  }

 private:
  void note(const VarPtr& v) {
    if (is_marked(*v)) at_hand_.push_back(v);
  }

  /// Notes the last statement that reads each variable; statements are counted as `walk` meets them.
  void find_reads(const torch::Block& block) {
    for (const Stmt& s : block) {
      ++at_;
      const auto read = [&](const Expr& e) {
        if (e.kind == ExprKind::Var) last_read_[e.var.get()] = at_;
      };
      each_expr(*s.value, read);
      each_expr(*s.place, read);
      find_reads(s.body);
      find_reads(s.orelse);
    }
  }

  /// The nearest variable that is read later as well, so that it isn't kept for its dtype.
  VarPtr nearest() const {
    constexpr std::size_t kLooks = 64;
    for (std::size_t i = 0; i < std::min(at_hand_.size(), kLooks); ++i) {
      const VarPtr& v = at_hand_[at_hand_.size() - 1 - i];
      if (const auto it = last_read_.find(v.get()); it != last_read_.end() && it->second >= at_) return v;
    }
    return nullptr;
  }

  ExprPtr changed(const ExprPtr& e, const VarPtr& x) const {
    return rewritten(e, [&](const ExprPtr& w) -> ExprPtr {
      const std::size_t at = lowest_of(*w);
      const bool mask = makes_mask(*w);
      if (at == 0 && !mask) return nullptr;
      auto copy = std::make_shared<Expr>(*w);
      for (ExprPtr& a : copy->args) a = changed(a, x);
      if (at != 0) {
        const Expr& kept = *w->args[is_aten(*w, "masked_fill") ? 0 : 3 - at];
        const bool own = kept.kind == ExprKind::Var && is_marked(*kept.var);
        copy->args[at] = torch::op("finfo.min", {dtype_of(own ? kept.var : x)}).ptr();
      }
      const Ex out{ExprPtr(std::move(copy))};
      return mask ? torch::aten("to.dtype", {out, dtype_of(x)}).ptr() : out.ptr();
    });
  }

  void walk(torch::Block& block) {
    const std::size_t before = at_hand_.size();
    for (Stmt& s : block) {
      ++at_;
      // A variable that a loop sets anew has been converted before it.
      const bool converts = s.kind == Stmt::Kind::Assign && s.targets.size() == 1 &&
                            s.targets[0]->to_weight_dtype && set_.insert(s.targets[0].get()).second;
      bool found = converts;
      each_expr(*s.value, [&](const Expr& e) { found = found || makes_mask(e) || lowest_of(e) != 0; });
      if (found) {
        if (const VarPtr x = nearest()) {
          s.value = Ex(changed(s.value.ptr(), x));
          if (converts) s.value = converted(s.value, x);
        }
      }
      walk(s.body);
      walk(s.orelse);
      if (s.kind == Stmt::Kind::Assign)
        for (const VarPtr& v : s.targets) note(v);
    }
    at_hand_.resize(before);
  }

  std::vector<VarPtr> at_hand_;  // set before, in this block or one around it
  std::unordered_set<const Var*> set_;
  std::unordered_map<const Var*, std::size_t> last_read_;
  std::size_t at_ = 0;
};

}  // namespace

void mark_weight_dtypes(torch::Program& program) {
  // Where the file has halves or doubles, its author chose what is float32.
  for (const auto& p : program.params)
    if (of_dtype(p->dtype) == Says::Unknown) return;
  Marking{program};
}

void follow_weight_dtypes(torch::Function& function) { Followed{function}; }

}  // namespace onnx2nn::structure
