"""What helpers read that TorchScript has not, in words that it has: for gen_script_helpers.py."""

# What Python says of dtypes and TorchScript does not.
PREAMBLE = """
import math
from typing import Any, Callable, Dict, List, Optional, Tuple
import torch
import torch.nn.functional as F
from torch import Tensor

def itemsize_of(dtype: torch.dtype) -> int:
    # By name: element_size() is an operator that Netron does not know, and would show nothing for.
    if dtype == torch.complex128:
        return 16
    if dtype == torch.float64 or dtype == torch.complex64:
        return 8
    if dtype == torch.int64 or dtype == torch.uint64:
        return 8
    if dtype == torch.float32 or dtype == torch.int32 or dtype == torch.uint32:
        return 4
    if dtype == torch.float16 or dtype == torch.bfloat16:
        return 2
    if dtype == torch.int16 or dtype == torch.uint16:
        return 2
    return 1

def is_floating_point_dtype(dtype: torch.dtype) -> bool:
    return torch.empty([0], dtype=dtype).is_floating_point()

def is_unsigned_dtype(dtype: torch.dtype) -> bool:
    return (
        dtype == torch.uint8
        or dtype == torch.uint16
        or dtype == torch.uint32
        or dtype == torch.uint64
    )

def is_signed_dtype(dtype: torch.dtype) -> bool:
    return not (is_unsigned_dtype(dtype) or dtype == torch.bool)

def iinfo_bits(dtype: torch.dtype) -> int:
    return 8 * itemsize_of(dtype)

def iinfo_min(dtype: torch.dtype) -> int:
    if not is_signed_dtype(dtype):
        return 0
    return -iinfo_max(dtype) - 1

def iinfo_max(dtype: torch.dtype) -> int:
    # A table, since Netron computes what is constant and does not know `<<`.
    if dtype == torch.uint64:
        raise ValueError("the largest uint64 is no TorchScript integer")
    if dtype == torch.int64:
        return 9223372036854775807
    if dtype == torch.uint32:
        return 4294967295
    if dtype == torch.int32:
        return 2147483647
    if dtype == torch.uint16:
        return 65535
    if dtype == torch.int16:
        return 32767
    return 255 if dtype == torch.uint8 else 127

def same_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.view_copy(x, dtype=dtype)  # `view` is known by sizes only

def finfo_max(dtype: torch.dtype) -> float:
    if dtype == torch.float8_e4m3fn:
        return 448.0
    if dtype == torch.float8_e4m3fnuz:
        return 240.0
    if dtype == torch.float8_e5m2 or dtype == torch.float8_e5m2fnuz:
        return 57344.0
    if dtype == torch.float16:
        return 65504.0
    if dtype == torch.bfloat16:
        return 3.3895313892515355e38
    if dtype == torch.float64:
        return 1.7976931348623157e308
    if dtype == torch.float32:
        return 3.4028234663852886e38
    raise ValueError("the limits of this dtype are not known to TorchScript")

def finfo_min(dtype: torch.dtype) -> float:
    return -finfo_max(dtype)

def finfo_eps(dtype: torch.dtype) -> float:
    if dtype == torch.float16:
        return 0.0009765625
    if dtype == torch.bfloat16:
        return 0.0078125
    if dtype == torch.float64:
        return 2.220446049250313e-16
    if dtype == torch.float32:
        return 1.1920928955078125e-07
    raise ValueError("the limits of this dtype are not known to TorchScript")

def falling(values: List[int]) -> List[int]:
    out = sorted(values)
    out.reverse()
    return out

def index_at(x: Tensor, places: List[Tensor]) -> Tensor:
    wanted: List[Optional[Tensor]] = []
    for place in places:
        wanted.append(place)
    return torch.ops.aten.index(x, wanted)

def integers_of(x: Tensor) -> List[int]:
    out: List[int] = x.to(torch.int64).tolist()
    return out

def numbers_of(x: Tensor) -> List[float]:
    out: List[float] = x.to(torch.float64).tolist()
    return out

def product_of(values: List[int]) -> int:
    out = 1
    for value in values:
        out = out * value
    return out
"""

# What torch has in Python only, by what TorchScript has.
IN_ITS_PLACE = {
    "gradient": """
def gradient(function: Callable[..., Tensor], xs: list[Tensor], zs: list[Tensor] | None = None) -> list[Tensor]:
    enabled = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    inner = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in xs]
    others = list(xs)[:0] if zs is None else zs
    y = function(*inner, *others)
    out = [torch.zeros_like(x) for x in xs]
    if y.requires_grad:
        found = torch.autograd.grad([y.sum()], inner, create_graph=enabled, allow_unused=True)
        for i, slope in enumerate(found):
            if slope is not None:
                out[i] = slope
    torch.set_grad_enabled(enabled)
    return out
""",
    "split_to_sequence": """
def split_to_sequence(x: Tensor, split: Tensor | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Tensor]:
    if keepdims == 0 and (split is None or (split.dim() == 0 and int(split) == 1)):
        return list(x.unbind(axis))
    extent = x.shape[axis]
    if split is not None and split.dim() > 0:
        return list(torch.split_with_sizes(x, split.tolist(), axis))
    step = 1 if split is None else int(split)
    sizes = [min(step, extent - start) for start in range(0, extent, step)]
    return list(torch.split_with_sizes(x, sizes, axis))
""",
    "zip_map": """
def zip_map(x: Tensor, labels: list[int]) -> list[Dict[int, float]]:
    order = torch.tensor(labels, dtype=torch.int64).argsort(stable=True)
    names = [labels[i] for i in order.tolist()]
    out: list[Dict[int, float]] = []
    for row in as_matrix(x)[:, order.to(x.device)].unbind():
        scores: list[float] = row.tolist()
        entry: Dict[int, float] = {}
        for key, score in zip(names, scores):
            entry[key] = score
        out.append(entry)
    return out
""",
}
