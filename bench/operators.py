"""Times converted models of one operator against the module that a person would have written.

usage: operators.py [--json] [--rounds N] [NAME ...]

The operators are the twenty that most real models use. Both modules run interleaved on one thread, in
rounds of about two milliseconds each; the ratio is the median over the rounds of ours by theirs,
so 1.00 is the same speed. Exits with 1 where the two do not give the same, never for a time.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import onnx2nn

_ROUND_S = 0.002
_OPSET = 17
_IMAGE = (1, 64, 56, 56)
_TOKENS = (1, 128, 256)

Function = Callable[..., torch.Tensor]


class Written(nn.Module):
    """A function as the `forward` of a module; what it needs to own is under `body`."""

    def __init__(self, function: Function, body: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.forward = function


@dataclass
class Case:
    """An operator: the ONNX node, its constants, the shapes of its inputs, and the torch module."""

    op_type: str
    shapes: Sequence[tuple[int, ...]]
    theirs: Callable[["Case"], nn.Module]
    constants: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape)
            for i, shape in enumerate(self.shapes)
        ]
        node = helper.make_node(
            self.op_type, [v.name for v in inputs] + list(self.constants), ["y"], **self.attributes
        )
        kind = self.attributes.get("to", TensorProto.FLOAT)
        graph = helper.make_graph(
            [node],
            "operator",
            inputs,
            [helper.make_tensor_value_info("y", kind, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])

    def weight(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.constants[name])


def _weights(*shape: int) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return np.asarray(values / np.sqrt(np.prod(shape[1:]) or 1), np.float32)


def _ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def _plain(function: Function) -> Callable[[Case], nn.Module]:
    return lambda case: Written(function)


def _conv(case: Case) -> nn.Module:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    conv.weight.data, conv.bias.data = case.weight("w"), case.weight("b")  # type: ignore[union-attr]
    return Written(lambda x: conv(x), conv)


def _gemm(case: Case) -> nn.Module:
    linear = nn.Linear(512, 256)
    linear.weight.data, linear.bias.data = case.weight("w"), case.weight("b")
    return Written(lambda x: linear(x), linear)


def _matmul(case: Case) -> nn.Module:
    linear = nn.Linear(256, 512, bias=False)
    linear.weight.data = case.weight("w").T.contiguous()
    return Written(lambda x: linear(x), linear)


CASES = [
    Case("Add", [_IMAGE, _IMAGE], _plain(lambda x, y: x + y)),
    Case("Sub", [_IMAGE, _IMAGE], _plain(lambda x, y: x - y)),
    Case("Mul", [_IMAGE, _IMAGE], _plain(lambda x, y: x * y)),
    Case("Div", [_IMAGE, _IMAGE], _plain(lambda x, y: x / y)),
    Case("Relu", [_IMAGE], _plain(F.relu)),
    Case("Sigmoid", [_IMAGE], _plain(torch.sigmoid)),
    Case(
        "Softmax", [(8, 128, 128)], _plain(lambda x: F.softmax(x, dim=-1)), attributes={"axis": -1}
    ),
    Case("Cast", [_IMAGE], _plain(lambda x: x.half()), attributes={"to": TensorProto.FLOAT16}),
    Case(
        "Conv",
        [_IMAGE],
        _conv,
        {"w": _weights(64, 64, 3, 3), "b": _weights(64)},
        {"pads": [1, 1, 1, 1]},
    ),
    Case(
        "Gemm",
        [(16, 512)],
        _gemm,
        {"w": _weights(256, 512), "b": _weights(256)},
        {"transB": 1},
    ),
    Case("MatMul", [_TOKENS], _matmul, {"w": _weights(256, 512)}),
    Case(
        "MaxPool",
        [_IMAGE],
        _plain(lambda x: F.max_pool2d(x, 3, 2, 1)),
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    Case(
        "ReduceMean",
        [_TOKENS],
        _plain(lambda x: x.mean(-1, keepdim=True)),
        attributes={"axes": [-1]},
    ),
    Case(
        "Reshape",
        [_TOKENS],
        _plain(lambda x: x.reshape(1, 128, 8, 32)),
        {"s": _ints(1, 128, 8, 32)},
    ),
    Case(
        "Transpose",
        [(1, 128, 8, 32)],
        _plain(lambda x: x.permute(0, 2, 1, 3)),
        attributes={"perm": [0, 2, 1, 3]},
    ),
    Case(
        "Concat",
        [_IMAGE, _IMAGE],
        _plain(lambda x, y: torch.cat((x, y), 1)),
        attributes={"axis": 1},
    ),
    Case(
        "Slice",
        [_IMAGE],
        _plain(lambda x: x[:, 8:40]),
        {"starts": _ints(8), "ends": _ints(40), "axes": _ints(1)},
    ),
    Case("Unsqueeze", [_TOKENS], _plain(lambda x: x.unsqueeze(1)), {"axes": _ints(1)}),
    Case("Squeeze", [_TOKENS], _plain(lambda x: x.squeeze(0)), {"axes": _ints(0)}),
    Case("Gather", [_TOKENS], _plain(lambda x: x[:, 3]), {"i": np.array(3)}, {"axis": 1}),
]


def _blocks(
    ours: nn.Module, theirs: nn.Module, inputs: list[torch.Tensor], rounds: int
) -> tuple[float, float, float]:
    """(microseconds of a call of ours, of theirs, the median ratio), in rounds run in turns."""

    def run(module: nn.Module, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            module(*inputs)
        return (time.perf_counter() - start) / times

    once = max(run(theirs, 20), 1e-7)
    times = max(1, round(_ROUND_S / once))
    run(ours, times)
    a: list[float] = []
    b: list[float] = []
    for i in range(rounds):
        for seconds, module in ((a, ours), (b, theirs))[:: 1 if i % 2 else -1]:
            seconds.append(run(module, times))
    ratio = statistics.median(x / y for x, y in zip(a, b))
    return statistics.median(a) * 1e6, statistics.median(b) * 1e6, ratio


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Convert the case, compare what it gives with the written module, and time both."""
    ours, theirs = onnx2nn.load(case.model()).eval(), case.theirs(case).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in case.shapes]
    with torch.no_grad():
        same = torch.allclose(ours(*inputs), theirs(*inputs), rtol=1e-4, atol=1e-5, equal_nan=True)
        a, b, ratio = _blocks(ours, theirs, inputs, rounds)
    return {"op_type": case.op_type, "ours_us": a, "theirs_us": b, "ratio": ratio, "same": same}


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("operator", title="one operator, converted against written by hand")
    for head in ("ours, µs", "by hand, µs", "ratio"):
        table.add_column(head, justify="right")
    for r in rows:
        ratio = f"{r['ratio']:.2f}" if r["same"] else "differs"
        table.add_row(r["op_type"], f"{r['ours_us']:.1f}", f"{r['theirs_us']:.1f}", ratio)
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="operators; all where none is named"
    )
    parser.add_argument("--rounds", type=int, default=101, help="of each module (default 101)")
    parser.add_argument("--json", action="store_true", help="print one JSON array and nothing else")
    a = parser.parse_args()
    unknown = set(a.names) - {c.op_type for c in CASES}
    if unknown:
        parser.error("no case for " + ", ".join(sorted(unknown)))
    torch.set_num_threads(1)
    rows = [measure(c, a.rounds) for c in CASES if not a.names or c.op_type in a.names]
    if a.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows)
    return 0 if all(r["same"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
