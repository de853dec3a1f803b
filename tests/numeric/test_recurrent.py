"""LSTM, GRU and RNN: torch's modules where they are exact, the helpers elsewhere."""

from typing import Any

import numpy as np
import pytest

from .harness import check, expected_outputs, node_model

RNG = np.random.default_rng(4)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6


def normal(*shape: int) -> Any:
    return (RNG.standard_normal(shape) * 0.5).astype(np.float32)


def recurrent_inputs(
    op: str, directions: int, bias: bool, states: bool, lengths: bool
) -> list[Any]:
    rows = GATES[op] * HIDDEN
    inputs: list[Any] = [
        normal(STEPS, BATCH, INPUTS),
        normal(directions, rows, INPUTS),
        normal(directions, rows, HIDDEN),
        normal(directions, 2 * rows) if bias else None,
        np.array([5, 2, 3], np.int32) if lengths else None,
    ]
    for _ in range(2 if op == "LSTM" else 1):
        inputs.append(normal(directions, BATCH, HIDDEN) if states else None)
    while inputs[-1] is None:
        inputs.pop()
    return inputs


@pytest.mark.parametrize("op", list(GATES))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("outputs", [(True,), (True, True), (False, True)], ids=str)
def test_module(
    op: str, direction: str, bias: bool, states: bool, outputs: tuple[bool, ...]
) -> None:
    directions = 2 if direction == "bidirectional" else 1
    attrs: dict[str, Any] = {"hidden_size": HIDDEN, "direction": direction}
    if op == "GRU":
        attrs["linear_before_reset"] = 1
    source = check(
        op,
        recurrent_inputs(op, directions, bias, states, lengths=False),
        opset=14,
        attrs=attrs,
        constants=[1, 2, 3],
        outputs=outputs,
        dynamic=bias,
    )
    assert f"nn.{op}(" in source


@pytest.mark.parametrize("op", list(GATES))
@pytest.mark.parametrize("opset", [1, 3, 7, 14, 22])
def test_all_outputs(op: str, opset: int) -> None:
    inputs = recurrent_inputs(op, 1, bias=True, states=True, lengths=False)
    attrs: dict[str, Any] = {"hidden_size": HIDDEN}
    outputs = 3 if op == "LSTM" else 2
    # No one has kernels before opset 7: these forms have not changed since.
    model, feeds = node_model(op, inputs, opset=14, attrs=attrs, outputs=outputs)
    if opset < 7:
        attrs["output_sequence"] = 1
    check(
        op,
        inputs,
        opset=opset,
        attrs=attrs,
        constants=[1, 2, 3],
        outputs=outputs,
        expected=expected_outputs(model, feeds),
    )


CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("LSTM", {"clip": 0.3}, False),
    ("LSTM", {"input_forget": 1}, False),
    ("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"]}, False),
    ("LSTM", {"activations": ["HardSigmoid", "Relu", "Softsign"]}, False),
    ("LSTM", {}, True),
    ("GRU", {"linear_before_reset": 0}, False),
    ("GRU", {"linear_before_reset": 1}, True),
    ("GRU", {"activations": ["Sigmoid", "Relu"]}, False),
    ("RNN", {"activations": ["Relu"]}, False),
    (
        "RNN",
        {"activations": ["LeakyRelu"], "activation_alpha": [0.1]},
        False,
    ),
    ("RNN", {}, True),
]


@pytest.mark.parametrize(("op", "attrs", "lengths"), CASES, ids=str)
@pytest.mark.parametrize("constants", [(1, 2, 3), ()])
def test_other_forms(
    op: str, attrs: dict[str, Any], lengths: bool, constants: tuple[int, ...]
) -> None:
    inputs = recurrent_inputs(op, 1, bias=True, states=False, lengths=lengths)
    attrs = {"hidden_size": HIDDEN, **attrs}
    outputs = 3 if op == "LSTM" else 2
    check(op, inputs, opset=14, attrs=attrs, constants=constants, outputs=outputs)


def test_peepholes() -> None:
    inputs = recurrent_inputs("LSTM", 1, bias=True, states=True, lengths=False)
    inputs.append(normal(1, 3 * HIDDEN))
    attrs = {"hidden_size": HIDDEN}
    check("LSTM", [*inputs], opset=14, attrs=attrs, constants=[1, 2, 3], outputs=3)
