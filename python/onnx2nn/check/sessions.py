"""What runs in the oracle's process: sessions of ONNX Runtime and of ONNX's reference evaluator."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from onnx2nn.check.skeleton import Place, Weights
from onnx2nn.tensors import DTYPE_NAMES, is_torch_only, numpy_dtype

__all__ = ["LibraryError", "ReferenceSession", "RuntimeSession", "is_ml"]

# Types that ONNX Runtime hands over only as raw bits.
_RAW_TYPES = range(16, 29)
_BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}
_NUMBERS = {name: number for number, name in DTYPE_NAMES.items()}


class LibraryError(Exception):
    """A library of operators that cannot be loaded."""


class RuntimeSession:
    """An ONNX Runtime session, with graph optimisations off where it runs so.

    model: a path, or bytes whose external data lies in `folder`. places: weights that stay where
    they are, mapped. exact, packed, custom_lib: as `onnx2nn.check.oracle` says.
    """

    def __init__(
        self,
        model: str | bytes,
        folder: str | None,
        places: list[Place],
        threads: int,
        exact: bool,
        packed: bool,
        custom_lib: str | None,
    ) -> None:
        import onnxruntime as ort

        self.name = f"ONNX Runtime {ort.__version__}"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Weights packed anew for each operator would be there twice.
        options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
        # Of two sessions only one runs at a time: the other's threads are not to wait busily.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if custom_lib:
            try:
                options.register_custom_ops_library(custom_lib)
            except Exception as error:
                raise LibraryError(f"{custom_lib}: cannot be loaded: {error}") from error
        self._weights = Weights(folder or "", places)
        # ONNX Runtime keeps no reference to what it is handed here.
        self._values = {
            n: ort.OrtValue.ortvalue_from_numpy(w) for n, w in self._weights.arrays.items()
        }
        for name, value in self._values.items():
            options.add_initializer(name, value)
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
        self.types = [o.type for o in self._session.get_outputs()]
        self._tensors = all(t.startswith("tensor(") for t in self.types)

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs for one set of inputs."""
        with self._weights:
            return self._run(feed)

    def _run(self, feed: dict[str, Any]) -> list[Any]:
        import onnxruntime as ort

        feed = {k: v for k, v in feed.items() if k in self._inputs}
        plain = (isinstance(v, np.ndarray) and v.dtype.kind not in "OUST" for v in feed.values())
        if not self._tensors or not all(plain):
            return list(self._session.run(None, feed))
        values = {k: _to_ort(ort, v) for k, v in feed.items()}
        return [_from_ort(v) for v in self._session.run_with_ort_values(None, values)]


class _Borrowed:
    """The memory of an OrtValue, for numpy: an array over it keeps the value alive."""

    def __init__(self, value: Any, size: int) -> None:
        self._value = value
        self.__array_interface__ = {
            "version": 3,
            "data": (value.data_ptr(), True),
            "shape": (size,),
            "typestr": "|u1",
        }


def is_ml(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one that ml_dtypes adds to numpy."""
    return is_torch_only(dtype) or dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")


def _to_ort(ort: Any, value: Any) -> Any:
    if not is_ml(value.dtype):
        return ort.OrtValue.ortvalue_from_numpy(value)
    kind = _NUMBERS[value.dtype.name]
    bits = _BITS.get(value.dtype.name)
    if bits:
        value = _pack(value, bits)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(value, kind)


def _from_ort(value: Any) -> Any:
    """An OrtValue as numpy, without a copy where its elements are whole bytes."""
    kind = value.element_type()
    shape, size = tuple(value.shape()), value.tensor_size_in_bytes()
    if kind == _NUMBERS["object"] or (size == 0 and kind not in _RAW_TYPES):
        return value.numpy()
    dtype = numpy_dtype(DTYPE_NAMES[kind])
    if size == 0:
        return np.empty(shape, dtype)
    raw = np.asarray(_Borrowed(value, size))
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


class ReferenceSession:
    """ONNX's reference evaluator for a path, or bytes whose external data lies in `folder`."""

    name = "ONNX reference evaluator"

    def __init__(self, model: str | bytes, folder: str | None) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        read: Any = model
        if isinstance(model, bytes):
            read = onnx.load_from_string(model)
            if folder:
                onnx.load_external_data_for_model(read, folder)
        self._evaluator: Any = ReferenceEvaluator(read)
        self.outputs = list(self._evaluator.output_names)
        self.types: list[str] = []

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """The outputs for one set of inputs."""
        with _quiet():
            return list(self._evaluator.run(None, feed))

    def run_all(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Every value of the main graph, by name."""
        with _quiet():
            return dict(self._evaluator.run(None, feed, intermediate=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
