// Protobuf's wire format, read in place: two offsets and a tag. Lengths are compared in 64 bits
// with what is left; every accessor checks the wire type; errors carry the byte offset and the
// message. https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "support/error.h"
#include "support/input_file.h"

namespace onnx2nn::wire {

enum class WireType : std::uint8_t {
  Varint = 0,
  Fixed64 = 1,
  Length = 2,
  StartGroup = 3,
  EndGroup = 4,
  Fixed32 = 5
};

class Reader {
 public:
  /// Reads `bytes`, which begin at `offset` of the file; `message` names it in errors. Where they
  /// are the places of bytes of `file`, they are read from it as far as they are looked at.
  Reader(std::span<const std::byte> bytes, std::uint64_t offset, const char* message,
         const InputFile* file = nullptr)
      : bytes_(bytes),
        offset_(offset),
        message_(message),
        file_(file),
        loaded_(file == nullptr ? bytes.size() : 0) {}

  /// The next field, or false at the end. The field before must have been read or skipped.
  bool next() {
    if (position_ == bytes_.size()) return false;
    const std::uint64_t tag = raw_varint();
    field_ = static_cast<std::uint32_t>(tag >> 3U);
    type_ = static_cast<WireType>(tag & 7U);
    if (tag >> 3U == 0 || tag >> 3U > 0x1FFFFFFFU) fail("field number out of range");
    return true;
  }
  std::uint32_t field() const { return field_; }
  WireType type() const { return type_; }

  std::uint64_t varint() {
    expect(WireType::Varint);
    return raw_varint();
  }
  std::int64_t int64() { return static_cast<std::int64_t>(varint()); }
  std::int32_t int32() { return static_cast<std::int32_t>(varint()); }
  float f32() {
    expect(WireType::Fixed32);
    return fixed<float>();
  }
  double f64() {
    expect(WireType::Fixed64);
    return fixed<double>();
  }
  /// The place of a run of bytes, which are not looked at.
  std::span<const std::byte> bytes() {
    expect(WireType::Length);
    const std::uint64_t n = raw_varint();
    const std::uint64_t left = bytes_.size() - position_;
    if (n > left)
      fail("length " + std::to_string(n) + " exceeds the " + std::to_string(left) + " bytes left");
    const auto out = bytes_.subspan(position_, static_cast<std::size_t>(n));
    position_ += static_cast<std::size_t>(n);
    return out;
  }
  std::string_view text() {
    const auto b = bytes();
    load(b.size());
    return {reinterpret_cast<const char*>(b.data()), b.size()};
  }
  std::string string() { return std::string(text()); }
  Reader message(const char* name) {
    const auto b = bytes();
    return {b, offset_ + position_ - b.size(), name, file_};
  }
  /// Calls `add` for each number of a repeated field, packed or not.
  template <typename Add>
  void int64s(Add&& add) {
    if (type_ != WireType::Length) return add(int64());
    Reader packed = message(message_);
    while (packed.position_ < packed.bytes_.size())
      add(static_cast<std::int64_t>(packed.raw_varint()));
  }
  template <typename T, typename Add>
  void fixeds(Add&& add) {
    if (type_ != WireType::Length) {
      expect(sizeof(T) == 4 ? WireType::Fixed32 : WireType::Fixed64);
      return add(fixed<T>());
    }
    Reader packed = message(message_);
    while (packed.position_ < packed.bytes_.size()) add(packed.fixed<T>());
  }
  void skip() {
    switch (type_) {
      case WireType::Varint:
        raw_varint();
        return;
      case WireType::Fixed64:
        advance(8);
        return;
      case WireType::Length:
        bytes();
        return;
      case WireType::Fixed32:
        advance(4);
        return;
      default:
        fail("unknown wire type");
    }
  }
  /// Offset in the file of the next byte.
  std::uint64_t offset() const { return offset_ + position_; }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("bad-model", std::string(message_) +
                                 (field_ != 0 ? " field " + std::to_string(field_) : "") +
                                 " at byte " + std::to_string(offset()) + ": " + what);
  }

 private:
  void expect(WireType type) const {
    if (type_ != type) fail("wrong wire type " + std::to_string(static_cast<int>(type_)));
  }
  void advance(std::size_t n) {
    if (n > bytes_.size() - position_) fail("the file ends in the middle of a field");
    position_ += n;
  }
  /// Reads the `n` bytes before the position from the file.
  void load(std::size_t n) {
    if (position_ <= loaded_) return;
    file_->bytes(offset_ + position_ - n, n);
    loaded_ = position_;
  }
  void load_more() {
    constexpr std::size_t kAhead = 64;  // most messages are not longer
    const std::size_t n = std::min(kAhead, bytes_.size() - position_);
    file_->bytes(offset_ + position_, n);
    loaded_ = position_ + n;
  }
  template <typename T>
  T fixed() {
    const std::size_t at = position_;
    advance(sizeof(T));
    load(sizeof(T));
    T v;
    std::memcpy(&v, bytes_.data() + at, sizeof(T));
    return v;
  }
  std::uint64_t raw_varint() {
    std::uint64_t out = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      if (position_ == bytes_.size()) fail("the file ends in the middle of a number");
      if (position_ >= loaded_) load_more();
      const auto b = static_cast<std::uint64_t>(bytes_[position_++]);
      if (shift == 63 && b > 1) fail("a number exceeds 64 bits");
      out |= (b & 0x7FU) << shift;
      if (b < 0x80U) return out;
    }
    fail("a number exceeds 64 bits");
  }

  std::span<const std::byte> bytes_;
  std::uint64_t offset_;
  const char* message_;
  const InputFile* file_;
  std::size_t loaded_;  // from the position up to here, at least
  std::size_t position_ = 0;
  std::uint32_t field_ = 0;
  WireType type_ = WireType::Varint;
};

}  // namespace onnx2nn::wire
