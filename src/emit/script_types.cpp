#include "emit/script_types.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "support/error.h"
#include "support/number.h"
#include "support/text.h"

namespace onnx2nn::emit {

bool is_list(std::string_view type) { return type.starts_with("List["); }
bool is_tuple(std::string_view type) { return type.starts_with("Tuple["); }
bool is_scalar_type(std::string_view type) {
  return type == "int" || type == "float" || type == "bool" || type == "number";
}
bool has_tensor(std::string_view type) { return type.find("Tensor") != std::string_view::npos; }

std::string inside(std::string_view type) {
  const std::size_t open = type.find('[');
  return std::string(type.substr(open + 1, type.size() - open - 2));
}

std::string optional_of(const std::string& a, const std::string& b) {
  const auto plain = [](const std::string& type) {
    return type.starts_with("Optional[") ? inside(type) : type;
  };
  if (a == "None" || b == "None") {
    const std::string other = plain(a == "None" ? b : a);
    return other == "Tensor" || is_list(other) ? "Optional[" + other + "]" : "";
  }
  if (plain(a) != plain(b) || (a == plain(a) && b == plain(b))) return "";
  return "Optional[" + plain(a) + "]";
}

ScriptTypes items_of(std::string_view tuple) {
  ScriptTypes out;
  int depth = 0;
  std::string item;
  for (const char c : inside(tuple)) {
    if (c == '[') ++depth;
    if (c == ']') --depth;
    if (c == ',' && depth == 0) {
      out.push_back(item);
      item.clear();
    } else if (c != ' ' || !item.empty()) {
      item += c;
    }
  }
  if (!item.empty()) out.push_back(item);
  return out;
}

std::string tuple_of(const ScriptTypes& types) { return "Tuple[" + join(types, ", ") + "]"; }

std::string annotation(std::string_view schema_type) {
  std::string plain;  // without what says of aliases: "Tensor(a)[]"
  int depth = 0;
  for (const char c : schema_type) {
    if (c == '(') ++depth;
    if (depth == 0) plain += c;
    if (c == ')') --depth;
  }
  if (plain.ends_with("[]")) return "List[" + annotation(plain.substr(0, plain.size() - 2)) + "]";
  if (plain.ends_with("?")) return "Optional[" + annotation(plain.substr(0, plain.size() - 1)) + "]";
  if (plain == "SymInt") return "int";
  if (plain == "Scalar") return "number";
  return plain;
}

std::string float_literal(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  std::string s = shortest(v);
  if (s.find_first_of(".e") == std::string::npos) s += '.';
  return s;
}

bool is_integer_text(std::string_view text) {
  return !text.empty() && std::all_of(text.begin() + (text[0] == '-' ? 1 : 0), text.end(),
                                      [](char c) { return is_digit(c); });
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error("unsupported-output", "TorchScript has no " + what,
              "write the model as .py, which carries all operators, or as .pt2");
}

std::string dtype_number(ir::DType dtype) {
  static const std::map<std::string_view, int> kNumbers = {
      {"uint8", 0},        {"int8", 1},           {"int16", 2},          {"int32", 3},
      {"int64", 4},        {"float16", 5},        {"float32", 6},        {"float64", 7},
      {"complex64", 9},    {"complex128", 10},    {"bool", 11},          {"bfloat16", 15},
      {"float8_e5m2", 23}, {"float8_e4m3fn", 24}, {"float8_e5m2fnuz", 25},
      {"float8_e4m3fnuz", 26}, {"uint16", 27},    {"uint32", 28},        {"uint64", 29}};
  const std::string_view name = ir::info(dtype).torch_name;
  const auto it = kNumbers.find(name);
  if (it == kNumbers.end()) refuse("dtype " + std::string(name));
  return std::to_string(it->second);
}

}  // namespace onnx2nn::emit
