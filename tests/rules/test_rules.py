"""Each rule as graphs before and after, in text; and what they compute, against ONNX Runtime.

A rule's cases are in RULE.txt, in ONNX's own syntax. A line "## fires: TITLE" or "## stays: TITLE" opens a case, and
"## becomes" what it is after the rule alone. `opset N` comes first, then the graph's signature and its nodes. Values
that are declared in the last brackets but not given are weights, drawn at random. "## source" lists what the converted
source has, for rules that conversion uses too. "## finite: WHY" leaves out infinities and what is not a number.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnx2nn
from onnx2nn import _native

FOLDER = Path(__file__).parent


@dataclass
class Case:
    rule: str
    title: str
    fires: bool
    before: str
    after: str = ""
    source: list[str] = field(default_factory=list)
    finite: bool = False


def read(path: Path) -> list[Case]:
    cases: list[Case] = []
    for block in re.split(r"^## ", path.read_text(), flags=re.M)[1:]:
        head, _, text = block.partition("\n")
        kind, _, title = head.partition(": ")
        if kind in ("fires", "stays"):
            cases.append(Case(path.stem, title, kind == "fires", text))
        elif kind == "becomes":
            cases[-1].after = text
        elif kind == "finite":
            cases[-1].finite = True
        elif kind == "source":
            cases[-1].source = text.split("\n")
        else:
            raise ValueError(f"{path}: {head}")
    return cases


CASES = [case for path in sorted(FOLDER.glob("*.txt")) for case in read(path)]
# They sweep over whole graphs, and are tested where the worklist is.
LISTED = set(_native.simplify_rules())  # the others are for conversion alone
SWEEPS = {
    "merge-equal-nodes",
    "merge-equal-shapes",
    "merge-equal-initializers",
    "own-constants",
}


def parse(text: str) -> onnx.ModelProto:
    match = re.match(r"opset (\d+)\n(.*?)\n(?=  )(.*)", text, re.S)
    assert match, text
    opset, signature, body = match.groups()
    others = ', "com.microsoft" : 1' if "com.microsoft." in body else ""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}{others}]> g {signature} {{ {body} }}'
    )
    random = np.random.default_rng(sum(map(ord, text)))
    made = {name for node in model.graph.node for name in node.output}
    for value in model.graph.value_info:
        if value.name not in made:
            dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            # Variances are positive, and so is all else here.
            weight = random.uniform(0.2, 1.2, dims).astype(dtype)
            model.graph.initializer.append(numpy_helper.from_array(weight, value.name))
    del model.graph.value_info[:]
    return model


def attribute_of(a: onnx.AttributeProto) -> Any:
    """What it holds, however that was written."""
    if a.type == a.FLOAT:
        return np.float32(a.f)
    if a.type == a.TENSOR:
        return a.t.data_type, numpy_helper.to_array(a.t).tolist()
    if a.type == a.GRAPH:
        return shape_of(a.g)
    return onnx.helper.get_attribute_value(a)


def shape_of(graph: onnx.GraphProto) -> list[tuple[Any, ...]]:
    """The nodes, whatever their values are called; constants count by their shape."""
    names = {i.name: f"input {n}" for n, i in enumerate(graph.input)}
    constants = {i.name: (i.data_type, tuple(i.dims)) for i in graph.initializer}
    outputs = [o.name for o in graph.output]
    out: list[tuple[Any, ...]] = []
    for node in graph.node:
        inputs = [names.get(i) or constants.get(i) or i for i in node.input]
        for i, name in enumerate(node.output):
            names[name] = f"{len(out)}.{i}"
        attributes = sorted((a.name, attribute_of(a)) for a in node.attribute)
        out.append((node.op_type, inputs, str(attributes)))
    return [*out, ("outputs", [names.get(o, o) for o in outputs])]


def feeds(model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    """Two drawn at random, and one of zeros, large numbers, infinities and what is not a number."""
    random = np.random.default_rng(7)
    out = []
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, 100.0, -100.0, 3.0, -3.0])
    for kind in ("small", "large", "special"):
        feed = {}
        for value in model.graph.input:
            t = value.type.tensor_type
            dims = [d.dim_value if d.HasField("dim_value") else 3 for d in t.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
            if kind == "special" and dtype in (np.float32, np.float64):
                drawn: Any = random.choice(special, dims)
            elif dtype == np.bool_:
                drawn = random.random(dims) < 0.5
            else:
                drawn = random.standard_normal(dims) * (1 if kind == "small" else 8)
            feed[value.name] = np.asarray(drawn).astype(dtype)
        out.append(feed)
    return out


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run(None, feed)


def simplify(model: onnx.ModelProto, **options: Any) -> tuple[onnx.ModelProto, dict[str, Any]]:
    result = _native.simplify(model.SerializeToString(), None, options)
    assert result["ok"], result["diagnostics"]
    after = onnx.load_from_string(result["model"])
    onnx.checker.check_model(after, full_check=True)
    assert _native.simplify(result["model"], None, options)["model"] == result["model"]
    return after, result


def same(before: onnx.ModelProto, after: onnx.ModelProto, finite: bool = False) -> None:
    half = any(i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16 for i in before.graph.input)
    for feed in feeds(before)[: 2 if finite else 3]:
        for want, got in zip(run(before, feed), run(after, feed), strict=True):
            assert want.dtype == got.dtype
            assert want.shape == got.shape
            np.testing.assert_allclose(
                got, want, rtol=2e-3 if half else 1e-5, atol=2e-3 if half else 1e-5
            )


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.rule in LISTED], ids=lambda c: f"{c.rule}: {c.title}"
)
def test_rule(case: Case) -> None:
    before = parse(case.before)
    after, result = simplify(before, only=[case.rule])
    if case.fires and not case.source:
        assert result["rules"].get(case.rule, 0) > 0, onnx.printer.to_text(after)
        assert shape_of(after.graph) == shape_of(parse(case.after).graph), onnx.printer.to_text(
            after
        )
    else:
        assert case.rule not in result["rules"], onnx.printer.to_text(after)
    same(before, after, case.finite)
    same(before, simplify(before)[0], case.finite)  # among the others


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.source], ids=lambda c: f"{c.rule}: {c.title}"
)
def test_source(case: Case, tmp_path: Path) -> None:
    model = parse(case.before)
    onnx.save(model, tmp_path / "m.onnx")
    converted = _native.convert(model.SerializeToString(), {})
    assert converted.ok, converted.diagnostics
    if case.rule not in LISTED:
        assert (converted.stats["rules"].get(case.rule, 0) > 0) == case.fires, converted.source
    for fragment in case.source:
        assert fragment in converted.source, converted.source
    converted.write(str(tmp_path / "m.py"), "")
    report = onnx2nn.verify(tmp_path / "m.onnx", tmp_path / "m.py")
    assert report.ok, report


def test_each_rule_has_cases() -> None:
    for rule in sorted((LISTED | {c.rule for c in CASES}) - SWEEPS):
        of_rule = [c for c in CASES if c.rule == rule]
        assert any(c.fires for c in of_rule), f"{rule} has no case in which it fires"
        assert any(not c.fires for c in of_rule), f"{rule} has no case in which it stays away"
    assert all(c.source for c in CASES if c.rule not in LISTED)
