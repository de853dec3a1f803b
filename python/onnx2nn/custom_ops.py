"""Operators that the caller supplies torch code for."""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = [
    "known_ops",
    "register_op",
]

# By domain and type, as the core takes them.
known_ops: dict[tuple[str, str], dict[str, str]] = {}


def register_op(domain: str, op_type: str, function: Callable[..., Any] | str) -> None:
    """Supply torch code for an operator that onnx2nn does not know.

    domain, op_type: as the model's nodes have them; "" is ai.onnx.
    function: called with the node's inputs (None for one that is missing) and then its attributes
    as keywords; returns the output, or a tuple of them. Its source is copied into the emitted file,
    so it may use `torch`, `F` (torch.nn.functional) and `math` and nothing else from outside. The
    source may also be given as a string that holds one `def`.
    """
    code = function if isinstance(function, str) else inspect.getsource(function)
    code = textwrap.dedent(code)
    match = re.search(r"^def (\w+)\(", code, re.MULTILINE)
    if match is None:
        raise ValueError("register_op needs a plain function: its source must hold a `def`")
    compile(code, f"<{domain}::{op_type}>", "exec")
    known_ops[(domain, op_type)] = {
        "domain": domain,
        "op_type": op_type,
        "name": match.group(1),
        "source": code,
    }
