"""A small model, and a stand-in for the native core that knows only that model.

It keeps these tests about the Python package: what they find wrong is wrong here.
"""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SOURCE = '''"""Converted by onnx2nn."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        #trace hidden = _trace("hidden", hidden)
        act = F.relu(hidden)
        #trace act = _trace("act", act)
        scores = self.fc2(act)
        #trace scores = _trace("scores", scores)
        return F.softmax(scores, dim=-1)


def load(weights: str | Path = Path(__file__).parent / "model.safetensors") -> Tiny:
    """The module with its weights."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        net = Tiny()
    state = load_file(weights)
    net.load_state_dict(state, assign=True)
    return net.eval()
'''


def make_model(path: Path | None = None, external: bool = False) -> onnx.ModelProto:
    """Two Gemms, Relu and Softmax, with seeded weights; the first is stored as torch has it."""
    rng = np.random.default_rng(7)
    weights = {
        "fc1.weight": rng.standard_normal((8, 4), dtype=np.float32),
        "fc1.bias": rng.standard_normal(8, dtype=np.float32),
        "onnx::fc2": rng.standard_normal((8, 3), dtype=np.float32),
        "fc2.bias": rng.standard_normal(3, dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node(
                "Gemm", ["x", "fc1.weight", "fc1.bias"], ["hidden"], "gemm1", transB=1
            ),
            helper.make_node("Relu", ["hidden"], ["act"], "relu"),
            helper.make_node("Gemm", ["act", "onnx::fc2", "fc2.bias"], ["scores"], "gemm2"),
            helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=-1),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if path is not None:
        onnx.save_model(
            model,
            str(path),
            save_as_external_data=external,
            location="tiny.data",
            size_threshold=0,
        )
        model = onnx.load(str(path), load_external_data=False)
    return model


class FakeConversion:
    """What the native `convert` gives for the tiny model."""

    ok = True
    readable = True
    class_name = "Tiny"

    def __init__(self, model: str | bytes, options: dict[str, Any]) -> None:
        loaded = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        self._tensors = {t.name: t for t in loaded.graph.initializer}
        self.source = SOURCE
        if options.get("trace"):
            self.source = SOURCE.replace("#trace ", "")
        else:
            self.source = re.sub(r" *#trace .*\n", "", SOURCE)
        if "weights_name" in options:
            self.source = self.source.replace("model.safetensors", options["weights_name"])
        if options.get("weights_name", "").endswith(".pth"):
            self.source = self.source.replace(
                "load_file(weights)", "torch.load(weights, weights_only=True)"
            )
        self.diagnostics: list[dict[str, Any]] = []
        self.inputs = [
            {
                "name": "x",
                "py_name": "x",
                "kind": "tensor",
                "dtype": "float32",
                "shape": ["batch", 4],
            }
        ]
        self.outputs = [
            {
                "name": "probabilities",
                "py_name": "probabilities",
                "kind": "tensor",
                "dtype": "float32",
                "shape": ["batch", 3],
            }
        ]
        self.stats = {
            "nodes_before": 4,
            "nodes_after": 4,
            "weight_bytes": 268,
            "op_types": {"Gemm": 2, "Relu": 1, "Softmax": 1},
            "opsets": {"": 17},
        }
        self._names = ["fc1.weight", "fc1.bias", "onnx::fc2", "fc2.bias"]
        keys = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
        shapes = [[8, 4], [8], [3, 8], [3]]
        self.weights = []
        bare = None if isinstance(model, bytes) else onnx.load(model, load_external_data=False)
        for key, name, shape in zip(keys, self._names, shapes):
            w = {
                "key": key,
                "dtype": "float32",
                "shape": shape,
                "requires_grad": True,
                "is_buffer": False,
                "exact": False,
                "file": None,
                "offset": 0,
                "nbytes": 4 * int(np.prod(shape)),
                "transpose": key == "fc2.weight",
            }
            if bare is not None and name in self._tensors:
                t = next(t for t in bare.graph.initializer if t.name == name)
                entries = {e.key: e.value for e in t.external_data}
                if entries:
                    w["file"] = str(Path(str(model)).parent / entries["location"])
                    w["offset"] = int(entries.get("offset", 0))
            self.weights.append(w)

    def weight_data(self, index: int) -> np.ndarray:
        array = numpy_helper.to_array(self._tensors[self._names[index]])
        return np.frombuffer(array.tobytes(), np.uint8)

    def write(self, path_py: str, path_weights: str) -> list[str]:
        import torch
        from safetensors.torch import save_file

        state = {}
        for k, w in enumerate(self.weights):
            t = torch.from_numpy(self.weight_data(k).copy()).view(torch.float32)
            shape = w["shape"]
            t = t.view(shape[::-1]).t() if w["transpose"] else t.view(shape)
            state[w["key"]] = t.contiguous()
        if path_weights.endswith(".pth"):
            torch.save(state, path_weights)
        else:
            save_file(state, path_weights)
        Path(path_py).write_text(self.source)
        return [path_py, path_weights]


class FakeNative:
    """The module's functions, for the tiny model; anything else is refused."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def output_paths(self, model: str, out: Any) -> tuple[str, str]:
        from onnx2nn import _native

        return _native.output_paths(model, out)

    def check_outputs(self, model: str, paths: list[str], force: bool) -> list[Any]:
        return []

    def convert(self, model: str | bytes, options: dict[str, Any]) -> Any:
        self.options.append(options)
        try:
            conversion: Any = FakeConversion(model, options)
        except Exception as error:
            refused = SimpleNamespace(ok=False, readable=False)
            refused.diagnostics = [
                {"severity": "error", "code": "bad-model", "message": str(error)}
            ]
            return refused
        if "onnx::fc2" not in conversion._tensors:
            conversion.ok = False
            conversion.diagnostics = [
                {
                    "severity": "error",
                    "code": "unknown-operator",
                    "message": "Magic is not known",
                    "node": "magic\x1b[31m",
                    "op_type": "Magic",
                    "domain": "custom",
                    "opset": 1,
                    "hint": "onnx2nn.register_op",
                }
            ]
        return conversion

    def inspect(self, model: str | bytes, options: dict[str, Any]) -> dict[str, Any]:
        c = self.convert(model, options)
        said = {"readable": c.readable, "convertible": c.ok, "diagnostics": c.diagnostics}
        if not c.readable:
            return said
        counts = {k: c.stats[k] for k in ("weight_bytes", "op_types", "opsets", "nodes_after")}
        return {**said, **counts, "nodes": 4, "inputs": c.inputs, "outputs": c.outputs}

    def simplify(
        self, model: str | bytes, out: str | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        assert out is not None
        loaded = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        if self.break_simplify:
            loaded.graph.initializer[3].CopyFrom(
                numpy_helper.from_array(
                    np.full(3, 9, np.float32) * np.arange(3, dtype=np.float32), "fc2.bias"
                )
            )
        result = {"ok": True, "nodes_before": 4, "nodes_after": 4, "files": [out], "log": []}
        if "staging" in options:
            aside = Path(options["staging"]) / Path(out).name
            onnx.save_model(loaded, str(aside))

            def publish() -> tuple[list[str], list[Any]]:
                aside.replace(out)
                return [out], []

            return {**result, "staged": SimpleNamespace(publish=publish)}
        onnx.save_model(loaded, out)
        return result

    break_simplify = False
