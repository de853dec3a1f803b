"""What each operator becomes and which outputs carry it, found by converting one-node models.

The models are those of ONNX's backend suite, of the numeric tests, which are run for it, and of the
differential tests. `refresh` takes minutes, so its result is checked in as op_facts.json.
"""

import ast
import contextlib
import io
import json
import logging
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests"), str(ROOT)]
FACTS = Path(__file__).with_name("op_facts.json")

Key = tuple[str, str]  # domain and type

# Models kept of an operator, and those of them on which the outputs are tried.
_KEPT, _TRIED = 16, 3
# How many nodes a model may have that stands in for one of one node.
_SMALL = 6
# What one try of one output may take.
_SECONDS = 60
# How many names the page shows of one operator, and in which part of the models they must be.
_NAMES, _SHARE = 4, 0.3
# Calls that only bring values into the form that the others want.
_GLUE = {"tolist", "append", "size", "dim", "numel", "register_buffer", "Parameter", "empty"}
_SYMBOLS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.MatMult: "@",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Invert: "~",
    ast.USub: "-",
}


@dataclass
class Sample:
    """A model of one node, and arguments for its module."""

    model: bytes
    args: tuple[Any, ...]


def operators_of(model: onnx.ModelProto) -> list[Key]:
    """The operators of a model's nodes, those of nested graphs left out."""
    nodes = [n for n in model.graph.node if n.op_type != "Constant"] or list(model.graph.node)
    return [("" if n.domain == "ai.onnx" else n.domain, n.op_type) for n in nodes]


class Samples:
    """Models by operator, no more than are of use; `within` holds small ones of several operators."""

    def __init__(self) -> None:
        self.by_op: dict[Key, list[Sample]] = {}
        self.within: dict[Key, list[Sample]] = {}

    def add(self, model: bytes, args: Callable[[], tuple[Any, ...]]) -> None:
        proto = onnx.load_from_string(model)
        operators = operators_of(proto)
        if proto.functions or not 0 < len(operators) <= _SMALL:
            return
        into = self.by_op if len(operators) == 1 else self.within
        sample = None
        for key in set(operators):
            kept = into.setdefault(key, [])
            if len(kept) < _KEPT and all(s.model != model for s in kept):
                sample = sample or Sample(model, args())
                kept.append(sample)


def suite_samples(samples: Samples) -> None:
    from backend.suite import cases
    from onnx2nn.tensors import to_torch

    for case in cases().values():
        inputs = case.data_sets[0][0] if case.data_sets else []
        with contextlib.suppress(Exception):
            samples.add(case.model, lambda i=inputs: tuple(to_torch(x, "cpu") for x in i))


def numeric_samples(samples: Samples) -> None:
    """Runs the numeric tests, and keeps what they load and call."""
    import pytest

    import onnx2nn.backend
    import onnx2nn.loading

    real = onnx2nn.loading.load

    def recording(model: Any, **options: Any) -> Any:
        net = real(model, **options)
        data = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        if isinstance(data, bytes):
            net.register_forward_pre_hook(lambda _, args: samples.add(data, lambda: args))
        return net

    onnx2nn.loading.load = onnx2nn.backend.load = recording
    onnx2nn.load = recording
    try:
        pytest.main([str(ROOT / "tests" / "numeric"), "-q", "-p", "no:cacheprovider", "-n", "0"])
    finally:
        onnx2nn.loading.load = onnx2nn.backend.load = real
        onnx2nn.load = real


def differential_samples(samples: Samples) -> None:
    from tests.differential.engine import cases
    from tests.differential.table import ROWS, opsets_of

    from onnx2nn.tensors import to_torch

    for (domain, op_type), row in ROWS.items():
        for _, case in cases(op_type, domain, opsets_of(op_type, domain)[-1], range(4), row):
            feeds = list(case.feeds.values())
            with contextlib.suppress(Exception):
                samples.add(
                    case.model.SerializeToString(),
                    lambda f=feeds: tuple(to_torch(x, "cpu") for x in f),
                )


def names_in(source: str, nested: bool) -> set[str]:
    """What the model's class calls: torch's names, helpers, modules and Python's operators.

    nested: the node has graphs of its own, of which only statements and helpers are told.
    """
    tree = ast.parse(source)
    helpers = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)} - {"load"}
    model = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Model")
    found = set()
    for node in ast.walk(model):
        name = _called(node, helpers) if isinstance(node, ast.Call) else _symbol(node)
        if name and (not nested or name in helpers):
            found.add(name)
        if nested and isinstance(node, ast.If | ast.For | ast.While):
            found.add(type(node).__name__.lower())
    if found:
        return found
    if "register_buffer" in source or "nn.Parameter" in source:
        return {"a buffer"}
    forward = next(n for n in model.body if getattr(n, "name", "") == "forward")
    last = forward.body[-1]
    return {"its input"} if isinstance(last, ast.Return) and _is_value(last.value) else set()


def _is_value(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Name) or (
        isinstance(node, ast.Tuple) and all(isinstance(e, ast.Name) for e in node.elts)
    )


