// Names for the files that are written, as Python imports them.
#pragma once

#include <string>

namespace onnx2nn {

/// Why a file "<stem>.py" cannot be imported by its name, or hides another module where it lies on
/// the path; empty where nothing speaks against it.
std::string why_not_imported(const std::string& stem);

}  // namespace onnx2nn
