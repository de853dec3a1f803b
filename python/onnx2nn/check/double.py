"""The same module in double precision: who of two that differ is nearer to it."""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from onnx2nn.check.compare import Comparison, is_float
from onnx2nn.check.written import run_module

__all__ = ["note_double"]

# Larger modules are not copied.
_MAX_BYTES = 2**30


class _Wider(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """Makes in double precision what source asks for in single."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be guarded against torch's compiler, whose import takes over a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def wide(x: Any) -> Any:
            return torch.float64 if x is torch.float32 else x

        return func(*map(wide, args), **{k: wide(v) for k, v in (kwargs or {}).items()})


def note_double(
    net: nn.Module,
    feed: dict[str, Any],
    proto: Any,
    wants: list[Any],
    gots: list[Any],
    rows: list[Comparison],
) -> list[str]:
    """Fill in how far oracle and module are off from the module in double precision; notes for people.

    wants, gots: the oracle's and the module's outputs. rows: their comparisons, in the same order.
    """
    size = sum(t.numel() * t.element_size() for t in [*net.parameters(), *net.buffers()])
    if size > _MAX_BYTES:
        return []
    wide = {
        n: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v
        for n, v in feed.items()
    }
    try:
        with _Wider():  # type: ignore[no-untyped-call,unused-ignore]
            exact = run_module(copy.deepcopy(net).double(), wide, proto)
    except Exception:  # an operator has no kernel in double precision: there is no such answer
        return []
    notes = []
    for c, want, got, y in zip(rows, wants, gots, exact, strict=False):
        if c.ok or not all(isinstance(x, np.ndarray) for x in (want, got, y)):
            continue
        if not is_float(want.dtype) or want.shape != y.shape or y.dtype != np.float64:
            continue
        c.oracle_mse, c.own_mse = _mse(want, y), _mse(got, y)
        notes.append(
            f"{c.name}: mean squared error against the module in double precision "
            f"{c.oracle_mse:.1e} for the oracle, {c.own_mse:.1e} for the module"
        )
    return notes


def _mse(x: Any, exact: Any) -> float:
    with np.errstate(all="ignore"):
        gap = (x.astype(np.float64) - exact) ** 2
    gap = gap[np.isfinite(gap)]
    return float(gap.mean()) if gap.size else 0.0
