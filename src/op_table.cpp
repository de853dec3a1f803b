#include "onnx2nn/ops.h"

#include <algorithm>
#include <tuple>

#include "ops/op.h"

namespace onnx2nn {

std::vector<OpInfo> op_table() {
  std::vector<OpInfo> table;
  for (const auto family : ops::all_families()) {
    for (const ops::OpDef& op : family) {
      OpInfo info{std::string(op.domain), std::string(op.type), {},
                  op.nondeterministic,    op.infer != nullptr,
                  op.lower != nullptr || op.other_layout};
      // Zeros pad the list, none is inside it: a test of the table holds that.
      for (const int opset : op.changed_at)
        if (opset != 0) info.changed_at.push_back(opset);
      table.push_back(std::move(info));
    }
  }
  std::sort(table.begin(), table.end(), [](const OpInfo& a, const OpInfo& b) {
    return std::tie(a.domain, a.type) < std::tie(b.domain, b.type);
  });
  return table;
}

}  // namespace onnx2nn
