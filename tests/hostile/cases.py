"""The two streams of hostile models: every operator with odd operands, and structures at random.

Each case follows from its seed and its number alone.
"""

from collections.abc import Iterator
from random import Random

import numpy as np
import onnx
from onnx import helper

from . import change, odd
from .bases import OPERATORS, attribute_kinds, onnx_models, operator_models

OPSETS = {"": [1, 7, 11, 13, 17, 21, 24, 28], "ai.onnx.ml": [1, 3, 5]}
SHAPES = [None, [], [0], [1], [2, 3], [1, 2, 4, 4], ["a", "b"], [None] * 4, [1] * 7]


def anything(r: Random, domain: str, op_type: str) -> onnx.ModelProto:
    """A model of one node; what it is given has little to do with what it takes."""
    names, inputs, constants = [], [], []
    for i in range(r.randint(0, 7)):
        name = f"i{i}" if r.random() < 0.8 else ""
        names.append(name)
        if not name:
            continue
        if r.random() < 0.4:
            constants.append(odd.tensor(r, name))
        else:
            kind = r.choice(odd.DTYPES)
            inputs.append(helper.make_tensor_value_info(name, kind, r.choice(SHAPES)))
    outputs = [f"o{i}" if r.random() < 0.75 else "" for i in range(r.randint(0, 5))]
    node = helper.make_node(op_type, names, outputs, domain=domain)
    for name, kind in attribute_kinds().get((domain, op_type), {}).items():
        if r.random() < 0.5:
            node.attribute.append(odd.attribute(r, name, kind, []))
    imports = [helper.make_opsetid(domain, r.choice(OPSETS.get(domain, [1])))]
    if domain:
        imports.append(helper.make_opsetid("", r.choice(OPSETS[""])))
    given_out = [onnx.ValueInfoProto(name=o) for o in outputs if o]
    graph = helper.make_graph([node], "g", inputs, given_out, constants)
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def sweep_case(seed: int, number: int) -> tuple[str, bytes]:
    """Case `number`: of the operators in turn, one with odd constants, attributes and shapes."""
    domain, op_type = OPERATORS[number % len(OPERATORS)]
    r = Random(f"sweep {seed} {number}")
    bases = operator_models().get((domain, op_type), [])
    if not bases or r.random() < 0.15:
        model = anything(r, domain, op_type)
    else:
        model = onnx.ModelProto.FromString(r.choice(bases))
        for _ in range(r.choice([1, 1, 1, 2, 2, 3])):
            r.choice(change.SWEEP)(r, model)
    return f"{domain or 'ai.onnx'}.{op_type}", model.SerializeToString()


def mutant(seed: int, number: int) -> tuple[str, bytes]:
    """Case `number` of the structures: a model or two of ONNX's or of ours, changed a few times."""
    r = Random(f"mutant {seed} {number}")

    def base() -> onnx.ModelProto:
        if r.random() < 0.6:
            return onnx.ModelProto.FromString(r.choice(onnx_models()))
        drawn = operator_models()
        return onnx.ModelProto.FromString(r.choice(drawn[r.choice(list(drawn))]))

    model = base()
    for _ in range(r.choice([0, 0, 0, 1, 1, 2, 4])):
        change.join(r, model, base())
    names = []
    for _ in range(r.choice([1, 1, 2, 2, 3, 5, 8])):
        chosen = r.choice(change.STRUCTURE if r.random() < 0.75 else change.SWEEP)
        names.append(chosen.__name__)
        chosen(r, model)
    return "+".join(names), model.SerializeToString()


STREAMS = {"sweep": sweep_case, "mutants": mutant}


def stream(kind: str, seed: int, numbers: range) -> Iterator[tuple[str, bytes]]:
    with np.errstate(all="ignore"):
        for number in numbers:
            yield STREAMS[kind](seed, number)
