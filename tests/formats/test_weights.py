"""The weight files, opened by their real readers: safetensors and torch.load."""

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]

NAMES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "C128": torch.complex128,
}
# What safetensors' Python package of today cannot read into torch, though the format names it.
NOT_LOADED = {"F8_E4M3FNUZ", "F8_E5M2FNUZ"}


def tool() -> Path:
    """The newest weights_tool of any build folder."""
    folders = [os.environ[k] for k in ("ONNX2NN_BUILD",) if k in os.environ]
    found = [Path(f) / "bin/weights_tool" for f in folders]
    found += sorted(ROOT.glob("build*/bin/weights_tool")) + sorted(
        ROOT.glob("build*/*/bin/weights_tool")
    )
    found = [f for f in found if f.exists() and "fuzz" not in f.parts]
    if not found:
        pytest.skip("weights_tool is not built")
    return max(found, key=lambda f: f.stat().st_mtime)


class Maker:
    """Collects weights in one source file at odd offsets, as ONNX files have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source.bin"
        self.data = bytearray(b"\x01\x02\x03")
        self.weights: list[dict[str, Any]] = []
        self.expected: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def add(self, key: str, dtype: str, *shape: int, transpose: bool = False) -> torch.Tensor:
        torch_dtype = NAMES[dtype]
        count = int(torch.tensor(shape).prod()) if shape else 1
        size = count * torch_dtype.itemsize
        top = 2 if dtype == "BOOL" else 256
        raw = torch.randint(0, top, (size,), dtype=torch.uint8, generator=self.generator)
        stored = tuple(reversed(shape)) if transpose else shape
        tensor = torch.empty(0, dtype=torch_dtype)
        if size:
            tensor = raw.view(torch_dtype).reshape(stored)
        else:
            tensor = tensor.reshape(stored)
        entry = {
            "key": key,
            "dtype": dtype,
            "shape": list(shape),
            "transpose": transpose,
            "file": str(self.source),
            "offset": len(self.data),
            "length": size,
        }
        self.data += raw.numpy().tobytes() + b"\x7f"
        self.weights.append(entry)
        self.expected[key] = (
            as_bytes(tensor).transpose(0, 1).contiguous() if transpose else as_bytes(tensor)
        )
        return tensor

    def alias(self, key: str, target: str) -> None:
        of = next(w for w in self.weights if w["key"] == target)
        self.weights.append(
            {"key": key, "dtype": of["dtype"], "shape": of["shape"], "alias_of": target}
        )
        self.expected[key] = self.expected[target]

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.source.write_bytes(self.data)
        description = self.folder / "description.json"
        description.write_text(json.dumps({"weights": self.weights}))
        return subprocess.run(
            [tool(), description, self.folder / name, *arguments], capture_output=True, text=True
        )

    def write(self, name: str, *arguments: str) -> list[Path]:
        done = self.run(name, *arguments)
        assert done.returncode == 0, done.stderr
        return [Path(line) for line in done.stdout.splitlines()]

    def check(self, loaded: dict[str, torch.Tensor]) -> None:
        assert set(loaded) <= set(self.expected)
        for key, tensor in loaded.items():
            entry = next(w for w in self.weights if w["key"] == key)
            assert tensor.dtype == NAMES[entry["dtype"]], key
            assert list(tensor.shape) == entry["shape"], key
            assert torch.equal(as_bytes(tensor), self.expected[key]), key


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of each element in one more dimension, so that NaNs compare too."""
    flat = tensor.contiguous().reshape(-1)
    size = tensor.dtype.itemsize
    if flat.numel() == 0:
        return torch.empty(*tensor.shape, size, dtype=torch.uint8)
    return flat.view(torch.uint8).reshape(*tensor.shape, size)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def add_every_dtype(maker: Maker, without: set[str]) -> None:
    for dtype in NAMES:
        if dtype in without:
            continue
        maker.add(f"{dtype}.scalar", dtype)
        maker.add(f"{dtype}.empty", dtype, 0, 3)
        maker.add(f"{dtype}.small", dtype, 3, 5, 2)
        maker.add(f"{dtype}.transposed", dtype, 37, 129, transpose=True)


