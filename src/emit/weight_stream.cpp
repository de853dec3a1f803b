#include "emit/weight_stream.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "emit/crc32.h"
#include "emit/transpose.h"
#include "support/checked.h"
#include "support/error.h"
#include "support/interrupt.h"

namespace onnx2nn::emit {
namespace {

// What is held at most: the matrices, or parts of them, that are being transposed, and for each
// thread what it writes next.
constexpr std::uint64_t kMatrixBuffer = std::uint64_t{24} << 20;
constexpr std::uint64_t kJobSize = std::uint64_t{1} << 20;
constexpr std::uint64_t kCopySize = std::uint64_t{16} << 20;
constexpr std::uint64_t kWorthAThread = std::uint64_t{4} << 20;
constexpr std::uint64_t kCacheLine = 64;

using Buffer = std::vector<std::byte>;
using Buffers = std::array<Buffer, 2>;  // one for each thread

/// Calls work(i, buffer) for each i below `count`, on two threads where `two` says so. The first
/// exception stops both and is thrown here.
template <typename Work>
void run_jobs(std::size_t count, bool two, Buffers& buffers, const Work& work) {
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex mutex;
  const auto loop = [&](Buffer& buffer) {
    try {
      for (std::size_t i = next++; i < count; i = next++) {
        check_interrupt();
        work(i, buffer);
      }
    } catch (...) {
      next = count;
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::thread helper;
  if (two && count > 1) {
    try {
      helper = std::thread([&] { loop(buffers[1]); });
    } catch (const std::system_error&) {  // no thread to be had: this one does it all
    }
  }
  loop(buffers[0]);
  if (helper.joinable()) helper.join();
  if (failure) std::rethrow_exception(failure);
}

/// A part of a matrix to be transposed; rows and columns are those of the source.
struct Tile {
  const PlacedWeight* weight;
  std::uint64_t all_rows;
  std::uint64_t all_columns;
  std::uint64_t item;
  std::uint64_t row;
  std::uint64_t rows;
  std::uint64_t column;
  std::uint64_t columns;
  std::uint64_t place = 0;  // in the matrix buffer

  bool is_in_memory() const {
    const ByteSource& source = weight->entry->source;
    return !source.on_disk();
  }
  std::uint64_t source_offset() const { return (row * all_columns + column) * item; }
  /// Between rows in the buffer: a cache line more than a row, so that rows do not share their
  /// cache sets.
  std::uint64_t stride() const {
    if (is_in_memory()) return all_columns * item;
    return (columns * item + kCacheLine - 1) / kCacheLine * kCacheLine + kCacheLine;
  }
  std::uint64_t buffer_size() const { return is_in_memory() ? 0 : rows * stride(); }
};

/// Cuts a matrix into tiles that fit in the buffer. A tile's rows are the runs that are read, its
/// columns the runs that are written. Tiles of full height are best, as what they write is one run;
/// where that makes what is read too short, both are cut, and what is written stays longer, because
/// a write costs the system several times what a read does.
template <typename Add>
void for_each_tile(const PlacedWeight& weight, const Add& add) {
  constexpr std::uint64_t kShortestRead = 2048;
  constexpr std::uint64_t kUsualRead = 4096;
  constexpr std::uint64_t kLongestWrite = std::uint64_t{1} << 16;
  Tile tile{};
  tile.weight = &weight;
  tile.all_rows = static_cast<std::uint64_t>(weight.entry->shape[1]);
  tile.all_columns = static_cast<std::uint64_t>(weight.entry->shape[0]);
  tile.item = weight_item_size(weight.entry->dtype);
  const std::uint64_t block = kCacheLine / tile.item;
  /// How many rows of `row_size` bytes the buffer holds, or the same for columns.
  const auto fit = [&](std::uint64_t row_size) {
    return std::max(kMatrixBuffer / (row_size + 2 * kCacheLine) / block * block, block);
  };
  std::uint64_t height = tile.all_rows;
  std::uint64_t width = kMatrixBuffer / height < 3 * kCacheLine
                            ? 0
                            : (kMatrixBuffer / height - 2 * kCacheLine) / kCacheLine * block;
  if (width < tile.all_columns && width * tile.item < kShortestRead) width = kUsualRead / tile.item;
  width = std::min(width, tile.all_columns);
  height = std::min({height, fit(width * tile.item), kLongestWrite / tile.item});
  for (tile.row = 0; tile.row < tile.all_rows; tile.row += height) {
    tile.rows = std::min(height, tile.all_rows - tile.row);
    for (tile.column = 0; tile.column < tile.all_columns; tile.column += width) {
      tile.columns = std::min(width, tile.all_columns - tile.column);
      add(tile);
    }
  }
}

/// Collects work until the matrix buffer is full, then does it: first all reading, then all
/// transposing, writing and copying, both on two threads.
class Streamer {
 public:
  Streamer(AtomicFile& file, bool two) : file_(file), two_(two) {}

  void copy(const PlacedWeight& weight) {
    for (std::uint64_t at = 0; at < weight.size; at += kCopySize)
      copies_.push_back({&weight, at, std::min(kCopySize, weight.size - at)});
  }

  void transpose(const PlacedWeight& weight) {
    for_each_tile(weight, [&](Tile tile) {
      if (used_ + tile.buffer_size() > kMatrixBuffer) run();
      tile.place = used_;
      used_ += tile.buffer_size();
      if (!tile.is_in_memory()) add_parts(reads_, tile.rows, kJobSize / tile.stride());
      add_parts(writes_, tile.columns, block_columns(tile));
      tiles_.push_back(tile);
    });
  }

  void run() {
    // Not cleared, so that pages which no tile needs are never touched.
    if (used_ > 0 && !matrices_)
      matrices_ = std::make_unique_for_overwrite<std::byte[]>(kMatrixBuffer);
    run_jobs(reads_.size(), two_, buffers_, [&](std::size_t i, Buffer&) { read(reads_[i]); });
    run_jobs(copies_.size() + writes_.size(), two_, buffers_, [&](std::size_t i, Buffer& buffer) {
      if (i < copies_.size()) {
        copy_bytes(copies_[i]);
      } else {
        write(writes_[i - copies_.size()], buffer);
      }
    });
    copies_.clear();
    tiles_.clear();
    reads_.clear();
    writes_.clear();
    used_ = 0;
  }

 private:
  struct Copy {
    const PlacedWeight* weight;
    std::uint64_t begin;
    std::uint64_t size;
  };
  /// Some rows or columns of a tile.
  struct Part {
    std::size_t tile;
    std::uint64_t first;
    std::uint64_t count;
  };

  void add_parts(std::vector<Part>& parts, std::uint64_t all, std::uint64_t each) {
    each = std::max<std::uint64_t>(each, 1);
    for (std::uint64_t at = 0; at < all; at += each)
      parts.push_back({tiles_.size(), at, std::min(each, all - at)});
  }

  /// How many columns are transposed at once: whole cache lines.
  static std::uint64_t block_columns(const Tile& tile) {
    const std::uint64_t block = kCacheLine / tile.item;
    return std::max(kJobSize / (tile.rows * tile.item) / block * block, block);
  }

  void copy_bytes(const Copy& copy) {
    const ByteSource& source = copy.weight->entry->source;
    const std::uint64_t target = copy.weight->offset + copy.begin;
    if (source.on_disk()) {
      // The system copies into a file one at a time anyway, and waits at the cost of a processor.
      const std::scoped_lock lock(copying_);
      file_.copy_at(target, *source.file(), source.file_offset() + copy.begin, copy.size);
    } else {
      file_.write_at(target, source.bytes(static_cast<std::size_t>(copy.begin),
                                          static_cast<std::size_t>(copy.size)));
    }
  }

  void read(const Part& part) {
    const Tile& tile = tiles_[part.tile];
    const ByteSource& source = tile.weight->entry->source;
    const auto row_size = static_cast<std::size_t>(tile.columns * tile.item);
    const auto stride = static_cast<std::size_t>(tile.stride());
    const std::span<std::byte> out(matrices_.get() + tile.place + part.first * tile.stride(),
                                   static_cast<std::size_t>(part.count * tile.stride()));
    const std::uint64_t source_stride = tile.all_columns * tile.item;
    const std::uint64_t start =
        source.file_offset() + tile.source_offset() + part.first * source_stride;
    if (tile.columns == tile.all_columns) {
      source.file()->read_rows(start, out.first(out.size() - stride + row_size), row_size, stride);
      return;
    }
    if (tile.row == 0 && tile.column == 0 && part.first == 0)
      source.file()->prefetch(source.file_offset(), tile.weight->size);
    for (std::size_t r = 0; r < part.count; ++r)
      source.file()->read(start + r * source_stride, out.subspan(r * stride, row_size));
  }

  void write(const Part& part, Buffer& buffer) {
    const Tile& tile = tiles_[part.tile];
    const std::byte* from = tile.is_in_memory()
                                ? tile.weight->entry->source.bytes().data() + tile.source_offset()
                                : matrices_.get() + tile.place;
    const auto run = static_cast<std::size_t>(tile.rows * tile.item);
    const auto count = static_cast<std::size_t>(part.count);
    if (buffer.size() < count * run) buffer.resize(count * run);
    transpose_block(from + part.first * tile.item, static_cast<std::size_t>(tile.stride()),
                    buffer.data(), run, static_cast<std::size_t>(tile.rows), count,
                    static_cast<std::size_t>(tile.item));
    const std::span<const std::byte> done = std::span(buffer).first(count * run);
    const std::uint64_t target_stride = tile.all_rows * tile.item;
    const std::uint64_t target =
        tile.weight->offset + (tile.column + part.first) * target_stride + tile.row * tile.item;
    if (tile.rows == tile.all_rows) return file_.write_at(target, done);
    for (std::size_t i = 0; i < count; ++i)
      file_.write_at(target + i * target_stride, done.subspan(i * run, run));
  }

  AtomicFile& file_;
  bool two_;
  std::vector<Copy> copies_;
  std::vector<Tile> tiles_;
  std::vector<Part> reads_;   // rows
  std::vector<Part> writes_;  // columns
  std::unique_ptr<std::byte[]> matrices_;
  std::uint64_t used_ = 0;
  Buffers buffers_;
  std::mutex copying_;
};

}  // namespace

void stream_weights(AtomicFile& file, std::span<const PlacedWeight> weights) {
  std::uint64_t total = 0;
  for (const PlacedWeight& weight : weights) {
    if (weight.size == 0) continue;
    if (!weight.entry->fill) {
      total += weight.size;
      continue;
    }
    Buffer bytes(narrow<std::size_t>(weight.size));
    weight.entry->fill(bytes);
    file.write_at(weight.offset, bytes);
  }
  Streamer streamer(file, total >= kWorthAThread);
  for (const PlacedWeight& weight : weights) {
    const WeightEntry& entry = *weight.entry;
    if (weight.size == 0 || entry.fill) continue;
    // A matrix of one row or column has the same bytes either way.
    if (entry.transpose && entry.shape[0] > 1 && entry.shape[1] > 1) {
      streamer.transpose(weight);
    } else {
      streamer.copy(weight);
    }
  }
  streamer.run();
}

std::vector<std::uint32_t> checksum_weights(const AtomicFile& file,
                                            std::span<const PlacedWeight> weights) {
  std::vector<std::uint32_t> sums(weights.size());
  std::uint64_t total = 0;
  for (const PlacedWeight& weight : weights) total += weight.size;
  Buffers buffers;
  run_jobs(weights.size(), total >= kWorthAThread, buffers, [&](std::size_t i, Buffer& buffer) {
    // Small enough to stay in the cache between being read and being summed.
    buffer.resize(std::size_t{1} << 18);
    std::uint64_t at = weights[i].offset;
    for (std::uint64_t left = weights[i].size; left > 0;) {
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size()));
      const std::span<std::byte> part = std::span(buffer).first(n);
      check_interrupt();
      file.read_at(at, part);
      sums[i] = crc32(part, sums[i]);
      at += n;
      left -= n;
    }
  });
  return sums;
}

}  // namespace onnx2nn::emit
