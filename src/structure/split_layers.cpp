#include "structure/split_layers.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "structure/elementwise.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;

constexpr int kNone = -1;

/// What each process has of a value: all of it, or its part along one axis.
struct Value {
  int group = kNone;      // of layers that are split together or not at all; kNone: it has all
  std::int64_t axis = 0;  // along which it is split, from the end: -1 is the last
  std::int64_t size = 0;  // of all parts along it; 0: not known
  std::int64_t rank = 0;  // 0: not known
  /// Of a whole one: its sizes as text, "1" or others, where they are known.
  std::optional<std::vector<std::string>> dims;
  /// Whether gradients go on from here to a parameter. Where a shard meets such a value, each process
  /// would have a part of them.
  bool trained = false;
  /// A layer split by rows that it was computed from.
  int after = kNone;

  bool is_split() const { return group != kNone; }
};

/// Layers that are known to stay whole, and why.
using Whole = std::unordered_map<const torch::Module*, std::string>;

/// One reading of the program.
class Reading {
 public:
  Reading(const torch::Program& program, const Whole& whole) {
    for (const auto& m : program.modules) {
      if (m->type != "Linear") {
        if (std::any_of(m->params.begin(), m->params.end(),
                        [](const auto& p) { return p.second && p.second->trainable; }))
          trains_.insert(m.get());
        continue;
      }
      const int index = static_cast<int>(layers_.size());
      layers_.push_back({m, Style::Whole, false, kNone});
      layer_of_[m.get()] = index;
      parent_.push_back(index);
      why_.emplace_back();
      heads_.push_back(0);
      for (const auto& [name, param] : m->params) {
        if (!param->trainable) fail(index, "its " + name + " is no parameter");
        const auto [it, is_new] = owner_.emplace(param.get(), index);
        if (!is_new) {
          fail(index, "its " + name + " is another layer's too");
          fail(it->second, "its " + name + " is another layer's too");
        }
      }
      // parallelize_module takes names for patterns.
      for (const std::string& step : m->path)
        if (step.find_first_of("*?[]") != std::string::npos) fail(index, "its name is a pattern");
      if (whole.count(m.get()) != 0) layers_.back().stays_whole = true;
    }
    for (const torch::Tie& tie : program.ties)
      if (const auto it = owner_.find(tie.param.get()); it != owner_.end())
        fail(it->second, "its weight is another layer's too");
    read(program.forward, /*nested=*/false);
  }

  bool is_split(int layer) {
    const int group = find(layer);
    return layers_[static_cast<std::size_t>(layer)].style != Style::Whole &&
           why_[static_cast<std::size_t>(group)].empty() && has_rows_.count(group) != 0;
  }

