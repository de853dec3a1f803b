// Expressions of the torch program: what an emitter prints. Immutable and shared.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/dtype.h"

namespace onnx2nn::torch {

struct Expr;
struct Param;
struct Module;
struct Constant;
using ExprPtr = std::shared_ptr<const Expr>;

/// A local variable.
struct Var {
  std::string hint;       // from the ONNX value's name
  std::string onnx_name;  // of the value that it holds; empty for a helper variable
  /// Of a tensor whose rank is known: its sizes as text, "?" where one is not known. Equal texts are
  /// equal sizes.
  std::vector<std::string> dims;
  bool has_dims = false;
  std::string type;  // its annotation, "Tensor" or "int"; empty where it is another or not known
  ir::DType dtype = ir::DType::Undefined;  // of a tensor as the file has it; Undefined: not known
  bool in_weight_dtype = false;  // a tensor whose dtype is that which the weights are loaded in
  bool to_weight_dtype = false;  // one that is float32 as it is made, and meets such tensors
  std::string name;  // as it is printed; the stage structure gives it
  std::shared_ptr<const Var> of;  // what a method's parameter is for the caller
  int id = 0;
};
using VarPtr = std::shared_ptr<Var>;

enum class ExprKind : std::uint8_t {
  None,
  Bool,
  Int,
  Float,
  Str,
  DType,  // torch.float32
  Name,   // a dotted Python name known to the emitter, such as torch.inf
  Var,
  Param,     // self.path of a parameter or buffer
  Constant,  // self.path of a plain Python attribute set in __init__
  Module,    // a submodule called with args
  Aten,      // an ATen overload, "softmax.int", with positional args in the schema's order
  Helper,    // a runtime helper, copied into the file
  Function,  // a Python function by its dotted name: what torch has in Python only, such as
             // F.interpolate
  Op,  // a Python operator on its args: + - * // % / == < ... not, min, max, int, len, float, bool,
       // [] (subscript)
  Size,     // args[0].shape[index]
  ShapeOf,  // args[0].shape
  List,
  Tuple,
  Dict,    // keys and values alternate
  Lambda,  // a nested function: name refers to a Block of the function
  Self,    // the module of the method
  Attribute,  // args[0].text, whatever text it is; `integer` is 1 where that is a buffer
  Method,     // within the stage structure: the method `text` of its module `integer`
};

struct Expr {
  ExprKind kind = ExprKind::None;
  std::int64_t integer = 0;  // Int, Bool, Size's index, DType
  double number = 0.0;       // Float
  std::string text;          // Str, Name, the name of an Aten, Helper, Function or Op
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  VarPtr var;
  std::shared_ptr<Param> param;
  std::shared_ptr<Module> module;
  std::shared_ptr<Constant> constant;
  std::uint32_t depth = 0;  // how deep `args` and `keywords` nest

  /// Adds an argument. What walks an expression does so by recursion, and a model says how deep one
  /// nests: past some depth it is an Error "too-large".
  void add(ExprPtr arg);
  void add(std::string keyword, ExprPtr arg);

 private:
  void reach(const Expr& arg);
};

/// Whether two doubles are the same number: a NaN is itself, and -0.0 is not 0.0.
inline bool same_number(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

/// An expression that C++ values convert to, so that lowerings read as calls do.
class Ex {
 public:
  Ex() : p_(make(ExprKind::None)) {}   // Python's None
  Ex(ExprPtr p) : p_(std::move(p)) {}  // NOLINT
  template <std::same_as<bool> T>
  Ex(T v) {  // NOLINT
    auto e = make(ExprKind::Bool);
    e->integer = v ? 1 : 0;
    p_ = std::move(e);
  }
  template <std::integral T>
  requires(!std::same_as<T, bool>) Ex(T v) {  // NOLINT
    auto e = make(ExprKind::Int);
    e->integer = static_cast<std::int64_t>(v);
    p_ = std::move(e);
  }
  template <std::floating_point T>
  Ex(T v) {  // NOLINT
    auto e = make(ExprKind::Float);
    e->number = static_cast<double>(v);
    p_ = std::move(e);
  }
  Ex(std::string v) { p_ = with_text(ExprKind::Str, std::move(v)); }         // NOLINT
  Ex(std::string_view v) { p_ = with_text(ExprKind::Str, std::string(v)); }  // NOLINT
  Ex(const char* v) { p_ = with_text(ExprKind::Str, v); }                    // NOLINT
  Ex(ir::DType v) {                                                          // NOLINT
    auto e = make(ExprKind::DType);
    e->integer = static_cast<std::int64_t>(v);
    p_ = std::move(e);
  }
  Ex(VarPtr v) {  // NOLINT
    auto e = make(ExprKind::Var);
    e->var = std::move(v);
    p_ = std::move(e);
  }
  template <typename T>
  requires(std::constructible_from<Ex, T>) Ex(const std::vector<T>& items) {  // NOLINT
    auto e = make(ExprKind::List);
    for (const auto& item : items) e->add(Ex(T(item)).ptr());
    p_ = std::move(e);
  }

  const ExprPtr& ptr() const { return p_; }
  const Expr& operator*() const { return *p_; }
  const Expr* operator->() const { return p_.get(); }
  bool is_none() const { return p_->kind == ExprKind::None; }
  bool is_int() const { return p_->kind == ExprKind::Int; }

  static std::shared_ptr<Expr> make(ExprKind kind) {
    auto e = std::make_shared<Expr>();
    e->kind = kind;
    return e;
  }
  static ExprPtr with_text(ExprKind kind, std::string text) {
    auto e = make(kind);
    e->text = std::move(text);
    return e;
  }

 private:
  ExprPtr p_;
};

using Args = std::vector<Ex>;
using Kwargs = std::vector<std::pair<std::string, Ex>>;

inline const Ex kNone{};

/// A Python name such as "torch.inf" or "math.inf".
Ex name(std::string dotted);
/// A list of expressions, printed as [a, b].
Ex list(const Args& items);
Ex tuple(const Args& items);
/// An ATen overload with positional arguments in its schema's order; trailing defaults may be left
/// out.
Ex aten(std::string overload, const Args& args, const Kwargs& keywords = {});
Ex helper(std::string function, const Args& args, const Kwargs& keywords = {});
/// A function of torch that is no ATen overload, by its dotted name: "F.interpolate",
/// "F.grid_sample".
Ex call(std::string function, const Args& args, const Kwargs& keywords = {});
/// Python's own operator or builtin: "+", "//", "not", "min", "int", "len", "[]", "if" (a if c else
/// b: {c, a, b}), ...
Ex op(std::string operation, const Args& args);
/// `tensor.shape[dim]`; `hint` names it where it gets a variable of its own.
Ex size(const Ex& tensor, std::int64_t dim, std::string hint = "");
Ex shape_of(const Ex& tensor);
/// `self`, in a method.
Ex self();
/// `object.name`.
Ex attribute(const Ex& object, std::string name);

/// The ATen function of an overload: "softmax" of "softmax.int".
std::string_view function_of(const Expr& aten);
/// The number that all items of a list are; null where they differ, or are no integers, or none.
ExprPtr only_number(const Expr& list);

}  // namespace onnx2nn::torch
