"""Who knows the right answer: ONNX Runtime, else ONNX's reference evaluator."""

import os
from dataclasses import asdict, astuple, dataclass
from typing import Any

from onnx2nn.check.process import OracleDied, OracleError, Session
from onnx2nn.check.skeleton import Skeleton
from onnx2nn.core import native, refused
from onnx2nn.errors import Error
from onnx2nn.source import Source

__all__ = [
    "Kernels",
    "OracleDied",
    "OracleError",
    "Reference",
    "Runtime",
    "kernels_for",
    "model_folder",
    "oracle_model",
    "read_proto",
    "with_outputs",
]

# Operators of bytes, whose fast kernels need constant weights made unsigned to be exact on every CPU.
_BYTE_PRODUCTS = {
    *("ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger"),
    *("MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul"),
}


def read_proto(source: Source) -> Any:
    """The model as a ModelProto, external data left where it is."""
    import onnx

    model = oracle_model(source)
    try:
        if isinstance(model, bytes):
            return onnx.load_from_string(model)
        return onnx.load(model, load_external_data=False)
    except Exception as error:  # protobuf's own error types differ between its versions
        conversion = native().convert(source.data)
        if not conversion.readable:  # it may say what kind of file it is
            raise refused(source, list(conversion.diagnostics), readable=False) from error
        raise Error(f"{source.name}: not an ONNX model: {error}", unreadable=True) from error


def multiplies_bytes(proto: Any) -> bool:
    """Whether ONNX Runtime's answer depends on the CPU: without VNNI its products of a uint8 and an
    int8 are added in 16 bits, and saturate, unless it is told to be exact."""
    return any(n.op_type in _BYTE_PRODUCTS for n in proto.graph.node)


def rounds_rows(proto: Any) -> bool:
    """Whether ONNX Runtime rounds one factor of a product to int8, which it does only of weights
    that it has packed beforehand."""
    return any(
        n.op_type == "MatMulNBits"
        and any(a.name == "accuracy_level" and a.i == 4 for a in n.attribute)
        for n in proto.graph.node
    )


@dataclass
class Kernels:
    """By which of its kernels ONNX Runtime answers.

    exact: optimisations on as far as products of bytes need them; see `multiplies_bytes`.
    packed: weights are packed beforehand, in memory of their own; see `rounds_rows`.
    """

    exact: bool = False
    packed: bool = False


def kernels_for(proto: Any) -> Kernels:
    """The kernels by which products are what the model's operators say."""
    return Kernels(multiplies_bytes(proto), rounds_rows(proto))


class Runtime:
    """An ONNX Runtime session, with graph optimisations off where it runs so.

    It runs in a process of its own; see `onnx2nn.check.process` for the exceptions.
    model: a path or bytes, or a Skeleton, whose weights stay where they are mapped.
    folder: where the external data of bytes lies. custom_lib: a library of operators.
    kernels: of which kind they are; the plain ones where it is not given.
    """

    check_dtype = True

    def __init__(
        self,
        model: str | bytes | Skeleton,
        folder: str | None = None,
        threads: int = 0,
        custom_lib: str | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        places: list[tuple[Any, ...]] = []
        if isinstance(model, Skeleton):
            places = [astuple(p) for p in model.places]
            folder, model = model.folder, model.model
        # The process has a current folder of its own.
        if isinstance(model, str):
            model = os.path.abspath(model)
        if custom_lib and os.path.exists(custom_lib):
            custom_lib = os.path.abspath(custom_lib)
        self._session = Session(
            "runtime",
            {
                "model": model,
                "folder": os.path.abspath(folder) if folder else None,
                "places": places,
                "threads": threads,
                **asdict(kernels or Kernels()),
                "custom_lib": custom_lib,
            },
        )
        self.name: str = self._session.about["name"]
        self.outputs: list[str] = self._session.about["outputs"]
        # As ONNX Runtime writes them, such as tensor(float).
        self.types: list[str] = self._session.about["types"]

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs for one set of inputs."""
        return list(self._session.ask("run", feed))


class Reference:
    """ONNX's own reference evaluator: slow, and right by definition; in the oracle's process too."""

    name = "ONNX reference evaluator"
    check_dtype = False

    def __init__(self, source: Source, threads: int = 0) -> None:
        del threads
        model = oracle_model(source)
        self._session = Session(
            "reference",
            {
                "model": os.path.abspath(model) if isinstance(model, str) else model,
                "folder": model_folder(source),
            },
        )
        self.outputs: list[str] = self._session.about["outputs"]

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs for one set of inputs."""
        return list(self._session.ask("run", feed))

    def run_all(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Every value of the main graph, by name."""
        return dict(self._session.ask("run_all", feed))


def with_outputs(proto: Any, names: list[str]) -> bytes:
    """The model with these values as its only outputs, serialised."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {o.name: o for o in proto.graph.output}
    del copy.graph.output[:]
    for name in names:
        # ONNX Runtime finds out the type of an output that does not say it.
        copy.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    return bytes(copy.SerializeToString())


def oracle_model(source: Source) -> str | bytes:
    """What an oracle is given of a model: its path or bytes."""
    return source.readable[0] if source.readable else source.data


def model_folder(source: Source) -> str | None:
    """Where a model's external data lies."""
    if source.readable:
        return source.readable[1]
    return os.path.dirname(os.path.abspath(source.data)) if isinstance(source.data, str) else None
