// Files that appear whole or not at all: written beside the target, then renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/input_file.h"

namespace onnx2nn {

class AtomicFile {
 public:
  /// Small appends are collected in a buffer of this size.
  static constexpr std::size_t kBufferSize = std::size_t{1} << 18;

  /// Makes the temporary file; an Error("io") where it cannot.
  explicit AtomicFile(std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  /// Removes the temporary file unless committed.
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

  /// Gives the file its name; nothing can be written afterwards.
  void commit();

 private:
  friend class AtomicFileSet;
  void close();
  void write_through(std::span<const std::byte> bytes);

  std::string path_;
  std::string temporary_;  // empty once committed
  int fd_ = -1;
  std::uint64_t flushed_ = 0;
  std::vector<std::byte> buffer_;
};

/// Files that get their names together. Where a rename fails, those made before it are undone.
class AtomicFileSet {
 public:
  AtomicFile& add(std::string path);
  void commit();
  /// In the order added.
  std::vector<std::string> paths() const;

 private:
  std::vector<std::unique_ptr<AtomicFile>> files_;
};

}  // namespace onnx2nn
