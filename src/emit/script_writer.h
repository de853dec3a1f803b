// The lines of one function in TorchScript's dialect: each value has a name, a type and one assignment.
// Private to script_function.cpp (names, lines, types), script_expressions.cpp and script_statements.cpp.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "emit/script_function.h"
#include "emit/script_types.h"

namespace onnx2nn::emit {

class ScriptWriter {
 public:
  ScriptWriter(const torch::Instance& module, const torch::Function& function,
               const ScriptTypes& arguments, const ScriptCallee& callee);

  ScriptMethod run();

 private:
  using Block = torch::Block;
  using Expr = torch::Expr;
  using ExprPtr = torch::ExprPtr;
  using Stmt = torch::Stmt;

  // ---- names
  void collect_names(const Block& b);
  std::string fresh(std::string stem);
  static bool is_word(const std::string& name);
  /// The variable with this type from now on. What TorchScript has under one name has one type.
  Typed define(const torch::Var& v, const std::string& type);

  // ---- lines
  void line(const std::string& text);
  /// A line that gives a value its name.
  Typed let(const std::string& text, std::string type, const std::string& stem);
  Typed call(const std::string& function, const std::vector<std::string>& args, std::string type,
             const std::string& stem);
  /// Adds an item to a list that has a name. The result goes by that name: programs that look for what
  /// nobody reads, as Netron does, would drop the call without one.
  Typed append(const Typed& list, const Typed& item);
  template <typename Body>
  void nested(Body&& body) {
    ++depth_;
    auto members = std::exchange(members_, {});
    body();
    members_ = std::move(members);
    --depth_;
  }

  // ---- members of modules
  struct Object {
    std::string text;
    const torch::Instance* module = nullptr;
    bool is_weight = false;
  };
  Object object(const Expr& e);

  // ---- types
  /// `v` as an argument of this type of a schema.
  std::string fit(const Typed& v, std::string_view want);
  /// What a loss's reduction is called in Python (at::Reduction).
  static std::string reduction_number(const std::string& quoted);
  /// The items of a tensor of one dimension, as int or float.
  Typed elements_of(const Typed& x, const std::string& item = "int");
  /// A list whose items have the type `want` of a schema; "" where none is asked for.
  Typed list(const Expr& e, std::string_view want);
  /// `*items` in a list.
  static bool is_spread(const ExprPtr& e);
  /// `[*a, b]` as a sum of lists.
  Typed joined(const Expr& e, std::string_view want);

  // ---- expressions
  Typed value(const Expr& e);
  static Typed named(const std::string& name);
  Typed tuple(const Expr& e);
  Typed method(const Expr& e);

  // ---- helpers
  /// A value as a parameter of this annotated type.
  std::string fit_annotated(const Expr& e, const std::string& want);
  Typed helper(const Expr& e);
  Typed aten(const Expr& e);
  static std::string number_type(const std::string& function, bool has_float);
  Typed operation(const Expr& e);
  /// `a if condition else b`
  Typed choice(const Expr& e);
  /// `x[i]` and `x[a:b]`
  Typed element(const Expr& e);
  Typed first_items(const Typed& x, const Expr& slice);
  /// A list of the same items, the last one first.
  Typed reversed(const Typed& x);
  /// list(...), tuple(...), reversed(...) and range(...) as values.
  Typed sequence(const Expr& e);

  // ---- statements
  void block(const Block& b);
  void set(const torch::VarPtr& target, const Typed& v);
  void assign(const Stmt& s);
  /// Gives what the last line made the variable's name, rather than one of its own.
  void rename_last(const torch::VarPtr& target, const Typed& v);
  bool is_member(const std::string& name) const;
  void statement(const Stmt& s);
  void branch(const Stmt& s);
  /// A loop over numbers, or over the items of lists.
  void loop_for(const Stmt& s);
  void loop_while(const Stmt& s);

  const torch::Instance& module_;
  const torch::Function& function_;
  const ScriptCallee& callee_;
  ScriptMethod out_;
  std::string text_;
  int depth_ = 0;
  bool located_ = false;
  std::set<std::string> names_;
  std::map<std::string, int> counts_;
  std::map<std::string, std::string> types_;  // of names
  std::unordered_map<int, Typed> variables_;
  std::map<std::string, std::string> members_;  // "self.conv1" -> the name that it has here
};

}  // namespace onnx2nn::emit
