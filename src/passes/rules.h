// The table of rules; each file of rules gives its own.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "passes/rewriter.h"

namespace onnx2nn::passes {

struct Rule {
  std::string_view name;
  std::string_view what;
  /// Rewrites around `n` and says whether it did. May erase `n`.
  bool (*apply)(Rewriter&, ir::Node&);
  /// The operators of ai.onnx that it is about; empty for all of every domain.
  std::vector<std::string_view> ops;
  bool in_conversion = false;  // the emitted source is better for it
  bool conversion_only = false;  // what it makes is torch's, and in no file
};

std::span<const Rule> fold_rules();
std::span<const Rule> noop_rules();
std::span<const Rule> reshape_rules();
std::span<const Rule> indexing_rules();
std::span<const Rule> control_flow_rules();
std::span<const Rule> conv_rules();
std::span<const Rule> gemm_rules();
std::span<const Rule> norm_rules();
std::span<const Rule> activation_rules();
std::span<const Rule> reduce_rules();
std::span<const Rule> movement_rules();
std::span<const Rule> attention_rules();
std::span<const Rule> pad_rules();
std::span<const Rule> recurrent_rules();
std::span<const Rule> parts_rules();
std::span<const Rule> places_rules();
std::span<const Rule> quantized_rules();
std::span<const Rule> quantized_product_rules();
std::span<const Rule> quantize_pair_rules();

/// Rules about whole graphs.
inline constexpr std::string_view kMergeNodes = "merge-equal-nodes";
inline constexpr std::string_view kMergeContents = "merge-equal-shapes";
inline constexpr std::string_view kMergeInitializers = "merge-equal-initializers";
inline constexpr std::string_view kOwnConstants = "own-constants";
inline constexpr std::string_view kRemoveDead = "remove-dead";
/// They stop after `most` rewrites, and return how many they did.
std::size_t merge_equal_nodes(Rewriter& w, ir::Graph& g, std::size_t most);
std::size_t merge_equal_contents(Rewriter& w, ir::Graph& g, std::size_t most);
std::size_t merge_equal_initializers(Rewriter& w, ir::Graph& g, std::size_t most);
std::size_t own_constants(Rewriter& w, ir::Graph& g, std::size_t most);
/// Folds constants over nodes that lie between, and may be large; the name is that of folding.
inline constexpr std::string_view kFoldConstants = "fold-constants";
std::size_t fold_ahead(Rewriter& w, ir::Graph& g, std::size_t most);
/// Turns what lies between transposes to channels first, where that leaves fewer of them.
inline constexpr std::string_view kMoveChannels = "move-channels";
std::size_t move_channels(Rewriter& w, ir::Graph& g, std::size_t most);
/// Bytes by which folding may make the constants of `g` and of the graphs in it larger.
std::uint64_t most_growth(const ir::Graph& g, bool in_conversion);

}  // namespace onnx2nn::passes
