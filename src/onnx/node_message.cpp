#include "onnx/node_message.h"

#include "support/interrupt.h"

namespace onnx2nn::onnx {

using wire::Reader;

std::string canonical_domain(std::string_view domain) {
  return domain == "ai.onnx" ? std::string() : std::string(domain);
}

std::pair<std::string, std::string> read_entry(Reader m) {
  std::pair<std::string, std::string> out;
  while (m.next()) {
    if (m.field() == 1) {
      out.first = m.string();
    } else if (m.field() == 2) {
      out.second = m.string();
    } else {
      m.skip();
    }
  }
  return out;
}

std::pair<std::string, std::int64_t> read_opset(Reader m) {
  std::pair<std::string, std::int64_t> out{"", 0};
  while (m.next()) {
    if (m.field() == 1) {
      out.first = canonical_domain(m.text());
    } else if (m.field() == 2) {
      out.second = m.int64();
    } else {
      m.skip();
    }
  }
  return out;
}

RawNode read_node(Reader m) {
  check_interrupt();
  RawNode n;
  n.offset = m.offset();
  while (m.next()) {
    switch (m.field()) {
      case 1:
        n.inputs.push_back(m.text());
        break;
      case 2:
        n.outputs.push_back(m.text());
        break;
      case 3:
        n.name = m.text();
        break;
      case 4:
        n.op_type = m.text();
        break;
      case 5:
        n.attributes.push_back(m.message("AttributeProto"));
        break;
      case 6:
        n.doc_string = m.text();
        break;
      case 7:
        n.domain = m.text();
        break;
      case 8:
        n.overload = m.text();
        break;
      case 9:
        n.metadata.push_back(read_entry(m.message("StringStringEntryProto")));
        break;
      default:
        m.skip();
    }
  }
  return n;
}

bool is_gradient(const RawNode& n) {
  return n.op_type == "Gradient" && n.domain == "ai.onnx.preview.training";
}

std::string_view text_field(Reader m, std::uint32_t field) {
  std::string_view text;
  while (m.next()) {
    if (m.field() == field) {
      text = m.text();
    } else {
      m.skip();
    }
  }
  return text;
}

std::string_view gradient_target(const RawNode& n) {
  for (const Reader& a : n.attributes)
    if (text_field(a, 1) == "y") return text_field(a, 4);
  return {};
}

}  // namespace onnx2nn::onnx
