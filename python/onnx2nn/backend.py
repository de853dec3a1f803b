"""ONNX's Backend API: `prepare`, `run_model`, `run_node`, `supports_device`, `is_compatible`.

Values are numpy's: bfloat16, float8 and the 2- and 4-bit types are ml_dtypes arrays, strings object
arrays, sequences lists, an absent optional None, maps dicts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx.backend.base import Backend, BackendRep, Device, DeviceType
from torch import nn

from onnx2nn.errors import Error
from onnx2nn.loading import load
from onnx2nn.tensors import DTYPE_NAMES, as_outputs, to_numpy, to_torch

__all__ = [
    "OnnxToNNBackend",
    "Rep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]


class Rep(BackendRep):
    """A converted model, ready to run."""

    def __init__(self, net: nn.Module, model: onnx.ModelProto, device: str) -> None:
        self.net = net
        self._device = device
        constants = {t.name for t in model.graph.initializer}
        constants |= {t.values.name for t in model.graph.sparse_initializer}
        self._inputs = [i.name for i in model.graph.input if i.name not in constants]
        self._outputs = [_element(o.type) for o in model.graph.output]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, as numpy, for inputs in order (a list, or one array) or by name (a dict)."""
        del kwargs
        if isinstance(inputs, Mapping):
            values = [inputs.get(name) for name in self._inputs]
        elif isinstance(inputs, (list, tuple)):
            values = list(inputs)
        else:
            values = [inputs]
        with torch.no_grad():
            result = self.net(*[to_torch(v, self._device) for v in values])
        outputs = as_outputs(result, len(self._outputs))
        return tuple(to_numpy(y, name) for y, name in zip(outputs, self._outputs, strict=True))


def _element(type_: Any) -> str | None:
    """The name of the element type of an output, through sequences and optionals."""
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        return DTYPE_NAMES.get(getattr(type_, kind).elem_type)
    if kind in ("sequence_type", "optional_type"):
        return _element(getattr(type_, kind).elem_type)
    return None


def _torch_device(device: str) -> str:
    """torch's name of an ONNX device such as "CPU" or "CUDA:0"."""
    parsed = Device(device)
    if parsed.type == DeviceType.CPU:
        return "cpu"
    return f"cuda:{parsed.device_id}"


class OnnxToNNBackend(Backend):
    """ONNX's Backend over `onnx2nn.load`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether a model can be converted."""
        try:
            cls.prepare(model, device, **kwargs)
        except Error:
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Rep:
        """Convert a model; kwargs are options of `load`. Raises Error where it is refused."""
        if not cls.supports_device(device):
            raise Error(f"device {device} is not available")
        proto = model
        if isinstance(model, bytes):
            proto = onnx.load_from_string(model)
        elif not isinstance(model, onnx.ModelProto):
            proto = onnx.load(model, load_external_data=False)
        name = _torch_device(device)
        return Rep(load(model, **kwargs).to(name), proto, name)

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Convert a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node; `opset_version` says of which opset of its domain (default: the newest)."""
        values = (
            dict(zip(_given(node), inputs, strict=False))
            if not isinstance(inputs, Mapping)
            else dict(inputs)
        )
        opset = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [onnx.helper.make_value_info(n, _type_of(v)) for n, v in values.items()],
            _output_infos(node, outputs_info),
        )
        imports = [
            onnx.helper.make_opsetid(
                "", opset if not node.domain else onnx.defs.onnx_opset_version()
            )
        ]
        if node.domain:
            version = kwargs.pop("domain_version", 1)
            imports.append(onnx.helper.make_opsetid(node.domain, version))
        model = onnx.helper.make_model(graph, opset_imports=imports)
        if outputs_info is None:
            model = onnx.shape_inference.infer_shapes(model)
        return cls.run_model(model, list(values.values()), device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """CPU always, CUDA where torch has it."""
        kind, _, number = device.partition(":")
        if kind == "CPU":
            return True
        index = int(number) if number.isdigit() else 0
        return kind == "CUDA" and torch.cuda.is_available() and index < torch.cuda.device_count()


def _given(node: onnx.NodeProto) -> list[str]:
    """The names of a node's inputs, each once, without those left out."""
    return list(dict.fromkeys(name for name in node.input if name))


def _type_of(value: Any) -> onnx.TypeProto:
    if isinstance(value, (list, tuple)):
        element = _type_of(value[0]) if value else onnx.helper.make_tensor_type_proto(1, None)
        return onnx.helper.make_sequence_type_proto(element)
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        kind = int(onnx.TensorProto.STRING)
    else:
        kind = int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    return onnx.helper.make_tensor_type_proto(kind, array.shape)


def _output_infos(
    node: onnx.NodeProto, infos: Sequence[tuple[Any, tuple[int, ...]]] | None
) -> list[onnx.ValueInfoProto]:
    names = [name for name in node.output if name]
    if infos is None:
        return [onnx.ValueInfoProto(name=name) for name in names]
    return [
        onnx.helper.make_tensor_value_info(
            name, int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))), shape
        )
        for name, (dtype, shape) in zip(names, infos, strict=True)
    ]


is_compatible = OnnxToNNBackend.is_compatible
prepare = OnnxToNNBackend.prepare
run_model = OnnxToNNBackend.run_model
run_node = OnnxToNNBackend.run_node
supports_device = OnnxToNNBackend.supports_device
