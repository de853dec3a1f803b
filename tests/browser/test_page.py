"""The page in the browser (web/): what it offers is what the native program writes, byte for byte."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.backend.suite import locked
from tests.exports.environments import chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
NATIVE = ROOT / "build" / "ci" / "bin" / "onnx2nn"
CORPUS = Path(os.environ.get("ONNX2NN_MODELS", ROOT.parent / "shared" / "models"))
EVIL = "</code></script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
TURN = "\u202e"  # what follows is shown from right to left
# Of different kinds, small and middling.
MODELS = [
    "759401524__MediaPipePyTorch/blazeface_landmark.onnx",
    "NVIDIA__TensorRT/tools__Polygraphy__tests__models__residual_block.onnx",
    "NeuralNetworkVerification__Marabou/resources__onnx__robust_model_sigmoid_linear.onnx",
    "PINTO0309__hand-gesture-recognition-using-onnx/model__keypoint_classifier__keypoint_classifier.onnx",
    "ecmwf__infero/tests__data__cyclone__cyclone_model_200x200.onnx",
    "microsoft__Windows-Machine-Learning/Samples__MNIST__Tutorial__cs__Assets__mnist.onnx",
    "microsoft__onnxconverter-common/tests__coreml_OneHotEncoder_BikeSharing.onnx",
    "onnxruntime__onnxruntime-qnn/onnxruntime__test__testdata__transform__fusion__gpt2_one_layer.onnx",
    "pulp-platform__Deeploy/DeeployTest__Tests__Models__TinyViT__Demo__network.onnx",
    "rhasspy__openWakeWord-cpp/models__melspectrogram.onnx",
]


@pytest.fixture(scope="module")
def dist() -> Path:
    """The built page."""
    if shutil.which("emcmake") is None:
        pytest.skip("Emscripten is not there (Debian: emscripten node-prismjs)")
    if not NATIVE.exists():
        pytest.skip(f"{NATIVE.relative_to(ROOT)} is not built")
    with locked(ROOT / ".cache" / "web"):
        done = subprocess.run(
            [ROOT / "tools" / "web.sh", "--quick"],
            capture_output=True,
            text=True,
            check=False,
            timeout=880,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.strip())


def seen(dist: Path, folder: Path, *jobs: dict[str, Any], offline: bool = False) -> Any:
    """What tools/web_pages.py finds on the page, for each job."""
    (folder / "jobs.json").write_text(json.dumps(jobs, default=str))
    done = subprocess.run(
        [
            chromium(),
            ROOT / "tools" / "web_pages.py",
            dist,
            folder / "jobs.json",
            *(["--offline"] if offline else []),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def native(model: Path, folder: Path) -> None:
    """What the native program writes of a model."""
    folder.mkdir()
    for words in (
        ["convert", model, "-o", folder / f"{model.stem}.py"],
        ["convert", model, "-o", folder / f"{model.stem}.pt"],
        ["simplify", model, folder / model.name],
    ):
        subprocess.run([NATIVE, *words, "-q"], capture_output=True, check=False, timeout=100)


def difference(ours: bytes, theirs: bytes) -> str:
    """Where bytes differ, in words; nothing where they are alike."""
    if ours == theirs:
        return ""
    if len(ours) != len(theirs):
        return f"{len(ours)} bytes, not {len(theirs)}"
    at = np.flatnonzero(np.frombuffer(ours, "u1") != np.frombuffer(theirs, "u1"))
    part = slice(int(at[0]), int(at[0]) + 16)
    return f"{at.size} bytes from {at[0]} to {at[-1]}: {ours[part]!r}, not {theirs[part]!r}"


def compare(downloads: Path, model: Path, folder: Path) -> set[str]:
    """The suffixes of what both wrote, alike."""
    native(model, folder)
    ours = {p.name: p.read_bytes() for p in downloads.iterdir()}
    theirs = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert sorted(ours) == sorted(theirs)
    for name, data in theirs.items():
        assert not difference(ours[name], data), f"{name}: {difference(ours[name], data)}"
    return {Path(name).suffix for name in ours}


def save(model: onnx.GraphProto, path: Path, **more: Any) -> Path:
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(model, opset_imports=opset, ir_version=8), path, **more)
    return path


def linear(names: str = "") -> onnx.GraphProto:
    """A product with weights that are stored the other way round, and a table; all names end so."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((300, 500), "f"), "fc.weight" + names)
    bias = numpy_helper.from_array(rng.standard_normal(500).astype("f"), "fc.bias" + names)
    nodes = [
        helper.make_node("Gemm", ["x" + names, weight.name, bias.name], ["h" + names], "n" + names),
        helper.make_node("Sigmoid", ["h" + names], ["y" + names], name="{{ 7 * 7 }}"),
    ]
    ports = [
        helper.make_tensor_value_info(name + names, TensorProto.FLOAT, ["n" + names, size])
        for name, size in (("x", 300), ("y", 500))
    ]
    return helper.make_graph(nodes, "g" + names, ports[:1], ports[1:], [weight, bias])


