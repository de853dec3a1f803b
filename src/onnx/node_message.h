// Messages that the importer looks at more than once, as views over the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnx/wire.h"

namespace onnx2nn::onnx {

/// A NodeProto.
struct RawNode {
  std::vector<std::string_view> inputs;
  std::vector<std::string_view> outputs;
  std::string_view name, op_type, domain, overload, doc_string;
  std::vector<wire::Reader> attributes;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::uint64_t offset = 0;
};

/// The domain as graphs have it: "" is ai.onnx.
std::string canonical_domain(std::string_view domain);

/// StringStringEntryProto and OperatorSetIdProto.
std::pair<std::string, std::string> read_entry(wire::Reader m);
std::pair<std::string, std::int64_t> read_opset(wire::Reader m);
RawNode read_node(wire::Reader m);

bool is_gradient(const RawNode& n);
/// Gradient's attribute "y": it names the value that is differentiated.
std::string_view gradient_target(const RawNode& n);

/// The text in `field` of a message, the last one where it repeats: the name that it goes by.
std::string_view text_field(wire::Reader m, std::uint32_t field);

}  // namespace onnx2nn::onnx
