#include "support/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "support/checked.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

/// A name beside `path` that no other process and no other file of this one has.
std::string name_beside(const std::string& path, std::string_view kind) {
  static std::atomic<unsigned> counter = 0;
  const std::size_t slash = path.rfind('/');
  const std::size_t stem = slash == std::string::npos ? 0 : slash + 1;
  // A fixed length, so that a name at the limit of the file system still has room.
  return path.substr(0, stem) + fmt::format(".onnx2nn-{}-{}.{}", ::getpid(), ++counter, kind);
}

void write_fully(int fd, std::uint64_t offset, std::span<const std::byte> bytes,
                 const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot write " + printable(path), errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

/// Copies inside the kernel and moves `from`, `to` and `length` past what was copied; false where
/// something is left. Other file systems, old kernels and odd files refuse: the caller then copies
/// the rest itself, and meets an error that is real (a full disk) again.
bool copy_in_kernel(int from_fd, std::uint64_t& from, int to_fd, std::uint64_t& to,
                    std::uint64_t& length) {
#ifdef __linux__
  while (length > 0) {
    auto from_offset = static_cast<off64_t>(from);
    auto to_offset = static_cast<off64_t>(to);
    const auto chunk = static_cast<std::size_t>(std::min<std::uint64_t>(length, 1U << 30));
    const ssize_t n = ::copy_file_range(from_fd, &from_offset, to_fd, &to_offset, chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    from += static_cast<std::uint64_t>(n);
    to += static_cast<std::uint64_t>(n);
    length -= static_cast<std::uint64_t>(n);
  }
#else
  (void)from_fd, (void)from, (void)to_fd, (void)to;
#endif
  return length == 0;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  struct stat info {};
  if (::stat(path_.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    fail("io", "cannot write {}: it exists and is not a regular file", printable(path_));
  temporary_ = name_beside(path_, "tmp");
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    const int error_number = errno;
    temporary_.clear();
    fail_io("cannot write " + printable(path_), error_number);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write_through(std::span<const std::byte> bytes) {
  write_fully(fd_, flushed_, bytes, path_);
  flushed_ += bytes.size();
}

void AtomicFile::flush() {
  write_through(buffer_);
  buffer_.clear();
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  if (bytes.size() > kBufferSize - buffer_.size()) flush();
  if (bytes.size() >= kBufferSize) return write_through(bytes);
  if (buffer_.capacity() == 0) buffer_.reserve(kBufferSize);
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void AtomicFile::append(std::string_view text) {
  append(std::as_bytes(std::span(text)));
}

void AtomicFile::append_zeros(std::uint64_t count) {
  static constexpr std::byte kZeros[4096] = {};
  while (count > 0) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(count, sizeof kZeros));
    append(std::span(kZeros, n));
    count -= n;
  }
}

void AtomicFile::append_range(const InputFile& file, std::uint64_t offset, std::uint64_t length) {
  if (offset > file.size() || length > file.size() - offset)
    fail("io", "{}: {} bytes at {} reach past its end at {}", printable(file.path()), length,
         offset, file.size());
  if (!file.on_disk())
    return append(
        file.bytes(offset, length));
  constexpr std::uint64_t kWorthACall = 1U << 16;
  if (length >= kWorthACall) {
    flush();
    const std::uint64_t start = flushed_;
    flushed_ = checked_add(flushed_, length, "file size");
    return copy_at(start, file, offset, length);
  }
  const auto n = static_cast<std::size_t>(length);
  if (n > kBufferSize - buffer_.size()) flush();
  if (buffer_.capacity() == 0) buffer_.reserve(kBufferSize);
  buffer_.resize(buffer_.size() + n);
  file.read(offset, std::span(buffer_).last(n));
}

void AtomicFile::append(const ByteSource& source) {
  if (source.on_disk()) return append_range(*source.file(), source.file_offset(), source.size());
  append(source.bytes());
}

std::uint64_t AtomicFile::extend(std::uint64_t count) {
  flush();
  const std::uint64_t start = flushed_;
  flushed_ = checked_add(flushed_, count, "file size");
  // What nobody writes reads as zeros, even at the end.
  if (::ftruncate(fd_, narrow<off_t>(flushed_, "file size")) != 0)
    fail_io("cannot write " + printable(path_), errno);
  return start;
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  ONNX2NN_CHECK(offset <= flushed_ && bytes.size() <= flushed_ - offset,
                "write outside of what was written");
  write_fully(fd_, offset, bytes, path_);
}

void AtomicFile::copy_at(std::uint64_t offset, const InputFile& file, std::uint64_t file_offset,
                         std::uint64_t length) {
  ONNX2NN_CHECK(offset <= flushed_ && length <= flushed_ - offset,
                "copy to outside of what was written");
  if (!file.on_disk()) {
    return write_at(offset, file.bytes(file_offset, length));
  }
  if (copy_in_kernel(file.descriptor()->get(), file_offset, fd_, offset, length)) return;
  std::vector<std::byte> buffer(
      static_cast<std::size_t>(std::min<std::uint64_t>(length, kBufferSize)));
  while (length > 0) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(length, buffer.size()));
    const std::span<std::byte> part = std::span(buffer).first(n);
    file.read(file_offset, part);
    write_fully(fd_, offset, part, path_);
    file_offset += n;
    offset += n;
    length -= n;
  }
}

void AtomicFile::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  ONNX2NN_CHECK(offset <= flushed_ && out.size() <= flushed_ - offset,
                "read outside of what was written");
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_io("cannot read " + printable(path_), n < 0 ? errno : EIO);
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

void AtomicFile::close() {
  if (fd_ < 0) return;
  flush();
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) != 0) fail_io("cannot write " + printable(path_), errno);
}

void AtomicFile::commit() {
  close();
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    fail_io("cannot write " + printable(path_), errno);
  temporary_.clear();
}

AtomicFile& AtomicFileSet::add(std::string path) {
  return *files_.emplace_back(std::make_unique<AtomicFile>(std::move(path)));
}

void AtomicFileSet::commit() {
  for (const auto& file : files_) file->close();
  // A second name for each file that will be replaced, to go back to.
  std::vector<std::string> backups(files_.size());
  for (std::size_t i = 0; files_.size() > 1 && i < files_.size(); ++i) {
    backups[i] = name_beside(files_[i]->path(), "old");
    if (::link(files_[i]->path().c_str(), backups[i].c_str()) != 0) backups[i].clear();
  }
  const auto drop_backups = [&] {
    for (const std::string& backup : backups) {
      if (!backup.empty()) ::unlink(backup.c_str());
    }
  };
  std::size_t done = 0;
  try {
    for (; done < files_.size(); ++done) files_[done]->commit();
  } catch (...) {
    for (std::size_t i = 0; i < done; ++i) {
      const std::string& path = files_[i]->path();
      if (backups[i].empty()) {
        ::unlink(path.c_str());
      } else {
        (void)std::rename(backups[i].c_str(), path.c_str());
      }
    }
    drop_backups();
    throw;
  }
  drop_backups();
}

std::vector<std::string> AtomicFileSet::paths() const {
  std::vector<std::string> out;
  out.reserve(files_.size());
  for (const auto& file : files_) out.push_back(file->path());
  return out;
}

}  // namespace onnx2nn
