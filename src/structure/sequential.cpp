#include "structure/sequential.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "structure/members.h"
#include "structure/normal.h"
#include "support/text.h"
#include "torch/python_names.h"
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

/// The name of the member that is called with the variable alone.
std::optional<std::string> called(const Expr& e, int variable) {
  if (e.kind != ExprKind::Op || e.text != "call" || e.args.size() != 2 ||
      e.args[1]->kind != ExprKind::Var || e.args[1]->var->id != variable)
    return std::nullopt;
  const Expr& on = *e.args[0];
  if (on.args.empty() || on.args[0]->kind != ExprKind::Self) return std::nullopt;
  if (on.kind == ExprKind::Attribute) return on.text;
  if (on.kind != ExprKind::Op || on.text != "[]" || on.args[1]->kind != ExprKind::Int) return std::nullopt;
  return std::to_string(on.args[1]->integer);
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

/// The author's name of the module of torch's that the statement was, where the file tells it.
std::string name_of(const Own& own, const Stmt& s, const torch::Module& module) {
  if (s.scope) {
    std::vector<std::string> path = torch::components_of(*s.scope);
    if (path.size() == own.path.size() + 1 && std::equal(own.path.begin(), own.path.end(), path.begin()))
      return path.back();
  }
  return to_lower(module.type);
}

/// What a chain of calls is made of, in order; nothing where it is none. Of a list, members and others
/// keep their numbers, and what nobody calls may be a gap only.
std::optional<std::vector<Member>> chain(const Own& own) {
  const Method& m = own.methods[0];
  const bool list = is_list(own);
  std::vector<Member> out;
  std::set<std::string> used;
  std::map<std::string, const Member*> members;
  for (const Member& x : own.members) members[x.name] = &x;
  int variable = m.params[0]->id;
  const auto is_gap = [](const Member& x) { return x.kind == Member::Kind::Module && !x.module; };
  for (const Stmt& s : m.body) {
    if (s.kind != Stmt::Kind::Assign || s.targets.size() != 1) return std::nullopt;
    Member next;
    if (const auto name = called(*s.value, variable)) {
      const auto it = members.find(*name);
      if (it == members.end() || !used.insert(*name).second) return std::nullopt;
      next = *it->second;
    } else if (auto module = torch_module(*s.value, variable)) {
      next.name = list ? std::to_string(out.size()) : name_of(own, s, *module);
      next.module = std::move(module);
      // Its number is free, or comes after all.
      const auto it = members.find(next.name);
      if ((it != members.end() && !(list && is_gap(*it->second))) || !used.insert(next.name).second)
        return std::nullopt;
    } else {
      return std::nullopt;
    }
    if (list) {
      const auto at = static_cast<std::size_t>(std::stoi(next.name));
      if (at < out.size()) return std::nullopt;
      while (out.size() < at) out.push_back(own.members[out.size()]);
    }
    out.push_back(std::move(next));
    variable = s.targets[0]->id;
  }
  if (variable != m.results[0]->id) return std::nullopt;
  for (std::size_t i = out.size(); list && i < own.members.size(); ++i) out.push_back(own.members[i]);
  for (const Member& x : list ? out : own.members)
    if (used.count(x.name) == 0 && !is_gap(x)) return std::nullopt;
  return out;
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
  if (own.parent == nullptr || own.methods.size() != 1) return false;
  const Method& m = own.methods[0];
  if (m.params.size() != 1 || m.results.size() != 1) return false;
  // Members with names of their own make a class, where the author had one.
  const auto any = [&](auto is) {
    return std::any_of(own.members.begin(), own.members.end(), [&](const Member& x) { return is(x.name); });
  };
  if (!is_list(own) && own.type != "Sequential" &&
      !any([](const std::string& name) { return !torch::is_attribute_name(name); }))
    return false;
  auto members = chain(own);
  if (!members || any(torch::is_container_member)) return false;
  own.members = std::move(*members);
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
