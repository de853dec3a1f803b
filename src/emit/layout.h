// Python expressions as trees of brackets, and how a long one is broken into lines: as ruff's
// formatter does it, in 88 columns.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace onnx2nn::emit {

constexpr std::size_t kWidth = 88;

struct Text {
  std::string prefix;       // "kernel_size=" before an item
  std::string head;         // "F.conv2d(", or the whole text where there is nothing to break
  std::vector<Text> items;  // inside the brackets, or the operands of a chain
  std::vector<std::string> operators;  // of a chain such as a + b - c, between its operands
  std::string tail;                    // ")"
  int precedence = 100;                // how tightly it binds; 100 for what has brackets of its own
  bool breakable = false;              // inside its brackets, or at its operators
  bool one_tuple = false;
  bool group = false;  // brackets that only group: no comma after the item
  int dots = 0;        // behind brackets: 2 of f(x).g(y).h(z)
  // What to break in its stead where the head alone is too long: the call before a method's dot.
  std::shared_ptr<const Text> inner;

  bool is_chain() const { return !operators.empty(); }
  /// A list, tuple or dict: where one is broken, each item has a line.
  bool is_display() const { return head == "[" || head == "(" || head == "{"; }
  std::string flat() const;
};

Text atom(std::string s, int precedence = 100);
Text brackets(std::string head, std::vector<Text> items, std::string tail);
Text call(std::string callee, std::vector<Text> args);
/// The call of a method: `.relu` of `self.conv(x)`.
Text method_call(const Text& object, const std::string& method, std::vector<Text> args);
/// `a + b`; joined with a chain of the same precedence on the left.
Text infix(Text left, const std::string& op, Text right, int precedence);
/// In parentheses where it binds less tightly than `precedence`.
Text bound(Text t, int precedence);
/// Something after it that is not broken: a subscript, an attribute.
Text postfix(Text t, const std::string& suffix);
/// `t[items]`.
Text subscript(const Text& t, std::vector<Text> items);

/// One statement, `lead` before the expression and `trail` after it.
std::string statement_text(std::size_t indent, const std::string& lead, const Text& t,
                           const std::string& trail);

}  // namespace onnx2nn::emit
