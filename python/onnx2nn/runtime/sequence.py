"""ONNX sequences are Python lists and optionals may be None: what needs more than list syntax."""

import numpy as np
import torch
from torch import Tensor


def sequence_at(
    sequence: list[Tensor] | list[np.ndarray], position: Tensor | int
) -> Tensor | np.ndarray:
    """ONNX SequenceAt: negative positions count from the end."""
    return sequence[int(position)]


def sequence_insert(
    sequence: list[Tensor | np.ndarray],
    value: Tensor | np.ndarray,
    position: Tensor | int | None = None,
) -> list[Tensor | np.ndarray]:
    """ONNX SequenceInsert: a new list with `value` before `position`, at the end without one."""
    at = len(sequence) if position is None else int(position)
    at = at + len(sequence) if at < 0 else at
    return [*sequence[:at], value, *sequence[at:]]


def sequence_erase(
    sequence: list[Tensor | np.ndarray], position: Tensor | int | None = None
) -> list[Tensor | np.ndarray]:
    """ONNX SequenceErase: a new list without the element at `position`, the last without one."""
    at = -1 if position is None else int(position)
    at = at + len(sequence) if at < 0 else at
    return [*sequence[:at], *sequence[at + 1 :]]


def concat_from_sequence(
    sequence: list[Tensor] | list[np.ndarray], *, axis: int, new_axis: int = 0
) -> Tensor | np.ndarray:
    """ONNX ConcatFromSequence: torch.cat or torch.stack, for strings too."""
    tensors = [x for x in sequence if isinstance(x, Tensor)]
    if len(tensors) == len(sequence):
        return torch.stack(tensors, axis) if new_axis else torch.cat(tensors, axis)
    arrays = [x for x in sequence if not isinstance(x, Tensor)]
    return np.stack(arrays, axis) if new_axis else np.concatenate(arrays, axis)


def split_evenly(x: Tensor, parts: int, axis: int) -> tuple[Tensor, ...]:
    """ONNX Split into equal parts: of too few elements torch's chunk makes fewer, and no empty ones."""
    size = x.shape[axis]
    part = -(-size // parts)
    sizes = [max(min(part, size - i * part), 0) for i in range(parts)]
    return torch.split_with_sizes(x, sizes, axis)


def split_to_sequence(
    x: Tensor | np.ndarray,
    split: Tensor | list[int] | int | None = None,
    *,
    axis: int = 0,
    keepdims: int = 1,
) -> list[Tensor] | list[np.ndarray]:
    """ONNX SplitToSequence: pieces of one size, of listed sizes, or single slices; strings too."""
    sizes = split.tolist() if isinstance(split, Tensor) else split
    # ONNX Runtime drops the axis of pieces of the size 1 too.
    drop = not keepdims and sizes in (None, 1)
    extent = x.shape[axis]
    if sizes is None or isinstance(sizes, int):
        step = 1 if sizes is None else sizes
        sizes = [min(step, extent - start) for start in range(0, extent, step)]
    if isinstance(x, Tensor):
        return list(x.unbind(axis)) if drop else list(torch.split(x, sizes, axis))
    ends = np.cumsum(np.asarray(sizes, dtype=np.int64))[:-1].tolist()
    pieces = np.split(x, ends, axis) if sizes else []
    return [p.squeeze(axis) for p in pieces] if drop else pieces


def optional_has_element(x: Tensor | np.ndarray | list[Tensor] | None = None) -> Tensor:
    """ONNX OptionalHasElement as a tensor; where Python decides, `x is not None` says the same."""
    return torch.tensor(x is not None)


def optional_get_element(
    x: Tensor | np.ndarray | list[Tensor] | None,
) -> Tensor | np.ndarray | list[Tensor]:
    """ONNX OptionalGetElement: x itself, which must not be None."""
    if x is None:
        raise ValueError("OptionalGetElement: the optional is empty")
    return x


def stack_rounds(
    values: list[Tensor], shape: list[int], dtype: torch.dtype, axis: int = 0
) -> Tensor:
    """ONNX Loop's and Scan's collected outputs; torch.stack takes no empty list.

    shape, dtype: what one value would be, where no round has run.
    """
    if len(values) > 0:
        return torch.stack(values, axis)
    at = axis if axis >= 0 else axis + len(shape) + 1
    return torch.empty([*shape[:at], 0, *shape[at:]], dtype=dtype)


def stack_string_rounds(
    values: list[np.ndarray], shape: list[int], axis: int = 0
) -> np.ndarray:
    """stack_rounds for strings, of which torch has no tensors."""
    if values:
        return np.stack(values, axis)
    at = axis if axis >= 0 else axis + len(shape) + 1
    return np.empty([*shape[:at], 0, *shape[at:]], dtype=object)


def pad_rows(x: Tensor, rows: int) -> Tensor:
    """x [n, ...] with zeros up to `rows` rows: the outputs of ONNX Scan 8 on shorter sequences."""
    return torch.cat([x, x.new_zeros(rows - x.shape[0], *x.shape[1:])])
