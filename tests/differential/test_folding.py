"""Operators of constants, folded: against whoever knows the answer, in each type and opset that is drawn.

Which operators fold at all is in `without_kernel.txt`: what is listed there is left to the run.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx2nn._native as native

from .engine import Case, answers, cases, differs, with_constants
from .table import ROWS, opsets_of

SEEDS = range(6)
# Deterministic operators of ai.onnx that are never folded: it may only shrink.
WITHOUT_KERNEL = Path(__file__).with_name("without_kernel.txt")
NONDETERMINISTIC = {op["type"] for op in native.op_table() if op["nondeterministic"]}
# Runtimes have the coefficients of these in single precision.
COEFFICIENTS = {"HannWindow", "HammingWindow", "BlackmanWindow"}
# Folding is not about the bodies of these, nor about what is no tensor.
BODIES = {"If", "Loop", "Scan", "SequenceMap"}


def folded(case: Case) -> list[Any] | None:
    """The outputs of the case with constants for inputs, where folding alone leaves no node of it."""
    model = with_constants(case) if case.feeds else case.model.SerializeToString()
    if model is None:
        return None
    result = native.simplify(model, None, {"only": ["fold-constants", "fold-shapes"]})
    if not result["ok"]:
        return None
    graph = onnx.load_from_string(result["model"]).graph
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:  # what is given out may be a copy
        if node.op_type != "Identity" or node.input[0] not in known:
            return None
        known[node.output[0]] = known[node.input[0]]
    return [known[o.name] for o in graph.output]


@pytest.mark.filterwarnings("ignore")
def test_folding() -> None:
    wrong, with_kernel = [], set()
    for (domain, op_type), row in ROWS.items():
        if domain or op_type in NONDETERMINISTIC | BODIES:
            continue
        for opset in opsets_of(op_type, domain):
            for seed, case in cases(op_type, domain, opset, SEEDS, row):
                with np.errstate(all="ignore"):
                    got = folded(case)
                    if got is None:
                        continue
                    known = answers(case, row)
                if not known:
                    continue
                if op_type in COEFFICIENTS:
                    known = [
                        (
                            name,
                            [
                                np.where(np.abs(y - g) < 1e-7, g, y).astype(y.dtype)
                                for g, y in zip(got, want, strict=True)
                            ],
                        )
                        for name, want in known
                    ]
                whys = [
                    next(
                        (
                            w
                            for g, y in zip(got, want, strict=True)
                            if (w := differs(g, y, case, row, name != "reference"))
                        ),
                        "",
                    )
                    for name, want in known
                ]
                # The reference means the newest opset at times: it proves who is right, not who is wrong.
                if not all(whys):
                    with_kernel.add(op_type)
                elif known[0][0] != "reference" or row.judge == "reference":
                    wrong.append(f"{op_type} {opset} {seed} against {known[0][0]}: {whys[0]}")
    assert not wrong, "\n".join(wrong)
    names = {op for domain, op in ROWS if not domain} - NONDETERMINISTIC - BODIES
    assert names - with_kernel == set(WITHOUT_KERNEL.read_text().split())
