"""Strings that try to be code, and what emitted source holds whatever a model is called."""

import ast
import re

HOSTILE = [
    'x"); import os',
    "x'); import os; ('",
    '"""\nimport os\n"""',
    "\nimport os\n",
    "a\r\nimport os\r",
    "\\",
    'a\\"""; import os #',
    "\x00\x1b[2J\x7f",
    "\u2028import os\u2029",
    "\x0cimport os\x0b\x85",
    "# -*- coding: utf-7 -*-\n+ACI-",
    "{0}{self}%s%n",
    "__import__('os').system('x')",
    "__class__",
    "self",
    "torch",
    "forward",
    "import",
    "été",
    "ﬁ",
    "def",
    "training",
    "_parameters",
    "a" * 500,
    "\ud7ff\U0001f40d",
    ".",
    "..",
    "a..b",
    ".a.",
    "0",
    "/" * 40,
    "load",
    "Path",
    "nn",
    "F",
    "math",
    "__init__",
    "__file__",
    "state_dict",
    "x.weight",
    "register_buffer",
]

IMPORTS = {
    "import locale",
    "import math",
    "import re",
    "import torch",
    "import numpy as np",
    "import torch.nn.functional as F",
    "from pathlib import Path",
    "from torch import Tensor, nn",
    "from torch import nn",
    "from safetensors.torch import load_file",
}
FORBIDDEN = {
    "exec",
    "eval",
    "compile",
    "open",
    "__import__",
    "getattr",
    "setattr",
    "globals",
    "os",
    "system",
}


def check_source(source: str, class_name: str) -> None:
    """The source parses, and holds what emitted code holds and nothing else."""
    tree = ast.parse(source)
    top = [type(n) for n in tree.body]
    assert set(top) <= {
        ast.Expr,
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.ClassDef,
        ast.Assign,
    }
    classes = [n.name for n in tree.body if isinstance(n, ast.ClassDef)]
    assert classes[-1] == class_name
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name) for name in classes[:-1])
    # The only bare expression is the docstring.
    assert top.count(ast.Expr) == 1
    assert isinstance(tree.body[0], ast.Expr)
    assert isinstance(tree.body[0].value, ast.Constant)
    # A member whose name no dot reaches: getattr(self, "block1-0").
    members = {
        id(n.func)
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and ast.unparse(n.func) == "getattr"
        and len(n.args) == 2
        and isinstance(n.args[1], ast.Constant)
        and re.fullmatch(r"(self|getattr\(self.*)[.\w\[\]]*", ast.unparse(n.args[0]))
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert ast.unparse(node) in IMPORTS
        assert not isinstance(
            node, (ast.Global, ast.Nonlocal, ast.Try, ast.AsyncFunctionDef, ast.NamedExpr)
        )
        if isinstance(node, ast.Name) and id(node) not in members:
            assert node.id not in FORBIDDEN
            assert node.id.isascii() or node.id == class_name
        if isinstance(node, ast.Attribute):
            # model.eval() and re.compile() are meant.
            assert node.attr in ("eval", "compile") or node.attr not in FORBIDDEN
            assert node.attr.isascii()
    compile(source, "model.py", "exec")
