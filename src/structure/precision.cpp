#include "structure/precision.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
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

// ---------------------------------------------------------------- Which variables follow

/// What an operand says of the dtype of a result.
enum class Says : std::uint8_t {
  Nothing,  // it is a number, integers or booleans
  Follows,  // floats in the dtype of the weights
  Fixed,    // floats of another dtype, or it is not known
};

Says both(Says a, Says b) { return std::max(a, b); }

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

Says says(const Expr& e);

Says operands(const Expr& e, std::size_t first = 0) {
  Says all = Says::Nothing;
  for (std::size_t i = first; i < e.args.size(); ++i) all = both(all, says(*e.args[i]));
  for (const auto& [_, v] : e.keywords) all = both(all, says(*v));
  return all;
}

Says of_call(const Expr& e) {
  const std::string_view f = e.kind == ExprKind::Aten ? torch::function_of(e) : std::string_view(e.text);
  if (compares(f)) return Says::Nothing;
  if (names_dtype(e)) return Says::Fixed;
  const Says all = operands(e, f == "where" ? 1 : 0);
  // With no floats among its operands torch.ones, and torch.where of two numbers, make float32.
  return all == Says::Nothing ? Says::Fixed : all;
}

Says of_module(const Expr& e) {
  for (const auto& [_, param] : e.module->params)
    if (param->dtype == DType::Float32) return Says::Follows;
  return operands(e);
}

Says says(const Expr& e) {
  switch (e.kind) {
    case ExprKind::Var:
      if (e.var->in_weight_dtype) return Says::Follows;
      return e.var->type == "int" || ir::is_integer(e.var->dtype) || e.var->dtype == DType::Bool
                 ? Says::Nothing
                 : Says::Fixed;
    case ExprKind::Param:
      return e.param->dtype == DType::Float32                                          ? Says::Follows
             : ir::is_integer(e.param->dtype) || e.param->dtype == DType::Bool ? Says::Nothing
                                                                                       : Says::Fixed;
    case ExprKind::Module: return of_module(e);
    case ExprKind::Aten:
    case ExprKind::Helper:
    case ExprKind::Function: return of_call(e);
    case ExprKind::Op:
    case ExprKind::List:
    case ExprKind::Tuple: return operands(e);
    case ExprKind::None:
    case ExprKind::Bool:
    case ExprKind::Int:
    case ExprKind::Float:
    case ExprKind::Str:
    case ExprKind::Name:
    case ExprKind::Size:
    case ExprKind::ShapeOf: return Says::Nothing;
    case ExprKind::DType:
    case ExprKind::Constant:
    case ExprKind::Dict:
    case ExprKind::Lambda:
    case ExprKind::Self:
    case ExprKind::Attribute:
    case ExprKind::Method: return Says::Fixed;
  }
  return Says::Fixed;
}

void count_targets(const torch::Block& block, std::unordered_map<const Var*, int>& times) {
  for (const Stmt& s : block) {
    for (const VarPtr& v : s.targets) ++times[v.get()];
    count_targets(s.body, times);
    count_targets(s.orelse, times);
  }
}

void mark(const torch::Block& block, const std::unordered_map<const Var*, int>& times) {
  for (const Stmt& s : block) {
    if (s.kind == Stmt::Kind::Assign && says(*s.value) == Says::Follows)
      for (const VarPtr& v : s.targets)
        // One that is set in several places may be of several dtypes.
        if (times.at(v.get()) == 1 && (v->dtype == DType::Float32 || v->dtype == DType::Undefined))
          v->in_weight_dtype = true;
    mark(s.body, times);
    mark(s.orelse, times);
  }
}

// ---------------------------------------------------------------- Masks that follow

bool is_float(const Expr& e) { return e.kind == ExprKind::Float; }
bool is_lowest(const Expr& e) { return is_float(e) && e.number == kLowest; }
bool masks(const Expr& e) { return is_float(e) && e.number <= kMasks; }

bool is_aten(const Expr& e, std::string_view f) {
  return e.kind == ExprKind::Aten && torch::function_of(e) == f;
}

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

bool is_marked(const Var& v) {
  if (v.type != "Tensor") return false;
  for (const Var* p = &v; p != nullptr; p = p->of.get())
    if (p->in_weight_dtype) return true;
  return false;
}

Ex dtype_of(const VarPtr& x) { return torch::op(".dtype", {Ex(x)}); }

class Followed {
 public:
  explicit Followed(torch::Function& f) {
    for (const torch::Parameter& p : f.params) note(p.var);
    walk(f.body);
  }

 private:
  void note(const VarPtr& v) {
    if (is_marked(*v)) at_hand_.push_back(v);
  }

  /// The nearest variable that is read later as well, so that it isn't kept for its dtype.
  VarPtr nearest(const torch::Block& block, std::size_t from) const {
    std::vector<const Var*> later;
    for (std::size_t i = from; i < block.size(); ++i)
      each_var(block[i], [&](const VarPtr& v, bool set) {
        if (!set) later.push_back(v.get());
      });
    for (std::size_t i = at_hand_.size(); i-- > 0;)
      if (std::find(later.begin(), later.end(), at_hand_[i].get()) != later.end()) return at_hand_[i];
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
    for (std::size_t i = 0; i < block.size(); ++i) {
      Stmt& s = block[i];
      bool found = false;
      each_expr(*s.value, [&](const Expr& e) { found = found || makes_mask(e) || lowest_of(e) != 0; });
      if (found)
        if (const VarPtr x = nearest(block, i)) s.value = Ex(changed(s.value.ptr(), x));
      walk(s.body);
      walk(s.orelse);
      if (s.kind == Stmt::Kind::Assign)
        for (const VarPtr& v : s.targets) note(v);
    }
    at_hand_.resize(before);
  }

  std::vector<VarPtr> at_hand_;  // set before, in this block or one around it
};

}  // namespace

void mark_weight_dtypes(torch::Program& program) {
  std::unordered_map<const Var*, int> times;
  count_targets(program.forward, times);
  for (const torch::Port& p : program.inputs)
    if (p.var && p.var->dtype == DType::Float32 && p.kind == "tensor") p.var->in_weight_dtype = true;
  mark(program.forward, times);
}

void follow_weight_dtypes(torch::Function& function) { Followed{function}; }

}  // namespace onnx2nn::structure
