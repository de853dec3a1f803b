// Layers of torch.nn: which of its weights are whose, and under which keys they go.
#include <algorithm>
#include <utility>

#include "ops/lower.h"
#include "ops/names.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

std::string key_text(const Ex& e) {
  std::string out = std::to_string(static_cast<int>(e->kind)) + ":" + std::to_string(e->integer) +
                    ":" + std::to_string(e->number) + ":" + e->text;
  for (const auto& a : e->args) out += "(" + key_text(Ex(a)) + ")";
  return out;
}

/// Tells apart what weights are made of: equal modules of equal sources are one.
std::string source_text(const ModuleParam& p) {
  const auto address = [](const void* at) {
    return std::to_string(reinterpret_cast<std::uintptr_t>(at));
  };
  if (p.value != nullptr) return address(p.value);
  std::string out = address(p.tensor.get());
  for (const torch::Piece& piece : p.pieces)
    for (const std::int64_t n : {piece.offset, piece.rows, piece.columns, piece.stride,
                                 std::int64_t{piece.transpose}})
      out += "," + address(piece.tensor.get()) + ":" + std::to_string(n);
  return out;
}

/// Whether rows of the matrix are looked up, as those of an embedding are.
bool is_looked_up(const ir::Value& v) {
  for (const ir::Use* u = v.first_use(); u != nullptr; u = u->next)
    if (u->user->is("Gather") && u->index == 0) return true;
  return false;
}

/// Whether two paths are of modules of one name in different places, as two layers have them.
bool are_counterparts(const Path& a, const Path& b) {
  return !a.empty() && !b.empty() && a != b && a.back() == b.back();
}

/// Whether a module at `path` is inside the one at `outer`.
bool is_inside(const Path& path, const Path& outer) {
  return outer.size() < path.size() && std::equal(outer.begin(), outer.end(), path.begin());
}

/// Whether one of the paths ends with the other: exporters leave out where a module is, and call one that is
/// in several places by the first of its names.
bool are_one(const Path& a, const Path& b) {
  const auto n = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::equal(a.end() - n, a.end(), b.end() - n);
}

/// "relu_1" is the second call of relu, for exporters that number the calls.
bool is_numbered_call(const std::string& name) {
  const auto at = name.rfind('_');
  return at != std::string::npos && at > 0 && is_number(std::string_view(name).substr(at + 1));
}

/// "Conv2d" as conv.
std::string stem_of(const std::string& type) {
  std::string stem = snake(type);
  if (stem.size() > 2 && stem.ends_with("d") && is_digit(stem[stem.size() - 2]))
    stem.resize(stem.size() - 2);
  return stem;
}

}  // namespace

/// A layer that becomes a module of torch.nn.
class LowerContext::Layer {
 public:
  Layer(LowerContext& c, const std::string& type, const Args& args, const Kwargs& keywords,
        std::vector<ModuleParam> params, const std::string& stem)
      : l_(c.l_), type_(type), args_(args), keywords_(keywords), params_(std::move(params)),
        stem_(stem), tied_(params_.size()) {
    const torch::ScopePtr scope = l_.keys_.scope_of(c.node_);
    if (scope) place_ = torch::components_of(*scope);
    if (place_.empty()) return;
    class_ = scope->back().type;
    // The innermost scope is the layer's own, unless the file says that it is another class, which
    // does not have the layer's weights: a batch norm that went into a convolution has its own. A table that is looked up
    // may be called after what it is tied to.
    is_own_ = class_.empty() || class_ == type_ ||
              (has_weights() && std::all_of(params_.begin(), params_.end(), [&](const ModuleParam& p) {
                 const auto owner = owner_by_name(p);
                 return p.buffer || (is_said(p) && (!owner || *owner == place_ || type_ == "Embedding"));
               }));
  }

