// A file mapped for reading, and bytes that know who keeps them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace onnx2nn {

/// Always held by shared_ptr: whatever points into it keeps it. The descriptor stays open, so that
/// ranges can be copied from file to file and large ones read without filling the mapping.
class MappedFile {
 public:
  /// A regular file; anything else, and what cannot be opened or mapped, is an Error("io").
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  /// The same as bytes in memory; `name` stands for the path in messages.
  static std::shared_ptr<const MappedFile> from_memory(std::string bytes,
                                                       std::string name = "<bytes>");

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return bytes_.size(); }
  std::span<const std::byte> bytes() const { return bytes_; }
  /// -1 where the bytes are in memory.
  int fd() const { return fd_; }
  bool is_mapped() const { return fd_ >= 0; }

  /// Fills `out` from `offset`, not through the mapping. Past the end is an Error("io").
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  /// Fills rows of `row_size` bytes, one each `stride` bytes of `out`, from consecutive bytes of
  /// the file; `out` holds the last row too.
  void read_rows(std::uint64_t offset, std::span<std::byte> out, std::size_t row_size,
                 std::size_t stride) const;
  /// Tells the system that a range will be read soon.
  void prefetch(std::uint64_t offset, std::uint64_t length) const;
  /// Hands the pages of a range that was read through the mapping back to the system.
  void drop_pages(std::uint64_t offset, std::uint64_t length) const;

 private:
  MappedFile() = default;

  std::string path_;
  std::string memory_;
  std::span<const std::byte> bytes_;
  int fd_ = -1;
};

/// A run of bytes. `file` and `file_offset` are set where the run lies in a mapped file as it is.
struct ByteSource {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keep;
  std::shared_ptr<const MappedFile> file;
  std::uint64_t file_offset = 0;

  /// The range of `file`, which must hold it (else an Error).
  static ByteSource of_file(std::shared_ptr<const MappedFile> file, std::uint64_t offset,
                            std::uint64_t length);
  static ByteSource of_string(std::string bytes);
  static ByteSource of_vector(std::vector<std::byte> bytes);
};

}  // namespace onnx2nn
