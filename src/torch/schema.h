// The schemas of ATen's overloads, as torch itself prints them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn::torch {

struct SchemaArg {
  std::string_view type;
  std::string_view name;
  std::string_view default_text;  // empty where there is none
  bool keyword_only = false;
};

/// The arguments of an overload ("softmax.int"; "relu" for the one without a name), or an empty
/// list where there is no such overload (`known` says which).
std::vector<SchemaArg> schema_of(std::string_view overload, bool* known = nullptr);

/// What an overload gives, as its schema says: "Tensor", "Tensor[]", "int"; one text for each of several
/// results. Empty where there is no such overload.
std::vector<std::string_view> results_of(std::string_view overload);

}  // namespace onnx2nn::torch
