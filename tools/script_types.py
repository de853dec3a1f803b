"""What annotations of helpers are in TorchScript: for gen_script_helpers.py."""

import ast
import copy


def name(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


def call(function: str, *args: ast.expr) -> ast.Call:
    return ast.Call(name(function), list(args), [])


def members(union: ast.expr | None) -> list[ast.expr]:
    if union is None:
        return []
    if isinstance(union, ast.BinOp) and isinstance(union.op, ast.BitOr):
        return members(union.left) + members(union.right)
    return [union]


def annotation(node: ast.expr | None) -> ast.expr | None:
    """The type in TorchScript's words; strings, of which it has no tensors, are no alternative."""
    if node is None:
        return None
    if isinstance(node, ast.BinOp):
        parts = [annotation(m) for m in members(node) if "np." not in ast.unparse(m)]
        by_text = {ast.unparse(p): p for p in parts if p is not None}
        known = [p for text, p in by_text.items() if text != "None"]
        optional = "None" in by_text
        texts = {ast.unparse(p) for p in known}
        # What is a list of numbers or a shape is a list; a tensor may stand for the numbers in it.
        if len(texts) > 1 and texts <= {"List[int]", "torch.Size"}:
            known = known[:1]
        if len(texts) > 1 and "List[str]" in texts:
            known = [p for p in known if ast.unparse(p) != "List[str]"]
        if is_tensor_or_number(node):
            known = [name("Tensor")]
        if texts == {"Tensor", "List[Tensor]"}:
            known = [name("Tensor")]  # of the sequence there is a helper of its own
        if texts == {"float", "str"}:
            known = [name("float")]  # the string is for tensors of strings
        if texts - {"None"} == {"torch.device", "str"}:
            known = [known[0] if ast.unparse(known[0]) != "str" else known[1]]
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


def is_tensor_or_number(node: ast.expr | None) -> bool:
    """Whether the type is a tensor or a number: a tensor in TorchScript, which callers make of it."""
    texts = {ast.unparse(m) for m in members(node)}
    numbers = {"int", "float", "bool"}
    return "Tensor" in texts and bool(texts & numbers) and texts <= {"Tensor", "None", *numbers}


def callables(node: ast.FunctionDef) -> dict[str, str]:
    """The parameters that are functions, with what those give. TorchScript has no function as a value:
    such a helper is a method, which calls methods of the same module, and in the function's place stand
    the tensors that it reads besides its arguments."""
    found = {}
    for p in [*node.args.args, *node.args.kwonlyargs]:
        for member in members(p.annotation):
            if isinstance(member, ast.Subscript) and ast.unparse(member.value) == "Callable":
                assert isinstance(member.slice, ast.Tuple)
                found[p.arg] = ast.unparse(member.slice.elts[1])
    return found


def for_sequences(node: ast.FunctionDef) -> ast.FunctionDef | None:
    """The helper once more, for a sequence: where its argument is a tensor or a sequence of tensors."""
    both = {"Tensor", "list[Tensor]"}
    kinds = members(node.args.args[0].annotation) if node.args.args else []
    if not both <= {ast.unparse(m) for m in kinds}:
        return None
    made = copy.deepcopy(node)
    made.name += "_sequence"
    optional = " | None" if "None" in {ast.unparse(m) for m in kinds} else ""
    made.args.args[0].annotation = ast.parse(f"list[Tensor]{optional}", mode="eval").body
    if made.returns is not None and both <= {ast.unparse(m) for m in members(made.returns)}:
        made.returns = ast.parse("list[Tensor]", mode="eval").body
    return made
