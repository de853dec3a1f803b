"""Real models with the answers that their authors gave, against converted ones.

ONNX2NN_MODELS names a folder of models. The answers to `owner/model.onnx` lie in
`vectors/owner/model/`: test_data_set_0__input_0.pb and so on, or arrays by name in npz files.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx2nn
from onnx2nn import custom_ops
from onnx2nn.backend import Rep

MODELS = Path(os.environ.get("ONNX2NN_MODELS", ""))

# Operators that their authors defined, as someone with such a model supplies them.
REQUANT_SHIFT = """
def requant_shift(x, mul, add, *, div, n_levels=None, n_levels_out=None, signed):
    levels = int(n_levels if n_levels_out is None else n_levels_out)
    low = -(levels // 2) if int(signed) else 0
    y = torch.floor((x.double() * mul.double() + add.double()) / float(div) + 0.5)
    return torch.clamp(y, low, low + levels - 1).to(x.dtype)
"""
MULTI_THRESHOLD = """
def multi_threshold(x, thresholds, *, out_scale=1.0, out_bias=0.0, out_dtype="", data_layout=""):
    limits = thresholds.reshape(1, thresholds.shape[0], *[1] * (x.dim() - 2), -1)
    return (x.unsqueeze(-1) >= limits).sum(-1).to(x.dtype) * out_scale + out_bias
"""
CUSTOM = {
    ("", "RequantShift"): REQUANT_SHIFT,
    ("PACTOps", "RequantShift"): REQUANT_SHIFT,
    ("finn.custom_op.general", "MultiThreshold"): MULTI_THRESHOLD,
}

# What cannot be checked, and why.
UNCHECKED = {
    "CCT__Int__ICCT__network": "iLayerNorm, ITAMax, iGELU and IntegerMean are not in the file",
    "microLlama__FP32__microLlama1__network": "what RMSNorm means is not in the file",
    "microLlama__INT8__microLlama1__network": "iRMSNorm, iSoftmax and others are not in the file",
    "qtdnn_10x5_101_i32_biases__model": "the answer has two more rows than ONNX Runtime's, for padding",
}


def vectors() -> Iterator[tuple[Path, Path]]:
    """(model, folder of its vectors)."""
    root = MODELS / "vectors"
    for folder in sorted(root.glob("*/*")) if MODELS.name else []:
        model = MODELS / folder.relative_to(root).with_name(folder.name + ".onnx")
        if model.exists():
            yield model, folder


def read(folder: Path, graph: onnx.GraphProto) -> tuple[list[Any], list[Any]] | None:
    """Inputs and outputs in the graph's order; None where some are not given."""
    inputs = given_inputs(graph)
    sides = []
    for side, infos in (("input", inputs), ("output", list(graph.output))):
        arrays: dict[str, Any] = {}
        for file in folder.glob("*.npz"):
            if file.stem in (f"{side}s", "io"):
                with np.load(file) as loaded:
                    arrays |= {name: loaded[name] for name in loaded.files}
        if side == "output":
            # io.npz holds both; its outputs may have names that the model has lost.
            arrays = {n: a for n, a in arrays.items() if n not in {i.name for i in inputs}}
        protos = [folder / f"test_data_set_0__{side}_{i}.pb" for i in range(len(infos))]
        lone = list(folder.glob(f"*{side}*.npy"))
        if arrays.keys() & {i.name for i in infos}:
            # A file may hold only some of the outputs.
            sides.append([arrays.get(i.name) for i in infos])
        elif len(arrays) >= len(infos) > 0:
            # Weights may follow the inputs.
            sides.append(list(arrays.values())[: len(infos)])
        elif len(infos) == len(lone) == 1:
            sides.append([np.load(lone[0])])
        elif all(f.exists() for f in protos):
            sides.append([stored(f, i.type) for f, i in zip(protos, infos, strict=True)])
        else:
            return None
    return sides[0], sides[1]


def given_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {t.name for t in graph.initializer}
    return [i for i in graph.input if i.name not in constants]


def stored(path: Path, type_: onnx.TypeProto) -> Any:
    if type_.WhichOneof("value") == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def as_declared(value: Any, info: onnx.ValueInfoProto) -> Any:
    """Arrays that were saved in a wider type than the model's."""
    elem = info.type.tensor_type.elem_type
    if not isinstance(value, np.ndarray) or not elem or elem == onnx.TensorProto.STRING:
        return value
    return value.astype(onnx.helper.tensor_dtype_to_np_dtype(elem))


def one_by_one(inputs: list[Any], infos: list[onnx.ValueInfoProto]) -> list[list[Any]]:
    """The runs that take all inputs: several of a batch for a model that takes one at a time."""
    dims = infos[0].type.tensor_type.shape.dim
    if len(inputs) > 1 or not dims or dims[0].dim_value != 1 or len(inputs[0]) == 1:
        return [inputs]
    return [[inputs[0][i : i + 1]] for i in range(len(inputs[0]))]


def close(got: Any, want: Any) -> None:
    if isinstance(want, list) and isinstance(got, list):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            close(g, w)
        return
    got, want = np.asarray(got), np.asarray(want)
    assert got.size == want.size
    got = got.reshape(want.shape)
    if want.dtype.kind in "OUS":
        assert got.tolist() == want.tolist()
    elif want.dtype.kind in "iub":
        np.testing.assert_array_equal(got.astype(float), want.astype(float))
    else:
        # The authors' runtimes sum in other orders, and in other widths.
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=1e-3, atol=1e-4)


@pytest.fixture(autouse=True)
def custom_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_ops, "known_ops", dict(custom_ops.known_ops))
    for (domain, op_type), source in CUSTOM.items():
        onnx2nn.register_op(domain, op_type, source)


@pytest.mark.slow
@pytest.mark.skipif(not any(vectors()), reason="ONNX2NN_MODELS names no folder with vectors")
@pytest.mark.parametrize(
    "model, folder", [pytest.param(m, f, id=f"{m.parent.name}/{m.stem}") for m, f in vectors()]
)
def test_vectors(model: Path, folder: Path) -> None:
    proto = onnx.load(model)
    sides = read(folder, proto.graph)
    if sides is None:
        pytest.skip("its vectors are not whole")
    for name, why in UNCHECKED.items():
        if model.stem.endswith(name):
            pytest.skip(why)
    infos = given_inputs(proto.graph)
    inputs = [as_declared(x, i) for x, i in zip(sides[0], infos, strict=True)]
    rep = Rep(onnx2nn.load(str(model)), proto, "cpu")
    runs = [rep.run(x) for x in one_by_one(inputs, infos)]
    got = runs[0] if len(runs) == 1 else [np.concatenate(ys) for ys in zip(*runs, strict=True)]
    for g, w in zip(got, sides[1], strict=True):
        if w is not None:
            close(g, w)
