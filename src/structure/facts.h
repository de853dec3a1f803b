// What the step `repeats` knows of each statement.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

struct Fact {
  /// Equal where statements do the same but for numbers and for what they read.
  std::uint64_t token = 0;
  std::vector<int> reads;   // variables that it takes, without those that it only asks for sizes
  std::vector<int> writes;
  std::vector<const void*> weights;  // layers, weights and constants
  std::vector<const void*> layers;   // those of them that one module alone can have
  bool fixed = false;  // stays where it is
  int joins = -1;      // of the shortcut around a residual branch: the sum that it ends in
  int source_of = -1;  // of what is made of nothing: the only statement that reads it
};

class Facts {
 public:
  /// A statement is fixed where it reads a weight whose name is the author's, writes what others write
  /// too, or is none that computes.
  explicit Facts(const torch::Program& program);

  const Fact& operator[](std::size_t i) const { return facts_[i]; }
  /// Whether the file has keys of the author's.
  bool named() const { return named_; }
  /// The statement that sets the variable; -1: none, or several.
  int maker(int variable) const;
  /// The statements that read it.
  const std::vector<int>& readers(int variable) const;
  /// The statements that read the layer, weight or constant.
  const std::vector<int>& users(const void* what) const;
  /// What a sum reads in the place of a shortcut's result: what the shortcut begins with.
  int behind_shortcut(int variable) const;

 private:
  void find_shortcuts(const torch::Program& program);
  void find_sources(const torch::Program& program);
  struct Chain {
    std::vector<int> statements;  // the last one first
    int from = -1;
  };
  Chain chain_to(int variable) const;
  bool comes_from(int variable, int from) const;

  std::vector<Fact> facts_;
  bool named_ = false;
  std::unordered_map<int, int> maker_;
  std::unordered_map<int, std::vector<int>> readers_;
  std::unordered_map<const void*, std::vector<int>> users_;
  std::unordered_map<int, int> behind_;
};

/// Whether exporters may have kept several layers as one: each of its weights is one number.
bool is_untrained(const torch::Module& module);

/// Whether a weight's name is one that its author gave it: a key with dots that the file has as well.
bool is_authors(const torch::Param& param);

}  // namespace onnx2nn::structure
