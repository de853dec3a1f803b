"""Programs of torch.export and ONNX again at all sizes that the model takes, beyond those of the example."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import onnx2nn

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype("f")


def parsed(text: str, **weights: Any) -> onnx.ModelProto:
    """The model of a text in ONNX's syntax, with its initializers."""
    model = onnx.parser.parse_model(f"{HEAD} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    return model


def over_steps() -> onnx.ModelProto:
    """Two inputs step by step, the second one from its end; what each step gives, from the last one on."""
    return parsed(
        """
        g (float[time, 2, 3] x, float[2, time, 3] z) => (float[2, 3] last, float[2, time, 3] every) {
            last, every = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1],
                scan_input_directions = [0, 1], scan_output_axes = [1], scan_output_directions = [1],
                body = step (float[2, 3] h, float[2, 3] x_step, float[2, 3] z_step)
                    => (float[2, 3] next, float[2, 3] y)
                { p = MatMul(h, w) q = Add(p, x_step) r = Mul(q, z_step) next = Tanh(r) y = Neg(next) }
            > (start, x, z)
        }""",
        start=drawn(2, 3),
        w=drawn(3, 3),
    )


def of_a_table() -> onnx.ModelProto:
    """As many rows of a table as the input has: all of them at most."""
    return parsed(
        """
        g (float[batch, time, 4] x) => (float[batch, time, 4] y) {
            time = Shape <start = 1, end = 2> (x)
            rows = Slice(table, zero, time, one)
            y = Add(x, rows)
        }""",
        table=drawn(1, 8, 4),
        zero=np.array([0]),
        one=np.array([1]),
    )


def of_scales() -> onnx.ModelProto:
    """Maps of several scales, brought together again."""
    pool = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
    up = (
        'Resize <mode = "nearest", nearest_mode = "floor",'
        ' coordinate_transformation_mode = "asymmetric">'
    )
    return parsed(
        f"""
        g (float[batch, 2, height, width] x) => (float[batch, 2, h, w] y) {{
            first = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, kernel)
            a = {pool}(first)
            b = {pool}(a)
            c = {pool}(b)
            d = {pool}(c)
            e = {up}(d, , twice)
            f = Add(c, e)
            g = {up}(f, , twice)
            y = Add(b, g)
        }}""",
        kernel=drawn(2, 2, 3, 3),
        twice=np.array([1, 1, 2, 2], "f"),
    )


def made_larger() -> onnx.ModelProto:
    return parsed(
        """
        g (float[1, 2, height, 8] x) => (float[1, 2, h, 8] y)
        { y = Resize <mode = "nearest", nearest_mode = "floor"> (x, , factors) }""",
        factors=np.array([1, 1, 1.5, 1], "f"),
    )


def of_matrices() -> onnx.ModelProto:
    return parsed(
        """
        g (float[batch, 3, 3] x) => (float[batch, 3, 3] y)
        { h = com.microsoft.Inverse(x) y = Neg(h) }"""
    )


def with_a_branch_in_each_round() -> onnx.ModelProto:
    """Doubled while the sum is small, then one more, until it is enough."""
    return parsed(
        """
        g (float[batch, 4] x) => (float[batch, 4] y) {
            start = ReduceSum <keepdims = 0> (x)
            go = Less(start, enough)
            y = Loop <body = step (int64 i, bool go_in, float[batch, 4] h)
                => (bool go_out, float[batch, 4] h_out) {
                    before = ReduceSum <keepdims = 0> (h)
                    is_small = Less(before, little)
                    h_out = If (is_small) <
                        then_branch = a () => (float[batch, 4] p) { p = Add(h, h) },
                        else_branch = b () => (float[batch, 4] q) { q = Add(h, one) }
                    >
                    after = ReduceSum <keepdims = 0> (h_out)
                    go_out = Less(after, enough)
                }> (, go, x)
        }""",
        enough=np.float32(50),
        little=np.float32(20),
        one=np.float32(1),
    )


def with_noise() -> onnx.ModelProto:
    return parsed(
        """
        g (float[batch, 4] x) => (float[batch, 4] y) {
            noise = RandomNormalLike(x)
            h = Mul(noise, zero)
            y = Add(x, h)
        }""",
        zero=np.float32(0),
    )


def with_layers_inside() -> onnx.ModelProto:
    """An LSTM in each of two branches."""
    lstm = "LSTM <hidden_size = 4>"
    weights = {
        f"{kind}{k}": drawn(1, 16, 3 if kind == "w" else 4) * k for kind in "wr" for k in (1, 2)
    }
    return parsed(
        f"""
        g (float[5, 2, 3] x, bool flag) => (float[5, 2, 4] y) {{
            h = If (flag) <
                then_branch = a () => (float[5, 1, 2, 4] h1) {{ h1 = {lstm}(x, w1, r1) }},
                else_branch = b () => (float[5, 1, 2, 4] h2) {{ h2 = {lstm}(x, w2, r2) }}
            >
            y = Squeeze(h, one)
        }}""",
        one=np.array([1]),
        **weights,
    )


def unnamed() -> onnx.ModelProto:
    """Dims without a name, of which none is another's equal."""
    return parsed("g (float[?, ?] x) => (float[?, ?] y) { y = Relu(x) }")


def named_by_input() -> onnx.ModelProto:
    """Inputs that belong together, with dims of their own names, as tf2onnx writes them."""
    return parsed(
        """
        g (float[unk__1, unk__2, 4] x, float[unk__3, unk__4] mask) => (float[unk__5, unk__6, 4] y) {
            m = Unsqueeze(mask, last)
            y = Mul(x, m)
        }""",
        last=np.array([-1]),
    )


CASES = {
    "no names": (unnamed(), [(drawn(2, 3),), (drawn(1, 5),)]),
    "names of each input": (
        named_by_input(),
        [(drawn(n, t, 4), drawn(n, t)) for n, t in ((1, 6), (3, 2))],
    ),
    "steps of inputs": (over_steps(), [(drawn(n, 2, 3), drawn(2, n, 3)) for n in (1, 2, 6)]),
    "rows of a table": (of_a_table(), [(drawn(2, n, 4),) for n in (2, 8)]),
    "maps of several scales": (of_scales(), [(drawn(1, 2, h, 96),) for h in (64, 160)]),
    "maps by a factor": (made_larger(), [(drawn(1, 2, h, 8),) for h in (3, 8)]),
    "inverses": (of_matrices(), [(drawn(n, 3, 3) + np.eye(3, dtype="f") * 5,) for n in (1, 4)]),
    "a branch in each round": (
        with_a_branch_in_each_round(),
        [(np.full([n, 4], v, "f"),) for n, v in ((1, 1), (3, 0.5), (2, 9))],
    ),
    "random numbers": (with_noise(), [(drawn(n, 4),) for n in (1, 3)]),
    "layers inside of branches": (
        with_layers_inside(),
        [(drawn(5, 2, 3), np.array(flag)) for flag in (True, False)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_at_other_sizes(name: str, tmp_path: Path) -> None:
    model, rows = CASES[name]
    onnx2nn.convert(model, tmp_path / "net.pt2")
    net = torch.export.load(str(tmp_path / "net.pt2")).module()
    onnx2nn.export_onnx(onnx2nn.load(model), model, tmp_path / "again.onnx")
    sessions = [
        onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"])
        for m in (model.SerializeToString(), tmp_path / "again.onnx")
    ]
    for args in rows:
        feed = {i.name: x for i, x in zip(model.graph.input, args, strict=True)}
        wanted, again = (session.run(None, feed) for session in sessions)
        got = net(*map(torch.from_numpy, args))
        got = got if isinstance(got, tuple) else (got,)
        for want, a, g in zip(wanted, again, got, strict=True):
            np.testing.assert_allclose(a, want, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(g.detach().numpy(), want, rtol=1e-5, atol=1e-6)
