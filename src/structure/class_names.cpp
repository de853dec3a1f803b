#include "structure/class_names.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "structure/members.h"
#include "structure/walk.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::Stmt;

/// "layer_norm2" and "layers.3" as LayerNorm and Layer.
std::string class_name_of(const std::string& part, bool in_list) {
  std::string stem = part;
  while (!stem.empty() && !is_letter(stem.back())) stem.pop_back();
  if (in_list && stem.size() > 3 && stem.back() == 's' && stem[stem.size() - 2] != 's')
    stem.pop_back();
  std::string out;
  bool up = true;
  for (const char c : stem) {
    if (!is_alphanumeric(c)) {
      up = true;
      continue;
    }
    out += up ? to_upper(c) : c;
    up = false;
  }
  return torch::is_ascii_identifier(out) ? out : "Block";
}

bool is_named_by_file(const Own& own) {
  static const std::set<std::string> kContainers = {"Sequential", "ModuleList", "ModuleDict",
                                                    "Module"};
  return !own.type.empty() && is_upper(own.type[0]) && kContainers.count(own.type) == 0;
}

/// The words with which all names end: Attention of SelfAttention and EncDecAttention.
std::string common_words(const std::map<std::string, int>& names) {
  std::string tail = names.begin()->first;
  for (const auto& [name, _] : names) {
    std::size_t n = 0;
    while (n < tail.size() && n < name.size() &&
           tail[tail.size() - 1 - n] == name[name.size() - 1 - n])
      ++n;
    tail.erase(0, tail.size() - n);
  }
  std::size_t word = 0;
  while (word < tail.size() && !is_upper(tail[word])) ++word;
  return tail.substr(word);
}

/// What a module has and does, as far as it tells what it is.
struct Content {
  int convolutions = 0, linears = 0, norms = 0, blocks = 0, attentions = 0, perceptrons = 0;
  int attends = 0, pools = 0, gates = 0, products = 0, sums = 0, moves = 0, others = 0;
  bool residual = false;
  int layers() const { return convolutions + linears + norms + blocks; }
};

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> tails) {
  return std::any_of(tails.begin(), tails.end(), [&](std::string_view t) { return name.ends_with(t); });
}

void count(const Member& m, Content& out) {
  if (m.kind == Member::Kind::List)
    for (const Member& item : m.list) count(item, out);
  if (m.kind == Member::Kind::Module && m.module) {
    const std::string& type = m.module->type;
    out.convolutions += type.starts_with("Conv");
    out.linears += type == "Linear";
    out.norms += type.find("Norm") != std::string::npos;
    out.attentions += type == "MultiheadAttention";
  }
  if (m.kind != Member::Kind::Own) return;
  // What is written in its place is part of this.
  if (m.own->sequential && m.own->class_name.empty()) {
    for (const Member& inner : m.own->members) count(inner, out);
    return;
  }
  const std::string& name = m.own->class_name;
  const bool attends = ends_with_any(name, {"Attention", "Attn"});
  const bool perceptron = ends_with_any(name, {"Mlp", "MLP", "FeedForward"});
  out.attentions += attends;
  out.perceptrons += perceptron;
  out.blocks += !attends && !perceptron;
}

Content content_of(const Own& own) {
  Content out;
  for (const Member& m : own.members) count(m, out);
  for (const Method& m : own.methods) {
    for (const Stmt& s : m.body) {
      each_expr(s, [&](const Expr& e) {
        if (e.kind != ExprKind::Aten) return;
        const std::string_view f = torch::function_of(e);
        out.attends += f == "scaled_dot_product_attention";
        out.pools += f == "adaptive_avg_pool2d" || f == "mean";
        out.gates += f == "sigmoid" || f == "hardsigmoid";
        out.products += f == "mul";
        out.sums += f == "add";
        if (f == "add" && !m.params.empty())
          for (const auto& a : e.args)
            out.residual = out.residual || (a->kind == ExprKind::Var && a->var->id == m.params[0]->id);
        out.moves += f == "permute" || f == "transpose";
        ++out.others;
      });
    }
  }
  return out;
}

/// "" where that tells nothing.
std::string role_of(const Own& own) {
  const Content c = content_of(own);
  if (c.attends > 0 && c.linears > 0) return "Attention";
  if (c.attentions > 0 && c.perceptrons + c.linears > 0) return "TransformerBlock";
  if (c.pools == 1 && c.gates == 1 && c.products == 1 && c.convolutions + c.linears == 2 && c.layers() == 2)
    return "SqueezeExcitation";
  if (c.linears == 2 && c.layers() == 2 && c.others <= 2 && c.sums == 0) return "MLP";
  if (own.members.empty() && c.moves > 0 && c.moves == c.others) return "Permute";
  if (c.convolutions + c.blocks == 0) return {};
  if (c.residual) return "ResidualBlock";
  return c.convolutions > 0 && c.linears == 0 && c.blocks == 0 ? "ConvBlock" : "";
}

bool says_little(const std::string& name) {
  static const std::set<std::string> kAny = {"Block", "Layer", "Feature", "Module", "Body", "Net", "Unit", "Main"};
  return kAny.count(name) != 0;
}

}  // namespace

std::string wanted_class_name(const Own& own) {
  if (is_named_by_file(own)) return own.type;
  for (std::size_t i = own.path.size(); i-- > 0;)
    if (!is_number(own.path[i])) return class_name_of(own.path[i], i + 1 < own.path.size());
  return "Block";
}

std::string wanted_class_name(const std::vector<Own*>& modules) {
  std::map<std::string, int> votes;
  bool named = false;
  for (const Own* own : modules) {
    ++votes[wanted_class_name(*own)];
    named = named || is_named_by_file(*own);
  }
  std::string wanted = std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) {
                         return a.second < b.second;
                       })->first;
  if (named) return wanted;
  if (const std::string both = common_words(votes); votes.size() > 1 && !both.empty()) wanted = both;
  if (!says_little(wanted)) return wanted;
  const std::string role = role_of(*modules[0]);
  return role.empty() ? wanted : role;
}

}  // namespace onnx2nn::structure
