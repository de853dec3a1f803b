#include "support/input_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <utility>

#include "support/checked.h"
#include "support/error.h"
#include "support/files.h"
#include "support/interrupt.h"
#include "support/system.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

// A file up to this size is read whole: one call costs less than several.
constexpr std::uint64_t kReadWhole = std::uint64_t{1} << 20;

/// The descriptors of the files that were used last. A model may have more files than a process may
/// have open.
class OpenFiles {
 public:
  static OpenFiles& get() {
    static auto* const all = new OpenFiles;  // outlives every file
    return *all;
  }

  std::shared_ptr<const Descriptor> find(const InputFile* file) {
    const std::scoped_lock lock(mutex_);
    const auto it = std::find_if(list_.begin(), list_.end(),
                                 [&](const Entry& e) { return e.first == file; });
    if (it == list_.end()) return nullptr;
    list_.splice(list_.begin(), list_, it);
    return list_.front().second;
  }
  void add(const InputFile* file, std::shared_ptr<const Descriptor> descriptor) {
    constexpr std::size_t kMost = 64;
    const std::scoped_lock lock(mutex_);
    list_.emplace_front(file, std::move(descriptor));
    if (list_.size() > kMost) list_.pop_back();
  }
  void remove(const InputFile* file) {
    const std::scoped_lock lock(mutex_);
    list_.remove_if([&](const Entry& e) { return e.first == file; });
  }
  /// Says whether there was any.
  bool close_all() {
    const std::scoped_lock lock(mutex_);
    return !std::exchange(list_, {}).empty();
  }

 private:
  using Entry = std::pair<const InputFile*, std::shared_ptr<const Descriptor>>;
  std::mutex mutex_;
  std::list<Entry> list_;  // the one used last is the first
};

/// What `open` opens, once more with fewer files open where there were too many; an Error("io") about `path`.
template <typename Open>
int opened(const Open& open, const std::string& path) {
  int fd = open();
  if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
    const int error_number = errno;
    if (!OpenFiles::get().close_all()) fail_io("cannot open " + printable(path), error_number);
    fd = open();
  }
  if (fd < 0) fail_io("cannot open " + printable(path), errno);
  return fd;
}

int opened(const std::string& path) {
  return opened([&] { return files::open_to_read(path); }, path);
}

[[noreturn]] void fail_changed(const std::string& path) {
  fail("io", "{} was changed while it was read", printable(path));
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) files::close_file(fd_);
}

InputFile::Identity InputFile::identity_of(int fd, const std::string& path) {
  const auto info = files::info_of(fd);
  if (!info) fail_io("cannot read " + printable(path), errno);
  if (info->kind != files::Kind::Regular) fail("io", "{} is not a regular file", printable(path));
  return {info->device, info->inode, info->size, info->seconds, info->nanoseconds};
}

std::shared_ptr<const InputFile> InputFile::of_descriptor(std::string path, int fd) {
  auto descriptor = std::make_shared<const Descriptor>(fd);
  std::shared_ptr<InputFile> file(new InputFile);
  file->path_ = std::move(path);
  file->identity_ = identity_of(fd, file->path_);
  const auto size = narrow<std::size_t>(file->identity_.size, "file size");
  if (size > 0) {
    // Address space only: memory is taken by what is read.
    const std::byte* place = reserve_room(size);
    if (place == nullptr) fail_io("no room for " + printable(file->path_), ENOMEM);
    file->place_ = {place, size};
    file->loaded_ =
        std::make_unique<std::atomic<bool>[]>(static_cast<std::size_t>((size - 1) / kChunk + 1));
  }
  file->on_disk_ = true;
  OpenFiles::get().add(file.get(), std::move(descriptor));
  return file;
}

std::shared_ptr<const InputFile> InputFile::open(const std::string& path) {
  return of_descriptor(path, opened(path));
}

std::shared_ptr<const InputFile> InputFile::open_below(const std::string& root,
                                                       const std::string& name) {
  const std::string path = root == "/" ? root + name : root + "/" + name;
  return of_descriptor(path, opened([&] { return files::open_below(root, name); }, path));
}

std::shared_ptr<const InputFile> InputFile::from_memory(std::string bytes, std::string name) {
  std::shared_ptr<InputFile> file(new InputFile);
  file->path_ = std::move(name);
  file->memory_ = std::move(bytes);
  file->place_ = std::as_bytes(std::span(file->memory_));
  return file;
}

InputFile::~InputFile() {
  if (!on_disk_) return;
  OpenFiles::get().remove(this);
  if (!place_.empty()) release_room(const_cast<std::byte*>(place_.data()), place_.size());
}

std::shared_ptr<const Descriptor> InputFile::descriptor() const {
  ONNX2NN_CHECK(on_disk_, "bytes in memory have no descriptor");
  if (auto open = OpenFiles::get().find(this)) return open;
  auto again = std::make_shared<const Descriptor>(opened(path_));
  if (identity_of(again->get(), path_) != identity_) fail_changed(path_);
  OpenFiles::get().add(this, again);
  return again;
}