  /// A call of it; nothing where torch has no module for it.
  std::optional<Ex> call(const Args& call_args) {
    part_equal_constants();
    if (!check_weights()) return std::nullopt;
    std::string key = type_;
    for (const Ex& a : args_) key += "|" + key_text(a);
    for (const auto& [k, v] : keywords_) key += "|" + k + "=" + key_text(v);
    for (const ModuleParam& p : params_)
      key += "|" + p.name + (p.transpose ? "^" : "=") + source_text(p);
    const auto called = [&](const torch::ModulePtr& m) {
      auto e = Ex::make(torch::ExprKind::Module);
      e->module = m;
      for (const Ex& a : call_args) e->add(a.ptr());
      return Ex(torch::ExprPtr(std::move(e)));
    };
    const std::string here = "@" + join(place_, ".");
    if (const auto it = l_.modules_by_key_.find(key); it != l_.modules_by_key_.end()) {
      const auto twin = counterpart_of(it->second->path);
      if (!twin && !is_other(it->second->path)) return called(it->second);
      if (const auto again = l_.modules_by_key_.find(key + here); again != l_.modules_by_key_.end())
        return called(again->second);
      path_ = twin ? *twin : place_;
    }
    if (!find_shared() || !find_path()) return std::nullopt;
    auto m = std::make_shared<torch::Module>();
    m->type = type_;
    m->args = args_;
    m->keywords = keywords_;
    m->path = path_;
    add_params(*m);
    if (functional_) {
      Args operands{call_args.at(0)};
      for (const auto& [_, param] : m->params) operands.push_back(l_.param_expr(param));
      return aten("linear", operands);
    }
    l_.program_.modules.push_back(m);
    l_.modules_by_key_.emplace(key, m);
    l_.modules_by_key_.emplace(key + here, m);
    return called(m);
  }

 private:
  /// Exporters merge equal constants. A buffer is never a parameter as well, and vectors of ones or
  /// zeros are those of norms that were not trained yet: each has its own.
  void part_equal_constants() {
    for (std::size_t i = params_.size(); i-- > 0;) {  // buffers come last, and leave the value to weights
      ModuleParam& p = params_[i];
      if (p.value == nullptr || !p.value->constant) continue;
      const auto same = std::count_if(params_.begin(), params_.end(),
                                      [&](const ModuleParam& q) { return q.value == p.value; });
      const bool shared = same > 1 || l_.params_.count(p.value) != 0;
      if (shared && p.value->constant->rank() == 1 && (p.buffer || p.value->constant->is_splat()))
        p.tensor = std::exchange(p.value, nullptr)->constant;
    }
  }

  bool has_weights() const {
    return std::any_of(params_.begin(), params_.end(), [](const ModuleParam& p) { return !p.buffer; });
  }
  /// Whether the author's module of the scope has a weight of this name.
  bool is_said(const ModuleParam& p) const {
    return l_.keys_.said().count(join(place_, ".") + "." + p.name) != 0;
  }

  bool check_weights() {
    for (ModuleParam& p : params_) {
      if (p.value == nullptr) continue;
      p.value = l_.first_of(p.value);
      const auto weight = l_.weight_type(p.value);
      if (!weight || ir::is_sub_byte(weight->dtype)) return false;
      // A scale for each element lies as the weight does.
      const bool moved = !p.shape.empty() && p.shape != weight->dims;
      if (moved && !p.value->constant && l_.quantized_.at(p.value).scale->size() != 1) return false;
    }
    return true;
  }

  /// Exporters keep equal weights once: what has a scope of its own is another module.
  bool is_other(const Path& path) const {
    return is_own_ && path != place_ && !l_.keys_.has_modules(place_) &&
           (!class_.empty() || path.empty() || path.back() == place_.back());
  }

  /// The components of the weight's name, where its author gave it one.
  std::optional<Path> named(const ModuleParam& p) const {
    if (p.value == nullptr || !l_.named(p.value)->is_initializer) return std::nullopt;
    return key_components(l_.weight_name(p.value), l_.is_as_authored(p.value));
  }

  /// The module that the weight is the `weight` of, by its name.
  std::optional<Path> owner_by_name(const ModuleParam& p) const {
    auto path = named(p);
    if (!path || path->size() < 2 || path->back() != p.name) return std::nullopt;
    path->pop_back();
    return path;
  }

