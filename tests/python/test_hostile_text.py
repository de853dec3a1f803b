"""Text of a model that tries to steer what reads it: a terminal, JSON, Python, in every place."""

import contextlib
import io
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from hostile_names import HOSTILE, check_source
from onnx2nn import _native
from onnx2nn.cli import main
from programs import PROGRAM

# Every pair of a place and a text: by hand.
EVERY = os.environ.get("ONNX2NN_HOSTILE") == "all"

# Long enough to be found in the file, and to be replaced by as many bytes.
_LENGTH = 48
_MARK = "m{:02}" + "_" * (_LENGTH - 3)

STEERING = [
    b"\x1b[2J\x1b]0;title\x07",
    b"\x9b31m",
    "\u009b31m\u0085\u0080".encode(),
    "\u202eevil\u202c\u2066\u2069".encode(),
    "\u200b\u200d\ufeff\u00ad".encode(),
    "\u2028\u2029".encode(),
    "\u05d0\u0627".encode(),
    b"\r\n\t\x00\x7f\x08",
    b"\xff\xfe\x80\xc0\xaf",
    b"\xed\xa0\x80\xed\xb2\x80",
    b"\xf4\x90\x80\x80",
    b"\xf0\x9f\x98",
    "\U000e0001\U0001f40d\ue000".encode(),
]
TEXTS = STEERING + [s.encode("utf-8", "surrogatepass") for s in HOSTILE if len(s) < 40]


def marked_model() -> tuple[bytes, list[bytes]]:
    """A model with a mark in each place that holds a string, and the marks."""
    marks: list[bytes] = []

    def mark() -> str:
        marks.append(_MARK.format(len(marks)).encode())
        return marks[-1].decode()

    x, w, out, size = mark(), mark(), mark(), mark()
    domain, unknown = mark(), mark()
    inner_graph = h.make_graph(
        [h.make_node("Neg", [x], ["inner"], name=mark())], mark(), [], [_value("inner", [size])]
    )
    other = h.make_graph(
        [h.make_node("Identity", [x], ["other"])], "other", [], [_value("other", [size])]
    )
    nodes = [
        h.make_node("Greater", ["sum", "limit"], ["c"]),
        h.make_node("If", ["c"], ["branch"], then_branch=inner_graph, else_branch=other),
        h.make_node(unknown, ["branch"], ["u"], name=mark(), domain=domain, doc_string=mark()),
        h.make_node("Mul", ["u", w], [out], name=mark()),
        h.make_node(mark(), [x], ["call"], domain=mark()),
        h.make_node("Relu", [x], [mark()]),
        h.make_node("StringConcat", ["text", "strings"], ["joined"]),
    ]
    nodes.insert(0, h.make_node("ReduceSum", [x], ["sum"], keepdims=0))
    for name in (mark(), "plain"):
        nodes[3].attribute.append(h.make_attribute(name, [mark(), "b"]))
    nodes[3].metadata_props.add(key=mark(), value=mark())
    strings = numpy_helper.from_array(np.array([mark()], dtype=object), "strings")
    weight = numpy_helper.from_array(np.ones(2, np.float32), w)
    weight.doc_string = mark()
    graph = h.make_graph(
        nodes,
        mark(),
        [_value(x, [size]), h.make_tensor_value_info("text", T.STRING, [1])],
        [
            _value(out, None),
            _value("call", None),
            h.make_tensor_value_info("joined", T.STRING, [1]),
        ],
        [weight, strings, numpy_helper.from_array(np.zeros((), np.float32), "limit")],
        doc_string=mark(),
    )
    graph.input[0].doc_string = mark()
    function_input = mark()
    function = h.make_function(
        nodes[5].domain,
        nodes[5].op_type,
        [function_input],
        ["result"],
        [h.make_node(mark(), [function_input], ["result"], domain=domain, name=mark())],
        [h.make_opsetid("", 20), h.make_opsetid(domain, 1)],
    )
    function.doc_string = mark()
    model = h.make_model(
        graph,
        producer_name=mark(),
        producer_version=mark(),
        domain=mark(),
        doc_string=mark(),
        functions=[function],
        opset_imports=[
            h.make_opsetid("", 20),
            h.make_opsetid(domain, 1),
            h.make_opsetid(nodes[5].domain, 1),
        ],
        ir_version=10,
    )
    h.set_model_props(model, {mark(): mark()})
    return model.SerializeToString(), marks


def external_model() -> tuple[bytes, list[bytes]]:
    """A weight in another file, of a marked name, which is not there."""
    place = _MARK.format(90).encode()
    tensor = onnx.TensorProto(
        name="w", data_type=T.FLOAT, dims=[2], data_location=onnx.TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=place.decode())
    graph = h.make_graph(
        [h.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [_value("x", [2])],
        [_value("y", [2])],
        [tensor],
    )
    return h.make_model(graph, ir_version=8).SerializeToString(), [place]


def _value(name: str, shape: list[Any] | None) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, T.FLOAT, shape)


