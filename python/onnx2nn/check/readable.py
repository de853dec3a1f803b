"""Models as others than the core can read them: ONNX Runtime and ONNX's reference evaluator."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from onnx2nn.check.oracle import read_proto
from onnx2nn.check.skeleton import Skeleton
from onnx2nn.core import native
from onnx2nn.source import Source

__all__ = ["readable"]

# TensorProto.EXTERNAL.
_EXTERNAL = 1


def readable(
    source: Source,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
) -> Source:
    """The source, with a version for others where they would refuse the file as it is.

    Theirs has no output that nothing defines, if those are to be left out, and names the files in
    which its external data really lies: not all of them follow links or look in `data_roots`.
    Raises Error for what is no ONNX model.
    """
    roots = [os.fspath(root) for root in data_roots]
    path = source.data if isinstance(source.data, str) else None
    is_link = path is not None and os.path.realpath(path) != os.path.abspath(path)
    if not (drop_undefined_outputs or roots or is_link):
        return _without_weights(source)
    proto = read_proto(source)
    changed = drop_undefined_outputs and _drop_undefined_outputs(proto.graph)
    entries = [
        entry
        for tensor in _tensors(proto)
        if tensor.data_location == _EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    folder = os.path.dirname(os.path.abspath(path)) if path is not None else "/"
    # What is not found stays as it is: whoever reads it says what is wrong.
    files = native().external_files(path or "", sorted({e.value for e in entries}), roots)
    if any(real != os.path.join(folder, location) for location, real in files.items()):
        folder = os.path.commonpath([os.path.dirname(real) for real in files.values()])
        for entry in entries:
            # A name of a file that is no text cannot be said there.
            with contextlib.suppress(UnicodeEncodeError, ValueError):
                if entry.value in files:
                    entry.value = os.path.relpath(files[entry.value], folder)
        changed = True
    return replace(source, readable=(proto.SerializeToString(), folder)) if changed else source


def _without_weights(source: Source) -> Source:
    """The source, with a version for others that leaves large weights in the file where they lie."""
    if isinstance(source.data, str) and source.readable is None:
        skeleton = Skeleton(source.data)
        if isinstance(skeleton.model, bytes):
            return replace(source, readable=(skeleton.model, skeleton.folder))
    return source


def _drop_undefined_outputs(graph: Any) -> bool:
    defined = {name for node in graph.node for name in node.output}
    defined |= {value.name for value in graph.input} | {t.name for t in graph.initializer}
    defined |= {t.values.name for t in graph.sparse_initializer}
    kept = [output for output in graph.output if output.name in defined]
    if len(kept) == len(graph.output):
        return False
    del graph.output[:]
    graph.output.extend(kept)
    return True


def _tensors(message: Any) -> Iterator[Any]:
    """Every TensorProto in a message, at any depth."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None or not _may_hold_tensors(field.message_type.name):
            continue
        value = getattr(message, field.name)
        if not hasattr(value, "DESCRIPTOR"):
            for item in value:
                yield from _tensors(item)
        elif message.HasField(field.name):
            yield from _tensors(value)


def _may_hold_tensors(kind: str) -> bool:
    return kind in {
        "AttributeProto",
        "FunctionProto",
        "GraphProto",
        "NodeProto",
        "SparseTensorProto",
        "TensorProto",
        "TrainingInfoProto",
    }
