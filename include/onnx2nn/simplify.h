// The public API: an ONNX model in, a smaller ONNX model out that computes the same.
//
//     onnx2nn::Simplified s = onnx2nn::simplify_file("model.onnx", "small.onnx", {});
//     if (!s.ok) std::cerr << s.diagnostics_text;
//
// Nothing here throws; what goes wrong is in the diagnostics. Nothing here checks the result by
// running it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnx2nn/convert.h"

namespace onnx2nn {

struct SimplifyOptions {
  /// Shapes for inputs, in place of dims that the model leaves open; they are written.
  InputShapes input_shapes;
  FreeDims free_dims;
  std::vector<std::string> disabled;  // rules
  std::vector<std::string> only;      // rules; all where empty
  /// Rewrites after which it stops, to find the one at fault.
  std::size_t stop_after = std::numeric_limits<std::size_t>::max();
  /// Rules of which `Simplified::misses` shall say why they left nodes alone.
  std::vector<std::string> why_not;
  /// Folding makes no constant of more bytes than these.
  std::uint64_t max_constant = std::numeric_limits<std::uint64_t>::max();
  /// The opset of ai.onnx to bring the model to first; never below its own.
  std::optional<std::int64_t> opset;
  /// Weights go to "<out>.data". Where the model's did, they do so without being asked.
  bool external_data = false;
  /// A folder to write to, under the output's name, for a look at it before `publish` puts it in its
  /// place. It must be on the output's file system to save copying.
  std::string staging;
  /// The same as in ConvertOptions.
  bool force = false;
  std::vector<std::string> data_roots;
  bool drop_undefined_outputs = false;
};

/// A node of the result that looks like what a rule is about, and the reason that it is not.
struct SimplifyMiss {
  std::string rule;
  std::string node;  // "Div (node /norm/Div)"
  std::string reason;
};

/// A simplified model in the folder `SimplifyOptions::staging`.
struct StagedModel;

struct Simplified {
  bool ok = false;
  bool readable = false;  // whether the model could be read at all
  std::vector<DiagnosticInfo> diagnostics;
  std::string diagnostics_text;
  std::string diagnostics_json;
  std::size_t nodes_before = 0;
  std::size_t nodes_after = 0;
  std::map<std::string, std::size_t> op_types_before;
  std::map<std::string, std::size_t> op_types_after;
  std::uint64_t weight_bytes_before = 0;
  std::uint64_t weight_bytes_after = 0;
  std::map<std::string, std::size_t> rules;  // what each rule did
  /// Each rewrite in order: the rule, and the node that it was about.
  std::vector<std::pair<std::string, std::string>> log;
  std::vector<SimplifyMiss> misses;  // of the rules in `why_not`
  std::vector<std::string> files;    // written
  std::string model;               // the bytes, where no output path was given
  std::shared_ptr<const StagedModel> staged;  // where `staging` was given
};

struct SimplifyRule {
  std::string name;
  std::string what;
};
std::vector<SimplifyRule> simplify_rules();

/// Writes to `out`, all or nothing; an empty `out` leaves the bytes in `model`. `out` may be `path`:
/// that is simplified in place. Any other file that is there is replaced only if onnx2nn wrote it.
Simplified simplify_file(const std::string& path, const std::string& out,
                         const SimplifyOptions& options);
/// `bytes` are a serialised ModelProto; `name` stands for the file in messages.
Simplified simplify_bytes(std::string bytes, const std::string& out, const SimplifyOptions& options,
                          const std::string& name = "model");
/// Moves a staged model to its place; of the result, `ok`, `files` and the diagnostics count.
Simplified publish(const StagedModel& model);

}  // namespace onnx2nn
