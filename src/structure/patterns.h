// Blocks that the step `repeats` finds in a sequence of statements.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "structure/facts.h"
#include "structure/stretches.h"
#include "torch/program.h"

namespace onnx2nn::structure {

/// A statement, a block of them, or blocks of one kind in a row.
struct Node {
  enum class Kind : std::uint8_t { Statement, Block, List };
  Kind kind = Kind::Statement;
  std::uint64_t token = 0;
  std::size_t statements = 1;
  std::vector<int> own;       // of a Statement: its shortcut's statements, then itself
  std::vector<int> children;  // what else stands between the blocks of a list too
  int unit = -1;              // of a Block
};

/// Blocks that do the same.
struct Unit {
  std::vector<int> blocks;
  std::unordered_set<std::uint64_t> signatures;
  bool shared = false;  // all of them call the same layers: one block that is called several times
  bool chain = false;   // each takes what the one before gives, and nothing else
  bool is_part = false;
  std::string name, type;  // where what it does says more than that it repeats
};

class Patterns {
 public:
  Patterns(const torch::Program& program, const Facts& facts) : program_(program), facts_(facts) {}

  /// The statements as a sequence of nodes.
  std::vector<int> sequence(const std::vector<int>& statements);
  /// The sequence with blocks in the place of what repeats, largest first and nested.
  std::vector<int> grouped(std::vector<int> sequence);
  /// Blocks with blocks inside, where they are long.
  void refine();
  /// The sequence cut where few values cross, each part a block.
  std::vector<int> cut(const std::vector<int>& sequence);

  const Node& node(int i) const { return nodes_[static_cast<std::size_t>(i)]; }
  const Unit& unit(int i) const { return units_[static_cast<std::size_t>(i)]; }
  const std::vector<Unit>& units() const { return units_; }
  /// The statements of a node, shortcuts among them.
  std::vector<int> statements_of(int node) const;

 private:
  struct Border {
    std::vector<int> inputs;   // variables, in the order of their use
    std::vector<int> results;  // in the order in which they are made
    std::uint64_t signature = 0;
    bool fixed = false;
    std::size_t statements = 0;
    std::size_t weights = 0;
  };
  Border border_of(const std::vector<int>& nodes) const;
  std::vector<std::uint64_t> tokens_of(const std::vector<int>& sequence) const;
  void add_statements(int node, std::vector<int>& out) const;

  /// What is replaced in a sequence.
  struct Change {
    std::size_t end = 0;
    int node = -1;
  };
  struct Level {
    std::vector<int> sequence;
    std::vector<std::uint64_t> tokens;
    std::vector<int> crossing;  // values that cross before each place
    std::vector<int> fresh;     // how often what the place before has made is read
    std::vector<bool> taken;
    std::vector<std::pair<std::size_t, Change>> changes;
  };
  Level level_of(std::vector<int> sequence) const;
  std::vector<int> changed(Level& level) const;
  static std::vector<int> part(const Level& level, std::size_t start, std::size_t length);

  bool find_runs(Level& level);
  bool take_run(Level& level, Run run);
  bool take_turns(Level& level, std::size_t start, std::size_t period, std::size_t turns);
  bool make_turns(Level& level, std::size_t start, std::size_t period, std::size_t turns,
                  std::size_t before, std::size_t after);
  void take_others(Level& level, int unit, const std::vector<std::uint64_t>& tokens);
  bool find_repeats(Level& level);
  bool take_repeat(Level& level, Repeat repeat);
  /// Whether blocks may be made of these, as far as their layers are theirs alone.
  enum class Sharing : std::uint8_t { None, All, Mixed };
  Sharing sharing_of(const std::vector<std::vector<int>>& blocks) const;

  /// How many numbers their class would take as arguments, without those of layers.
  std::size_t differing_numbers(const std::vector<std::vector<int>>& blocks) const;

  int add_node(Node node);
  int add_block(int unit, std::vector<int> children);
  int add_unit();
  void find_parts(int unit);
  void replicate(int unit, const std::vector<int>& before, const std::vector<int>& after);
  int copied(int node, const std::unordered_map<int, int>& by);

  const torch::Program& program_;
  const Facts& facts_;
  std::vector<Node> nodes_;
  std::vector<Unit> units_;
  std::size_t work_ = 0, most_work_ = 0;
};

}  // namespace onnx2nn::structure
