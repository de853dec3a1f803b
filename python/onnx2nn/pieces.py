"""A ModelProto that is too large for one message, saved with its tensors in a file of their own."""

import math
import os
from collections.abc import Callable
from typing import Any

__all__ = ["least_size", "save"]

# Smaller tensors stay in the model: readers want shapes and axes at hand.
_SMALL = 1024
_ALIGNMENT = 4096
# Bytes of an element of these types, at least, which is all that an estimate needs: TensorProto.DataType.
_ELEMENT = {1: 4, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2, 4: 2, 5: 2}
_EXTERNAL = 1


def least_size(model: Any) -> int:
    """What a ModelProto takes at least, by the shapes of its initialisers: none is copied."""
    return sum(
        math.prod(t.dims) * _ELEMENT.get(t.data_type, 0)
        for t in model.graph.initializer
        if t.data_location != _EXTERNAL
    )


def save(model: Any, path: str) -> None:
    """Write a ModelProto to `path`, and its tensors to `path`.data, one after the other.

    Nothing is copied but one tensor at a time; the model stays as it is. Raises OSError where it
    cannot be written, and what protobuf raises where it is too large without its tensors too.
    """
    with open(path + ".data", "xb") as data:

        def put(raw: bytes) -> dict[str, str]:
            data.write(b"\0" * (-data.tell() % _ALIGNMENT))
            place = {
                "location": os.path.basename(path) + ".data",
                "offset": str(data.tell()),
                "length": str(len(raw)),
            }
            data.write(raw)
            return place

        message = _without_tensors(model, put).SerializeToString()
    with open(path, "xb") as file:
        file.write(message)


def _without_tensors(message: Any, put: Callable[[bytes], dict[str, str]]) -> Any:
    """A copy of a message in which each large tensor only names its place in the data file."""
    if message.DESCRIPTOR.name == "TensorProto":
        return _tensor(message, put)
    copy = type(message)()
    for field, value in message.ListFields():
        if field.message_type is None:
            if isinstance(value, (bytes, str)) or not hasattr(value, "__len__"):
                setattr(copy, field.name, value)
            else:
                getattr(copy, field.name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(copy, field.name).CopyFrom(_without_tensors(value, put))
        else:
            for item in value:
                getattr(copy, field.name).append(_without_tensors(item, put))
    return copy


def _tensor(tensor: Any, put: Callable[[bytes], dict[str, str]]) -> Any:
    import onnx

    raw = tensor.raw_data
    # Numbers in fields of their own, of the types whose bytes are what a file holds.
    numbers = {1: tensor.float_data, 6: tensor.int32_data, 7: tensor.int64_data}
    numbers[11] = tensor.double_data
    if not raw and len(numbers.get(tensor.data_type, ())) >= _SMALL:
        raw = onnx.numpy_helper.to_array(tensor).tobytes()
    copy = onnx.TensorProto()
    if len(raw) < _SMALL or tensor.data_location == _EXTERNAL:
        copy.CopyFrom(tensor)
        return copy
    copy.name, copy.doc_string, copy.data_type = tensor.name, tensor.doc_string, tensor.data_type
    copy.dims.extend(tensor.dims)
    copy.data_location = _EXTERNAL
    for key, value in put(raw).items():
        copy.external_data.add(key=key, value=value)
    return copy
