"""What drawing at random found, each case by itself: a row may change what its seeds draw."""

import numpy as np
import pytest
from tests.numeric.harness import check, node_model, run_converted

import onnx2nn._native as native


def test_uint64_constants_wrap() -> None:
    a, b = np.array([8, 2], np.uint64), np.array([2, 9], np.uint64)
    check("Sub", [a, b], opset=13, constants=[0, 1])


def test_uint64_constants_above_the_signed_range_compare() -> None:
    a, b = np.array([2**64 - 1, 1], np.uint64), np.array([2], np.uint64)
    check("Greater", [a, b], opset=9, constants=[0, 1])


def test_dropout_that_trains() -> None:
    x = np.ones(1000, np.float32)
    model, feeds = node_model(
        "Dropout",
        [x, np.array(0.5, np.float32), np.array(True)],
        opset=13,
        constants=[1, 2],
    )
    for simplify in (True, False):
        (got,) = run_converted(model, feeds, simplify)
        assert set(got.unique().tolist()) == {0.0, 2.0}


def test_dropout_of_nothing() -> None:
    ratio, training = np.array(0, np.float32), np.array(True)
    x = np.ones((2, 3), np.float32)
    check("Dropout", [x, ratio, training], opset=13, constants=[1, 2], outputs=2)


