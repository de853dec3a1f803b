#include "emit/weight_stream.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "emit/crc32.h"
#include "emit/transpose.h"
#include "support/checked.h"
#include "support/error.h"

namespace onnx2nn::emit {
namespace {

constexpr std::size_t kReadBuffer = std::size_t{8} << 20;
constexpr std::size_t kWriteBuffer = std::size_t{1} << 20;
constexpr std::uint64_t kCopyChunk = std::uint64_t{16} << 20;
constexpr std::uint64_t kWorthAThread = std::uint64_t{4} << 20;

struct Buffers {
  std::vector<std::byte> read;
  std::vector<std::byte> write;
};

/// Calls work(i, buffers) for each i below `count`, on two threads where `two` says so. The first
/// exception stops both and is thrown here.
template <typename Work>
void run_tasks(std::size_t count, bool two, const Work& work) {
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex mutex;
  const auto loop = [&] {
    Buffers buffers;
    try {
      for (std::size_t i = next++; i < count; i = next++) work(i, buffers);
    } catch (...) {
      next = count;
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  if (two && count > 1) {
    std::thread helper;
    try {
      helper = std::thread(loop);
    } catch (const std::system_error&) {  // no thread to be had: this one does it all
    }
    loop();
    if (helper.joinable()) helper.join();
  } else {
    loop();
  }
  if (failure) std::rethrow_exception(failure);
}

/// A piece of one weight: bytes to be copied as they are, or a tile of the matrix in the source.
struct Task {
  const PlacedWeight* weight;
  std::uint64_t begin = 0;  // of the bytes, or of the tile's rows
  std::uint64_t end = 0;
  std::uint64_t first_column = 0;
  std::uint64_t last_column = 0;  // 0: bytes
};

struct Matrix {
  std::uint64_t rows;  // of the source
  std::uint64_t columns;
  std::size_t item;
};

Matrix matrix_of(const WeightEntry& entry) {
  ONNX2NN_CHECK(entry.shape.size() == 2, "only matrices are transposed");
  return {static_cast<std::uint64_t>(entry.shape[1]), static_cast<std::uint64_t>(entry.shape[0]),
          weight_item_size(entry.dtype)};
}

/// Tiles are as wide and as high as the buffer allows: a tile's rows are the runs that are read,
/// its columns the runs that are written. Where all rows fit, whole rows of the target are written.
void add_tiles(std::vector<Task>& tasks, const PlacedWeight& weight, const Matrix& m) {
  constexpr std::uint64_t kShortestRun = 4096;  // bytes
  const std::uint64_t item = m.item;
  const std::uint64_t block = 64 / item;
  const auto fit = [&](std::uint64_t other) {
    return std::max(kReadBuffer / item / other / block * block, block);
  };
  // 64 columns of the tile fit in the other buffer.
  std::uint64_t height = std::min<std::uint64_t>(m.rows, kWriteBuffer / 64 / item * 4);
  std::uint64_t width = std::min(m.columns, fit(height));
  if (width < m.columns && width * item < kShortestRun) {
    width = std::min(m.columns, kShortestRun / item);
    height = std::min(height, fit(width));
  }
  for (std::uint64_t r = 0; r < m.rows; r += height) {
    for (std::uint64_t c = 0; c < m.columns; c += width)
      tasks.push_back(
          {&weight, r, std::min(m.rows, r + height), c, std::min(m.columns, c + width)});
  }
}

void copy_bytes(AtomicFile& file, const Task& task) {
  const ByteSource& source = task.weight->entry->source;
  const std::uint64_t target = task.weight->offset + task.begin;
  const std::uint64_t size = task.end - task.begin;
  if (source.file && source.file->is_mapped()) {
    file.copy_at(target, *source.file, source.file_offset + task.begin, size);
  } else {
    file.write_at(target, source.bytes.subspan(static_cast<std::size_t>(task.begin),
                                               static_cast<std::size_t>(size)));
  }
}

void transpose_tile(AtomicFile& file, const Task& task, Buffers& buffers) {
  const WeightEntry& entry = *task.weight->entry;
  const ByteSource& source = entry.source;
  const Matrix m = matrix_of(entry);
  const auto rows = static_cast<std::size_t>(task.end - task.begin);
  const auto columns = static_cast<std::size_t>(task.last_column - task.first_column);
  const std::uint64_t start = (task.begin * m.columns + task.first_column) * m.item;
  const std::byte* from = nullptr;
  std::size_t stride = 0;
  if (source.file && source.file->is_mapped()) {
    // One cache line more than a row, so that the rows of a block do not share their cache sets.
    const std::size_t row_size = columns * m.item;
    stride = (row_size + 63) / 64 * 64 + 64;
    const std::size_t size = (rows - 1) * stride + row_size;
    if (buffers.read.size() < size) buffers.read.resize(size);
    const std::span<std::byte> out = std::span(buffers.read).first(size);
    if (start == 0) source.file->prefetch(source.file_offset, task.weight->size);
    if (columns == m.columns) {
      source.file->read_rows(source.file_offset + start, out, row_size, stride);
    } else {
      for (std::size_t r = 0; r < rows; ++r)
        source.file->read(source.file_offset + start + r * m.columns * m.item,
                          out.subspan(r * stride, row_size));
    }
    from = out.data();
  } else {
    from = source.bytes.data() + start;
    stride = static_cast<std::size_t>(m.columns) * m.item;
  }

  const std::size_t run = rows * m.item;
  const std::size_t block = 64 / m.item;
  const std::size_t group = std::max(kWriteBuffer / run / block * block, block);
  if (buffers.write.size() < std::min(group, columns) * run)
    buffers.write.resize(std::min(group, columns) * run);
  for (std::size_t c = 0; c < columns; c += group) {
    const std::size_t count = std::min(group, columns - c);
    transpose_block(from + c * m.item, stride, buffers.write.data(), run, rows, count, m.item);
    const std::uint64_t target =
        task.weight->offset + ((task.first_column + c) * m.rows + task.begin) * m.item;
    const std::span<const std::byte> done = std::span(buffers.write).first(count * run);
    if (rows == m.rows) {
      file.write_at(target, done);
      continue;
    }
    for (std::size_t i = 0; i < count; ++i)
      file.write_at(target + i * m.rows * m.item, done.subspan(i * run, run));
  }
}

}  // namespace

void stream_weights(AtomicFile& file, std::span<const PlacedWeight> weights) {
  std::vector<Task> tasks;
  std::uint64_t total = 0;
  for (const PlacedWeight& weight : weights) {
    const WeightEntry& entry = *weight.entry;
    if (weight.size == 0) continue;
    if (entry.fill) {
      std::vector<std::byte> bytes(narrow<std::size_t>(weight.size));
      entry.fill(bytes);
      file.write_at(weight.offset, bytes);
      continue;
    }
    total += weight.size;
    if (entry.transpose) {
      const Matrix m = matrix_of(entry);
      if (m.rows > 1 && m.columns > 1) {
        add_tiles(tasks, weight, m);
        continue;
      }
    }
    for (std::uint64_t at = 0; at < weight.size; at += kCopyChunk)
      tasks.push_back({&weight, at, std::min(weight.size, at + kCopyChunk)});
  }
  run_tasks(tasks.size(), total >= kWorthAThread, [&](std::size_t i, Buffers& buffers) {
    if (tasks[i].last_column == 0) {
      copy_bytes(file, tasks[i]);
    } else {
      transpose_tile(file, tasks[i], buffers);
    }
  });
}

std::vector<std::uint32_t> checksum_weights(const AtomicFile& file,
                                            std::span<const PlacedWeight> weights) {
  std::vector<std::uint32_t> sums(weights.size());
  std::uint64_t total = 0;
  for (const PlacedWeight& weight : weights) total += weight.size;
  run_tasks(weights.size(), total >= kWorthAThread, [&](std::size_t i, Buffers& buffers) {
    // Small enough to stay in the cache between being read and being summed.
    buffers.read.resize(std::size_t{1} << 18);
    std::uint64_t at = weights[i].offset;
    for (std::uint64_t left = weights[i].size; left > 0;) {
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffers.read.size()));
      const std::span<std::byte> part = std::span(buffers.read).first(n);
      file.read_at(at, part);
      sums[i] = crc32(part, sums[i]);
      at += n;
      left -= n;
    }
  });
  return sums;
}

}  // namespace onnx2nn::emit
