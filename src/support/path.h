// Paths as text: bytes of the file system, which on Windows, where it has others, are UTF-8.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace onnx2nn {

std::filesystem::path to_path(std::string_view text);
std::string path_text(const std::filesystem::path& path);

/// "net.v2.onnx", "net.v2" and ".onnx" of "models/net.v2.onnx".
std::string file_name_of(std::string_view path);
std::string stem_of(std::string_view path);
std::string suffix_of(std::string_view path);

/// Where the last name of a path starts, behind all separators.
std::size_t name_start(std::string_view path);
/// The folder that holds what a path names; "." where it names none.
std::string folder_of(const std::string& path);

/// Why nothing may be written to a name that the system reads as something else than a file (a device, a stream of
/// another file); empty for all others.
std::string_view why_no_file_name(std::string_view path);

}  // namespace onnx2nn
