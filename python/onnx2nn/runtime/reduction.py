"""Reductions of what torch does not reduce: empty axes, other dtypes, axes known at run time."""

import math

import torch
from torch import Tensor

from onnx2nn.runtime.indexing import comparable, compared, computable, computed


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
        return reduce_values(x.unsqueeze(0), kind, [0], keepdims=0)
    axes = [axis % x.dim() for axis in axes] if axes else list(range(x.dim()))
    keep = bool(keepdims)
    if kind in ("max", "min"):
        y = comparable(x)
        if 0 in [x.shape[axis] for axis in axes]:
            # The identity of the operation: nothing is larger than the lowest value.
            shape = [1 if i in axes else size for i, size in enumerate(x.shape)]
            low, high = value_limits(x.dtype)
            y = torch.full(
                shape, low if kind == "max" else high, dtype=x.dtype, device=x.device
            )
            return (
                y
                if keep
                else y.reshape([s for i, s in enumerate(x.shape) if i not in axes])
            )
        return compared(
            y.amax(axes, keep) if kind == "max" else y.amin(axes, keep), x.dtype
        )
    y = computable(x)
    whole = not y.dtype.is_floating_point
    if kind == "sum":
        out = y.sum(axes, keep, dtype=y.dtype)
    elif kind == "l1":
        out = y.abs().sum(axes, keep, dtype=y.dtype)
    elif kind == "sum_square":
        out = (y * y).sum(axes, keep, dtype=y.dtype)
    elif kind == "mean":
        count = math.prod(x.shape[axis] for axis in axes)
        total = y.sum(axes, keep, dtype=torch.int64 if whole else y.dtype)
        out = torch.div(total, count, rounding_mode="trunc") if whole else total / count
    elif kind == "prod":
        out = y
        for axis in sorted(axes, reverse=True):
            out = out.prod(axis, keep, dtype=y.dtype)
    else:
        y = y.double() if whole else y
        if kind == "l2":
            out = torch.linalg.vector_norm(y, dim=axes, keepdim=keep)
        elif kind == "log_sum":
            out = y.sum(axes, keep).log()
        else:
            out = y.logsumexp(axes, keep)
        out = out.to(x.dtype) if whole else out
    return computed(out, x.dtype)


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