def test_safetensors_dtypes(maker: Maker) -> None:
    add_every_dtype(maker, {"C128"} | NOT_LOADED)
    (path,) = maker.write("model.safetensors")
    loaded = load_file(path)
    maker.check(loaded)
    assert set(loaded) == set(maker.expected)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "source": "a test"}


@pytest.mark.parametrize("mmap", [False, True])
def test_state_dict_dtypes(maker: Maker, mmap: bool) -> None:
    add_every_dtype(maker, set())
    (path,) = maker.write("model.pth")
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    assert list(loaded) == list(maker.expected)
    maker.check(loaded)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
    if mmap:
        for key, tensor in loaded.items():
            assert tensor.data_ptr() % 64 == 0, key


def test_sums_of_what_is_copied(maker: Maker) -> None:
    """Two threads copy pieces of it, and the file's checksum is that of all."""
    maker.add("long", "U8", (17 << 20) + 5)
    maker.add("short", "F32", 3, 5)
    (path,) = maker.write("model.pth")
    maker.check(torch.load(path, weights_only=True))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_state_dict_trains(maker: Maker) -> None:
    maker.add("weight", "F32", 4, 8, transpose=True)
    maker.add("bias", "F32", 4)
    (path,) = maker.write("model.pth")
    before = path.read_bytes()
    with torch.device("meta"):
        linear = torch.nn.Linear(8, 4)
    linear.load_state_dict(torch.load(path, weights_only=True, mmap=True), assign=True)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.zero_()
    linear(torch.ones(2, 8)).sum().backward()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 70), (70, 1), (16, 16), (17, 15), (64, 64), (3, 1000), (1000, 3), (513, 1027)],
)
@pytest.mark.parametrize("dtype", ["U8", "F16", "F32", "F64"])
def test_transposed_shapes(maker: Maker, shape: tuple[int, int], dtype: str) -> None:
    maker.add("weight", dtype, *shape, transpose=True)
    maker.check(load_file(maker.write("model.safetensors")[0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("F32", (3000, 2100)),
        ("U8", (5, 3_000_001)),
        ("U8", (3_000_001, 5)),
        ("F16", (2049, 40_000)),
    ],
)
def test_transposed_in_tiles(maker: Maker, dtype: str, shape: tuple[int, int]) -> None:
    maker.add("other", "U8", 3)
    maker.add("weight", dtype, *shape, transpose=True)
    maker.check(load_file(maker.write("model.safetensors")[0]))


def test_shared_weights(maker: Maker) -> None:
    maker.add("embed.weight", "F32", 6, 4)
    maker.add("bias", "F16", 6)
    maker.alias("head.weight", "embed.weight")
    loaded = torch.load(maker.write("model.pth")[0], weights_only=True)
    maker.check(loaded)
    assert loaded["head.weight"].data_ptr() == loaded["embed.weight"].data_ptr()
    (path,) = maker.write("model.safetensors")
    assert set(load_file(path)) == {"embed.weight", "bias"}
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["head.weight"] == "embed.weight"

    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(6, 4)
            self.head = torch.nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight
            self.bias = torch.nn.Parameter(torch.zeros(6, dtype=torch.float16))

    from safetensors.torch import load_model

    assert load_model(Tied(), path) == (set(), [])


def test_shards(maker: Maker) -> None:
    for i in range(5):
        maker.add(f"layers.{i}.weight", "F32", 16, 16, transpose=i % 2 == 0)
    maker.add('names "and" \u6743\u91cd.\n', "I64", 3)
    paths = maker.write("model.safetensors", "2500")
    names = [p.name for p in paths]
    assert names == ["model.safetensors.index.json"] + [
        f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)
    ]
    index = json.loads(paths[0].read_text())
    assert index["metadata"] == {"total_size": 5 * 1024 + 24}
    assert set(index["weight_map"]) == set(maker.expected)
    for path in paths[1:]:
        loaded = load_file(path)
        maker.check(loaded)
        assert {index["weight_map"][key] for key in loaded} == {path.name}


def test_alignment(maker: Maker) -> None:
    maker.add("a.scale", "F32")
    maker.add("b.count", "I64")
    maker.add("c.weight", "F32", 1024, 1024)
    maker.add("d.mask", "BOOL", 3)
    maker.add("e.half", "F16", 32)
    (path,) = maker.write("model.safetensors")
    header_size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + header_size])
    assert (8 + header_size) % 4096 == 0
    start = {k: v["data_offsets"][0] for k, v in header.items() if k != "__metadata__"}
    assert start["c.weight"] % 4096 == 0
    assert start["e.half"] % 64 == 0
    assert start["a.scale"] % 4 == 0
    assert start["b.count"] % 8 == 0