  /// Layers that were tried as the first of a block, after nothing that failed itself.
  Whole wrong_beginnings() {
    close();
    Whole out;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& l = layers_[i];
      if (l.style != Style::Columns || l.stays_whole || is_split(static_cast<int>(i))) continue;
      if (l.after == kNone || is_split(l.after)) out[l.module.get()] = reason(static_cast<int>(i));
    }
    return out;
  }

  /// All linear layers in the order of their first calls; `parts`: what their number of processes divides.
  std::vector<SplitLayer> result(Block& forward, const Whole& whole, std::int64_t& parts) {
    close();
    std::vector<SplitLayer> out;
    for (const int i : order_) {
      const Layer& l = layers_[static_cast<std::size_t>(i)];
      if (is_split(i)) {
        out.push_back({l.module, l.style, ""});
        parts = std::gcd(parts, std::gcd(features(l), heads_[static_cast<std::size_t>(find(i))]));
      } else {
        const auto known = whole.find(l.module.get());
        out.push_back({l.module, Style::Whole, known != whole.end() ? known->second : reason(i)});
      }
    }
    rewrite(forward, [&](const ExprPtr& e) { return changed(e); });
    return out;
  }

 private:
  struct Layer {
    torch::ModulePtr module;
    Style style = Style::Whole;
    bool stays_whole = false;
    int after = kNone;
  };
  struct Change {
    int group;
    std::vector<ExprPtr> sizes;
  };

  /// How many each process has a share of: where they are not equal, torch refuses the product.
  static std::int64_t features(const Layer& l) {
    for (const auto& [name, param] : l.module->params)
      if (name == "weight") return param->shape.at(l.style == Style::Columns ? 0 : 1);
    return 0;
  }

  int find(int i) {
    while (parent_[static_cast<std::size_t>(i)] != i) {
      int& up = parent_[static_cast<std::size_t>(i)];
      up = parent_[static_cast<std::size_t>(up)];
      i = up;
    }
    return i;
  }

  void join(int a, int b) {
    a = find(a);
    b = find(b);
    if (a == b) return;
    parent_[static_cast<std::size_t>(b)] = a;
    std::string& why = why_[static_cast<std::size_t>(a)];
    if (why.empty()) why = why_[static_cast<std::size_t>(b)];
    std::int64_t& heads = heads_[static_cast<std::size_t>(a)];
    heads = std::gcd(heads, heads_[static_cast<std::size_t>(b)]);
  }

  std::string reason(int layer) {
    const std::string& why = why_[static_cast<std::size_t>(find(layer))];
    return why.empty() ? "no layer takes its features apart again" : why;
  }

  void fail(int layer, std::string why) {
    std::string& known = why_[static_cast<std::size_t>(find(layer))];
    if (known.empty()) known = std::move(why);
  }
  void fail(const Value& v, const std::string& why) {
    if (v.is_split()) fail(v.group, why);
  }

  /// Rows, by the final groups.
  void close() {
    has_rows_.clear();
    for (std::size_t i = 0; i < layers_.size(); ++i)
      if (layers_[i].style == Style::Rows) has_rows_.insert(find(static_cast<int>(i)));
  }

  // ---- Statements ----

  void read(const Block& block, bool nested) {
    for (const Stmt& s : block) {
      if (nested || s.kind != Stmt::Kind::Assign) {
        each_expr(s, [&](const Expr& e) { leaves(e, nested || s.kind != Stmt::Kind::Return); });
        if (s.kind == Stmt::Kind::Return) (void)eval(*s.value);
        continue;
      }
      assign(s);
    }
  }

  /// What is read for something that is not followed.
  void leaves(const Expr& e, bool nested) {
    if (e.kind == ExprKind::Var) {
      if (const auto it = values_.find(e.var.get()); it != values_.end())
        fail(it->second, nested ? "a branch or loop reads it" : "it is an output of the model");
    }
    if (const auto it = layer_of_.find(e.module.get()); nested && it != layer_of_.end()) {
      note(it->second);
      fail(it->second, "a branch or loop calls it");
    }
  }

  void note(int layer) {
    if (seen_.insert(layer).second) order_.push_back(layer);
  }

  void assign(const Stmt& s) {
    const Value v = eval(*s.value);
    for (const torch::VarPtr& target : s.targets) {
      Value one = v;
      if (!v.is_split()) {
        one.dims.reset();
        one.rank = 0;
        if (target->has_dims) one.dims = target->dims;
      }
      if (target->has_dims) one.rank = static_cast<std::int64_t>(target->dims.size());
      const bool is_list = s.targets.size() > 1 && s.value->kind == ExprKind::Tuple;
      if (is_list) fail(v, "it is one of several values");
      values_[target.get()] = std::move(one);
    }
  }

  // ---- Expressions ----

  Value eval(const Expr& e) {
    switch (e.kind) {
      case ExprKind::Var: {
        if (const auto it = values_.find(e.var.get()); it != values_.end()) return it->second;
        Value v;
        if (e.var->has_dims) v.dims = e.var->dims;
        if (v.dims) v.rank = static_cast<std::int64_t>(v.dims->size());
        return v;
      }
      case ExprKind::Param: return parameter(*e.param);
      case ExprKind::None:
      case ExprKind::Str:
      case ExprKind::DType:
      case ExprKind::Int:
      case ExprKind::Float:
      case ExprKind::Bool: {
        Value v;
        v.dims.emplace();
        return v;
      }
      case ExprKind::Module: return call(e);
      case ExprKind::Aten: return aten(e);
      case ExprKind::Size: {
        Value v = eval(*e.args[0]);
        const std::int64_t at = from_end(e.integer, v.rank);
        if (v.is_split() && (at >= 0 || at == v.axis)) fail(v, "the size of a part is read");
        Value whole;
        whole.dims.emplace();
        return whole;
      }
      default: return other(e, "it is computed on in a way that is not followed");
    }
  }

  /// A negative axis; not negative where that takes a rank that is not known.
  static std::int64_t from_end(std::int64_t axis, std::int64_t rank) {
    return axis < 0 || rank == 0 ? axis : axis - rank;
  }

  Value parameter(const torch::Param& p) {
    Value v;
    v.trained = p.trainable;
    v.dims.emplace();
    for (const std::int64_t d : p.shape) v.dims->push_back(std::to_string(d));
    v.rank = static_cast<std::int64_t>(p.shape.size());
    if (const auto it = owner_.find(&p); it != owner_.end())
      fail(it->second, "its weight is read by more than the layer");
    return v;
  }

  /// The value of all operands together, none of which may be split.
  Value other(const Expr& e, const std::string& why) {
    Value out;
    const auto take = [&](const Expr& a) {
      const Value v = eval(a);
      fail(v, why);
      out.trained = out.trained || v.trained || v.is_split();
      if (out.after == kNone) out.after = v.is_split() ? v.group : v.after;
    };
    for (const auto& a : e.args) take(*a);
    for (const auto& [_, a] : e.keywords) take(*a);
    return out;
  }

  Value call(const Expr& e) {
    const auto it = layer_of_.find(e.module.get());
    if (it == layer_of_.end()) {
      Value out = other(e, "it goes into " + e.module->type);
      out.trained = out.trained || trains_.count(e.module.get()) != 0;
      return out;
    }
    const int index = it->second;
    note(index);
    Layer& layer = layers_[static_cast<std::size_t>(index)];
    const Value x = eval(*e.args.at(0));
    Value out;
    out.rank = x.rank;
    out.trained = true;
    if (x.is_split() && x.axis != -1) {
      fail(x, "a whole layer takes its parts");
      fail(index, "it takes parts of a value");
      return out;
    }
    const Style style = x.is_split() ? Style::Rows : Style::Columns;
    if (layer.stays_whole) {
      fail(x, "the layer behind it stays whole");
      out.after = x.is_split() ? x.group : x.after;
      return out;
    }
    if (layer.style != Style::Whole && layer.style != style)
      fail(index, "it is called for both ends of a block");
    layer.style = style;
    if (x.is_split()) {
      join(x.group, index);
      out.after = index;
      return out;
    }
    layer.after = x.after;
    out.group = index;
    out.axis = -1;
    const auto& args = e.module->args;
    if (args.size() > 1 && args[1].is_int()) out.size = args[1]->integer;
    return out;
  }

  /// An axis that an argument names, from the end; nothing where it is not known.
  static std::optional<std::int64_t> axis_arg(const Expr& e, std::size_t at, std::int64_t rank,
                                              std::optional<std::int64_t> otherwise = {}) {
    std::optional<std::int64_t> axis = otherwise;
    if (at < e.args.size()) {
      if (e.args[at]->kind != ExprKind::Int) return std::nullopt;
      axis = e.args[at]->integer;
    }
    if (!axis) return std::nullopt;
    const std::int64_t found = from_end(*axis, rank);
    return found < 0 ? std::optional(found) : std::nullopt;
  }

  Value aten(const Expr& e) {
    const std::string_view f = torch::function_of(e);
    const std::string why = "it goes into " + std::string(f);
    if (is_elementwise(f)) return together(e, why);
    if (f == "scaled_dot_product_attention") return attention(e);
    if (f == "matmul") return product(e);
    if (f == "cat") return joined(e);
    if (e.args.empty()) return other(e, why);
    Value x = eval(*e.args[0]);
    if (!x.is_split()) return other(e, why);
    for (std::size_t i = 1; i < e.args.size(); ++i)
      if (const Value v = eval(*e.args[i]); v.is_split()) {
        fail(x, why);
        fail(v, why);
      }
    if (passes_on(f)) return x;
    if (f == "unflatten") return unflattened(e, std::move(x));
    if (f == "flatten") return flattened(e, std::move(x));
    if (f == "permute") return permuted(e, std::move(x));
    if (f == "transpose") return transposed(e, std::move(x));
    if (f == "unsqueeze") {
      const auto at = axis_arg(e, 1, x.rank == 0 ? 0 : x.rank + 1);
      if (!at) return lost(x, why);
      if (*at >= x.axis) --x.axis;
      if (x.rank != 0) ++x.rank;
      return x;
    }
    const bool second = is_one_of(f, {"slice", "narrow", "select", "unbind", "softmax",
                                      "log_softmax"});
    const bool third = is_one_of(f, {"chunk", "split", "split_with_sizes"});
    if (!second && !third) return lost(x, why);
    const auto otherwise = third || f == "unbind" ? std::optional<std::int64_t>(0) : std::nullopt;
    const auto at = axis_arg(e, second ? 1 : 2, x.rank, otherwise);
    // Queries, keys and values in one: DTensor would give the first process the queries.
    if (at == x.axis && third) return lost(x, "it is several projections in one, each to be split");
    if (!at || *at == x.axis) return lost(x, why + " along the features that are split");
    if (f == "select" || f == "unbind") {
      if (*at > x.axis) ++x.axis;
      if (x.rank != 0) --x.rank;
    }
    return x;
  }

  Value lost(const Value& x, const std::string& why) {
    fail(x, why);
    Value out;
    out.trained = true;
    out.after = x.group;
    return out;
  }

  /// Operands that broadcast, element by element.
  Value together(const Expr& e, const std::string& why) {
    std::vector<Value> values;
    for (const auto& a : e.args) values.push_back(eval(*a));
    for (const auto& [_, a] : e.keywords) values.push_back(eval(*a));
    return merged(values, why);
  }

  Value merged(const std::vector<Value>& values, const std::string& why) {
    const Value* first = nullptr;
    Value out;
    for (const Value& v : values) {
      if (v.is_split() && first == nullptr) first = &v;
      out.trained = out.trained || v.trained || v.is_split();
      if (out.after == kNone) out.after = v.is_split() ? v.group : v.after;
    }
    if (first == nullptr) return out;
    Value split = *first;
    for (const Value& v : values) {
      if (v.is_split()) {
        join(split.group, v.group);
        if (v.axis != split.axis) fail(v, why + " with one that is split otherwise");
        if (split.size == 0) split.size = v.size;
        split.rank = split.rank == 0 || v.rank == 0 ? 0 : std::max(split.rank, v.rank);
      } else if (v.trained) {
        fail(split, why + " with what is trained and whole");
      } else if (!v.dims || !is_one(*v.dims, split.axis)) {
        fail(split, why + " with a whole value");
      } else if (static_cast<std::int64_t>(v.dims->size()) > split.rank) {
        split.rank = 0;
      }
    }
    return split;
  }

  /// Whether a whole value of these sizes is the same for all parts along the axis.
  static bool is_one(const std::vector<std::string>& dims, std::int64_t axis) {
    const auto rank = static_cast<std::int64_t>(dims.size());
    return rank < -axis || dims[static_cast<std::size_t>(rank + axis)] == "1";
  }

  Value attention(const Expr& e) {
    const std::string why = "it goes into scaled_dot_product_attention";
    std::vector<Value> values;
    for (const auto& a : e.args) values.push_back(eval(*a));
    for (const auto& [name, a] : e.keywords)
      if (name == "attn_mask") values.push_back(eval(*a));
    const auto is_of_heads = [](const Value& v) { return v.is_split() && v.axis == -3; };
    const bool some = std::any_of(values.begin(), values.end(), [](const Value& v) { return v.is_split(); });
    if (some && (values.size() < 3 || !std::all_of(values.begin(), values.begin() + 3, is_of_heads)))
      for (const Value& v : values) fail(v, why + " with other parts than heads");
    Value out = merged(values, why);
    if (out.is_split()) {
      out.size = values[0].size;
      out.rank = values[0].rank;
    }
    return out;
  }

  Value product(const Expr& e) {
    const std::string why = "it goes into matmul";
    std::vector<Value> values{eval(*e.args.at(0)), eval(*e.args.at(1))};
    for (const Value& v : values)
      if (v.is_split() && v.axis > -3) fail(v, why + " along the features that are split");
    return merged(values, why);
  }

  Value joined(const Expr& e) {
    std::vector<Value> values;
    if (e.args[0]->kind != ExprKind::List) return other(e, "it goes into cat");
    for (const auto& a : e.args[0]->args) values.push_back(eval(*a));
    std::int64_t rank = 0;
    for (const Value& v : values) rank = std::max(rank, v.rank);
    const auto axis = axis_arg(e, 1, rank, 0);
    for (const Value& v : values) {
      if (!v.is_split()) continue;
      const bool alike = std::all_of(values.begin(), values.end(), [&](const Value& w) {
        return w.is_split() && w.axis == v.axis;
      });
      if (!alike || !axis || *axis == v.axis) fail(v, "it goes into cat");
    }
    return merged(values, "it goes into cat");
  }

  Value unflattened(const Expr& e, Value x) {
    const std::string why = "its features are taken apart";
    const auto at = axis_arg(e, 1, x.rank);
    if (!at || e.args.size() < 3 || e.args[2]->kind != ExprKind::List) return lost(x, why);
    const std::vector<ExprPtr>& sizes = e.args[2]->args;
    const auto more = static_cast<std::int64_t>(sizes.size()) - 1;
    if (more < 0) return lost(x, why);
    if (*at == x.axis && !heads_of(e, x, sizes)) return lost(x, why + " otherwise than into heads");
    if (*at >= x.axis) x.axis -= more;
    if (x.rank != 0) x.rank += more;
    return x;
  }

  /// The split axis becomes the first of `sizes`, each process having its part of that.
  bool heads_of(const Expr& e, Value& x, const std::vector<ExprPtr>& sizes) {
    std::int64_t known = 1;
    const Expr* open = nullptr;
    for (const ExprPtr& s : sizes) {
      if (s->kind != ExprKind::Int) return false;
      if (s->integer > 0) {
        known *= s->integer;
      } else if (open != nullptr) {
        return false;
      } else {
        open = s.get();
      }
    }
    if (x.size <= 0 || known <= 0 || x.size % known != 0) return false;
    const std::int64_t rest = x.size / known;
    if (open == nullptr && rest != 1) return false;
    const std::int64_t heads = sizes[0].get() == open ? rest : sizes[0]->integer;
    std::vector<ExprPtr> local;
    for (const ExprPtr& s : sizes) {
      const std::int64_t size = &s == &sizes[0] ? -1 : s.get() == open ? rest : s->integer;
      local.push_back(torch::Ex(size).ptr());
    }
    changes_[&e] = {x.group, std::move(local)};
    x.size = heads;
    std::int64_t& all = heads_[static_cast<std::size_t>(find(x.group))];
    all = std::gcd(all, heads);
    return true;
  }

  Value flattened(const Expr& e, Value x) {
    const std::string why = "it goes into flatten";
    const auto start = axis_arg(e, 1, x.rank, 0);
    const auto end = axis_arg(e, 2, x.rank, -1);
    if (!start || !end || *end < *start || (x.axis > *start && x.axis <= *end))
      return lost(x, why + " behind another axis");
    if (x.axis < *start) {
      x.axis += *end - *start;
    } else if (x.axis == *start) {
      x.axis = *end;
      x.size = 0;
    }
    if (x.rank != 0) x.rank -= *end - *start;
    return x;
  }

  Value permuted(const Expr& e, Value x) {
    if (e.args.size() < 2 || e.args[1]->kind != ExprKind::List) return lost(x, "it goes into permute");
    const auto& order = e.args[1]->args;
    const auto rank = static_cast<std::int64_t>(order.size());
    for (std::int64_t i = 0; i < rank; ++i) {
      const Expr& from = *order[static_cast<std::size_t>(i)];
      if (from.kind != ExprKind::Int || from_end(from.integer, rank) != x.axis) continue;
      x.axis = i - rank;
      x.rank = rank;
      return x;
    }
    return lost(x, "it goes into permute");
  }

  Value transposed(const Expr& e, Value x) {
    const auto a = axis_arg(e, 1, x.rank);
    const auto b = axis_arg(e, 2, x.rank);
    if (!a || !b) return lost(x, "it goes into transpose");
    x.axis = x.axis == *a ? *b : x.axis == *b ? *a : x.axis;
    return x;
  }

  ExprPtr changed(const ExprPtr& e) {
    const auto it = changes_.find(e.get());
    if (it == changes_.end() || !is_split(it->second.group)) return nullptr;
    auto out = std::make_shared<Expr>(*e);
    out->args[0] = rewritten(e->args[0], [&](const ExprPtr& inner) { return changed(inner); });
    auto sizes = std::make_shared<Expr>(*e->args[2]);
    sizes->args = it->second.sizes;
    out->args[2] = std::move(sizes);
    return out;
  }

  std::vector<Layer> layers_;
  std::unordered_map<const torch::Module*, int> layer_of_;
  std::unordered_map<const torch::Param*, int> owner_;
  std::unordered_set<const torch::Module*> trains_;  // other modules with parameters
  std::vector<int> parent_;
  std::vector<std::string> why_;      // by group: why it is whole; empty while it may be split
  std::vector<std::int64_t> heads_;   // by group
  std::unordered_set<int> has_rows_;  // groups
  std::vector<int> order_;
  std::unordered_set<int> seen_;
  std::unordered_map<const torch::Var*, Value> values_;
  std::unordered_map<const Expr*, Change> changes_;
};

}  // namespace

std::vector<SplitLayer> split_layers(torch::Program& program, std::int64_t& parts) {
  // A layer that begins no block may be what kept others from beginning one.
  constexpr int kReadings = 4;
  Whole whole;
  for (int i = 1;; ++i) {
    Reading reading(program, whole);
    const Whole wrong = reading.wrong_beginnings();
    if (wrong.empty() || i == kReadings) return reading.result(program.forward, whole, parts);
    whole.insert(wrong.begin(), wrong.end());
  }
}

}  // namespace onnx2nn::structure
