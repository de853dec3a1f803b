// What rules ask about the forms that exporters spell operators in.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "passes/rewriter.h"

namespace onnx2nn::passes {

/// The opset that a node in `n`'s place has so as to be `op_type`, which appeared in `since`;
/// nothing where the model's is older.
std::optional<std::int64_t> opset_for(Rewriter& w, const ir::Node& n, std::string_view op_type,
                                      std::int64_t since);

/// Element types that fused forms are computed in: in the model's own runtime the usual ones, in
/// torch any.
bool is_fusible_type(const Rewriter& w, const ir::Value* v);

/// `a` is `b` but for the rounding of a constant of type `t`.
bool is_about(double a, double b, ir::DType t);

/// `x` and a number, which broadcasts x to nothing larger.
struct WithNumber {
  ir::Value* x = nullptr;
  double number = 0.0;
};
/// Of the commutative operator `op_type`, either way round; `n` may be null.
std::optional<WithNumber> with_number(const ir::Node* n, std::string_view op_type);
/// Of an operator whose second input is the number.
std::optional<WithNumber> before_number(const ir::Node* n, std::string_view op_type);

/// A product through its Mul nodes, and Div nodes by a number, that nobody else uses.
struct Product {
  double scale = 1.0;
  std::array<ir::Value*, 3> factors{};
  std::size_t count = 0;
};
std::optional<Product> product_of(const ir::Node& n);

/// Float16, bfloat16, float32 and float64: what weights are computed in.
bool is_weight_type(ir::DType t);
/// Elements in their own type, rounded once; nothing where one is not finite.
ir::TensorPtr rounded(ir::DType dtype, const Ints& dims, const std::vector<double>& values);
/// A scalar of a weight type.
ir::TensorPtr number_tensor(ir::DType dtype, double value);

/// The node that makes `v`, where it is `op_type` of ai.onnx.
ir::Node* producer_of(const ir::Value* v, std::string_view op_type);
/// The only node that uses `v`, where it is `op_type` of ai.onnx.
ir::Node* sole_user(const ir::Value* v, std::string_view op_type);
/// The other of two inputs.
ir::Value* other_input(const ir::Node& n, const ir::Value* v);

/// Axes of `v` counted from the first, in order or as they came; nothing where its rank is not
/// known, or where one is out of range or there twice.
std::optional<Ints> counted_axes(Ints axes, const ir::Value* v, bool sorted = true);
/// The axes that a reducing operator of ai.onnx names, in order; nothing where it names none, or
/// they are not known.
std::optional<Ints> reduced_axes(const ir::Node& n);
/// The same, where they stay as ones.
std::optional<Ints> kept_axes(const ir::Node& n);

}  // namespace onnx2nn::passes
