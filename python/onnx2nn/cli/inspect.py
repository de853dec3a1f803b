"""`onnx2nn inspect`: what is in a model and what would not convert."""

from typing import Any

from onnx2nn.api import inspect
from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.options import input_shapes
from onnx2nn.cli.output import (
    human_bytes,
    print_diagnostics,
    print_json,
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
        print(printable(_text(a.model, found)))
    print_diagnostics(a.model, found["diagnostics"], a.quiet)
    if code == ExitCode.DONE and not a.quiet:
        print("everything in it can be converted")
    return code


def _text(model: str, found: dict[str, Any]) -> str:
    """What is in a model, line by line; counts of operators in columns."""
    opsets = ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in found["opsets"].items())
    lines = [
        model,
        f"  producer   {found['producer'] or '(not said)'}, IR version {found['ir_version']}",
        f"  opsets     {opsets}",
        f"  nodes      {found['nodes']}, {found['nodes_after']} simplified",
        f"  weights    {human_bytes(found['weight_bytes'])}",
    ]
    for key in ("inputs", "outputs"):
        for v in found[key]:
            dims = v.get("shape")
            shape = (
                ""
                if dims is None
                else "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"
            )
            kind = "" if v.get("kind", "tensor") == "tensor" else f"{v['kind']} of "
            lines.append(f"  {key[:-1]:10} {v['name']}  {kind}{v['dtype']}{shape}")
    lines.append("  operators")
    counts = sorted(found["op_types"].items(), key=lambda kv: (-int(kv[1]), kv[0]))
    lines += [f"    {count:6} {name}" for name, count in counts]
    return "\n".join(lines)
