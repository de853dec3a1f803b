// Work whose errors become diagnostics: no exception crosses the public interface.
#pragma once

#include <functional>
#include <vector>

#include "onnx2nn/convert.h"
#include "support/error.h"

namespace onnx2nn {

/// Does the work. What it throws, an interruption and want of memory included, is added to the diagnostics.
void collect_errors(Diagnostics& diagnostics, const std::function<void()>& work);

/// Diagnostics as the public interface has them.
std::vector<DiagnosticInfo> infos_of(const Diagnostics& diagnostics);

}  // namespace onnx2nn
