// Pickle protocol 2, as far as torch's own readers of weights and of TorchScript go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace onnx2nn::emit {

/// The lowest `bytes` bytes of `value`, little-endian.
void append_number(std::string& out, std::uint64_t value, std::size_t bytes);

class Pickle {
 public:
  Pickle() : text_("\x80\x02") {}

  void op(char code) { text_ += code; }
  void global(std::string_view module, std::string_view name);
  void text(std::string_view value);
  void integer(std::uint64_t value);
  void integers(std::span<const std::int64_t> values);
  void boolean(bool value) { op(value ? '\x88' : '\x89'); }
  void ordered_dict();
  /// What was written last, under a number; and again, what has that number.
  void memoize(std::size_t number);
  void recall(std::size_t number);
  std::string finish();

 private:
  std::string text_;
};

}  // namespace onnx2nn::emit
