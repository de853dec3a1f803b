// Attributes and constants of nodes, as text and compared.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "inspect/align.h"
#include "ir/graph.h"

namespace onnx2nn::inspect {

/// A type without what inference does not know: "float32[batch, 3, ?]".
std::string text_of(const ir::Type& type);
/// Its type, and its value where that is one number: "int64[] 7".
std::string text_of(const ir::Tensor& t);
/// A value, of which a list shows its first elements: "[1, 1]", "\"NOTSET\"", "a graph of 3 nodes".
std::string text_of(const ir::Attribute& a);
/// What a node that has no such attribute does: "1 (default)", "(none)" where the schemas say nothing.
std::string default_text(const ir::Node& n, const std::string& attribute);

/// A text between quotes, its beginning where it is long.
std::string quoted(const std::string& s);
/// "[a, b]"
std::string names_text(const std::vector<std::string>& names);

/// Whether both are equal but for what nested graphs hold.
bool is_same(const ir::Attribute& a, const ir::Attribute& b, Contents& contents);
/// Whether a node without the attribute would do what this says.
bool is_at_default(const ir::Node& n, const ir::Attribute& a);

}  // namespace onnx2nn::inspect
