// What the bodies of If, Loop and Scan have in common: results that keep their names, values that are
// carried from one round to the next, lists that become tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ops/lower.h"

namespace onnx2nn::ops {

using torch::Block;
using torch::Stmt;
using torch::VarPtr;

/// `targets = value`, and `value` alone.
Stmt assignment(std::vector<VarPtr> targets, Ex value);
Stmt effect(Ex value);

/// Where the statements of a block assign and read variables, inner blocks included; found in one
/// walk, so that a block of many results stays linear.
class BlockIndex {
 public:
  explicit BlockIndex(Block& block) : block_(block) {
    for (std::size_t i = 0; i < block.size(); ++i) add(block[i], i);
  }

  void push(Stmt s) {
    add(s, block_.size());
    block_.push_back(std::move(s));
  }
  /// The first statement that assigns `id`, and the last one that reads it.
  std::optional<std::size_t> first_assigned(int id) const { return find(first_assigned_, id); }
  std::optional<std::size_t> last_read(int id) const { return find(last_read_, id); }

  /// Makes every variable that goes by `id` the variable `to`: a result that an inner node named
  /// before is several of them. False where the block assigns none.
  bool rename(int id, const torch::Var& to) {
    const auto it = targets_.find(id);
    if (it == targets_.end()) return false;
    std::vector<VarPtr> renamed = std::move(it->second);
    targets_.erase(it);
    for (const VarPtr& v : renamed) *v = to;
    std::vector<VarPtr>& all = targets_[to.id];
    all.insert(all.end(), renamed.begin(), renamed.end());
    return true;
  }

 private:
  static std::optional<std::size_t> find(const std::unordered_map<int, std::size_t>& map, int id) {
    const auto it = map.find(id);
    return it == map.end() ? std::nullopt : std::optional(it->second);
  }

  void add(const Stmt& s, std::size_t i);

  Block& block_;
  std::unordered_map<int, std::size_t> first_assigned_;
  std::unordered_map<int, std::size_t> last_read_;
  std::unordered_map<int, std::vector<VarPtr>> targets_;
};

/// Ends `block` with `to = value`.
void settle(BlockIndex& block, const VarPtr& to, const Ex& value, std::set<int>& taken);

/// A lowered value as a tensor.
Ex tensor(LowerContext& c, const Lowered& lowered, const ir::Value* value);

/// A variable for output `i` of the node, called after it.
VarPtr output_var(LowerContext& c, std::size_t i);

/// A list that collects one output of every round.
struct Collected {
  const ir::Value* output = nullptr;
  VarPtr list;
};

/// The list for output `output`, empty before the first round.
Collected collect(LowerContext& c, std::size_t output);

/// The collected values along a new axis. Where no round may have run, the dtype and sizes say what
/// is empty; ONNX Runtime takes 0 for a size that is not fixed.
Ex stacked(const Ex& values, std::int64_t axis, const Type& element, bool may_be_empty);

struct Carried {
  VarPtr var;  // null: it never changes
  Ex next;     // the body's value for the next round
};

/// Ends a loop's body: gives each carried variable its next value, all at once.
void advance(Block& body, std::vector<Carried>& carried);

/// Whether `e` reads a variable that is carried.
bool reads_any(const torch::Expr& e, const std::vector<Carried>& carried);

/// A variable for a body's input, assigned its first value before the loop.
VarPtr start(LowerContext& c, const ir::Value* body_input, const Ex& first);

}  // namespace onnx2nn::ops
