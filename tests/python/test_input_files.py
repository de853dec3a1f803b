"""Models as files: where external data may lie, what is no model, files that change, many files."""

import gzip
import io
import json
import os
import pickle
import resource
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx2nn
from onnx2nn.check.verification import load_written
from onnx2nn.simplification import simplify_checked

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"


def model(weights: int = 1, size: int = 64) -> onnx.ModelProto:
    """y = x * w0 * w1 ..., each weight of `size` floats."""
    names = [f"w{i}" for i in range(weights)]
    values = ["x", *(f"v{i}" for i in range(1, weights)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", [a, n], [b])
            for a, n, b in zip(values, names, values[1:], strict=False)
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", size])],
        [
            numpy_helper.from_array(
                np.linspace(0.99, 1.01 + i % 2 / 1000, size, dtype=np.float32), n
            )
            for i, n in enumerate(names)
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def save(proto: onnx.ModelProto, path: Path, one_file: bool = True) -> Path:
    """With all weights in `path`_data, or each in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location=f"{path.name}_data" if one_file else None,
        size_threshold=0,
    )
    return path


def cached(folder: Path) -> Path:
    """A model as Hugging Face's cache keeps it: links into blobs/."""
    save(model(2), folder / "model.onnx")
    snapshot = folder / "models--a--b" / "snapshots" / "0123" / "onnx"
    blobs = folder / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, blob in (("model.onnx", "aa11"), ("model.onnx_data", "bb22")):
        (folder / name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("../../../blobs") / blob)
    return snapshot / "model.onnx"


def refused(path: Any, **options: Any) -> str:
    with pytest.raises(onnx2nn.Error) as error:
        onnx2nn.convert(path, **options)
    return str(error.value)


def test_hugging_face_cache(tmp_path: Path) -> None:
    path = cached(tmp_path)
    out = tmp_path / "net.py"
    onnx2nn.convert(path, out)
    report = onnx2nn.verify(path, out)
    assert report.ok is True, report
    assert (report.oracle or "").startswith("ONNX Runtime")
    outcome = simplify_checked(path, tmp_path / "small.onnx")
    assert outcome.ok
    assert outcome.skipped is None
    assert onnx2nn.load(path) is not None


def test_data_elsewhere_needs_a_root(tmp_path: Path) -> None:
    save(model(), tmp_path / "real" / "m.onnx")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "m.onnx").write_bytes((tmp_path / "real" / "m.onnx").read_bytes())
    path = tmp_path / "m" / "m.onnx"
    assert "missing" in refused(path)
    onnx2nn.convert(path, data_roots=[tmp_path / "real"])
    (tmp_path / "m" / "m.onnx_data").symlink_to(tmp_path / "real" / "m.onnx_data")
    text = refused(path)
    assert "outside of the model's folder" in text
    assert "--data-root" in text
    options = {"data_roots": [tmp_path / "real"]}
    report = onnx2nn.verify(path, **options)
    assert report.ok is True, report
    outcome = simplify_checked(path, tmp_path / "small.onnx", **options)
    assert outcome.ok
    assert outcome.skipped is None
    assert "outside of the model's folder" in refused(path, data_roots=[tmp_path / "m"])
    assert "for external data is none" in refused(path, data_roots=[tmp_path / "nothing"])


@pytest.mark.parametrize("location", ["../secret", "{root}/secret", "link", "up/secret", "fifo"])
def test_what_leaves_all_folders_stays_out(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(256))
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo")
    proto = model()
    onnx.external_data_helper.set_external_data(
        proto.graph.initializer[0], location.format(root=tmp_path)
    )
    proto.graph.initializer[0].ClearField("raw_data")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    # A link to the model moves no border but its own.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "m.onnx").symlink_to(folder / "m.onnx")
    for path in (folder / "m.onnx", tmp_path / "other" / "m.onnx"):
        refused(path)
        refused(path, data_roots=[folder])
    if location != "fifo":
        onnx2nn.convert(folder / "m.onnx", data_roots=[tmp_path])


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, x=np.zeros(3))
    return out.getvalue()


def torch_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return out.getvalue()


def keyed(**values: Any) -> bytes:
    header = json.dumps(values).encode()
    return len(header).to_bytes(8, "little") + header


OTHER_FILES = {
    "an empty file": b"",
    "a Git LFS pointer": LFS,
    "an HTML page": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "gzip data": gzip.compress(b"model"),
    "NumPy arrays": npz(),
    "a file of torch.save": torch_zip(),
    "a pickle": pickle.dumps({"a": 1}, 2),
    "a safetensors file": keyed(w={"dtype": "F32", "shape": [], "data_offsets": [0, 4]}) + bytes(4),
    "a TensorFlow Lite model": b"\x1c\0\0\0TFL3" + bytes(40),
    "a model in ONNX Runtime's own format": b"\x20\0\0\0ORTM" + bytes(40),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "a GGUF model": b"GGUF\x03\0\0\0" + bytes(40),
    "a TensorRT engine": b"ftrt" + bytes(40),
    "a model of OpenVINO": b'<?xml version="1.0"?>\n<net name="a" version="11">\n<layers/></net>',
    "an ncnn model": b"7767517\n75 83\n",
    "a description of a Caffe network": b'name: "net"\nlayer {\n  name: "data"\n}\n',
    "a model as MLIR": b"module {\n  func.func @main() { return }\n}\n",
    "a JSON file": b'{"error": "not found"}',
    "an ONNX model as protobuf's text": b'ir_version: 8\ngraph { name: "g" }\n',
    "UTF-16 text": "ir_version".encode("utf-16"),
    'a text file that begins with "hello"': b"hello\nworld\n",
    "a TensorFlow SavedModel": b"\x08\x01\x12\x20\x0a\x1e\x2a\x0atensorflow" + bytes(18),
    "a Core ML model": b"\x08\x04\x12\x10\x0a\x0e\x0a\x05image\x1a\x05\x2a\x03\x08\x01\x00",
    "a file of zeros": bytes(5000),
}


@pytest.mark.parametrize("what", OTHER_FILES)
def test_other_files_are_named(what: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(OTHER_FILES[what])
    for call in (onnx2nn.convert, onnx2nn.verify, onnx2nn.inspect, onnx2nn.load):
        with pytest.raises(onnx2nn.Error, match="this is ") as error:
            call(path)  # type: ignore[operator]
        assert what in str(error.value)
        assert error.value.unreadable


def test_external_data_that_is_none(tmp_path: Path) -> None:
    path = save(model(), tmp_path / "m.onnx")
    data = tmp_path / "m.onnx_data"
    data.write_bytes(LFS.ljust(300, b"\n"))
    assert "git lfs pull" in refused(path)
    data.write_bytes(b"<html>not found</html>")
    assert "an HTML page" in refused(path)
    data.write_bytes(bytes(10))
    assert "download complete" in refused(path)


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    path = save(model(1100, 2), tmp_path / "m.onnx", one_file=False)
    code = (
        "import resource, sys, onnx2nn\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from onnx2nn.api import simplify_unchecked\n"
        "onnx2nn.convert(sys.argv[1], sys.argv[2] + '/net.py')\n"
        "simplify_unchecked(sys.argv[1], sys.argv[2] + '/small.onnx')\n"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 256
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path)], check=True)
    x = np.ones((1, 2), np.float32)
    from onnx.reference import ReferenceEvaluator

    wanted = ReferenceEvaluator(str(path)).run(None, {"x": x})[0]
    import torch

    net = load_written(tmp_path / "net.py")
    np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("external", [False, True])
