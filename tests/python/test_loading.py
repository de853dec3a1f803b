"""`load`: weights as views of the file, source that tools can see."""

import gc
import inspect
import io
import linecache
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import onnx2nn
from onnx2nn.loading import assign_weights, run_source, weight_tensor
from stand_in import make_model


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}


def test_load_from_file_bytes_and_proto(core: object, tiny: Path) -> None:
    want = weights_of(tiny)
    for model in (tiny, tiny.read_bytes(), make_model()):
        net = onnx2nn.load(model)
        assert not net.training
        state = net.state_dict()
        np.testing.assert_array_equal(state["fc1.weight"].numpy(), want["fc1.weight"])
        np.testing.assert_array_equal(state["fc2.weight"].numpy(), want["onnx::fc2"].T)


def test_external_weights_are_mapped_and_the_file_is_never_written(
    core: object, tiny_external: Path
) -> None:
    data = tiny_external.parent / "tiny.data"
    before = data.read_bytes()
    net = onnx2nn.load(tiny_external)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(data) in maps.read_text()
    assert net.fc2.weight.stride() == (1, 3)
    with torch.no_grad():
        net.fc1.weight.fill_(5)
    assert data.read_bytes() == before
    # Each weight has a storage of its own, so that saving writes just the weights.
    assert net.fc1.bias.untyped_storage().nbytes() == 32
    torch.save(net.state_dict(), io.BytesIO())


def test_a_loaded_module_trains(core: object, tiny_external: Path) -> None:
    net = onnx2nn.load(tiny_external)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(2, 4))[:, 0].sum().backward()
    assert net.fc2.weight.grad is not None
    optimiser.step()


class OneWeight:
    """A conversion of a single weight in a file."""

    def __init__(self, path: Path, dtype: str, shape: list[int], offset: int, nbytes: int) -> None:
        self.weights = [
            {
                "key": "w",
                "dtype": dtype,
                "shape": shape,
                "requires_grad": False,
                "is_buffer": True,
                "file": str(path),
                "offset": offset,
                "nbytes": nbytes,
                "transpose": False,
            }
        ]


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float8_e4m3fn", "int64", "bool", "complex64"]
)
@pytest.mark.parametrize("offset", [0, 8, 3])
def test_types_and_alignment(tmp_path: Path, dtype: str, offset: int) -> None:
    path = tmp_path / "w"
    kind = getattr(torch, dtype)
    want = torch.ones(2, 3).to(kind)
    raw = want.view(torch.uint8).numpy().tobytes() if dtype != "bool" else b"\1" * 6
    path.write_bytes(b"\0" * offset + raw)
    data = np.memmap(path, np.uint8, "c")
    conversion = OneWeight(path, dtype, [2, 3], offset, len(raw))
    got = weight_tensor(conversion, 0, conversion.weights[0], lambda _: np.asarray(data))
    assert got.dtype == kind
    assert got.to(torch.complex64).equal(want.to(torch.complex64))
    assert got.data_ptr() % kind.itemsize == 0
    shared = data.ctypes.data <= got.data_ptr() < data.ctypes.data + data.size
    assert shared == (offset % kind.itemsize == 0)


def test_a_file_that_shrank_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"\0" * 10)
    conversion = OneWeight(path, "float32", [4], 0, 16)
    with pytest.raises(onnx2nn.Error, match="ends before"):
        weight_tensor(conversion, 0, conversion.weights[0], lambda p: np.fromfile(p, np.uint8))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    source = (
        "import torch\nfrom torch import nn\n\n\nclass Tied(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.a = nn.Parameter(torch.empty(2))\n"
        "        self.b = nn.Linear(2, 1, bias=False)\n        self.b.weight2 = self.a\n"
        "        del self.b.weight\n"
    )
    path = tmp_path / "w"
    path.write_bytes(np.arange(2, dtype=np.float32).tobytes())
    with torch.device("meta"):
        net = run_source(source, "Tied")()
    conversion = OneWeight(path, "float32", [2], 0, 8)
    conversion.weights[0]["key"] = "a"
    assign_weights(net, conversion)
    assert net.a is net.b.weight2
    assert net.a.tolist() == [0, 1]


def test_the_source_can_be_seen(core: object, tiny: Path) -> None:
    net = onnx2nn.load(tiny)
    assert "self.fc1(x)" in inspect.getsource(type(net).forward)
    assert type(onnx2nn.load(tiny)).__module__ != type(net).__module__


def test_what_is_loaded_is_forgotten_when_nobody_has_it(core: object, tiny: Path) -> None:
    def known() -> list[str]:
        return [n for n in [*sys.modules, *linecache.cache] if "onnx2nn_loaded" in str(n)]

    gc.collect()
    before = known()
    net = onnx2nn.load(tiny)
    assert len(known()) == len(before) + 2
    # While it lives, tools find its class and its source.
    assert "self.fc1(x)" in inspect.getsource(type(net))
    copy = pickle.loads(pickle.dumps(net))
    assert type(copy) is type(net)
    with pytest.raises(RuntimeError) as e:
        net(torch.randn(1, 5))
    assert "hidden = self.fc1(x)" in "".join(traceback.format_exception(e.value))
    assert sys.modules[type(net).__module__].F is torch.nn.functional
    with pytest.raises(AttributeError):
        sys.modules[type(net).__module__].nothing  # noqa: B018
    del net, copy, e
    gc.collect()
    assert known() == before


def test_device_and_type(core: object, tiny: Path) -> None:
    meta = onnx2nn.load(tiny, device="meta")
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    half = onnx2nn.load(tiny, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    both = onnx2nn.load(tiny, dtype=torch.float64, device="cpu")
    assert both.fc1.weight.dtype == torch.float64
    assert isinstance(both.fc1.weight, torch.nn.Parameter)


def test_what_is_written_and_checked_is_forgotten_too(
    core: object, tiny: Path, tmp_path: Path
) -> None:
    from onnx2nn.check.verification import load_written

    onnx2nn.convert(tiny, tmp_path / "net.py")
    gc.collect()
    before = [n for n in sys.modules if n.startswith("onnx2nn_written")]
    net = load_written(tmp_path / "net.py")
    assert "self.fc1(x)" in inspect.getsource(type(net))
    assert type(pickle.loads(pickle.dumps(net))) is type(net)
    del net
    gc.collect()
    assert [n for n in sys.modules if n.startswith("onnx2nn_written")] == before


def test_warnings_go_to_the_logger(core: Any, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    real = core.convert

    def warned(*args: Any) -> Any:
        conversion = real(*args)
        conversion.diagnostics = [{"severity": "warning", "code": "odd", "message": "look here"}]
        return conversion

    core.convert = warned
    onnx2nn.load(tiny)
    assert [(r.name, r.levelname) for r in caplog.records] == [("onnx2nn", "WARNING")]
    assert "look here" in caplog.text
