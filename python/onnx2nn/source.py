"""A model as an argument: a path, one of a hub, bytes, or a ModelProto."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from onnx2nn.errors import Error, diagnostic
from onnx2nn.hub import HUB, fetch

__all__ = [
    "Model",
    "ModelProto",
    "Source",
    "as_source",
]


class ModelProto(Protocol):
    """What is used of an onnx.ModelProto: onnx itself is not imported here."""

    @property
    def graph(self) -> Any: ...
    def ByteSize(self) -> int: ...  # noqa: N802
    def SerializeToString(self) -> bytes: ...  # noqa: N802


# protobuf serialises nothing above this size.
_PROTOBUF_LIMIT = 2**31 - 1


@dataclass
class Source:
    """A model as the native core takes it: a path, or bytes."""

    data: str | bytes
    # A folder that lives as long as the model is in use, where it had to be saved first.
    folder: "tempfile.TemporaryDirectory[str] | None" = None
    # Where others than the core cannot read it as it is: bytes for them, and the folder that the
    # external data lies in. See `onnx2nn.check.readable`.
    readable: tuple[bytes, str] | None = None

    @property
    def path(self) -> Path | None:
        """Where the model lies, None where it came as bytes."""
        return Path(self.data) if isinstance(self.data, str) else None

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.data if isinstance(self.data, str) else "<model>"


# A path, a model of a hub (`hf://owner/name/file.onnx`), the bytes of a file, or an onnx.ModelProto.
Model: TypeAlias = str | os.PathLike[str] | bytes | ModelProto | Source


def as_source(model: Model) -> Source:
    """The model as a path or bytes; a ModelProto above protobuf's limit is saved aside."""
    if isinstance(model, Source):
        return model
    if isinstance(model, (bytes, bytearray, memoryview)):
        return Source(bytes(model))
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        if isinstance(path, str) and path.startswith(HUB):
            path = fetch(path)
        if not os.path.isfile(path):
            what = "is not a file" if os.path.exists(path) else "does not exist"
            message = f"{path}: {what}"
            raise Error(message, [diagnostic("unreadable-file", message)], unreadable=True)
        return Source(path)
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        return _proto_source(model)
    raise TypeError(
        f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__module__}."
        f"{type(model).__qualname__}"
    )


def _proto_source(model: ModelProto) -> Source:
    from onnx2nn import pieces

    if pieces.least_size(model) <= _PROTOBUF_LIMIT:
        # The error's type depends on protobuf's version and implementation.
        with contextlib.suppress(Exception):
            data = model.SerializeToString()
            if len(data) <= _PROTOBUF_LIMIT:
                return Source(data)
    # What is mapped stays on Windows, which is no fault of the model.
    folder = tempfile.TemporaryDirectory(prefix="onnx2nn-", ignore_cleanup_errors=True)
    path = os.path.join(folder.name, "model.onnx")
    try:
        pieces.save(model, path)
    except OSError as error:
        raise Error(
            f"the model is too large for one message, and cannot be saved aside in "
            f"{tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder"
        ) from error
    except Exception as error:
        raise Error(f"the model cannot be serialised: {error}") from error
    return Source(path, folder)
