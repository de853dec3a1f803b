// Columns of text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "onnx2nn/inspect.h"

namespace onnx2nn::cli {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as many cells as the header
  std::size_t numbers = 1;  // columns from this one on are aligned to the right

  /// The table, indented by two. width: columns that it may take, 0 for any; the widest cells are
  /// shortened where it is too wide, those of numbers first. Without a width nothing is shortened, and
  /// what is very long stands out of its column.
  std::string text(std::size_t width) const;
};

/// At most `width` columns of `text`, which is printable: "encoder/...ense/MatMul".
std::string shortened(std::string_view text, std::size_t width);
/// The same of a number, which keeps its beginning: "411.6 K * batch + ..".
std::string shortened_number(std::string_view text, std::size_t width);

/// "1 file", "2 files"
std::string counted(std::size_t count, std::string_view thing);

/// "25,557,032"
std::string with_commas(std::uint64_t number);
/// "4.09 G", "1.02 M * batch * seq + 768 * batch", "?"; on one line, whatever the model's symbols are.
std::string human_count(const Amount& amount);
std::string human_count(std::uint64_t number);
/// The same of bytes, in powers of 1024: "97.66 KiB * batch + 12 bytes".
std::string human_bytes(const Amount& amount);
std::string human_bytes(std::uint64_t number);

}  // namespace onnx2nn::cli
