"""Values on their way between numpy and torch, for every ONNX element type.

bfloat16 and float8 arrays are ml_dtypes arrays on the numpy side. What torch cannot compute on
travels in a wider type: int4, uint4, int2 and uint2 in 8 bits, float4 and float6 in float32. Strings stay
numpy object arrays, sequences are lists, an absent optional is None, maps are dicts.
torch is imported only where a tensor is made or read.
"""

from typing import Any

import numpy as np

__all__ = [
    "DTYPE_NAMES",
    "as_outputs",
    "is_torch_only",
    "numpy_dtype",
    "to_numpy",
    "to_torch",
]

# ONNX element types by number (onnx.TensorProto.DataType), named as numpy and ml_dtypes do.
DTYPE_NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "object",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3fn",
    28: "float6_e3m2fn",
}
_ML_DTYPES = {
    name
    for name in DTYPE_NAMES.values()
    if name.startswith(("bfloat", "float8_", "float6_", "float4_"))
}
_CARRIED = {
    "int4": "int8",
    "uint4": "uint8",
    "int2": "int8",
    "uint2": "uint8",
    "float4_e2m1fn": "float32",
    "float6_e2m3fn": "float32",
    "float6_e3m2fn": "float32",
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of that name, from ml_dtypes where numpy itself has none."""
    if name in _ML_DTYPES or name in _CARRIED:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
    return np.dtype(name)


def is_torch_only(dtype: np.dtype[Any]) -> bool:
    """Whether a numpy dtype is one of ml_dtypes that torch has and numpy does not."""
    return dtype.name in _ML_DTYPES and dtype.name not in _CARRIED


def to_torch(value: Any, device: str = "cpu") -> Any:
    """An ONNX value (array, list, dict, None) as emitted code takes it; always a copy."""
    import torch

    if isinstance(value, (list, tuple)):
        return [to_torch(v, device) for v in value]
    if isinstance(value, (np.generic, bool, int, float, complex)):
        value = np.asarray(value)
    elif isinstance(value, str):
        value = np.asarray(value, dtype=object)
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind in "OUST":
        return value.astype(object)
    name = value.dtype.name
    if name in _CARRIED:
        value = value.astype(_CARRIED[name])
    elif name in _ML_DTYPES:
        bits = np.array(value, order="C").view(f"u{value.dtype.itemsize}")
        return torch.from_numpy(bits).view(getattr(torch, name)).to(device)
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(value, order="C")).to(device)


def to_numpy(value: Any, dtype: str | None = None) -> Any:
    """What emitted code returned as numpy; `dtype` is the declared element type, by name."""
    import torch

    if isinstance(value, dict):
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        name = str(value.dtype).removeprefix("torch.")
        if name in _ML_DTYPES:
            bits = value.contiguous().view(getattr(torch, f"uint{8 * value.element_size()}"))
            array = bits.numpy().view(numpy_dtype(name))
        else:
            array = value.numpy()
    elif isinstance(value, (list, tuple)) and not _is_flat_numbers(value, dtype):
        return [to_numpy(v, dtype) for v in value]
    elif value is None:
        return None
    elif isinstance(value, str):
        array = np.asarray(value, dtype=object)
    else:
        plain = isinstance(value, (bool, int, float, list, tuple))
        array = np.asarray(value, dtype=numpy_dtype(dtype) if plain and dtype else None)
    if dtype in _CARRIED and array.dtype.kind in "iuf":
        array = array.astype(numpy_dtype(dtype))
    return array


def _is_flat_numbers(value: Any, dtype: str | None) -> bool:
    """Whether a list is a tensor that was left as Python numbers, not a sequence."""
    return (
        dtype is not None and len(value) > 0 and all(type(v) in (bool, int, float) for v in value)
    )


def as_outputs(result: Any, count: int) -> list[Any]:
    """What `forward` returned, one item for each of the model's outputs."""
    if count == 1 and not (isinstance(result, tuple) and len(result) == 1):
        return [result]
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, (tuple, list)) else [result]
