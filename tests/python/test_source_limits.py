"""Source that Python's compiler takes, whichever version: it limits nests, and names."""

import ast
import io
import itertools
import tokenize
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onnx2nn.loading
from onnx2nn import _native

# Python 3.10 to 3.13 take 200 brackets, 20 loops, 98 blocks, and expressions of 1,490 levels.
_BRACKETS, _LOOPS, _BLOCKS, _LEVELS = 150, 15, 90, 150


def levels(tree: ast.AST, kinds: tuple[type, ...], stop: tuple[type, ...] = ()) -> int:
    """How deep nodes of these kinds lie inside each other; nodes of `stop` count anew."""
    deepest = 0
    todo = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        depth = 0 if isinstance(node, stop) else depth + isinstance(node, kinds)
        deepest = max(deepest, depth)
        todo += [(child, depth) for child in ast.iter_child_nodes(node)]
    return deepest


def check_limits(source: str) -> None:
    """What is far from any limit of any Python."""
    tree = ast.parse(source)
    compile(source, "model.py", "exec")
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            assert depth <= _BRACKETS
    assert levels(tree, (ast.expr,), (ast.stmt,)) <= _LEVELS
    assert levels(tree, (ast.For, ast.While), (ast.FunctionDef,)) <= _LOOPS
    assert levels(tree, (ast.stmt,)) <= _BLOCKS


