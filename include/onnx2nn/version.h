#pragma once

namespace onnx2nn {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace onnx2nn
