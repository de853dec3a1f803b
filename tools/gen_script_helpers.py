"""Writes src/torch/script_helpers.txt: runtime helpers as TorchScript, for archives written without torch.

usage: python tools/gen_script_helpers.py [--check] [--why]

Each helper of python/onnx2nn/runtime is brought to what TorchScript's front end takes (no keyword-only
arguments, no `X | None`, no starred arguments, ...), compiled by torch.jit.script, and written as torch prints it
into archives. What torch does not compile is left out: the error for a node that needs it names the node.
--check says whether the file is as it would be written; --why says what torch refuses in each of the others.
"""

import argparse
import ast
import importlib
import linecache
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = ROOT / "python" / "onnx2nn" / "runtime"
OUTPUT = ROOT / "src" / "torch" / "script_helpers.txt"
PREFIX = "__torch__.helpers."

# What Python says of dtypes and TorchScript does not.
PREAMBLE = """
import math
from typing import Any, Callable, List, Optional, Tuple
import torch
import torch.nn.functional as F
from torch import Tensor

def itemsize_of(dtype: torch.dtype) -> int:
    # By name: element_size() is an operator that Netron does not know, and would show nothing for.
    if dtype == torch.complex128:
        return 16
    if dtype == torch.float64 or dtype == torch.complex64:
        return 8
    if dtype == torch.int64 or dtype == torch.uint64:
        return 8
    if dtype == torch.float32 or dtype == torch.int32 or dtype == torch.uint32:
        return 4
    if dtype == torch.float16 or dtype == torch.bfloat16:
        return 2
    if dtype == torch.int16 or dtype == torch.uint16:
        return 2
    return 1

def is_floating_point_dtype(dtype: torch.dtype) -> bool:
    return torch.empty([0], dtype=dtype).is_floating_point()

def is_unsigned_dtype(dtype: torch.dtype) -> bool:
    return (
        dtype == torch.uint8
        or dtype == torch.uint16
        or dtype == torch.uint32
        or dtype == torch.uint64
    )

def is_signed_dtype(dtype: torch.dtype) -> bool:
    return not (is_unsigned_dtype(dtype) or dtype == torch.bool)

def iinfo_bits(dtype: torch.dtype) -> int:
    return 8 * itemsize_of(dtype)

def iinfo_min(dtype: torch.dtype) -> int:
    if not is_signed_dtype(dtype):
        return 0
    return -iinfo_max(dtype) - 1

def iinfo_max(dtype: torch.dtype) -> int:
    # A table, since Netron computes what is constant and does not know `<<`.
    if dtype == torch.uint64:
        raise ValueError("the largest uint64 is no TorchScript integer")
    if dtype == torch.int64:
        return 9223372036854775807
    if dtype == torch.uint32:
        return 4294967295
    if dtype == torch.int32:
        return 2147483647
    if dtype == torch.uint16:
        return 65535
    if dtype == torch.int16:
        return 32767
    return 255 if dtype == torch.uint8 else 127

def same_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_floating_point() or is_floating_point_dtype(dtype):
        raise ValueError("TorchScript cannot view a tensor as another dtype")
    return x.to(dtype)

def finfo_max(dtype: torch.dtype) -> float:
    if dtype == torch.float8_e4m3fn:
        return 448.0
    if dtype == torch.float8_e4m3fnuz:
        return 240.0
    if dtype == torch.float8_e5m2 or dtype == torch.float8_e5m2fnuz:
        return 57344.0
    if dtype == torch.float16:
        return 65504.0
    if dtype == torch.bfloat16:
        return 3.3895313892515355e38
    if dtype == torch.float64:
        return 1.7976931348623157e308
    if dtype == torch.float32:
        return 3.4028234663852886e38
    raise ValueError("the limits of this dtype are not known to TorchScript")

def finfo_min(dtype: torch.dtype) -> float:
    return -finfo_max(dtype)

def finfo_eps(dtype: torch.dtype) -> float:
    if dtype == torch.float16:
        return 0.0009765625
    if dtype == torch.bfloat16:
        return 0.0078125
    if dtype == torch.float64:
        return 2.220446049250313e-16
    if dtype == torch.float32:
        return 1.1920928955078125e-07
    raise ValueError("the limits of this dtype are not known to TorchScript")

def product_of(values: List[int]) -> int:
    out = 1
    for value in values:
        out = out * value
    return out
"""
LEFT_OUT = {"cast_e8m0": "TorchScript cannot view a tensor as another dtype"}
DTYPE_FACTS = {
    "itemsize": "itemsize_of",
    "is_floating_point": "is_floating_point_dtype",
    "is_signed": "is_signed_dtype",
}
LIMITS = {"min", "max", "bits", "eps"}
SPREADING = {
    "reshape",
    "view",
    "expand",
    "permute",
    "new_zeros",
    "new_empty",
    "new_ones",
    "repeat",
    "tile",
}


