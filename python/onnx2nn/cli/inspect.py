"""`onnx2nn inspect`: what is in a model and what would not convert."""

from typing import Any

from onnx2nn.api import inspect
from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.options import input_shapes
from onnx2nn.cli.output import (
    human_bytes,
    print_diagnostics,
    print_json,
    print_table,
    printable,
    result,
)
from onnx2nn.cli.parser import Request

__all__ = ["run"]


def run(request: Request) -> ExitCode:
    """Show what is in the model."""
    a = request.values
    found = inspect(
        a.model,
        simplify=not a.no_simplify,
        input_shapes=input_shapes(a.input_shape, a),
        allow_unknown=a.allow_unknown,
        data_roots=a.data_root,
        drop_undefined_outputs=a.drop_undefined_outputs,
    )
    code = ExitCode.DONE if found["convertible"] else ExitCode.WRONG
    if a.json:
        print_json(result(request, code, **found))
        return code
    if not a.quiet:
        _show(a.model, found)
    print_diagnostics(a.model, found["diagnostics"], a.quiet)
    if code == ExitCode.DONE and not a.quiet:
        print("everything in it can be converted")
    return code


def _show(model: str, found: dict[str, Any]) -> None:
    """What is in a model: a few lines, its inputs and outputs, counts of operators."""
    opsets = ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in found["opsets"].items())
    lines = [
        model,
        f"producer  {found['producer'] or '(not said)'}, IR version {found['ir_version']}",
        f"opsets    {opsets}",
        f"nodes     {found['nodes']}, {found['nodes_after']} simplified",
        f"weights   {human_bytes(found['weight_bytes'])}",
    ]
    print("\n  ".join(map(printable, lines)) + "\n")
    rows = []
    for key in ("input", "output"):
        for v in found[f"{key}s"]:
            dims = v.get("shape")
            shape = (
                "" if dims is None else f"[{', '.join('?' if d is None else str(d) for d in dims)}]"
            )
            kind = "" if v.get("kind", "tensor") == "tensor" else f"{v['kind']} of "
            rows.append([key, v["name"], f"{kind}{v['dtype']}{shape}"])
    print_table(["", "name", "type"], rows)
    print()
    counts = sorted(found["op_types"].items(), key=lambda kv: (-int(kv[1]), kv[0]))
    print_table(["operator", "nodes"], [[name, str(n)] for name, n in counts], right=range(1, 2))
    print()
