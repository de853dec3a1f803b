// The arguments of a program, for its `main` alone.
#pragma once

#include <string>
#include <vector>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <shellapi.h>
#endif

namespace onnx2nn {

/// What `main` is given, in UTF-8: what Windows gives it has lost what its code page has not.
class Arguments {
 public:
  Arguments(int argc, char** argv) : texts_(argv, argv + argc) {
#ifdef _WIN32
    texts_.clear();
    int count = 0;
    LPWSTR* const given = ::CommandLineToArgvW(::GetCommandLineW(), &count);
    for (int i = 0; i < count; ++i) {
      const auto utf8 = [&](char* to, int room) {
        return ::WideCharToMultiByte(CP_UTF8, 0, given[i], -1, to, room, nullptr, nullptr);
      };
      std::string& text = texts_.emplace_back(static_cast<std::size_t>(utf8(nullptr, 0)), '\0');
      utf8(text.data(), static_cast<int>(text.size()));
      text.pop_back();  // its NUL
    }
    ::LocalFree(static_cast<HLOCAL>(given));
#endif
    for (const std::string& text : texts_) pointers_.push_back(text.c_str());
  }

  int count() const { return static_cast<int>(pointers_.size()); }
  const char* const* data() const { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<const char*> pointers_;
};

}  // namespace onnx2nn
