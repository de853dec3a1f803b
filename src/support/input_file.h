// A file that is read where it is looked at, and bytes that know who keeps them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace onnx2nn {

/// An open file; closed with the last who holds it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

/// Always held by shared_ptr: whatever points into it keeps it.
///
/// Not mapped: a file that somebody cuts short would end the process at the next look at its end.
/// Its bytes have their place in memory from the start, and are read into it once they are asked
/// for. Descriptors of files that were not used of late are closed, and the file is opened again
/// when it is needed; one that is another by then, or was changed, is an Error("io").
class InputFile {
 public:
  /// A regular file; anything else, and what cannot be opened, is an Error("io").
  static std::shared_ptr<const InputFile> open(const std::string& path);
  /// The file `name` below the folder `root`, an absolute path without links. A link on the way is
  /// an Error("io"): that somebody put it there after the way was looked at changes nothing.
  static std::shared_ptr<const InputFile> open_below(const std::string& root,
                                                     const std::string& name);
  /// The same as bytes in memory; `name` stands for the path in messages.
  static std::shared_ptr<const InputFile> from_memory(std::string bytes,
                                                      std::string name = "<bytes>");

  /// Stands for a file that is not there; whoever reads it gets an Error("external-data") of `why`.
  static std::shared_ptr<const InputFile> missing(std::string path, std::string why);

  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return place_.size(); }
  bool on_disk() const { return on_disk_; }
  bool is_missing() const { return !missing_.empty(); }

  /// A range of the file, which must hold it; read now where it was not yet.
  std::span<const std::byte> bytes(std::uint64_t offset, std::uint64_t length) const {
    if (!is_loaded(offset, length)) load(offset, length);
    return place_.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
  }
  std::span<const std::byte> bytes() const { return bytes(0, size()); }
  /// Where the bytes are once they were asked for; until then they are zeros.
  std::span<const std::byte> place() const { return place_; }

  /// Fills `out` from `offset`; keeps nothing. Past the end is an Error("io").
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  /// Fills rows of `row_size` bytes, one each `stride` bytes of `out`, from consecutive bytes of
  /// the file; `out` holds the last row too.
  void read_rows(std::uint64_t offset, std::span<std::byte> out, std::size_t row_size,
                 std::size_t stride) const;
  /// Tells the system that a range will be read soon.
  void prefetch(std::uint64_t offset, std::uint64_t length) const;
  /// To read the file by; it stays open while it is held. Of files on disk only.
  std::shared_ptr<const Descriptor> descriptor() const;
  /// Throws Error("io") where the file was written to, or cut short, since it was opened.
  void check_unchanged() const;

 private:
  // What is read at once, at least.
  static constexpr std::uint64_t kChunk = std::uint64_t{1} << 14;

  InputFile() = default;
  static std::shared_ptr<const InputFile> of_descriptor(std::string path, int fd);
  void load(std::uint64_t offset, std::uint64_t length) const;
  bool is_loaded(std::uint64_t offset, std::uint64_t length) const {
    if (length == 0) return true;
    if (is_missing()) return false;
    if (!on_disk_) return true;
    for (std::uint64_t i = offset / kChunk; i <= (offset + length - 1) / kChunk; ++i)
      if (!loaded_[i].load(std::memory_order_acquire)) return false;
    return true;
  }

  /// What tells this file, as it was when it was opened, from others.
  struct Identity {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t size = 0;
    std::int64_t seconds = 0;  // of the last change
    std::int64_t nanoseconds = 0;
    bool operator==(const Identity&) const = default;
  };
  static Identity identity_of(int fd, const std::string& path);

  std::string path_;
  std::string memory_;
  std::string missing_;  // why it is not there
  std::span<const std::byte> place_;
  bool on_disk_ = false;
  Identity identity_;
  mutable std::mutex loading_;
  std::unique_ptr<std::atomic<bool>[]> loaded_;  // by chunk
};

/// A run of bytes, in memory or in a file.
class ByteSource {
 public:
  ByteSource() = default;
  /// The range of `file`, which must hold it (else an Error).
  static ByteSource of_file(std::shared_ptr<const InputFile> file, std::uint64_t offset,
                            std::uint64_t length);
  /// Bytes of a file that is not there: their number is known, and a look at one is an Error.
  static ByteSource missing(std::shared_ptr<const InputFile> file, std::uint64_t offset,
                            std::uint64_t length);
  static ByteSource of_string(std::string bytes);
  static ByteSource of_vector(std::vector<std::byte> bytes);

  std::size_t size() const { return place_.size(); }
  bool empty() const { return place_.empty(); }
  /// The bytes, or some of them; read now where they lie on disk and were not read yet.
  std::span<const std::byte> bytes() const {
    bytes(0, size());
    is_loaded_ = true;
    return place_;
  }
  std::span<const std::byte> bytes(std::size_t offset, std::size_t length) const {
    if (file_ && !is_loaded_) file_->bytes(file_offset_ + offset, length);
    return place_.subspan(offset, length);
  }
  /// Fills `out` from `offset` of the run; keeps nothing.
  void read(std::size_t offset, std::span<std::byte> out) const;
  /// Whether the two are the same bytes of the same memory or file.
  bool is_same_place(const ByteSource& other) const {
    return place_.data() == other.place_.data() && place_.size() == other.place_.size() &&
           (!is_missing() || (file_ == other.file_ && file_offset_ == other.file_offset_));
  }

  bool on_disk() const { return file_ && file_->on_disk(); }
  bool is_missing() const { return file_ && file_->is_missing(); }
  /// The file that the run lies in as it is, if it does, and where.
  const std::shared_ptr<const InputFile>& file() const { return file_; }
  std::uint64_t file_offset() const { return file_offset_; }

 private:
  std::span<const std::byte> place_;
  std::shared_ptr<const void> keep_;
  std::shared_ptr<const InputFile> file_;
  std::uint64_t file_offset_ = 0;
  mutable bool is_loaded_ = false;  // whole; kernels ask for each element
};

}  // namespace onnx2nn
