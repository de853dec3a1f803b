#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include <fmt/format.h>

#include "support/files.h"

#ifdef __EMSCRIPTEN__
#include <emscripten.h>
#endif

namespace onnx2nn::files {
namespace {

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int kToRead = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
constexpr int kFolder = O_RDONLY | O_CLOEXEC | O_DIRECTORY;
constexpr mode_t kMode = 0666;

Kind kind_of(mode_t mode) {
  if (S_ISREG(mode)) return Kind::Regular;
  if (S_ISDIR(mode)) return Kind::Folder;
  if (S_ISCHR(mode) || S_ISBLK(mode)) return Kind::Device;
  if (S_ISFIFO(mode)) return Kind::Pipe;
  if (S_ISSOCK(mode)) return Kind::Socket;
  return Kind::Other;
}

std::optional<Info> info_of_status(int failed, const struct stat& status) {
  if (failed != 0) return std::nullopt;
#ifdef __APPLE__
  const timespec changed = status.st_mtimespec;
#else
  const timespec changed = status.st_mtim;
#endif
  Info out;
  out.kind = kind_of(status.st_mode);
  out.device = static_cast<std::uint64_t>(status.st_dev);
  out.inode = static_cast<std::uint64_t>(status.st_ino);
  out.size = static_cast<std::uint64_t>(status.st_size);
  out.seconds = changed.tv_sec;
  out.nanoseconds = changed.tv_nsec;
  out.is_named = status.st_nlink > 0;
  out.is_mine = status.st_uid == ::geteuid();
  return out;
}

/// Repeats what a signal has interrupted.
template <typename Call>
auto repeated(const Call& call) {
  for (;;) {
    const auto n = call();
    if (n >= 0 || errno != EINTR) return n;
  }
}

std::string name_of_open(int file) { return fmt::format("/proc/self/fd/{}", file); }

}  // namespace

std::optional<Info> info_of(int file) {
  struct stat status {};
  return info_of_status(::fstat(file, &status), status);
}

std::optional<Info> info_at(const std::string& path) {
  struct stat status {};
  return info_of_status(::stat(path.c_str(), &status), status);
}

std::optional<Info> info_of_link(const std::string& path) {
  struct stat status {};
  return info_of_status(::lstat(path.c_str(), &status), status);
}

// ---- Opening ----

int open_to_read(const std::string& path) { return ::open(path.c_str(), kToRead); }

int open_below(const std::string& root, const std::string& name) {
  int folder = ::open(root.c_str(), kFolder);
  std::size_t start = 0;
  for (std::size_t slash = name.find('/'); folder >= 0 && slash != std::string::npos;
       start = slash + 1, slash = name.find('/', start)) {
    const std::string part = name.substr(start, slash - start);
    const int inner = ::openat(folder, part.c_str(), kFolder | O_NOFOLLOW);
    const int error_number = errno;
    ::close(folder);
    errno = error_number;
    folder = inner;
  }
  if (folder < 0) return -1;
  const int file = ::openat(folder, name.c_str() + start, kToRead | O_NOFOLLOW);
  const int error_number = errno;
  ::close(folder);
  errno = error_number;
  return file;
}

int open_to_change(const std::string& path) { return ::open(path.c_str(), O_RDWR | O_CLOEXEC); }

int open_new(const std::string& path) {
  return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kMode);
}

int open_nameless([[maybe_unused]] const std::string& folder) {
#ifdef O_TMPFILE
  const int file = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode);
  // It gets its name through /proc.
  if (file >= 0 && ::access(name_of_open(file).c_str(), F_OK) == 0) return file;
  if (file >= 0) ::close(file);
#endif
  return -1;
}

