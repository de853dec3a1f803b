#include "emit/weights.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include <fmt/core.h>

#include "emit/crc32.h"
#include "emit/weight_stream.h"
#include "support/checked.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::emit {
namespace {

struct DTypeRow {
  std::string_view name;
  std::string_view torch_name;
  std::string_view storage;  // the typed storage class; empty: UntypedStorage with the dtype beside
  std::size_t size;
  bool in_safetensors = true;
};

constexpr std::array<DTypeRow, 20> kDTypes = {{
    {"BOOL", "bool", "BoolStorage", 1},
    {"U8", "uint8", "ByteStorage", 1},
    {"I8", "int8", "CharStorage", 1},
    {"F8_E4M3", "float8_e4m3fn", "", 1},
    {"F8_E5M2", "float8_e5m2", "", 1},
    {"F8_E4M3FNUZ", "float8_e4m3fnuz", "", 1},
    {"F8_E5M2FNUZ", "float8_e5m2fnuz", "", 1},
    {"F8_E8M0", "float8_e8m0fnu", "", 1},
    {"I16", "int16", "ShortStorage", 2},
    {"U16", "uint16", "", 2},
    {"F16", "float16", "HalfStorage", 2},
    {"BF16", "bfloat16", "BFloat16Storage", 2},
    {"I32", "int32", "IntStorage", 4},
    {"U32", "uint32", "", 4},
    {"F32", "float32", "FloatStorage", 4},
    {"I64", "int64", "LongStorage", 8},
    {"U64", "uint64", "", 8},
    {"F64", "float64", "DoubleStorage", 8},
    {"C64", "complex64", "ComplexFloatStorage", 8},
    {"C128", "complex128", "ComplexDoubleStorage", 16, false},
}};

const DTypeRow& row_of(std::string_view dtype) {
  const auto* row = std::find_if(kDTypes.begin(), kDTypes.end(),
                                 [&](const DTypeRow& r) { return r.name == dtype; });
  ONNX2NN_CHECK(row != kDTypes.end(), "no weight dtype " + std::string(dtype));
  return *row;
}

std::uint64_t byte_size(const WeightEntry& entry) {
  const auto count = static_cast<std::uint64_t>(element_count(entry.shape));
  return checked_mul(count, std::uint64_t{row_of(entry.dtype).size}, "weight size");
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// The parts lie within their sources, and are as many elements as the weight has.
void check_parts(const WeightEntry& entry) {
  const std::uint64_t item = row_of(entry.dtype).size;
  std::int64_t count = 0;
  for (const WeightPart& part : entry.parts) {
    const std::int64_t runs = part.transpose ? part.columns : part.rows;
    const std::int64_t run = part.transpose ? part.rows : part.columns;
    ONNX2NN_CHECK(part.offset >= 0 && runs > 0 && run > 0 && part.stride >= run,
                  "an empty part of " + entry.key);
    const std::int64_t end = checked_add(
        checked_add(part.offset, checked_mul(runs - 1, part.stride, "weight size")), run);
    ONNX2NN_CHECK(checked_mul(static_cast<std::uint64_t>(end), item, "weight size") <=
                      part.source.size(),
                  "a part beyond its source: " + entry.key);
    count = checked_add(count, checked_mul(runs, run, "weight size"), "weight size");
  }
  ONNX2NN_CHECK(count == element_count(entry.shape) && !entry.transpose && !entry.fill,
                "parts that do not make up " + entry.key);
}

/// What both formats need: keys unique and UTF-8, sources of the size that the shape says, aliases
/// that lead to a weight. Returns the target of each alias by index.
std::vector<std::optional<std::size_t>> check_entries(std::span<const WeightEntry> entries) {
  std::unordered_map<std::string_view, std::size_t> by_key;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!is_utf8(entries[i].key))
      fail("bad-model", "weight name {} is not UTF-8", printable(entries[i].key));
    ONNX2NN_CHECK(by_key.emplace(entries[i].key, i).second, "two weights named " + entries[i].key);
  }
  std::vector<std::optional<std::size_t>> targets(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const WeightEntry& entry = entries[i];
    const std::uint64_t size = byte_size(entry);
    if (!entry.alias_of.empty()) {
      const auto found = by_key.find(entry.alias_of);
      ONNX2NN_CHECK(found != by_key.end() && entries[found->second].alias_of.empty(),
                    "no weight " + entry.alias_of + " to share");
      const WeightEntry& target = entries[found->second];
      ONNX2NN_CHECK(target.dtype == entry.dtype && byte_size(target) == size,
                    "shared weights differ in type or size: " + entry.key);
      targets[i] = found->second;
      continue;
    }
    ONNX2NN_CHECK(!entry.transpose || (entry.shape.size() == 2 && !entry.fill),
                  "only a stored matrix can be transposed: " + entry.key);
    if (!entry.parts.empty()) {
      check_parts(entry);
      continue;
    }
    if (!entry.fill && entry.source.size() != size)
      fail("bad-model", "weight {} has {} bytes, its shape needs {}", printable(entry.key),
           entry.source.size(), size);
  }
  return targets;
}

