#include <fcntl.h>
#include <io.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "support/system.h"
#include "support/windows.h"

namespace onnx2nn {

// Memory is taken as it is written to, but the system counts all of it from the start.
std::byte* reserve_room(std::size_t size) {
  return static_cast<std::byte*>(::VirtualAlloc(nullptr, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
}

void release_room(std::byte* room, std::size_t) { ::VirtualFree(room, 0, MEM_RELEASE); }

void prefer_large_pages(std::byte*, std::size_t) {}

void set_up_output() {
  for (std::FILE* file : {stdout, stderr}) ::_setmode(::_fileno(file), _O_BINARY);
  static const UINT before = ::GetConsoleOutputCP();  // 0 without a console
  if (before == 0 || before == CP_UTF8) return;
  ::SetConsoleOutputCP(CP_UTF8);
  std::atexit([] { ::SetConsoleOutputCP(before); });  // others share the console
}

std::optional<std::size_t> terminal_width() {
  CONSOLE_SCREEN_BUFFER_INFO info{};
  if (::GetConsoleScreenBufferInfo(::GetStdHandle(STD_OUTPUT_HANDLE), &info) == 0) return std::nullopt;
  return static_cast<std::size_t>(info.srWindow.Right - info.srWindow.Left + 1);
}

void on_stop_signals(void (*handler)(int)) {
  // The handler runs once, on a thread of its own. SIGBREAK: a window that is closed, too.
  for (const int signal : {SIGINT, SIGTERM, SIGBREAK})
    if (std::signal(signal, handler) == SIG_IGN) std::signal(signal, SIG_IGN);
}

}  // namespace onnx2nn