def test_same_bytes_twice(maker: Maker) -> None:
    add_every_dtype(maker, {"C128"})
    for name in ("a.safetensors", "a.pth"):
        first = maker.write(name)[0].read_bytes()
        assert maker.write(name)[0].read_bytes() == first


def test_no_weights(maker: Maker) -> None:
    assert load_file(maker.write("model.safetensors")[0]) == {}
    assert torch.load(maker.write("model.pth")[0], weights_only=True) == {}


def test_what_safetensors_cannot_hold(maker: Maker) -> None:
    maker.add("window", "C128", 4)
    done = maker.run("model.safetensors")
    assert done.returncode == 1
    assert "window is complex128" in done.stderr
    assert sorted(p.name for p in maker.folder.iterdir()) == ["description.json", "source.bin"]


@pytest.mark.skipif("ONNX2NN_HUGE" not in os.environ, reason="writes 4 GiB; set ONNX2NN_HUGE=1")
def test_over_four_gigabytes(maker: Maker) -> None:
    maker.add("first", "F32", 5)
    source = maker.folder / "holes.bin"
    size = (4 << 30) + (1 << 20)
    with open(source, "wb") as file:
        file.truncate(size)
        file.seek(size - 4)
        file.write(b"last")
    maker.weights.append(
        {
            "key": "big",
            "dtype": "U8",
            "shape": [size],
            "file": str(source),
            "offset": 0,
            "length": size,
        }
    )
    maker.add("after", "F16", 7)
    (path,) = maker.write("model.pth")
    loaded = torch.load(path, weights_only=True, mmap=True)
    tail = loaded.pop("big")
    assert tail.shape == (size,)
    assert bytes(tail[-4:].tolist()) == b"last"
    maker.check(loaded)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("archive/data/1").file_size == size
        assert archive.read("archive/data/2") == maker.expected["after"].numpy().tobytes()
    path.unlink()
    source.unlink()


def test_weights_are_put_together_from_parts(tmp_path: Path) -> None:
    """Rows in another order, columns of a wider matrix, and both transposed; small ones and ones that no
    buffer holds."""
    make = Maker(tmp_path)
    make.data += b"\x00"  # a part's offset is in elements
    for name, rows, columns in (("small", 12, 8), ("large", 3000, 3072)):
        at = len(make.data) // 4
        make.data += b"\x00" * (4 * at + 4 - len(make.data))
        begin = len(make.data) // 4
        stored = torch.randn(rows, columns, generator=make.generator)
        make.data += stored.numpy().tobytes()
        third, half = rows // 3, columns // 2

        def part(
            offset: int, rows: int, columns: int, *, transpose: bool = False, stride: int = columns
        ) -> dict[str, Any]:
            return {
                "file": str(make.source),
                "offset": offset,
                "rows": rows,
                "columns": columns,
                "stride": stride,
                "transpose": transpose,
            }

        def add(key: str, expected: torch.Tensor, *parts: dict[str, Any]) -> None:
            make.weights.append(
                {"key": key, "dtype": "F32", "shape": list(expected.shape), "parts": parts}
            )
            make.expected[key] = as_bytes(expected.contiguous())

        add(
            f"{name}.rows",
            torch.cat([stored[2 * third :], stored[:third], stored[third : 2 * third]]),
            part(begin + 2 * third * columns, rows - 2 * third, columns),
            part(begin, third, columns),
            part(begin + third * columns, third, columns),
        )
        add(f"{name}.columns", stored[:, half:], part(begin + half, rows, columns - half))
        add(
            f"{name}.turned",
            torch.cat([stored[:, half:].t(), stored[:, :half].t()]),
            part(begin + half, columns - half, rows, transpose=True),
            part(begin, half, rows, transpose=True),
        )
        add(f"{name}.row", stored[1], part(begin + columns, 1, columns))
    for file in ("w.safetensors", "w.pth"):
        (path,) = make.write(file)
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, weights_only=True)
        )
        assert state.keys() == make.expected.keys()
        make.check(state)
