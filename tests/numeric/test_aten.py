"""org.pytorch.aten::ATen: a function of torch by its name, against torch itself."""

from typing import Any

import numpy as np
import pytest
import torch

from .harness import check, node_model, source_of

RNG = np.random.default_rng(5)


def f32(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*values: int) -> Any:
    return np.array(values, np.int64) if len(values) != 1 else np.array(values[0], np.int64)


YES, NO = np.array(True), np.array(False)
TABLE, IDS = f32(7, 4), RNG.integers(0, 7, (2, 3))
PICTURE = f32(2, 3, 6, 8)

# The function, its inputs, and which of them are constants of the model.
CALLS: list[tuple[str, list[Any], list[int]]] = [
    ("embedding", [TABLE, IDS], []),
    ("embedding", [TABLE, IDS], [0]),
    ("embedding", [TABLE, IDS, whole(-1), NO, NO], [0, 2, 3, 4]),
    ("embedding", [TABLE, IDS, whole(2), whole(0), NO], [2, 3, 4]),
    ("relu", [f32(3, 4)], []),
    ("add.Tensor", [f32(3, 4), f32(4), np.array(2.5)], [2]),
    ("softmax.int", [f32(3, 4), whole(1), None], [1]),
    ("gelu", [f32(3, 4)], []),
    ("leaky_relu", [f32(3, 4), np.array(0.25)], [1]),
    ("unfold", [f32(3, 8), whole(1), whole(4), whole(2)], [1, 2, 3]),
    ("flatten.using_ints", [f32(2, 3, 4), whole(1), whole(-1)], [1, 2]),
    ("cumsum", [f32(3, 4), whole(1), None], [1]),
    ("mean.dim", [f32(3, 4, 5), whole(0, 2), YES, None], [1, 2]),
    ("diagonal", [f32(4, 5), whole(1), whole(0), whole(1)], [1, 2, 3]),
    ("group_norm", [f32(2, 4, 5), whole(2), f32(4), f32(4), np.array(1e-5), YES], [1, 4, 5]),
    ("layer_norm", [f32(2, 5), np.array([5]), f32(5), None, np.array(1e-5)], [1, 4]),
    ("adaptive_avg_pool2d", [PICTURE, whole(2, 4)], [1]),
    ("max_pool2d_with_indices", [PICTURE, whole(2, 2), whole(2, 2)], [1, 2]),
    ("upsample_nearest2d.vec", [PICTURE, whole(12, 16), None], [1]),
    ("upsample_bilinear2d", [PICTURE, whole(9, 5), NO, None, None], [1, 2]),
    ("im2col", [PICTURE, whole(2, 3), whole(1, 1), whole(0, 1), whole(2, 1)], [1, 2, 3, 4]),
    ("grid_sampler", [PICTURE, f32(2, 4, 5, 2) / 2, whole(0), whole(1), NO], [2, 3, 4]),
    ("embedding_bag", [TABLE, np.arange(6) % 5, np.array([0, 2, 5])], []),
    (
        "binary_cross_entropy_with_logits",
        [f32(5), RNG.random(5).astype(np.float32), None, None, whole(1)],
        [4],
    ),
    ("nll_loss_nd", [f32(4, 3), np.arange(4) % 3, None, whole(2)], [3]),
    ("smooth_l1_loss", [f32(5), f32(5), whole(0), np.array(0.5)], [2, 3]),
    ("linalg_norm", [f32(3, 4), None, whole(1, 0)], [2]),
    ("special_erfcx", [f32(5)], []),
    ("fft_rfft", [f32(3, 8), None, whole(-1)], [2]),
]


def answer(name: str, inputs: list[Any], constants: list[int]) -> list[Any]:
    """What torch's own dispatcher says."""
    packet, _, overload = name.partition(".")
    function = getattr(torch.ops.aten, packet)
    function = getattr(function, overload) if overload else function
    args = [
        None if x is None else x.tolist() if i in constants and i else torch.from_numpy(x)
        for i, x in enumerate(inputs)
    ]
    if name == "embedding":
        args = args[:2]  # the others only concern the gradient
    schema = function._schema if overload else function.default._schema
    keywords = {s.name: args.pop() for s in reversed(schema.arguments[: len(args)]) if s.kwarg_only}
    with torch.no_grad():
        y = function(*args, **keywords)
    return [v.numpy() for v in y] if isinstance(y, tuple) else [y.numpy()]


@pytest.mark.parametrize(("name", "inputs", "constants"), CALLS, ids=lambda v: str(v)[:30])
def test_call(name: str, inputs: list[Any], constants: list[int]) -> None:
    packet, _, overload = name.partition(".")
    expected = answer(name, inputs, constants)
    attrs = {"operator": packet} | ({"overload_name": overload} if overload else {})
    check(
        "ATen",
        inputs,
        opset=1,
        domain="org.pytorch.aten",
        attrs=attrs,
        constants=constants,
        outputs=len(expected),
        expected=expected,
    )


@pytest.mark.parametrize("constant", [True, False])
def test_embedding_reads_as_a_person_writes_it(constant: bool) -> None:
    model, _ = node_model(
        "ATen",
        [TABLE, IDS],
        opset=1,
        domain="org.pytorch.aten",
        attrs={"operator": "aten::embedding"},
        constants=[0] if constant else [],
    )
    source = source_of(model)
    assert ("nn.Embedding(7, 4)" if constant else "F.embedding(x1, x0)") in source
