// Columns of text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn::cli {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as many cells as the header
  std::size_t numbers = 1;  // columns from this one on are aligned to the right

  /// The table, indented by two. width: columns that it may take, 0 for any; the widest cells of text are
  /// shortened in their middle where it is too wide.
  std::string text(std::size_t width) const;
};

/// At most `width` columns of `text`, which is printable: "encoder/...ense/MatMul".
std::string shortened(std::string_view text, std::size_t width);

/// "25,557,032"
std::string with_commas(std::uint64_t number);
/// A number, an expression or "?" of a Quantity: "4.09 G", "768*seq", "?".
std::string human_count(const std::string& quantity);
/// The same of bytes, in powers of 1024.
std::string human_bytes(const std::string& quantity);

}  // namespace onnx2nn::cli
