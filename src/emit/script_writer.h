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
  /// Of variables that are None in one place: the type of an optional.
  using Optionals = std::map<int, std::string>;
  /// A variable turned out to be an optional where it was taken for something else before.
  struct Widened {
    int variable = 0;
    std::string type;
  };

  /// `optionals` outlive the writer.
  ScriptWriter(const torch::Instance& module, const torch::Function& function,
               const ScriptTypes& arguments, const ScriptCallee& callee, const Optionals& optionals);

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
  /// The variable with this type from now on, or with that of an optional that it is elsewhere. What
  /// TorchScript has under one name has one type. Throws Widened.
  Typed define(const torch::Var& v, const std::string& type);

  // ---- functions inside of this one, which are methods
  /// A method of this module for what `def` defines: of the tensors that it reads from outside and of
  /// its arguments, as lists.
  void define_function(const Stmt& def);
  ScriptWriter(const ScriptWriter& outer, const torch::Function& function);
  ScriptMethod run_inner(const std::vector<torch::VarPtr>& captured, const std::string& name);
  void unpack(const torch::VarPtr& v, const std::string& list, std::size_t i);
  /// What `b` reads of the variables here, in the order of reading.
  std::vector<torch::VarPtr> captured_by(const Block& b) const;
  /// A method for a helper that calls functions, by the methods that are given for its parameters.
  std::string helper_method(const std::string& name, const std::map<std::string, std::string>& given);
  /// A name that no member and no method of this module has.
  std::string method_name(const std::string& stem);

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
  /// The function that this is the name of; null where it is another value.
  struct Inner {
    std::string method;
    std::string captured;  // the list of the tensors that it reads
  };
  const Inner* inner_function(const Expr& e) const;
  /// A value as a parameter of this annotated type.
  std::string fit_annotated(const Expr& e, const std::string& want);
  Typed helper(const Expr& e);
  /// Helpers that take a tensor or a sequence are two here.
  std::string helper_name(const Expr& e) const;
  Typed aten(const Expr& e);
  /// A tensor's bits as another dtype.
  Typed as_dtype(const Expr& e);
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
  const Optionals& optionals_;
  ScriptMethod out_;
  std::string text_;
  int depth_ = 0;
  bool is_inner_ = false;
  std::set<std::string> names_;
  std::map<std::string, int> counts_;
  std::map<std::string, std::string> types_;  // of names
  std::unordered_map<int, Typed> variables_;
  std::unordered_map<std::string, Typed> named_;  // the variable that was set last under this name
  std::unordered_map<int, Inner> functions_;
  std::set<std::string> method_names_;
  std::map<std::string, std::string> members_;  // "self.conv1" -> the name that it has here
};

}  // namespace onnx2nn::emit
