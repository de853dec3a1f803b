"""Strings of a model that try to be code, in every place that holds a string."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onnx2nn.loading
from hostile_names import HOSTILE, check_source
from onnx2nn import _native


def convert(model: onnx.ModelProto, simplify: bool = True, **options: Any) -> None:
    """Converts; the model may be refused, but not by a crash, and what is emitted is sound."""
    conversion = _native.convert(model.SerializeToString(), {"simplify": simplify, **options})
    for d in conversion.diagnostics:
        assert d["code"] != "internal", d["message"]
    text = conversion.diagnostics_text
    assert "\x1b" not in text
    assert "\x00" not in text
    if conversion.ok:
        check_source(conversion.source, conversion.class_name)
        onnx2nn.loading.build(conversion)


def base(s: str) -> onnx.ModelProto:
    """A model whose every name is made of `s`, each a different one."""
    names = {n: f"{s}{n}" if n != "x" else s for n in ("x", "w", "b", "h", "k", "y", "g")}
    graph = h.make_graph(
        [
            h.make_node("Conv", [names["x"], names["w"], names["b"]], [names["h"]], name=s),
            h.make_node("Mul", [names["h"], names["k"]], [names["g"]], name=s + s, doc_string=s),
            h.make_node("Relu", [names["g"]], [names["y"]], name=s),
        ],
        s,
        [h.make_tensor_value_info(names["x"], T.FLOAT, [s, 3, 8, f"{s}w"])],
        [h.make_tensor_value_info(names["y"], T.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), names["w"]),
            numpy_helper.from_array(np.ones(4, np.float32), names["b"]),
            numpy_helper.from_array(np.ones((4, 1, 1), np.float32), names["k"]),
        ],
        doc_string=s,
    )
    model = h.make_model(graph, producer_name=s, producer_version=s, doc_string=s, domain=s)
    model.ir_version = 8
    model.opset_import[0].version = 17
    h.set_model_props(model, {s: s})
    return model


def rename(change: Callable[[onnx.ModelProto, str], None]) -> Callable[[str], onnx.ModelProto]:
    def build(s: str) -> onnx.ModelProto:
        model = base("plain")
        change(model, s)
        return model

    return build


def string_constant(s: str) -> onnx.ModelProto:
    """A constant of strings, compared with the input."""
    value = numpy_helper.from_array(np.array([s, s + "2"], dtype=object), s)
    nodes = [
        h.make_node("Constant", [], ["c"], value=value),
        h.make_node("StringConcat", ["x", "c"], ["y"]),
    ]
    info = [h.make_tensor_value_info(n, T.STRING, [2]) for n in "xy"]
    graph = h.make_graph(nodes, "g", info[:1], info[1:])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=9)


def string_attributes(s: str) -> onnx.ModelProto:
    """Strings as attributes of operators that take them."""
    nodes = [
        h.make_node("StringNormalizer", ["x"], ["n"], stopwords=[s, "b"], locale="en_US"),
        h.make_node("RegexFullMatch", ["n"], ["m"], pattern=s),
        h.make_node("StringSplit", ["x"], ["p", "q"], delimiter=s),
        h.make_node(
            "LabelEncoder",
            ["x"],
            ["l"],
            domain="ai.onnx.ml",
            keys_strings=[s],
            values_strings=[s],
            default_string=s,
        ),
    ]
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", T.STRING, [2])],
        [
            h.make_tensor_value_info("m", T.BOOL, None),
            h.make_tensor_value_info("p", T.STRING, None),
            h.make_tensor_value_info("l", T.STRING, [2]),
        ],
    )
    opsets = [h.make_opsetid("", 20), h.make_opsetid("ai.onnx.ml", 4)]
    return h.make_model(graph, opset_imports=opsets, ir_version=9)


def operator_names(s: str) -> onnx.ModelProto:
    """Types, domains and attribute names that nobody knows."""
    node = h.make_node(s, ["x"], ["y"], domain=s)
    node.attribute.append(h.make_attribute(s or "a", s))
    graph = h.make_graph(
        [node],
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, [2])],
        [h.make_tensor_value_info("y", T.FLOAT, [2])],
    )
    return h.make_model(
        graph, opset_imports=[h.make_opsetid("", 17), h.make_opsetid(s, 1)], ir_version=8
    )


def metadata(model: onnx.ModelProto, s: str) -> None:
    for node in model.graph.node:
        for key in ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy", "namespace", s):
            node.metadata_props.add(key=key, value=f"['', '{s}', '{s}.{s}']")


def kinds(s: str) -> dict[str, onnx.ModelProto]:
    return {
        "everywhere": base(s),
        "metadata": rename(metadata)(s),
        "string constant": string_constant(s),
        "string attributes": string_attributes(s),
        "operator": operator_names(s),
    }


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_no_string_becomes_code(index: int) -> None:
    for model in kinds(HOSTILE[index]).values():
        for simplify in (True, False):
            convert(model, simplify)
    convert(operator_names(HOSTILE[index]), allow_unknown=True)
    convert(base(HOSTILE[index]), trace=False, comments_origin=True)


def test_bytes_that_are_no_text() -> None:
    """Names that are not UTF-8, which protobuf's own library would not write."""
    data = base("plain").SerializeToString().replace(b"plain", b"\xff\xfe\x80\xc0\xaf")
    conversion = _native.convert(data, {})
    assert all(d["code"] != "internal" for d in conversion.diagnostics)
    assert isinstance(conversion.diagnostics_text, str)
    if conversion.ok:
        check_source(conversion.source, conversion.class_name)


@pytest.mark.parametrize("option", ["class_name", "weights_name"])
@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_names_of_files(option: str, index: int) -> None:
    """A class is named after a file, whose name may be anything."""
    try:
        conversion = _native.convert(base("plain").SerializeToString(), {option: HOSTILE[index]})
    except (TypeError, ValueError):
        return
    if conversion.ok:
        check_source(conversion.source, conversion.class_name)
