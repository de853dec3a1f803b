// The native command line: converts and inspects without Python. Checking needs torch and ONNX
// Runtime, which the Python package brings.
#pragma once

namespace onnx2nn::cli {

/// Returns an ExitCode.
int run(int argc, const char* const* argv);

}  // namespace onnx2nn::cli
