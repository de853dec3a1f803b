#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include <fmt/core.h>

#include "emit/weight_stream.h"
#include "emit/weight_types.h"
#include "emit/weights.h"
#include "support/checked.h"
#include "support/error.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn::emit {
namespace {

using Metadata = std::map<std::string, std::string>;

constexpr std::string_view kSuffix = ".safetensors";
constexpr std::size_t kShardDigits = 5;  // at least

std::string safetensors_header(std::span<const PlacedWeight> weights, const Metadata& metadata) {
  std::string out = R"({"__metadata__":{)";
  bool first = true;
  const auto add = [&](const std::string& key, const std::string& value) {
    out += fmt::format("{}{}:{}", first ? "" : ",", json_quote(key), json_quote(value));
    first = false;
  };
  const auto mark = metadata.find("onnx2nn");
  if (mark != metadata.end()) add(mark->first, mark->second);
  for (const auto& [key, value] : metadata)
    if (key != "onnx2nn") add(key, value);
  out += '}';
  for (const PlacedWeight& w : weights) {
    out +=
        fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[", json_quote(w.entry->key), w.entry->dtype);
    for (std::size_t i = 0; i < w.entry->shape.size(); ++i)
      out += fmt::format("{}{}", i == 0 ? "" : ",", w.entry->shape[i]);
    out += fmt::format("],\"data_offsets\":[{},{}]}}", w.offset, w.offset + w.size);
  }
  return out + '}';
}

/// One file of `entries`, which are put in an order that leaves no gap and yet aligns: first what
/// is a multiple of a page, then of a cache line, then the rest by falling element size.
void add_shard(AtomicFileSet& files, const std::string& path,
               std::span<const WeightEntry* const> entries, const Metadata& metadata) {
  std::vector<PlacedWeight> weights;
  weights.reserve(entries.size());
  std::uint64_t total = 0;
  for (const WeightEntry* entry : entries) {
    weights.push_back({entry, 0, byte_size(*entry)});
    total = checked_add(total, weights.back().size, "size of all weights");
  }
  const auto rank = [](const PlacedWeight& w) {
    const std::size_t item = row_of(w.entry->dtype).size;
    const int group = w.size % 4096 == 0 ? 0 : w.size % 64 == 0 ? 1 : 2;
    return std::tuple<int, std::size_t, std::string_view>(group, 16 - item, w.entry->key);
  };
  std::sort(weights.begin(), weights.end(),
            [&](const PlacedWeight& a, const PlacedWeight& b) { return rank(a) < rank(b); });
  std::uint64_t offset = 0;
  for (PlacedWeight& w : weights) {
    w.offset = offset;
    offset += w.size;
  }

  std::string header = safetensors_header(weights, metadata);
  const std::uint64_t alignment = total >= (std::uint64_t{1} << 20) ? 4096 : 64;
  header.resize(static_cast<std::size_t>(round_up(8 + header.size(), alignment) - 8), ' ');
  constexpr std::size_t kLongestHeader = 100'000'000;  // that readers accept
  if (header.size() > kLongestHeader)
    throw Error("too-large",
                fmt::format("{} weights need a header of {} bytes; safetensors allows {}",
                            weights.size(), header.size(), kLongestHeader),
                "write the weights to a .pth file");

  AtomicFile& file = files.add(path);
  std::array<std::byte, 8> length{};
  for (std::size_t i = 0; i < length.size(); ++i)
    length[i] = static_cast<std::byte>(std::uint64_t{header.size()} >> (8 * i));
  file.append(length);
  file.append(header);
  const std::uint64_t start = file.extend(total);
  for (PlacedWeight& w : weights) w.offset += start;
  stream_weights(file, weights);
}

/// `path` up to ".safetensors".
std::string_view stem_of(std::string_view path) {
  const bool has_suffix = to_lower(path).ends_with(kSuffix);
  return has_suffix ? path.substr(0, path.size() - kSuffix.size()) : path;
}

std::string index_text(const std::vector<std::vector<const WeightEntry*>>& shards,
                       const std::vector<std::string>& names, const Metadata& metadata,
                       std::string_view tag) {
  std::map<std::string_view, std::string> shard_of;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = json_quote(tagged(names[i], tag));
    for (const WeightEntry* entry : shards[i]) {
      shard_of[entry->key] = name;
      total += byte_size(*entry);
    }
  }
  std::string out = "{\n  \"metadata\": {\n";
  if (const auto mark = metadata.find("onnx2nn"); mark != metadata.end())
    out += fmt::format("    {}: {},\n", json_quote(mark->first), json_quote(mark->second));
  out += fmt::format("    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  bool first = true;
  for (const auto& [key, shard] : shard_of) {
    out += fmt::format("{}\n    {}: {}", first ? "" : ",", json_quote(key), shard);
    first = false;
  }
  return out + "\n  }\n}\n";
}

}  // namespace

bool safetensors_has(std::string_view dtype) {
  return row_of(dtype).in_safetensors;
}

std::vector<std::vector<const WeightEntry*>> shards_of(std::span<const WeightEntry> entries,
                                                       std::uint64_t shard_limit) {
  std::vector<std::vector<const WeightEntry*>> shards(1);
  std::uint64_t filled = 0;
  for (const WeightEntry& entry : entries) {
    if (!entry.alias_of.empty()) continue;
    const std::uint64_t size = byte_size(entry);
    if (!shards.back().empty() && (filled > shard_limit || size > shard_limit - filled)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(&entry);
    filled = checked_add(filled, size, "size of all weights");
  }
  return shards;
}

std::string index_path(std::string_view path) {
  return std::string(stem_of(path)) + std::string(kSuffix) + ".index.json";
}

bool is_shard_name(std::string_view name, std::string_view weights_name) {
  const std::string_view stem = stem_of(weights_name);
  if (!name.starts_with(stem)) return false;
  name.remove_prefix(stem.size());
  for (const std::string_view before : {"-", "-of-"}) {
    if (!name.starts_with(before)) return false;
    name.remove_prefix(before.size());
    const std::size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    if (digits < kShardDigits) return false;
    name.remove_prefix(digits);
  }
  return name == kSuffix || (name.starts_with('.') && name.ends_with(kSuffix));
}

void add_safetensors(AtomicFileSet& files, const std::string& path,
                     std::span<const WeightEntry> entries, const Metadata& metadata,
                     std::uint64_t shard_limit) {
  const auto targets = check_entries(entries);
  Metadata all = metadata;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const WeightEntry& entry = entries[i];
    if (entry.key == "__metadata__")
      fail("bad-model", "no weight in a safetensors file can be named __metadata__");
    if (!safetensors_has(entry.dtype))
      throw Error("unsupported-type",
                  fmt::format("weight {} is {}, which safetensors cannot hold",
                              printable(entry.key), row_of(entry.dtype).torch_name),
                  "write the weights to a .pth file: -o NAME.pth");
    if (targets[i]) all.emplace(entry.key, entries[*targets[i]].key);
  }
  all["format"] = "pt";  // some loaders refuse a file without it
  const auto shards = shards_of(entries, shard_limit);
  if (shards.size() == 1) return add_shard(files, path, shards[0], all);

  std::vector<std::string> names;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string shard =
        fmt::format("{}-{:05}-of-{:05}{}", stem_of(path), i + 1, shards.size(), kSuffix);
    add_shard(files, shard, shards[i], all);
    names.push_back(shard.substr(name_start(shard)));
  }
  files.add_head(index_path(path), [shards, names, metadata](std::string_view tag) {
    return index_text(shards, names, metadata, tag);
  });
}

std::vector<std::string> write_safetensors(const std::string& path,
                                           std::span<const WeightEntry> entries,
                                           const Metadata& metadata, std::uint64_t shard_limit) {
  AtomicFileSet files;
  add_safetensors(files, path, entries, metadata, shard_limit);
  files.commit();
  return files.paths();
}

}  // namespace onnx2nn::emit
