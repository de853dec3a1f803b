"""RNN, GRU and LSTM."""

from typing import Any

import numpy as np

from ..draw import Draw, Node
from ..engine import Row, answer_at

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(d: Draw) -> Node:
    op = d.op_type
    steps, batch, size, hidden = (d.integer(1, 4) for _ in range(4))
    direction = d.pick("forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    rows = GATES[op] * hidden
    dtype = d.t("T", "float32")  # ONNX Runtime runs no other, the reference only the plainest
    layout = 1 if d.opset >= 14 and d.chance(0.2) else 0
    fixed = d.chance(0.6)

    def w(*shape: int) -> Any:
        x = d.x(shape, dtype, -1, 1)
        return d.const(x, 1.0 if fixed else 0.0)

    def state() -> Any:
        shape = (batch, ways, hidden) if layout else (ways, batch, hidden)
        return d.maybe(d.x(shape, dtype, -1, 1))

    lengths = d.maybe(d.rng.integers(1, steps + 1, (batch,)).astype("int32"), 0.3)
    inputs: list[Any] = [
        d.x((batch, steps, size) if layout else (steps, batch, size), dtype, -2, 2),
        w(ways, rows, size),
        w(ways, rows, hidden),
        w(ways, 2 * rows) if d.chance(0.6) else None,
        lengths,
        state(),
    ]
    if op == "LSTM":
        inputs += [state(), w(ways, 3 * hidden) if d.chance(0.25) else None]
    while inputs[-1] is None:
        inputs.pop()
    attrs: dict[str, Any] = {"hidden_size": hidden}
    if direction != "forward" or d.chance(0.3):
        attrs["direction"] = direction
    if layout:
        attrs["layout"] = 1
    if d.chance(0.2):
        attrs["clip"] = d.pick(0.5, 3.0)
    if op == "GRU" and d.opset >= 3:
        attrs |= d.attrs(linear_before_reset=[0, 1])
    if op == "LSTM":
        attrs |= d.attrs(input_forget=[0, 1]) if d.chance(0.3) else {}
    if d.chance(0.3):
        each = {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
        names = [d.pick("Tanh", "Sigmoid", "Relu", "Softsign") for _ in range(each)]
        attrs["activations"] = names * ways
    count = 3 if op == "LSTM" else 2
    present = [d.chance(0.7) for _ in range(count)]
    if not any(present):
        present[0] = True
    while not present[-1]:
        present.pop()
    if layout:
        return batch_first(d, Node(inputs, attrs, present))
    if d.opset >= 7:
        return Node(inputs, attrs, present)
    want = answer_at(d, Node(inputs, attrs, present), 7)
    return Node(inputs, attrs | {"output_sequence": 1}, present, expected=want)


def batch_first(d: Draw, node: Node) -> Node:
    """ONNX Runtime runs no layout 1, and the reference only the plainest: a transposition of 0."""
    turned = [
        np.swapaxes(x, 0, 1) if i in (0, 5, 6) and x is not None else x
        for i, x in enumerate(node.inputs)
    ]
    attrs = {k: v for k, v in node.attrs.items() if k != "layout"}
    want = answer_at(d, Node(turned, attrs, node.outputs), d.opset)
    first = isinstance(node.outputs, list) and node.outputs[0]
    expected = [
        x.transpose(2, 0, 1, 3) if first and i == 0 else np.swapaxes(x, 0, 1)
        for i, x in enumerate(want)
    ]
    return Node(node.inputs, node.attrs, node.outputs, expected=expected)


def gru_unit(d: Draw) -> Node:
    batch, size = d.integer(1, 4), d.integer(1, 4)
    h, gates = d.x((1, batch, size), "float32"), d.x((1, batch, 3 * size), "float32")
    h, gates = (np.nan_to_num(x, posinf=3.0, neginf=-3.0) for x in (h, gates))
    lengths = np.array([d.integer(0, 3) for _ in range(batch)], np.float32)
    t, drop = d.integer(0, 3), d.pick(0, 1)
    _, update, output = np.split(gates.astype(np.float64), 3, -1)
    kept = 1 / (1 + np.exp(-update))
    old = np.zeros_like(h) if drop else h
    new = np.where((t < lengths)[:, None], kept * h + (1 - kept) * np.tanh(output), old)
    inputs = [h, gates, lengths, np.array([t], np.float32)]
    return Node(inputs, {"drop_states": drop}, expected=[new.astype(np.float32)])


ROWS = {name: Row(recurrent) for name in GATES} | {"GRUUnit": Row(gru_unit)}
