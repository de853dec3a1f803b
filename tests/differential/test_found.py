"""What drawing at random found, each case by itself: a row may change what its seeds draw."""

import numpy as np
from tests.numeric.harness import check, node_model, run_converted


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
