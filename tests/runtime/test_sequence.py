"""Sequence and optional helpers against ONNX's backend cases, and what those leave out."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import sequence
from runtime.node_models import cases_of, check, ort_answer, run_cases


@pytest.mark.parametrize("case", cases_of("SequenceInsert"))
def test_sequence_insert(case: TestCase) -> None:
    run_cases(case, lambda x, a: [sequence.sequence_insert(*x)])


@pytest.mark.parametrize("case", cases_of("SplitToSequence"))
def test_split_to_sequence(case: TestCase) -> None:
    run_cases(case, lambda x, a: [sequence.split_to_sequence(*x, **a)])


@pytest.mark.parametrize("case", cases_of("OptionalHasElement"))
def test_optional_has_element(case: TestCase) -> None:
    run_cases(case, lambda x, a: [sequence.optional_has_element(*x)])


@pytest.mark.parametrize("case", cases_of("OptionalGetElement"))
def test_optional_get_element(case: TestCase) -> None:
    run_cases(case, lambda x, a: [sequence.optional_get_element(*x)])


@pytest.mark.parametrize("split", [2, 1, [1, 0, 4], None])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("text", [False, True])
def test_split_against_onnx_runtime(split: int | list[int] | None, axis: int, text: bool) -> None:
    x = np.arange(25, dtype=np.float32).reshape(5, 5)
    if text:
        x = x.astype(str).astype(object)
    inputs = [x] if split is None else [x, np.array(split, dtype=np.int64)]
    keep = {"keepdims": 0} if split in (None, 1) else {}
    types = None
    if text:
        types = [helper.make_tensor_type_proto(TensorProto.STRING, [5, 5])]
        types += [helper.make_tensor_type_proto(TensorProto.INT64, y.shape) for y in inputs[1:]]
    (expected,) = ort_answer(
        "SplitToSequence", inputs, domain="", version=11, types=types, axis=axis, **keep
    )
    value = x if text else torch.from_numpy(x)
    check(sequence.split_to_sequence(value, split, axis=axis, **keep), expected)
    if split is not None:
        sizes = torch.tensor(split)
        check(sequence.split_to_sequence(value, sizes, axis=axis, **keep), expected)


@pytest.mark.parametrize("position", [None, 0, 2, 3, -1, -3])
def test_insert_and_erase(position: int | None) -> None:
    x = [torch.full((2,), float(i)) for i in range(3)]
    new = torch.zeros(1)
    expected = list(x)
    expected.insert(3 if position is None else position, new)
    assert sequence.sequence_insert(x, new, position) == expected
    if position != 3:
        expected = list(x)
        del expected[-1 if position is None else position]
        at = None if position is None else torch.tensor(position)
        assert sequence.sequence_erase(x, at) == expected
        assert sequence.sequence_at(x, position or 0) is x[position or 0]
    assert len(x) == 3


@pytest.mark.parametrize("new_axis", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_from_sequence(axis: int, new_axis: int) -> None:
    x = [np.arange(6.0).reshape(2, 3) + i for i in range(3)]
    expected = np.stack(x, axis) if new_axis else np.concatenate(x, axis)
    tensors = [torch.from_numpy(a) for a in x]
    check(sequence.concat_from_sequence(tensors, axis=axis, new_axis=new_axis), expected)
    words = [a.astype(str).astype(object) for a in x]
    text = sequence.concat_from_sequence(words, axis=axis, new_axis=new_axis)
    check(text, expected.astype(str).astype(object))


def test_empty_optional_has_no_element() -> None:
    with pytest.raises(ValueError, match="empty"):
        sequence.optional_get_element(None)
