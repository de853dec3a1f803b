// What is in a model and whether it would convert, as JSON for both programs and the C interface; docs/json.md says what
// is in it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/results.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/inspect.h"

namespace onnx2nn::cli {

struct Inspected {
  Inspection found;
  std::optional<Conversion> conversion;  // where it was asked whether the model would convert
  ExitCode code = kDone;  // kUnreadable also where the model could be read, but not its external data
  std::vector<DiagnosticInfo> diagnostics;
  std::string diagnostics_text;
};

Inspected inspected_file(const std::string& path, const ConvertOptions& options, bool convert = true);
Inspected inspected_bytes(const std::string& bytes, const ConvertOptions& options, const std::string& name,
                          bool convert = true);

/// Adds its diagnostics and, where the model could be read, what is in it. nodes: each node as well.
void add_inspected(Json& out, const Inspected& i, bool nodes);

}  // namespace onnx2nn::cli
