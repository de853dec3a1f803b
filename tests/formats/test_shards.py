"""Weights in several files and an index: `--max-shard-size`."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file

import onnx2nn
from onnx2nn.api import Error
from onnx2nn.cli.convert import usage
from pages import imported
from product import write_layers
from programs import PROGRAM

KEYS = {"a.weight", "b.weight", "c.weight"}


def shards(count: int, stem: str = "net") -> set[str]:
    return {f"{stem}-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)}


def written(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.suffix != ".onnx"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: 1.onnx and 2.onnx, with three weights of 4,096 bytes each."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        write_layers(tmp_path / f"{number}.onnx", number)
    return tmp_path


def test_index_and_source(folder: Path) -> None:
    done = onnx2nn.convert("1.onnx", "net.py", max_shard_size=9000)
    assert done.files[:2] == ["net.py", "net.safetensors.index.json"]
    assert {*done.files[2:]} == shards(2)
    assert written(folder) == {*done.files}
    index = json.loads(Path("net.safetensors.index.json").read_text())
    assert index["metadata"] == {"onnx2nn": "1.onnx", "total_size": 3 * 4096}
    assert index["weight_map"].keys() == KEYS
    for name in shards(2):
        with safe_open(name, "pt") as file:
            assert {index["weight_map"][key] for key in file.keys()} == {name}  # noqa: SIM118
            assert file.metadata() == {"format": "pt", "onnx2nn": "1.onnx"}
    # In double precision: sums of floats depend on where in memory the weights lie.
    net = imported(folder / "net.py").load(dtype=torch.float64)
    direct = onnx2nn.load("1.onnx").double()
    x = torch.randn(2, 32, dtype=torch.float64)
    torch.testing.assert_close(net(x), direct(x))
    assert onnx2nn.verify("1.onnx", "net.py").ok
    assert onnx2nn.verify("1.onnx", "net.safetensors").ok
    ruff = [sys.executable, "-m", "ruff"]
    for command in ([*ruff, "check", "-q"], [*ruff, "format", "--check", "-q"], ["mypy"]):
        start = command if command[0] != "mypy" else [sys.executable, "-m", "mypy"]
        subprocess.run([*start, "net.py"], check=True, stdout=subprocess.DEVNULL)


def test_one_file_keeps_the_short_load(folder: Path) -> None:
    onnx2nn.convert("1.onnx", "net.py", max_shard_size=3 * 4096)
    assert written(folder) == {"net.py", "net.safetensors"}
    assert "json" not in Path("net.py").read_text()


@pytest.mark.parametrize(
    ("size", "count"),
    [(8192, 2), ("8KiB", 2), ("8KB", 3), ("0.009 MB", 2), (1, 3), ("1GiB", 1), ("12.288kb", 1)],
)
def test_sizes(folder: Path, size: int | str, count: int) -> None:
    """As Hugging Face has them: a KB is 1000 bytes, a KiB 1024."""
    files = onnx2nn.convert("1.onnx", "net.py", max_shard_size=size).files
    assert {*files} == {"net.py"} | (
        {"net.safetensors"} if count == 1 else shards(count) | {"net.safetensors.index.json"}
    )
    subprocess.run(
        [PROGRAM, "1.onnx", "-o", "native.py", "--max-shard-size", str(size), "-q"], check=True
    )
    if count > 1:
        assert shards(count, "native") < written(folder)


@pytest.mark.parametrize(
    ("size", "error", "why"),
    [
        (0, Error, "shards of 0 bytes"),
        (-1, TypeError, "max_shard_size: -1 is not a whole number of bytes"),
        ("5XB", ValueError, 'max_shard_size: "5XB" is not'),
        (1.5, TypeError, "max_shard_size: 1.5 is not"),
    ],
)
def test_sizes_that_are_none(folder: Path, size: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        onnx2nn.convert("1.onnx", "net.py", max_shard_size=size)
    assert not written(folder)


@pytest.mark.parametrize("out", ["net.pth", "net.pt", "net.pt2"])
def test_only_safetensors_have_shards(folder: Path, out: str) -> None:
    with pytest.raises(Error, match=f"{out} is no name for weights in shards"):
        onnx2nn.convert("1.onnx", out, max_shard_size="1GB")


def test_what_an_earlier_conversion_left_goes(folder: Path) -> None:
    """Loaders that look for a file before an index, or take all files of a folder, find nothing old."""
    Path("other-00001-of-00003.safetensors").write_bytes(b"")
    others = {"other-00001-of-00003.safetensors"}
    index = {"net.py", "net.safetensors.index.json"}
    for size, files in (
        (5000, shards(3) | index),
        (9000, shards(2) | index),
        (None, {"net.py", "net.safetensors"}),
        (5000, shards(3) | index),
    ):
        for model in ("1.onnx", "2.onnx"):
            onnx2nn.convert(model, "net.py", max_shard_size=size)
            assert written(folder) == files | others
            assert int(imported(folder / "net.py").load().a.weight[0, 0]) == int(model[0])


def test_files_of_others_stay(folder: Path) -> None:
    theirs = ["net-00001-of-00002.safetensors", "net.safetensors.index.json"]
    for name in theirs:
        Path(name).write_text('{"metadata": {}, "weight_map": {}}')
        with pytest.raises(Error, match=f"{name} exists, and onnx2nn did not write it"):
            onnx2nn.convert("1.onnx", "net.py", max_shard_size=9000)
        assert written(folder) == {name}
        Path(name).unlink()
    # Of another number of shards: not replaced, and not ours to remove.
    Path("net-00001-of-00007.safetensors").write_text("mine")
    onnx2nn.convert("1.onnx", "net.py", max_shard_size=9000)
    assert Path("net-00001-of-00007.safetensors").read_text() == "mine"


def test_a_killed_run_of_another_size_leaves_nothing(folder: Path) -> None:
    onnx2nn.convert("1.onnx", "net.py", max_shard_size=9000)
    for name in [*shards(2), "net.safetensors.index.json"]:
        path = Path(name)
        path.rename(path.with_suffix(f".new{path.suffix}"))
    onnx2nn.convert("2.onnx", "net.py")
    assert written(folder) == {"net.py", "net.safetensors"}


def tied() -> onnx.ModelProto:
    """A weight under two keys, constants that are no weights, and a scale beside its integers."""

    class Language(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.wte = torch.nn.Embedding(200, 64)
            self.proj = torch.nn.Linear(64, 64)
            self.lm_head = torch.nn.Linear(64, 200, bias=False)
            self.lm_head.weight = self.wte.weight
            table = torch.randn(8, 64, generator=generator)
            self.register_buffer("table", table, persistent=False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.wte(ids) + self.table
            y: torch.Tensor = self.lm_head(self.proj(x).relu())
            return y

    torch.manual_seed(0)
    program = torch.onnx.export(
        Language().eval(), (torch.zeros(2, 8, dtype=torch.int64),), dynamo=True, verbose=False
    )
    assert program is not None
    return program.model_proto


def test_tied_weights_and_constants(folder: Path) -> None:
    onnx.save(tied(), "tied.onnx")
    onnx2nn.convert("tied.onnx", "whole.py")
    onnx2nn.convert("tied.onnx", "net.py", max_shard_size=1)
    whole, net = imported(folder / "whole.py").load(), imported(folder / "net.py").load()
    assert net.lm_head.weight is net.wte.weight
    assert {n for n, _ in net.named_buffers()} - net.state_dict().keys()
    ids = torch.randint(0, 200, (2, 8))
    assert torch.equal(net(ids), whole(ids))
    assert onnx2nn.verify("tied.onnx", "net.py").ok
    half = imported(folder / "net.py").load(dtype=torch.float16)
    assert {t.dtype for t in half.state_dict().values()} == {torch.float16}
    empty = imported(folder / "net.py").load(device="meta")
    assert {t.device.type for t in [*empty.parameters(), *empty.buffers()]} == {"meta"}


def test_quantised_weights(folder: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-64, 64, (16, 8)).astype(np.int8)
    scale = rng.uniform(0.01, 0.02, 8).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["real"], axis=1),
            helper.make_node("MatMul", ["x", "real"], ["y"]),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 16])],
        [value("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(scale, "s")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "q.onnx")
    onnx2nn.convert("q.onnx", "net.py", max_shard_size=1)
    assert len(shards(2) & written(folder)) == 2
    net = imported(folder / "net.py").load()
    x = torch.randn(3, 16)
    torch.testing.assert_close(net(x), x @ torch.from_numpy(weight * scale))
    torch.testing.assert_close(net(x), onnx2nn.load("q.onnx")(x))
    kept = onnx2nn.load("q.onnx", keep_quantized=True)
    torch.testing.assert_close(kept(x), net(x))


def test_too_many_shards_for_a_process(folder: Path) -> None:
    """An error, and nothing half-written."""
    weights = [numpy_helper.from_array(np.full(8, i, np.float32), f"w{i}") for i in range(200)]
    nodes = [helper.make_node("Add", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(200)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x0", TensorProto.FLOAT, [8])],
        [value("x200", TensorProto.FLOAT, [8])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "many.onnx")
    command = [PROGRAM, "many.onnx", "-o", "net.py", "--max-shard-size", "1", "--no-simplify", "-q"]

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=few_files)
    assert done.returncode == 3
    assert "open files" in done.stderr
    assert not written(folder)
    subprocess.run(command, check=True)
    assert shards(200) < written(folder)


@pytest.mark.slow
def test_shards_are_mapped_and_not_read(folder: Path) -> None:
    """A gigabyte in holes: written without being held in memory, loaded in a moment."""
    size = 1 << 28
    with open("w.bin", "wb") as file:
        file.truncate(4 * size)
    value = helper.make_tensor_value_info
    tensors, nodes = [], []
    for i in range(4):
        weight = TensorProto(
            name=f"layers.{i}.weight", data_type=TensorProto.FLOAT, dims=[8192, 8192]
        )
        weight.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "w.bin"), ("offset", i * size), ("length", size)):
            weight.external_data.add(key=key, value=str(text))
        tensors.append(weight)
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"layers.{i}.weight"], [f"x{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x0", TensorProto.FLOAT, ["n", 8192])],
        [value("x4", TensorProto.FLOAT, ["n", 8192])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "big.onnx")
    command = [PROGRAM, "big.onnx", "-o", "net.py", "--max-shard-size", "300MB", "-q"]
    # A child begins with the peak of its parent: not this one.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 64 << 10  # KiB
    assert shards(4) < written(folder)
    code = (
        "import net, re; m = net.load(); p = open('/proc/self/status').read();"
        "import torch; print(torch.equal(m.get_parameter('layers.0.weight')[0, :9], torch.zeros(9)), "
        "*re.findall(r'Rss(?:Anon|File):\\s+(\\d+)', p))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    zero, anonymous, mapped = done.stdout.split()
    assert zero == "True"
    assert (int(anonymous) + int(mapped)) < 700 << 10  # torch itself
    assert load_file("net-00001-of-00004.safetensors").keys() <= {
        f"layers.{i}.weight" for i in range(4)
    }


def test_the_hint_loads_what_was_written(folder: Path) -> None:
    """Two lines, whether the weights are a state_dict or shards; a plan needs source to stand in."""
    for name, options in (("state.pth", {}), ("net.py", {"max_shard_size": 9000})):
        done = onnx2nn.convert("1.onnx", name, **options)
        text = usage(done, None).partition("Use it:\n")[2]
        assert "net = load()" in text
        run = [sys.executable, "-c", textwrap.dedent(text)]
        subprocess.run(run, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)})
    with pytest.raises(Error, match=r"x\.pt is no name for weights beside tp_plan"):
        onnx2nn.convert("1.onnx", "x.pt", tp_plan=True)
