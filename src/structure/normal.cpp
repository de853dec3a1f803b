#include "structure/normal.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "structure/members.h"
#include "structure/walk.h"
#include "torch/schema.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

/// Names of the positional arguments of torch's modules, for people.
std::string positional_name(const std::string& function, std::size_t i) {
  struct Row {
    std::string_view begins;
    std::array<std::string_view, 3> names;
  };
  static constexpr std::array kRows = {
      Row{"nn.Conv", {"in_channels", "out_channels", "kernel_size"}},
      Row{"nn.Linear", {"in_features", "out_features", ""}},
      Row{"nn.Embedding", {"num_embeddings", "embedding_dim", ""}},
      Row{"nn.BatchNorm", {"num_features", "", ""}},
      Row{"nn.InstanceNorm", {"num_features", "", ""}},
      Row{"nn.LayerNorm", {"dim", "", ""}},
      Row{"nn.RMSNorm", {"dim", "", ""}},
      Row{"nn.GroupNorm", {"num_groups", "num_channels", ""}},
      Row{"nn.LSTM", {"input_size", "hidden_size", "num_layers"}},
      Row{"nn.GRU", {"input_size", "hidden_size", "num_layers"}},
      Row{"nn.RNN", {"input_size", "hidden_size", "num_layers"}},
      Row{"nn.PReLU", {"num_parameters", "", ""}},
      Row{"nn.MaxPool", {"kernel_size", "stride", "padding"}},
      Row{"nn.AvgPool", {"kernel_size", "stride", "padding"}},
      Row{"nn.AdaptiveAvgPool", {"output_size", "", ""}},
      Row{"torch.empty", {"dim", "dim", "dim"}},
      Row{"range", {"depth", "", ""}},
  };
  for (const Row& row : kRows)
    if (function.starts_with(row.begins)) return i < 3 ? std::string(row.names[i]) : "";
  return "";
}

/// Whether the second argument is which element of a list of modules it is.
bool is_element(const Expr& e) {
  if (e.kind != ExprKind::Op || e.text != "[]") return false;
  const Expr* x = e.args[0].get();
  while (x->kind == ExprKind::Attribute || (x->kind == ExprKind::Op && x->text == "[]"))
    x = x->args[0].get();
  return x->kind == ExprKind::Self;
}

class Former {
 public:
  explicit Former(const Own& own) {
    for (const Member& m : own.members) know(m);
    line(is_list(own) ? "list" : "module");
    for (const Member& m : own.members) {
      member_ = m.name;
      line(m.name + "=");
      add(*constructor(m), "", "", true);
    }
    member_.clear();
    for (const Method& m : own.methods) {
      line("def " + m.name);
      for (const auto& v : m.params) variable(*v);
      for (const Stmt& s : m.body) add(s);
      line("return");
      for (const auto& v : m.results) variable(*v);
    }
  }

  Normal take() { return std::move(out_); }

 private:
  void line(std::string_view text) {
    out_.text += "\n";
    out_.text += text;
  }

  /// The constructors of the file's own classes that a member calls.
  void know(const Member& m) {
    for (const Member& item : m.list) know(item);
    if (m.kind != Member::Kind::Own) return;
    if (!m.own->class_name.empty()) {
      constructors_.emplace(m.own->class_name, &m.own->positional);
    } else {
      for (const Member& inner : m.own->members) know(inner);
    }
  }

  std::string positional(const std::string& function, std::size_t i) const {
    const auto it = constructors_.find(function);
    if (it == constructors_.end()) return positional_name(function, i);
    return i < it->second->size() ? (*it->second)[i] : "";
  }

  void variable(const torch::Var& v) {
    const auto [it, _] = variables_.emplace(v.id, variables_.size());
    out_.text += "$" + std::to_string(it->second) + " ";
  }

  void add(const Stmt& s) {
    line(std::to_string(static_cast<int>(s.kind)) + " ");
    add(*s.value, "", "", true);
    out_.text += " -> ";
    for (const auto& v : s.targets) variable(*v);
    for (const auto& v : s.params) variable(*v);
    line("{");
    for (const Stmt& inner : s.body) add(inner);
    line("}{");
    for (const Stmt& inner : s.orelse) add(inner);
    line("}");
  }

