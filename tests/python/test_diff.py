"""`onnx2nn diff`: what differs between two models, laid side by side."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from json_schema import conforms
from programs import SCHEMA, Run, native

Found = dict[str, Any]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _json(python: Run, code: int, *words: str) -> Found:
    got, out, err = python("diff", *words, "--json")
    assert got == code, out + err
    found: Found = json.loads(out)
    assert conforms(found, SCHEMA) == []
    if "equal" in found:
        assert found["equal"] == (code == 0)
    return found


def _network(layers: int = 3, seed: int = 0, norm: bool = True) -> onnx.ModelProto:
    """Convolutions with batch norms, each with weights of its own."""
    rng = np.random.default_rng(seed)
    nodes, weights, x = [], [], "x"

    def weight(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array(rng.random(shape, np.float32) + 0.5, name))
        return name

    for k in range(layers):
        conv = [x, weight(f"{k}.weight", 4, 4, 3, 3), weight(f"{k}.bias", 4)]
        nodes.append(h.make_node("Conv", conv, [f"c{k}"], f"/{k}/Conv", pads=[1, 1, 1, 1]))
        x = f"c{k}"
        if norm:
            values = [weight(f"{k}.{n}", 4) for n in ("scale", "shift", "mean", "var")]
            nodes.append(h.make_node("BatchNormalization", [x, *values], [f"b{k}"], f"/{k}/Norm"))
            x = f"b{k}"
        nodes.append(h.make_node("Relu", [x], [f"r{k}"], f"/{k}/Relu"))
        x = f"r{k}"
    nodes.append(h.make_node("Identity", [x], ["y"], "/out"))
    ends = [h.make_tensor_value_info(n, T.FLOAT, [1, 4, 8, 8]) for n in "xy"]
    graph = h.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with no name left as it was, and the nodes' attributes in another order."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    kept = {v.name for v in [*out.graph.input, *out.graph.output]}
    new: dict[str, str] = {}

    def name(old: str) -> str:
        return old if old in kept or not old else new.setdefault(old, f"v{len(new)}")

    for node in out.graph.node:
        node.name = f"n{len(new)}"
        node.input[:] = [name(i) for i in node.input]
        node.output[:] = [name(o) for o in node.output]
        attributes = list(node.attribute)[::-1]
        del node.attribute[:]
        node.attribute.extend(attributes)
    for w in out.graph.initializer:
        w.name = name(w.name)
    return out


def test_names_are_no_difference(python: Run) -> None:
    model = _network()
    onnx.save(model, "a.onnx")
    onnx.save(model, "b.onnx")
    found = _json(python, 0, "a.onnx", "b.onnx")
    assert found["equal_nodes"] == found["nodes_before"] == 10
    assert (found["weight_changes"], found["renamed_nodes"]) == ([], 0)
    onnx.save(_renamed(model), "b.onnx")
    found = _json(python, 0, "a.onnx", "b.onnx")
    assert found["equal_nodes"] == found["renamed_nodes"] == 10
    assert len(found["weight_changes"]) == len(model.graph.initializer)
    assert {c["what"] for w in found["weight_changes"] for c in w["changes"]} == {"name"}
    code, out, _ = python("diff", "a.onnx", "b.onnx")
    assert code == 0
    assert out.endswith("\nequal\n")


@pytest.mark.parametrize("renamed", [False, True])
def test_a_fused_model(renamed: bool, python: Run) -> None:
    model = _network()
    onnx.save(model, "a.onnx")
    assert python("simplify", "a.onnx", "b.onnx", "--no-check")[0] == 0
    if renamed:
        onnx.save(_renamed(onnx.load("b.onnx")), "b.onnx")
    found = _json(python, 1, "a.onnx", "b.onnx")
    assert found["added"] == []
    assert sorted(n["op_type"] for n in found["removed"]) == [
        *3 * ["BatchNormalization"],
        "Identity",
    ]
    groups = {tuple(r["before"]): r for r in found["replacements"]}
    assert groups["BatchNormalization",]["after"] == []
    assert groups["BatchNormalization",]["places"] == ["/0/Norm", "/1/Norm", "/2/Norm"]
    changed = {w["name"]: [c["what"] for c in w["changes"]] for w in found["weight_changes"]}
    for k in range(3):
        assert "values" in changed[f"{k}.weight"]
        assert changed[f"{k}.scale"] == ["removed"]
    code, out, _ = python("diff", "a.onnx", "b.onnx")
    assert code == 1
    assert "3 x  BatchNormalization -> (nothing)" in out
    assert "144 of 144 values differ" in out
    assert out.endswith("\ndifferent\n")


def test_every_kind_of_change_is_named(python: Run) -> None:
    model = _network()
    onnx.save(model, "a.onnx")
    graph = model.graph
    graph.node[0].attribute[0].ints[:] = [1, 1, 1, 2]
    graph.node[2].op_type = "LeakyRelu"
    halves = numpy_helper.to_array(graph.initializer[0]).astype(np.float64)
    halves[0, 0, 0, 0] += 0.25
    graph.initializer[0].CopyFrom(numpy_helper.from_array(halves, graph.initializer[0].name))
    bias = numpy_helper.to_array(graph.initializer[1]).copy()
    bias[1] += 0.5
    graph.initializer[1].CopyFrom(numpy_helper.from_array(bias, "0.bias"))
    graph.output[0].name = "z"
    graph.node[-1].output[0] = "z"
    model.opset_import[0].version = 18
    model.producer_name = "other"
    model.metadata_props.add(key="k", value="v")
    onnx.save(model, "b.onnx")
    found = _json(python, 1, "a.onnx", "b.onnx")
    assert {c["what"] for c in found["interface"]} == {
        *("output y", "output z", "opset ai.onnx", "producer", "metadata k")
    }
    conv = next(n for n in found["changed"] if n["name"] == "/0/Conv")
    change = next(c for c in conv["changes"] if c["what"] == "attribute pads")
    assert (change["before"], change["after"]) == ("[1, 1, 1, 1]", "[1, 1, 1, 2]")
    assert any(c["what"] == "output c0" for c in conv["changes"])
    assert ["Relu"] in [r["before"] for r in found["replacements"]]
    assert ["LeakyRelu"] in [r["after"] for r in found["replacements"]]
    weights = {w["name"]: w["changes"] for w in found["weight_changes"]}
    assert weights["0.weight"][0]["after"] == "float64[4, 4, 3, 3]"
    assert weights["0.bias"][0]["after"] == "1 of 4 values differ, by at most 0.5"


def test_an_attribute_at_its_default_is_none(python: Run) -> None:
    def model(opset: int, **given: Any) -> onnx.ModelProto:
        nodes = [
            h.make_node("Conv", ["x", "w"], ["c"], **given),
            h.make_node("LeakyRelu", ["c"], ["y"], "leaky"),
        ]
        ends = [h.make_tensor_value_info(n, T.FLOAT, [1, 4, 8, 8]) for n in "xy"]
        weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
        graph = h.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
        return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8)

    written = {"auto_pad": "NOTSET", "group": 1, "dilations": [1, 1], "pads": [0] * 4}
    onnx.save(model(17), "a.onnx")
    onnx.save(model(17, **written, strides=[1, 1]), "b.onnx")
    explicit = onnx.load("b.onnx")
    explicit.graph.node[1].attribute.append(h.make_attribute("alpha", 0.01))
    onnx.save(explicit, "b.onnx")
    found = _json(python, 0, "a.onnx", "b.onnx")
    assert found["equal_nodes"] == 2
    assert _json(python, 0, "b.onnx", "a.onnx")["changed"] == []
    explicit.graph.node[1].attribute[0].f = 0.2
    onnx.save(explicit, "b.onnx")
    (changed,) = _json(python, 1, "a.onnx", "b.onnx")["changed"]
    change = {"what": "attribute alpha", "before": "0.01 (default)", "after": "0.2"}
    assert changed["changes"] == [change]
    onnx.save(model(17, kernel_shape=[1, 1]), "b.onnx")
    (changed,) = _json(python, 1, "a.onnx", "b.onnx")["changed"]
    assert changed["changes"][0]["before"] == "(none)"  # the weight says it, and no schema


@pytest.mark.parametrize("axis, differs", [(1, False), (-1, True)])
def test_a_default_is_that_of_the_opset(axis: int, differs: bool, python: Run) -> None:
    def model(**given: Any) -> onnx.ModelProto:
        x, y = (h.make_tensor_value_info(n, T.FLOAT, [2, 3, 4]) for n in "xy")
        graph = h.make_graph([h.make_node("Softmax", ["x"], ["y"], "s", **given)], "g", [x], [y])
        return h.make_model(graph, opset_imports=[h.make_opsetid("", 11)], ir_version=6)

    onnx.save(model(), "a.onnx")
    onnx.save(model(axis=axis), "b.onnx")
    assert len(_json(python, int(differs), "a.onnx", "b.onnx")["changed"]) == differs


def test_a_branch_that_differs(python: Run) -> None:
    def model(op: str) -> onnx.ModelProto:
        def branch(kind: str) -> onnx.GraphProto:
            out = h.make_tensor_value_info("p", T.FLOAT, [2])
            return h.make_graph([h.make_node(kind, ["x"], ["p"], "inner")], "g", [], [out])

        node = h.make_node(
            "If", ["c"], ["y"], "if", then_branch=branch("Relu"), else_branch=branch(op)
        )
        x, y = (h.make_tensor_value_info(n, T.FLOAT, [2]) for n in "xy")
        c = h.make_tensor_value_info("c", T.BOOL, [])
        graph = h.make_graph([node], "g", [x, c], [y])
        return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)

    onnx.save(model("Abs"), "a.onnx")
    onnx.save(model("Neg"), "b.onnx")
    assert _json(python, 0, "a.onnx", "a.onnx")["equal_nodes"] == 3
    found = _json(python, 1, "a.onnx", "b.onnx")
    assert [n["op_type"] for n in found["removed"]] == ["Abs"]
    assert [n["op_type"] for n in found["added"]] == ["Neg"]


def test_nodes_in_another_order_and_values_read_twice(python: Run) -> None:
    ends = [h.make_tensor_value_info(n, T.FLOAT, [4]) for n in "xy"]
    nodes = [
        h.make_node("Relu", ["x"], ["a"]),
        h.make_node("Sigmoid", ["x"], ["b"]),
        h.make_node("Mul", ["a", "a"], ["d"]),
        h.make_node("Add", ["d", "b"], ["y"]),
    ]
    for name, order in (("a", [0, 1, 2, 3]), ("b", [1, 0, 2, 3])):
        graph = h.make_graph([nodes[i] for i in order], "g", ends[:1], ends[1:])
        opsets = [h.make_opsetid("", 17)]
        onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), f"{name}.onnx")
    assert _json(python, 0, "a.onnx", "b.onnx")["equal_nodes"] == 4


def test_what_cannot_be_read(python: Run) -> None:
    onnx.save(_network(1), "a.onnx")
    Path("bad.onnx").write_bytes(b"junk")
    found = _json(python, 3, "a.onnx", "bad.onnx")
    assert "text file" in found["error"]
    code, out, err = python("diff", "a.onnx", "none.onnx")
    assert (code, out) == (3, "")
    assert err.startswith("none.onnx: ")
    assert python("diff", "a.onnx")[0] == 2


def test_long_lists_are_cut_short(python: Run) -> None:
    onnx.save(_network(40), "a.onnx")
    onnx.save(_network(40, seed=1), "b.onnx")
    _, out, _ = python("diff", "a.onnx", "b.onnx")
    assert "and 228 more (--all)" in out
    _, every, _ = python("diff", "a.onnx", "b.onnx", "--all")
    assert "--all" not in every
    assert len(every.splitlines()) > 240


def test_one_node_among_ten_thousand(python: Run) -> None:
    """A chain, one value with many readers, and nodes that are all alike."""
    random.seed(0)
    nodes = [h.make_node("Relu", ["x"], ["v0"])]
    for k in range(1, 10_000):
        nodes.append(
            h.make_node(random.choice(["Add", "Mul", "Sub"]), [f"v{k - 1}", "x"], [f"v{k}"])
        )
    ends = [
        h.make_tensor_value_info("x", T.FLOAT, [4]),
        h.make_tensor_value_info("v9999", T.FLOAT, [4]),
    ]
    graph = h.make_graph(nodes, "g", ends[:1], ends[1:])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "a.onnx")
    model.graph.node[0].op_type = "Abs"
    onnx.save(_renamed(model), "b.onnx")
    found = _json(python, 1, "a.onnx", "b.onnx")
    assert len(found["removed"]) == len(found["added"]) == 1


def test_both_programs_show_the_same(python: Run) -> None:
    onnx.save(_network(2), "a.onnx")
    onnx.save(_network(2, norm=False), "b.onnx")
    for words in ([], ["--json"], ["-q"], ["--all"]):
        assert python("diff", "a.onnx", "b.onnx", *words) == native(
            "diff", "a.onnx", "b.onnx", *words
        )


def test_weights_that_are_not_there_are_not_said_to_differ(python: Run) -> None:
    for name in "a.onnx", "b.onnx":
        model = _network(layers=1)
        onnx.save(
            model, name, save_as_external_data=True, location=f"{name}.data", size_threshold=0
        )
    Path("b.onnx.data").unlink()
    code, out, _ = python("diff", "a.onnx", "b.onnx")
    assert code == 1
    assert "not compared, for external data are missing" in out
