#include "support/system.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#ifdef __EMSCRIPTEN__
#include <emscripten.h>
#endif

namespace onnx2nn {

#ifdef __EMSCRIPTEN__

// In the browser the other side of these is web/files.js.
EM_JS(double, onnx2nn_copy_between, (int from, double from_offset, int to, double to_offset, double length), {
  return Module["copyBetween"](from, from_offset, to, to_offset, length);
});

// Its mmap clears what it gives, which takes the memory; malloc leaves the pages of large blocks alone.
std::byte* reserve_room(std::size_t size) {
  return static_cast<std::byte*>(std::malloc(size));
}

void release_room(std::byte* room, std::size_t) {
  std::free(room);
}

std::int64_t copy_between_files(int from, std::uint64_t from_offset, int to, std::uint64_t to_offset,
                                std::uint64_t length) {
  return static_cast<std::int64_t>(
      onnx2nn_copy_between(from, static_cast<double>(from_offset), to, static_cast<double>(to_offset),
                           static_cast<double>(length)));
}

// Its preadv fills each part from where the first begins.
std::int64_t read_parts(int file, std::span<const iovec> parts, std::uint64_t offset) {
  std::int64_t done = 0;
  for (const iovec& part : parts) {
    const ssize_t n = ::pread(file, part.iov_base, part.iov_len, static_cast<off_t>(offset) + done);
    if (n < 0) return n;
    done += n;
    if (static_cast<std::size_t>(n) < part.iov_len) break;
  }
  return done;
}

void will_read(int, std::uint64_t, std::uint64_t) {}

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

std::int64_t copy_between_files([[maybe_unused]] int from, [[maybe_unused]] std::uint64_t from_offset,
                                [[maybe_unused]] int to, [[maybe_unused]] std::uint64_t to_offset,
                                [[maybe_unused]] std::uint64_t length) {
#ifdef __linux__
  auto at = static_cast<off64_t>(from_offset);
  auto target = static_cast<off64_t>(to_offset);
  return ::copy_file_range(from, &at, to, &target, static_cast<std::size_t>(length), 0);
#else
  errno = ENOSYS;
  return -1;
#endif
}

std::int64_t read_parts(int file, std::span<const iovec> parts, std::uint64_t offset) {
  return ::preadv(file, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(offset));
}

void will_read([[maybe_unused]] int file, [[maybe_unused]] std::uint64_t offset,
               [[maybe_unused]] std::uint64_t length) {
#ifdef __linux__
  (void)::posix_fadvise(file, static_cast<off_t>(offset), static_cast<off_t>(length),
                        POSIX_FADV_WILLNEED);
#endif
}

#endif

}  // namespace onnx2nn
