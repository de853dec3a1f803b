#include "support/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "support/checked.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn {

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->fd_ < 0) fail_io("cannot open " + printable(path), errno);
  struct stat info {};
  if (::fstat(file->fd_, &info) != 0) fail_io("cannot read " + printable(path), errno);
  if (!S_ISREG(info.st_mode)) fail("io", "{} is not a regular file", printable(path));
  const auto size = narrow<std::size_t>(info.st_size, "file size");
  if (size == 0) return file;
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file->fd_, 0);
  if (address == MAP_FAILED) fail_io("cannot map " + printable(path), errno);
  // A look at what stands between two weights must not bring in megabytes of them.
  ::madvise(address, size, MADV_NOHUGEPAGE);
  file->bytes_ = {static_cast<const std::byte*>(address), size};
  return file;
}

std::shared_ptr<const MappedFile> MappedFile::from_memory(std::string bytes, std::string name) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = std::move(name);
  file->memory_ = std::move(bytes);
  file->bytes_ = std::as_bytes(std::span(file->memory_));
  return file;
}

MappedFile::~MappedFile() {
  if (fd_ < 0) return;
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  ::close(fd_);
}

void MappedFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size() || out.size() > size() - offset)
    fail("io", "{}: {} bytes at {} reach past its end at {}", printable(path_), out.size(), offset,
         size());
  if (!is_mapped()) {
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return;
  }
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot read " + printable(path_), errno);
    if (n == 0) fail("io", "{} became shorter while it was read", printable(path_));
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

void MappedFile::read_rows(std::uint64_t offset, std::span<std::byte> out, std::size_t row_size,
                           std::size_t stride) const {
  if (row_size == 0) return;
  const std::size_t rows = (out.size() - row_size) / stride + 1;
  constexpr std::size_t kGroup = 256;  // fewer than any system's limit for one call
  for (std::size_t first = 0; first < rows; first += kGroup) {
    const std::size_t count = std::min(kGroup, rows - first);
    std::array<iovec, kGroup> parts{};
    for (std::size_t i = 0; i < count; ++i)
      parts[i] = {out.data() + (first + i) * stride, row_size};
    const std::uint64_t at = offset + first * row_size;
    const std::size_t wanted = count * row_size;
    if (is_mapped() && at <= size() && wanted <= size() - at) {
      const ssize_t n =
          ::preadv(fd_, parts.data(), static_cast<int>(count), static_cast<off_t>(at));
      if (n >= 0 && static_cast<std::size_t>(n) == wanted) continue;
    }
    // In memory, out of range or cut short: row by row, with its errors.
    for (std::size_t i = 0; i < count; ++i)
      read(at + i * row_size, out.subspan((first + i) * stride, row_size));
  }
}

void MappedFile::prefetch(std::uint64_t offset, std::uint64_t length) const {
#ifdef __linux__
  if (is_mapped())
    (void)::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(length),
                          POSIX_FADV_WILLNEED);
#else
  (void)offset, (void)length;
#endif
}

void MappedFile::drop_pages(std::uint64_t offset, std::uint64_t length) const {
  if (!is_mapped() || offset > size() || length > size() - offset) return;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = (offset + page - 1) / page * page;  // whole pages only
  const std::uint64_t end = (offset + length) / page * page;
  if (begin < end)
    ::madvise(const_cast<std::byte*>(bytes_.data() + begin), end - begin, MADV_DONTNEED);
}

ByteSource ByteSource::of_file(std::shared_ptr<const MappedFile> file, std::uint64_t offset,
                               std::uint64_t length) {
  if (offset > file->size() || length > file->size() - offset)
    fail("bad-model", "{}: {} bytes at {} reach past its end at {}", printable(file->path()),
         length, offset, file->size());
  ByteSource source;
  source.bytes = file->bytes().subspan(offset, length);
  source.keep = file;
  source.file_offset = offset;
  source.file = std::move(file);
  return source;
}

ByteSource ByteSource::of_string(std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  ByteSource source;
  source.bytes = std::as_bytes(std::span(*owner));
  source.keep = std::move(owner);
  return source;
}

ByteSource ByteSource::of_vector(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  ByteSource source;
  source.bytes = *owner;
  source.keep = std::move(owner);
  return source;
}

}  // namespace onnx2nn
