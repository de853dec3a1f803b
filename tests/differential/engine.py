"""Runs a drawn node in all forms and compares with whoever knows the answer."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TypeProto, helper, numpy_helper

import onnx2nn
import onnx2nn._native as native
import onnx2nn.backend
from onnx2nn.check.oracle import Reference, Runtime
from onnx2nn.source import Source

from .draw import Const, Draw, Node, Skip, Typed, kind_of

FORMS = ("simplified", "plain", "constants")
Spec = Callable[[Draw], Node]

# Relative to an element, and to the root mean square of an output.
_RTOL = {"float64": 1e-7, "float32": 3e-5, "float16": 4e-3, "bfloat16": 3e-2}
_ATOL = {"float64": 1e-8, "float32": 4e-6, "float16": 2e-3, "bfloat16": 2e-2}


@dataclass
class Row:
    """How an operator is drawn and judged.

    judge: who decides where ONNX Runtime and the reference differ: "runtime" (the default),
    "reference", or "either"; `reason` says why it is not ONNX Runtime.
    """

    draw: Spec
    judge: str = "runtime"
    reason: str = ""
    rtol: dict[str, float] = field(default_factory=dict)
    # Of an operator that draws: why an answer is not of its distribution, or nothing.
    random: Callable[["Case", list[Any]], str] | None = None


@dataclass
class Result:
    """What came of a case: `status` is ok, unchecked or failed."""

    status: str
    form: str = ""
    message: str = ""
    oracle: str = ""


@dataclass
class Case:
    node: Node
    model: onnx.ModelProto
    feeds: dict[str, Any]
    op_type: str


def type_of(value: Any, shape: Any = "exact") -> TypeProto:
    if isinstance(value, Typed):
        return value.type
    if isinstance(value, list):
        return helper.make_sequence_type_proto(
            type_of(value[0], None) if value else helper.make_tensor_type_proto(1, None)
        )
    value = np.asarray(value)
    kind = (
        onnx.TensorProto.STRING
        if value.dtype.kind in "OUST"
        else helper.np_dtype_to_tensor_dtype(value.dtype)
    )
    return helper.make_tensor_type_proto(
        kind, list(value.shape) if isinstance(shape, str) else shape
    )


def build(d: Draw, node: Node) -> Case:
    """The node's model; how much the inputs say of their shapes is drawn too."""
    how = d.pick("exact", "exact", "symbols", "symbols", "partly", "nothing")
    names, values, constants, feeds = [], [], [], {}
    for i, given in enumerate(node.inputs):
        if given is None:
            names.append("")
            continue
        name = f"x{i}"
        names.append(name)
        if isinstance(given, Const):
            constants.append(numpy_helper.from_array(np.asarray(given.value), name))
            continue
        value = given.value if isinstance(given, Typed) else given
        shape: Any = "exact"
        if isinstance(value, np.ndarray):
            if how == "symbols":
                shape = [f"d{i}_{k}" for k in range(value.ndim)]
            elif how == "partly":
                shape = [s if d.chance(0.5) else None for s in value.shape]
            elif how == "nothing":
                shape = [None] * value.ndim if node.ranked else None
        values.append(helper.make_value_info(name, type_of(given, shape)))
        feeds[name] = value
    while names and not names[-1]:
        names.pop()
    for i, given in enumerate(node.captured):
        if isinstance(given, Const):
            constants.append(numpy_helper.from_array(np.asarray(given.value), f"c{i}"))
        else:
            values.append(helper.make_value_info(f"c{i}", type_of(given)))
            feeds[f"c{i}"] = given
    present = [True] * node.outputs if isinstance(node.outputs, int) else list(node.outputs)
    results = [f"y{i}" if there else "" for i, there in enumerate(present)]
    made = helper.make_node(d.op_type, names, results, domain=d.domain, name="node", **node.attrs)
    graph = helper.make_graph(
        [made], "g", values, [onnx.ValueInfoProto(name=n) for n in results if n], constants
    )
    imports = [helper.make_opsetid(d.domain, d.opset)]
    if d.domain:
        imports.append(helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    model = helper.make_model(graph, opset_imports=imports, ir_version=_ir_version(d.opset))
    _declare_carried(model)
    return Case(node, model, feeds, d.op_type)


def _ir_version(opset: int) -> int:
    return 10 if opset < 23 else 11 if opset < 25 else 13


def _declare_carried(model: onnx.ModelProto) -> None:
    """Says the element type of outputs that torch carries in another type."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:
        return
    for out, known in zip(model.graph.output, inferred.graph.output, strict=True):
        kind = known.type
        while kind.WhichOneof("value") in ("sequence_type", "optional_type"):
            kind = getattr(kind, kind.WhichOneof("value")).elem_type
        if kind.tensor_type.elem_type in (21, 22, 23, 25, 26, 27, 28):
            out.type.CopyFrom(known.type)
            if out.type.WhichOneof("value") == "tensor_type":
                out.type.tensor_type.ClearField("shape")


def runtime_answer(case: Case) -> list[Any]:
    return Runtime(case.model.SerializeToString(), threads=1).run(case.feeds)


def reference_answer(case: Case) -> list[Any]:
    return Reference(Source(case.model.SerializeToString())).run(case.feeds)


def answer_at(d: Draw, node: Node, opset: int) -> list[Any]:
    """ONNX Runtime's answer at another opset, where the node means the same.

    Halves are asked for as float32, and rounded.
    """
    other = Draw(d.op_type, d.domain, opset, d.seed)
    halves = [x.dtype for x in map(_plain, node.inputs) if _is_half(x)]
    wide = [_widened(given) for given in node.inputs]
    with np.errstate(all="ignore"):
        results = runtime_answer(build(other, replace(node, inputs=wide)))
        if halves:
            results = [r.astype(halves[0]) if r.dtype == np.float32 else r for r in results]
    return results


def _plain(given: Any) -> Any:
    return given.value if isinstance(given, Const | Typed) else given


def _is_half(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.name in ("float16", "bfloat16")


def _widened(given: Any) -> Any:
    if not _is_half(_plain(given)):
        return given
    value = _plain(given).astype(np.float32)
    return Const(value) if isinstance(given, Const) else value


def with_constants(case: Case) -> bytes | None:
    """The model with its inputs as initialisers; None where one is no tensor or there are none."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if not case.feeds:
        return None
    for name, value in case.feeds.items():
        if not isinstance(value, np.ndarray | np.generic):
            return None
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del model.graph.input[:]
    return bytes(model.SerializeToString())


def differs(got: Any, want: Any, case: Case, row: Row, check_dtype: bool = True) -> str:
    """Why two values differ; empty where they are the same."""
    if want is None or got is None:
        return "" if got is None and want is None else f"{got!r} instead of {want!r}"
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return f"a {type(got).__name__} of {len(got)} instead of a list of {len(want)}"
        whys = [differs(g, w, case, row, check_dtype) for g, w in zip(got, want, strict=True)]
        return next((why for why in whys if why), "")
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape:
        return f"shape {list(got.shape)} instead of {list(want.shape)}"
    if kind_of(want.dtype) == "s" or kind_of(got.dtype) == "s":
        # Where nothing was written, the reference leaves numpy's 0 among the strings.
        words = ["" if x == 0 else str(x) for x in want.reshape(-1)]
        same = [str(x) for x in got.reshape(-1)] == words
        return "" if same else f"{got.tolist()} instead of {want.tolist()}"
    if check_dtype and want.dtype != got.dtype:
        return f"type {got.dtype} instead of {want.dtype}"
    if kind_of(want.dtype) not in "fc" and kind_of(got.dtype) not in "fc":
        wrong = np.asarray(want.astype(object) != got.astype(object))
        return _first(got, want, wrong)
    wide = np.complex128 if "c" in kind_of(want.dtype) + kind_of(got.dtype) else np.float64
    # The reference leaves some results in a wider type than the operator has.
    names = {x.dtype.name for x in (want, got) if kind_of(x.dtype) == "f"} or {"float32"}
    name = max(names, key=lambda n: _RTOL.get(n, 0.0))
    a, b = got.astype(wide), want.astype(wide)
    with np.errstate(all="ignore"):
        finite = np.abs(b[np.isfinite(b)])
        spread = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
        rtol = (
            row.rtol.get(name, _RTOL.get(name, 0.0)) if case.node.rtol is None else case.node.rtol
        )
        atol = (_ATOL.get(name, 0.0) if case.node.atol is None else case.node.atol) * max(
            spread, 1e-3
        )
        near = np.isclose(a, b, rtol, atol, equal_nan=True)
    return _first(got, want, np.asarray(~near))


def _first(got: Any, want: Any, wrong: Any) -> str:
    if not wrong.any():
        return ""
    at = tuple(int(k) for k in np.argwhere(wrong)[0]) if wrong.ndim else ()
    return f"{got[at]!r} instead of {want[at]!r} at {list(at)} ({int(wrong.sum())} of {wrong.size})"


def check_inferred(case: Case, simplify: bool, outputs: list[Any]) -> str:
    """Why what we infer of the outputs is wrong; empty where it is right or unknown."""
    conversion = native.convert(case.model.SerializeToString(), {"simplify": simplify})
    sizes: dict[str, int] = {}
    for info in case.model.graph.input:
        value = case.feeds.get(info.name)
        for k, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_param:
                sizes[dim.dim_param] = value.shape[k]
    for port, value in zip(conversion.outputs, outputs, strict=True):
        if port["kind"] != "tensor" or not isinstance(value, np.ndarray):
            continue
        said = port["dtype"]
        actual = "string" if kind_of(value.dtype) == "s" else value.dtype.name
        if said not in ("undefined", actual):
            return f"inferred type {said}, which is {actual}"
        if port["shape"] is None:
            continue
        if len(port["shape"]) != value.ndim:
            return f"inferred shape {port['shape']}, which is {list(value.shape)}"
        for dim, size in zip(port["shape"], value.shape, strict=True):
            known = _dim(dim, sizes)
            if known is not None and known != size:
                return f"inferred shape {port['shape']}, which is {list(value.shape)}"
    return ""


def _dim(dim: Any, sizes: dict[str, int]) -> int | None:
    if dim is None or isinstance(dim, int):
        return dim
    text = re.sub(r"d\d+_\d+", lambda m: str(sizes[m.group(0)]), dim)
    try:
        return int(eval(text, {"min": min, "max": max}))
    except (NameError, SyntaxError):
        return None


def run_form(case: Case, form: str) -> list[Any] | None:
    if form == "constants":
        model = with_constants(case)
        if model is None:
            return None
        return list(onnx2nn.backend.prepare(model).run([]))
    rep = onnx2nn.backend.prepare(case.model, simplify=form == "simplified")
    return list(rep.run(list(case.feeds.values())))


def draw_case(op_type: str, domain: str, opset: int, seed: int, row: Row) -> Case:
    d = Draw(op_type, domain, opset, seed)
    with np.errstate(all="ignore"):
        return build(d, row.draw(d))


def answers(case: Case, row: Row) -> list[tuple[str, list[Any]]]:
    """Who knows the answer, the first deciding, with it."""
    if case.node.expected is not None:
        return [("expected", list(case.node.expected))]
    order = [("runtime", runtime_answer), ("reference", reference_answer)]
    if row.judge == "reference":
        order.reverse()
    known = []
    for name, ask in order:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                known.append((name, ask(case)))
        except Exception:
            continue
        if row.judge != "either":
            break
    return known


def run_case(case: Case, row: Row) -> Result:
    """Compares all forms."""
    known = answers(case, row)
    forms: dict[str, list[Any]] = {}
    for form in FORMS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = run_form(case, form)
        except Exception as e:
            if not known:
                return Result("unchecked", form, f"{type(e).__name__}: {e}")
            return Result("failed", form, f"{type(e).__name__}: {e}"[:600], known[0][0])
        if got is not None:
            forms[form] = got
    if not known:
        return Result("unchecked")
    if row.random:
        return judge_random(case, row, forms)
    for form, got in forms.items():
        whys = []
        for name, want in known:
            if len(got) != len(want):
                whys.append(f"{len(got)} outputs instead of {len(want)}")
                continue
            pairs = list(zip(got, want, strict=True))
            whys.append(
                next(
                    (
                        f"output {i}: {why}"
                        for i, (g, w) in enumerate(pairs)
                        if (why := differs(g, w, case, row, name != "reference"))
                    ),
                    "",
                )
            )
        if all(whys):
            return Result("failed", form, whys[0], known[0][0])
    for simplify in (True, False):
        if why := check_inferred(case, simplify, forms["plain"]):
            return Result("failed", "infer", why, known[0][0])
    return Result("ok", oracle=known[0][0])


def judge_random(case: Case, row: Row, forms: dict[str, list[Any]]) -> Result:
    """Type and shape are those of `expected`; a seed says the values, and only a seed."""
    assert row.random is not None
    assert case.node.expected is not None
    for form, got in forms.items():
        (want,) = case.node.expected
        why = ""
        if (got[0].dtype, got[0].shape) != (want.dtype, want.shape):
            why = f"{got[0].dtype}{got[0].shape} instead of {want.dtype}{want.shape}"
        again = run_form(case, form)
        assert again is not None
        same = bool((np.asarray(again[0]) == np.asarray(got[0])).all())
        if same != ("seed" in case.node.attrs):
            why = "a second run gives " + ("the same" if same else "something else")
        why = why or row.random(case, got)
        if why:
            return Result("failed", form, why, "expected")
    return Result("ok", oracle="expected")


def cases(op_type: str, domain: str, opset: int, seeds: range, row: Row) -> Any:
    """(seed, case) for the seeds that make sense."""
    for seed in seeds:
        try:
            yield seed, draw_case(op_type, domain, opset, seed, row)
        except Skip:
            continue


__all__ = ["Case", "Result", "Row", "cases", "draw_case", "ml_dtypes", "onnx2nn", "run_case"]