// ---- safetensors
// ---------------------------------------------------------------------------------

using Metadata = std::map<std::string, std::string>;

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

void add_index(AtomicFileSet& files, const std::string& path, std::uint64_t total,
               const std::map<std::string, std::string>& shard_of) {
  std::string text = fmt::format(
      "{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  bool first = true;
  for (const auto& [key, shard] : shard_of) {
    text += fmt::format("{}\n    {}: {}", first ? "" : ",", json_quote(key), json_quote(shard));
    first = false;
  }
  text += "\n  }\n}\n";
  files.add(path).append(text);
}

// ---- state_dict
// ----------------------------------------------------------------------------------

void append_number(std::string& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>((value >> (8 * i)) & 0xFF);
}

/// Pickle protocol 2, as far as torch's own reader of weights goes.
class Pickle {
 public:
  Pickle() : text_("\x80\x02") {}

  void op(char code) { text_ += code; }
  void global(std::string_view module, std::string_view name) {
    text_ += fmt::format("c{}\n{}\n", module, name);
  }
  void text(std::string_view value) {
    text_ += 'X';
    append_number(text_, narrow<std::uint32_t>(value.size(), "name length"), 4);
    text_ += value;
  }
  void integer(std::uint64_t value) {
    if (value < 0x100) {
      text_ += 'K';
      append_number(text_, value, 1);
    } else if (value < 0x10000) {
      text_ += 'M';
      append_number(text_, value, 2);
    } else if (value < 0x80000000) {
      text_ += 'J';
      append_number(text_, value, 4);
    } else {
      text_ += "\x8a\x08";
      append_number(text_, value, 8);
    }
  }
  void integers(std::span<const std::int64_t> values) {
    op('(');
    for (const std::int64_t v : values) integer(static_cast<std::uint64_t>(v));
    op('t');
  }
  void ordered_dict() {
    global("collections", "OrderedDict");
    text_ += ")R";
  }
  std::string finish() {
    op('.');
    return std::move(text_);
  }

 private:
  std::string text_;
};

std::vector<std::int64_t> strides_of(std::span<const std::int64_t> shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride = checked_mul(stride, std::max<std::int64_t>(shape[i], 1), "stride");
  }
  return strides;
}

/// Writes one tensor; `record` is the number of the storage that holds it.
void pickle_tensor(Pickle& out, const WeightEntry& entry, std::size_t record) {
  const DTypeRow& dtype = row_of(entry.dtype);
  const bool typed = !dtype.storage.empty();
  const std::uint64_t size = byte_size(entry);
  out.global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out.op('(');
  out.op('(');
  out.text("storage");
  if (typed) {
    out.global("torch", dtype.storage);
  } else {
    out.global("torch.storage", "UntypedStorage");
  }
  out.text(std::to_string(record));
  out.text("cpu");
  out.integer(typed ? size / dtype.size : size);
  out.op('t');
  out.op('Q');
  out.integer(0);
  out.integers(entry.shape);
  out.integers(strides_of(entry.shape));
  out.op('\x89');  // requires_grad is False
  out.ordered_dict();
  if (!typed) out.global("torch", dtype.torch_name);
  out.op('t');
  out.op('R');
}

constexpr std::uint64_t kLimit32 = 0xFFFFFFFF;

/// A stored (not compressed) member of a zip file.
struct ZipMember {
  std::string name;
  std::string text;  // the content where it is no weight
  std::uint64_t size = 0;
  std::uint64_t header = 0;  // offsets in the file
  std::uint64_t data = 0;
  std::uint32_t crc = 0;

  bool is_large() const { return size >= kLimit32; }
  std::uint64_t plain_header_size() const { return 30 + name.size() + (is_large() ? 20 : 0); }
};