int open_found(const std::string& path) {
  return ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

void close_file(int file) { ::close(file); }

bool close_written(int file) { return ::close(file) == 0; }

// ---- Locks ----

void lock(int file) { (void)::flock(file, LOCK_EX); }

bool try_lock(int file) { return ::flock(file, LOCK_EX | LOCK_NB) == 0; }

int lock_folder(const std::string& folder) {
  const int file = ::open(folder.c_str(), kFolder);
  if (file < 0 || try_lock(file) || errno != EWOULDBLOCK) return file;
  ::close(file);
  errno = EWOULDBLOCK;
  return -1;
}

// ---- Contents ----

std::int64_t read_at(int file, std::span<std::byte> out, std::uint64_t offset) {
  return repeated([&] { return ::pread(file, out.data(), out.size(), static_cast<off_t>(offset)); });
}

std::int64_t write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset) {
  return repeated([&] { return ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
}

bool set_size(int file, std::int64_t size) { return ::ftruncate(file, static_cast<off_t>(size)) == 0; }

bool sync(int file) { return ::fsync(file) == 0; }

void sync_folder(const std::string& folder) {
  const int file = ::open(folder.c_str(), kFolder);
  if (file < 0) return;
  ::fsync(file);
  ::close(file);
}

#ifdef __EMSCRIPTEN__

// In the browser the other side of this is web/files.js.
EM_JS(double, onnx2nn_copy_between, (int from, double from_offset, int to, double to_offset, double length), {
  return Module["copyBetween"](from, from_offset, to, to_offset, length);
});

std::int64_t copy_between(int from, std::uint64_t from_offset, int to, std::uint64_t to_offset,
                          std::uint64_t length) {
  return static_cast<std::int64_t>(
      onnx2nn_copy_between(from, static_cast<double>(from_offset), to, static_cast<double>(to_offset),
                           static_cast<double>(length)));
}

// Its preadv fills each part from where the first begins.
std::int64_t read_rows(int file, std::byte* out, std::size_t row_size, std::size_t stride, std::size_t count,
                       std::uint64_t offset) {
  std::int64_t done = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t n =
        read_at(file, {out + i * stride, row_size}, offset + static_cast<std::uint64_t>(done));
    if (n < 0) return n;
    done += n;
    if (static_cast<std::size_t>(n) < row_size) break;
  }
  return done;
}

void will_read(int, std::uint64_t, std::uint64_t) {}

#else

std::int64_t copy_between([[maybe_unused]] int from, [[maybe_unused]] std::uint64_t from_offset,
                          [[maybe_unused]] int to, [[maybe_unused]] std::uint64_t to_offset,
                          [[maybe_unused]] std::uint64_t length) {
#ifdef __linux__
  auto at = static_cast<off64_t>(from_offset);
  auto target = static_cast<off64_t>(to_offset);
  return repeated(
      [&] { return ::copy_file_range(from, &at, to, &target, static_cast<std::size_t>(length), 0); });
#else
  errno = ENOSYS;
  return -1;
#endif
}

std::int64_t read_rows(int file, std::byte* out, std::size_t row_size, std::size_t stride, std::size_t count,
                       std::uint64_t offset) {
  std::array<iovec, kMostRows> parts{};
  for (std::size_t i = 0; i < count; ++i) parts[i] = {out + i * stride, row_size};
  return ::preadv(file, parts.data(), static_cast<int>(count), static_cast<off_t>(offset));
}

void will_read([[maybe_unused]] int file, [[maybe_unused]] std::uint64_t offset,
               [[maybe_unused]] std::uint64_t length) {
#ifdef __linux__
  (void)::posix_fadvise(file, static_cast<off_t>(offset), static_cast<off_t>(length),
                        POSIX_FADV_WILLNEED);
#endif
}

#endif

// ---- Names ----

bool give_name(int file, const std::string& path) {
  return ::linkat(AT_FDCWD, name_of_open(file).c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0;
}

bool rename_over(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0;
}

bool link(const std::string& from, const std::string& to) { return ::link(from.c_str(), to.c_str()) == 0; }

bool remove(const std::string& path) { return ::unlink(path.c_str()) == 0; }

void take_mode(int file, const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;
  // Only root can keep the owner.
  if (status.st_uid != ::geteuid()) (void)!::fchown(file, status.st_uid, status.st_gid);
  (void)::fchmod(file, status.st_mode & 0777U);
}

bool may_write(const std::string& path) { return ::access(path.c_str(), W_OK) == 0; }

bool is_disk_error(int error_number) {
  return error_number == ENOSPC || error_number == EDQUOT || error_number == EIO;
}

bool has_no_links(int error_number) {
  return error_number == EPERM || error_number == EACCES || error_number == EOPNOTSUPP ||
         error_number == ENOSYS || error_number == EMLINK || error_number == EXDEV;
}

}  // namespace onnx2nn::files
