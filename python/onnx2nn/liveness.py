"""Which variables of a function are still to be read: what a page's statements need of those before them."""

import ast
from collections.abc import Iterable

__all__ = ["live_after_each", "live_each_round", "stored"]


def live_after_each(body: list[ast.stmt], after: set[str]) -> list[set[str]]:
    """For each statement of a block the variables whose values are read later.

    after: those that are read after the block.
    """
    out: list[set[str]] = []
    live = after
    for node in reversed(body):
        out.append(live)
        live = _live_before(node, live)
    return out[::-1]


def _live_before(node: ast.stmt, after: set[str]) -> set[str]:
    """The variables whose values before the statement are read in it or later."""
    if isinstance(node, ast.If):
        return _loaded([node.test]) | _before(node.body, after) | _before(node.orelse, after)
    if isinstance(node, ast.While):
        return live_each_round(node, after)
    if isinstance(node, ast.For):
        return live_each_round(node, after) | _loaded([node.iter])
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return (after - stored([node])) | _loaded([node])
    if isinstance(node, ast.AugAssign):
        return after | _loaded([node]) | stored([node])
    return after | _loaded([node])


def live_each_round(node: ast.While | ast.For, after: set[str]) -> set[str]:
    """The variables whose values before a round, or after the last one, are read in it or later."""
    item = stored([node.target]) if isinstance(node, ast.For) else set()  # set anew by each round
    test = _loaded([node.test]) if isinstance(node, ast.While) else set()
    whole = _before(node.orelse, after) | after | test
    once = _before(node.body, whole) - item
    return whole | once | (_before(node.body, whole | once) - item)


def _before(body: list[ast.stmt], after: set[str]) -> set[str]:
    live = after
    for node in reversed(body):
        live = _live_before(node, live)
    return live


def _loaded(nodes: Iterable[ast.AST]) -> set[str]:
    every = (n for node in nodes for n in ast.walk(node))
    return {n.id for n in every if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def stored(nodes: Iterable[ast.AST]) -> set[str]:
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
