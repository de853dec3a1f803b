// Expressions of the torch program as a person writes them in Python.
#pragma once

#include <cstddef>
#include <set>
#include <utility>
#include <vector>

#include "emit/layout.h"
#include "torch/program.h"
#include "torch/schema.h"

namespace onnx2nn::emit {

class PythonExpressions {
 public:
  Text text(const torch::Expr& e);

  /// Those are parameters of the function that is printed, by id, where it is not the model's.
  void set_given(std::set<int> given) { given_ = std::move(given); }

 private:
  using Expr = torch::Expr;

  Text operation(const Expr& e);
  Text aten(const Expr& e);
  Text slice_text(const Expr& e);
  Text subscript_of_slices(const Expr& e);
  Text subscript_of_new_axes(const Expr& e);
  Text operand(const Expr& e, int precedence) { return bound(text(e), precedence); }
  Text int_list(const Expr& e);
  std::vector<Text> texts(const std::vector<torch::ExprPtr>& args, std::size_t from = 0);

  std::set<int> given_;
};

}  // namespace onnx2nn::emit
