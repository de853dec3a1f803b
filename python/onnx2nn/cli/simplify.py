"""`onnx2nn simplify`: a smaller ONNX file that does the same, checked before it is there."""

import os
import sys
from typing import TYPE_CHECKING, Any

from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.options import check_options, freed, input_shapes, missing_for_check, start_oracle
from onnx2nn.cli.output import (
    human_bytes,
    paint,
    print_json,
    print_misses,
    print_not_checked,
    print_report,
    print_rules,
    print_simplified,
    printable,
    result,
    verdict,
)
from onnx2nn.cli.parser import Request
from onnx2nn.cli.progress import Stages
from onnx2nn.cli.report import check_report, commands, inspected, write_report

if TYPE_CHECKING:
    from onnx2nn.check.result import Report

__all__ = ["run", "simplify_file"]


def run(request: Request) -> ExitCode:
    """Simplify and check, or list the rules."""
    a = request.values
    if a.list_rules:
        return _list_rules(request)
    check_report(request)
    from onnx2nn import _native

    out = _native.simplified_path(a.model, a.out or "")
    found: dict[str, Any] = {"files": []}
    code = simplify_file(request, out, input_shapes(a.input_shape, a), found)
    if a.json:
        print_json(result(request, code, **found))
    return code


def _list_rules(request: Request) -> ExitCode:
    from onnx2nn.core import native

    rules = dict(native().simplify_rules())
    if request.json:
        print_json(result(request, ExitCode.DONE, rules=rules))
    else:
        print_rules(rules)
    return ExitCode.DONE


def simplify_file(
    request: Request,
    out: str,
    fixed: dict[str, list[int | str | None]] | None,
    found: dict[str, Any],
) -> ExitCode:
    """Simplify the request's model to `out`, checked against it; fills `found`."""
    from onnx2nn.check.fields import stored_bytes
    from onnx2nn.simplification import simplify_checked

    a = request.values
    rules = {k: getattr(a, k, None) for k in ("only", "why_not", "stop_after", "opset")}
    missing = None if a.no_check else missing_for_check()
    check = not a.no_check and missing is None
    if check and getattr(a, "check_n", 3) > 0:
        start_oracle()
    os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
    with Stages(2, a.quiet or a.json) as stages:
        # What is written is about as large as what is read.
        stages("simplify", os.path.getsize(a.model) if os.path.isfile(a.model) else None)
        outcome = simplify_checked(
            a.model,
            out,
            check_n=getattr(a, "check_n", 3) if check else 0,
            check=check_options(a) if check else None,
            input_shapes=fixed,
            **freed(a),
            disabled=getattr(a, "disable", None) or None,
            max_constant=getattr(a, "no_large_tensor", None),
            external_data=getattr(a, "external_data", False),
            force=a.force,
            data_roots=a.data_root,
            drop_undefined_outputs=a.drop_undefined_outputs,
            progress=stages,
            **rules,
        )
    asked = not a.no_check and getattr(a, "check_n", 3) > 0
    skipped = missing or outcome.skipped
    wrong = next((r for r in outcome.reports if not r.ok), None)
    report = wrong if wrong is not None else next(reversed(outcome.reports), None)
    code = verdict(skipped, report) if asked else ExitCode.DONE
    if outcome.ok is False:
        code = ExitCode.WRONG
    stats = {k: v for k, v in outcome.result.items() if k not in ("log", "files", "model")}
    files = [str(f) for f in outcome.result.get("files", [out])] if outcome.ok is not False else []
    found["files"] += files
    if request.command == "simplify" and a.report is not None:
        found["files"] += _report(
            request, stats, files, report, skipped if asked else "not asked for"
        )
    found["diagnostics"] = stats.pop("diagnostics", [])
    found["simplified"] = {k: v for k, v in stats.items() if k not in ("ok", "readable")}
    found["check"] = report.to_dict() if report is not None else {"ok": None, "skipped": skipped}
    found["checks"] = [r.to_dict() for r in outcome.reports]
    found["culprit"] = (
        {"rule": outcome.culprit[0], "node": outcome.culprit[1]} if outcome.culprit else None
    )
    if a.json:
        return code
    if not a.quiet:
        print_simplified(stats)
        if rules["why_not"]:
            print_misses(stats.get("misses", []), rules["why_not"])
        # With the data beside them, whichever of the two has any.
        size = f"{human_bytes(stored_bytes(a.model))} -> "
        size += human_bytes(sum(map(os.path.getsize, files))) if files else "not written"
        nodes = f"{stats['nodes_before']} -> {stats['nodes_after']} nodes"
        print(f"{printable(a.model)} -> {printable(out)}: {nodes}, {size}")
    if skipped is not None or report is None:
        print_not_checked(skipped or "not asked for", request, missing is None, outcome.died, asked)
    else:
        print_report(report, out, a.quiet)
    if outcome.culprit is not None:
        rule, node = map(printable, outcome.culprit)
        print(f"{paint(sys.stdout, 'rule at fault', '31')}: {rule}, at node {node or '(unnamed)'}")
    return code


def _report(
    request: Request,
    stats: dict[str, Any],
    files: list[str],
    report: "Report | None",
    skipped: str | None,
) -> list[str]:
    """Write the report about a simplification."""
    from onnx2nn.report import Subject

    a = request.values
    there = inspected(a)
    subject = Subject(
        a.model,
        commands(request),
        {**{k: there[k] for k in ("opsets", "producer", "weight_bytes")}, **stats},
        there["inputs"],
        there["outputs"],
        files,
        list(stats.get("diagnostics", [])),
        check=report,
        skipped=skipped,
    )
    return write_report(request, subject)
