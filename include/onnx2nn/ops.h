// The operators that are known: the table that docs/ops.md is made from.
#pragma once

#include <string>
#include <vector>

namespace onnx2nn {

struct OpInfo {
  std::string domain;  // "" is ai.onnx
  std::string type;
  std::vector<int>
      changed_at;  // opsets in which the meaning changed; the first is where it appeared
  bool nondeterministic = false;  // random: never folded, never merged
  bool infers = false;            // says types and shapes
  bool lowers = false;            // becomes torch code
};

/// All operators, in order of domain and type.
std::vector<OpInfo> op_table();

}  // namespace onnx2nn
