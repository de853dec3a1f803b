#include <algorithm>
#include <array>

#include "support/checked.h"
#include "support/path.h"
#include "support/text.h"
#include "support/windows.h"

namespace onnx2nn {
namespace {

constexpr std::string_view kSeparators = "/\\";

/// The length of "C:" in front.
std::size_t drive_length(std::string_view path) {
  const bool has_drive =
      path.size() >= 2 && path[1] == ':' && ((path[0] | 0x20) >= 'a' && (path[0] | 0x20) <= 'z');
  return has_drive ? 2 : 0;
}

/// Names that stand for devices in every folder, with any suffix: "nul.py" is one.
bool is_device_name(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kDevices = {"con", "prn", "aux", "nul", "conin$", "conout$"};
  // Superscript digits count.
  static constexpr std::array<std::string_view, 3> kDigits = {"\u00b9", "\u00b2", "\u00b3"};
  std::string stem = to_lower(name.substr(0, name.find('.')));
  stem.erase(stem.find_last_not_of(' ') + 1);
  if (std::find(kDevices.begin(), kDevices.end(), stem) != kDevices.end()) return true;
  if (!stem.starts_with("com") && !stem.starts_with("lpt")) return false;
  const std::string_view digit = std::string_view(stem).substr(3);
  return (digit.size() == 1 && digit[0] >= '0' && digit[0] <= '9') ||
         std::find(kDigits.begin(), kDigits.end(), digit) != kDigits.end();
}

}  // namespace

std::wstring wide_of(std::string_view text) {
  if (text.empty()) return {};
  const int size = narrow<int>(text.size(), "length of text");
  std::wstring out(static_cast<std::size_t>(::MultiByteToWideChar(CP_UTF8, 0, text.data(), size, nullptr, 0)), L'\0');
  ::MultiByteToWideChar(CP_UTF8, 0, text.data(), size, out.data(), static_cast<int>(out.size()));
  return out;
}

std::string text_of_wide(std::wstring_view wide) {
  if (wide.empty()) return {};
  const int size = narrow<int>(wide.size(), "length of text");
  const int length = ::WideCharToMultiByte(CP_UTF8, 0, wide.data(), size, nullptr, 0, nullptr, nullptr);
  std::string out(static_cast<std::size_t>(length), '\0');
  ::WideCharToMultiByte(CP_UTF8, 0, wide.data(), size, out.data(), length, nullptr, nullptr);
  return out;
}

std::filesystem::path to_path(std::string_view text) { return wide_of(text); }

std::string path_text(const std::filesystem::path& path) { return text_of_wide(path.native()); }

std::size_t name_start(std::string_view path) {
  const std::size_t separator = path.find_last_of(kSeparators);
  return separator == std::string_view::npos ? drive_length(path) : separator + 1;
}

std::string folder_of(const std::string& path) {
  const std::string folder = path_text(to_path(path).parent_path());
  return folder.empty() ? "." : folder;
}

std::string_view why_no_file_name(std::string_view path) {
  const std::string_view name = path.substr(name_start(path));
  const bool is_device_path = path.size() >= 4 && kSeparators.find(path[0]) != std::string_view::npos &&
                              kSeparators.find(path[1]) != std::string_view::npos && path[2] == '.' &&
                              kSeparators.find(path[3]) != std::string_view::npos;
  if (is_device_path || is_device_name(name)) return "Windows has a device of this name";
  if (name.find(':') != std::string_view::npos) return "what stands behind the colon is a stream of another file";
  if (name.find_first_of("<>\"|?*") != std::string_view::npos) return "Windows has no such names";
  if (name.ends_with('.') || name.ends_with(' ')) return "Windows leaves out the end of this name";
  return {};
}

}  // namespace onnx2nn
