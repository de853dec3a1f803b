// Outcomes as exit codes and as JSON, for both programs and the C interface; docs/json.md says what is in it.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/options.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/simplify.h"

namespace onnx2nn::cli {

using Json = nlohmann::ordered_json;

/// What a model ends with that was read, or was not, with these diagnostics.
ExitCode exit_code_of(const std::vector<DiagnosticInfo>& list, bool readable);

Json json_of(const std::vector<DiagnosticInfo>& list);
Json json_of(const std::vector<PortInfo>& list);
Json json_of(const ConversionStats& stats);
/// Counts before and after, what the rules did, and why they did nothing.
Json json_of(const Simplified& s);
/// Text of a model, which may be no UTF-8, as a JSON value.
std::string model_text(std::string_view text);
Json model_texts(const std::vector<std::string>& list);
/// Text by what it counts.
template <typename Number>
Json json_of(const std::map<std::string, Number>& counts) {
  std::map<std::string, Number> out;
  for (const auto& [text, count] : counts) out[model_text(text)] += count;
  return out;
}

/// In ASCII. A byte that is no UTF-8 is then one of a path, and becomes what Python has for it, \udcXX.
/// `indent`: blanks for each level, each value on a line of its own; all on one line where it is 0.
std::string text_of(const Json& value, std::size_t indent = 2);

}  // namespace onnx2nn::cli