/// What local and central headers have in common, from "version needed" to the sizes.
void append_member_fields(std::string& out, const ZipMember& member, bool zip64) {
  append_number(out, zip64 ? 45 : 20, 2);
  append_number(out, 0x800, 2);  // names are UTF-8
  append_number(out, 0, 2);      // stored
  append_number(out, 0, 2);      // time and date: the earliest that there is
  append_number(out, 0x21, 2);
  append_number(out, member.crc, 4);
  append_number(out, std::min(member.size, kLimit32), 4);
  append_number(out, std::min(member.size, kLimit32), 4);
  append_number(out, member.name.size(), 2);
}

std::string local_header(const ZipMember& member) {
  std::string out = "PK\x03\x04";
  append_member_fields(out, member, member.is_large());
  const std::uint64_t padding = member.data - member.header - member.plain_header_size();
  append_number(out, (member.is_large() ? 20 : 0) + padding, 2);
  out += member.name;
  if (member.is_large()) {
    append_number(out, 1, 2);
    append_number(out, 16, 2);
    append_number(out, member.size, 8);
    append_number(out, member.size, 8);
  }
  // torch fills the gap before aligned data with this field.
  out += "FB";
  append_number(out, padding - 4, 2);
  out.append(static_cast<std::size_t>(padding - 4), 'Z');
  return out;
}

std::string central_header(const ZipMember& member) {
  const bool far = member.header >= kLimit32;
  std::string extra;
  if (member.is_large()) {
    append_number(extra, member.size, 8);
    append_number(extra, member.size, 8);
  }
  if (far) append_number(extra, member.header, 8);
  std::string out = "PK\x01\x02";
  append_number(out, 45, 2);  // made by
  append_member_fields(out, member, !extra.empty());
  append_number(out, extra.empty() ? 0 : extra.size() + 4, 2);
  out.append(10, '\0');  // no comment, first disk, no attributes
  append_number(out, std::min(member.header, kLimit32), 4);
  out += member.name;
  if (!extra.empty()) {
    append_number(out, 1, 2);
    append_number(out, extra.size(), 2);
    out += extra;
  }
  return out;
}

/// The end of the archive: always with the zip64 records, as torch writes it.
std::string zip_end(std::uint64_t members, std::uint64_t directory, std::uint64_t directory_size) {
  std::string out = "PK\x06\x06";
  append_number(out, 44, 8);
  append_number(out, 45, 2);
  append_number(out, 45, 2);
  append_number(out, 0, 8);
  append_number(out, members, 8);
  append_number(out, members, 8);
  append_number(out, directory_size, 8);
  append_number(out, directory, 8);
  out += "PK\x06\x07";
  append_number(out, 0, 4);
  append_number(out, directory + directory_size, 8);
  append_number(out, 1, 4);
  out += "PK\x05\x06";
  append_number(out, 0, 4);
  append_number(out, std::min<std::uint64_t>(members, 0xFFFF), 2);
  append_number(out, std::min<std::uint64_t>(members, 0xFFFF), 2);
  append_number(out, std::min(directory_size, kLimit32), 4);
  append_number(out, std::min(directory, kLimit32), 4);
  append_number(out, 0, 2);
  return out;
}

}  // namespace

std::string_view weight_dtype(std::string_view torch_dtype) {
  const auto* row = std::find_if(kDTypes.begin(), kDTypes.end(),
                                 [&](const DTypeRow& r) { return r.torch_name == torch_dtype; });
  return row == kDTypes.end() ? std::string_view() : row->name;
}

std::size_t weight_item_size(std::string_view dtype) {
  return row_of(dtype).size;
}

bool safetensors_has(std::string_view dtype) {
  return row_of(dtype).in_safetensors;
}