  /// Weights that another module has already. False where no module of torch's can say it.
  bool find_shared() {
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const ModuleParam& p = params_[i];
      if (p.value == nullptr) continue;
      // A weight twice in one module would be two parameters.
      for (const ModuleParam& q : params_)
        if (&q != &p && q.value == p.value) return false;
      const auto it = l_.params_.find(p.value);
      if (it == l_.params_.end()) continue;
      const torch::Param& other = *it->second;
      if (other.path.empty()) return false;
      const Path owner(other.path.begin(), other.path.end() - 1);
      const std::string& name = other.path.back();
      // In a module of its own by the file's word, an embedding's weight was tied by the author.
      const bool is_tie = ((type_ == "Linear" || type_ == "Embedding") && is_looked_up(*p.value)) ||
                          l_.lent_.count(owner) != 0;
      tied_[i] = is_tie && is_own_ && owner != place_ && !is_numbered_call(place_.back()) &&
                 other.pieces.empty() && p.transpose == other.transpose && p.value->constant &&
                 (p.transpose || other.shape == p.value->constant->dims());
      if (tied_[i]) continue;
      if (name == p.name && is_other(owner)) {
        path_ = place_;
      } else if (type_ == "Linear" && name.ends_with("_" + p.name) && are_counterparts(place_, owner)) {
        path_ = place_;
        be_functional(name.substr(0, name.size() - p.name.size()));
      } else if (const auto twin = name == p.name ? twin_of(owner) : std::nullopt) {
        path_ = *twin;
      } else {
        return false;
      }
    }
    return true;
  }

  /// Layers that begin with equal weights share them in the file; what others of its weights are called
  /// after is this one.
  std::optional<Path> twin_of(const Path& owner) const {
    for (const ModuleParam& p : params_)
      if (const auto path = owner_by_name(p);
          path && are_counterparts(*path, owner) && l_.params_.count(p.value) == 0)
        return path;
    return counterpart_of(owner);
  }

  /// Of layers.0.attn.out_proj in layers.1.attn, which calls no such module: layers.1.attn.out_proj.
  std::optional<Path> counterpart_of(const Path& owner) const {
    if ((is_own_ && !class_.empty()) || owner.size() <= place_.size() || place_.empty()) return std::nullopt;
    bool other = false;
    for (std::size_t i = 0; i < place_.size(); ++i) {
      if (owner[i] == place_[i]) continue;
      if (!is_number(owner[i]) || !is_number(place_[i])) return std::nullopt;
      other = true;
    }
    if (!other) return std::nullopt;
    Path out = place_;
    out.insert(out.end(), owner.begin() + static_cast<std::ptrdiff_t>(place_.size()), owner.end());
    return out;
  }

  /// The path: the weights' own prefix, else the node's scope, else the operator and a number. False
  /// where no module of torch's has weights of such names.
  bool find_path() {
    const std::string stem = stem_.empty() ? stem_of(type_) : stem_;
    const auto is_found = [&] { return !path_.empty() || functional_; };
    if (!is_found()) find_by_signature();
    if (!is_found() && !find_by_names()) return false;
    if (!is_found()) find_by_left();
    if (!is_found()) {
      path_ = place_;
      // A norm without weights of the author, in a module that has some by itself, is a part of that.
      const bool is_part =
          std::none_of(params_.begin(), params_.end(),
                       [](const ModuleParam& p) { return p.value != nullptr && p.value->is_initializer; }) &&
          l_.keys_.has_weights(place_);
      if (!path_.empty() && (!is_own_ || is_part || !stem_.empty())) path_.push_back(stem);
    }
    if (!is_found()) path_ = {l_.keys_.numbered(stem)};
    if (functional_) return true;
    // A module of torch's has no children: where weights have names inside this one, it becomes such
    // a child.
    while (l_.keys_.has_modules(path_)) path_.push_back(stem);
    path_ = l_.keys_.claim(path_);
    return true;
  }

  /// The scope has weights of these names, whatever else the file calls them.
  void find_by_signature() {
    if (is_own_ && std::any_of(params_.begin(), params_.end(),
                               [&](const ModuleParam& p) { return !p.buffer && is_said(p); }))
      path_ = place_;
  }

  /// A weight of the module around, by a name that no layer of torch's has for it.
  void be_functional(std::string prefix, std::string name = "") {
    functional_ = true;
    prefix_ = std::move(prefix);
    name_ = std::move(name);
  }

  bool find_by_names() {
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const ModuleParam& p = params_[i];
      if (p.value == nullptr || l_.params_.count(p.value) != 0) continue;
      if (const auto owner = owner_by_name(p)) {
        path_ = *owner;
        if (!is_own_ || *owner == place_ || is_numbered_call(place_.back())) return true;
        // The weight of the module around is this one's too: decoder.bias is bias.
        tied_[i] = is_inside(place_, *owner) && l_.keys_.has_modules(*owner);
        // What nobody calls lends its weights: encoder.embed_tokens is shared.
        const bool is_called = l_.keys_.is_called(*owner);
        const bool is_alias = !are_one(*owner, place_) &&
                              (type_ == "Embedding" || owner->back() == place_.back());
        if (!tied_[i] && !is_called && is_alias) lend(*owner);
        // What is called takes the name itself: lm_head.decoder.
        if (tied_[i] || (is_alias && is_called && type_ == "Embedding")) path_ = place_;
        return true;
      }
      // "conv0_weight" is of conv0; "attention.in_proj_bias" is of attention itself.
      auto components = named(p);
      if (!components) continue;
      const std::string suffix = "_" + p.name;
      std::string& last = components->back();
      if (last.size() <= suffix.size() || !last.ends_with(suffix)) {
        // What the author calls otherwise is given to a function.
        if (!l_.is_as_authored(p.value)) continue;
        if (type_ != "Linear" || p.name != "weight") return false;
        be_functional("", last);
        components->pop_back();
        path_ = std::move(*components);
        return true;
      }
      last.resize(last.size() - suffix.size());
      if (components->size() > 1 || l_.model_.info.producer_name == "pytorch") {
        if (type_ != "Linear") return false;
        be_functional(last + "_");
        components->pop_back();
      }
      path_ = std::move(*components);
      return true;
    }
    return true;
  }

  /// What the author's module has that no constant is called after is what the exporter turned for it,
  /// where there is one such weight.
  void find_by_left() {
    if (params_.empty() || params_[0].value == nullptr || !l_.named(params_[0].value)->is_initializer)
      return;
    const std::string& name = params_[0].name;
    std::vector<Path> all, found;
    for (const std::string& key : l_.keys_.left(place_)) {
      const auto path = key_components(key, /*of_key=*/true);
      if (!path || std::count(path->begin(), path->end(), "parametrizations") != 0) continue;
      all.push_back(*path);
      const bool of_module = path->size() > 1 && path->back() == name;
      const bool of_scope = type_ == "Linear" && path->back().ends_with("_" + name);
      if (of_module || of_scope) found.push_back(*path);
    }
    // nn.MultiheadAttention multiplies by q_proj_weight, k_proj_weight and v_proj_weight in this order.
    if (found.size() == 1 || (found.size() > 1 && class_ == "MultiheadAttention")) {
      path_ = found[0];
    } else if (all.size() == 1 && type_ == "Linear") {
      path_ = all[0];
    } else {
      return;
    }
    l_.keys_.take(join(path_, "."));
    const std::string last = path_.back();
    path_.pop_back();
    if (last.ends_with("_" + name)) {
      be_functional(last.substr(0, last.size() - name.size()));
    } else if (last != name || path_.empty()) {
      be_functional("", last);
    }
  }

  /// A module of this kind at `path`, which nothing calls, and whose weights are this one's.
  void lend(const Path& path) {
    auto m = std::make_shared<torch::Module>();
    m->type = type_;
    m->args = args_;
    m->keywords = keywords_;
    m->path = l_.keys_.claim(path);
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const bool of_it = params_[i].value == nullptr || owner_by_name(params_[i]) == path;
      if (!of_it) continue;
      m->params.emplace_back(params_[i].name, add_param(*m, params_[i]));
      tied_[i] = params_[i].value != nullptr && !params_[i].buffer;
    }
    l_.lent_.insert(m->path);
    l_.program_.modules.push_back(std::move(m));
  }

  void add_params(torch::Module& m) {
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const ModuleParam& p = params_[i];
      if (tied_[i]) {
        Path path = m.path;
        path.push_back(p.name);
        l_.program_.ties.push_back({std::move(path), l_.param_of(p.value)});
      } else {
        m.params.emplace_back(p.name, add_param(m, p));
      }
    }
  }

  /// Of a weight that is the module's around.
  std::string name_of(const ModuleParam& p) const {
    if (p.value != nullptr && l_.is_as_authored(p.value))
      if (auto path = named(p); path && is_inside(*path, path_) && path->size() == path_.size() + 1)
        return path->back();
    return name_.empty() ? prefix_ + p.name : p.name == "weight" ? name_ : name_ + "_" + p.name;
  }

  torch::ParamPtr add_param(const torch::Module& m, const ModuleParam& p) {
    auto param = std::make_shared<torch::Param>();
    param->path = m.path;
    param->path.push_back(functional_ ? name_of(p) : p.name);
    if (functional_) param->path = l_.keys_.claim(param->path);
    param->transpose = p.transpose;
    Ints dims;
    if (p.value != nullptr) {
      l_.store(param, p.value);
      dims = l_.weight_type(p.value)->dims;
    } else {
      param->tensor = p.tensor;
      param->pieces = p.pieces;
      param->dtype = param->stored_dtype();
      if (p.tensor) dims = p.tensor->dims();
    }
    param->shape = p.shape.empty() ? dims : p.shape;
    if (p.transpose && p.shape.empty()) std::swap(param->shape[0], param->shape[1]);
    param->trainable = !p.buffer && ir::info(param->dtype).kind == 'f';
    if (p.value != nullptr && l_.params_.emplace(p.value, param).second) {
      // Another use of the weight reads the module's parameter, in ONNX's layout.
      Ex ex = l_.param_expr(param);
      if (p.transpose) ex = aten("t", {ex});
      if (param->shape != dims && !p.transpose) ex = aten("reshape", {ex, Ex(dims)});
      l_.values_[p.value] = {.ex = ex};
    }
    l_.program_.params.push_back(param);
    return param;
  }

  Lowering& l_;
  const std::string& type_;
  const Args& args_;
  const Kwargs& keywords_;
  std::vector<ModuleParam> params_;
  const std::string& stem_;  // of its name in the module around, where the caller knows it
  Path place_;         // of the node's scope
  std::string class_;  // of that, as the file names it
  bool is_own_ = false;
  std::vector<bool> tied_;
  Path path_;  // of the module
  /// It is a call of F.linear: the weights are of the module at the path, under names with a prefix
  /// ("in_proj_weight"), or under this name.
  bool functional_ = false;
  std::string prefix_, name_;
};