def test_golden_models(dist: Path, tmp_path: Path) -> None:
    """Without the corpus, too, and without a network; of one that is cancelled, nothing is left."""
    models = [
        ROOT / "examples" / "digits.onnx",
        GOLDEN / "transformer.onnx",
        GOLDEN / "detector.onnx",
    ]
    jobs = [{"files": [m], "access": True, "downloads": tmp_path / m.stem} for m in models]
    cancelled = {"files": models[:1], "cancel": True}
    stopped, *pages = seen(dist, tmp_path, cancelled, *jobs, offline=True)
    assert not stopped["result"]
    assert not stopped["working"]
    for model, page in zip(models, pages, strict=True):
        assert page["result"], page
        assert page["verdict"].startswith("Converted to class ")
        assert page["log"] == []
        assert page["overflow"] == 0
        found = compare(tmp_path / model.stem, model, tmp_path / f"{model.stem}-native")
        assert found == {".py", ".safetensors", ".pt", ".onnx"}
        for view, access in zip(
            ("source", "modules", "operators", "messages"), page["access"], strict=True
        ):
            assert access["shown"] == [f"panel-{view}"]  # by the keyboard
            assert access["focus"].lower().startswith(view)
            assert access["contrast"] >= 4.5, access["faint"]
            assert access["nameless"] == []
        source = (tmp_path / model.stem / f"{model.stem}.py").read_text()
        assert page["panels"]["source"] == source
        assert page["downloads"] == [
            f"{model.stem}{s}" for s in (".py", ".safetensors", ".pt", ".onnx")
        ]


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of models is not there")
def test_real_models(dist: Path, tmp_path: Path) -> None:
    models = [CORPUS / name for name in MODELS]
    jobs = [{"files": [m], "downloads": tmp_path / str(i)} for i, m in enumerate(models)]
    for i, page in enumerate(seen(dist, tmp_path, *jobs)):
        assert page["result"], page
        assert page["log"] == []
        assert page["overflow"] == 0
        compare(tmp_path / str(i), models[i], tmp_path / f"native-{i}")


def test_external_data(dist: Path, tmp_path: Path) -> None:
    """Chosen along, or when the page asks; below a folder that the page was not given, too."""
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    external = {"save_as_external_data": True, "size_threshold": 0}
    beside = save(linear(), folder / "beside.onnx", location="weights.bin", **external)
    below = save(linear(), folder / "below.onnx", location="data/deep.bin", **external)
    unrelated = folder / "unrelated.bin"
    unrelated.write_bytes(b"no weights")
    jobs = [
        {"files": [beside, folder / "weights.bin"], "downloads": tmp_path / "0"},
        {"files": [beside], "then": [folder / "weights.bin"], "downloads": tmp_path / "1"},
        {"files": [below], "then": [folder / "data" / "deep.bin"], "downloads": tmp_path / "2"},
        {"files": [below]},
        {"files": [below], "then": [unrelated]},
    ]
    pages = seen(dist, tmp_path, *jobs)
    for i, model in enumerate((beside, beside, below)):
        assert pages[i]["result"], pages[i]
        compare(tmp_path / str(i), model, tmp_path / f"native-{i}")
    assert not pages[3]["result"]
    assert "data/deep.bin" in pages[3]["message"]
    assert "So far there are" not in pages[3]["message"]
    assert "So far there are: unrelated.bin" in pages[4]["message"]


