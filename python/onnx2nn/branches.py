"""`if` and `while` over tensors as torch's operators, for torch.export, which traces one way through Python's own.

The functions of a page are rewritten for as long as an export takes: `if mask: ... else: ...` calls torch.cond and
`while mask: ...` torch's while_loop, with the two branches, or test and body, as functions of what they set. What
the test is decides when it is run: Python's own numbers go Python's own way. Statements that do more than set
variables stay as they are, and so does what torch refuses.
"""

import ast
import contextlib
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["as_operators"]

_Function = Callable[..., tuple[Any, ...]]


@contextlib.contextmanager
def as_operators(net: nn.Module) -> Iterator[bool]:
    """While inside, classes of the module's page run with their `if` and `while` rewritten.

    Gives whether there are any.
    """
    forward = type(net).forward
    assert isinstance(forward, FunctionType)
    file = forward.__code__.co_filename
    page = ModuleType(f"{forward.__module__}_with_operators")
    page.__dict__.update({**forward.__globals__, "__name__": page.__name__})
    page.__dict__.update({_BRANCH: _branch, _LOOP: _loop, _NOT: _not})
    found = _functions(file)
    changed = [f.name for f in found.values() if _Rewriting(f).changed]
    if not changed:
        yield False
        return
    swapped: list[tuple[type, str, Any]] = []
    sys.modules[page.__name__] = page  # where torch looks for what functions call
    try:
        classes = {
            c.__name__: c for c in map(type, net.modules()) if c.__module__ == forward.__module__
        }
        for name, function in found.items():
            new = _run(function, file, page)
            owner, _, method = name.rpartition(".")
            if owner in classes:
                swapped.append((classes[owner], method, classes[owner].__dict__[method]))
                setattr(classes[owner], method, new)
            elif not owner:
                setattr(page, name, new)
        yield True
    finally:
        for cls, method, old in reversed(swapped):
            setattr(cls, method, old)
        del sys.modules[page.__name__]


def _functions(file: str) -> dict[str, ast.FunctionDef]:
    """A page's functions, its methods as Class.name."""
    source = "".join(linecache.getlines(file))
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            own = (f for f in node.body if isinstance(f, ast.FunctionDef))
            found |= {f"{node.name}.{f.name}": f for f in own if f.name != "__init__"}
    return {k: f for k, f in found.items() if not f.decorator_list and not _knows_its_class(f)}


def _knows_its_class(function: ast.FunctionDef) -> bool:
    names = (n.id for n in ast.walk(function) if isinstance(n, ast.Name))
    return any(name in ("super", "__class__") for name in names)


def _run(function: ast.FunctionDef, file: str, page: ModuleType) -> FunctionType:
    ast.fix_missing_locations(function)
    made: dict[str, FunctionType] = {}
    code = compile(ast.Module([function], []), file, "exec", dont_inherit=True)
    exec(code, page.__dict__, made)
    return made[function.name]


# ---- What rewritten functions call ----

_BRANCH, _LOOP, _NOT = "_onnx2nn_branch", "_onnx2nn_loop", "_onnx2nn_not"


def _is_true(test: Tensor) -> Tensor:
    return test.reshape(()).bool()


def _fresh(values: Iterable[Any]) -> tuple[Any, ...]:
    """torch's operators give out nothing that they were given, and take layouts for types."""
    return tuple(
        v.clone(memory_format=torch.contiguous_format) if isinstance(v, Tensor) else v
        for v in values
    )


def _branch(test: Any, then: _Function, other: _Function, given: tuple[Any, ...]) -> Any:
    if not isinstance(test, Tensor):
        return then(*given) if test else other(*given)
    return torch.cond(
        _is_true(test), lambda: _fresh(then(*given)), lambda: _fresh(other(*given)), ()
    )


def _loop(test: Callable[..., Any], body: _Function, given: tuple[Any, ...]) -> tuple[Any, ...]:
    from torch._higher_order_ops import while_loop

    run: Any = while_loop  # untyped
    if not isinstance(test(*given), Tensor):
        while test(*given):
            given = body(*given)
        return given
    carried = _fresh(v if isinstance(v, Tensor) else torch.tensor(v) for v in given)
    out: tuple[Any, ...] = run(
        lambda *c: _is_true(test(*c)).clone(), lambda *c: _fresh(body(*c)), carried
    )
    return out


def _not(value: Any) -> Any:
    return value.logical_not() if isinstance(value, Tensor) else not value


# ---- Rewriting ----

_LEAVES = (ast.Return, ast.Break, ast.Continue, ast.Delete, ast.Yield, ast.YieldFrom, ast.Raise)