  void add(const Expr& e, const std::string& name, const std::string& of, bool alone) {
    if (is_numeral(e)) {
      out_.text += e.kind == ExprKind::Bool ? "?" : e.kind == ExprKind::Int ? "#" : "%";
      Hole hole;
      hole.value = std::make_shared<Expr>(e);
      hole.name = name;
      hole.of = of;
      hole.member = member_;
      hole.alone = alone;
      out_.holes.push_back(std::move(hole));
      return;
    }
    if (e.kind == ExprKind::Var) return variable(*e.var);
    out_.text += std::to_string(static_cast<int>(e.kind)) + ":" + std::to_string(e.text.size()) +
                 ":" + e.text + ":" + std::to_string(e.integer) + "(";
    if (is_element(e)) {
      add(*e.args[0], "", "", false);
      out_.text += e.args[1]->kind == ExprKind::Int ? std::to_string(e.args[1]->integer) : "";
      if (e.args[1]->kind != ExprKind::Int) add(*e.args[1], "", "", false);
      out_.text += ")";
      return;
    }
    std::vector<torch::SchemaArg> schema;
    if (e.kind == ExprKind::Aten) schema = torch::schema_of(e.text);
    const bool list = e.kind == ExprKind::List || e.kind == ExprKind::Tuple;
    for (std::size_t i = 0; i < e.args.size(); ++i) {
      std::string arg = list ? name
                        : i < schema.size() ? std::string(schema[i].name)
                                            : positional(e.text, i);
      add(*e.args[i], arg, list ? of : e.text, !list && e.kind != ExprKind::Op);
      out_.text += ",";
    }
    for (const auto& [key, value] : e.keywords) {
      out_.text += key + "=";
      add(*value, key, e.text, true);
      out_.text += ",";
    }
    out_.text += ")";
  }

  Normal out_;
  std::string member_;
  std::unordered_map<int, std::size_t> variables_;
  std::unordered_map<std::string, const std::vector<std::string>*> constructors_;
};

struct Default {
  std::string_view begins;  // of the module's type
  std::string_view keyword;
  Ex value;
};

/// What constructors take where nothing is said, in the order of their arguments.
const std::vector<Default>& defaults() {
  static const std::vector<Default> kDefaults = {
      {"Conv", "kernel_size", Ex()}, {"Conv", "stride", Ex(1)},
      {"Conv", "padding", Ex(0)},    {"ConvTranspose", "output_padding", Ex(0)},
      {"Conv", "dilation", Ex(1)},   {"Conv", "groups", Ex(1)},
      {"Conv", "bias", Ex(true)},    {"Linear", "bias", Ex(true)},
      {"LayerNorm", "eps", Ex(1e-5)}, {"BatchNorm", "eps", Ex(1e-5)},
      {"GroupNorm", "eps", Ex(1e-5)},
  };
  return kDefaults;
}

bool is_of(std::string_view type, const Default& d) {
  // Conv1d, not ConvTranspose1d, where that has more.
  return type.starts_with(d.begins);
}

/// Layers that differ in what one of them leaves out have one normal form.
torch::Kwargs with_defaults(const std::string& type, const torch::Kwargs& given) {
  torch::Kwargs out;
  std::vector<bool> used(given.size(), false);
  for (const Default& d : defaults()) {
    if (!is_of(type, d)) continue;
    bool found = false;
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (given[i].first != d.keyword) continue;
      out.push_back(given[i]);
      used[i] = found = true;
    }
    if (!found && !d.value.is_none()) out.emplace_back(std::string(d.keyword), d.value);
  }
  for (std::size_t i = 0; i < given.size(); ++i)
    if (!used[i]) out.push_back(given[i]);
  return out;
}

Ex torch_module(const torch::Module& m) {
  torch::Args args;
  torch::Kwargs keywords;
  for (const Ex& a : m.args)
    args.push_back(a->kind == ExprKind::List ? torch::tuple(torch::Args(a->args.begin(), a->args.end()))
                                             : a);
  for (const auto& [key, value] : m.keywords) {
    if (value->kind != ExprKind::List) {
      keywords.emplace_back(key, value);
      continue;
    }
    const auto& items = value->args;
    const ExprPtr same = key == "normalized_shape" ? nullptr : torch::only_number(*value);
    keywords.emplace_back(key, same ? Ex(same)
                                    : torch::tuple(torch::Args(items.begin(), items.end())));
  }
  return torch::call("nn." + m.type, args, with_defaults(m.type, keywords));
}

Ex empty(const torch::Param& p) {
  torch::Args dims;
  for (const std::int64_t d : p.shape) dims.emplace_back(d);
  if (dims.empty()) dims.push_back(torch::tuple({}));
  torch::Kwargs keywords;
  if (p.dtype != ir::DType::Float32) keywords.emplace_back("dtype", Ex(p.dtype));
  return torch::call("torch.empty", dims, keywords);
}

torch::Kwargs of_buffer(const torch::Param& p) {
  if (p.persistent) return {};
  return {{"persistent", torch::name("False")}};
}

Ex repeated(const Ex& item, std::size_t times) {
  return torch::op("for", {item, torch::name("_"), torch::call("range", {Ex(times)})});
}

/// The constructors of a list, equal ones in a row as one.
torch::Args items_of(const std::vector<Member>& list) {
  std::vector<Ex> each;
  for (const Member& m : list) each.push_back(constructor(m));
  constexpr std::size_t kRun = 3;
  torch::Args out;
  for (std::size_t i = 0; i < each.size();) {
    std::size_t n = 1;
    while (i + n < each.size() && equal(*each[i], *each[i + n])) ++n;
    const bool whole = n == each.size() && n >= 2;
    if ((n >= kRun && each[i]->text != "nn.Identity") || whole) {
      out.push_back(whole ? repeated(each[i], n) : torch::op("*", {repeated(each[i], n)}));
    } else {
      for (std::size_t k = 0; k < n; ++k) out.push_back(each[i]);
    }
    i += n;
  }
  return out;
}

}  // namespace

