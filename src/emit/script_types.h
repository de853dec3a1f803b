// Types and literals as TorchScript archives spell them.
#pragma once

#include <string>
#include <string_view>

#include "emit/script_function.h"
#include "ir/dtype.h"

namespace onnx2nn::emit {

/// An expression that needs no further statement, and its type.
struct Typed {
  std::string text;
  std::string type;
};

bool is_list(std::string_view type);
bool is_tuple(std::string_view type);
bool is_scalar_type(std::string_view type);
bool has_tensor(std::string_view type);
bool is_integer_text(std::string_view text);

/// What is between the brackets of "List[int]".
std::string inside(std::string_view type);
/// The types of a tuple's items.
ScriptTypes items_of(std::string_view tuple);
/// The optional that holds both, where one may be None and they are alike but for that; else "".
std::string optional_of(const std::string& a, const std::string& b);
std::string tuple_of(const ScriptTypes& types);
/// The type of a schema's result, as annotations have it.
std::string annotation(std::string_view schema_type);

std::string float_literal(double v);
/// The numbers that TorchScript has in the place of dtypes (c10::ScalarType).
std::string dtype_number(ir::DType dtype);

/// Throws Error "unsupported-output".
[[noreturn]] void refuse(const std::string& what);

}  // namespace onnx2nn::emit
