// Identifiers as Python takes them (https://docs.python.org/3/reference/lexical_analysis.html): of
// letters of every script, read in their NFKC form.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace onnx2nn {

/// Whether `text` is an identifier in the form in which Python looks it up: UTF-8 and NFKC.
bool is_identifier(std::string_view text);

/// The longest runs of characters that an identifier may hold in `text`, brought to NFKC; what is
/// between them, and invalid bytes, separates. "my-net.ﬁx" gives my, net and fix. `also_at` separates
/// as well: '_', or NUL for nothing.
std::vector<std::string> identifier_words(std::string_view text, char also_at);

}  // namespace onnx2nn
