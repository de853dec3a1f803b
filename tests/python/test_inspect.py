"""`onnx2nn inspect`: what is counted, against counts by hand and by ONNX's own inference."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper, parser, shape_inference

import onnx2nn
from json_schema import conforms
from onnx2nn import _native
from programs import SCHEMA, Run, native

Found = dict[str, Any]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _save(text: str, name: str = "m.onnx", **weights: np.ndarray[Any, Any]) -> onnx.ModelProto:
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text)
    for key, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    onnx.save(model, name)
    return model


def _json(run: Run, *words: str, code: int = 0) -> Found:
    got, out, err = run("inspect", *words, "--json")
    assert got == code, out + err
    assert out.isascii()
    found: Found = json.loads(out)
    assert conforms(found, SCHEMA) == []
    return found


def _f(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


# A node, what goes in, its weights, and its multiply-adds by hand.
COUNTS: list[tuple[str, str, dict[str, Any], int]] = [
    ("y = Conv<group=2>(x, w)", "2,4,10,10", {"w": _f(6, 2, 3, 3)}, 2 * 6 * 8 * 8 * 2 * 9),
    ("y = Conv<strides=[2,2]>(x, w)", "1,3,9,9", {"w": _f(8, 3, 3, 3)}, 8 * 4 * 4 * 3 * 9),
    ("y = ConvTranspose(x, w)", "2,4,5", {"w": _f(4, 3, 3)}, 2 * 4 * 5 * 3 * 3),
    ("y = MatMul(x, w)", "2,7,5", {"w": _f(5, 3)}, 2 * 7 * 5 * 3),
    ("y = MatMul(w, x)", "2,7,5", {"w": _f(7)}, 2 * 7 * 5),
    ("y = Gemm<transA=1>(x, w)", "7,5", {"w": _f(7, 3)}, 7 * 5 * 3),
    ('y = Einsum<equation="bij,jk->bik">(x, w)', "2,7,5", {"w": _f(5, 3)}, 2 * 7 * 5 * 3),
    ('y = Einsum<equation="b...j,jk->b...k">(x, w)', "2,7,5", {"w": _f(5, 3)}, -1),
    (
        "y = LSTM<hidden_size=4>(x, w, r)",
        "6,2,3",
        {"w": _f(1, 16, 3), "r": _f(1, 16, 4)},
        6 * 2 * 16 * (3 + 4),
    ),
    ("y = Relu(x)", "2,3", {}, 0),
    ("y = Add(x, w)", "2,3", {"w": _f(3)}, 0),
]


@pytest.mark.parametrize("node, shape, weights, expected", COUNTS, ids=[c[0] for c in COUNTS])
def test_multiply_adds_by_hand(
    node: str, shape: str, weights: dict[str, Any], expected: int, run: Run
) -> None:
    _save(f"g (float[{shape}] x) => (float y) {{ {node} }}", **weights)
    found = _json(run, "m.onnx", "--nodes")
    assert found["multiply_adds"] == (None if expected < 0 else expected)
    assert found["node_list"][0]["multiply_adds"] == found["multiply_adds"]
    assert found["parameters"] == sum(w.size for w in weights.values())
    assert found["weights"].get("float32", {"elements": 0})["elements"] == found["parameters"]


def test_activations_are_those_of_onnx_inference(run: Run) -> None:
    model = _save(
        """g (float[1,3,8,8] x) => (float[1,6,4,4] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)
            b = Relu(a)
            c = Add(a, b)
            y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(c)
        }""",
        w=_f(6, 3, 3, 3),
    )
    found = _json(run, "m.onnx", "--nodes")
    inferred = shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*inferred.value_info, *inferred.output]
    }
    listed = {o["name"]: o["shape"] for n in found["node_list"] for o in n["outputs"]}
    assert listed == shapes
    assert found["activation_bytes"] == sum(4 * math.prod(s) for s in shapes.values())
    whole = 4 * 6 * 8 * 8
    # While c is made, a and b are needed.
    assert found["peak_activation_bytes"] == 3 * whole
    assert found["operators"]["Conv"] == {
        "nodes": 1,
        "parameters": 6 * 27,
        "multiply_adds": 6 * 64 * 27,
        "multiply_adds_at_least": 6 * 64 * 27,
        "activation_bytes": whole,
        "activation_bytes_at_least": whole,
    }


def test_open_sizes_are_expressions_and_numbers_where_they_are_given(run: Run) -> None:
    _save("g (float[N,5] x) => (float y) { a = MatMul(x, w) y = Relu(a) }", w=_f(5, 3))
    found = _json(run, "m.onnx")
    assert (found["multiply_adds"], found["activation_bytes"]) == ("15*N", "24*N")
    assert found["peak_activation_bytes"] == "32*N"  # x and a
    found = _json(run, "m.onnx", "--input_shape", "x:4,5")
    assert (found["multiply_adds"], found["peak_activation_bytes"]) == (60, 128)


def test_expressions_are_scaled_as_numbers_are(run: Run) -> None:
    _save(
        """g (float[N,5000] x, float[3,5000] z, float[N,M] u) => (float y, float v, float q) {
            y = MatMul(x, w)
            v = MatMul(z, w)
            q = Relu(u)
        }""",
        w=_f(5000, 300),
    )
    _, out, _ = run("inspect", "m.onnx")
    lines = out.splitlines()
    assert "  multiply-adds       1.50 M * N + 4.50 M" in lines
    assert "  activations         4 bytes * M * N + 1.17 KiB * N + 3.52 KiB" in lines
    rows = [
        line for line in lines if line.startswith(("  operator", "  MatMul", "  Relu", "  all"))
    ]
    assert len({len(line) for line in rows}) == 1  # right-aligned
    # A symbol is text of the model's.
    model = onnx.load("m.onnx")
    for value in (model.graph.input[0], model.graph.input[2]):
        value.type.tensor_type.shape.dim[0].dim_param = "\x1b[31m2000000*k"
    onnx.save(model, "m.onnx")
    _, out, _ = run("inspect", "m.onnx")
    assert "1.50 M * __31m2000000_k + 4.50 M" in out
    assert "\x1b" not in out


def test_text_is_cut_between_characters(run: Run) -> None:
    model = _save("g (float[2] x) => (float y) { y = Relu(x) }")
    model.doc_string = "模型" * 100
    onnx.save(model, "m.onnx")
    _, out, _ = run("inspect", "m.onnx")
    assert f"description         {'模型' * 33}...\n" in out


@pytest.mark.parametrize("given", ["path", "bytes"])
def test_python_has_all_that_the_command_prints(given: str, run: Run) -> None:
    model = _save(
        "g (float[N,4] x, float[3] idle) => (float y) { a = MatMul(x, w) y = Relu(a) }", w=_f(4, 3)
    )
    envelope = {"command", "model", "ok", "checked", "exit_code", "error"}
    said: Any = "m.onnx" if given == "path" else model.SerializeToString()
    for nodes in (False, True):
        printed = _json(run, "m.onnx", *["--nodes"] * nodes)
        assert envelope < set(printed)
        assert onnx2nn.inspect(said, nodes=nodes) == {
            k: v for k, v in printed.items() if k not in envelope
        }
    assert onnx2nn.inspect(said, input_shapes={"x": [7, 4]})["multiply_adds"] == 7 * 12


def test_python_counts_a_model_whose_weights_are_missing() -> None:
    model = _save("g (float[2,4] x) => (float y) { y = MatMul(x, w) }", w=_f(4, 300))
    onnx.save(model, "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    Path("m.data").unlink()
    found = onnx2nn.inspect("m.onnx")
    assert found["convertible"] is False
    assert found["multiply_adds"] == 2 * 1200
    assert "missing" in found["external_files"][0]["error"]
    assert found["diagnostics"]
    Path("m.onnx").unlink()
    with pytest.raises(onnx2nn.Error):
        onnx2nn.inspect("m.onnx")


def test_what_is_not_known_is_never_a_number(run: Run) -> None:
    _save(
        """g (float[4,5] x, float[?,5] z, int64[1] k) => (float y, float u, float q) {
            y = MatMul(x, w)
            u = MatMul(z, w)
            q = Reshape(y, k)
        }""",
        w=_f(5, 3),
    )
    found = _json(run, "m.onnx")
    assert (found["multiply_adds"], found["multiply_adds_at_least"]) == (None, 60)
    assert found["activation_bytes"] is None
    assert found["peak_activation_bytes"] is None
    _, out, _ = run("inspect", "m.onnx")
    assert "? (1 part unknown; at least 60)" in out
    assert "%" not in out
    # Operators that nobody knows.
    node = h.make_node("Magic", ["x"], ["y"], domain="custom")
    x, y = (h.make_tensor_value_info(n, T.FLOAT, [2]) for n in "xy")
    opsets = [h.make_opsetid("", 17), h.make_opsetid("custom", 1)]
    onnx.save(
        h.make_model(h.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=8),
        "u.onnx",
    )
    found = _json(run, "u.onnx", code=1)
    assert found["multiply_adds"] is None
    assert found["inputs"][0]["shape"] == [2]


def test_nested_graphs_count_as_often_as_they_run(run: Run) -> None:
    same = """g (float[2,4] x, bool c) => (float y) {
        y = If(c) <
            then_branch = a () => (float p) { p = MatMul(x, w) },
            else_branch = b () => (float q) { r = Relu(x) q = MatMul(r, w) }
        >
    }"""
    _save(same, w=_f(4, 3))
    found = _json(run, "m.onnx")
    assert found["multiply_adds"] == 2 * 4 * 3
    assert found["operators"]["MatMul"]["multiply_adds"] == 2 * 4 * 3
    _save(same.replace("r = Relu(x)", "r = MatMul(x, v)"), w=_f(4, 3), v=_f(4, 4))
    assert _json(run, "m.onnx")["multiply_adds"] is None
    _save(
        """g (float[7,2,4] x, float[2,3] s) => (float z, float y) {
            z, y = Scan<num_scan_inputs=1, body = b (float[2,3] i, float[2,4] e)
                => (float[2,3] o, float[2,3] p) { m = MatMul(e, w) o = Add(i, m) p = Relu(o) }
            >(s, x)
        }""",
        w=_f(4, 3),
    )
    assert _json(run, "m.onnx")["multiply_adds"] == 7 * 2 * 4 * 3


def test_unused_values_and_metadata(run: Run) -> None:
    model = _save("g (float[2] x, float[3] idle) => (float y) { y = Relu(x) }", w=_f(9), v=_f(2))
    model.producer_name, model.producer_version = "maker\x1b[31m", "1.2"
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, "m.onnx")
    found = _json(run, "m.onnx")
    assert found["unused_inputs"] == ["idle"]
    assert found["unused_initializers"] == ["w", "v"]
    assert found["metadata"] == {"author": "somebody"}
    assert found["producer_version"] == "1.2"
    assert found["parameters"] == 11
    _, out, _ = run("inspect", "m.onnx")
    assert "unused inputs       idle" in out
    assert "unused initialisers w, v" in out
    assert "author: somebody" in out
    assert "\x1b" not in out


def test_missing_external_data_is_listed_with_its_size(run: Run) -> None:
    model = _save(
        "g (float[2,4] x) => (float y) { a = MatMul(x, w) y = MatMul(a, v) }",
        w=_f(4, 300),
        v=_f(300, 3),
    )
    onnx.save(model, "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    size = Path("m.data").stat().st_size
    found = _json(run, "m.onnx")
    (file,) = found["external_files"]
    assert (file["location"], file["tensors"], file["size"]) == ("m.data", 2, size)
    assert (file["expected_size"], file["error"]) == (size, None)
    Path("m.data").write_bytes(b"x" * 100)
    (file,) = _json(run, "m.onnx", code=3)["external_files"]
    assert (file["size"], file["expected_size"]) == (100, size)
    assert "bytes" in file["error"]
    Path("m.data").unlink()
    found = _json(run, "m.onnx", code=3)
    (file,) = found["external_files"]
    assert (file["size"], file["expected_size"]) == (None, size)
    assert "missing" in file["error"]
    assert found["parameters"] == 300 * 7  # what the file itself says is known all the same
    assert found["multiply_adds"] == 2 * 300 * 7
    code, out, err = run("inspect", "m.onnx")
    assert code == 3
    assert "m.data: MISSING" in out
    assert "--data-root" in err


def test_blocks_are_the_modules_of_the_author(run: Run) -> None:
    model = _save(
        "g (float[2,4] x) => (float y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }",
        w=_f(4, 4),
        v=_f(4, 4),
    )
    names = ["/encoder/layer.0/MatMul", "/encoder/layer.0/act/Relu", "/head/MatMul"]
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    onnx.save(model, "m.onnx")
    found = _json(run, "m.onnx")
    blocks = {b["path"]: b for b in found["blocks"]}
    assert list(blocks) == ["encoder", "encoder.layer.0", "encoder.layer.0.act", "head"]
    assert blocks["encoder"]["multiply_adds"] == 2 * 16
    assert blocks["encoder"]["parameters"] == 16
    assert blocks["head"]["nodes"] == 1


def test_without_scopes_blocks_are_those_of_the_weights(run: Run) -> None:
    names = ["layer1.0.conv.weight", "layer1.0.fc.weight", "head.weight", "onnx::MatMul_7", "w.1"]
    model = _save(
        "g (float[2,4] x) => (float y) {"
        " a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = MatMul(c, s) e = MatMul(d, t)"
        " y = MatMul(e, r) }",
        **{k: _f(4, 4) for k in "uvstr"},
    )
    matmuls = [n for n in model.graph.node if n.op_type == "MatMul"]
    for node, weight, name in zip(matmuls, model.graph.initializer, names, strict=True):
        node.input[1] = weight.name = name
    onnx.save(model, "m.onnx")
    blocks = {b["path"]: b["multiply_adds"] for b in _json(run, "m.onnx")["blocks"]}
    assert blocks == {
        "layer1": 64,
        "layer1.0": 64,
        "layer1.0.conv": 32,
        "layer1.0.fc": 32,
        "head": 32,
    }
    # Where nodes tell of modules, they do.
    model.graph.node[1].name = "/act/Relu"
    onnx.save(model, "m.onnx")
    assert [b["path"] for b in _json(run, "m.onnx")["blocks"]] == ["act"]


def test_several_stand_side_by_side(run: Run) -> None:
    _save("g (float[2,4] x) => (float y) { y = MatMul(x, w) }", w=_f(4, 3))
    Path("sub").mkdir()
    _save("g (float[2,4] x) => (float y) { y = Relu(x) }", "sub/m.onnx")
    Path("bad.onnx").write_bytes(b"junk")
    code, out, err = run("inspect", "m.onnx", "sub/m.onnx", "bad.onnx")
    assert code == 3
    assert "text file" in err
    head, *lines = out.splitlines()
    assert head.split() == ["m.onnx", "sub/m.onnx", "bad.onnx"]
    rows = {line[:16].strip(): line.split() for line in lines}
    assert rows["MatMul"][1:] == ["1"]
    assert rows["convertible"][1:] == ["yes", "yes", "unreadable"]
    assert rows["parameters"][1:] == ["12", "0"]
    found = _json(run, "m.onnx", "sub/m.onnx", "bad.onnx", code=3)
    assert [m["exit_code"] for m in found["models"]] == [0, 0, 3]
    assert found["models"][1]["op_types"] == {"Relu": 1}


def _narrow(*words: str) -> list[str]:
    """The lines for a terminal of 60 columns."""
    return _native.answer([w.encode() for w in words], 60)[1].splitlines()


def test_a_narrow_terminal_keeps_names_and_the_beginnings_of_sums() -> None:
    model = _save(
        "g (float[batch,sequence,4000] x, float[9,4000] z) => (float y, float v) {"
        " y = MatMul(x, w) v = MatMul(z, w) }",
        w=_f(4000, 300),
    )
    for node, name in zip(model.graph.node, ["query", "key"], strict=True):
        node.name = f"/encoder/layer.0/attention/{name}/MatMul"
    onnx.save(model, "m.onnx")
    lines = _narrow("inspect", "m.onnx")
    (row,) = (line for line in lines if line.startswith("  MatMul "))
    assert row.endswith("  1.20 M * batch..  1.17 KiB ..")
    (at,) = (i for i, line in enumerate(lines) if line.startswith("  block"))
    # Each under the one around it, without that one's name.
    names = [line[:16].rstrip() for line in lines[at + 1 : at + 6]]
    assert names == ["  encoder", "   layer.0", "    attention", "     query", "     key"]
    assert max(map(len, lines[at:])) <= 60


def test_side_by_side_in_a_narrow_terminal() -> None:
    names = ["a_first_network.onnx", "a_second_network.onnx", "a_third_network.onnx"]
    for name, op in zip(names, ["Abs", "Relu", "Neg"], strict=True):
        _save(f"g (float[2,4] x) => (float y) {{ y = {op}(x) }}", name)
    lines = _narrow("inspect", *names)
    assert max(map(len, lines)) <= 60
    head = [line.split() for line in lines if line.endswith("k.onnx")]
    assert head == [names[:2], names[2:]]
    # Rows that none of the models beside each other has are left out.
    assert sum(line.startswith("  Neg") for line in lines) == 1


def test_blocks_beyond_what_is_shown_are_counted(run: Run) -> None:
    model = _save("g (float[2] x) => (float y) { y = Relu(x) }")
    del model.graph.node[:]
    for k in range(100):
        at, out = (f"v{k - 1}" if k else "x"), (f"v{k}" if k < 99 else "y")
        model.graph.node.append(h.make_node("Relu", [at], [out], f"/block{k}/act/Relu"))
    onnx.save(model, "m.onnx")
    assert "  and 20 more (--json)\n" in run("inspect", "m.onnx")[1]


def test_both_programs_show_the_same(python: Run) -> None:
    _save("g (float[N,4] x) => (float y) { y = MatMul(x, w) }", w=_f(4, 3))
    for words in (["m.onnx"], ["m.onnx", "--nodes"], ["m.onnx", "m.onnx"], ["m.onnx", "--json"]):
        assert python("inspect", *words) == native("inspect", *words)


def test_deeply_nested_branches_take_no_time(run: Run) -> None:
    # Each level asks twice how much work its branches are.
    def graph(depth: int) -> onnx.GraphProto:
        out = h.make_tensor_value_info(f"o{depth}", T.FLOAT, None)
        if depth == 0:
            return h.make_graph([h.make_node("MatMul", ["x", "x"], ["o0"])], "g", [], [out])
        node = h.make_node(
            "If",
            ["c"],
            [f"o{depth}"],
            then_branch=graph(depth - 1),
            else_branch=h.make_graph(
                [h.make_node("MatMul", ["x", "x"], ["e"])],
                "e",
                [],
                [h.make_tensor_value_info("e", T.FLOAT, None)],
            ),
        )
        return h.make_graph([node], "g", [], [out])

    inside = graph(30)
    inside.input.append(h.make_tensor_value_info("x", T.FLOAT, [2, 2]))
    inside.input.append(h.make_tensor_value_info("c", T.BOOL, []))
    onnx.save(h.make_model(inside, opset_imports=[h.make_opsetid("", 17)], ir_version=8), "m.onnx")
    code, out, _ = run("inspect", "m.onnx", "--json", "--no-simplify")
    assert code in (0, 1)
    assert json.loads(out)["multiply_adds"] == 8


def test_a_long_name_is_not_paid_for_in_each_row(run: Run) -> None:
    nodes = [h.make_node("Relu", [f"v{k}"], [f"v{k + 1}"], name=f"n{k}") for k in range(300)]
    nodes[7].name = "long" * 20_000
    ports = [[h.make_tensor_value_info(name, T.FLOAT, [2])] for name in ("v0", "v300")]
    onnx.save(h.make_model(h.make_graph(nodes, "g", *ports), ir_version=8), "long.onnx")
    code, out, _ = run("inspect", "long.onnx", "--nodes")
    assert code == 0
    assert nodes[7].name in out
    assert len(out) < 4 * len(nodes[7].name)


def test_what_is_refused_is_said_in_the_same_words_everywhere(run: Run) -> None:
    """Of which file it is too, and with the same code: a model that can be read is not unreadable."""
    Path("in").mkdir()
    _save("g (float[2,3] x) => (float[2,3] y) {y = MatMul(x, w)}", "in/m.onnx", w=_f(5, 5))
    for words in ["inspect", "in/m.onnx"], ["convert", "in/m.onnx", "net.py"]:
        code, _, err = run(*words)
        assert code == 1, err
        said = "in/m.onnx: error[bad-model]: MatMul: shapes [2, 3] and [5, 5] do not multiply\n"
        assert err.startswith(said), err


@pytest.mark.parametrize("command", ["inspect", "convert", "simplify", "diff"])
def test_an_error_is_a_line_in_json(command: str, run: Run) -> None:
    models = ["none.onnx"] * (1 + (command == "diff"))
    code, out, _ = run(command, *models, "--json")
    assert code == 3
    error = json.loads(out)["error"]
    assert error.startswith("none.onnx: ")
    assert "\n" not in error
