// What files for Windows share. Not to be included by others: <windows.h> has macros for common names.
#pragma once

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <string>
#include <string_view>

namespace onnx2nn {

/// UTF-16 of UTF-8; what is none becomes U+FFFD.
std::wstring wide_of(std::string_view text);
std::string text_of_wide(std::wstring_view wide);

}  // namespace onnx2nn
