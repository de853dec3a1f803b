#include "ops/names.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::ops {

bool is_identifier(std::string_view s) {
  if (s.empty() || std::isdigit(static_cast<unsigned char>(s[0])) != 0) return false;
  return std::all_of(s.begin(), s.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  });
}

bool is_number(std::string_view s) {
  return !s.empty() && s.size() < 8 &&
         std::all_of(
             s.begin(), s.end(),
             [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
}

std::string to_identifier(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, 80)) {
    const bool ok = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (ok) {
      out += c;
    } else if (!out.empty() && out.back() != '_') {
      out += '_';
    }
  }
  while (!out.empty() && out.back() == '_') out.pop_back();
  if (out.empty()) return "value";
  if (std::isdigit(static_cast<unsigned char>(out[0])) != 0) out = "v" + out;
  return out;
}

std::string snake(std::string_view op_type) {
  std::string out;
  for (std::size_t i = 0; i < op_type.size(); ++i) {
    const auto c = static_cast<unsigned char>(op_type[i]);
    const auto is_lower = [&](std::size_t k) {
      return k < op_type.size() && std::islower(static_cast<unsigned char>(op_type[k])) != 0;
    };
    // A word begins: MatMul has two, ReLU has one.
    if (std::isupper(c) != 0 && i > 0 && is_lower(i - 1) && is_lower(i + 1)) out += '_';
    out += static_cast<char>(std::tolower(c));
  }
  return out;
}

std::optional<std::vector<std::string>> key_components(std::string_view name) {
  std::vector<std::string> out;
  for (const std::string_view part : split(name, '.')) {
    if (!is_identifier(part) && !is_number(part)) return std::nullopt;
    out.emplace_back(part);
  }
  if (out.empty() || is_number(out[0])) return std::nullopt;
  return out;
}

std::optional<std::vector<std::string>> scope_path(std::string_view node_name) {
  if (node_name.empty() || node_name[0] != '/') return std::nullopt;
  std::vector<std::string> out;
  const auto parts = split(node_name.substr(1), '/');
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const auto components = key_components(parts[i]);
    if (!components) return std::nullopt;
    // A dotted part repeats its parent.
    std::size_t from = 0;
    if (components->size() > 1 && !out.empty() && (*components)[0] == out.back()) from = 1;
    out.insert(out.end(), components->begin() + static_cast<std::ptrdiff_t>(from),
               components->end());
  }
  if (out.empty()) return std::nullopt;
  return out;
}

namespace {

// Attributes and methods of nn.Module, and what the emitted class defines: no submodule may be
// called so.
const std::set<std::string>& reserved_members() {
  static const std::set<std::string> kNames = {"T_destination",
                                               "add_module",
                                               "apply",
                                               "bfloat16",
                                               "buffers",
                                               "call_super_init",
                                               "children",
                                               "compile",
                                               "cpu",
                                               "cuda",
                                               "double",
                                               "dump_patches",
                                               "eval",
                                               "extra_repr",
                                               "float",
                                               "forward",
                                               "get_buffer",
                                               "get_extra_state",
                                               "get_parameter",
                                               "get_submodule",
                                               "half",
                                               "ipu",
                                               "load_state_dict",
                                               "modules",
                                               "mtia",
                                               "named_buffers",
                                               "named_children",
                                               "named_modules",
                                               "named_parameters",
                                               "parameters",
                                               "register_backward_hook",
                                               "register_buffer",
                                               "register_forward_hook",
                                               "register_forward_pre_hook",
                                               "register_full_backward_hook",
                                               "register_module",
                                               "register_parameter",
                                               "requires_grad_",
                                               "set_extra_state",
                                               "set_submodule",
                                               "share_memory",
                                               "state_dict",
                                               "to",
                                               "to_empty",
                                               "train",
                                               "training",
                                               "type",
                                               "xpu",
                                               "zero_grad",
                                               "_apply",
                                               "_backward_hooks",
                                               "_backward_pre_hooks",
                                               "_buffers",
                                               "_call_impl",
                                               "_compiled_call_impl",
                                               "_forward_hooks",
                                               "_forward_hooks_always_called",
                                               "_forward_hooks_with_kwargs",
                                               "_forward_pre_hooks",
                                               "_forward_pre_hooks_with_kwargs",
                                               "_get_backward_hooks",
                                               "_get_backward_pre_hooks",
                                               "_get_name",
                                               "_is_full_backward_hook",
                                               "_load_from_state_dict",
                                               "_load_state_dict_post_hooks",
                                               "_load_state_dict_pre_hooks",
                                               "_maybe_warn_non_full_backward_hook",
                                               "_modules",
                                               "_named_members",
                                               "_non_persistent_buffers_set",
                                               "_parameters",
                                               "_register_load_state_dict_pre_hook",
                                               "_register_state_dict_hook",
                                               "_replicate_for_data_parallel",
                                               "_save_to_state_dict",
                                               "_slow_forward",
                                               "_state_dict_hooks",
                                               "_state_dict_pre_hooks",
                                               "_version",
                                               "_wrapped_call_impl"};
  return kNames;
}

}  // namespace

std::string member_name(std::string s) {
  if (s.rfind("__", 0) == 0) return "p" + s;  // inside a class Python changes such names
  if (torch::is_python_keyword(s) || reserved_members().count(s) != 0 || s == "_") s += "_";
  return s;
}

std::string variable_hint(std::string_view onnx_name, std::string_view op_type) {
  std::string_view name = onnx_name;
  if (const auto slash = name.rfind('/'); slash != std::string_view::npos) {
    // "/layer1/conv1/Conv_output_0": the scope says more than the operator.
    std::string_view scope = name.substr(0, slash);
    if (const auto s = scope.rfind('/'); s != std::string_view::npos) scope = scope.substr(s + 1);
    if (const auto dot = scope.rfind('.');
        dot != std::string_view::npos && !is_number(scope.substr(dot + 1)))
      scope = scope.substr(dot + 1);
    if (!scope.empty() && !is_number(scope) && scope.size() <= 24)
      return to_lower(to_identifier(scope));
    return snake(op_type);
  }
  const std::string id = to_identifier(name);
  // Counters such as "123" or "onnx::Conv_12" say nothing.
  const bool counter = name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) != 0 ||
                       name.find("::") != std::string_view::npos;
  if (counter || id.size() > 28) return snake(op_type);
  return to_lower(id);
}

}  // namespace onnx2nn::ops