def test_a_file_that_is_cut_short_is_an_error(external: bool, tmp_path: Path) -> None:
    """Whatever it meets, the process lives: a mapping would end it."""
    path = tmp_path / "m.onnx"
    proto = model(4, 1 << 20)
    if external:
        save(proto, path)
    else:
        path.write_bytes(proto.SerializeToString())
    victim = tmp_path / "m.onnx_data" if external else path
    whole = victim.read_bytes()
    stop = threading.Event()

    def cut() -> None:
        while not stop.is_set():
            os.truncate(victim, 4096)
            victim.write_bytes(whole)

    code = (
        "import sys, onnx2nn\n"
        "from onnx2nn.api import simplify_unchecked\n"
        "for k in range(30):\n"
        "    for call in (onnx2nn.convert, simplify_unchecked):\n"
        "        suffix = '.py' if call is onnx2nn.convert else '.onnx'\n"
        "        try:\n"
        "            call(sys.argv[1], sys.argv[2] + '/out' + suffix)\n"
        "        except onnx2nn.Error:\n"
        "            pass\n"
    )
    writer = threading.Thread(target=cut)
    writer.start()
    try:
        done = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path)], check=False)
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0


def undefined_output() -> onnx.ModelProto:
    proto = model()
    proto.graph.output.append(helper.make_tensor_value_info("ghost", TensorProto.FLOAT, [1]))
    return proto


def test_an_output_that_nothing_defines(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(undefined_output().SerializeToString())
    text = refused(path)
    assert '"ghost"' in text
    assert "--drop-undefined-outputs" in text
    with pytest.raises(onnx2nn.Error):
        onnx2nn.load(path)
    option = {"drop_undefined_outputs": True}
    done = onnx2nn.convert(path, tmp_path / "net.py", **option)
    assert [o["name"] for o in done.outputs] == ["y"]
    assert any("ghost" in d["message"] for d in done.diagnostics if d["severity"] == "warning")
    assert onnx2nn.load(path, **option) is not None
    report = onnx2nn.verify(path, tmp_path / "net.py", **option)
    assert report.ok is True, report
    outcome = simplify_checked(path, tmp_path / "small.onnx", **option)
    assert outcome.ok
    assert outcome.skipped is None
    assert [o.name for o in onnx.load(tmp_path / "small.onnx").graph.output] == ["y"]
    # No output at all is no model.
    proto = undefined_output()
    del proto.graph.output[0]
    path.write_bytes(proto.SerializeToString())
    assert "there is no other" in refused(path, **option)
