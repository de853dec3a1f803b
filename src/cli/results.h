// Outcomes as exit codes and as JSON, for both programs and the C interface; docs/json.md says what is in it.
#pragma once

#include <string>
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
/// Adds what is in a model.
void add_inspection(Json& out, const Conversion& c);

/// In ASCII: text of a model may be no UTF-8.
std::string text_of(const Json& value);

}  // namespace onnx2nn::cli
