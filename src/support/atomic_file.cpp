#include "support/atomic_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "support/checked.h"
#include "support/error.h"
#include "support/files.h"
#include "support/interrupt.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

constexpr std::string_view kPrefix = ".onnx2nn-";
constexpr std::string_view kSuffix = ".tmp";
constexpr std::size_t kDigits = 16;

[[noreturn]] void fail_write(const std::string& path, int error_number) {
  fail_io("cannot write " + printable(path), error_number);
}

/// A hidden name beside `path` that nobody else has. Process numbers do not tell: they are the same
/// in each run of a container.
std::string hidden_beside(const std::string& path) {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  // A fixed length, so that a name at the limit of the file system still has room.
  return path.substr(0, name_start(path)) + fmt::format("{}{:016x}{}", kPrefix, random(), kSuffix);
}

bool is_hidden_name(std::string_view name) {
  if (!name.starts_with(kPrefix)) return false;
  name.remove_prefix(kPrefix.size());
  if (name.size() < kDigits) return false;
  const bool hexadecimal = std::all_of(name.begin(), name.begin() + kDigits, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  name.remove_prefix(kDigits);
  return hexadecimal && (name.empty() || name == kSuffix);
}

/// Keeps other runs from giving files names in a folder. Where a file system has no locks, or
/// somebody else keeps this one, they are not kept.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) {
    constexpr int kTries = 1000;  // ten seconds
    for (int i = 0; i < kTries; ++i) {
      const int file = files::lock_folder(folder);
      if (file >= 0) lock_.emplace(file);
      if (file >= 0 || errno != EWOULDBLOCK) return;
      check_interrupt();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

 private:
  std::optional<Descriptor> lock_;
};

/// Removes what killed runs left in a folder: files and folders of our hidden names that nobody has
/// locked.
void remove_leftovers(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(to_path(folder), ignored), end; !ignored && it != end;
       it.increment(ignored))
    if (is_hidden_name(path_text(it->path().filename()))) found.push_back(it->path());
  if (found.empty()) return;
  const FolderLock lock(folder);
  for (const fs::path& path : found) {
    const Descriptor file(files::open_found(path_text(path)));
    if (file.get() < 0 || !files::try_lock(file.get())) continue;
    const auto opened = files::info_of(file.get());
    const auto named = files::info_of_link(path_text(path));
    if (!opened || !named || !opened->is_same_file(*named) || !opened->is_mine ||
        (opened->kind != files::Kind::Regular && opened->kind != files::Kind::Folder))
      continue;
    fs::remove_all(path, ignored);
  }
}

bool exists(const std::string& path) { return files::info_of_link(path).has_value(); }

void write_fully(int fd, std::uint64_t offset, std::span<const std::byte> bytes,
                 const std::string& path) {
  while (!bytes.empty()) {
    const std::int64_t n = files::write_at(fd, bytes, offset);
    if (n < 0) fail_write(path, errno);
    check_interrupt();
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

/// Copies inside the kernel and moves `from`, `to` and `length` past what was copied; false where
/// something is left. Other file systems, old kernels and odd files refuse: the caller then copies
/// the rest itself, and meets an error that is real (a full disk) again.
bool copy_in_kernel(int from_fd, std::uint64_t& from, int to_fd, std::uint64_t& to,
                    std::uint64_t& length) {
  while (length > 0) {
    const auto chunk = std::min<std::uint64_t>(length, 1U << 24);
    check_interrupt();
    const std::int64_t n = files::copy_between(from_fd, from, to_fd, to, chunk);
    if (n <= 0) return false;
    from += static_cast<std::uint64_t>(n);
    to += static_cast<std::uint64_t>(n);
    length -= static_cast<std::uint64_t>(n);
  }
  return length == 0;
}

}  // namespace

std::string followed(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path at = to_path(path);
  constexpr int kMostLinks = 40;
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code ec;
    const fs::path next = fs::read_symlink(at, ec);
    if (ec) return path_text(at);
    at = next.is_absolute() ? next : at.parent_path() / next;
  }
  fail_write(path, ELOOP);
}

