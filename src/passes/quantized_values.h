// Quantised values as rules see them: what is checked of them, and the real ones that stand for them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "passes/rewriter.h"

namespace onnx2nn::passes {

using Values = std::vector<ir::Value*>;

inline constexpr std::string_view kMicrosoft = "com.microsoft";
/// Of the operators that are made, unless an older one means the same.
inline constexpr std::int64_t kRealOpset = 13;

/// An integer tensor, and what its values stand for: (value - zero) * scale.
struct Quantized {
  ir::Value* value = nullptr;
  ir::Value* scale = nullptr;
  ir::Value* zero = nullptr;  // null for 0
  std::optional<std::int64_t> axis;  // of scale and zero, where they are more than one number
};

/// The value, scale and zero point that are inputs `i` to `i + 2`.
Quantized quantized_operand(const ir::Node& n, std::size_t i);

bool is_one_number(const ir::Value* v);
/// Bytes with a scale of float32 above zero.
bool is_plain(const Quantized& q);
/// A constant of bytes with a scale, or with as many as `axis` has slices; says so in `q`.
bool is_plain_weight(Quantized& q, std::size_t axis);
/// Whether both are one, or constants of the same elements.
bool same_value(const ir::Value* a, const ir::Value* b);

/// A node of float32 before `n`, called after the value that it takes the place of.
ir::Node* add_real(Rewriter& w, ir::Node& n, std::string_view op_type, const Values& inputs,
                   const ir::Value& from, std::int64_t opset = kRealOpset);
/// `q` as real numbers, for `n`: once for all who read it, right behind what makes it.
ir::Value* dequantized(Rewriter& w, ir::Node& n, const Quantized& q);
/// The attributes of these names, where `from` has them.
void copy_attributes(const ir::Node& from, ir::Node& to,
                     std::initializer_list<std::string_view> names);

/// MatMulNBits as a linear layer, and GatherBlockQuantized as Gather, of weights that DequantizeLinear
/// reads in blocks.
bool open_nbits(Rewriter& w, ir::Node& n);
bool open_gather(Rewriter& w, ir::Node& n);

}  // namespace onnx2nn::passes
