#include "cli/table.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include <fmt/core.h>

#include "support/text.h"

namespace onnx2nn::cli {
namespace {

constexpr std::size_t kIndent = 2;
constexpr std::size_t kGap = 2;
constexpr std::size_t kLeast = 12;  // columns that a cell of text keeps

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size()) return std::nullopt;
  return n;
}

std::string scaled(std::uint64_t n, double unit, std::string_view steps, std::string_view suffix) {
  auto value = static_cast<double>(n);
  std::size_t step = 0;
  while (value >= unit && step < steps.size()) {
    value /= unit;
    ++step;
  }
  if (step == 0) return fmt::format("{}", n);
  return fmt::format("{:.{}f} {}{}", value, value < 100 ? 2 : 1, steps[step - 1], suffix);
}

}  // namespace

std::string shortened(std::string_view text, std::size_t width) {
  // Columns are bytes only in ASCII; other text stays whole.
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!ascii || text.size() <= width || width < kLeast) return std::string(text);
  const std::size_t head = (width - 3) / 2;
  const std::size_t tail = width - 3 - head;
  return fmt::format("{}...{}", text.substr(0, head), text.substr(text.size() - tail));
}

std::string Table::text(std::size_t width) const {
  const std::size_t columns = header.size();
  std::vector<std::size_t> widths(columns);
  const auto measure = [&](const std::vector<std::string>& row) {
    for (std::size_t k = 0; k < columns; ++k) widths[k] = std::max(widths[k], display_width(row[k]));
  };
  measure(header);
  for (const auto& row : rows) measure(row);
  std::size_t sum = kIndent + kGap * (columns - 1);
  for (const std::size_t w : widths) sum += w;
  while (width > 0 && sum > width) {
    auto* const widest = &*std::max_element(widths.begin(), widths.end());
    if (*widest <= kLeast) break;
    const std::size_t cut = std::min(sum - width, *widest - kLeast);
    *widest -= cut;
    sum -= cut;
  }
  std::string out;
  const auto print = [&](const std::vector<std::string>& row) {
    std::string line(kIndent, ' ');
    for (std::size_t k = 0; k < columns; ++k) {
      if (k > 0) line += std::string(kGap, ' ');
      const std::string cell = shortened(row[k], widths[k]);
      const std::size_t taken = display_width(cell);
      const std::string pad(widths[k] > taken ? widths[k] - taken : 0, ' ');
      line += k >= numbers ? pad + cell : cell + pad;
    }
    line.resize(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  print(header);
  for (const auto& row : rows) print(row);
  return out;
}

std::string with_commas(std::uint64_t number) {
  std::string out = std::to_string(number);
  for (std::size_t at = out.size(); at > 3;) out.insert(at -= 3, ",");
  return out;
}

std::string human_count(const std::string& quantity) {
  const auto n = number_of(quantity);
  return n ? scaled(*n, 1000, "KMGTPE", "") : quantity;
}

std::string human_bytes(const std::string& quantity) {
  const auto n = number_of(quantity);
  if (!n) return quantity == "?" ? quantity : quantity + " bytes";
  return *n < 1024 ? fmt::format("{} bytes", *n) : scaled(*n, 1024, "KMGTPE", "iB");
}

}  // namespace onnx2nn::cli