std::string tagged(const std::string& path, std::string_view tag) {
  const std::size_t stem = name_start(path);
  const std::size_t dot = path.rfind('.');
  const std::size_t at = dot == std::string::npos || dot <= stem ? path.size() : dot;
  return path.substr(0, at) + std::string(tag) + path.substr(at);
}

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), target_(followed(path_)), temporary_(std::move(temporary)), fd_(fd) {}

AtomicFile::AtomicFile(std::string path) : AtomicFile(std::move(path), "", -1) {
  if (const auto why = why_no_file_name(target_); !why.empty())
    fail("io", "cannot write {}: {}", printable(path_), why);
  if (const auto info = files::info_at(target_); info && info->kind != files::Kind::Regular)
    fail("io", "cannot write {}: it exists and is {}", printable(path_), files::kind_name(info->kind));
  fd_ = files::open_nameless(folder_of(target_));
  if (fd_ < 0) open_named();
}

void AtomicFile::open_named() {
  for (;;) {
    const std::string name = hidden_beside(target_);
    fd_ = files::open_new(name);
    if (fd_ < 0 && errno == EEXIST) continue;
    if (fd_ < 0) fail_write(path_, errno);
    // Locked while it is written: what is not is removed by others, as this one may have been just
    // before.
    files::lock(fd_);
    if (const auto info = files::info_of(fd_); !info || info->is_named) {
      temporary_ = name;
      return;
    }
    files::close_file(std::exchange(fd_, -1));
  }
}

std::unique_ptr<AtomicFile> AtomicFile::adopt(const std::string& from, std::string path) {
  const auto source = InputFile::open(from);
  const int fd = files::open_to_change(from);
  if (fd < 0) fail_write(from, errno);
  std::unique_ptr<AtomicFile> out(new AtomicFile(std::move(path), from, fd));
  out->flushed_ = source->size();
  const auto file = files::info_of(fd);
  const auto folder = file ? files::info_at(folder_of(out->target_)) : std::nullopt;
  if (!folder) fail_write(out->path_, errno);
  if (file->device == folder->device) return out;
  auto copy = std::make_unique<AtomicFile>(out->path_);
  copy->append_range(*source, 0, source->size());
  return copy;
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) files::close_file(fd_);
  if (!temporary_.empty()) files::remove(temporary_);
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
  append(std::as_bytes(std::span<const char>(text)));
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
  if (!files::set_size(fd_, narrow<std::int64_t>(flushed_, "file size"))) fail_write(path_, errno);
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
    check_interrupt();
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
    const std::int64_t n = files::read_at(fd_, out, offset);
    if (n <= 0) fail_io("cannot read " + printable(path_), n < 0 ? errno : EIO);
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

void AtomicFile::finish(bool sync) {
  sync_ = sync;
  flush();
  files::take_mode(fd_, target_);
  if (sync && !files::sync(fd_)) fail_write(path_, errno);
}

void AtomicFile::name_temporary() {
  if (temporary_.empty() && !link_temporary()) copy_to_named();
  // Some file systems report a full disk only here.
  if (!files::close_written(std::exchange(fd_, -1))) fail_write(path_, errno);
}

bool AtomicFile::link_temporary() {
  (void)files::try_lock(fd_);
  for (;;) {
    const std::string name = hidden_beside(target_);
    if (files::give_name(fd_, name)) {
      temporary_ = name;
      return true;
    }
    if (files::is_disk_error(errno)) fail_write(path_, errno);
    if (errno != EEXIST) return false;
  }
}

void AtomicFile::copy_to_named() {
  const Descriptor nameless(std::exchange(fd_, -1));
  open_named();
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint64_t left = flushed_;
  if (!copy_in_kernel(nameless.get(), from, fd_, to, left)) {
    std::vector<std::byte> buffer(kBufferSize);
    while (left > 0) {
      const auto most = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size()));
      const std::int64_t n = files::read_at(nameless.get(), std::span(buffer).first(most), from);
      if (n <= 0) fail_write(path_, n < 0 ? errno : EIO);
      write_fully(fd_, from, std::span(buffer).first(static_cast<std::size_t>(n)), path_);
      from += static_cast<std::uint64_t>(n);
      left -= static_cast<std::uint64_t>(n);
    }
  }
  finish(sync_);
}

