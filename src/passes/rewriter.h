// The only way in which rules change a graph: it keeps the worklist, the counts and the types.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "ops/context.h"
#include "ops/torch_forms.h"
#include "ops/weight_role.h"
#include "passes/passes.h"

namespace onnx2nn::passes {

using Ints = std::vector<std::int64_t>;

class Rewriter {
 public:
  Rewriter(ir::Model& model, const Options& options)
      : model_(model), options_(options), signature_(ops::read_signature(*model.graph)) {}

  const Options& options() const { return options_; }
  ir::Model& model() { return model_; }
  /// Whether a weight's name is that which it had in the author's module of torch.
  bool is_authors_name(const ir::Value& weight) const {
    return ops::is_authors_name(weight, signature_, model_.info.producer_name);
  }

  /// Everything that used `old` uses `with`. What becomes dead is removed later.
  void replace(ir::Value* old, ir::Value* with);
  /// The same, where `with` is there already and its node was changed to make what `old` was: it takes
  /// the name as well, since under its own it has been another value.
  void replace_by_changed(ir::Value* old, ir::Value* with);
  void set_input(ir::Node& n, std::size_t i, ir::Value* value);
  void set_inputs(ir::Node& n, std::span<ir::Value* const> values);
  /// A node of ai.onnx before `before`, whose only output has the name, type and opset of `like`'s.
  ir::Node* add(std::string_view op_type, std::span<ir::Value* const> inputs, const ir::Value& like,
                ir::Node& before);
  /// The same, of another type than `like`, and with a name of its own: for what is new on the way
  /// to a value that stays.
  ir::Node* add_new(std::string_view op_type, std::span<ir::Value* const> inputs,
                    std::string_view stem, ir::Type type, std::int64_t opset, ir::Node& before);
  /// A node of ai.onnx with several outputs, which take the names and types of the values `like`.
  ir::Node* add_many(std::string_view op_type, std::span<ir::Value* const> inputs,
                     std::span<ir::Value* const> like, ir::Node& before);
  /// A form of torch (ops/torch_forms.h) before `before`; its outputs take the names and types of
  /// the values `like`.
  ir::Node* add_torch(std::string_view form, std::span<ir::Value* const> inputs,
                      std::span<ir::Value* const> like, ir::Node& before);
  /// A constant that is no weight.
  ir::Value* constant(ir::Graph& g, std::string_view stem, ir::TensorPtr tensor);
  /// A weight computed from `from`, under its name.
  ir::Value* weight(ir::Graph& g, const ir::Value& from, ir::TensorPtr tensor);
  void erase(ir::Node& n);

  /// Says why the rule at work leaves `n` alone, where that has been asked for; false, so that
  /// rules can return it. For what looks like the rule's form and is not, never for what is plainly
  /// another.
  template <typename... Args>
  bool miss(const ir::Node& n, fmt::format_string<Args...> reason, Args&&... args) {
    if (asked_) add_miss(n, fmt::format(reason, std::forward<Args>(args)...));
    return false;
  }
  /// The driver names the rule at work.
  void begin_rule(std::string_view rule) {
    if (options_.misses == nullptr) return;
    rule_ = rule;
    asked_ = options_.why_not.count(rule) != 0;
  }
  /// What was missed in a graph that has changed since is forgotten.
  void forget_misses();

  /// Bytes by which constants may grow yet.
  std::int64_t room_to_grow() const { return room_to_grow_; }
  void grow(std::int64_t bytes) { room_to_grow_ -= bytes; }

  void push(ir::Node* n);
  void push_users(const ir::Value& v);
  ir::Node* pop();

 private:
  void touched(const ir::Value* v);  // lost a use
  void add_miss(const ir::Node& n, std::string reason);

  ir::Model& model_;
  const Options& options_;
  ops::Signature signature_;
  std::deque<ir::Node*> work_;
  std::unordered_set<const ir::Node*> queued_;
  std::int64_t room_to_grow_ = 0;
  std::string_view rule_;
  bool asked_ = false;
  std::set<std::pair<const ir::Node*, std::string>> missed_;  // a node is looked at several times
};

// ---------------------------------------------------------------- what rules ask

/// Both are tensors of one element type, and of provably one shape.
bool same_type(const ir::Value* a, const ir::Value* b);
/// Nothing known of the two says that they differ; for what equals by the operator's meaning.
bool compatible(const ir::Value* a, const ir::Value* b);
/// The integers of a constant or of known contents.
std::optional<Ints> const_ints(const ir::Value* v);
/// The attribute, or `otherwise`.
std::int64_t attr_int(const ir::Node& n, std::string_view name, std::int64_t otherwise);
double attr_float(const ir::Node& n, std::string_view name, double otherwise);
std::string attr_string(const ir::Node& n, std::string_view name, std::string_view otherwise);
/// Axes, perms and the like: an attribute in old opsets, input `i` in newer ones.
std::optional<Ints> ints_of(const ir::Node& n, std::string_view name, std::size_t i);
/// The only value of a splat or one-element constant of a real type.
std::optional<double> splat(const ir::Value* v);
void set_attr(ir::Node& n, std::string_view name, ir::Attribute::Data data);
/// The node that makes `v`, where it is `op_type` of ai.onnx and `v` has no other user.
ir::Node* sole_producer(const ir::Value* v, std::string_view op_type);

}  // namespace onnx2nn::passes