def with_text(data: bytes, mark: bytes, text: bytes) -> bytes:
    """The model with a text in the place of a mark, as long as that."""
    assert mark in data
    return data.replace(mark, text[:_LENGTH] + b"_" * (_LENGTH - len(text)))


def check_shown(what: str, shown: bytes, is_json: bool) -> None:
    """What people and programs are shown: UTF-8, and nothing that steers a terminal."""
    text = shown.decode()
    bad = {c for c in text if not (c.isprintable() or c == "\n")}
    assert not bad, (what, bad)
    assert not any("\u0590" <= c <= "\u08ff" for c in text), what
    if is_json:
        assert text.isascii()
        # Half a character would end whoever prints it.
        json.dumps(json.loads(text), ensure_ascii=False).encode()


def cases() -> Iterator[tuple[str, bytes, bytes]]:
    """(name, model, the same without such texts): all of them, or a sample that is the same in every run."""
    pairs = []
    for name, (data, marks) in (("marked", marked_model()), ("external", external_model())):
        pairs += [
            (f"{name} {m} {t}", data, mark, text)
            for m, mark in enumerate(marks)
            for t, text in enumerate(TEXTS)
        ]
    if not EVERY:
        # Each place and each text is among them.
        random.Random(1).shuffle(pairs)
        seen: set[str] = set()
        chosen = []
        for pair in pairs:
            kind, m, t = pair[0].split()
            if {f"{kind} {m}", f"text {t}"} - seen:
                seen |= {f"{kind} {m}", f"text {t}"}
                chosen.append(pair)
        pairs = chosen
    for name, data, mark, text in pairs:
        yield name, with_text(data, mark, text), data


def run_python(*arguments: str) -> tuple[int, bytes, bytes]:
    """The Python program, in this process: its exit code and what it printed."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.buffer.getvalue(), err.buffer.getvalue()  # type: ignore[attr-defined]


def run_native(*arguments: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True)
    return done.returncode, done.stdout, done.stderr


COMMANDS = [
    ["convert", "MODEL", "-o", "OUT.py", "--no-check"],
    ["convert", "MODEL", "-o", "OUT.py", "--no-check", "--allow-unknown"],
    ["convert", "MODEL", "-o", "OUT.py", "--no-check", "--allow-unknown", "--json"],
    ["inspect", "MODEL", "--nodes"],
    ["inspect", "MODEL", "PLAIN"],
    ["inspect", "MODEL", "--nodes", "--json"],
    ["diff", "PLAIN", "MODEL", "--all"],
    ["diff", "MODEL", "PLAIN", "--all"],
    ["diff", "PLAIN", "MODEL", "--json"],
    ["diff", "MODEL", "PLAIN", "--json"],
    ["simplify", "MODEL", "OUT.onnx", "--no-check"],
    ["simplify", "MODEL", "OUT.onnx", "--no-check", "--json"],
]


def test_shown_escaped(tmp_path: Path) -> None:
    model, plain = tmp_path / "model.onnx", tmp_path / "plain.onnx"
    for at, (name, data, without) in enumerate(cases()):
        model.write_bytes(data)
        plain.write_bytes(without)
        # Both programs; in a sample each model goes through three commands.
        first = at % len(COMMANDS)
        for command in COMMANDS if EVERY else (COMMANDS * 2)[first : first + 9 : 4]:
            for run in (run_python, run_native):
                for old in tmp_path.glob("out.*"):
                    old.unlink()
                words = [
                    w.replace("MODEL", str(model))
                    .replace("PLAIN", str(plain))
                    .replace("OUT", str(tmp_path / "out"))
                    for w in command
                ]
                code, out, err = run(*words)
                what = f"{name}: {run.__name__} {command}"
                assert code in (0, 1, 2, 3), (what, out, err)
                check_shown(what, out, "--json" in command and bool(out))
                check_shown(what, err, False)
                source = tmp_path / "out.py"
                if source.exists():
                    check_source(source.read_text("utf-8"), "Model")


@pytest.mark.parametrize("text", STEERING)
def test_diagnostics_in_python(text: bytes) -> None:
    """Strings of the API are str, whatever the model's are."""
    data, marks = marked_model()
    for mark in marks:
        changed = with_text(data, mark, text)
        for options in ({}, {"allow_unknown": True}):
            conversion = _native.convert(changed, options)
            for value in (
                conversion.diagnostics,
                conversion.stats,
                conversion.inputs,
                conversion.outputs,
                conversion.weights,
            ):
                json.dumps(value).encode()
            check_shown("text", conversion.diagnostics_text.encode(), False)
        json.dumps({k: v for k, v in _native.simplify(changed).items() if k != "model"})
