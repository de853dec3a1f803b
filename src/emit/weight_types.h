// What weight files have in common: names of dtypes, sizes, and what entries must be.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "emit/weights.h"

namespace onnx2nn::emit {

struct DTypeRow {
  std::string_view name;
  std::string_view torch_name;
  std::string_view storage;  // the class of its storage in module torch
  std::size_t size;
  bool typed = true;  // torch.save writes that class; else UntypedStorage with the dtype beside
  bool in_safetensors = true;
};

/// The row of a dtype that weight_dtype gives.
const DTypeRow& row_of(std::string_view dtype);

std::uint64_t byte_size(const WeightEntry& entry);
std::uint64_t round_up(std::uint64_t value, std::uint64_t unit);

/// What all formats need: keys unique and UTF-8, sources of the size that the shape says, aliases
/// that lead to a weight. Returns the target of each alias by index.
std::vector<std::optional<std::size_t>> check_entries(std::span<const WeightEntry> entries);

}  // namespace onnx2nn::emit
