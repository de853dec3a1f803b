"""Inputs that the caller gives: read from files, and held against what the model declares."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx2nn.check.inputs import Unfit
from onnx2nn.check.roles import Wanted, wanted_inputs
from onnx2nn.core import InputShapes, core_shapes
from onnx2nn.errors import Error
from onnx2nn.tensors import DTYPE_NAMES, numpy_dtype

__all__ = ["check_shapes", "given_inputs"]


def given_inputs(
    proto: Any, inputs: Mapping[str, Any] | str | os.PathLike[str] | None
) -> dict[str, Any]:
    """The caller's inputs by name, as arrays of the model's types.

    inputs: values by name, or a file of them: an .npz, or an .npy for a model of one input.
    Raises Error for a file that cannot be read and Unfit for an array of a type, a rank or a fixed
    dim other than the model declares. Names that the model lacks are left for `candidates` to refuse.
    """
    wanted = {w.name: w for w in wanted_inputs(proto)}
    if isinstance(inputs, (str, os.PathLike)):
        inputs = _read(os.fspath(inputs), list(wanted))
    elif inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(f"inputs: {type(inputs).__name__} is not a dict of values by input name")
    return {
        name: _fitted(wanted[name], value) if name in wanted else value
        for name, value in (inputs or {}).items()
    }


def check_shapes(proto: Any, shapes: InputShapes | None) -> None:
    """Raises Unfit for an input shape that the model does not take; free dims fit any size."""
    wanted = {w.name: w for w in wanted_inputs(proto)}
    for name, shape in core_shapes(shapes or {}).items():
        if name in wanted:
            _check_shape(
                wanted[name], [d if isinstance(d, int) and d >= 0 else None for d in shape]
            )


def _fitted(w: Wanted, value: Any) -> Any:
    if w.type.WhichOneof("value") != "tensor_type" or w.elem_type not in DTYPE_NAMES:
        return value
    dtype = numpy_dtype(DTYPE_NAMES[w.elem_type])
    if not hasattr(value, "__array__"):
        try:  # Python's own numbers have no type to be wrong
            value = np.asarray(value, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise Unfit(f"input {w.name!r}: {error}; the model wants {_type(w)}") from error
    value = np.asarray(value)
    if value.dtype.kind == "V" and value.dtype.names is None and _is_narrow(value.dtype, dtype):
        value = value.view(dtype)  # how numpy saves the types that it lacks
    texts = value.dtype.kind in "OUST" and dtype.kind == "O"
    if value.dtype != dtype.newbyteorder(value.dtype.byteorder) and not texts:
        name = dtype.name if value.dtype.kind not in "OUSTV" else ""
        hint = f": pass x.astype({_home(dtype)}.{name})" if name and name != "object" else ""
        kind = "strings" if value.dtype.kind in "OUST" else value.dtype.name
        raise Unfit(f"input {w.name!r} is {kind}, the model wants {_type(w)}{hint}")
    _check_shape(w, value.shape)
    return value


def _is_narrow(stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    return stored.itemsize == wanted.itemsize and _home(wanted) == "ml_dtypes"


def _home(dtype: np.dtype[Any]) -> str:
    return "numpy" if dtype.kind != "V" and hasattr(np, dtype.name) else "ml_dtypes"


def _type(w: Wanted) -> str:
    return DTYPE_NAMES[w.elem_type].replace("object", "strings")


def _check_shape(w: Wanted, shape: Sequence[int | None]) -> None:
    if w.dims is None:
        return
    fits = len(shape) == len(w.dims) and all(
        isinstance(d, str) or size is None or d == size
        for d, size in zip(w.dims, shape, strict=True)
    )
    if not fits:
        dims = ", ".join(str(d or "?") for d in w.dims)
        what = "has" if len(shape) != len(w.dims) else "is of shape"
        got = f"{len(shape)} dims, {list(shape)}" if what == "has" else str(list(shape))
        raise Unfit(f"input {w.name!r} {what} {got}, the model wants [{dims}]")


def _read(path: str, names: list[str]) -> dict[str, Any]:
    """Inputs by name from a file; "in:" before a name is dropped, "out:" ones are left out."""
    try:
        with open(path, "rb") as file:
            magic = file.read(6)
        if magic.startswith(b"\x93NUMPY"):
            if len(names) != 1:
                raise Error(
                    f"{path}: one array, for a model of {len(names)} inputs; save them by name with "
                    f"numpy.savez: {', '.join(names)}",
                    usage=True,
                )
            return {names[0]: np.load(path, allow_pickle=False)}
        if not magic.startswith(b"PK"):
            raise Error(f"{path}: not an .npz or .npy file of inputs", unreadable=True)
        with np.load(path, allow_pickle=False) as archive:
            return {
                name.removeprefix("in:"): archive[name]
                for name in archive.files
                if not name.startswith("out:")
            }
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise Error(f"{path}: {reason}", unreadable=True) from error
    except (ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        # numpy's own advice is to let the file execute code.
        objects = "pickle" in str(error)
        why = "it holds Python objects, not arrays" if objects else "it is damaged"
        raise Error(
            f"{path}: not an .npz or .npy file of inputs: {why}", unreadable=True
        ) from error
