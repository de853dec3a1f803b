"""`if`, `while` and `for` over tensors as torch's operators: torch.export traces one way through Python's own.

The functions of a page are rewritten for as long as an export takes: `if mask: ... else: ...` calls torch.cond,
`while mask: ...` torch's while_loop, and `for step in x.unbind(): ...` torch's scan, with the two branches, or test
and body, as functions of what they set. What the test is decides when it is run: Python's own numbers, and as many
steps as are known, go Python's own way. Statements that do more than set variables stay as they are, and so does
what torch refuses.
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

from onnx2nn.liveness import live_after_each, live_each_round, stored

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
    page.__dict__.update({_BRANCH: _branch, _LOOP: _loop, _SCAN: _scan, _NOT: _not})
    found = _functions(file)
    changed = [f.name for f in found.values() if _Rewriting(f).changed]
    if not changed:
        yield False
        return
    hook = net.register_forward_pre_hook(_gather_weights)
    swapped: list[tuple[type, str, Any]] = [
        (nn.RNNBase, "_update_flat_weights", nn.RNNBase._update_flat_weights)
    ]
    untyped: Any = nn.RNNBase
    untyped._update_flat_weights = _update_flat_weights
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
        if "stack_rounds" in found:
            page.__dict__["stack_rounds"] = _stacking(page.__dict__["stack_rounds"])
        yield True
    finally:
        for cls, method, old in reversed(swapped):
            setattr(cls, method, old)
        hook.remove()
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
_SCAN = "_onnx2nn_scan"


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


_settle = nn.RNNBase._update_flat_weights


def _gather_weights(net: nn.Module, args: Any) -> None:
    """Layers of several weights bring them together before a branch is followed, which may set nothing."""
    for layer in net.modules():
        if isinstance(layer, nn.RNNBase):
            _settle(layer)


def _update_flat_weights(layer: nn.RNNBase) -> None:
    if not torch.compiler.is_dynamo_compiling():  # as it is inside of branches
        _settle(layer)


class _Rounds:
    """What the rounds of a scan gave, in the place of a list of it."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __getitem__(self, every: slice) -> "_Rounds":
        assert every == slice(None, None, -1)  # a page reverses its lists, and no more
        return _Rounds(self.values.flip(0))