void InputFile::check_unchanged() const {
  if (on_disk_ && identity_of(descriptor()->get(), path_) != identity_) fail_changed(path_);
}

std::shared_ptr<const InputFile> InputFile::missing(std::string path, std::string why) {
  std::shared_ptr<InputFile> file(new InputFile);
  file->path_ = std::move(path);
  file->missing_ = std::move(why);
  return file;
}

void InputFile::load(std::uint64_t offset, std::uint64_t length) const {
  if (is_missing()) throw Error("external-data", missing_);
  const std::scoped_lock lock(loading_);
  std::uint64_t first = offset / kChunk;
  std::uint64_t end = (offset + length - 1) / kChunk + 1;
  if (size() <= kReadWhole) {
    first = 0;
    end = (size() - 1) / kChunk + 1;
  }
  auto* const place = const_cast<std::byte*>(place_.data());  // our own, and writable
  while (first < end) {
    if (loaded_[first].load(std::memory_order_relaxed)) {
      ++first;
      continue;
    }
    std::uint64_t last = first + 1;
    while (last < end && !loaded_[last].load(std::memory_order_relaxed)) ++last;
    const std::uint64_t from = first * kChunk;
    const std::uint64_t to = std::min(last * kChunk, size());
    read(from, {place + from, static_cast<std::size_t>(to - from)});
    for (; first < last; ++first) loaded_[first].store(true, std::memory_order_release);
  }
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (is_missing()) throw Error("external-data", missing_);
  if (offset > size() || out.size() > size() - offset)
    fail("io", "{}: {} bytes at {} reach past its end at {}", printable(path_), out.size(), offset,
         size());
  if (out.empty()) return;
  if (!on_disk_) {
    std::memcpy(out.data(), place_.data() + offset, out.size());
    return;
  }
  constexpr std::size_t kReadAtOnce = std::size_t{1} << 24;
  const auto file = descriptor();
  while (!out.empty()) {
    check_interrupt();
    const std::size_t most = std::min(out.size(), kReadAtOnce);
    const std::int64_t n = files::read_at(file->get(), out.first(most), offset);
    if (n < 0) fail_io("cannot read " + printable(path_), errno);
    if (n == 0) fail("io", "{} became shorter while it was read", printable(path_));
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

void InputFile::read_rows(std::uint64_t offset, std::span<std::byte> out, std::size_t row_size,
                          std::size_t stride) const {
  if (row_size == 0) return;
  const std::size_t rows = (out.size() - row_size) / stride + 1;
  const auto file = on_disk_ ? descriptor() : nullptr;
  for (std::size_t first = 0; first < rows; first += files::kMostRows) {
    const std::size_t count = std::min(files::kMostRows, rows - first);
    const std::uint64_t at = offset + first * row_size;
    const std::size_t wanted = count * row_size;
    if (file && at <= size() && wanted <= size() - at) {
      const std::int64_t n =
          files::read_rows(file->get(), out.data() + first * stride, row_size, stride, count, at);
      if (n >= 0 && static_cast<std::size_t>(n) == wanted) continue;
    }
    // In memory, out of range or cut short: row by row, with its errors.
    for (std::size_t i = 0; i < count; ++i)
      read(at + i * row_size, out.subspan((first + i) * stride, row_size));
  }
}

void InputFile::prefetch(std::uint64_t offset, std::uint64_t length) const {
  if (on_disk_) files::will_read(descriptor()->get(), offset, length);
}

ByteSource ByteSource::of_file(std::shared_ptr<const InputFile> file, std::uint64_t offset,
                               std::uint64_t length) {
  if (offset > file->size() || length > file->size() - offset)
    fail("bad-model", "{}: {} bytes at {} reach past its end at {}", printable(file->path()),
         length, offset, file->size());
  ByteSource source;
  source.place_ = file->place().subspan(static_cast<std::size_t>(offset),
                                        static_cast<std::size_t>(length));
  source.file_offset_ = offset;
  source.file_ = std::move(file);
  return source;
}

ByteSource ByteSource::missing(std::shared_ptr<const InputFile> file, std::uint64_t offset,
                               std::uint64_t length) {
  ByteSource source;
  // No memory is behind it, and none is looked at: `file` refuses.
  source.place_ = {static_cast<const std::byte*>(nullptr), static_cast<std::size_t>(length)};
  source.file_offset_ = offset;
  source.file_ = std::move(file);
  return source;
}

ByteSource ByteSource::of_string(std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  ByteSource source;
  source.place_ = std::as_bytes(std::span(*owner));
  source.keep_ = std::move(owner);
  return source;
}

ByteSource ByteSource::of_vector(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  ByteSource source;
  source.place_ = *owner;
  source.keep_ = std::move(owner);
  return source;
}

void ByteSource::read(std::size_t offset, std::span<std::byte> out) const {
  if (file_) return file_->read(file_offset_ + offset, out);
  if (!out.empty()) std::memcpy(out.data(), place_.subspan(offset).data(), out.size());
}

}  // namespace onnx2nn
