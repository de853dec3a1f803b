"""Operators about shapes: every opset, negative axes and bounds, dynamic and empty shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import onnx2nn

from .harness import check

FAR = 2**63 - 1


def values(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    count = int(np.prod(shape, dtype=np.int64))
    return np.arange(count).reshape(shape).astype(dtype)


def ints(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array(numbers, dtype=np.int64)


SLICES = [
    ([1], [3], [0], None),
    ([0, 1], [2, FAR], [0, 2], None),
    ([-2], [FAR], [-1], None),
    ([1, 0], [-1, 1000], None, [2, 3]),
    ([-1], [-FAR], [1], [-1]),
    ([3], [0], [1], [-2]),
    ([FAR], [-FAR], [2], [-1]),
    ([5], [2], [1], None),
    ([-100], [100], [1], None),
    ([20], [-20], [1], [-3]),
]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", SLICES)
def test_slice(case: Any, dynamic: bool, constant: bool) -> None:
    starts, ends, axes, steps = case
    inputs = [values(4, 5, 6), ints(*starts), ints(*ends)]
    inputs += [None if axes is None else ints(*axes)]
    inputs += [] if steps is None else [ints(*steps)]
    constants = [i for i in range(1, len(inputs)) if inputs[i] is not None] if constant else []
    check("Slice", inputs, opset=13, constants=constants, dynamic=dynamic)


@pytest.mark.parametrize("axes", [None, [0, 2], [1]])
def test_slice_attributes(axes: Any) -> None:
    bounds = 3 if axes is None else len(axes)
    attrs: dict[str, Any] = {"starts": [1, 0, -2][:bounds], "ends": [3, -1, FAR][:bounds]}
    attrs |= {} if axes is None else {"axes": axes}
    check("Slice", [values(4, 5, 6)], opset=9, attrs=attrs)


def test_slices_are_one_subscript() -> None:
    inputs = [values(4, 5, 6), ints(1, 0), ints(FAR, 3), ints(1, 2), ints(2, 1)]
    source = check("Slice", inputs, opset=13, constants=[1, 2, 3, 4], dynamic=True)
    assert "[:, 1::2, :3]" in source


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("opset", "shape", "axis", "sizes", "parts"),
    [
        (2, (6, 4), 0, None, 3),
        (2, (6, 4), -1, [1, 3], 2),
        (11, (6, 4), 1, None, 2),
        (13, (6, 4), 0, [1, 2, 3], 3),
        (13, (6, 4), -2, None, 2),
        (18, (7, 4), 0, None, 3),
        (18, (6, 4), 1, [4, 0], 2),
        (18, (5,), 0, None, 1),
    ],
)
def test_split(opset: int, shape: Any, axis: int, sizes: Any, parts: int, dynamic: bool) -> None:
    attrs: dict[str, Any] = {"axis": axis}
    inputs = [values(*shape)]
    if sizes is not None and opset < 13:
        attrs["split"] = sizes
    elif sizes is not None:
        inputs.append(ints(*sizes))
    if opset >= 18 and sizes is None:
        attrs["num_outputs"] = parts
    constants = [1] if len(inputs) > 1 else []
    check(
        "Split",
        inputs,
        opset=opset,
        attrs=attrs,
        outputs=parts,
        constants=constants,
        dynamic=dynamic,
    )


def test_split_sizes_at_run_time() -> None:
    check("Split", [values(6, 4), ints(1, 2, 3)], opset=13, outputs=3)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((3, 1), (2, 3, 4)),
        ((3, 1), (3, 1)),
        ((), (2, 2)),
        ((3,), (1,)),
        ((1, 4), (3, 1)),
        ((0, 1), (1, 5)),
        ((2,), ()),
    ],
)
def test_expand(shape: Any, target: Any, dynamic: bool, constant: bool) -> None:
    check(
        "Expand",
        [values(*shape), ints(*target)],
        opset=13,
        constants=[1] if constant else [],
        dynamic=dynamic,
    )


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    ("shape", "repeats"), [((2, 3), (2, 2)), ((2,), (0,)), ((1, 2, 1), (1, 1, 3))]
)
def test_tile(shape: Any, repeats: Any, constant: bool) -> None:
    check(
        "Tile",
        [values(*shape), ints(*repeats)],
        opset=13,
        constants=[1] if constant else [],
        dynamic=True,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("constants", [(), (1,), (2,), (1, 2)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_tile_one_axis(axis: int, constants: tuple[int, ...], dtype: Any) -> None:
    """Opset 1, of which nobody has a kernel. ONNX gives the numbers the type of the tensor."""
    x = values(2, 3)
    check(
        "Tile",
        [x, np.array(3, dtype), np.array(axis, dtype)],
        opset=1,
        constants=constants,
        expected=[np.concatenate([x] * 3, axis)],
    )


def test_tile_of_a_later_opset() -> None:
    """A file that says an opset older than the form of its node, which has no axis."""
    x = values(2, 3)
    check("Tile", [x, ints(2, 3)], opset=1, expected=[np.tile(x, (2, 3))])


@pytest.mark.parametrize(
    ("shape", "target", "opset", "allowzero"),
    [
        ((2, 3, 4), (6, 4), 13, 0),
        ((2, 3, 4), (0, -1), 13, 0),
        ((2, 3, 4), (-1, 0, 2), 13, 0),
        ((0, 3), (3, 0), 14, 1),
        ((), (1, 1), 13, 0),
        ((1,), (), 13, 0),
        ((4, 6), (2, -1, 3), 5, 0),
    ],
)
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_reshape(
    shape: Any, target: Any, opset: int, allowzero: int, dynamic: bool, constant: bool
) -> None:
    attrs = {"allowzero": 1} if allowzero else {}
    check(
        "Reshape",
        [values(*shape), ints(*target)],
        opset=opset,
        attrs=attrs,
        constants=[1] if constant else [],
        dynamic=dynamic,
    )


def test_reshape_attribute() -> None:
    expected = [values(2, 3, 4).reshape(2, 12)]
    check("Reshape", [values(2, 3, 4)], opset=1, attrs={"shape": [0, -1]}, expected=expected)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("dynamic", [False, True])
def test_flatten(axis: int, dynamic: bool) -> None:
    check("Flatten", [values(2, 3, 4)], opset=13, attrs={"axis": axis}, dynamic=dynamic)


def test_flatten_vector() -> None:
    check("Flatten", [values(3)], opset=13, attrs={"axis": 1})


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axes", [[0], [-1], [0, 3], [2, -4]])
def test_squeeze_and_unsqueeze(axes: Any, opset: int) -> None:
    attrs = {"axes": axes} if opset < 13 else {}
    extra = [] if opset < 13 else [ints(*axes)]
    for constants in [[], [1]] if extra else [[]]:
        check("Unsqueeze", [values(2, 3), *extra], opset=opset, attrs=attrs, constants=constants)
        if -4 in axes or 2 in axes:
            continue
        check(
            "Squeeze", [values(1, 2, 3, 1), *extra], opset=opset, attrs=attrs, constants=constants
        )


def test_squeeze_all() -> None:
    check("Squeeze", [values(1, 2, 1)], opset=13)
    # ONNX Runtime's meaning of no axes; ONNX's reference leaves everything as it is.
    check("Squeeze", [values(1, 2, 1), ints()], opset=13, constants=[1])


@pytest.mark.parametrize("perm", [None, [0, 1, 2], [2, 0, 1], [0, 2, 1]])
def test_transpose(perm: Any) -> None:
    check(
        "Transpose",
        [values(2, 3, 4)],
        opset=13,
        attrs={} if perm is None else {"perm": perm},
        dynamic=True,
    )


@pytest.mark.parametrize(("opset", "axis"), [(4, 0), (11, -1), (13, 1)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16", "bool"])
def test_concat(opset: int, axis: int, dtype: str) -> None:
    parts = [values(2, 3, dtype=dtype), values(2, 3, dtype=dtype), values(2, 3, dtype=dtype)]
    check("Concat", parts, opset=opset, attrs={"axis": axis}, dynamic=True)
    check("Concat", parts[:1], opset=opset, attrs={"axis": axis})


@pytest.mark.parametrize(("batch_axis", "time_axis"), [(1, 0), (0, 1)])
def test_reverse_sequence(batch_axis: int, time_axis: int) -> None:
    shape = (4, 3, 2) if time_axis == 0 else (3, 4, 2)
    attrs = {"batch_axis": batch_axis, "time_axis": time_axis}
    check("ReverseSequence", [values(*shape), ints(1, 4, 2)], opset=10, attrs=attrs)


@pytest.mark.parametrize(("start", "end"), [(None, None), (1, None), (-2, -1), (0, 2), (5, 9)])
def test_shape(start: Any, end: Any) -> None:
    attrs = {k: v for k, v in {"start": start, "end": end}.items() if v is not None}
    check("Shape", [values(2, 3, 4)], opset=15, attrs=attrs, dynamic=True)
    check("Size", [values(2, 3, 4)], opset=13, dynamic=True)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("size", "parts"), [(1, 2), (3, 2), (4, 3), (2, 3), (6, 4), (0, 2), (1, 1)]
)
def test_split_of_fewer_elements_than_parts_fill(size: int, parts: int, dynamic: bool) -> None:
    x = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
    for axis in (0, -2):
        attrs = {"axis": axis, "num_outputs": parts}
        check("Split", [x], opset=18, attrs=attrs, outputs=parts, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("present", [(True, False), (False, True), (False, True, False)], ids=str)
def test_split_with_outputs_that_are_absent(present: tuple[bool, ...], dynamic: bool) -> None:
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    n = len(present)
    part = -(-5 // n)
    wanted = [x[i * part : (i + 1) * part] for i in range(n) if present[i]]
    attrs = {"num_outputs": n}
    check("Split", [x], opset=18, attrs=attrs, outputs=present, dynamic=dynamic, expected=wanted)


def test_split_whose_numbers_of_outputs_differ_is_refused() -> None:
    x = np.ones((6, 2), np.float32)
    with pytest.raises(onnx2nn.Error, match="num_outputs is 3, and there are 2 outputs"):
        check("Split", [x], opset=18, attrs={"num_outputs": 3}, outputs=2, expected=[x[:3], x[3:]])


@pytest.mark.parametrize(
    ("shape", "target", "said"),
    [
        ("n,3,8", "0, 3, 2, 4", "x.unflatten(-1, (2, 4))"),
        ("n,6,8", "0, 2, 3, 8", "x.unflatten(1, (2, 3))"),
        ("n,m,8", "0, 0, -1, 4", "x.unflatten(-1, (2, 4))"),
        ("n,3,2,4", "0, 3, 8", "x.flatten(2)"),
        ("n,3,2,4", "0, -1", "x.flatten(1)"),
        ("n,2,3,4", "0, 6, 4", "x.flatten(1, 2)"),
        ("n,3,8", "0, 1, 3, 8", "x.reshape("),  # an axis of one is no part of another
        ("n,4,6", "0, 2, 2, 2, 3", "x.reshape("),
        ("n,4,6", "0, 6, 4", "x.reshape("),
    ],
)
def test_neighbouring_axes(shape: str, target: str, said: str, tmp_path: Path) -> None:
    """What joins or splits one axis says nothing of the others, whose sizes stay free."""
    count = target.count(",") + 1
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => (float[{", ".join("?" * count)}] y) '
        f"<int64[{count}] s = {{{target}}}> {{ y = Reshape(x, s) }}"
    )
    onnx.save(model, tmp_path / "m.onnx")
    onnx2nn.convert(tmp_path / "m.onnx", tmp_path / "m.py")
    source = (tmp_path / "m.py").read_text()
    assert said in source, source
    assert onnx2nn.verify(tmp_path / "m.onnx", tmp_path / "m.py").ok
