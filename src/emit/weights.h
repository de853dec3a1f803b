// Weight files: safetensors, and the zip archive that torch.load reads as a state_dict.
// Bytes that need no change go from file to file inside the kernel; matrices to be transposed are
// streamed in tiles. Memory use does not depend on the size of the weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/atomic_file.h"
#include "support/input_file.h"

namespace onnx2nn::emit {

/// A matrix of elements of a run of bytes, as part of a weight.
struct WeightPart {
  ByteSource source;
  std::int64_t offset = 0;  // of the first element in `source`, in elements
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;  // elements from one row to the next as stored
  bool transpose = false;   // what is stored are `columns` rows, to be transposed
};

struct WeightEntry {
  std::string key;                  // in the state_dict; UTF-8
  std::string dtype;                // as safetensors names it: "F32", "BF16", "I64", ...; or "C128"
  std::vector<std::int64_t> shape;  // as written
  /// The bytes, little-endian and row-major; not looked at where `parts`, `fill` or `alias_of` is
  /// set.
  ByteSource source;
  /// `source` is a matrix [shape[1], shape[0]].
  bool transpose = false;
  /// What it is put together from, one part after the other; empty: `source` is all.
  std::vector<WeightPart> parts;
  /// Computes the weight into a buffer of its whole size. Called on the calling thread, each one
  /// alone.
  std::function<void(std::span<std::byte>)> fill;
  /// The key of the entry that this one shares its storage with; of the same dtype and size, and
  /// no alias itself.
  std::string alias_of;
};

/// safetensors' name for a torch dtype ("float32" -> "F32"); empty where torch has no such dtype.
std::string_view weight_dtype(std::string_view torch_dtype);
/// Bytes per element of a dtype that weight_dtype gives.
std::size_t weight_item_size(std::string_view dtype);
/// Whether a .safetensors file can hold it.
bool safetensors_has(std::string_view dtype);

/// Hugging Face's default.
inline constexpr std::uint64_t kShardLimit = 5'000'000'000;

/// Which entries go into which file: each file is filled in order as long as it stays within
/// `shard_limit` bytes of weights, and holds one entry at least. Aliases are in none.
std::vector<std::vector<const WeightEntry*>> shards_of(std::span<const WeightEntry> entries,
                                                       std::uint64_t shard_limit);
/// The path of the shards' index: NAME.safetensors.index.json for NAME.safetensors.
std::string index_path(std::string_view path);
/// Whether NAME.safetensors may have had shards called `name`; both without folder.
bool is_shard_name(std::string_view name, std::string_view weights_name);

/// Adds to `files` a safetensors file, or, where shards_of has several, a head
/// NAME.safetensors.index.json and its files NAME-00001-of-0000N.safetensors. An alias is not written:
/// the metadata names its target, as safetensors.torch.save_model does. `metadata` need not hold
/// "format"; an entry "onnx2nn" comes first, so that a file is known by its first bytes, and goes
/// into the index too. Throws Error where a weight cannot be written.
void add_safetensors(AtomicFileSet& files, const std::string& path,
                     std::span<const WeightEntry> entries,
                     const std::map<std::string, std::string>& metadata = {},
                     std::uint64_t shard_limit = kShardLimit);

/// Adds to `files` an archive for torch.load(path, weights_only=True), also with mmap=True. Aliases
/// share their storage. `origin`, unless empty, is kept in a first record "onnx2nn", by which the
/// file is known.
void add_state_dict_pth(AtomicFileSet& files, const std::string& path,
                        std::span<const WeightEntry> entries, std::string_view origin = {});

/// The same, committed; return the paths written.
std::vector<std::string> write_safetensors(const std::string& path,
                                           std::span<const WeightEntry> entries,
                                           const std::map<std::string, std::string>& metadata = {},
                                           std::uint64_t shard_limit = kShardLimit);
std::vector<std::string> write_state_dict_pth(const std::string& path,
                                              std::span<const WeightEntry> entries);

}  // namespace onnx2nn::emit