def _stacking(stack_rounds: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A page's helper, for what a scan gave as well."""

    def stack(values: Any, shape: list[int], dtype: torch.dtype, axis: int = 0) -> Tensor:
        if isinstance(values, _Rounds):
            return values.values.movedim(0, axis)
        return stack_rounds(values, shape, dtype, axis)

    return stack


def _scan(
    body: Callable[..., tuple[tuple[Any, ...], tuple[Tensor, ...]]],
    carried: tuple[Any, ...],
    parts: tuple[tuple[Tensor, int, bool], ...],
    lists: tuple[list[Tensor], ...],
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Rounds over the steps of tensors: one after the other where their number is known."""
    from torch._higher_order_ops.scan import scan

    run: Any = scan  # untyped
    is_open = any(not isinstance(x.shape[axis], int) for x, axis, _ in parts)
    if not is_open or any(lists) or not all(isinstance(v, Tensor) for v in carried):
        every = (x.unbind(axis)[:: -1 if back else 1] for x, axis, back in parts)
        for item in zip(*every, strict=True):
            carried, grown = body(*carried, item)
            for values, value in zip(lists, grown, strict=True):
                values.append(value)
        return carried, lists

    def step(state: Any, item: Any) -> Any:
        after, grown = body(*state, item)
        return _fresh(after), _fresh(grown)

    steps = (x.movedim(axis, 0) for x, axis, _ in parts)
    steps = (x.flip(0) if back else x for x, (_, _, back) in zip(steps, parts, strict=True))
    carried, grown = run(step, _fresh(carried), _fresh(steps))
    return carried, tuple(_Rounds(y) for y in grown)


def _not(value: Any) -> Any:
    return value.logical_not() if isinstance(value, Tensor) else not value


# ---- Rewriting ----

_LEAVES = (ast.Return, ast.Break, ast.Continue, ast.Delete, ast.Yield, ast.YieldFrom, ast.Raise)


class _Rewriting:
    """Of one function, in place: its statements in order, with what is certainly bound before each."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self.changed = False
        self.count = 0
        a = function.args
        given = {x.arg for x in chain(a.posonlyargs, a.args, a.kwonlyargs)}
        given |= {x.arg for x in (a.vararg, a.kwarg) if x is not None}
        function.body = self.block(function.body, given, set())

    def block(self, body: list[ast.stmt], bound: set[str], live: set[str]) -> list[ast.stmt]:
        """The statements of a block; adds to `bound` what they bind. live: what is read after it."""
        out: list[ast.stmt] = []
        for node, after in zip(body, live_after_each(body, live), strict=True):
            out += self.statement(node, bound, after)
        return out

    def statement(self, node: ast.stmt, bound: set[str], after: set[str]) -> list[ast.stmt]:
        if isinstance(node, ast.If):
            set_there = stored([node])
            certain, may = {*bound}, not _leaves(node)
            then, other = {*bound}, {*bound}
            node.body = self.block(node.body, then, after)
            node.orelse = self.block(node.orelse, other, after)
            bound |= then & other
            out = sorted(set_there & after)
            if may and out and {*out} <= bound:
                return self.as_branch(node, out, sorted(set_there & certain))
            return [node]
        if isinstance(node, (ast.While, ast.For)):
            set_there = stored(node.body)
            may = not _leaves(node) and not node.orelse and set_there & after <= bound
            each_round = live_each_round(node, after)
            carried = sorted(set_there & bound & each_round)
            target = stored([node.target]) if isinstance(node, ast.For) else set()
            parts = _parts(node) if isinstance(node, ast.For) else []
            node.body = self.block(node.body, bound | target, each_round)
            if isinstance(node, ast.While) and may and carried:
                return self.as_loop(node, carried)
            if isinstance(node, ast.For) and may and parts and not target & (after | set_there):
                return self.as_scan(node, carried, parts)
            return [node]
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            bound |= stored([node])
        return [node]

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

    def as_scan(self, node: ast.For, carried: list[str], parts: list["_Part"]) -> list[ast.stmt]:
        """A loop over the steps of tensors, whose lists only grow, one value a round."""
        body, item = self.name("body"), self.name("item")
        lists: list[str] = []
        steps: list[ast.stmt] = []
        for statement in node.body:
            grown = _grown(statement)
            if grown is None:
                steps.append(statement)
                continue
            lists.append(grown[0])
            steps.append(ast.Assign([ast.Name(f"{body}_{len(lists)}", ast.Store())], grown[1]))
        inside = {n.id for s in steps for n in ast.walk(s) if isinstance(n, ast.Name)}
        if inside & {*lists} or len({*lists}) < len(lists):
            return [node]
        target = node.target if len(parts) > 1 else ast.Tuple([node.target], ast.Store())
        kept = [f"{body}_{k + 1}" for k in range(len(lists))]
        given = ast.Tuple([ast.Tuple(list(p), ast.Load()) for p in parts], ast.Load())
        call = _call(_SCAN, [_load(body), _tuple(carried), given, _tuple(lists)])
        out = ast.Tuple([_tuple(carried, ast.Store()), _tuple(lists, ast.Store())], ast.Store())
        return _placed(
            node,
            _function(
                body,
                [*carried, item],
                [
                    ast.Assign([target], _load(item)),
                    *steps,
                    ast.Return(ast.Tuple([_tuple(carried), _tuple(kept)], ast.Load())),
                ],
            ),
            ast.Assign([out], call),
        )


_Part = tuple[
    ast.expr, ast.expr, ast.expr
]  # a tensor, the axis of its steps, whether from the last one


def _parts(node: ast.For) -> list[_Part]:
    """What a loop over steps of tensors iterates over; empty for others."""
    every = [node.iter]
    if _calls(node.iter, "zip"):
        assert isinstance(node.iter, ast.Call)
        every = node.iter.args
        if not isinstance(node.target, ast.Tuple) or len(node.target.elts) != len(every):
            return []
    found: list[_Part] = []
    for part in every:
        is_reversed = _calls(part, "reversed")
        call = part.args[0] if is_reversed and isinstance(part, ast.Call) else part
        if (
            not isinstance(call, ast.Call)
            or not isinstance(call.func, ast.Attribute)
            or call.func.attr != "unbind"
        ):
            return []
        axis = [*call.args, *(k.value for k in call.keywords), ast.Constant(0)][0]
        found.append((call.func.value, axis, ast.Constant(is_reversed)))
    return found


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _grown(node: ast.stmt) -> tuple[str, ast.expr] | None:
    """The list and the value of `values.append(value)`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "append"
        and isinstance(call.func.value, ast.Name)
    ):
        return call.func.value.id, call.args[0]
    return None


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
