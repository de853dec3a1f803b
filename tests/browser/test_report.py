"""Reports of `--report`, opened in Chromium."""

import html
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.exports.environments import chromium

import onnx2nn
from onnx2nn.cli import main
from onnx2nn.report.charts import histograms

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
EVIL = "</code></script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
_MOST = 2 * 2**20


def seen(folder: Path, file: str, width: int = 1200) -> Any:
    """What tools/report_pages.py finds on the page."""
    done = subprocess.run(
        [chromium(), ROOT / "tools" / "report_pages.py", file, "--width", str(width)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def run(folder: Path, *words: str) -> str:
    """The report that a command writes."""
    code = main([*words, "--report", str(folder / "report.html"), "-q"])
    assert code in (0, 1, 5), code
    page = (folder / "report.html").read_bytes()
    assert len(page) < _MOST
    assert not re.search(rb"""(?:src|href)=["']?(?:https?:)?//""", page.split(b"<script")[0])
    return page.decode()


def hostile() -> onnx.ModelProto:
    """A model in which every name is markup that would run."""
    weight = numpy_helper.from_array(np.eye(4, dtype="f"), "w" + EVIL)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x" + EVIL, "w" + EVIL], ["h" + EVIL], name="n" + EVIL),
            helper.make_node("Sigmoid", ["h" + EVIL], ["y" + EVIL], name="{{ 7 * 7 }}"),
        ],
        "g" + EVIL,
        [helper.make_tensor_value_info("x" + EVIL, TensorProto.FLOAT, ["n" + EVIL, 4])],
        [helper.make_tensor_value_info("y" + EVIL, TensorProto.FLOAT, ["n" + EVIL, 4])],
        [weight],
        doc_string=EVIL,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name=EVIL,
        producer_version=EVIL,
    )
    model.metadata_props.add(key=EVIL, value=EVIL)
    return model


def test_conversion(tmp_path: Path) -> None:
    page = run(tmp_path, "convert", str(DIGITS), str(tmp_path / "net.py"))
    for text in ("22.1 k", "844 k", "BatchNorm2d", "onnx2nn convert", "ONNX Runtime"):
        assert text in page, text


