#include "emit/pickle.h"

#include <utility>

#include <fmt/core.h>

#include "support/checked.h"

namespace onnx2nn::emit {

void append_number(std::string& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>((value >> (8 * i)) & 0xFF);
}

void Pickle::global(std::string_view module, std::string_view name) {
  text_ += fmt::format("c{}\n{}\n", module, name);
}

void Pickle::text(std::string_view value) {
  text_ += 'X';
  append_number(text_, narrow<std::uint32_t>(value.size(), "name length"), 4);
  text_ += value;
}

void Pickle::integer(std::uint64_t value) {
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

void Pickle::integers(std::span<const std::int64_t> values) {
  op('(');
  for (const std::int64_t v : values) integer(static_cast<std::uint64_t>(v));
  op('t');
}

void Pickle::ordered_dict() {
  global("collections", "OrderedDict");
  text_ += ")R";
}

void Pickle::memoize(std::size_t number) {
  op('r');
  append_number(text_, narrow<std::uint32_t>(number, "number of weights"), 4);
}

void Pickle::recall(std::size_t number) {
  op('j');
  append_number(text_, narrow<std::uint32_t>(number, "number of weights"), 4);
}

std::string Pickle::finish() {
  op('.');
  return std::move(text_);
}

}  // namespace onnx2nn::emit
