#include "emit/weight_types.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "support/checked.h"
#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::emit {
namespace {

constexpr std::array<DTypeRow, 20> kDTypes = {{
    {"BOOL", "bool", "BoolStorage", 1},
    {"U8", "uint8", "ByteStorage", 1},
    {"I8", "int8", "CharStorage", 1},
    {"F8_E4M3", "float8_e4m3fn", "Float8_e4m3fnStorage", 1, false},
    {"F8_E5M2", "float8_e5m2", "Float8_e5m2Storage", 1, false},
    {"F8_E4M3FNUZ", "float8_e4m3fnuz", "Float8_e4m3fnuzStorage", 1, false},
    {"F8_E5M2FNUZ", "float8_e5m2fnuz", "Float8_e5m2fnuzStorage", 1, false},
    {"F8_E8M0", "float8_e8m0fnu", "Float8_e8m0fnuStorage", 1, false},
    {"I16", "int16", "ShortStorage", 2},
    {"U16", "uint16", "UInt16Storage", 2, false},
    {"F16", "float16", "HalfStorage", 2},
    {"BF16", "bfloat16", "BFloat16Storage", 2},
    {"I32", "int32", "IntStorage", 4},
    {"U32", "uint32", "UInt32Storage", 4, false},
    {"F32", "float32", "FloatStorage", 4},
    {"I64", "int64", "LongStorage", 8},
    {"U64", "uint64", "UInt64Storage", 8, false},
    {"F64", "float64", "DoubleStorage", 8},
    {"C64", "complex64", "ComplexFloatStorage", 8},
    {"C128", "complex128", "ComplexDoubleStorage", 16, true, false},
}};

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

}  // namespace

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

std::string_view weight_dtype(std::string_view torch_dtype) {
  const auto* row = std::find_if(kDTypes.begin(), kDTypes.end(),
                                 [&](const DTypeRow& r) { return r.torch_name == torch_dtype; });
  return row == kDTypes.end() ? std::string_view() : row->name;
}

std::size_t weight_item_size(std::string_view dtype) {
  return row_of(dtype).size;
}

}  // namespace onnx2nn::emit