void AtomicFile::rename_to_target() {
  if (!files::rename_over(temporary_, target_)) fail_write(path_, errno);
  temporary_.clear();
}

// ---- AtomicFileSet ---------------------------------------------------------------------------------

/// What was done, to be undone in the opposite order unless all is kept.
class AtomicFileSet::Steps {
 public:
  Steps() = default;
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;
  ~Steps() {
    for (auto undo = undo_.rbegin(); undo != undo_.rend(); ++undo) (*undo)();
    for (const std::string& backup : backups_) files::remove(backup);
  }

  /// The file becomes its target, and the old one can be brought back. That takes hard links; where
  /// there are none, the new one stays.
  void replace(AtomicFile& file) {
    const std::string target = file.target_;
    const std::string backup = hidden_beside(target);
    const bool is_new = !exists(target);
    const bool has_backup = !is_new && files::link(target, backup);
    if (has_backup) backups_.push_back(backup);
    if (!is_new && !has_backup && files::is_disk_error(errno))
      fail_write(file.path_, errno);
    file.rename_to_target();
    if (is_new) undo_.emplace_back([target] { files::remove(target); });
    if (has_backup)
      undo_.emplace_back([target, backup] { files::rename_over(backup, target); });
  }
  /// A second name for a file; false where the file system has no such thing.
  bool link(const std::string& from, const std::string& to, const std::string& path) {
    if (!files::link(from, to)) {
      if (files::has_no_links(errno)) return false;
      fail_write(path, errno);
    }
    undo_.emplace_back([to] { files::remove(to); });
    return true;
  }
  void keep() { undo_.clear(); }

 private:
  std::vector<std::function<void()>> undo_;
  std::vector<std::string> backups_;
};

void AtomicFileSet::admit(const std::string& path) const {
  if (guard_) guard_(path);
  if (files_.empty() && heads_.empty()) remove_leftovers(folder_of(followed(path)));
}

AtomicFile& AtomicFileSet::add(std::string path) {
  admit(path);
  return *files_.emplace_back(std::make_unique<AtomicFile>(std::move(path)));
}

AtomicFile& AtomicFileSet::adopt(const std::string& from, std::string path) {
  admit(path);
  return *files_.emplace_back(AtomicFile::adopt(from, std::move(path)));
}

void AtomicFileSet::add_head(std::string path, Head text) {
  admit(path);
  heads_.push_back({std::make_unique<AtomicFile>(std::move(path)), std::move(text)});
}

std::vector<const AtomicFile*> AtomicFileSet::named() const {
  std::vector<const AtomicFile*> out;
  out.reserve(files_.size() + heads_.size());
  for (const auto& file : files_) out.push_back(file.get());
  for (std::size_t i = 0; i + 1 < heads_.size(); ++i) out.push_back(heads_[i].file.get());
  return out;
}

bool AtomicFileSet::replaces_any() const {
  const auto all = named();
  return std::any_of(all.begin(), all.end(),
                     [](const AtomicFile* file) { return exists(file->target_); });
}

bool AtomicFileSet::replaces_head() const {
  return std::any_of(heads_.begin(), heads_.end(),
                     [](const HeadFile& head) { return exists(head.file->target_); });
}

namespace {
// More than one, as a killed run may have left its files under the first.
constexpr std::array<std::string_view, 4> kTags = {".new", ".new2", ".new3", ".new4"};
}  // namespace

std::optional<std::string> AtomicFileSet::free_tag() const {
  const auto all = named();
  for (const std::string_view tag : kTags)
    if (std::none_of(all.begin(), all.end(),
                     [&](const AtomicFile* file) { return exists(tagged(file->path_, tag)); }))
      return std::string(tag);
  return std::nullopt;
}

