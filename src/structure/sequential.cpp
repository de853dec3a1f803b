#include "structure/sequential.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "structure/members.h"
#include "structure/normal.h"
#include "support/text.h"
#include "torch/schema.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

struct Row {
  std::string_view function;
  std::string_view module;
  std::size_t positional;  // arguments of the module's constructor that go without a keyword
};

constexpr std::array kModules = std::to_array<Row>({
    {"relu", "ReLU", 0},
    {"relu6", "ReLU6", 0},
    {"gelu", "GELU", 0},
    {"silu", "SiLU", 0},
    {"mish", "Mish", 0},
    {"sigmoid", "Sigmoid", 0},
    {"tanh", "Tanh", 0},
    {"hardswish", "Hardswish", 0},
    {"hardsigmoid", "Hardsigmoid", 0},
    {"leaky_relu", "LeakyReLU", 1},
    {"elu", "ELU", 1},
    {"softplus", "Softplus", 0},
    {"softmax", "Softmax", 0},
    {"log_softmax", "LogSoftmax", 0},
    {"flatten", "Flatten", 0},
    {"pixel_shuffle", "PixelShuffle", 1},
    {"pixel_unshuffle", "PixelUnshuffle", 1},
    {"max_pool1d", "MaxPool1d", 1},
    {"max_pool2d", "MaxPool2d", 1},
    {"max_pool3d", "MaxPool3d", 1},
    {"avg_pool1d", "AvgPool1d", 1},
    {"avg_pool2d", "AvgPool2d", 1},
    {"avg_pool3d", "AvgPool3d", 1},
    {"adaptive_avg_pool1d", "AdaptiveAvgPool1d", 1},
    {"adaptive_avg_pool2d", "AdaptiveAvgPool2d", 1},
    {"adaptive_avg_pool3d", "AdaptiveAvgPool3d", 1},
});

/// Whether it is what the function does without it; every number of a list stands for the list.
bool is_default(const Expr& e, std::string_view text) {
  switch (e.kind) {
    case ExprKind::None:
      return true;
    case ExprKind::Bool:
      return text == (e.integer != 0 ? "True" : "False");
    case ExprKind::Int:
      return text == std::to_string(e.integer);
    case ExprKind::Float:
      return !text.empty() && e.number == std::atof(std::string(text).c_str());
    case ExprKind::Str:
      return text.size() == e.text.size() + 2 && text.substr(1, e.text.size()) == e.text;
    case ExprKind::List:
      return e.args.empty() || std::all_of(e.args.begin(), e.args.end(), [&](const auto& x) {
               return x->kind == ExprKind::Int && text == std::to_string(x->integer);
             });
    default:
      return false;
  }
}

bool is_constant(const Expr& e) {
  switch (e.kind) {
    case ExprKind::None:
    case ExprKind::Bool:
    case ExprKind::Int:
    case ExprKind::Float:
    case ExprKind::Str:
      return true;
    case ExprKind::List:
      return std::all_of(e.args.begin(), e.args.end(),
                         [](const auto& a) { return a->kind == ExprKind::Int; });
    default:
      return false;
  }
}

/// The number, where the statement calls a member of this list with the variable alone.
std::optional<std::size_t> called(const Expr& e, int variable) {
  if (e.kind != ExprKind::Op || e.text != "call" || e.args.size() != 2 ||
      e.args[1]->kind != ExprKind::Var || e.args[1]->var->id != variable)
    return std::nullopt;
  const Expr& on = *e.args[0];
  if (on.kind != ExprKind::Op || on.text != "[]" || on.args[0]->kind != ExprKind::Self ||
      on.args[1]->kind != ExprKind::Int)
    return std::nullopt;
  return static_cast<std::size_t>(on.args[1]->integer);
}

