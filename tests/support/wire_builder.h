// Models as wire bytes, made by hand: what no library would write too.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace onnx2nn::test {

/// A protobuf message under construction.
class Message {
 public:
  Message& varint(std::uint32_t field, std::uint64_t v) {
    tag(field, 0);
    raw_varint(v);
    return *this;
  }
  Message& bytes(std::uint32_t field, std::string_view v) {
    tag(field, 2);
    raw_varint(v.size());
    out_ += v;
    return *this;
  }
  Message& message(std::uint32_t field, const Message& m) { return bytes(field, m.out_); }
  Message& f32(std::uint32_t field, float v) {
    tag(field, 5);
    return raw(v);
  }
  Message& f64(std::uint32_t field, double v) {
    tag(field, 1);
    return raw(v);
  }
  Message& packed(std::uint32_t field, const std::vector<std::int64_t>& values) {
    Message m;
    for (const std::int64_t v : values) m.raw_varint(static_cast<std::uint64_t>(v));
    return bytes(field, m.out_);
  }
  Message& unpacked(std::uint32_t field, const std::vector<std::int64_t>& values) {
    for (const std::int64_t v : values) varint(field, static_cast<std::uint64_t>(v));
    return *this;
  }
  Message& packed_floats(std::uint32_t field, const std::vector<float>& values) {
    Message m;
    for (const float v : values) m.raw(v);
    return bytes(field, m.out_);
  }
  /// A length-delimited field that says `length` and holds `v`.
  Message& lying(std::uint32_t field, std::uint64_t length, std::string_view v) {
    tag(field, 2);
    raw_varint(length);
    out_ += v;
    return *this;
  }
  Message& tag(std::uint32_t field, std::uint32_t type) {
    raw_varint((static_cast<std::uint64_t>(field) << 3U) | type);
    return *this;
  }
  Message& raw_varint(std::uint64_t v) {
    while (v >= 0x80U) {
      out_ += static_cast<char>((v & 0x7FU) | 0x80U);
      v >>= 7U;
    }
    out_ += static_cast<char>(v);
    return *this;
  }
  template <typename T>
  Message& raw(T v) {
    char b[sizeof(T)];
    std::memcpy(b, &v, sizeof b);
    out_.append(b, sizeof b);
    return *this;
  }
  Message& append(const Message& m) {
    out_ += m.out_;
    return *this;
  }
  static Message of(std::string bytes) {
    Message m;
    m.out_ = std::move(bytes);
    return m;
  }
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

// Field numbers are those of onnx.proto.

inline Message tensor_type(std::int32_t dtype, const std::vector<std::string>& dims) {
  Message shape;
  for (const std::string& d : dims) {
    Message dim;
    if (d.find_first_not_of("0123456789") == std::string::npos) {
      dim.varint(1, std::stoull(d));
    } else {
      dim.bytes(2, d);
    }
    shape.message(1, dim);
  }
  return Message().message(
      1, Message().varint(1, static_cast<std::uint64_t>(dtype)).message(2, shape));
}

inline Message value_info(std::string_view name, std::int32_t dtype,
                          const std::vector<std::string>& dims) {
  return Message().bytes(1, name).message(2, tensor_type(dtype, dims));
}

inline Message node(std::string_view type, const std::vector<std::string>& inputs,
                    const std::vector<std::string>& outputs,
                    const std::vector<Message>& attributes = {}, std::string_view domain = "") {
  Message n;
  for (const auto& i : inputs) n.bytes(1, i);
  for (const auto& o : outputs) n.bytes(2, o);
  n.bytes(3, std::string("node_") + (outputs.empty() ? "" : outputs[0])).bytes(4, type);
  for (const auto& a : attributes) n.message(5, a);
  if (!domain.empty()) n.bytes(7, domain);
  return n;
}

inline Message attr_int(std::string_view name, std::int64_t v) {
  return Message().bytes(1, name).varint(3, static_cast<std::uint64_t>(v)).varint(20, 2);
}
inline Message attr_float(std::string_view name, float v) {
  return Message().bytes(1, name).f32(2, v).varint(20, 1);
}
inline Message attr_string(std::string_view name, std::string_view v) {
  return Message().bytes(1, name).bytes(4, v).varint(20, 3);
}
inline Message attr_tensor(std::string_view name, const Message& t) {
  return Message().bytes(1, name).message(5, t).varint(20, 4);
}
inline Message attr_graph(std::string_view name, const Message& g) {
  return Message().bytes(1, name).message(6, g).varint(20, 5);
}
inline Message attr_ref(std::string_view name, std::string_view caller_name, std::uint64_t type) {
  return Message().bytes(1, name).bytes(21, caller_name).varint(20, type);
}

/// A float32 tensor with raw data.
inline Message float_tensor(std::string_view name, const std::vector<std::int64_t>& dims,
                            const std::vector<float>& values) {
  Message raw;
  for (const float v : values) raw.raw(v);
  return Message().packed(1, dims).varint(2, 1).bytes(8, name).bytes(9, raw.str());
}

/// Parts of a graph; `extra` is appended to it as it stands.
struct GraphParts {
  std::vector<Message> nodes;
  std::vector<Message> inputs;
  std::vector<Message> outputs;
  std::vector<Message> initializers;
  Message extra;

  Message build() const {
    Message g;
    for (const auto& n : nodes) g.message(1, n);
    g.bytes(2, "g");
    for (const auto& t : initializers) g.message(5, t);
    for (const auto& i : inputs) g.message(11, i);
    for (const auto& o : outputs) g.message(12, o);
    return g.append(extra);
  }
};

inline Message opset(std::string_view domain, std::uint64_t version) {
  return Message().bytes(1, domain).varint(2, version);
}

inline Message model(const Message& graph, std::uint64_t version = 17) {
  return Message().varint(1, 8).message(8, opset("", version)).message(7, graph);
}

}  // namespace onnx2nn::test
