#include "emit/weight_stream.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "emit/crc32.h"
#include "emit/transpose.h"
#include "support/checked.h"
#include "support/error.h"
#include "support/files.h"
#include "support/interrupt.h"
#include "support/system.h"

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

/// Room for what goes to `target` of the file, as far behind the start of a page as that is: the
/// system copies such bytes up to three times as fast.
std::span<std::byte> room_for(Buffer& buffer, std::size_t size, std::uint64_t target) {
  constexpr std::size_t kPage = 4096;
  if (buffer.size() < size + kPage) buffer.resize(size + kPage);
  const auto begin = reinterpret_cast<std::uintptr_t>(buffer.data());
  return std::span(buffer).subspan((static_cast<std::size_t>(target) - begin) % kPage, size);
}

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

/// A stored matrix and where it goes, transposed.
struct Matrix {
  const ByteSource* source;
  std::uint64_t begin;   // of its first element in `source`, in bytes
  std::uint64_t stride;  // elements from one row to the next
  std::uint64_t rows;
  std::uint64_t columns;
  std::uint64_t item;    // bytes of an element
  std::uint64_t target;  // in the file
};

/// A part of a matrix to be transposed; rows and columns are those of the source.
struct Tile {
  Matrix all;
  std::uint64_t row;
  std::uint64_t rows;
  std::uint64_t column;
  std::uint64_t columns;
  std::uint64_t place = 0;  // in the matrix buffer

  bool is_in_memory() const { return !all.source->on_disk(); }
  std::uint64_t source_offset() const {
    return all.begin + (row * all.stride + column) * all.item;
  }
  /// Between rows in the buffer: a cache line more than a row, so that rows do not share their
  /// cache sets.
  std::uint64_t stride() const {
    if (is_in_memory()) return all.stride * all.item;
    return (columns * all.item + kCacheLine - 1) / kCacheLine * kCacheLine + kCacheLine;
  }
  std::uint64_t buffer_size() const { return is_in_memory() ? 0 : rows * stride(); }
};

/// Cuts a matrix into tiles that fit in the buffer. A tile's rows are the runs that are read, its
/// columns the runs that are written. Tiles of full height are best, as what they write is one run;
/// where that makes what is read too short, both are cut, and what is written stays longer, because
/// a write costs the system several times what a read does.
template <typename Add>
void for_each_tile(const Matrix& all, const Add& add) {
  constexpr std::uint64_t kShortestRead = 2048;
  constexpr std::uint64_t kUsualRead = 4096;
  constexpr std::uint64_t kLongestWrite = std::uint64_t{1} << 16;
  Tile tile{};
  tile.all = all;
  const std::uint64_t block = kCacheLine / all.item;
  /// How many rows of `row_size` bytes the buffer holds, or the same for columns.
  const auto fit = [&](std::uint64_t row_size) {
    return std::max(kMatrixBuffer / (row_size + 2 * kCacheLine) / block * block, block);
  };
  std::uint64_t height = all.rows;
  std::uint64_t width = kMatrixBuffer / height < 3 * kCacheLine
                            ? 0
                            : (kMatrixBuffer / height - 2 * kCacheLine) / kCacheLine * block;
  if (width < all.columns && width * all.item < kShortestRead) width = kUsualRead / all.item;
  width = std::min(width, all.columns);
  height = std::min({height, fit(width * all.item), kLongestWrite / all.item});
  for (tile.row = 0; tile.row < all.rows; tile.row += height) {
    tile.rows = std::min(height, all.rows - tile.row);
    for (tile.column = 0; tile.column < all.columns; tile.column += width) {
      tile.columns = std::min(width, all.columns - tile.column);
      add(tile);
    }
  }
}

/// Collects work until the matrix buffer is full, then does it: first all reading, then all
/// transposing, writing and copying, both on two threads.
class Streamer {
 public:
  Streamer(AtomicFile& file, bool two, Checksums* sums) : file_(file), two_(two), sums_(sums) {}

  /// `size` bytes from `begin` of `source` on go to `target`.
  void copy(const ByteSource& source, std::uint64_t begin, std::uint64_t size,
            std::uint64_t target) {
    for (std::uint64_t at = 0; at < size; at += kCopySize)
      copies_.push_back({&source, begin + at, std::min(kCopySize, size - at), target + at, {}});
  }

  /// Rows that are stored apart are written one after the other.
  void gather(const Matrix& rows) {
    const std::uint64_t size = rows.columns * rows.item;
    const std::uint64_t each = std::max<std::uint64_t>(kJobSize / size, 1);
    for (std::uint64_t row = 0; row < rows.rows; row += each) {
      const std::uint64_t count = std::min(each, rows.rows - row);
      copies_.push_back({rows.source, rows.begin + row * rows.stride * rows.item, size,
                         rows.target + row * size, {count, rows.stride * rows.item}});
    }
  }

