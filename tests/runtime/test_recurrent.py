"""Recurrent helpers against ONNX's node cases and ONNX Runtime."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import recurrent

from . import vision_cases as vc


def without_size(a: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in a.items() if k != "hidden_size"}


CALLS = {
    "LSTM": lambda v, a: recurrent.lstm(*v, **without_size(a)),
    "GRU": lambda v, a: recurrent.gru(*v, **without_size(a)),
    "RNN": lambda v, a: recurrent.rnn(*v, **without_size(a)),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {
    "LSTM": ["HardSigmoid", "Tanh", "Affine"],
    "GRU": ["HardSigmoid", "LeakyRelu"],
    "RNN": ["ScaledTanh"],
}


@pytest.mark.parametrize("case", [c for op in CALLS for c in vc.cases_of(op)], ids=lambda c: c.name)
def test_node(case: TestCase) -> None:
    vc.check(case, CALLS[case.model.graph.node[0].op_type])


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    "lengths, rich, own", list(itertools.product([False, True], [False, True], [False, True]))
)
def test_runtime(op: str, direction: str, lengths: bool, rich: bool, own: bool) -> None:
    rng = np.random.default_rng(len(op) + rich)
    d, t, n, i, h = 2 if direction == "bidirectional" else 1, 5, 3, 4, 6

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.7).astype(np.float32)

    g = GATES[op] * h
    arrays: list[Any] = [draw(t, n, i), draw(d, g, i), draw(d, g, h), draw(d, 2 * g)]
    arrays.append(np.array([5, 0, 3], np.int32) if lengths else None)
    arrays.append(draw(d, n, h) if rich else None)
    a: dict[str, Any] = {"direction": direction, "hidden_size": h}
    if op == "LSTM":
        arrays.append(draw(d, n, h) if rich else None)
        arrays.append(draw(d, 3 * h) if rich else None)
        if own:
            a["input_forget"] = 1
    if op == "GRU":
        a["linear_before_reset"] = int(own)
    if own:
        a["activations"] = ACTIVATIONS[op] * d
        count = 2 if op != "RNN" else 1
        a["activation_alpha"] = [0.3 + 0.1 * k for k in range(count * d)]
        a["activation_beta"] = [0.4 + 0.1 * k for k in range((2 if op == "LSTM" else 1) * d)]
    if rich:
        a["clip"] = 0.6
    while arrays[-1] is None:
        arrays.pop()
    want = vc.runtime(op, arrays, outputs=3 if op == "LSTM" else 2, opset=14, **a)
    got = CALLS[op]([None if v is None else torch.from_numpy(v) for v in arrays], a)
    for have, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(have.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", CALLS)
def test_layout_and_no_steps(op: str) -> None:
    g = GATES[op] * 6
    x, w, r = torch.randn(5, 3, 4), torch.randn(1, g, 4), torch.randn(1, g, 6)
    plain = CALLS[op]([x, w, r], {})
    turned = CALLS[op]([x.transpose(0, 1), w, r], {"layout": 1})
    torch.testing.assert_close(turned[0], plain[0].permute(2, 0, 1, 3))
    torch.testing.assert_close(turned[1], plain[1].transpose(0, 1))
    assert CALLS[op]([x[:0], w, r], {})[0].shape == (0, 1, 3, 6)
