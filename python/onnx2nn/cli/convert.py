"""`onnx2nn convert`: source and weights, checked."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn.api import Converted, check_outputs, convert
from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.options import (
    check_options,
    conversion_options,
    input_shapes,
    missing_for_check,
    start_oracle,
)
from onnx2nn.cli.output import (
    human_bytes,
    print_diagnostics,
    print_json,
    print_not_checked,
    print_report,
    printable,
    result,
    verdict,
)
from onnx2nn.cli.parser import Request
from onnx2nn.cli.progress import Stages
from onnx2nn.cli.report import (
    check_report,
    commands,
    module_of,
    refusal_reported,
    write_report,
)
from onnx2nn.cli.simplify import simplify_file
from onnx2nn.errors import counted

if TYPE_CHECKING:
    from onnx2nn.check.verification import Report

__all__ = ["run"]

_STUBS = "the source holds stubs for unknown operators: fill them in, then onnx2nn verify"


def run(request: Request) -> ExitCode:
    """Convert, check, and say how to use what was written."""
    a = request.values
    check_report(request)
    missing = None if a.no_check else missing_for_check()
    if not a.no_check and missing is None:
        start_oracle()
    fixed = input_shapes(a.input_shape, a)
    found: dict[str, Any] = {"files": []}
    if a.simplify_path:
        if a.output:  # nothing is written unless all may be
            check_outputs(a.model, a.output, [a.simplify_path], force=a.force)
        code = simplify_file(request, a.simplify_path, fixed, found)
        # --simplify_path alone only simplifies.
        if code != ExitCode.DONE or not a.output:
            if a.json:
                print_json(result(request, code, **found))
            return code
    options = conversion_options(a)
    with Stages(2, a.quiet or a.json) as stages, refusal_reported(request):
        stages("convert")
        done = convert(
            a.model,
            a.output or "",
            input_shapes=fixed,
            class_name=a.class_name,
            flat=a.flat,
            comments_origin=a.comments_origin,
            max_shard_size=a.max_shard_size,
            tp_plan=a.tp_plan,
            force=a.force,
            progress=stages,
            **options,
        )
    if not a.json:
        print_diagnostics(a.model, done.diagnostics, a.quiet)
        if not a.quiet:
            _say_what_was_written(a.model, done)
    report, skipped = None, None
    if a.no_check:
        skipped = "not asked for"
    elif done.unknown_operators:
        skipped = _STUBS
    elif done.files[0].lower().endswith(".pte"):
        skipped = (
            "a .pte file is run by ExecuTorch: its module was not checked (give x.pt2 for that)"
        )
    else:
        skipped = missing
    if skipped is None:
        from onnx2nn.check.verification import verify

        check = check_options(a)
        # A fixed shape is also the one to check with.
        check["input_shapes"] = {**(fixed or {}), **(check["input_shapes"] or {})} or None
        with Stages(4, a.quiet or a.json) as stages:
            report = verify(
                a.model,
                done.files[0],
                progress=stages,
                **check,
                **options,
            )
        skipped = report.skipped
    code = ExitCode.DONE if a.no_check else verdict(skipped, report)
    if a.report is not None:
        from onnx2nn.report import Subject

        module = module_of(
            a.model, {"input_shapes": fixed, "class_name": a.class_name, **options}, report
        )
        found["files"] += write_report(
            request,
            Subject.of_conversion(a.model, commands(request), done, module, report, skipped),
        )
    if a.json:
        found["files"] += done.files
        found.update(
            class_name=done.class_name,
            inputs=done.inputs,
            outputs=done.outputs,
            diagnostics=done.diagnostics,
            stats=done.stats,
            check=report.to_dict() if report is not None else {"ok": None, "skipped": skipped},
        )
        print_json(result(request, code, **found))
        return code
    if skipped is not None:
        died = report is not None and report.died
        print_not_checked(skipped, request, report is not None, died, not a.no_check)
    elif report is not None:
        print_report(report, done.files[0], a.quiet)
    if code in (ExitCode.DONE, ExitCode.NOT_CHECKED) and not a.quiet:
        print("\n" + usage(done, report))
    return code


def _say_what_was_written(model: str, done: Converted) -> None:
    stats = done.stats
    sizes = ", ".join(f"{f} ({human_bytes(os.path.getsize(f))})" for f in done.files)
    before, after = stats["nodes_before"], stats["nodes_after"]
    nodes = counted(before, "node") + ("" if before == after else f", {after:,} simplified")
    weights = human_bytes(stats.get("weight_bytes", 0))
    print(f"{printable(model)}: {nodes}, {weights} of weights")
    print(f"wrote {printable(sizes)}")
    sys.stdout.flush()


# ---- How to use a written module ----


def usage(done: Converted, report: "Report | None") -> str:
    """How to use a written module, for people to paste; inputs have shapes that the check found."""
    path = Path(done.files[0])
    shapes = {n: s for n, _, s in report.inputs if s is not None} if report is not None else {}
    arguments = _repeated([_example(i, shapes.get(str(i["name"]))) for i in done.inputs])
    lines = []
    if any("np." in x for x in arguments):
        lines.append("import numpy as np")
    lines.append("import torch")
    if path.suffix == ".pt":
        lines += ["", f"net = torch.jit.load({str(path)!r})"]
    elif path.suffix == ".pt2":
        lines += ["", f"net = torch.export.load({str(path)!r}).module()"]
    elif path.suffix == ".pte":
        lines += [
            "from executorch.runtime import Runtime",
            "",
            f"method = Runtime.get().load_program({str(path)!r}).load_method('forward')",
            f"outputs = method.execute([{', '.join(arguments)}])",
        ]
        return "Use it:\n" + "\n".join(f"    {line}".rstrip() for line in lines)
    else:
        if str(path.parent) != ".":
            lines += [f"import sys; sys.path.insert(0, {str(path.parent)!r})"]
        if path.stem.isidentifier():
            lines.append(f"from {path.stem} import load")
        else:
            lines.append(f"import importlib; load = importlib.import_module({path.stem!r}).load")
        lines += ["", "net = load()"]
    target = "y" if len(done.outputs) == 1 else "outputs"
    lines.append(f"{target} = net({', '.join(arguments)})")
    return "Use it:\n" + "\n".join(f"    {line}".rstrip() for line in lines)


def _repeated(arguments: list[str]) -> list[str]:
    """Arguments of which a run of equal ones is said once."""
    out: list[str] = []
    at = 0
    while at < len(arguments):
        end = at
        while end < len(arguments) and arguments[end] == arguments[at]:
            end += 1
        count = end - at
        out += [arguments[at]] * count if count < 3 else [f"*{count} * [{arguments[at]}]"]
        at = end
    return out


# What torch cannot compute on travels in a wider type.
_CARRIED = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8"}
_CARRIED |= dict.fromkeys(("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"), "float32")


def _example(value: dict[str, Any], found: list[int] | None) -> str:
    """An expression for one input."""
    kind = value.get("kind", "tensor")
    if kind == "optional":
        return "None"
    if kind == "map":
        return "{}"
    declared = value.get("shape") or []
    shape = found or [d if isinstance(d, int) and d > 0 else 1 for d in declared]
    dims = ", ".join(map(str, shape)) or "()"
    dtype = str(value.get("dtype"))
    if dtype in ("string", "object"):
        text = f"np.full(({dims.strip('()')}{',' if len(shape) == 1 else ''}), '', object)"
    elif dtype == "float32":
        text = f"torch.randn({dims})"
    else:
        text = f"torch.zeros({dims}, dtype=torch.{_CARRIED.get(dtype, dtype)})"
    return f"[{text}]" if kind == "sequence" else text