  void transpose(const Matrix& matrix) {
    for_each_tile(matrix, [&](Tile tile) {
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
    if (used_ > 0 && !matrices_) {
      constexpr std::align_val_t alignment{kLargePage};
      matrices_.reset(static_cast<std::byte*>(::operator new(kMatrixBuffer, alignment)));
      prefer_large_pages(matrices_.get(), kMatrixBuffer);
    }
    run_jobs(reads_.size(), two_, buffers_, [&](std::size_t i, Buffer&) { read(reads_[i]); });
    run_jobs(copies_.size() + writes_.size(), two_, buffers_, [&](std::size_t i, Buffer& buffer) {
      if (i < copies_.size()) {
        copy_bytes(copies_[i], buffer);
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
    const ByteSource* source;
    std::uint64_t begin;
    std::uint64_t size;
    std::uint64_t target;
    struct {
      std::uint64_t count = 0;   // of runs of `size`; 0: one
      std::uint64_t stride = 0;  // bytes between them in the source
    } rows;
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
    const std::uint64_t block = kCacheLine / tile.all.item;
    return std::max(kJobSize / (tile.rows * tile.all.item) / block * block, block);
  }

  void copy_bytes(const Copy& copy, Buffer& buffer) {
    const ByteSource& source = *copy.source;
    if (copy.rows.count > 0) {
      const auto size = static_cast<std::size_t>(copy.size);
      const auto all = static_cast<std::size_t>(copy.rows.count) * size;
      const std::span<std::byte> out = room_for(buffer, all, copy.target);
      for (std::size_t r = 0; r < copy.rows.count; ++r)
        source.read(static_cast<std::size_t>(copy.begin + r * copy.rows.stride),
                    out.subspan(r * size, size));
      put(copy.target, out);
    } else if (source.on_disk() && sums_ != nullptr && !files::kCopiesMoveNothing) {
      copy_summed(copy, buffer);
    } else if (source.on_disk()) {
      // The system copies into a file one at a time anyway, and waits at the cost of a processor.
      const std::scoped_lock lock(copying_);
      file_.copy_at(copy.target, *source.file(), source.file_offset() + copy.begin, copy.size);
    } else {
      put(copy.target, source.bytes(static_cast<std::size_t>(copy.begin),
                                    static_cast<std::size_t>(copy.size)));
    }
  }

  /// In pieces that stay in the cache while they are read, summed and written.
  void copy_summed(const Copy& copy, Buffer& buffer) {
    constexpr std::uint64_t kPiece = std::uint64_t{1} << 18;
    std::uint32_t crc = 0;
    for (std::uint64_t at = 0; at < copy.size; at += kPiece) {
      const auto size = static_cast<std::size_t>(std::min(kPiece, copy.size - at));
      const std::span<std::byte> piece = room_for(buffer, size, copy.target + at);
      copy.source->read(static_cast<std::size_t>(copy.begin + at), piece);
      crc = crc32(piece, crc);
      file_.write_at(copy.target + at, piece);
    }
    sums_->add(copy.target, copy.size, crc);
  }

  void put(std::uint64_t target, std::span<const std::byte> bytes) {
    if (sums_ != nullptr) sums_->add(target, bytes.size(), crc32(bytes));
    file_.write_at(target, bytes);
  }

  void read(const Part& part) {
    const Tile& tile = tiles_[part.tile];
    const ByteSource& source = *tile.all.source;
    const auto row_size = static_cast<std::size_t>(tile.columns * tile.all.item);
    const auto stride = static_cast<std::size_t>(tile.stride());
    const std::span<std::byte> out(matrices_.get() + tile.place + part.first * tile.stride(),
                                   static_cast<std::size_t>(part.count * tile.stride()));
    const std::uint64_t source_stride = tile.all.stride * tile.all.item;
    const std::uint64_t start =
        source.file_offset() + tile.source_offset() + part.first * source_stride;
    if (tile.columns == tile.all.stride) {
      source.file()->read_rows(start, out.first(out.size() - stride + row_size), row_size, stride);
      return;
    }
    if (tile.row == 0 && tile.column == 0 && part.first == 0)
      source.file()->prefetch(source.file_offset() + tile.all.begin,
                              (tile.all.rows - 1) * source_stride + tile.all.columns * tile.all.item);
    for (std::size_t r = 0; r < part.count; ++r)
      source.file()->read(start + r * source_stride, out.subspan(r * stride, row_size));
  }

  void write(const Part& part, Buffer& buffer) {
    const Tile& tile = tiles_[part.tile];
    const std::byte* from = tile.is_in_memory()
                                ? tile.all.source->bytes().data() + tile.source_offset()
                                : matrices_.get() + tile.place;
    const auto run = static_cast<std::size_t>(tile.rows * tile.all.item);
    const auto count = static_cast<std::size_t>(part.count);
    const std::uint64_t target_stride = tile.all.rows * tile.all.item;
    const std::uint64_t target =
        tile.all.target + (tile.column + part.first) * target_stride + tile.row * tile.all.item;
    const std::span<std::byte> done = room_for(buffer, count * run, target);
    transpose_block(from + part.first * tile.all.item, static_cast<std::size_t>(tile.stride()),
                    done.data(), run, static_cast<std::size_t>(tile.rows), count,
                    static_cast<std::size_t>(tile.all.item));
    if (tile.rows == tile.all.rows) return put(target, done);
    for (std::size_t i = 0; i < count; ++i)
      file_.write_at(target + i * target_stride, done.subspan(i * run, run));
  }

  AtomicFile& file_;
  bool two_;
  Checksums* sums_;
  std::vector<Copy> copies_;
  std::vector<Tile> tiles_;
  std::vector<Part> reads_;   // rows
  std::vector<Part> writes_;  // columns
  struct Release {
    void operator()(std::byte* room) const { ::operator delete(room, std::align_val_t{kLargePage}); }
  };
  std::unique_ptr<std::byte, Release> matrices_;
  std::uint64_t used_ = 0;
  Buffers buffers_;
  std::mutex copying_;
};

void add_part(Streamer& streamer, const WeightPart& part, std::uint64_t item,
              std::uint64_t target) {
  Matrix stored{&part.source,
                static_cast<std::uint64_t>(part.offset) * item,
                static_cast<std::uint64_t>(part.stride),
                static_cast<std::uint64_t>(part.transpose ? part.columns : part.rows),
                static_cast<std::uint64_t>(part.transpose ? part.rows : part.columns),
                item,
                target};
  if (part.transpose && stored.rows > 1 && stored.columns > 1) {
    streamer.transpose(stored);
  } else if (stored.rows == 1 || stored.stride == stored.columns) {
    streamer.copy(part.source, stored.begin, stored.rows * stored.columns * item, target);
  } else {
    streamer.gather(stored);
  }
}

}  // namespace

void stream_weights(AtomicFile& file, std::span<const PlacedWeight> weights, Checksums* sums) {
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
  Streamer streamer(file, total >= kWorthAThread, sums);
  for (const PlacedWeight& weight : weights) {
    const WeightEntry& entry = *weight.entry;
    if (weight.size == 0 || entry.fill) continue;
    const std::uint64_t item = weight_item_size(entry.dtype);
    // A matrix of one row or column has the same bytes either way.
    if (entry.transpose && entry.shape[0] > 1 && entry.shape[1] > 1) {
      const auto rows = static_cast<std::uint64_t>(entry.shape[1]);
      const auto columns = static_cast<std::uint64_t>(entry.shape[0]);
      streamer.transpose({&entry.source, 0, columns, rows, columns, item, weight.offset});
    } else if (entry.parts.empty()) {
      streamer.copy(entry.source, 0, weight.size, weight.offset);
    }
    std::uint64_t at = weight.offset;
    for (const WeightPart& part : entry.parts) {
      add_part(streamer, part, item, at);
      at += static_cast<std::uint64_t>(part.rows) * static_cast<std::uint64_t>(part.columns) * item;
    }
  }
  streamer.run();
}

void Checksums::add(std::uint64_t offset, std::uint64_t size, std::uint32_t crc) {
  const std::scoped_lock lock(mutex_);
  pieces_.push_back({offset, size, crc});
}

std::vector<std::uint32_t> Checksums::of(const AtomicFile& file,
                                         std::span<const PlacedWeight> weights) {
  std::sort(pieces_.begin(), pieces_.end(),
            [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
  std::vector<std::uint32_t> sums(weights.size());
  std::uint64_t total = 0;
  for (const PlacedWeight& weight : weights) total += weight.size;
  for (const Piece& piece : pieces_) total -= piece.size;
  Buffers buffers;
  run_jobs(weights.size(), total >= kWorthAThread, buffers, [&](std::size_t i, Buffer& buffer) {
    const auto read = [&](std::uint64_t at, std::uint64_t end) {
      // Small enough to stay in the cache between being read and being summed.
      if (at < end) buffer.resize(std::size_t{1} << 18);
      while (at < end) {
        const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(end - at, buffer.size()));
        const std::span<std::byte> part = std::span(buffer).first(n);
        check_interrupt();
        file.read_at(at, part);
        sums[i] = crc32(part, sums[i]);
        at += n;
      }
    };
    std::uint64_t at = weights[i].offset;
    const std::uint64_t end = at + weights[i].size;
    auto piece = std::lower_bound(pieces_.begin(), pieces_.end(), at,
                                  [](const Piece& p, std::uint64_t from) { return p.offset < from; });
    for (; piece != pieces_.end() && piece->offset < end; ++piece) {
      read(at, piece->offset);
      sums[i] = crc32_joined(sums[i], piece->crc, piece->size);
      at = piece->offset + piece->size;
    }
    read(at, end);
  });
  return sums;
}

}  // namespace onnx2nn::emit