bool is_numeral(const Expr& e) {
  return e.kind == ExprKind::Int || e.kind == ExprKind::Float || e.kind == ExprKind::Bool;
}

bool equal(const Expr& a, const Expr& b) {
  if (a.kind != b.kind || a.text != b.text || a.integer != b.integer || !torch::same_number(a.number, b.number) ||
      a.args.size() != b.args.size() || a.keywords.size() != b.keywords.size())
    return false;
  for (std::size_t i = 0; i < a.args.size(); ++i)
    if (!equal(*a.args[i], *b.args[i])) return false;
  for (std::size_t i = 0; i < a.keywords.size(); ++i)
    if (a.keywords[i].first != b.keywords[i].first ||
        !equal(*a.keywords[i].second, *b.keywords[i].second))
      return false;
  return true;
}

Normal normal_form(const Own& own) {
  return Former(own).take();
}

ExprPtr filled(const ExprPtr& e, const std::vector<ExprPtr>& numbers, std::size_t& next) {
  if (is_numeral(*e)) {
    const ExprPtr& value = numbers[next++];
    return value ? value : e;
  }
  if (is_element(*e)) {
    auto copy = std::make_shared<Expr>(*e);
    copy->args[0] = filled(e->args[0], numbers, next);
    if (e->args[1]->kind != ExprKind::Int) copy->args[1] = filled(e->args[1], numbers, next);
    return copy;
  }
  auto copy = std::make_shared<Expr>(*e);
  for (auto& a : copy->args) a = filled(a, numbers, next);
  for (auto& [_, v] : copy->keywords) v = filled(v, numbers, next);
  return copy;
}

ExprPtr without_defaults(const ExprPtr& e) {
  return rewritten(e, [](const ExprPtr& x) -> ExprPtr {
    if (x->kind != ExprKind::Function || !x->text.starts_with("nn.")) return nullptr;
    auto copy = std::make_shared<Expr>(*x);
    for (auto& a : copy->args) a = without_defaults(a);
    std::erase_if(copy->keywords, [&](const auto& keyword) {
      return std::any_of(defaults().begin(), defaults().end(), [&](const Default& d) {
        return is_of(std::string_view(x->text).substr(3), d) && keyword.first == d.keyword &&
               !d.value.is_none() && equal(*keyword.second, *d.value);
      });
    });
    return copy;
  });
}

Ex constructor(const Member& member) {
  switch (member.kind) {
    case Member::Kind::Module:
      return member.module ? torch_module(*member.module) : torch::call("nn.Identity", {});
    case Member::Kind::Param:
      if (member.param->trainable) return torch::call("nn.Parameter", {empty(*member.param)});
      return torch::call("nn.Buffer", {empty(*member.param)}, of_buffer(*member.param));
    case Member::Kind::Constant:
      return member.constant->value;
    case Member::Kind::Own:
      if (member.own->sequential && member.own->class_name.empty() && !is_list(*member.own)) {
        torch::Args items;
        for (const Member& m : member.own->members)
          items.push_back(torch::tuple({Ex(m.name), constructor(m)}));
        return torch::call("nn.Sequential", {torch::call("OrderedDict", {torch::list(items)})});
      }
      if (member.own->sequential && member.own->class_name.empty()) {
        torch::Args items = items_of(member.own->members);
        // A generator is no list of arguments.
        if (items.size() == 1 && items[0]->kind == ExprKind::Op && items[0]->text == "for")
          items[0] = torch::op("*", {items[0]});
        return torch::call("nn.Sequential", items);
      }
      return torch::call(member.own->class_name, member.own->args, member.own->keywords);
    case Member::Kind::List: {
      const torch::Args items = items_of(member.list);
      const bool generator =
          items.size() == 1 && items[0]->kind == ExprKind::Op && items[0]->text == "for";
      const bool parameters = member.list[0].kind == Member::Kind::Param;
      return torch::call(parameters ? "nn.ParameterList" : "nn.ModuleList",
                         {generator ? items[0] : torch::list(items)});
    }
  }
  return {};
}

Ex registration(const Ex& owner, const Member& member) {
  const Ex on = torch::attribute(owner, "register_buffer");
  auto e = Ex::make(ExprKind::Op);
  e->text = "call";
  for (const Ex& a : {on, Ex(member.name), empty(*member.param)}) e->add(a.ptr());
  for (const auto& [key, value] : of_buffer(*member.param)) e->add(key, value.ptr());
  return Ex(ExprPtr(std::move(e)));
}

}  // namespace onnx2nn::structure
