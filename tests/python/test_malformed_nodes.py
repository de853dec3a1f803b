"""Nodes of every operator with operands and attributes that do not fit: refused or converted, never a crash.

python tests/python/test_malformed_nodes.py SEED [MANY]    more of them
"""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx2nn import _native

OPS = [(op["domain"], op["type"]) for op in _native.op_table()]
OPSETS = {"": [1, 7, 11, 13, 17, 21, 24, 28], "ai.onnx.ml": [1, 3, 5]}
SHAPES: list[Any] = [None, [], [0], [1], [2, 3], [1, 2, 4, 4], ["a", "b"], [None] * 4, [1] * 7]
TYPES = [1, 1, 1, 7, 6, 2, 3, 10, 9, 8, 11, 16, 22, 27]
STRING = 8
VALUES: dict[str, Callable[[random.Random], Any]] = {
    "INT": lambda r: r.choice([0, 1, -1, 2, 7, -5, 10, 2**40]),
    "FLOAT": lambda r: r.choice([0.0, 1.0, -1.0, float("nan"), 1e30]),
    "STRING": lambda r: r.choice(["", "NOTSET", "SAME_UPPER", "linear", "reverse", "SUM", "NONE"]),
    "INTS": lambda r: [r.choice([0, 1, -1, 2, 3, 2**33]) for _ in range(r.randint(1, 5))],
    "FLOATS": lambda r: [r.choice([0.0, 1.0, float("nan")]) for _ in range(r.randint(1, 4))],
    "STRINGS": lambda r: [r.choice(["", "a", "Tanh"]) for _ in range(r.randint(1, 4))],
    "TENSOR": lambda r: numpy_helper.from_array(
        np.zeros(r.choice([(), (0,), (2, 3)]), r.choice(["float32", "int64", "uint8"]))
    ),
}


def attribute_types() -> dict[tuple[str, str], dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        kinds = {n: str(a.type).rsplit(".", 1)[-1] for n, a in schema.attributes.items()}
        found.setdefault((schema.domain, schema.name), {}).update(kinds)
    return found


ATTRIBUTES = attribute_types()


def malformed(r: random.Random, domain: str, op_type: str) -> onnx.ModelProto:
    """A model of one node; what it is given has little to do with what it takes."""
    names, inputs, constants = [], [], []
    for i in range(r.randint(0, 7)):
        name = f"i{i}"
        names.append(name if r.random() < 0.8 else "")
        if not names[-1]:
            continue
        kind, shape = r.choice(TYPES), r.choice(SHAPES)
        if r.random() < 0.4 and kind != STRING:
            dims = [d if isinstance(d, int) else 2 for d in shape or []]
            size = int(np.prod(dims, dtype=np.int64))
            constants.append(helper.make_tensor(name, kind, dims, [r.choice([0, 1])] * size))
        else:
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
    outputs = [f"o{i}" if r.random() < 0.75 else "" for i in range(r.randint(0, 5))]
    attributes = {
        name: VALUES[kind](r)
        for name, kind in ATTRIBUTES.get((domain, op_type), {}).items()
        if kind in VALUES and r.random() < 0.5
    }
    node = helper.make_node(op_type, names, outputs, domain=domain, **attributes)
    imports = [helper.make_opsetid(domain, r.choice(OPSETS.get(domain, [1])))]
    if domain:
        imports.append(helper.make_opsetid("", r.choice(OPSETS[""])))
    given_out = [onnx.ValueInfoProto(name=o) for o in outputs if o]
    graph = helper.make_graph([node], "g", inputs, given_out, constants)
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def models(seed: int, many: int) -> Iterator[tuple[str, bytes]]:
    r = random.Random(seed)
    for _ in range(many):
        for domain, op_type in OPS:
            yield f"{domain}::{op_type}", malformed(r, domain, op_type).SerializeToString()


def take(model: bytes) -> None:
    for simplify in (True, False):
        _native.convert(model, {"simplify": simplify})
    for options in ({}, {"opset": 21}):
        _native.simplify(model, options=options)


def test_no_malformed_node_ends_the_process() -> None:
    command = [sys.executable, __file__, "0", "40"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    last = (result.stdout.splitlines() or ["nothing"])[-1]
    assert result.returncode == 0, f"after {last}: {result.stderr[-500:]}"
    assert last == "done"


if __name__ == "__main__":
    seed, many = int(sys.argv[1]), int((sys.argv[2:] or ["100"])[0])
    for name, model in models(seed, many):
        print(name, flush=True)
        take(model)
    print("done")