def net_of(model: onnx.ModelProto | bytes, **options: Any) -> torch.nn.Module:
    """The module of a model, simplified and not; its source keeps the limits."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    for simplify in (False, True):
        conversion = _native.convert(data, {"simplify": simplify, **options})
        assert conversion.ok, conversion.diagnostics_text
        check_limits(conversion.source)
    return onnx2nn.loading.build(conversion)


def model_of(graph: onnx.GraphProto, opset: int = 17) -> onnx.ModelProto:
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8)


def value(name: str, shape: list[int] | None, dtype: int = T.FLOAT) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, dtype, shape)


# Graphs inside each other as bytes: protobuf's own library stops at 33 levels.


def field(number: int, data: bytes) -> bytes:
    """A field of the wire format that holds bytes or a message."""
    size = len(data)
    length = bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def graph_of(
    nodes: list[bytes], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> bytes:
    rest = h.make_graph([], "g", inputs, outputs)
    return b"".join(field(1, n) for n in nodes) + rest.SerializeToString()


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> bytes:
    """A node; attributes that are bytes are graphs."""
    graphs = {k: v for k, v in attributes.items() if isinstance(v, bytes)}
    plain = {k: v for k, v in attributes.items() if k not in graphs}
    out = h.make_node(op_type, inputs, outputs, **plain).SerializeToString()
    for name, graph in graphs.items():
        attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.GRAPH)
        out += field(5, attribute.SerializeToString() + field(6, graph))
    return out


def nested_if(level: int, count: int) -> list[bytes]:
    """y{level} = x plus one for each level and one more, or -x."""
    y = f"y{level}"
    if level == count:
        return [node("Add", ["x", "one"], [y])]
    inner = [*nested_if(level + 1, count), node("Add", [f"y{level + 1}", "one"], [f"t{level}"])]
    then = graph_of(inner, [], [value(f"t{level}", [2])])
    other = graph_of([node("Neg", ["x"], [f"e{level}"])], [], [value(f"e{level}", [2])])
    return [node("If", ["c"], [y], then_branch=then, else_branch=other)]


def nested_loop(level: int, count: int) -> list[bytes]:
    """y{level}: one more for each turn of the innermost loop, and the numbers of all turns."""
    start = "x" if level == 0 else f"a{level - 1}"
    y = f"y{level}"
    if level == count:
        return [node("Add", [start, "one"], [y])]
    nodes = [
        *nested_loop(level + 1, count),
        node("Cast", [f"i{level}"], [f"f{level}"], to=T.FLOAT),
        node("Add", [f"y{level + 1}", f"f{level}"], [f"b{level}"]),
        node("Identity", [f"k{level}"], [f"l{level}"]),
    ]
    body = graph_of(
        nodes,
        [value(f"i{level}", [], T.INT64), value(f"k{level}", [], T.BOOL), value(f"a{level}", [2])],
        [value(f"l{level}", [], T.BOOL), value(f"b{level}", [2])],
    )
    turns = "twice" if count - level <= 3 else "once"
    return [node("Loop", [turns, "c", start], [y], body=body)]


def nested_scan(level: int, count: int, opset: int) -> list[bytes]:
    """y{level}: x plus one; each level takes axes of one element away and puts them back."""
    start = "x" if level == 0 else f"a{level - 1}"
    y = f"y{level}"
    if level == count:
        return [node("Add", [start, "one"], [y])]
    # The step's slice lacks the axis of the sequence; in opset 8 also that of the batch.
    axes = [0, 1] if opset == 8 else [0]
    nodes = [
        node("Unsqueeze", [f"s{level}"], [f"a{level}"], axes=axes),
        *nested_scan(level + 1, count, opset),
        node("Squeeze", [f"y{level + 1}"], [f"b{level}"], axes=axes),
    ]
    body = graph_of(nodes, [value(f"s{level}", [2])], [value(f"b{level}", [2])])
    inputs = ["", start] if opset == 8 else [start]
    return [node("Scan", inputs, [y], body=body, num_scan_inputs=1)]


def nest(kind: str, count: int) -> bytes:
    constants = [
        numpy_helper.from_array(np.ones(2, np.float32), "one"),
        numpy_helper.from_array(np.array(1, np.int64), "once"),
        numpy_helper.from_array(np.array(2, np.int64), "twice"),
    ]
    opset, shape = {"Scan": (11, [1, 2]), "Scan of opset 8": (8, [1, 1, 2])}.get(kind, (17, [2]))
    inputs = [value("x", shape)]
    if kind == "If":
        nodes = nested_if(0, count)
    elif kind == "Loop":
        nodes = nested_loop(0, count)
    else:
        nodes = nested_scan(0, count, opset)
    if opset == 17:
        inputs.append(value("c", [], T.BOOL))
    model = model_of(h.make_graph([], "g", inputs, [value("y0", shape)], constants), opset)
    graph = b"".join(field(1, n) for n in nodes) + model.graph.SerializeToString()
    model.ClearField("graph")
    return model.SerializeToString() + field(7, graph)


@pytest.mark.parametrize("count", [25, 45])
def test_nested_ifs(count: int) -> None:
    net = net_of(nest("If", count))
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(net(x, torch.tensor(True)), x + count + 1)
    assert torch.equal(net(x, torch.tensor(False)), -x)


@pytest.mark.parametrize("count", [11, 12, 13, 25, 45])
def test_nested_loops(count: int) -> None:
    """Three of the loops turn twice: eight additions of one, and seven numbers of turns."""
    net = net_of(nest("Loop", count))
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(net(x, torch.tensor(True)), x + 8 + 4 + 2 + 1)
    assert torch.equal(net(x, torch.tensor(False)), x)


@pytest.mark.parametrize("kind", ["Scan", "Scan of opset 8"])
def test_nested_scans(kind: str) -> None:
    shape = [1, 2] if kind == "Scan" else [1, 1, 2]
    x = torch.ones(shape)
    assert torch.equal(net_of(nest(kind, 25))(x), x + 1)


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan"])
def test_nests_without_end(kind: str) -> None:
    conversion = _native.convert(nest(kind, 60), {})
    assert not conversion.ok
    assert "nested too deeply" in conversion.diagnostics_text


@pytest.mark.parametrize("count", [2, 30, 220])
@pytest.mark.parametrize("op_type", ["Max", "Sum", "Mean", "Concat"])
def test_operands(op_type: str, count: int) -> None:
    names = [f"x{i}" for i in range(count)]
    attributes = {"axis": 0} if op_type == "Concat" else {}
    graph = h.make_graph(
        [h.make_node(op_type, names, ["y"], **attributes)],
        "g",
        [value(n, [2]) for n in names],
        [value("y", None)],
    )
    net = net_of(model_of(graph))
    x = [torch.full((2,), float(i)) for i in range(count)]
    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "Max": lambda s: s.amax(0),
        "Sum": lambda s: s.sum(0),
        "Mean": lambda s: s.mean(0),
        "Concat": lambda s: s.flatten(),
    }
    torch.testing.assert_close(net(*x), found[op_type](torch.stack(x)))


def test_many_inputs_and_outputs() -> None:
    names = [f"x.{i}" for i in range(300)]
    nodes = [h.make_node("Relu", [n], [f"y.{i}"]) for i, n in enumerate(names)]
    graph = h.make_graph(
        nodes,
        "g",
        [value(n, [1]) for n in names],
        [value(f"y.{i}", [1]) for i in range(300)],
    )
    out = net_of(model_of(graph))(*(torch.tensor([float(i)]) for i in range(300)))
    assert [float(y) for y in out] == list(range(300))


@pytest.mark.parametrize("op_type", ["Add", "Relu"])
def test_long_chain(op_type: str) -> None:
    """Thousands of nodes, each the only reader of the one before."""
    names = ["x", *(f"v{i}" for i in range(2000))]
    extra = [] if op_type in ("Relu", "Neg") else ["x"]
    nodes = [h.make_node(op_type, [a, *extra], [b]) for a, b in itertools.pairwise(names)]
    graph = h.make_graph(nodes, "g", [value("x", [1])], [value(names[-1], [1])])
    conversion = _native.convert(model_of(graph).SerializeToString(), {"simplify": False})
    assert conversion.ok
    check_limits(conversion.source)


def test_names_that_become_one() -> None:
    """Inputs that nobody reads have names of their own too."""
    names = ["u.a", "u/a", "u-a", "u_a", "U.A", "ﬁ", "fi"]
    graph = h.make_graph(
        [h.make_node("Relu", ["x"], ["y"])],
        "g",
        [value(n, [1]) for n in ["x", *names]],
        [value("y", [1])],
    )
    net = net_of(model_of(graph))
    assert float(net(torch.ones(1), *(torch.zeros(1) for _ in names))) == 1


def test_type_of_an_operator_is_no_code() -> None:
    """Variables without a name of their own are called after the operator."""
    nodes = [
        h.make_node("x=1;import os;y", ["x"], ["1"], domain="d"),
        *(h.make_node("Relu", ["x"], [str(i)]) for i in range(2, 6)),
        h.make_node("Sum", ["1", "2", "3", "4", "5"], ["y"]),
    ]
    graph = h.make_graph(nodes, "g", [value("x", [2])], [value("y", [2])])
    model = model_of(graph)
    model.opset_import.add(domain="d", version=1)
    conversion = _native.convert(model.SerializeToString(), {"allow_unknown": True})
    assert conversion.ok
    check_limits(conversion.source)
    tree = ast.parse(conversion.source)
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import)]
    assert [ast.unparse(n) for n in imported] in (
        ["import torch.nn.functional as F"],
        ["import torch", "import torch.nn.functional as F"],
    )


@pytest.mark.parametrize(
    "name", ["__debug__", "__x", "None", "outputs", "name", "values", "attributes", "match", "self"]
)
def test_attributes_of_unknown_operators(name: str) -> None:
    unknown = h.make_node("Op", ["x"], ["y"], domain="d")
    for _ in range(2):
        unknown.attribute.append(h.make_attribute(name, 1))
    graph = h.make_graph([unknown], "g", [value("x", [2])], [value("y", [2])])
    model = model_of(graph)
    model.opset_import.add(domain="d", version=1)
    conversion = _native.convert(model.SerializeToString(), {"allow_unknown": True})
    if not conversion.ok:
        assert all(d["code"] != "internal" for d in conversion.diagnostics)
        return
    check_limits(conversion.source)
    net = onnx2nn.loading.build(conversion)
    with pytest.raises(NotImplementedError, match="d::Op"):
        net(torch.ones(2))


def test_reserved_names_of_this_torch() -> None:
    """The table knows what the installed torch has: else run tools/gen_reserved_names.py."""
    here = torch.nn.ModuleDict({"0": torch.nn.ModuleList()})
    names = {*dir(here), *dir(here["0"]), *dir(torch.nn.Module())} - {"0"}
    taken = [n for n in sorted(names) if not net_with(f"block.{n}.weight", "block.0.bias")]
    assert not taken


@pytest.mark.parametrize("name", ["register_full_backward_pre_hook", "pop", "keys", "forward"])
def test_weight_called_like_a_method(name: str) -> None:
    assert net_with(f"{name}.weight", f"{name}.bias")
    assert net_with(f"a.{name}", "a.0.w")
    assert net_with("a.0.w", f"a.{name}")
    assert net_with("a.0.w", f"a.{name}.w")


def test_keys_stay_where_they_can() -> None:
    """Only an nn.ModuleDict has `keys`; a module of an attention may be called so."""
    net = net_with("attention.keys.w", "attention.values.w")
    assert net is not None
    assert set(net.state_dict()) == {"attention.keys.w", "attention.values.w"}


def net_with(*weights: str) -> torch.nn.Module | None:
    """A module that adds these weights to its input; None where it does not."""
    nodes = []
    last = "x"
    for i, name in enumerate(weights):
        nodes.append(h.make_node("Add", [last, name], [f"v{i}"]))
        last = f"v{i}"
    graph = h.make_graph(
        nodes,
        "g",
        [value("x", [2])],
        [value(last, [2])],
        [
            numpy_helper.from_array(np.full(2, i + 1, np.float32), name)
            for i, name in enumerate(weights)
        ],
    )
    conversion = _native.convert(model_of(graph).SerializeToString(), {"simplify": False})
    if not conversion.ok:
        return None
    net = onnx2nn.loading.build(conversion)
    expected = torch.ones(2) + sum(range(1, len(weights) + 1))
    return net if torch.equal(net(torch.ones(2)), expected) else None