def _called(node: ast.Call, helpers: set[str]) -> str:
    function = ast.unparse(node.func)
    if function in helpers:
        return function
    head, _, last = function.rpartition(".")
    if not head or last in _GLUE or "super()" in head or head in ("math", "np.random"):
        return ""
    if head in ("torch", "F", "nn") or head.startswith("torch."):
        return function
    if head == "self" or (head.startswith("self.") and last.islower() and not _is_method(last)):
        return ""
    return "." + last


def _is_method(name: str) -> bool:
    import torch

    return hasattr(torch.Tensor, name)


def _symbol(node: ast.AST) -> str:
    if isinstance(node, ast.BinOp) and ".shape" not in ast.unparse(node):
        return _SYMBOLS.get(type(node.op), "")
    if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        return _SYMBOLS.get(type(node.op), "")
    if isinstance(node, ast.Compare) and ".shape" not in ast.unparse(node):
        return _SYMBOLS.get(type(node.ops[0]), "")
    if isinstance(node, ast.Subscript) and ".shape" not in ast.unparse(node):
        return "[]" if isinstance(node.ctx, ast.Load) and _indexes(node) else ""
    return ""


def _indexes(node: ast.Subscript) -> bool:
    """Whether this is indexing, and not a type such as list[Tensor]."""
    return isinstance(node.value, ast.Name | ast.Attribute) and ast.unparse(node.value) not in (
        "list",
        "tuple",
        "dict",
    )


def count_names(samples: list[Sample], known: dict[Key, set[str]], key: Key) -> tuple[Any, int]:
    """In how many samples each name is, those of other operators left out, and how many count."""
    from onnx2nn import _native

    counts: Counter[str] = Counter()
    sources = 0
    for s in samples:
        model = onnx.load_from_string(s.model)
        others = set(operators_of(model)) - {key}
        conversion = _native.convert(s.model, {"simplify": False, "class_name": "Model"})
        if not conversion.ok or not others <= known.keys():
            continue
        nodes = [n for n in model.graph.node if n.op_type == key[1]]
        nested = any(a.graphs or a.HasField("g") for n in nodes for a in n.attribute)
        sources += 1
        names = names_in(conversion.source, nested)
        counts.update(names.difference(*(known[o] for o in others)))
    return counts, sources


def lowered(counts: Counter[str], sources: int) -> list[str]:
    """The names to show, most frequent first."""
    common = [n for n, k in sorted(counts.items(), key=lambda i: (-i[1], i[0]))]
    kept = [n for n in common if counts[n] >= _SHARE * sources] or common
    return [*kept[:_NAMES], *(["…"] if len(kept) > _NAMES else [])]


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"over {_SECONDS} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def same(a: Any, b: Any, random: bool) -> bool:
    import torch

    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if random:
            return True
        wide = torch.complex128 if a.is_complex() else torch.float64
        return torch.allclose(a.to(wide), b.to(wide), 1e-4, 1e-5, equal_nan=True)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y, random) for x, y in zip(a, b, strict=True))
    return bool(a is b or a == b)


def carried(samples: list[Sample], random: bool) -> dict[str, str]:
    """Of each output that was tried: "yes", or why not."""
    import torch

    import onnx2nn

    def script(net: Any, _: Any) -> Any:
        return torch.jit.script(net)

    def export(net: Any, args: Any) -> Any:
        return torch.export.export(net, args).module()

    said: dict[str, str] = {}
    for s in samples[:_TRIED]:
        try:
            net = onnx2nn.load(s.model, simplify=False)
            with torch.no_grad():
                want = net(*s.args)
        except Exception:
            continue  # what does not run eagerly says nothing of the others
        for form, make in (("torchscript", script), ("pt2", export)):
            if said.get(form) == "yes":
                continue
            try:
                with _limit(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
                    got = make(net, s.args)(*s.args)
                said[form] = "yes" if same(want, got, random) else "another answer"
            except Exception as e:
                said.setdefault(form, reason(e))
    return said


def reason(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return f"{type(e).__name__}: {lines[0] if lines else ''}"[:120]


def refresh() -> None:
    """Writes op_facts.json anew."""
    import torch
    from rich.progress import track

    from onnx2nn import _native

    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    samples = Samples()
    suite_samples(samples)
    differential_samples(samples)
    numeric_samples(samples)
    table = {(op["domain"], op["type"]): op["nondeterministic"] for op in _native.op_table()}
    known: dict[Key, set[str]] = {}
    facts = {}
    # Those with models of their own come first: what they become is told apart in the others'.
    for key in track(sorted(table, key=lambda k: k not in samples.by_op), "trying each operator"):
        found = samples.by_op.get(key) or samples.within.get(key, [])
        counts, sources = count_names(found, known, key)
        if key in samples.by_op:
            known[key] = set(counts)
        facts[key] = {
            "lowered": lowered(counts, sources),
            "outputs": carried(found, table[key]),
        }
    ordered = {f"{d}::{t}": facts[d, t] for d, t in table}
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in ordered.items()]
    FACTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read() -> dict[Key, dict[str, Any]]:
    stored = json.loads(FACTS.read_text())
    return {(k.rpartition("::")[0], k.rpartition("::")[2]): v for k, v in stored.items()}
