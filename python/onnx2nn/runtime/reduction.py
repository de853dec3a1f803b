"""Reductions of what torch does not reduce: empty axes, other dtypes, axes known at run time."""

import math

import torch
from torch import Tensor

from onnx2nn.runtime.indexing import comparable, compared, computable, computed


def extreme_of(x: Tensor, kind: str, axes: list[int], keep: bool) -> Tensor:
    """ONNX ReduceMax or ReduceMin; of nothing, the identity: nothing is above the lowest."""
    if 0 not in [x.shape[axis] for axis in axes]:
        y = comparable(x)
        y = y.amax(axes, keep) if kind == "max" else y.amin(axes, keep)
        return compared(y, x.dtype)
    low, high = value_limits(x.dtype)
    shape = [1 if i in axes else size for i, size in enumerate(x.shape)]
    if not keep:
        shape = [size for i, size in enumerate(x.shape) if i not in axes]
    fill = low if kind == "max" else high
    return torch.full(shape, fill, dtype=x.dtype, device=x.device)


def mean_of(y: Tensor, axes: list[int], keep: bool) -> Tensor:
    """ONNX ReduceMean, which of integers is rounded towards zero."""
    count = math.prod(y.shape[axis] for axis in axes)
    if y.dtype.is_floating_point:
        return y.sum(axes, keep, dtype=y.dtype) / count
    total = y.sum(axes, keep, dtype=torch.int64)
    return torch.div(total, count, rounding_mode="trunc")


def sum_of(y: Tensor, kind: str, axes: list[int], keep: bool) -> Tensor:
    """The reductions that stay in their own type."""
    if kind == "prod":
        for axis in sorted(axes, reverse=True):
            y = y.prod(axis, keep, dtype=y.dtype)
        return y
    terms = y.abs() if kind == "l1" else y * y if kind == "sum_square" else y
    return terms.sum(axes, keep, dtype=y.dtype)


def norm_of(y: Tensor, kind: str, axes: list[int], keep: bool) -> Tensor:
    """The reductions that are computed in floats."""
    if kind == "l2":
        norm: Tensor = torch.linalg.vector_norm(y, dim=axes, keepdim=keep)
        return norm
    return y.sum(axes, keep).log() if kind == "log_sum" else y.logsumexp(axes, keep)


def reduce_values(
    x: Tensor,
    kind: str,
    axes: list[int],
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Tensor:
    """Any ONNX Reduce operator: torch lacks unsigned dtypes, and extremes of nothing."""
    if noop_with_empty_axes and not axes:
        # Each element is reduced by itself.
        x, axes, keepdims = x.unsqueeze(0), [0], 0
    axes = [axis % x.dim() for axis in axes] if axes else list(range(x.dim()))
    keep = bool(keepdims)
    if kind in ("max", "min"):
        return extreme_of(x, kind, axes, keep)
    y = computable(x)
    if kind == "mean":
        return computed(mean_of(y, axes, keep), x.dtype)
    if kind in ("l2", "log_sum", "log_sum_exp"):
        wide = y if y.dtype.is_floating_point else y.double()
        return computed(norm_of(wide, kind, axes, keep).to(y.dtype), x.dtype)
    return computed(sum_of(y, kind, axes, keep), x.dtype)


def value_limits(dtype: torch.dtype) -> tuple[float, float]:
    """The lowest and highest value of a dtype, infinities where it has them."""
    if dtype == torch.bool:
        return False, True
    if dtype.is_floating_point:
        return -math.inf, math.inf
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


def is_all_finite(
    tensors: list[Tensor], *, isinf_only: int = 0, isnan_only: int = 0
) -> Tensor:
    """com.microsoft IsAllFinite: whether no element of any is infinite or NaN, or one of these."""
    if isinf_only:
        return ~torch.stack([x.isinf().any() for x in tensors]).any()
    if isnan_only:
        return ~torch.stack([x.isnan().any() for x in tensors]).any()
    return torch.stack([x.isfinite().all() for x in tensors]).all()
