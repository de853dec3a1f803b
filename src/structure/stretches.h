// Equal stretches of a sequence of tokens, for the step `repeats`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace onnx2nn::structure {

/// tokens[i] == tokens[i + period] for each i of [start, start + length - period).
struct Run {
  std::size_t start = 0;
  std::size_t period = 0;
  std::size_t length = 0;
  std::size_t turns() const { return length / period; }
  std::size_t covered() const { return turns() * period; }
};

/// Stretches that stand two and more times in a row, those that cover most first; among equals the
/// shortest period. Takes time in proportion to the tokens.
std::vector<Run> runs_of(std::span<const std::uint64_t> tokens, std::size_t min_period);

/// Where the pattern begins, each after the end of the one before.
std::vector<std::size_t> occurrences_of(std::span<const std::uint64_t> pattern,
                                        std::span<const std::uint64_t> tokens);

/// Stretches of a length that are there at least twice without overlapping: where each begins. They
/// are equal by a hash of their tokens, which whoever uses them has to check.
struct Repeat {
  std::size_t length = 0;
  std::vector<std::size_t> starts;
  std::size_t covered() const { return length * starts.size(); }
};

/// Those of `length` tokens, what covers most first.
std::vector<Repeat> repeats_of(std::span<const std::uint64_t> tokens, std::size_t length);

}  // namespace onnx2nn::structure
