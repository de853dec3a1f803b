// A protobuf message being written: fields in order, lengths in front, large runs of bytes by
// reference.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnx/wire.h"
#include "support/atomic_file.h"
#include "support/input_file.h"

namespace onnx2nn::wire {

class Message {
 public:
  std::uint64_t size() const { return size_; }

  void varint(std::uint32_t field, std::uint64_t value) {
    key(field, WireType::Varint);
    raw_varint(value);
  }
  void int64(std::uint32_t field, std::int64_t value) {
    varint(field, static_cast<std::uint64_t>(value));
  }
  void f32(std::uint32_t field, float value) {
    key(field, WireType::Fixed32);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    char bytes[4];
    for (unsigned i = 0; i < 4; ++i) bytes[i] = static_cast<char>(bits >> (8 * i) & 0xFFU);
    raw({bytes, 4});
  }
  void text(std::uint32_t field, std::string_view value) {
    key(field, WireType::Length);
    raw_varint(value.size());
    raw(value);
  }
  /// Proto3 leaves out empty strings.
  void text_unless_empty(std::uint32_t field, std::string_view value) {
    if (!value.empty()) text(field, value);
  }
  void message(std::uint32_t field, Message&& inner) {
    key(field, WireType::Length);
    raw_varint(inner.size_);
    for (Piece& p : inner.pieces_) {
      raw(p.text);
      if (p.source.empty()) continue;
      size_ += p.source.size();
      tail().source = std::move(p.source);
    }
  }
  void bytes(std::uint32_t field, const ByteSource& source) {
    // Below this, a copy is cheaper than a piece of its own.
    constexpr std::size_t kSmall = 512;
    if (source.size() <= kSmall) return text(field, view(source));
    key(field, WireType::Length);
    raw_varint(source.size());
    size_ += source.size();
    tail().source = source;
  }

  void write_to(AtomicFile& file) const {
    for (const Piece& p : pieces_) {
      file.append(std::string_view(p.text));
      file.append(p.source);
    }
  }
  std::string str() const {
    std::string out;
    out.reserve(static_cast<std::size_t>(size_));
    for (const Piece& p : pieces_) {
      out += p.text;
      out += view(p.source);
    }
    return out;
  }

 private:
  /// Text, then the bytes of a source.
  struct Piece {
    std::string text;
    ByteSource source;
  };
  static std::string_view view(const ByteSource& source) {
    const auto bytes = source.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  Piece& tail() {
    if (pieces_.empty() || !pieces_.back().source.empty()) pieces_.emplace_back();
    return pieces_.back();
  }
  void raw(std::string_view text) {
    if (text.empty()) return;
    tail().text += text;
    size_ += text.size();
  }
  void key(std::uint32_t field, WireType type) {
    raw_varint(std::uint64_t{field} << 3U | static_cast<std::uint64_t>(type));
  }
  void raw_varint(std::uint64_t value) {
    char bytes[10];
    std::size_t n = 0;
    for (; value >= 0x80U; value >>= 7U) bytes[n++] = static_cast<char>(value | 0x80U);
    bytes[n++] = static_cast<char>(value);
    raw({bytes, n});
  }

  std::vector<Piece> pieces_;
  std::uint64_t size_ = 0;
};

}  // namespace onnx2nn::wire
