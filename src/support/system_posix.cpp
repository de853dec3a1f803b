#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "support/system.h"

namespace onnx2nn {

#ifdef __EMSCRIPTEN__

// Its mmap clears what it gives, which takes the memory; malloc leaves the pages of large blocks alone.
std::byte* reserve_room(std::size_t size) {
  return static_cast<std::byte*>(std::malloc(size));
}

void release_room(std::byte* room, std::size_t) {
  std::free(room);
}

void prefer_large_pages(std::byte*, std::size_t) {}

#else

std::byte* reserve_room(std::size_t size) {
  void* room = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return nullptr;
#ifdef MADV_NOHUGEPAGE
  // A small part of it must not bring in megabytes of zeros.
  ::madvise(room, size, MADV_NOHUGEPAGE);
#endif
  return static_cast<std::byte*>(room);
}

void release_room(std::byte* room, std::size_t size) {
  ::munmap(room, size);
}

void prefer_large_pages([[maybe_unused]] std::byte* room, [[maybe_unused]] std::size_t size) {
#ifdef MADV_HUGEPAGE
  ::madvise(room, size, MADV_HUGEPAGE);
#endif
}

#endif

void set_up_output() {}

std::optional<std::size_t> terminal_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return std::nullopt;
  return size.ws_col;
}

void on_stop_signals(void (*handler)(int)) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = handler;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace onnx2nn