def test_weights_on_disk(dist: Path, tmp_path: Path) -> None:
    """Of many weights, those that are stored the other way round are kept by the browser, and none of models before."""
    rng = np.random.default_rng(0)
    size, turned, straight = 1500, 4, 4
    at, nodes, weights = "x", [], []
    for i in range(turned + straight):
        weight = numpy_helper.from_array(
            rng.standard_normal((size, size), "f"), f"layers.{i}.weight"
        )
        how = {"op_type": "MatMul"} if i < turned else {"op_type": "Gemm", "transB": 1}
        nodes.append(helper.make_node(inputs=[at, weight.name], outputs=[f"h{i}"], **how))
        weights.append(weight)
        at = f"h{i}"
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n in ("x", at)]
    model = save(helper.make_graph(nodes, "g", ports[:1], ports[1:], weights), tmp_path / "m.onnx")
    digits = {"files": [ROOT / "examples" / "digits.onnx"]}
    job = {"files": [model], "downloads": tmp_path / "page"}
    pages = seen(dist, tmp_path, job, digits, digits)
    compare(tmp_path / "page", model, tmp_path / "native")
    assert pages[0]["title"].startswith("m.onnx: ")
    assert pages[0]["log"] == []
    assert sorted(pages[0]["kept"]) == ["1.pt", "1.py"]
    assert max(pages[0]["kept"].values()) < (turned + 0.1) * size * size * 4  # and headers
    assert pages[1]["kept"] == pages[0]["kept"]
    assert pages[2]["kept"] == {}


def test_what_does_not_convert(dist: Path, tmp_path: Path) -> None:
    whole = (ROOT / "examples" / "digits.onnx").read_bytes()
    (tmp_path / "short.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("no model")
    graph = linear()
    graph.node[1].op_type = "Nonsense"
    unknown = save(graph, tmp_path / "unknown.onnx")
    huge = tmp_path / "huge model.onnx"
    with huge.open("wb") as file:
        file.truncate(2**31 + 1)
    files = [huge, tmp_path / "short.onnx", tmp_path / "text.onnx", unknown]
    too_large, short, text, unknown_page = seen(dist, tmp_path, *({"files": [f]} for f in files))
    assert "too large" in too_large["message"]
    assert "onnx2nn 'huge model.onnx'" in too_large["message"]
    for page in (short, text):
        assert page["verdict"] == "This file cannot be read"
        assert page["downloads"] == []
        assert "error" in page["panels"]["messages"]
    assert unknown_page["verdict"] == "Does not convert: one thing to mend"
    assert "Nonsense (1)" in unknown_page["panels"]["messages"]
    assert unknown_page["downloads"] == ["unknown.onnx"]


def test_nothing_of_a_hostile_model_runs(dist: Path, tmp_path: Path) -> None:
    graph = linear(EVIL + TURN)
    graph.doc_string = EVIL
    model = save(graph, tmp_path / "<img src=x onerror='window.ran = 1'>.onnx")
    graph.node[0].op_type = EVIL + TURN
    refused = save(graph, tmp_path / "refused.onnx")
    for page in seen(dist, tmp_path, {"files": [model]}, {"files": [refused]}):
        assert page["result"], page
        assert "onerror" in json.dumps(page["panels"])  # its names are there, as text
        assert TURN not in "".join(page["panels"].values())
        assert page["ran"] is None
        assert page["images"] == 1  # ours
        assert page["scripts"] == 2
        assert page["log"] == []
        names = {url.rsplit("/", 1)[1] for url in page["requests"]}
        assert names <= {p.name for p in dist.iterdir()}


def test_every_file_is_kept(dist: Path) -> None:
    """For when there is no network."""
    text = (dist / "offline.js").read_text().split("FILES = [")[1].split("]")[0]
    kept = set(re.findall(r"'([^']+)'", text))
    assert kept == {p.name for p in dist.iterdir()} - {"offline.js", "index.html"} | {"./"}
