// Files that appear whole or not at all: written without a name or under a hidden one, then renamed.
//
// A process that is killed leaves nothing where the system has files without a name (O_TMPFILE), and
// elsewhere a hidden file that the next run in that folder removes: it is locked while its writer
// lives. What is already there stays whole until the new is whole, and keeps its mode; a link is
// followed, and what it leads to is replaced. Nothing is synced to the disk unless asked for: a
// system that loses power may lose what was written last, as with `cp`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/input_file.h"

namespace onnx2nn {

/// Where a write to `path` ends up: links are followed, also one that leads to nothing yet.
std::string followed(const std::string& path);

/// `path` with `tag` before its suffix: "net.safetensors", ".new" gives "net.new.safetensors".
std::string tagged(const std::string& path, std::string_view tag);

class AtomicFile {
 public:
  /// Small appends are collected in a buffer of this size.
  static constexpr std::size_t kBufferSize = std::size_t{1} << 18;

  /// Opens a file that has no name yet; an Error("io") where it cannot, or where `path` is there
  /// and is no regular file.
  explicit AtomicFile(std::string path);
  /// Takes the finished file `from`, which is on its way to `path`; copies it where the two are
  /// not on one file system.
  static std::unique_ptr<AtomicFile> adopt(const std::string& from, std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  /// Removes what was written unless its set was committed.
  ~AtomicFile();

  const std::string& path() const { return path_; }
  /// Where the next append goes.
  std::uint64_t position() const { return flushed_ + buffer_.size(); }

  void append(std::span<const std::byte> bytes);
  void append(std::string_view text);
  void append_zeros(std::uint64_t count);
  /// `length` bytes of `file`, inside the kernel where it can.
  void append_range(const InputFile& file, std::uint64_t offset, std::uint64_t length);
  /// The bytes of `source`, by append_range where they lie in a file.
  void append(const ByteSource& source);

  /// Makes room for `count` bytes at the end, to be filled by write_at; returns where it starts.
  std::uint64_t extend(std::uint64_t count);
  /// The three below work inside what was flushed or extended. They may be called from several
  /// threads at once, but not together with the other functions.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  void copy_at(std::uint64_t offset, const InputFile& file, std::uint64_t file_offset,
               std::uint64_t length);
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;
  /// To be called before one of the three touches what was appended.
  void flush();

 private:
  friend class AtomicFileSet;
  AtomicFile(std::string path, std::string temporary, int fd);

  void open_named();
  void write_through(std::span<const std::byte> bytes);
  /// Writes what is left, sets the mode and, where asked for, waits for the disk.
  void finish(bool sync);
  /// Gives the finished file a hidden name beside its target, and closes it.
  void name_temporary();
  /// False where the system gives files that were opened without a name none.
  bool link_temporary();
  void copy_to_named();
  /// The hidden file becomes the target.
  void rename_to_target();

  std::string path_;
  std::string target_;     // path_ behind links
  std::string temporary_;  // empty while the file has no name, and once committed
  int fd_ = -1;
  bool sync_ = false;
  std::uint64_t flushed_ = 0;
  std::vector<std::byte> buffer_;
};

/// Files that get their names together.
///
/// Where one of them, a head, names the others, what is found at its path is at every moment the
/// old head with the old files or the new head with the new ones: files that are there are not
/// replaced under a head that names them, but the new ones stand under another name, and a head
/// that says so, while they are. (This takes hard links; where there are none, the head comes last.)
/// A head may name another: a source its index of shards. Two processes that write the same files
/// do this one after the other. Where a step fails, the ones before it are undone.
class AtomicFileSet {
 public:
  /// Throws where a path may not be written. Asked when a file is added, and again just before the
  /// files get their names.
  using Guard = std::function<void(const std::string& path)>;
  /// Whether a file that is of no use any more may be removed.
  using IsOurs = std::function<bool(const std::string& path)>;
  /// The text of a head that names the others as tagged(path, tag); the tag may be empty.
  using Head = std::function<std::string(std::string_view tag)>;

  explicit AtomicFileSet(Guard guard = {}, IsOurs is_ours = {})
      : guard_(std::move(guard)), is_ours_(std::move(is_ours)) {}

  AtomicFile& add(std::string path);
  /// A finished file; see AtomicFile::adopt.
  AtomicFile& adopt(const std::string& from, std::string path);
  /// It names the files, or the head that was added before it.
  void add_head(std::string path, Head text);
  /// A file that is of no use once the others are there; where it is ours, and none of them, it is
  /// then removed, and what a killed run left under its name with a tag.
  void add_stale(std::string path) { stale_.push_back(std::move(path)); }

  /// sync: not before the files are safe on the disk are the old ones gone.
  void commit(bool sync = false);
  /// The heads, the last one first, then the others in the order added.
  std::vector<std::string> paths() const;

 private:
  class Steps;
  struct HeadFile {
    std::unique_ptr<AtomicFile> file;
    Head text;
  };

  void admit(const std::string& path) const;
  bool replaces_any() const;
  std::optional<std::string> free_tag() const;
  bool replaces_head() const;
  /// The files that a head names: all but the last head.
  std::vector<const AtomicFile*> named() const;
  void replace_by_detour(Steps& steps, const std::string& tag, bool sync);
  void remove_stale(const std::string& used_tag);

  Guard guard_;
  IsOurs is_ours_;
  std::vector<HeadFile> heads_;  // each is named by the next
  std::vector<std::unique_ptr<AtomicFile>> files_;
  std::vector<std::string> stale_;
};

}  // namespace onnx2nn