std::optional<Ex> LowerContext::own_part(const ir::Value* value, const std::string& name,
                                         std::int64_t offset, std::int64_t size) {
  const torch::ScopePtr scope = l_.keys_.scope_of(node_);
  if (!scope || scope->empty() || l_.model_.info.producer_name != "pytorch") return std::nullopt;
  Path path = torch::components_of(*scope);
  path.push_back(name);
  const Signature& said = l_.keys_.said();
  if (l_.keys_.is_claimed(path) || (!said.empty() && said.count(join(path, ".")) == 0))
    return std::nullopt;
  auto param = std::make_shared<torch::Param>();
  param->path = l_.keys_.claim(std::move(path));
  param->pieces = {{.tensor = value->constant, .offset = offset, .rows = 1, .columns = size, .stride = size}};
  param->dtype = param->stored_dtype();
  param->shape = {size};
  param->trainable = true;
  param->onnx_name = value->name;
  l_.program_.params.push_back(param);
  return l_.param_expr(param);
}

bool LowerContext::is_layer(std::string_view type) const {
  const torch::ScopePtr scope = l_.keys_.scope_of(node_);
  if (!scope || scope->empty()) return false;
  if (!scope->back().type.empty()) return scope->back().type == type;
  const Path place = torch::components_of(*scope);
  return l_.keys_.has_weights(place) && !l_.keys_.has_modules(place);
}

Ex LowerContext::own_weight(std::size_t i, const std::string& name, const Ints& dims) {
  const ir::Value* value = l_.first_of(input(i));
  if (l_.values_.count(value) != 0) return in(i);
  auto param = std::make_shared<torch::Param>();
  if (const torch::ScopePtr scope = l_.keys_.scope_of(node_)) param->path = torch::components_of(*scope);
  param->path.push_back(name);
  param->path = l_.keys_.claim(param->path);
  param->shape = dims;
  param->trainable = true;
  l_.store(param, value);
  l_.program_.params.push_back(param);
  l_.params_.emplace(value, param);
  Ex ex = l_.param_expr(param);
  if (const Ints stored = l_.weight_type(value)->dims; stored != dims)
    ex = aten("reshape", {ex, Ex(stored)});
  l_.values_[value] = {.ex = ex};
  return ex;
}

std::optional<Ex> LowerContext::module(const std::string& type, const Args& args,
                                       const Kwargs& keywords,
                                       const std::vector<ModuleParam>& params,
                                       const Args& call_args, const std::string& stem) {
  return Layer(*this, type, args, keywords, params, stem).call(call_args);
}

}  // namespace onnx2nn::ops
