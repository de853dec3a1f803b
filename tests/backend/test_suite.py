"""ONNX's own backend suite through `onnx2nn.backend`, each case in three forms.

simplified: as it stands; plain: with simplification off; constants: with its inputs turned into
constants, so that our own evaluator folds what it can and must not fold it wrongly.
What does not pass is in manifest.txt, which may only shrink.
"""

import os
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.runner import Runner

import onnx2nn.backend

from .suite import Case, accept, cases, read_manifest

CASES = cases()
ENTRIES = read_manifest()
FORMS = ("simplified", "plain", "constants")
ACCEPT = bool(os.environ.get("ONNX2NN_ACCEPT"))
ACCEPT_NEW = bool(os.environ.get("ONNX2NN_ACCEPT_NEW"))


def with_constants(case: Case, inputs: list[Any]) -> bytes | None:
    """The model with its inputs as initialisers; None where one is no tensor or there are none."""
    model = onnx.load_from_string(case.model)
    graph = model.graph
    if not inputs or len(inputs) != len(graph.input) or graph.initializer:
        return None
    for info, value in zip(graph.input, inputs):
        if info.type.WhichOneof("value") != "tensor_type" or not isinstance(
            value, (np.ndarray, np.generic)
        ):
            return None
        tensor = numpy_helper.from_array(np.asarray(value), info.name)
        if tensor.data_type != info.type.tensor_type.elem_type:
            return None
        graph.initializer.append(tensor)
    del graph.input[:]
    return model.SerializeToString()


def compare(case: Case, rep: Any, inputs: list[Any], expected: list[Any]) -> None:
    """Runs once and compares as ONNX's runner does."""
    compare_values(case, expected, list(rep.run(inputs)))


def compare_values(case: Case, expected: list[Any], got: list[Any]) -> None:
    # ONNX's runner takes the elements of sequences apart once more, which scalars cannot be.
    assert len(got) == len(expected)
    for e, g in zip(expected, got):
        if isinstance(e, list):
            assert isinstance(g, list)
            compare_values(case, e, g)
        else:
            Runner.assert_similar_outputs([e], [g], rtol=case.rtol, atol=case.atol)


def run(case: Case, form: str) -> None:
    """Runs a case in one form; raises where it does not pass."""
    if form == "constants":
        for inputs, expected in case.data_sets:
            model = with_constants(case, inputs)
            if model is not None:
                compare(case, onnx2nn.backend.prepare(model), [], expected)
        return
    rep = onnx2nn.backend.prepare(case.model, simplify=form == "simplified")
    for inputs, expected in case.data_sets:
        compare(case, rep, inputs, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    failures = {}
    for form in FORMS:
        try:
            run(CASES[name], form)
        except Exception as e:  # whatever went wrong is the answer
            failures[form] = f"{type(e).__name__}: {e}"
    listed = ENTRIES[name].forms if name in ENTRIES else set()
    if ACCEPT and accept(name, failures, ACCEPT_NEW):
        return
    for form in failures.keys() - listed:
        pytest.fail(f"{name}, {form}: {failures[form]}", pytrace=False)
    if passing := listed - failures.keys():
        pytest.fail(
            f"{name} passes now ({', '.join(sorted(passing))}): take it off the manifest, "
            "which ONNX2NN_ACCEPT=1 does",
            pytrace=False,
        )
    if failures:
        pytest.xfail(ENTRIES[name].reason)


def test_manifest_names_cases() -> None:
    assert ENTRIES.keys() <= CASES.keys(), sorted(ENTRIES.keys() - CASES.keys())
    for name, entry in ENTRIES.items():
        assert entry.forms <= set(FORMS), name
