#include "cli/table.h"

#include <algorithm>
#include <cstdint>

#include <fmt/core.h>

#include "support/clipped.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

constexpr std::size_t kIndent = 2;
constexpr std::size_t kGap = 2;
// Columns that a cell keeps.
constexpr std::size_t kLeastName = 13;
constexpr std::size_t kLeastNumber = 11;
// Columns to which shorter cells are filled up: a name of a megabyte is not paid for in each row.
constexpr std::size_t kMostFilled = 200;

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

/// The sum, with numbers as `number` writes them. has_unit: so that 1 is written, too.
std::string sum_text(const Amount& amount, std::string (*number)(std::uint64_t), bool has_unit) {
  if (amount.terms.empty()) return amount.text == "0" ? number(0) : printable(amount.text);
  std::string out;
  for (const Amount::Term& t : amount.terms) {
    const auto magnitude = static_cast<std::uint64_t>(t.coefficient);
    if (t.coefficient < 0) out += out.empty() ? "-" : " - ";
    if (t.coefficient > 0 && !out.empty()) out += " + ";
    const std::uint64_t size = t.coefficient < 0 ? 0 - magnitude : magnitude;
    std::vector<std::string> factors;
    if (size != 1 || t.factors.empty() || has_unit) factors.push_back(number(size));
    for (const std::string& factor : t.factors) factors.push_back(printable(factor));
    out += join(factors, " * ");
  }
  return out;
}

}  // namespace

std::string shortened(std::string_view text, std::size_t width) {
  if (width < kLeastNumber || text.size() <= width || display_width(text) <= width) return std::string(text);
  // Columns are bytes only in ASCII; no character takes more columns than bytes.
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!ascii) return fmt::format("{}...", clipped(text, width - 3));
  const std::size_t head = (width - 3) / 2;
  const std::size_t tail = width - 3 - head;
  return fmt::format("{}...{}", text.substr(0, head), text.substr(text.size() - tail));
}

std::string shortened_number(std::string_view text, std::size_t width) {
  if (text.size() <= width || width < kLeastNumber) return std::string(text);
  // Two dots, so that a number and its unit fit into the least that is left to them.
  constexpr std::string_view kMore = " + ..";
  // After as many terms of a sum as there is room for.
  const std::string_view sum = text.substr(0, width - kMore.size() + 1);
  const std::size_t end = std::max(sum.rfind(" + ") + 1, sum.rfind(" - ") + 1);
  if (end > 1) return fmt::format("{}{}", text.substr(0, end - 1), kMore);
  return fmt::format("{}..", clipped(text, width - 2));
}

std::string counted(std::size_t count, std::string_view thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

std::string Table::text(std::size_t width) const {
  const std::size_t columns = header.size();
  std::vector<std::size_t> widths(columns);
  const auto measure = [&](const std::vector<std::string>& row) {
    for (std::size_t k = 0; k < columns; ++k)
      widths[k] = std::max(widths[k], std::min(display_width(row[k]), kMostFilled));
  };
  measure(header);
  for (const auto& row : rows) measure(row);
  std::size_t sum = kIndent + kGap * (columns - 1);
  for (const std::size_t w : widths) sum += w;
  // Sums are cut before names, which say what they are of.
  const auto first_number = widths.begin() + static_cast<std::ptrdiff_t>(std::min(numbers, columns));
  const auto narrow = [&](auto first, auto last, std::size_t least) {
    while (width > 0 && sum > width && first != last) {
      const auto widest = std::max_element(first, last);
      if (*widest <= least) return;
      const std::size_t cut = std::min(sum - width, *widest - least);
      *widest -= cut;
      sum -= cut;
    }
  };
  narrow(first_number, widths.end(), kLeastNumber);
  narrow(widths.begin(), first_number, kLeastName);
  std::string out;
  const auto print = [&](const std::vector<std::string>& row) {
    std::string line(kIndent, ' ');
    for (std::size_t k = 0; k < columns; ++k) {
      if (k > 0) line += std::string(kGap, ' ');
      const std::string cell = width == 0                        ? row[k]
                               : k >= numbers && &row != &header ? shortened_number(row[k], widths[k])
                                                                 : shortened(row[k], widths[k]);
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

std::string human_count(std::uint64_t number) { return scaled(number, 1000, "KMGTPE", ""); }

std::string human_count(const Amount& amount) { return sum_text(amount, human_count, false); }

std::string human_bytes(std::uint64_t number) {
  if (number == 1) return "1 byte";
  return number < 1024 ? fmt::format("{} bytes", number) : scaled(number, 1024, "KMGTPE", "iB");
}

std::string human_bytes(const Amount& amount) { return sum_text(amount, human_bytes, true); }

}  // namespace onnx2nn::cli
