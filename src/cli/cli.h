// The native command line: converts and inspects without Python. Checking needs torch and ONNX
// Runtime, which the Python package brings.
#pragma once

namespace onnx2nn::cli {

/// Exit codes: 0 done, 1 not convertible or wrong usage, 2 a file cannot be read, 3 our own fault.
int run(int argc, const char* const* argv);

}  // namespace onnx2nn::cli
