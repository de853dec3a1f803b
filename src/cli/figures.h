// What an inspection counts, as JSON; docs/json.md says what is in it.
#pragma once

#include "cli/results.h"
#include "onnx2nn/inspect.h"

namespace onnx2nn::cli {

/// Adds parameters, multiply-adds, memory and what else was found; nodes: each node as well.
void add_figures(Json& out, const Inspection& i, bool nodes);

}  // namespace onnx2nn::cli