/// The new files under other names, heads that name those, the new files under their own names as
/// well, the heads that are wanted. Files have two names for as short as can be: onnx takes that for
/// an attack.
void AtomicFileSet::replace_by_detour(Steps& steps, const std::string& tag, bool sync) {
  const auto written = [&](std::string path, const HeadFile& head) {
    auto file = std::make_unique<AtomicFile>(std::move(path));
    file->append(std::string_view(head.text(tag)));
    file->finish(sync);
    file->name_temporary();
    return file;
  };
  std::vector<std::unique_ptr<AtomicFile>> aside;    // heads that heads name
  std::vector<std::unique_ptr<AtomicFile>> between;  // all heads
  for (const HeadFile& head : heads_) {
    if (&head != &heads_.back()) aside.push_back(written(tagged(head.file->path_, tag), head));
    between.push_back(written(head.file->path_, head));
  }
  bool linked = true;
  for (const auto& file : files_) {
    const std::string other = tagged(file->path_, tag);
    linked = linked && steps.link(file->temporary_, other, file->path_);
    if (linked) files::remove(std::exchange(file->temporary_, other));
  }
  if (linked) {
    for (const auto& file : aside) steps.replace(*file);
    for (auto file = between.rbegin(); file != between.rend(); ++file) steps.replace(**file);
  }
  for (const auto& file : files_) {
    if (linked) {
      const std::string name = hidden_beside(file->target_);
      linked = steps.link(file->temporary_, name, file->path_);
      file->temporary_ = name;
    }
    steps.replace(*file);
  }
}

/// What is of no use any more; also the new files of a killed run, and our own under other names.
void AtomicFileSet::remove_stale(const std::string& used_tag) {
  std::vector<std::string> paths = stale_;
  for (const std::string_view tag : kTags) {
    for (const std::string& path : stale_) paths.push_back(tagged(path, tag));
    for (const AtomicFile* file : named()) {
      const std::string path = tagged(file->path_, tag);
      if (tag == used_tag) {
        files::remove(path);
      } else if (!heads_.empty()) {
        paths.push_back(path);
      }
    }
  }
  // A path may have been given in two ways.
  const auto is_written = [&](const std::string& path) {
    std::error_code ignored;
    const auto is_same = [&](const AtomicFile& file) {
      return std::filesystem::equivalent(to_path(path), to_path(file.target_), ignored);
    };
    return std::any_of(heads_.begin(), heads_.end(),
                       [&](const HeadFile& h) { return is_same(*h.file); }) ||
           std::any_of(files_.begin(), files_.end(), [&](const auto& f) { return is_same(*f); });
  };
  for (const std::string& path : paths)
    if (is_ours_ && exists(path) && !is_written(path) && is_ours_(path)) files::remove(path);
}

void AtomicFileSet::commit(bool sync) {
  for (const auto& file : files_) file->finish(sync);
  const std::string folder =
      folder_of((heads_.empty() ? *files_.front() : *heads_.back().file).target_);
  const FolderLock lock(folder);
  if (guard_)
    for (const std::string& path : paths()) guard_(path);
  check_interrupt();
  std::string used_tag;
  {
    Steps steps;
    for (const auto& file : files_) file->name_temporary();
    for (const HeadFile& head : heads_) {
      head.file->append(std::string_view(head.text("")));
      head.file->finish(sync);
      head.file->name_temporary();
    }
    const std::optional<std::string> tag = free_tag();
    if (replaces_head() && replaces_any() && tag) {
      used_tag = *tag;
      replace_by_detour(steps, *tag, sync);
    } else {
      for (const auto& file : files_) steps.replace(*file);
    }
    for (const HeadFile& head : heads_) steps.replace(*head.file);
    steps.keep();
  }
  remove_stale(used_tag);
  if (sync) files::sync_folder(folder);
}

std::vector<std::string> AtomicFileSet::paths() const {
  std::vector<std::string> out;
  out.reserve(files_.size() + heads_.size());
  for (auto head = heads_.rbegin(); head != heads_.rend(); ++head)
    out.push_back(head->file->path());
  for (const auto& file : files_) out.push_back(file->path());
  return out;
}

}  // namespace onnx2nn
