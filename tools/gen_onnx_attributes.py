"""Writes src/ops/onnx_attributes.cpp: which attributes ONNX defines for each operator, at any opset.

usage: python tools/gen_onnx_attributes.py
An attribute that a node has but ONNX never defined is ignored with a warning, as runtimes do; one
that ONNX defines and a lowering does not read is an error.
"""

from pathlib import Path

import onnx

OUT = Path(__file__).resolve().parent.parent / "src/ops/onnx_attributes.cpp"
HEAD = """\
// Written by tools/gen_onnx_attributes.py from onnx.defs; do not edit.
#include "ops/onnx_attributes.h"

#include <algorithm>
#include <array>

namespace onnx2nn::ops {
namespace {

struct Row {
  std::string_view op;  // "domain::Type", sorted
  std::string_view attributes;  // each between blanks
};

constexpr auto kRows = std::to_array<Row>({
"""
TAIL = """\
});

}  // namespace

bool defined_by_onnx(std::string_view domain, std::string_view type, std::string_view attribute, bool& known) {
  const std::string op = std::string(domain) + "::" + std::string(type);
  const auto* row = std::lower_bound(kRows.begin(), kRows.end(), op, [](const Row& r, const std::string& key) { return r.op < key; });
  known = row != kRows.end() && row->op == op;
  return known && row->attributes.find(" " + std::string(attribute) + " ") != std::string_view::npos;
}

}  // namespace onnx2nn::ops
"""


def main() -> None:
    """Collect the attributes of all schemas."""
    table: dict[str, set[str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        table.setdefault(f"{schema.domain}::{schema.name}", set()).update(schema.attributes)
    rows = "".join(
        f'    {{"{op}", " {" ".join(sorted(names))} "}},\n' for op, names in sorted(table.items())
    )
    OUT.write_text(HEAD + rows + TAIL)


if __name__ == "__main__":
    main()
