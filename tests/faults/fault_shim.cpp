// Preloaded (LD_PRELOAD) into the program under test: lets its Nth system call that writes fail, or
// kills the process before it.
//
//   FAULT_AT=N      which call, from 1; what it is goes to standard error as "FAULT name"
//   FAULT_HOW=eio   the call fails, once
//             full  this and all later calls that need space fail with ENOSPC
//             kill  SIGKILL
//   FAULT_NO_TMPFILE=1, FAULT_NO_LINK=1, FAULT_NO_LINKAT=1: file systems that lack these
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kMostFiles = 1024;
std::atomic<bool> is_written[kMostFiles];
std::atomic<long> calls = 0;

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool is_set(const char* name) {
  return std::getenv(name) != nullptr;
}

/// Whether the call is to fail, with errno set.
bool fails(const char* name, bool needs_space) {
  const char* at = std::getenv("FAULT_AT");
  if (at == nullptr) return false;
  const long wanted = std::atol(at);
  const long call = ++calls;
  const char* how = std::getenv("FAULT_HOW");
  const bool is_full = std::strcmp(how, "full") == 0;
  if (call < wanted || (call > wanted && !is_full)) return false;
  if (call == wanted) {
    char line[64];
    const int n = std::snprintf(line, sizeof line, "FAULT %s\n", name);
    (void)!next<ssize_t (*)(int, const void*, size_t)>("write")(2, line, static_cast<size_t>(n));
  }
  if (std::strcmp(how, "kill") == 0) ::kill(::getpid(), SIGKILL);
  if (is_full && !needs_space) return false;
  errno = is_full ? ENOSPC : EIO;
  return true;
}

int open_as(const char* name, const char* path, int flags, unsigned mode) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if ((flags & O_TMPFILE) == O_TMPFILE && is_set("FAULT_NO_TMPFILE")) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (writes && fails("open", (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE))
    return -1;
  const int fd = next<int (*)(const char*, int, ...)>(name)(path, flags, mode);
  if (writes && fd >= 0 && fd < kMostFiles) is_written[fd] = true;
  return fd;
}

unsigned mode_of(int flags, va_list list) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, unsigned) : 0;
}

ssize_t pwrite_as(const char* name, int fd, const void* data, size_t size, off_t at) {
  return fails("pwrite", true)
             ? -1
             : next<ssize_t (*)(int, const void*, size_t, off_t)>(name)(fd, data, size, at);
}

int truncate_as(const char* name, int fd, off_t size) {
  return fails("ftruncate", true) ? -1 : next<int (*)(int, off_t)>(name)(fd, size);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const unsigned mode = mode_of(flags, list);
  va_end(list);
  return open_as("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const unsigned mode = mode_of(flags, list);
  va_end(list);
  return open_as("open64", path, flags, mode);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return pwrite_as("pwrite", fd, data, size, at);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  return pwrite_as("pwrite64", fd, data, size, at);
}
int ftruncate(int fd, off_t size) noexcept {
  return truncate_as("ftruncate", fd, size);
}
int ftruncate64(int fd, off64_t size) noexcept {
  return truncate_as("ftruncate64", fd, size);
}

ssize_t copy_file_range(int from, off64_t* from_at, int to, off64_t* to_at, size_t size,
                        unsigned flags) {
  if (fails("copy_file_range", true)) return -1;
  return next<ssize_t (*)(int, off64_t*, int, off64_t*, size_t, unsigned)>("copy_file_range")(
      from, from_at, to, to_at, size, flags);
}

int link(const char* from, const char* to) noexcept {
  if (is_set("FAULT_NO_LINK")) return errno = EPERM, -1;
  return fails("link", true) ? -1 : next<int (*)(const char*, const char*)>("link")(from, to);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  if (is_set("FAULT_NO_LINKAT")) return errno = EPERM, -1;
  if (fails("linkat", true)) return -1;
  return next<int (*)(int, const char*, int, const char*, int)>("linkat")(from_folder, from,
                                                                           to_folder, to, flags);
}

int rename(const char* from, const char* to) noexcept {
  return fails("rename", false) ? -1 : next<int (*)(const char*, const char*)>("rename")(from, to);
}

int fsync(int fd) {
  return fails("fsync", true) ? -1 : next<int (*)(int)>("fsync")(fd);
}

int close(int fd) {
  const bool counts = fd >= 0 && fd < kMostFiles && is_written[fd].exchange(false);
  const bool bad = counts && fails("close", true);
  const int result = next<int (*)(int)>("close")(fd);
  return bad ? (errno = EIO, -1) : result;
}

/// Only ever killed before: what cannot be removed is no loss.
int unlink(const char* path) noexcept {
  const char* how = std::getenv("FAULT_HOW");
  if (how != nullptr && std::strcmp(how, "kill") == 0) (void)fails("unlink", false);
  return next<int (*)(const char*)>("unlink")(path);
}

}  // extern "C"