void add_safetensors(AtomicFileSet& files, const std::string& path,
                     std::span<const WeightEntry> entries, const Metadata& metadata,
                     std::uint64_t shard_limit) {
  const auto targets = check_entries(entries);
  Metadata all = metadata;
  std::vector<std::vector<const WeightEntry*>> shards(1);
  std::uint64_t shard_size = 0;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const WeightEntry& entry = entries[i];
    if (entry.key == "__metadata__")
      fail("bad-model", "no weight in a safetensors file can be named __metadata__");
    if (!safetensors_has(entry.dtype))
      throw Error("unsupported-type",
                  fmt::format("weight {} is {}, which safetensors cannot hold",
                              printable(entry.key), row_of(entry.dtype).torch_name),
                  "write the weights to a .pth file: -o NAME.pth");
    if (targets[i]) {
      all.emplace(entry.key, entries[*targets[i]].key);
      continue;
    }
    const std::uint64_t size = byte_size(entry);
    total = checked_add(total, size, "size of all weights");
    if (!shards.back().empty() && (shard_size > shard_limit || size > shard_limit - shard_size)) {
      shards.emplace_back();
      shard_size = 0;
    }
    shards.back().push_back(&entry);
    shard_size += size;
  }
  all["format"] = "pt";  // some loaders refuse a file without it
  if (shards.size() == 1) return add_shard(files, path, shards[0], all);

  constexpr std::string_view kSuffix = ".safetensors";
  const std::string stem =
      path.ends_with(kSuffix) ? path.substr(0, path.size() - kSuffix.size()) : path;
  std::map<std::string, std::string> shard_of;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        fmt::format("{}-{:05}-of-{:05}{}", stem, i + 1, shards.size(), kSuffix);
    for (const WeightEntry* entry : shards[i])
      shard_of[entry->key] = name.substr(name.rfind('/') + 1);
    add_shard(files, name, shards[i], all);
  }
  add_index(files, stem + std::string(kSuffix) + ".index.json", total, shard_of);
}

void add_state_dict_pth(AtomicFileSet& files, const std::string& path,
                        std::span<const WeightEntry> entries, std::string_view origin) {
  const auto targets = check_entries(entries);

  // Storages are numbered by the entries that own one; names must differ by more than case.
  std::vector<std::size_t> record(entries.size());
  std::size_t records = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!targets[i]) record[i] = records++;
  }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (targets[i]) record[i] = record[*targets[i]];
  }

  Pickle pickle;
  pickle.ordered_dict();
  if (!entries.empty()) {
    pickle.op('(');
    for (std::size_t i = 0; i < entries.size(); ++i) {
      pickle.text(entries[i].key);
      pickle_tensor(pickle, entries[i], record[i]);
    }
    pickle.op('u');
  }

  // The first member's folder is where torch looks for the others.
  std::vector<ZipMember> members;
  const auto add_text = [&](std::string_view name, std::string text) {
    ZipMember member;
    member.name = fmt::format("archive/{}", name);
    member.size = text.size();
    member.crc = crc32(std::as_bytes(std::span(text)));
    member.text = std::move(text);
    members.push_back(std::move(member));
  };
  if (!origin.empty()) add_text("onnx2nn", std::string(origin));
  add_text("data.pkl", pickle.finish());
  add_text("byteorder", "little");
  const std::size_t first_weight = members.size();
  std::vector<PlacedWeight> weights;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (targets[i]) continue;
    ZipMember member;
    member.name = fmt::format("archive/data/{}", record[i]);
    member.size = byte_size(entries[i]);
    weights.push_back({&entries[i], 0, member.size});
    members.push_back(std::move(member));
  }
  add_text("version", "3\n");

  constexpr std::uint64_t kAlignment = 64;
  std::uint64_t end = 0;
  for (ZipMember& member : members) {
    member.header = end;
    // Room for the four bytes of the padding field itself.
    member.data = round_up(end + member.plain_header_size() + 4, kAlignment);
    end = checked_add(member.data, member.size, "size of all weights");
  }
  AtomicFile& file = files.add(path);
  file.extend(end);
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i].offset = members[first_weight + i].data;
  stream_weights(file, weights);
  const std::vector<std::uint32_t> sums = checksum_weights(file, weights);
  for (std::size_t i = 0; i < weights.size(); ++i) members[first_weight + i].crc = sums[i];

  for (const ZipMember& member : members) {
    const std::string header = local_header(member) + member.text;
    file.write_at(member.header, std::as_bytes(std::span(header)));
  }
  std::string directory;
  for (const ZipMember& member : members) directory += central_header(member);
  file.append(directory);
  file.append(zip_end(members.size(), end, directory.size()));
}

std::vector<std::string> write_safetensors(const std::string& path,
                                           std::span<const WeightEntry> entries,
                                           const Metadata& metadata, std::uint64_t shard_limit) {
  AtomicFileSet files;
  add_safetensors(files, path, entries, metadata, shard_limit);
  files.commit();
  return files.paths();
}

std::vector<std::string> write_state_dict_pth(const std::string& path,
                                              std::span<const WeightEntry> entries) {
  AtomicFileSet files;
  add_state_dict_pth(files, path, entries);
  files.commit();
  return files.paths();
}

}  // namespace onnx2nn::emit