def name(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


def call(function: str, *args: ast.expr) -> ast.Call:
    return ast.Call(name(function), list(args), [])


def members(union: ast.expr) -> list[ast.expr]:
    if isinstance(union, ast.BinOp) and isinstance(union.op, ast.BitOr):
        return members(union.left) + members(union.right)
    return [union]


def annotation(node: ast.expr | None) -> ast.expr | None:
    """The type in TorchScript's words; strings, of which it has no tensors, are no alternative."""
    if node is None:
        return None
    if isinstance(node, ast.BinOp):
        parts = [annotation(m) for m in members(node) if "np." not in ast.unparse(m)]
        known = [p for p in parts if p is not None and ast.unparse(p) != "None"]
        optional = len(known) < len(parts)
        texts = {ast.unparse(p) for p in known}
        # What is a list of numbers or a shape is a list; a tensor may stand for the numbers in it.
        if len(texts) > 1 and texts <= {"List[int]", "torch.Size"}:
            known = known[:1]
        if len(texts) > 1 and "List[str]" in texts:
            known = [p for p in known if ast.unparse(p) != "List[str]"]
        if len(known) > 1:
            return node  # torch says that it has no such union
        return ast.Subscript(name("Optional"), known[0], ast.Load()) if optional else known[0]
    if isinstance(node, ast.Subscript):
        base = ast.unparse(node.value)
        if base in ("list", "Sequence", "Iterable"):
            inner = annotation(node.slice)
            assert inner is not None
            return ast.Subscript(name("List"), inner, ast.Load())
        if base == "tuple":
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if len(items) == 2 and ast.unparse(items[1]) == "...":
                inner = annotation(items[0])
                assert inner is not None
                return ast.Subscript(name("List"), inner, ast.Load())
            known = [annotation(i) or i for i in items]
            inner = known[0] if len(known) == 1 else ast.Tuple(known, ast.Load())
            return ast.Subscript(name("Tuple"), inner, ast.Load())
    if ast.unparse(node) == "torch.Size":
        return ast.Subscript(name("List"), name("int"), ast.Load())
    return node


class Dialect(ast.NodeTransformer):
    """Brings a helper to what TorchScript's front end takes."""

    def __init__(self) -> None:
        self.limits: dict[str, tuple[str, ast.expr]] = {}  # variables that hold a torch.iinfo
        self.lists = 0  # that were comprehensions
        self.types: dict[str, str] = {}  # of parameters

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        a = node.args
        optional = len(a.defaults)
        plain, defaulted = a.args[: len(a.args) - optional], a.args[len(a.args) - optional :]
        words = list(zip(a.kwonlyargs, a.kw_defaults, strict=True))
        a.args = [
            *plain,
            *[p for p, d in words if d is None],
            *defaulted,
            *[p for p, d in words if d is not None],
        ]
        a.defaults += [d for _, d in words if d is not None]
        a.kwonlyargs, a.kw_defaults = [], []
        for p in a.args:
            p.annotation = annotation(p.annotation)
            self.types[p.arg] = "" if p.annotation is None else ast.unparse(p.annotation)
        node.returns = annotation(node.returns)
        node.body = [
            s
            for s in node.body
            if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        ]
        node.body = self.hoisted(node.body)
        self.generic_visit(node)
        return node

    def hoisted(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Comprehensions that torch does not take, as loops before their statement."""
        out: list[ast.stmt] = []
        for statement in body:
            for field in ("body", "orelse"):
                if isinstance(inner := getattr(statement, field, None), list):
                    setattr(statement, field, self.hoisted(inner))
            if isinstance(statement, (ast.Assign, ast.Return, ast.Expr, ast.AnnAssign)):
                hoist = Hoist(self)
                out_statement = hoist.visit(statement)
                out += [*hoist.before, out_statement]
            else:
                out.append(statement)
        return out

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        node.annotation = annotation(node.annotation) or node.annotation
        self.generic_visit(node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, (ast.FloorDiv, ast.Mod)) and isinstance(node.target, ast.Name):
            value = ast.BinOp(name(node.target.id), node.op, node.value)
            return ast.Assign([node.target], value)
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        v = node.value
        if isinstance(v, ast.Call) and ast.unparse(v.func) in ("torch.iinfo", "torch.finfo"):
            target = node.targets[0]
            assert isinstance(target, ast.Name)
            self.limits[target.id] = (ast.unparse(v.func)[6:], v.args[0])
            return ast.Pass()
        self.generic_visit(node)
        return node

    def visit_Raise(self, node: ast.Raise) -> Any:
        if isinstance(node.exc, ast.Call):
            for i, a in enumerate(node.exc.args):
                if isinstance(a, ast.JoinedStr):
                    texts = [
                        str(v.value) if isinstance(v, ast.Constant) else "..." for v in a.values
                    ]
                    node.exc.args[i] = ast.Constant("".join(texts))
        return node

    # `a or b` is a bool in TorchScript, whatever a and b are: only where it is asked as a condition is it kept.
    def visit_If(self, node: ast.If) -> Any:
        mark_condition(node.test)
        return self.generic_visit(node)

    def visit_While(self, node: ast.While) -> Any:
        mark_condition(node.test)
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        mark_condition(node.test)
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        if getattr(node, "is_condition", False) or all(is_boolean(v) for v in node.values):
            return node
        out = node.values[-1]
        for value in reversed(node.values[:-1]):
            text = ast.unparse(value)
            test: ast.expr = value
            if "List[" in self.types.get(text, ""):
                test = ast.parse(f"{text} is not None and len({text}) > 0", mode="eval").body
            yes, no = (value, out) if isinstance(node.op, ast.Or) else (out, value)
            out = ast.IfExp(test, yes, no)
        return out

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        if isinstance(node.slice, ast.Tuple):
            # An index that is spread is no list: torch refuses it as it is.
            node.value = self.visit(node.value)
            node.slice.elts = [
                e if isinstance(e, ast.Starred) else self.visit(e) for e in node.slice.elts
            ]
            return node
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        self.generic_visit(node)
        text = ast.unparse(node.value)
        if node.attr in DTYPE_FACTS and (text.endswith(".dtype") or text.endswith("dtype")):
            return call(DTYPE_FACTS[node.attr], node.value)
        if node.attr in LIMITS and isinstance(node.value, ast.Call):
            function = ast.unparse(node.value.func)
            if function in ("torch.iinfo", "torch.finfo"):
                return call(f"{function[6:]}_{node.attr}", node.value.args[0])
        if node.attr in LIMITS and isinstance(node.value, ast.Name) and text in self.limits:
            kind, dtype = self.limits[text]
            return call(f"{kind}_{node.attr}", dtype)
        return node

    def visit_List(self, node: ast.List) -> Any:
        return self.sequence(node)

    def visit_Tuple(self, node: ast.Tuple) -> Any:
        return self.sequence(node)

    def sequence(self, node: ast.List | ast.Tuple) -> Any:
        self.generic_visit(node)
        starred = any(isinstance(e, ast.Starred) for e in node.elts)
        return added(node.elts) if starred and isinstance(node.ctx, ast.Load) else node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        function = ast.unparse(node.func)
        if isinstance(node.func, ast.Attribute):
            starred = any(isinstance(a, ast.Starred) for a in node.args)
            if node.func.attr in SPREADING and starred:
                node.args = [added(node.args)]
            if node.func.attr == "new_tensor":
                x = node.func.value
                words = [
                    ast.keyword(w, ast.Attribute(x, w, ast.Load())) for w in ("dtype", "device")
                ]
                return ast.Call(
                    ast.Attribute(name("torch"), "tensor", ast.Load()), node.args, words
                )
        if function == "bool" and node.args:
            mark_condition(node.args[0])
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "view"
            and is_dtype(node.args)
        ):
            # Integers of one width: a conversion wraps round, as looking at the bits does.
            return call("same_bits", node.func.value, *node.args)
        if function == "math.prod":
            return ast.Call(name("product_of"), node.args, [])
        if function == "zip":
            node.keywords = []
        if function == "reversed" and re.fullmatch(r"range\([^,]*\)", ast.unparse(node.args[0])):
            count = ast.unparse(node.args[0])[6:-1]
            return ast.parse(f"range({count} - 1, -1, -1)", mode="eval").body
        if function == "tuple" and len(node.args) == 1:
            return call("list", *node.args)
        return node


def mark_condition(node: ast.expr) -> None:
    """The operands of `and`, `or` and `not` in a condition are conditions."""
    if isinstance(node, ast.BoolOp):
        node.is_condition = True  # type: ignore[attr-defined]
        for value in node.values:
            mark_condition(value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        mark_condition(node.operand)


def is_boolean(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def is_dtype(args: list[ast.expr]) -> bool:
    text = ast.unparse(args[0]) if len(args) == 1 else ""
    return text.endswith("dtype") or text.startswith(("torch.int", "torch.uint", "torch.float"))


class Hoist(ast.NodeTransformer):
    """Puts loops in the place of a statement's comprehensions with conditions or with several `for`s."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.before: list[ast.stmt] = []

    def comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        if len(node.generators) == 1 and not node.generators[0].ifs:
            return node  # what is inside reads its variable
        self.dialect.lists += 1
        made = f"list_{self.dialect.lists}"
        first = node.generators[0]
        # The items' type: that of the list that is filtered, else torch says whether they are int.
        same = ast.unparse(node.elt) == ast.unparse(first.target) and isinstance(
            first.iter, ast.Name
        )
        start = f"list({ast.unparse(first.iter)})[:0]" if same else "[]"
        hint = "" if same else ": List[int]"
        add = ast.Expr(ast.Call(ast.Attribute(name(made), "append", ast.Load()), [node.elt], []))
        body: ast.stmt = add
        for generator in reversed(node.generators):
            for test in reversed(generator.ifs):
                body = ast.If(test, [body], [])
            body = ast.For(generator.target, generator.iter, [body], [], lineno=0)
        self.before += [*ast.parse(f"{made}{hint} = {start}").body, body]
        return name(made)

    def visit_ListComp(self, node: ast.ListComp) -> Any:
        return self.comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        return self.comprehension(node)


def added(items: list[ast.expr]) -> ast.expr:
    """[*a, b] as list(a) + [b]."""
    parts: list[ast.expr] = []
    for item in items:
        if isinstance(item, ast.Starred):
            parts.append(call("list", item.value))
        elif parts and isinstance(parts[-1], ast.List):
            parts[-1].elts.append(item)
        else:
            parts.append(ast.List([item], ast.Load()))
    out = parts[0]
    for part in parts[1:]:
        out = ast.BinOp(out, ast.Add(), part)
    return out


def dialect_module() -> tuple[types.ModuleType, list[str]]:
    """All helpers, as a module that torch.jit.script can read the source of; their names."""
    text, constants, names = PREAMBLE, "", []
    for path in sorted(RUNTIME.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                names.append(node.name)
                made = ast.fix_missing_locations(Dialect().visit(node))
                text += "\n" + ast.unparse(made) + "\n"
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                constants += "try:\n    " + ast.unparse(node) + "\nexcept Exception:\n    pass\n"
    text = "from __future__ import annotations\n" + text + constants
    file = "<helpers of onnx2nn for TorchScript>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = types.ModuleType("helpers")
    sys.modules["helpers"] = module
    exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
    return module, names


def plain(qualified: str) -> str:
    return re.sub(r"___torch_mangle_\d+\.", "", qualified)


def scripted(module: types.ModuleType, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The text of each function that torch compiles, with those that they call; why not, for the others."""
    texts: dict[str, str] = {}
    refused: dict[str, str] = {}

    def add(key: str, function: Any) -> None:
        if key in texts:
            return
        code = torch.jit.script(function).code
        if "CONSTANTS" in code:
            raise RuntimeError("it has constants that are no numbers")
        called = sorted(set(re.findall(r"__torch__\.[\w.]+", code)), key=len, reverse=True)
        inner = {}
        for q in called:
            path = plain(q).removeprefix("__torch__.")
            owner, _, base = path.rpartition(".")
            target = getattr(module if owner == "helpers" else importlib.import_module(owner), base)
            inner[q] = (base if owner == "helpers" else "torch_" + base.lstrip("_"), target)
        texts[key] = ""  # of what calls itself
        try:
            for other, target in inner.values():
                add(other, target)
        except Exception:
            del texts[key]
            raise
        for q in called:
            code = re.sub(re.escape(q) + r"\b", PREFIX + inner[q][0], code)
        head = re.match(r"def \w+\(", code)
        assert head is not None
        texts[key] = f"def {key}(" + code[head.end() :].rstrip("\n") + "\n"

    for n in names:
        if n in LEFT_OUT:
            refused[n] = LEFT_OUT[n]
            continue
        try:
            add(n, getattr(module, n))
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            refused[n] = " | ".join(
                lines[:1] + [lines[i - 1] for i, line in enumerate(lines) if "HERE" in line][:1]
            )
    return texts, refused


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; 1 where it is not current"
    )
    parser.add_argument("--why", action="store_true", help="what torch refuses in the others")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    module, names = dialect_module()
    texts, refused = scripted(module, names)
    if args.why:
        for n, why in refused.items():
            print(f"{n}: {why}")
    text = "".join(texts[k] for k in sorted(texts))
    print(f"{len(names) - len(refused)} of {len(names)} helpers, {len(text)} bytes")
    if args.check:
        return int(not OUTPUT.exists() or OUTPUT.read_text() != text)
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
