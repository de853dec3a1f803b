"""Writes src/ops/onnx_schemas.cpp: which attributes ONNX defines for each operator at any opset, what
one that is left out stands for, and which inputs and outputs a node must and may have.

usage: python tools/gen_onnx_schemas.py
An attribute that a node has but ONNX never defined is ignored with a warning, as runtimes do; one
that ONNX defines and a lowering does not read is an error. A node that lacks what it must have is
refused before anyone looks at it: what every revision asks for, since files mix the forms of several
opsets. The operators that ONNX Runtime adds are as its own schemas say.

Defaults are those of the schemas. Of a list that is as long as there are axes they know none, but say in
words what each element is then.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
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

struct Default {
  std::string_view attribute;  // "domain::Type.name"; sorted, with the opset
  std::int64_t since = 1;
  std::string_view text;
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

std::string_view default_of(std::string_view domain, std::string_view type, std::int64_t opset, std::string_view attribute) {
  const std::string key = std::string(domain) + "::" + std::string(type) + "." + std::string(attribute);
  const auto* row = std::upper_bound(kDefaults.begin(), kDefaults.end(), key, [&](const std::string& k, const Default& r) { return k != r.attribute ? k < r.attribute : opset < r.since; });
  return row != kDefaults.begin() && (row - 1)->attribute == key ? (row - 1)->text : "";
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


def text_of(default: onnx.AttributeProto) -> str:
    """A default as the core writes attributes; empty where there is none."""

    def one(value: Any) -> str:
        if isinstance(value, bytes):
            return f'"{value.decode()}"'
        # Attributes are floats of 32 bits.
        shortest = np.float32(value) if isinstance(value, float) else value
        return str(shortest).removesuffix(".0")

    if default.type == onnx.AttributeProto.UNDEFINED:
        return ""
    value = onnx.helper.get_attribute_value(default)
    # A schema of old misspells it.
    value = b"forward" if value == b"foward" else value
    return f"[{', '.join(map(one, value))}]" if isinstance(value, list) else one(value)


def parsed(default: bytes) -> onnx.AttributeProto:
    """A default of ONNX Runtime's."""
    proto = onnx.AttributeProto()
    proto.ParseFromString(default)
    return proto


def defaults_of(schemas: list[Any]) -> list[tuple[str, int, str]]:
    """(attribute, the opset from which it is so, default), sorted."""
    found: dict[str, dict[int, str]] = {}
    each: dict[str, str] = {}
    for schema in schemas:
        if "internal" in schema.domain:  # of no file
            continue
        for name, a in schema.attributes.items():
            key = f"{schema.domain}::{schema.name}.{name}"
            raw = getattr(a, "_default_value", None)
            text = text_of(a.default_value if raw is None else parsed(raw))
            found.setdefault(key, {})[schema.since_version] = text
            said = re.search(r"defaults? (?:is|to) (\d) along", a.description)
            if said and str(a.type).endswith("INTS"):
                each[key] = f"each {said[1]}"
    rows = []
    for key, versions in found.items():
        last = ""
        for since, text in sorted(versions.items()):
            text = each.get(key, text)
            if text != last:
                rows.append((key, since, text))
            last = text
    return sorted(rows)


def main() -> None:
    """Collect the attributes, the defaults and the arities of all schemas."""
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
    text += "});\n\nconstexpr auto kDefaults = std::to_array<Default>({\n"
    for attribute, since, default in defaults_of(schemas):
        quoted = default.replace('"', '\\"')
        text += f'    {{"{attribute}", {since}, "{quoted}"}},\n'
    OUT.write_text(text + "});\n" + TAIL)


if __name__ == "__main__":
    main()