/// A member without weights that only calls one function of torch's.
torch::ModulePtr module_of(const Member& m) {
  if (m.kind != Member::Kind::Own || !m.own->members.empty() || m.own->methods.size() != 1)
    return nullptr;
  const Method& f = m.own->methods[0];
  if (f.params.size() != 1 || f.results.size() != 1 || f.body.size() != 1 ||
      f.body[0].kind != Stmt::Kind::Assign || f.body[0].targets.size() != 1 ||
      f.body[0].targets[0]->id != f.results[0]->id)
    return nullptr;
  return torch_module(*f.body[0].value, f.params[0]->id);
}

}  // namespace

torch::ModulePtr torch_module(const Expr& e, int variable) {
  if (e.kind != ExprKind::Aten || e.args.empty() || e.args[0]->kind != ExprKind::Var ||
      e.args[0]->var->id != variable || !e.keywords.empty())
    return nullptr;
  const std::string_view base = torch::function_of(e);
  const auto* row = std::find_if(kModules.begin(), kModules.end(),
                                 [&](const Row& r) { return r.function == base; });
  if (row == kModules.end()) return nullptr;
  const auto schema = torch::schema_of(e.text);
  auto out = std::make_shared<torch::Module>();
  out->type = row->module;
  for (std::size_t i = 1; i < e.args.size(); ++i) {
    const Expr& a = *e.args[i];
    if (!is_constant(a) || i >= schema.size()) return nullptr;
    const std::string name(schema[i].name);
    if (name == "stride" && a.kind == ExprKind::List && equal(a, *e.args[1])) continue;
    // nn.Flatten leaves the batch alone, and the function doesn't.
    const bool flatten = base == "flatten" && name == "start_dim";
    if (flatten ? is_default(a, "1") : is_default(a, schema[i].default_text)) continue;
    if (i <= row->positional) {
      const ExprPtr same = torch::only_number(a);
      out->args.push_back(Ex(same ? same : e.args[i]));
    } else {
      out->keywords.emplace_back(name, Ex(e.args[i]));
    }
  }
  if (base == "flatten" && e.args.size() < 2) out->keywords.emplace_back("start_dim", Ex(0));
  return out;
}

bool make_sequential(Own& own) {
  if (own.parent == nullptr || !is_list(own) || own.methods.size() != 1) return false;
  const Method& m = own.methods[0];
  if (m.params.size() != 1 || m.results.size() != 1) return false;
  std::vector<Member> members = own.members;
  std::vector<bool> used(members.size(), false);
  std::size_t next = 0;
  int variable = m.params[0]->id;
  for (const Stmt& s : m.body) {
    if (s.kind != Stmt::Kind::Assign || s.targets.size() != 1) return false;
    if (const auto i = called(*s.value, variable)) {
      if (*i < next || *i >= members.size()) return false;
      used[*i] = true;
      next = *i + 1;
    } else if (auto module = torch_module(*s.value, variable)) {
      // Its number is free, or comes after all.
      if (next < members.size() && (members[next].kind != Member::Kind::Module || members[next].module))
        return false;
      if (next == members.size()) {
        members.emplace_back();
        members.back().name = std::to_string(next);
        used.push_back(true);
      }
      members[next].module = std::move(module);
      used[next++] = true;
    } else {
      return false;
    }
    variable = s.targets[0]->id;
  }
  if (variable != m.results[0]->id) return false;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const bool empty = members[i].kind == Member::Kind::Module && !members[i].module;
    if (!used[i] && !empty) return false;
  }
  own.members = std::move(members);
  own.sequential = true;
  return true;
}

void use_torch_modules(Tree& tree) {
  const auto replace = [](auto&& again, std::vector<Member>& members) -> void {
    for (Member& m : members) {
      again(again, m.list);
      auto module = module_of(m);
      if (!module) continue;
      m.own->sequential = true;  // needs no class
      m.kind = Member::Kind::Module;
      m.module = std::move(module);
      m.own = nullptr;
    }
  };
  for (Own* own : tree.modules) replace(replace, own->members);
}

}  // namespace onnx2nn::structure
