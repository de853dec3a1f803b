"""Brings runtime helpers to the Python that TorchScript's front end takes: for gen_script_helpers.py."""

import ast
import re
from typing import Any

import torch
from script_types import annotation, call, callables, is_tensor_or_number, name

DTYPE_FACTS = {
    "itemsize": "itemsize_of",
    "is_floating_point": "is_floating_point_dtype",
    "is_signed": "is_signed_dtype",
}
LIMITS = {"min", "max", "bits", "eps"}
STAND_INS: dict[str, ast.expr] = {
    kind: ast.Constant(value)
    for kind, value in (("int", 0), ("float", 0.0), ("bool", False), ("str", ""))
}
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


def is_function(node: ast.expr) -> bool:
    found = re.fullmatch(r"(torch|F)\.(\w+)", ast.unparse(node))
    if found is None:
        return False
    owner = torch.nn.functional if found[1] == "F" else torch
    return callable(getattr(owner, found[2], None))


class Dialect(ast.NodeTransformer):
    """Brings a helper to what TorchScript's front end takes.

    functions: all helpers as they are, by name.
    """

    def __init__(self, functions: dict[str, ast.FunctionDef]) -> None:
        self.functions = functions
        self.tensors: set[str] = set()  # variables that were a tensor or a number
        self.tables: dict[str, list[ast.expr]] = {}  # variables that are one of several functions
        self.returns = ""
        self.limits: dict[str, tuple[str, ast.expr]] = {}  # variables that hold a torch.iinfo
        self.lists = 0  # that were comprehensions
        self.types: dict[str, str] = {}  # of parameters
        self.callables: dict[str, str] = {}  # parameters that are functions

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        a = node.args
        self.callables = callables(node)
        for p in [*a.args, *a.kwonlyargs]:
            if p.arg in self.callables:
                optional = " | None" if "None" in ast.unparse(p.annotation or name("")) else ""
                p.annotation = ast.parse(f"list[Tensor]{optional}", mode="eval").body
        star = star_name(node) if a.vararg is not None else ""
        required = len(a.args) - len(a.defaults)
        plain, defaulted = a.args[:required], a.args[required:]
        words = list(zip(a.kwonlyargs, a.kw_defaults, strict=True))
        if defaulted:
            # What comes by its place keeps it, so that what has to be named has a default, which is
            # never used.
            words = [
                (p, d or STAND_INS.get(ast.unparse(p.annotation or name("")))) for p, d in words
            ]
        a.args = [
            *plain,
            *[p for p, d in words if d is None],
            *defaulted,
            *[p for p, d in words if d is not None],
        ]
        a.defaults += [d for _, d in words if d is not None]
        a.kwonlyargs, a.kw_defaults = [], []
        first: list[ast.stmt] = []
        if a.vararg is not None:
            # All that is left over as one list, whose name says after how many parameters it comes.
            kind = ast.unparse(a.vararg.annotation or name("Any"))
            a.args.insert(0, ast.arg(star, ast.parse(f"list[{kind}]", mode="eval").body))
            first += ast.parse(f"{a.vararg.arg} = {star}").body
            a.vararg = None
        for k, p in enumerate(a.args):
            if is_tensor_or_number(p.annotation):
                self.tensors.add(p.arg)
                at = k - (len(a.args) - len(a.defaults))
                if at >= 0 and ast.unparse(a.defaults[at]) != "None":
                    # TorchScript has no tensors as defaults.
                    given = f"if {p.arg} is None:\n    {p.arg} = torch.as_tensor"
                    first += ast.parse(f"{given}({ast.unparse(a.defaults[at])})").body
                    p.annotation = ast.parse("Tensor | int | None", mode="eval").body
                    a.defaults[at] = ast.Constant(None)
            p.annotation = annotation(p.annotation)
            self.types[p.arg] = "" if p.annotation is None else ast.unparse(p.annotation)
        node.returns = annotation(node.returns)
        self.returns = "" if node.returns is None else ast.unparse(node.returns)
        node.body = [
            s
            for s in node.body
            if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        ]
        node.body = self.hoisted(node.body)
        self.generic_visit(node)
        node.body = first + node.body
        if self.callables:
            a.args.insert(0, ast.arg("self"))
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
        if is_tensor_or_number(node.annotation) and node.value is not None:
            self.tensors.add(ast.unparse(node.target))
            node.value = self.as_tensor(node.value)
        node.annotation = annotation(node.annotation) or node.annotation
        v = node.value
        if (
            ast.unparse(node.annotation) == "List[float]"
            and isinstance(v, ast.Call)
            and isinstance(v.func, ast.Attribute)
            and v.func.attr == "tolist"
        ):
            node.value = call("numbers_of", v.func.value)
        self.generic_visit(node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, (ast.FloorDiv, ast.Mod)) and isinstance(node.target, ast.Name):
            value = ast.BinOp(name(node.target.id), node.op, node.value)
            return ast.Assign([node.target], value)
        return node

    def as_tensor(self, value: ast.expr) -> ast.expr:
        """A number or tensor as a tensor; what may be None stays as it is."""
        text = ast.unparse(value)
        if text == "None" or text in self.tensors:
            return value
        return ast.Call(ast.Attribute(name("torch"), "as_tensor", ast.Load()), [value], [])

    def visit_Return(self, node: ast.Return) -> Any:
        self.generic_visit(node)
        if self.returns == "Tuple[float, float]" and isinstance(node.value, ast.Tuple):
            node.value.elts = [call("float", e) for e in node.value.elts]
        return node

    def unpacked_or_none(self, node: ast.Assign) -> list[ast.stmt]:
        """`a, b = f(x) if x is not None else (None, None)`, as a branch."""
        target, value = node.targets[0], node.value
        assert isinstance(target, ast.Tuple)
        assert isinstance(value, ast.IfExp)
        test, given = ast.unparse(value.test), value.body
        if is_nothing(value.body):
            test, given = f"not ({test})", value.orelse
        names = [ast.unparse(t) for t in target.elts]
        text = "".join(f"{n}: Optional[Tensor] = None\n" for n in names)
        text += f"if {test}:\n    {', '.join(n + '_' for n in names)} = {ast.unparse(given)}\n"
        text += "".join(f"    {n} = {n}_\n" for n in names)
        made: list[ast.stmt] = []
        for s in ast.parse(text).body:
            new = self.visit(s)
            made += new if isinstance(new, list) else [new]
        return made

    def visit_Assign(self, node: ast.Assign) -> Any:
        v = node.value
        target = node.targets[0]
        if isinstance(target, ast.Name) and isinstance(v, ast.Constant) and v.value is None:
            # What is set later is a tensor; where it is not, the helper says its type.
            return ast.parse(f"{target.id}: Optional[Tensor] = None").body[0]
        if (
            isinstance(v, ast.IfExp)
            and isinstance(target, ast.Tuple)
            and (is_nothing(v.body) or is_nothing(v.orelse))
        ):
            return self.unpacked_or_none(node)
        if isinstance(target, ast.Name):
            which: ast.expr | None = None
            if isinstance(v, ast.Subscript) and isinstance(v.value, ast.Tuple):
                if all(is_function(e) for e in v.value.elts):
                    self.tables[target.id], which = v.value.elts, v.slice
            elif isinstance(v, ast.IfExp) and is_function(v.body) and is_function(v.orelse):
                self.tables[target.id] = [v.body, v.orelse]
                which = ast.IfExp(v.test, ast.Constant(0), ast.Constant(1))
            if which is not None:
                return self.visit(ast.Assign([ast.Name(f"{target.id}_at", ast.Store())], which))
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

    def truth(self, node: ast.expr) -> ast.expr:
        """A condition, where a variable that may be None is one."""
        kind = self.types.get(ast.unparse(node), "") if isinstance(node, ast.Name) else ""
        if kind in ("Optional[int]", "Optional[float]"):
            text = ast.unparse(node)
            return ast.parse(f"{text} is not None and {text} != 0", mode="eval").body
        if "List[" in kind:
            text = ast.unparse(node)
            there = f"{text} is not None and " if kind.startswith("Optional[") else ""
            return ast.parse(f"{there}len({text}) > 0", mode="eval").body
        if kind.startswith("Optional["):
            return ast.Compare(node, [ast.IsNot()], [ast.Constant(None)])
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        self.generic_visit(node)
        among = node.comparators[0]
        if isinstance(node.ops[0], ast.In) and isinstance(among, ast.Tuple):
            texts = [ast.unparse(e) for e in among.elts]
            if "None" in texts:
                x = ast.unparse(node.left)
                tests = [f"{x} is None"] + [f"{x} == {t}" for t in texts if t != "None"]
                made = ast.parse(" or ".join(tests), mode="eval").body
                mark_condition(made)
                return made
        return node

    # `a or b` is a bool in TorchScript, whatever a and b are: only where it is asked as a condition is it kept.
    def visit_If(self, node: ast.If) -> Any:
        node.test = self.truth(node.test)
        mark_condition(node.test)
        return self.generic_visit(node)

    def visit_While(self, node: ast.While) -> Any:
        mark_condition(node.test)
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            node.operand = self.truth(node.operand)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, ast.Pow) and is_integer(node.left) and is_integer(node.right):
            return ast.Constant(ast.literal_eval(node.left) ** ast.literal_eval(node.right))
        return node

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        node.test = self.truth(node.test)
        arms = node.body, node.orelse
        if all(isinstance(a, ast.Tuple) for a in arms):
            one, two = (a.elts for a in arms if isinstance(a, ast.Tuple))
            if len(one) != len(two):
                node.body, node.orelse = ast.List(one, ast.Load()), ast.List(two, ast.Load())
        if "[]" in {ast.unparse(a) for a in arms}:
            empty = ast.parse("torch.jit.annotate(List[int], [])", mode="eval").body
            node.body, node.orelse = (empty if ast.unparse(a) == "[]" else a for a in arms)
        mark_condition(node.test)
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        if getattr(node, "is_condition", False) or all(is_boolean(v) for v in node.values):
            node.values = [self.truth(v) for v in node.values]
            return node
        out = node.values[-1]
        for value in reversed(node.values[:-1]):
            text = ast.unparse(value)
            test = self.truth(value)
            kind = self.types.get(text, "")
            if "List[" in kind and ast.unparse(out) == "[]":
                inner = kind[9:-1] if kind.startswith("Optional[") else kind
                out = ast.parse(f"torch.jit.annotate({inner}, [])", mode="eval").body
            yes, no = (value, out) if isinstance(node.op, ast.Or) else (out, value)
            out = ast.IfExp(test, yes, no)
        return out

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        text = ast.unparse(node.slice)
        axis = re.fullmatch(r"\(slice\(None\),\) \* (\w+) \+ \(slice\((.*)\),\)", text)
        if axis is not None:
            x = ast.unparse(node.value)
            made = f"torch.ops.aten.slice({x}, {axis[1]}, {axis[2]})"
            return self.visit(ast.parse(made, mode="eval").body)
        if isinstance(node.slice, ast.Tuple) and isinstance(node.ctx, ast.Load):
            spread = [isinstance(e, ast.Starred) for e in node.slice.elts]
            if any(spread) and all(
                s or isinstance(e, ast.Name) for s, e in zip(spread, node.slice.elts)
            ):
                places = added([self.visit(e) for e in node.slice.elts])
                return call("index_at", self.visit(node.value), places)
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
        if function in self.callables:
            method = ast.Attribute(name("self"), function, ast.Load())
            made = ast.Call(method, [name(function), added(node.args)], [])
            if self.callables[function] != "Tensor":
                return made
            return ast.Subscript(made, ast.Constant(0), ast.Load())
        if function in self.tables:
            out: ast.expr | None = None
            for i, f in reversed(list(enumerate(self.tables[function]))):
                one = ast.Call(f, node.args, node.keywords)
                test = ast.Compare(name(f"{function}_at"), [ast.Eq()], [ast.Constant(i)])
                out = one if out is None else ast.IfExp(test, one, out)
            return out
        if function in ("min", "max") and [k.arg for k in node.keywords] == ["default"]:
            x = ast.unparse(node.args[0])
            return ast.parse(
                f"({function}({x}) if len({x}) > 0 else {ast.unparse(node.keywords[0].value)})",
                mode="eval",
            ).body
        if function.endswith(".nonzero") and node.keywords:
            assert isinstance(node.func, ast.Attribute)
            return ast.parse(f"{function}().unbind(1)", mode="eval").body
        seeded = re.fullmatch(r"torch\.Generator\((.*)\)\.manual_seed", function)
        if seeded is not None:
            seed = ast.unparse(node.args[0])
            device = f"device={seeded[1]}, " if seeded[1] else ""
            made = f"torch.Generator({device}seed={seed})"
            return ast.parse(made, mode="eval").body
        if function.endswith(".tolist") and isinstance(node.func, ast.Attribute):
            return call("integers_of", node.func.value)
        if function in self.functions:
            callee = self.functions[function]
            self.give_tensors(node, callee)
            count = len(callee.args.args)
            if callee.args.vararg is not None and not any(
                isinstance(x, ast.Starred) for x in node.args[:count]
            ):
                rest = ast.List(node.args[count:], ast.Load())
                node.args = [self.visit(rest), *node.args[:count]]
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
        if function == "F.pad":
            for k in node.keywords:
                if k.arg == "value":
                    k.value = call("float", k.value)
        if function == "bool" and node.args:
            mark_condition(node.args[0])
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "view"
            and is_dtype(node.args)
        ):
            # Integers of one width: a conversion wraps round, as looking at the bits does.
            return call("same_bits", node.func.value, *node.args)
        if function == "sorted" and [k.arg for k in node.keywords] == ["reverse"]:
            return call("falling", *node.args)
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

    def give_tensors(self, node: ast.Call, callee: ast.FunctionDef) -> None:
        """Numbers as tensors, where the callee takes either."""
        a = callee.args
        wants = {p.arg: p.annotation for p in [*a.args, *a.kwonlyargs]}
        for i, (value, parameter) in enumerate(zip(node.args, a.args)):
            if isinstance(value, ast.Starred):
                break
            if is_tensor_or_number(wants[parameter.arg]):
                node.args[i] = self.as_tensor(value)
        for k in node.keywords:
            if k.arg in wants and is_tensor_or_number(wants[k.arg]):
                k.value = self.as_tensor(k.value)


def star_name(node: ast.FunctionDef) -> str:
    """What stands for a starred parameter; src/emit/script_expressions.cpp knows it by this."""
    assert node.args.vararg is not None
    return f"star{len(node.args.args)}_{node.args.vararg.arg}"


def is_integer(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def is_nothing(node: ast.expr) -> bool:
    return isinstance(node, ast.Tuple) and {ast.unparse(e) for e in node.elts} == {"None"}


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
