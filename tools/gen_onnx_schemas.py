"""Writes src/ops/onnx_schemas.cpp: which attributes ONNX defines for each operator at any opset, and
which inputs and outputs a node must and may have.

usage: python tools/gen_onnx_schemas.py
An attribute that a node has but ONNX never defined is ignored with a warning, as runtimes do; one
that ONNX defines and a lowering does not read is an error. A node that lacks what it must have is
refused before anyone looks at it: what every revision asks for, since files mix the forms of several
opsets. The operators that ONNX Runtime adds are as its own schemas say.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

MANY = 2**31 - 1
OUT = Path(__file__).resolve().parent.parent / "src/ops/onnx_schemas.cpp"
HEAD = """\
// Written by tools/gen_onnx_schemas.py from the schemas of onnx and ONNX Runtime; do not edit.
#include "ops/onnx_schemas.h"

#include <algorithm>
#include <array>

namespace onnx2nn::ops {
namespace {

struct Attributes {
  std::string_view op;     // "domain::Type", sorted
  std::string_view names;  // each between blanks
};

struct Operands {
  std::string_view op;  // "domain::Type", sorted
  Arity arity;
};

"""
TAIL = """\

}  // namespace

bool defined_by_onnx(std::string_view domain, std::string_view type, std::string_view attribute, bool& known) {
  const std::string op = std::string(domain) + "::" + std::string(type);
  const auto* row = std::lower_bound(kAttributes.begin(), kAttributes.end(), op, [](const Attributes& r, const std::string& key) { return r.op < key; });
  known = row != kAttributes.end() && row->op == op;
  return known && row->names.find(" " + std::string(attribute) + " ") != std::string_view::npos;
}

Arity arity_of(std::string_view domain, std::string_view type) {
  const std::string op = std::string(domain) + "::" + std::string(type);
  const auto* row = std::lower_bound(kOperands.begin(), kOperands.end(), op, [](const Operands& r, const std::string& key) { return r.op < key; });
  return row != kOperands.end() && row->op == op ? row->arity : Arity{};
}

}  // namespace onnx2nn::ops
"""


def required(parameters: Iterable[Any], at_least: int) -> int:
    """A bit for each of the first 32 parameters that must be there."""
    bits = 0
    for i, parameter in enumerate(parameters):
        option = str(parameter.option).rsplit(".", 1)[-1]
        if option == "Single":
            bits |= 1 << i
        elif option == "Variadic":
            bits |= sum(1 << k for k in range(i, at_least))
    return bits & 0xFFFFFFFF


def main() -> None:
    """Collect the attributes and the arities of all schemas."""
    attributes: dict[str, set[str]] = {}
    arities: dict[str, tuple[int, int, int, int]] = {}
    schemas: list[Any] = onnx.defs.get_all_schemas_with_history()
    for schema in schemas:
        op = f"{schema.domain}::{schema.name}"
        attributes.setdefault(op, set()).update(schema.attributes)
    schemas += [s for s in runtime.get_all_operator_schema() if s.domain.startswith("com.m")]
    for schema in schemas:
        op = f"{schema.domain}::{schema.name}"
        # Operators of a layout that a runtime keeps to itself take what is fused into them too.
        before = arities.get(op, (-1, -1, 0, 0) if "internal" not in op else (-1, -1, MANY, MANY))
        arities[op] = (
            required(schema.inputs, schema.min_input) & before[0],
            # Runtimes take nodes whose later outputs are left out, which is safe.
            required(list(schema.outputs)[:1], 0) & before[1],
            max(min(schema.max_input, MANY), before[2]),
            max(min(schema.max_output, MANY), before[3]),
        )
    rows = [
        f'    {{"{op}", " {" ".join(sorted(names))} "}},\n'
        for op, names in sorted(attributes.items())
    ]
    text = HEAD + "constexpr auto kAttributes = std::to_array<Attributes>({\n" + "".join(rows)
    text += "});\n\nconstexpr auto kOperands = std::to_array<Operands>({\n"
    for op, (inputs, outputs, most_inputs, most_outputs) in sorted(arities.items()):
        text += f'    {{"{op}", {{{inputs:#x}, {outputs:#x}, {most_inputs}, {most_outputs}}}}},\n'
    OUT.write_text(text + "});\n" + TAIL)


if __name__ == "__main__":
    main()