@pytest.mark.parametrize(
    "words", [["convert"], ["convert", "--no-check"], ["verify"], ["simplify"]]
)
def test_multiply_adds_are_those_of_inspect(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In all, by operator and by module: on the page they are rounded, and in full behind the figures."""
    command, *options = words
    batch = 3 if not options else 1  # what nobody says is 1
    if not options:
        options = ["--test-input-shape", f"image:{batch},1,8,8"]
    out = {"convert": ["net.py"], "simplify": ["small.onnx"]}.get(command, [])
    page = run(tmp_path, command, str(DIGITS), *(str(tmp_path / o) for o in out), *options)
    capfd.readouterr()
    assert main(["inspect", str(DIGITS), "--input_shape", f"image:{batch},1,8,8", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["multiply_adds"] == batch * 844_224

    def rounded(n: int) -> str:
        return f"{n / 1e6:.3g} M" if n >= 1e6 else f"{n / 1e3:.3g} k" if n >= 1e3 else str(n)

    text = html.unescape(page)
    shown = re.search(r"<dt>multiply-adds</dt><dd>([^<]*)", text)
    assert shown is not None
    assert shown[1] == rounded(found["multiply_adds"])
    rows = dict(re.findall(r'<tr><td>(\w+)</td>.*<td class="n">([^<]*)</td></tr>', text))
    assert rows["Conv"] == rounded(found["operators"]["Conv"]["multiply_adds"])
    assert rows["Relu"] == ""
    if command == "simplify":
        return  # there is no page with modules
    blocks = {b["path"]: b["multiply_adds"] for b in found["blocks"] if b["multiply_adds"]}
    in_full = {int(n.replace(",", "")) for n in re.findall(r'title="([\d,]+) multiply-adds"', text)}
    assert in_full >= {
        found["multiply_adds"],
        *blocks.values(),
    }  # and sums of those that are folded


def test_verification_and_simplification(tmp_path: Path) -> None:
    run(tmp_path, "verify", str(DIGITS))
    page = run(tmp_path, "simplify", str(DIGITS), str(tmp_path / "small.onnx"))
    assert "fuse-batch-norm" in page
    assert "before" in page
    assert "histogram0" in page


def test_control_flow_has_a_tree_too(tmp_path: Path) -> None:
    """Without numbers such a module does not run to its end."""
    model = str(ROOT / "tests" / "golden" / "control_flow.onnx")
    assert "ControlFlow" in run(tmp_path, "convert", model, str(tmp_path / "net.py"))


def test_however_large_it_is(tmp_path: Path) -> None:
    """Thousands of nodes, none like another, with long names."""
    nodes, at = [], "x"
    for k in range(3000):
        name = f"v{k}" + "_long" * 100
        nodes.append(helper.make_node(("Sin", "Cos", "Tanh")[k * k % 3], [at], [name], name=name))
        at = name
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "long.onnx")
    run(tmp_path, "convert", str(tmp_path / "long.onnx"), str(tmp_path / "net.py"))


@pytest.mark.parametrize(
    "numbers",
    [
        np.full(3, 1e30, np.float32),
        np.full(3, 2**63 - 1),
        np.array([1, np.nextafter(1, 2)]),
        np.array([-1.7e308, 1.7e308, 0]),
        np.array([0, 5e-324]),
    ],
)
def test_histograms_of_numbers_that_leave_no_room_for_bins(numbers: Any) -> None:
    values = SimpleNamespace(names=["y"], want=[numbers], got=[numbers], oracle="it")
    [(name, chart)] = histograms(values, "h")  # type: ignore[arg-type]
    assert name == "y"
    assert "NaN" not in json.dumps(chart)


def test_one_of_each(tmp_path: Path) -> None:
    """In a model of one node, whose names turn the direction of what is written."""
    name = "\u202eevil\u202c"
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", name)]
    graph = helper.make_graph([helper.make_node("Exp", ["x"], [name])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "one.onnx")
    page = run(tmp_path, "verify", str(tmp_path / "one.onnx"))
    assert "1 output, 1 node one by one" in page
    assert "\\u202eevil\\u202c" in page
    assert "\u202e" not in page
    versions = next(line for line in page.split("\n") if "pip install" in line)
    assert "onnx2nn[report]==" in versions
    assert "+" not in versions  # a build of torch's own, which PyPI does not have


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_what_does_not_convert_is_said(command: str, tmp_path: Path) -> None:
    """The code is the one that there is without a report."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
    node = helper.make_node("Magic", ["x"], ["y"], name="the_node", domain="my.domain")
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    words = [command, str(tmp_path / "m.onnx"), "-q"]
    report = tmp_path / "report.html"
    assert main([*words, "--report", str(report)]) == main(words)
    page = report.read_text()
    for text in (
        "Does not convert",
        "1 error",
        "my.domain::Magic is not",
        "the_node",
        "register_op",
    ):
        assert text in page, text
    assert "No rule found" not in page


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>mine</p>")
    words = ["verify", str(DIGITS), "--report", str(tmp_path / "report.html"), "-q"]
    assert main(words) != 0
    assert (tmp_path / "report.html").read_text() == "<p>mine</p>"
    (tmp_path / "report.html").unlink()
    run(tmp_path, "verify", str(DIGITS))
    run(tmp_path, "verify", str(DIGITS))  # ours may be replaced
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_wrong_module_is_shown(tmp_path: Path) -> None:
    onnx2nn.convert(DIGITS, tmp_path / "net.py")
    text = (tmp_path / "net.py").read_text()
    changed = text.replace("return F.relu(x + self", "return F.silu(x + self")
    assert changed != text
    (tmp_path / "net.py").write_text(changed)
    page = run(tmp_path, "verify", str(DIGITS), str(tmp_path / "net.py"))
    assert "First difference" in page
    assert 'class="verdict wrong"' in page


def test_notebooks(tmp_path: Path) -> None:
    model = hostile()
    converted, report = onnx2nn.convert(model), onnx2nn.verify(model)
    for shown in (converted, report):
        assert "\n" not in repr(shown)
        text = shown._repr_html_()
        assert text is not None
        assert "<script" not in text
        assert "<img" not in text
    assert "Right" in report._repr_html_()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("width", [1200, 390])
def test_in_the_browser(width: int, tmp_path: Path) -> None:
    run(tmp_path, "convert", str(DIGITS), str(tmp_path / "net.py"))
    found = seen(tmp_path, "report.html", width)
    assert found["charts"] == 3
    assert found["messages"] == []
    assert found["requests"] == []
    assert found["overflow"] == 0  # nothing is wider than the page
    assert found["opened"]  # a block unfolds by a click


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_of_a_hostile_model_runs(tmp_path: Path) -> None:
    onnx.save(hostile(), tmp_path / "evil.onnx")
    page = run(tmp_path, "convert", str(tmp_path / "evil.onnx"), str(tmp_path / "net.py"))
    assert "window.ran" in page  # its names are there, as text
    found = seen(tmp_path, "report.html")
    assert found["ran"] is None
    assert found["images"] == 0
    assert found["scripts"] == 3  # the data of the charts, Bokeh, ours
    assert found["messages"] == []
    assert found["requests"] == []
    assert "onerror" in found["text"]
    assert "49" not in found["text"].split("Source")[0] or "{{ 7 * 7 }}" not in found["text"]
