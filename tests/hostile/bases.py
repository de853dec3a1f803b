"""Models that mean something: what the sweep and the mutator begin with."""

import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
from tests.differential import (
    layouts,
    microsoft_attention,
    microsoft_hybrid,
    microsoft_layers,
    microsoft_quantized,
    ml,
)
from tests.differential.engine import Skip, draw_case
from tests.differential.one_node import chosen, make_case, model_of
from tests.differential.table import ROWS, opsets_of

import onnx2nn._native as native
from backend import suite

OPERATORS: list[tuple[str, str]] = [(op["domain"], op["type"]) for op in native.op_table()]
_LARGEST = 64 * 1024  # bytes; what is larger costs more than it finds
_MODULES = [layouts, microsoft_attention, microsoft_hybrid, microsoft_layers]
_MODULES += [microsoft_quantized, ml]


@cache
def onnx_models() -> list[bytes]:
    """Those of ONNX's own test suite."""
    return [case.model for case in suite.cases().values() if len(case.model) <= _LARGEST]


def _drawn(seeds: int) -> Iterator[tuple[tuple[str, str], onnx.ModelProto]]:
    for (domain, op_type), row in ROWS.items():
        for opset in opsets_of(op_type, domain):
            for seed in range(seeds):
                try:
                    yield (domain, op_type), draw_case(op_type, domain, opset, seed, row).model
                except Skip:
                    continue
    for module in _MODULES:
        for spec in module.SPECS:
            for options in chosen(spec, 2 * seeds):
                case = make_case(spec, options)
                if case is not None:
                    yield spec.key, model_of(spec, case, case.inputs, case.attrs)[0]


@cache
def operator_models(seeds: int = 2) -> dict[tuple[str, str], list[bytes]]:
    """Models of one node by operator, as tests/differential draws them."""
    found: dict[tuple[str, str], list[bytes]] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for key, model in _drawn(seeds):
            data = model.SerializeToString()
            if len(data) <= _LARGEST:
                found.setdefault(key, []).append(data)
    return found


@cache
def attribute_kinds() -> dict[tuple[str, str], dict[str, int]]:
    """The attributes of each operator with their types, by ONNX's schemas and by the models drawn."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        kinds = {name: a.type.value for name, a in schema.attributes.items()}
        found.setdefault((schema.domain, schema.name), {}).update(kinds)
    for key, models in operator_models().items():
        for data in models:
            for node in onnx.ModelProto.FromString(data).graph.node:
                if (node.domain, node.op_type) == key:
                    kinds = found.setdefault(key, {})
                    kinds.update({a.name: a.type for a in node.attribute if a.name not in kinds})
    return found