def test_old_alignment_of_operands_of_unknown_rank() -> None:
    x, y = np.ones((1, 2, 3, 2), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    for axis in (1, -3):
        model, feeds = node_model(
            "Sub", [x, y], opset=6, attrs={"broadcast": 1, "axis": axis}, constants=[1]
        )
        model.graph.input[0].type.tensor_type.ClearField("shape")
        for simplify in (True, False):
            (got,) = run_converted(model, feeds, simplify)
            np.testing.assert_array_equal(got.numpy(), x - y[..., None])


def test_erf_of_integers_keeps_their_type() -> None:
    x = np.array([-3, 0, 1, 9], np.int32)
    check("Erf", [x], opset=13, expected=[np.array([0, 0, 0, 1], np.int32)])


def test_nan_is_below_any_threshold() -> None:
    check("ThresholdedRelu", [np.array([np.nan, -1, 0.5, 3], np.float32)], opset=10)


def test_strings_are_moved_like_numbers() -> None:
    words = np.array([["a", "été", ""], ["b", "x y", "zz"]], object)
    check("Slice", [words, *(np.array([v]) for v in (2, -9, 1, -1))], opset=13)
    check(
        "Trilu",
        [words],
        opset=14,
        expected=[np.array([["a", "été", ""], ["", "x y", "zz"]], object)],
    )
    places = np.array([[[1, 2]], [[0, 0]]])
    check("GatherND", [words, places], opset=13)
    check("GatherND", [words, np.array([[1], [0]])], opset=13, attrs={"batch_dims": 1})
    rows = np.array([["a", "a"], ["b", ""], ["a", "a"]], object)
    want = [rows[:2], np.array([0, 1]), np.array([0, 1, 0]), np.array([2, 1])]
    check("Unique", [rows], opset=11, attrs={"axis": 0, "sorted": 0}, outputs=4, expected=want)


def test_wide_unsigned_integers_are_padded_and_reversed() -> None:
    for dtype in (np.uint16, np.uint64):
        x = np.arange(4, dtype=dtype)
        check(
            "Pad",
            [x, np.array([2, 1])],
            opset=18,
            attrs={"mode": "reflect"},
            expected=[np.pad(x, (2, 1), "reflect")],
        )
        check(
            "Slice",
            [x, *(np.array([v]) for v in (-1, -9, 0, -1))],
            opset=13,
            constants=[1, 2, 3, 4],
            expected=[x[::-1]],
        )


def test_a_slice_backwards_from_before_the_first_element() -> None:
    x = np.arange(4, dtype=np.float32)
    want = [x[:1]]
    for constants in ([], [1, 2, 3, 4]):
        check(
            "Slice",
            [x, *(np.array([v]) for v in (-9, -10, 0, -1))],
            opset=13,
            constants=constants,
            expected=want,
        )


def test_shape_of_a_scalar_is_of_integers() -> None:
    check("Shape", [np.float32(3)], opset=15)
    check("Shape", [np.zeros((2, 3), np.float32)], opset=15, attrs={"start": 2})


def test_reduction_over_axes_that_may_be_none() -> None:
    x = np.array([[-3, 2]], np.float32)
    attrs = {"noop_with_empty_axes": 1}
    check("ReduceL1", [x, np.zeros(0, np.int64)], opset=18, attrs=attrs, expected=[np.abs(x)])
    check("ReduceL1", [x, np.array([1])], opset=18, attrs=attrs)


def test_first_tile_repeats_one_axis() -> None:
    x = np.ones((2, 3), np.float32)
    inputs = [x, np.array([2], np.float32), np.array([1], np.float32)]
    check("Tile", inputs, opset=1, constants=[1, 2], expected=[np.tile(x, (1, 2))])


def test_transpose_of_an_unknown_rank() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    model, feeds = node_model("Transpose", [x], opset=13)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    for simplify in (True, False):
        assert list(run_converted(model, feeds, simplify)[0].shape) == [4, 3, 2]


def test_attention_to_values_of_another_type() -> None:
    rng = np.random.default_rng(2)
    q, k, v = (rng.normal(size=(1, 2, 3, 4)).astype(np.float32) for _ in range(3))
    check("Attention", [q, k, v.astype(np.float16)], opset=23, rtol=1e-3, atol=1e-3)


def test_einsum_of_integers_keeps_their_type() -> None:
    for dtype in (np.uint64, np.uint8, np.int32):
        x = np.array([[1, 2], [3, 200]], dtype)
        check("Einsum", [x, x], opset=12, attrs={"equation": "ij,jk->ik"}, expected=[x @ x])
        total = np.array(x.sum(), dtype)
        check("Einsum", [x], opset=12, attrs={"equation": "ij->"}, expected=[total])


def test_determinant_of_halves() -> None:
    x = np.array([[2, 1], [1, 3]], np.float16)
    check("Det", [x], opset=22, expected=[np.array(5, np.float16)])


def test_scale_of_zeros_is_one() -> None:
    check("DynamicQuantizeLinear", [np.zeros((2, 3), np.float32)], opset=11, outputs=3)


def test_strings_are_written_into_a_cache() -> None:
    cache, update = np.array([["a", "b", "c"]], object), np.array([["x"]], object)
    want = [np.array([["a", "b", "x"]], object)]
    check(
        "TensorScatter", [cache, update, np.array([2])], opset=24, attrs={"axis": 1}, expected=want
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16"])
def test_columns_of_integers_become_pictures(dtype: str) -> None:
    x = np.arange(24).reshape(1, 4, 6).astype(dtype)
    size, block = np.array([3, 4]), np.array([2, 2])
    check("Col2Im", [x, size, block], opset=18, constants=[1, 2])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_volumes_are_averaged(dtype: str) -> None:
    x = np.arange(60, dtype=dtype).reshape(1, 1, 3, 4, 5)
    attrs = {"kernel_shape": [2, 2, 2], "strides": [1, 2, 1]}
    check("AveragePool", [x], opset=11, attrs=attrs, rtol=1e-3)


def test_a_grid_of_halves() -> None:
    theta = np.array([[[1, 0.5, 0], [0.25, 1, -1]]], np.float16)
    inputs = [theta, np.array([1, 1, 2, 3])]
    x, y = np.meshgrid([-2 / 3, 0, 2 / 3], [-0.5, 0.5])
    grid = np.stack([x + y / 2, x / 4 + y - 1], 2)[None].astype(np.float16)
    check("AffineGrid", inputs, opset=20, constants=[1], expected=[grid], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("right", [0, 1])
def test_crop_needs_no_size(right: int) -> None:
    x = np.arange(40, dtype=np.float32).reshape(1, 2, 4, 5)
    model, feeds = node_model("Crop", [x], opset=1, attrs={"border": [1, 2, right, 1]})
    model.graph.input[0].type.tensor_type.ClearField("shape")
    (got,) = run_converted(model, feeds, True)
    np.testing.assert_array_equal(got.numpy(), x[:, :, 2:3, 1 : 5 - right])


@pytest.mark.parametrize("dynamic", [False, True])
def test_corners_stay_where_the_scale_is_no_float(dynamic: bool) -> None:
    x = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    attrs = {
        "mode": "nearest",
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "align_corners",
    }
    check(
        "Resize",
        [x, None, None, np.array([1, 2, 2, 2])],
        opset=13,
        attrs=attrs,
        constants=[3],
        dynamic=dynamic,
    )


def test_an_axis_that_keeps_its_size_changes_with_the_aspect_ratio() -> None:
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    attrs = {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    model, feeds = node_model(
        "Resize", [x, None, None, np.array([2, 5])], opset=18, attrs=attrs, constants=[3]
    )
    for simplify in (True, False):
        (got,) = run_converted(model, feeds, simplify)
        assert list(got.shape) == [1, 1, 2, 3]
        (port,) = native.convert(model.SerializeToString(), {"simplify": simplify}).outputs
        assert port["shape"] == [1, 1, None, None]
