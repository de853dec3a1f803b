"""`onnx2nn verify`: a conversion compared with ONNX Runtime."""

from typing import TYPE_CHECKING

from onnx2nn.api import convert
from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.options import check_options, conversion_options, missing_for_check, start_oracle
from onnx2nn.cli.output import print_json, print_not_checked, print_report, result, verdict
from onnx2nn.cli.parser import Request
from onnx2nn.cli.progress import Stages
from onnx2nn.cli.report import (
    check_report,
    commands,
    module_of,
    refusal_reported,
    report_refusal,
    write_report,
)
from onnx2nn.errors import Error

if TYPE_CHECKING:
    from onnx2nn.check.result import Report

__all__ = ["run"]


def run(request: Request) -> ExitCode:
    """Compare, and show what was found."""
    a = request.values
    check_report(request)
    missing = missing_for_check()
    report = None
    if missing is None:
        start_oracle()
        from onnx2nn.check.verification import verify

        with Stages(4, a.quiet or a.json) as stages, refusal_reported(request):
            report = verify(
                a.model,
                a.target,
                per_node=a.per_node,
                progress=stages,
                **check_options(a),
                **conversion_options(a),
            )
    skipped = missing if report is None else report.skipped
    code = verdict(skipped, report)
    files = _report(request, report, skipped) if a.report is not None else []
    if a.json:
        check = report.to_dict() if report is not None else {"ok": None, "skipped": skipped}
        print_json(result(request, code, target=a.target, check=check, files=files))
    elif skipped is not None:
        print_not_checked(skipped, request, report is not None, report is not None and report.died)
    elif report is not None:
        print_report(report, a.target or a.model, a.quiet, a.per_node)
    return code


def _report(request: Request, report: "Report | None", skipped: str | None) -> list[str]:
    """Write the report about the model's conversion, and what of it was compared."""
    from onnx2nn.report import Subject

    a = request.values
    options = conversion_options(a)
    try:
        converted = convert(a.model, **options)
    except Error as error:  # as `skipped` says as well: nobody could run it
        return report_refusal(request, error)
    module = module_of(a.model, options, report)
    subject = Subject.of_conversion(a.model, commands(request), converted, module, report, skipped)
    return write_report(request, subject)
