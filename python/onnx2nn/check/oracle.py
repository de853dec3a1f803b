"""Who knows the right answer: ONNX Runtime, else ONNX's reference evaluator."""

import contextlib
import ctypes
import math
import os
import warnings
from typing import Any

import numpy as np

from onnx2nn.api import Error, Source
from onnx2nn.check.skeleton import Skeleton, Trimmed
from onnx2nn.tensors import DTYPE_NAMES, is_torch_only, numpy_dtype

# Types that ONNX Runtime hands over only as raw bits.
_RAW_TYPES = ("bfloat16", "float8", "int4", "int2", "float4")
# Operators of bytes, whose fast kernels need constant weights made unsigned to be exact on every CPU.
_BYTE_PRODUCTS = {
    *("ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger"),
    *("MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul"),
}
_BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}


def read_proto(source: Source) -> Any:
    """The model as a ModelProto, external data left where it is."""
    import onnx

    try:
        if isinstance(source.data, bytes):
            return onnx.load_from_string(source.data)
        return onnx.load(source.data, load_external_data=False)
    except Exception as error:  # protobuf's own error types differ between its versions
        raise Error(f"{source.name}: not an ONNX model: {error}", unreadable=True) from error


def first_line(error: BaseException) -> str:
    """An exception's first line, short enough to print."""
    text = str(error).strip().split("\n")[0]
    return text[:300] or type(error).__name__


def multiplies_bytes(proto: Any) -> bool:
    """Whether ONNX Runtime's answer depends on the CPU: without VNNI its products of a uint8 and an
    int8 are added in 16 bits, and saturate, unless it is told to be exact."""
    return any(n.op_type in _BYTE_PRODUCTS for n in proto.graph.node)


class Runtime:
    """An ONNX Runtime session, with graph optimisations off where it runs so.

    model: a path or bytes, or a Skeleton, whose weights stay where they are mapped.
    folder: where the external data of bytes lies. custom_lib: a library of operators.
    exact: optimisations on as far as products of bytes need them; see `multiplies_bytes`.
    """

    def __init__(
        self,
        model: str | bytes | Skeleton,
        folder: str | None = None,
        threads: int = 0,
        custom_lib: str | None = None,
        exact: bool = False,
    ) -> None:
        import onnxruntime as ort

        self.name = f"ONNX Runtime {ort.__version__}"
        self.check_dtype = True
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Weights packed anew for each operator would be there twice.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Of two sessions only one runs at a time: the other's threads are not to wait busily.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if custom_lib:
            try:
                options.register_custom_ops_library(custom_lib)
            except Exception as error:
                raise Error(f"{custom_lib}: cannot be loaded: {first_line(error)}") from error
        self._skeleton = None
        if isinstance(model, Skeleton):
            self._skeleton = model
            # ONNX Runtime keeps no reference to what it is handed here.
            self._weights = {
                n: ort.OrtValue.ortvalue_from_numpy(w) for n, w in model.weights.items()
            }
            for name, value in self._weights.items():
                options.add_initializer(name, value)
            folder, model = model.folder, model.model
        if isinstance(model, bytes) and folder:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", folder
            )
        level = ort.GraphOptimizationLevel
        providers = ["CPUExecutionProvider"]
        options.graph_optimization_level = level.ORT_DISABLE_ALL
        if exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
            options.graph_optimization_level = level.ORT_ENABLE_EXTENDED
        try:
            self._session = ort.InferenceSession(model, options, providers=providers)
        except Exception:
            # Some models hold operators that ONNX Runtime has kernels for only once it has fused.
            options.graph_optimization_level = level.ORT_ENABLE_BASIC
            self._session = ort.InferenceSession(model, options, providers=providers)
        self.outputs = [o.name for o in self._session.get_outputs()]
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._raw = any(t in o.type for o in self._session.get_outputs() for t in _RAW_TYPES)

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs for one set of inputs."""
        with Trimmed(self._skeleton) if self._skeleton else contextlib.nullcontext():
            return self._run(feed)

    def _run(self, feed: dict[str, Any]) -> list[Any]:
        import onnxruntime as ort

        feed = {k: v for k, v in feed.items() if k in self._inputs}
        narrow = any(isinstance(v, np.ndarray) and is_ml(v.dtype) for v in feed.values())
        if not narrow and not self._raw:
            return list(self._session.run(None, feed))
        values = {k: _ort_value(ort, v) for k, v in feed.items() if v is not None}
        return [_from_ort(v) for v in self._session.run_with_ort_values(None, values)]


def is_ml(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one that ml_dtypes adds to numpy."""
    return is_torch_only(dtype) or dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")


def _ort_value(ort: Any, value: Any) -> Any:
    if isinstance(value, np.ndarray) and is_ml(value.dtype):
        import onnx

        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        bits = _BITS.get(value.dtype.name)
        if bits:
            value = _pack(value, bits)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(value, kind)
    return ort.OrtValue.ortvalue_from_numpy(value)


def _from_ort(value: Any) -> Any:
    """An OrtValue as numpy; types that numpy lacks are read from its memory."""
    if not value.is_tensor() or value.data_type() == "tensor(string)":
        return value.numpy()
    kind = value.element_type()
    if not 16 <= kind <= 26:
        return value.numpy()
    dtype = numpy_dtype(DTYPE_NAMES[kind])
    shape, size = tuple(value.shape()), value.tensor_size_in_bytes()
    if size == 0:
        return np.empty(shape, dtype)
    raw = np.array((ctypes.c_uint8 * size).from_address(value.data_ptr()), np.uint8)
    bits = _BITS.get(dtype.name)
    return _unpack(raw, bits, dtype, shape) if bits else raw.view(dtype).reshape(shape)


def _pack(value: Any, bits: int) -> Any:
    """Elements narrower than a byte as ONNX packs them, in the first bytes of an array as large."""
    low = value.reshape(-1).view(np.uint8) & (2**bits - 1)
    per_byte = 8 // bits
    padded = np.zeros(-(-low.size // per_byte) * per_byte, np.uint8)
    padded[: low.size] = low
    packed = np.zeros(low.size, np.uint8)
    parts = padded.reshape(-1, per_byte) << (np.arange(per_byte, dtype=np.uint8) * bits)
    packed[: len(parts)] = np.bitwise_or.reduce(parts, 1)
    return packed.reshape(value.shape)


def _unpack(raw: Any, bits: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    low = ((raw[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[: math.prod(shape)]
    if dtype.name.startswith("int"):
        sign = 2 ** (bits - 1)
        return ((low.astype(np.int8) ^ sign) - sign).astype(dtype).reshape(shape)
    return (
        low.view(dtype).reshape(shape) if dtype.name[0] == "f" else low.astype(dtype).reshape(shape)
    )


class Reference:
    """ONNX's own reference evaluator: slow, and right by definition."""

    name = "ONNX reference evaluator"
    check_dtype = False

    def __init__(self, source: Source, threads: int = 0) -> None:
        from onnx.reference import ReferenceEvaluator

        del threads
        self._evaluator: Any = ReferenceEvaluator(source.data)
        self.outputs = list(self._evaluator.output_names)

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs for one set of inputs."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return list(self._evaluator.run(None, feed))

    def run_all(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Every value of the main graph, by name."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return dict(self._evaluator.run(None, feed, intermediate=True))


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


def model_folder(source: Source) -> str | None:
    """Where a model's external data lies."""
    return os.path.dirname(os.path.abspath(source.data)) if isinstance(source.data, str) else None