class _Rewriting:
    """Of one function, in place: its statements in order, with what is certainly bound before each."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self.changed = False
        self.count = 0
        nodes = [*ast.walk(function)]
        self.loads = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        added_to = (n.target for n in nodes if isinstance(n, ast.AugAssign))
        self.loads += [n for n in added_to if isinstance(n, ast.Name)]
        a = function.args
        given = {x.arg for x in chain(a.posonlyargs, a.args, a.kwonlyargs)}
        given |= {x.arg for x in (a.vararg, a.kwarg) if x is not None}
        function.body = self.block(function.body, given, ())

    def block(
        self, body: list[ast.stmt], bound: set[str], loops: tuple[ast.stmt, ...]
    ) -> list[ast.stmt]:
        """The statements of a block; adds to `bound` what they bind. loops: those that it lies in."""
        out: list[ast.stmt] = []
        for node in body:
            out += self.statement(node, bound, loops)
        return out

    def statement(
        self, node: ast.stmt, bound: set[str], loops: tuple[ast.stmt, ...]
    ) -> list[ast.stmt]:
        if isinstance(node, ast.If):
            after, set_there = self.used_after(node, loops), _stored([node])
            certain, may = {*bound}, not _leaves(node)
            then, other = {*bound}, {*bound}
            node.body = self.block(node.body, then, loops)
            node.orelse = self.block(node.orelse, other, loops)
            bound |= then & other
            out = sorted(set_there & after)
            if may and out and {*out} <= bound:
                return self.as_branch(node, out, sorted(set_there & certain))
            return [node]
        if isinstance(node, ast.While):
            after, set_there = self.used_after(node, loops), _stored([node])
            certain, may = {*bound}, not _leaves(node) and not node.orelse
            node.body = self.block(node.body, {*bound}, (*loops, node))
            carried = sorted(set_there & certain)
            if may and carried and set_there & after <= certain:
                return self.as_loop(node, carried)
            return [node]
        if isinstance(node, ast.For):
            inside = bound | _stored([node.target])
            node.body = self.block(node.body, inside, (*loops, node))
            return [node]
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            bound |= _stored([node])
        return [node]

    def used_after(self, node: ast.stmt, loops: tuple[ast.stmt, ...]) -> set[str]:
        """Names that are read after a statement, or anywhere in a loop that it lies in."""
        end = _end(node)
        within = [(_start(loop), _end(loop)) for loop in loops]
        return {
            n.id
            for n in self.loads
            if _start(n) >= end or any(a <= _start(n) < b for a, b in within)
        }

    def name(self, kind: str) -> str:
        self.changed = True
        self.count += 1
        return f"_onnx2nn_{kind}_{self.count}"

    def as_branch(self, node: ast.If, out: list[str], given: list[str]) -> list[ast.stmt]:
        then, other = self.name("then"), self.name("else")
        call = _call(_BRANCH, [_test(node.test), _load(then), _load(other), _tuple(given)])
        return _placed(
            node,
            _function(then, given, [*node.body, ast.Return(_tuple(out))]),
            _function(other, given, [*node.orelse, ast.Return(_tuple(out))]),
            ast.Assign([_tuple(out, ast.Store())], call),
        )

    def as_loop(self, node: ast.While, carried: list[str]) -> list[ast.stmt]:
        test, body = self.name("test"), self.name("body")
        call = _call(_LOOP, [_load(test), _load(body), _tuple(carried)])
        return _placed(
            node,
            _function(test, carried, [ast.Return(_test(node.test))]),
            _function(body, carried, [*node.body, ast.Return(_tuple(carried))]),
            ast.Assign([_tuple(carried, ast.Store())], call),
        )


def _start(node: Any) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: Any) -> tuple[int, int]:
    return node.end_lineno, node.end_col_offset


def _stored(nodes: Iterable[ast.AST]) -> set[str]:
    """The variables that are set: those of a comprehension are its own."""
    out, left = set(), [*nodes]
    while left:
        node = left.pop()
        if isinstance(node, _SCOPES):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            out.add(node.id)
        left += ast.iter_child_nodes(node)
    return out


_SCOPES = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.FunctionDef)


def _leaves(node: ast.stmt) -> bool:
    """Whether a statement may go elsewhere than to the next one, or binds what is no variable."""
    return any(isinstance(n, (*_LEAVES, ast.FunctionDef)) for n in ast.walk(node))


def _test(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _call(_NOT, [_test(test.operand)])
    return test


def _load(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _tuple(names: list[str], context: ast.expr_context | None = None) -> ast.expr:
    context = context or ast.Load()
    return ast.Tuple([ast.Name(n, context) for n in names], context)


def _call(name: str, args: list[ast.expr]) -> ast.expr:
    return ast.Call(_load(name), args, [])


def _function(name: str, args: list[str], body: list[ast.stmt]) -> ast.stmt:
    parameters = ", ".join(args)
    function = ast.parse(f"def {name}({parameters}): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = body
    return function


def _placed(node: ast.stmt, *made: ast.stmt) -> list[ast.stmt]:
    """New statements at the place of one, by which tracebacks name its line."""
    for statement in made:
        for n in ast.walk(statement):
            if not hasattr(n, "lineno") or statement is n:
                ast.copy_location(n, node)
    return [*made]
