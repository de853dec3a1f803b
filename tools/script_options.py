"""Spells out what helpers hand on by `**options`, which TorchScript has no word for."""

import ast
import copy

Functions = dict[str, ast.FunctionDef]


def spelled_out(functions: Functions) -> None:
    """Replaces each `**options` by the parameters that the functions called with it take."""
    done: set[str] = set()

    def visit(node: ast.FunctionDef) -> None:
        if node.name in done:
            return
        done.add(node.name)
        if node.args.kwarg is None:
            return
        word = node.args.kwarg.arg
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and hands_on(call, word):
                callee = functions.get(ast.unparse(call.func))
                if callee is None or callee.args.vararg is not None:
                    return
                visit(callee)
                if callee.args.kwarg is not None:
                    return
                spell_out(node, call, callee, word)
        read_options(node, word)
        if not any(isinstance(n, ast.Name) and n.id == word for n in ast.walk(node)):
            node.args.kwarg = None

    for function in functions.values():
        visit(function)


def hands_on(call: ast.Call, word: str) -> bool:
    return any(k.arg is None and ast.unparse(k.value) == word for k in call.keywords)


def parameters(function: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    """All parameters with their defaults."""
    a = function.args
    plain: list[ast.expr | None] = [None] * (len(a.args) - len(a.defaults))
    return [*zip(a.args, plain + list(a.defaults)), *zip(a.kwonlyargs, a.kw_defaults)]


def spell_out(node: ast.FunctionDef, call: ast.Call, callee: ast.FunctionDef, word: str) -> None:
    call.keywords = [k for k in call.keywords if k.arg is not None or ast.unparse(k.value) != word]
    own = {p.arg for p, _ in parameters(node)}
    # A starred argument stands for the positional parameters that are left over.
    given = {k.arg for k in call.keywords}
    takes = parameters(callee)
    positional = [p.arg for p, _ in takes[: len(callee.args.args)]]
    starred = any(isinstance(x, ast.Starred) for x in call.args)
    plain = {p.arg for p, default in takes if default is None}
    given |= plain if starred else set(positional[: len(call.args)])
    for parameter, default in takes:
        if parameter.arg in given:
            continue
        if parameter.arg not in own:
            rename_variable(node, parameter.arg)
            add(node, copy.deepcopy(parameter), copy.deepcopy(default))
        call.keywords.append(ast.keyword(parameter.arg, ast.Name(parameter.arg, ast.Load())))


def add(node: ast.FunctionDef, parameter: ast.arg, default: ast.expr | None) -> None:
    node.args.kwonlyargs.append(parameter)
    node.args.kw_defaults.append(default)


def rename_variable(node: ast.FunctionDef, name: str) -> None:
    """Gives a variable another name that has the one of an option."""
    for n in ast.walk(node):
        if isinstance(n, ast.Name) and n.id == name:
            n.id = f"{name}_here"


class ReadOptions(ast.NodeTransformer):
    """`options.get("clip", 0.0)` as the parameter of that name."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.read: dict[str, ast.expr | None] = {}

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if ast.unparse(node.func) != f"{self.word}.get" or not isinstance(
            node.args[0], ast.Constant
        ):
            return node
        name = str(node.args[0].value)
        self.read[name] = node.args[1] if len(node.args) > 1 else None
        return ast.Name(name, ast.Load())


def read_options(node: ast.FunctionDef, word: str) -> None:
    own = {p.arg for p, _ in parameters(node)}
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{word}.get":
            name = ast.literal_eval(call.args[0])
            if name not in own:
                rename_variable(node, name)
    reader = ReadOptions(word)
    node.body = [reader.visit(s) for s in node.body]
    for name, default in reader.read.items():
        if name in own:
            continue
        if default is None:  # the only one of these is a limit
            add(
                node, ast.arg(name, ast.parse("float | None", mode="eval").body), ast.Constant(None)
            )
        else:
            kind = type(ast.literal_eval(default)).__name__
            add(node, ast.arg(name, ast.Name(kind, ast.Load())), default)
