"""Tensor manipulation and integer arithmetic that torch has no single call for."""

import math

import torch
from torch import Tensor


def movable(x: Tensor) -> Tensor:
    """Views dtypes that torch cannot gather or scatter (uint16/32/64, float8) as plain integers."""
    if x.dtype == torch.uint16:
        return x.view(torch.int16)
    if x.dtype == torch.uint32:
        return x.view(torch.int32)
    if x.dtype == torch.uint64:
        return x.view(torch.int64)
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        return x.view(torch.uint8)
    return x


def moved(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Gives a tensor that was viewed as integers to be moved its dtype back."""
    return y if y.dtype == dtype else y.view(dtype)


def comparable(x: Tensor) -> Tensor:
    """Maps dtypes that torch cannot order (uint16/32/64, bool, float8) to one it can, in order."""
    if x.dtype == torch.uint16:
        return x.to(torch.int32)
    if x.dtype == torch.uint32:
        return x.to(torch.int64)
    if x.dtype == torch.uint64:
        return x.view(torch.int64) ^ torch.iinfo(torch.int64).min
    if x.dtype == torch.bool:
        return x.to(torch.uint8)
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        return x.to(torch.float32)
    return x


def compared(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Gives a tensor that was mapped to be ordered its dtype back."""
    if dtype == torch.uint64:
        return (y ^ torch.iinfo(torch.int64).min).view(torch.uint64)
    return y if y.dtype == dtype else y.to(dtype)


def computable(x: Tensor) -> Tensor:
    """Maps dtypes without arithmetic in torch (uint16/32/64, float8) to one that has it."""
    if x.dtype == torch.uint16:
        return x.to(torch.int32)
    if x.dtype == torch.uint32:
        return x.to(torch.int64)
    if x.dtype == torch.uint64:
        return x.view(torch.int64)
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        return x.to(torch.float32)
    return x


def computed(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Gives a tensor that was mapped for arithmetic its dtype back; integers wrap around."""
    if dtype == torch.uint64 and y.dtype == torch.int64:
        return y.view(torch.uint64)
    return y if y.dtype == dtype else y.to(dtype)


def aligned(b: Tensor, a: Tensor, axis: int) -> Tensor:
    """The second operand as opsets 1-6 align it with the first: from `axis` on."""
    start = axis + a.dim() if axis < 0 else axis
    return b.reshape(b.shape + (1,) * (a.dim() - start - b.dim()))


def wrap_indices(indices: Tensor, size: int) -> Tensor:
    """Makes ONNX's negative indices positive, which torch's gather and scatter do not."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


def gather_slices(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """ONNX Gather: torch's index_select takes neither negative nor multi-dimensional indices."""
    axis %= x.dim()
    index = wrap_indices(indices, x.shape[axis]).reshape(-1)
    out = moved(movable(x).index_select(axis, index), x.dtype)
    return out.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def gather_elements(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """ONNX GatherElements: torch.gather refuses negative indices and some dtypes."""
    index = wrap_indices(indices, x.shape[axis])
    return moved(movable(x).gather(axis, index), x.dtype)


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """ONNX GatherND: torch indexes with one tensor an axis, and has no batch dimensions."""
    depth = indices.shape[-1]
    batch = math.prod(x.shape[:batch_dims])
    count = math.prod(indices.shape[batch_dims:-1])
    row = torch.arange(batch, device=x.device).repeat_interleave(count)
    columns = indices.to(torch.int64).reshape(batch * count, depth).unbind(1)
    out = x.reshape(batch, *x.shape[batch_dims:])[(row, *columns)]
    return out.reshape(indices.shape[:-1] + x.shape[batch_dims + depth :])


def scatter_reduced(
    x: Tensor, index: Tensor, updates: Tensor, axis: int, reduction: str
) -> Tensor:
    """Scatters along an axis with ONNX's reductions, for every dtype (indices not negative)."""
    updates = updates.to(x.dtype)
    if reduction == "none":
        return moved(movable(x).scatter(axis, index, movable(updates)), x.dtype)
    if reduction == "add":
        out = computable(x).scatter_add(axis, index, computable(updates))
        return computed(out, x.dtype)
    if reduction == "mul":
        out = computable(x).scatter_reduce(axis, index, computable(updates), "prod")
        return computed(out, x.dtype)
    mode = "amax" if reduction == "max" else "amin"
    out = comparable(x).scatter_reduce(axis, index, comparable(updates), mode)
    return compared(out, x.dtype)


def scatter_elements(
    x: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Tensor:
    """ONNX ScatterElements and Scatter: torch refuses negative indices and some dtypes."""
    index = wrap_indices(indices, x.shape[axis])
    return scatter_reduced(x, index, updates, axis, reduction)


def scatter_nd(
    x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none"
) -> Tensor:
    """ONNX ScatterND: torch scatters along one axis, and index_put cannot multiply or order."""
    depth = indices.shape[-1]
    count = math.prod(indices.shape[:-1])
    inner = math.prod(x.shape[depth:])
    index = torch.zeros(count, dtype=torch.int64, device=x.device)
    for axis, column in enumerate(indices.reshape(count, depth).unbind(1)):
        index = index * x.shape[axis] + wrap_indices(column, x.shape[axis])
    rows = x.reshape(math.prod(x.shape[:depth]), inner)
    index = index.unsqueeze(1).expand(count, inner)
    out = scatter_reduced(rows, index, updates.reshape(count, inner), 0, reduction)
    return out.reshape(x.shape)


def tensor_scatter(
    past_cache: Tensor,
    update: Tensor,
    write_indices: Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Tensor:
    """ONNX TensorScatter: torch has no slice assignment whose place differs per sample."""
    axis %= past_cache.dim()
    tail = [1] * (past_cache.dim() - axis - 1)
    position = torch.arange(update.shape[axis], device=update.device).reshape(
        [-1, *tail]
    )
    if write_indices is not None:
        position = write_indices.reshape([-1] + [1] * (past_cache.dim() - 1)) + position
    if mode == "circular":
        position = position % past_cache.shape[axis]
    index = position.expand(update.shape)
    return moved(
        movable(past_cache).scatter(axis, index, movable(update)), past_cache.dtype
    )


def one_hot(indices: Tensor, depth: int, values: Tensor, axis: int = -1) -> Tensor:
    """ONNX OneHot: F.one_hot has no on and off values, negative or out of range indices."""
    index = wrap_indices(indices, depth)
    axis %= indices.dim() + 1
    classes = torch.arange(depth, device=indices.device)
    classes = classes.reshape([-1] + [1] * (indices.dim() - axis))
    return torch.where(index.unsqueeze(axis) == classes, values[1], values[0])


def top_k(
    x: Tensor, k: int, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """ONNX TopK: torch.topk does not promise the lowest index first among equal values."""
    order = comparable(x).sort(dim=axis, descending=bool(largest), stable=True).indices
    indices = order.narrow(axis, 0, k)
    return moved(movable(x).gather(axis, indices), x.dtype), indices


def unique_values(
    x: Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ONNX Unique: torch.unique gives no first indices and no order of first appearance."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    size = x.shape[axis]
    values, inverse, counts = torch.unique(
        comparable(x), return_inverse=True, return_counts=True, dim=axis
    )
    inverse = inverse.reshape(-1)
    position = torch.arange(size, device=x.device)
    first = torch.full_like(counts, size).scatter_reduce(0, inverse, position, "amin")
    if not sorted:
        order = first.argsort()
        values, first, counts = (
            values.index_select(axis, order),
            first[order],
            counts[order],
        )
        inverse = order.argsort()[inverse]
    return compared(values, x.dtype), first, inverse, counts


def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """ONNX Compress: a mask in torch may not be shorter than the axis it selects from."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    index = condition.nonzero().squeeze(1)
    return moved(movable(x).index_select(axis, index), x.dtype)


def trilu(x: Tensor, k: int = 0, *, upper: int = 1) -> Tensor:
    """ONNX Trilu for the dtypes that torch.triu and torch.tril lack."""
    out = movable(x).triu(k) if upper else movable(x).tril(k)
    return moved(out, x.dtype)


def reverse_sequence(
    x: Tensor, sequence_lens: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    """ONNX ReverseSequence: torch.flip cannot turn only the first part of each sample."""
    steps = torch.arange(x.shape[time_axis], device=x.device).reshape(-1, 1)
    lens = sequence_lens.to(torch.int64)
    index = torch.where(steps < lens, lens - 1 - steps, steps)
    index = index if time_axis == 0 else index.T
    index = index.reshape(list(index.shape) + [1] * (x.dim() - 2)).expand(x.shape)
    return moved(movable(x).gather(time_axis, index), x.dtype)


def turned_bounds(start: int, end: int, size: int) -> tuple[int, int]:
    """The bounds of a slice that steps backwards, counted from the end."""
    first = max(start + size, 0) if start < 0 else min(start, size - 1)
    past = max(end + size, -1) if end < 0 else min(end, size - 1)
    return size - 1 - first, size - 1 - past


def slice_tensor(
    x: Tensor,
    starts: list[int],
    ends: list[int],
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:
    """ONNX Slice with bounds known only at run time: torch refuses negative steps."""
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    dtype, x = x.dtype, movable(x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= x.dim()
        size = x.shape[axis]
        if step < 0:
            x = x.flip(axis)
            start, end = turned_bounds(start, end, size)
        else:
            start = start + size if start < 0 else start
            end = end + size if end < 0 else end
        start, end = min(max(start, 0), size), min(max(end, 0), size)
        x = x[(slice(None),) * axis + (slice(start, max(start, end), abs(step)),)]
    return moved(x, dtype)


def cumulate(total: Tensor, axis: int, exclusive: int, first: int) -> Tensor:
    """Shifts running totals by one place for ONNX's `exclusive`, starting with `first`."""
    size = total.shape[axis]
    if not exclusive or size == 0:
        return total
    head = torch.full_like(total.narrow(axis, 0, 1), first)
    return torch.cat([head, total.narrow(axis, 0, size - 1)], dim=axis)


def cum_sum(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """ONNX CumSum: torch.cumsum can neither leave the element itself out nor run backwards."""
    y = computable(x)
    y = y.flip(axis) if reverse else y
    y = cumulate(y.cumsum(axis, dtype=y.dtype), axis, exclusive, 0)
    return computed(y.flip(axis) if reverse else y, x.dtype)


def cum_prod(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """ONNX CumProd: torch.cumprod can neither leave the element itself out nor run backwards."""
    y = computable(x)
    y = y.flip(axis) if reverse else y
    y = cumulate(y.cumprod(axis, dtype=y.dtype), axis, exclusive, 1)
    return computed(y.flip(axis) if reverse else y, x.dtype)


def number_range(start: Tensor, limit: Tensor, delta: Tensor | None = None) -> Tensor:
    """ONNX Range of scalars known only at run time: torch.arange lacks the unsigned dtypes."""
    if delta is None:
        delta = torch.ones_like(start)
    low, high, step = start.item(), limit.item(), delta.item()
    if start.dtype.is_floating_point:
        count = max(math.ceil((high - low) / step), 0)
    else:
        count = max(-int((low - high) // step), 0)
    steps = torch.arange(count, device=start.device)
    if start.dtype.is_floating_point:
        # Computed in double so that bfloat16 and float16 round only once.
        return (start.double() + steps * delta.double()).to(start.dtype)
    return computed(computable(start) + steps * computable(delta), start.dtype)


def einsum_integers(equation: str, operands: list[Tensor]) -> Tensor:
    """ONNX Einsum for dtypes that torch.einsum lacks (uint16/32/64, bool, float8)."""
    dtype = operands[0].dtype
    if dtype == torch.bool:
        return torch.einsum(equation, [x.to(torch.int32) for x in operands]) != 0
    return computed(torch.einsum(equation, [computable(x) for x in operands]), dtype)


def hardmax(x: Tensor, axis: int = -1) -> Tensor:
    """ONNX Hardmax: torch has no one-hot of the first largest element along an axis."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def arg_max(
    x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Tensor:
    """ONNX ArgMax: torch.argmax cannot take the last of equal values, and lacks some dtypes."""
    y = comparable(x)
    if not select_last_index:
        return y.argmax(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - y.flip(axis).argmax(axis, keepdim=bool(keepdims))


def arg_min(
    x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Tensor:
    """ONNX ArgMin: torch.argmin cannot take the last of equal values, and lacks some dtypes."""
    y = comparable(x)
    if not select_last_index:
        return y.argmin(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - y.flip(axis).argmin(axis, keepdim=bool(keepdims))


def non_zero(x: Tensor) -> Tensor:
    """ONNX NonZero: torch.nonzero gives the transpose, and lacks some dtypes."""
    return (x != 0).nonzero().T


def eye_like(x: Tensor, *, k: int = 0, dtype: torch.dtype | None = None) -> Tensor:
    """ONNX EyeLike: torch.eye has no diagonal offset, and lacks some dtypes."""
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[1], device=x.device)
    return (columns - rows == k).to(x.dtype if dtype is None else dtype)


def reshape_copy_zeros(x: Tensor, shape: list[int], *, allowzero: int = 0) -> Tensor:
    """ONNX Reshape with a shape known only at run time, in which 0 copies a dimension."""
    copied = [] if allowzero else [i for i, size in enumerate(shape) if size == 0]
    if -1 in shape and x.numel() == 0:
        # torch cannot infer -1 among zeros; without what is copied there may be none left.
        known = math.prod(size for size in shape if size > 0)
        left = math.prod(size for i, size in enumerate(x.shape) if i not in copied)
        shape = [left // known if size == -1 else size for size in shape]
    shape = [x.shape[i] if i in copied else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def flatten_to_matrix(x: Tensor, *, axis: int = 1) -> Tensor:
    """ONNX Flatten where the rank is known only at run time: torch.flatten keeps other axes."""
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def insert_axes(x: Tensor, axes: list[int]) -> Tensor:
    """ONNX Unsqueeze of axes known only at run time: torch.unsqueeze adds one at a time."""
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def expand_both(x: Tensor, shape: list[int]) -> Tensor:
    """ONNX Expand: Tensor.expand does not let 1 in the shape stand for the tensor's size."""
    rank = max(x.dim(), len(shape))
    own = [1] * (rank - x.dim()) + list(x.shape)
    asked = [1] * (rank - len(shape)) + shape
    return x.expand([b if a == 1 else a for a, b in zip(own, asked, strict=True)])


def tile_axis(x: Tensor, tiles: int, axis: int) -> Tensor:
    """ONNX Tile before opset 6, which repeats one axis, where that is known only at run time."""
    at = axis % x.dim()
    return x.repeat([tiles if i == at else 1 for i in range(x.dim())])


def unsigned_divide(a: Tensor, b: Tensor) -> Tensor:
    """Divides uint64 values that are held as int64 bits, which torch cannot."""
    lowest = torch.iinfo(torch.int64).min
    # A divisor above 2**63 goes once or not at all; below that, half the dividend is signed.
    divisor = torch.where(b < 0, 1, b)
    quotient = torch.div(
        (a >> 1) & torch.iinfo(torch.int64).max, divisor, rounding_mode="trunc"
    )
    quotient = quotient * 2
    rest = a - quotient * divisor
    quotient = quotient + ((rest ^ lowest) >= (divisor ^ lowest)).to(torch.int64)
    return torch.where(b < 0, ((a ^ lowest) >= (b ^ lowest)).to(torch.int64), quotient)


def integer_divide(a: Tensor, b: Tensor) -> Tensor:
    """ONNX Div of integers truncates towards zero, for every width; torch lacks uint16/32/64."""
    if a.dtype == torch.uint64:
        return unsigned_divide(a.view(torch.int64), b.view(torch.int64)).view(
            torch.uint64
        )
    return computed(
        torch.div(computable(a), computable(b), rounding_mode="trunc"), a.dtype
    )


def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """ONNX Mod: the divisor's sign, or with `fmod` the dividend's; torch lacks uint16/32/64."""
    if a.dtype == torch.uint64:
        x, y = a.view(torch.int64), b.view(torch.int64)
        return (x - unsigned_divide(x, y) * y).view(torch.uint64)
    operation = torch.fmod if fmod else torch.remainder
    return computed(operation(computable(a), computable(b)), a.dtype)


def bit_shift(x: Tensor, y: Tensor, *, direction: str) -> Tensor:
    """ONNX BitShift: torch shifts no uint16/32/64, and signed shifts copy the sign."""
    count = y.to(torch.int64)
    outside = (count < 0) | (count >= 8 * x.dtype.itemsize)
    count = torch.where(outside, 63, count)
    value = x.view(torch.int64) if x.dtype == torch.uint64 else x.to(torch.int64)
    if direction == "LEFT":
        out = torch.where(outside, 0, value << count)
    elif x.dtype.is_signed:
        out = value >> count
    else:
        # The first place clears the sign, so that the rest of an arithmetic shift brings zeros.
        half = (value >> 1) & torch.iinfo(torch.int64).max
        out = torch.where(count == 0, value, half >> (count - 1).clamp(min=0))
        out = torch.where(outside, 0, out)
    return computed(out, x.dtype)


def bitwise_not(x: Tensor) -> Tensor:
    """ONNX BitwiseNot for the unsigned dtypes that torch.bitwise_not lacks."""
    return moved(~movable(x), x.dtype)


def power(x: Tensor, y: Tensor) -> Tensor:
    """ONNX Pow: the result has the base's dtype, whatever torch would promote to."""
    if x.dtype.is_floating_point:
        return torch.pow(x, computable(y)).to(x.dtype)
    if y.dtype.is_floating_point:
        return torch.pow(x.double(), y.double()).to(x.dtype)
    base = computable(x)
    return computed(torch.pow(base, computable(y).to(base.dtype)), x.dtype)


def maximum_of(*tensors: Tensor) -> Tensor:
    """ONNX Max of any number of tensors with broadcasting, for every dtype; NaN wins."""
    out = comparable(tensors[0])
    for tensor in tensors[1:]:
        out = torch.maximum(out, comparable(tensor))
    return compared(out, tensors[0].dtype)


def minimum_of(*tensors: Tensor) -> Tensor:
    """ONNX Min of any number of tensors with broadcasting, for every dtype; NaN wins."""
    out = comparable(tensors[0])
    for tensor in tensors[1:]:
        out = torch.minimum(out, comparable(tensor))
    return compared(out, tensors[0].dtype)


def align_axis(x: Tensor, rank: int, axis: int) -> Tensor:
    """Broadcasting before opset 7 (`axis`, `broadcast`): sets a tensor's dims at `axis`."""
    trailing = rank - axis % rank - x.dim()
    return x.reshape(x.shape + (1,) * trailing)


def murmur_hash3(x: Tensor, *, positive: int = 1, seed: int = 0) -> Tensor:
    """com.microsoft MurmurHash3 (x86, 32 bits) of each element's bytes: torch has no hash.

    32-bit words are held in int64, whose products wrap without a loss of the low bits.
    """
    if not x.numel():
        return x.to(torch.uint32 if positive else torch.int32)
    low = 0xFFFFFFFF
    count = x.dtype.itemsize // 4
    words = x.contiguous().reshape(-1).view(torch.int32).reshape(x.numel(), count)
    h = torch.full_like(words[:, 0], seed & low, dtype=torch.int64)
    for word in words.to(torch.int64).unbind(1):
        k = ((word & low) * 0xCC9E2D51) & low
        k = (((k << 15) | (k >> 17)) & low) * 0x1B873593
        h = h ^ (k & low)
        h = (((h << 13) | (h >> 19)) * 5 + 0xE6546B64) & low
    h = h ^ x.dtype.itemsize
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & low
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & low
    y = (h ^ (h >> 16)).to(torch.int32).reshape(x.shape)
    return y.view(torch.uint32) if positive else y
