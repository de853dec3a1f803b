"""`onnx2nn transfer`: a model's weights for a module that somebody already has."""

import importlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from onnx2nn.api import make_folder_of
from onnx2nn.cli.codes import ExitCode
from onnx2nn.cli.options import input_shapes, missing_for_check, start_oracle
from onnx2nn.cli.output import (
    human_bytes,
    print_json,
    print_not_checked,
    print_report,
    printable,
    result,
    verdict,
)
from onnx2nn.cli.parser import Request
from onnx2nn.cli.progress import Stages
from onnx2nn.core import native, refused
from onnx2nn.errors import Error
from onnx2nn.source import Source

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["run"]


def run(request: Request) -> ExitCode:
    """Find the weights, check them and write them."""
    a = request.values
    missing = missing_for_check()
    if missing is not None:
        raise Error(missing, usage=True)
    start_oracle()
    out = a.output or a.module.rpartition(":")[2] + ".safetensors"
    if not out.endswith(".safetensors"):
        raise Error(f"{out}: the output is to be called x.safetensors", usage=True)
    found = native().check_outputs(a.model, [out], a.force)
    if found:
        raise refused(Source(a.model), found)
    module = made(a.module)
    from onnx2nn.check import process
    from onnx2nn.transfer.weights import transfer

    with (
        Stages(1, a.quiet or a.json) as stages,
        process.allowing(a.oracle_timeout, a.oracle_memory),
    ):
        stages("lay side by side")
        done = transfer(
            module,
            a.model,
            inputs=a.input,
            input_shapes=input_shapes(a.test_input_shape, a),
            seed=a.seed,
            data_roots=a.data_root,
        )
    _write(done.state, out)
    report = done.report
    code = verdict(report.skipped, report)
    if a.json:
        print_json(
            result(
                request,
                code,
                files=[out],
                how=done.how,
                kept=done.kept,
                partly=done.partly,
                folded=done.folded,
                check=report.to_dict(),
            )
        )
        return code
    if report.skipped is not None:
        print_not_checked(report.skipped, request, True, report.died)
    else:
        print_report(report, a.module, a.quiet)
    if not a.quiet:
        by = "by their names" if done.how == "names" else "by what they do"
        print(f"{len(done.state)} weights, found {by}")
        if done.folded:
            print(f"{done.folded} batch norms were folded before them and are the identity now")
        if done.kept:
            print(f"left as the module has them: {', '.join(map(printable, done.kept))}")
        if done.partly:
            print(f"in part as the module has them: {', '.join(map(printable, done.partly))}")
        print(f"wrote {printable(out)} ({human_bytes(os.path.getsize(out))})")
    return code


def made(name: str) -> "nn.Module":
    """The module that package.module:Class makes without arguments."""
    from torch import nn

    where, _, what = name.rpartition(":")
    if not where or not what:
        raise Error(f"{name!r} is not like package.module:Class", usage=True)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(where)
        for part in what.split("."):
            value = getattr(value, part)
        module = value if isinstance(value, nn.Module) else value()
    except Exception as error:  # whatever the caller's code raises
        raise Error(f"{name}: {type(error).__name__}: {error}", usage=True) from error
    if not isinstance(module, nn.Module):
        raise Error(f"{name} gives a {type(module).__name__}, not an nn.Module", usage=True)
    return module


def _write(state: "dict[str, Tensor]", out: str) -> None:
    """Write a state_dict aside and rename it; tied weights are written under each of their keys."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().clone().contiguous() for k, v in state.items()}
    make_folder_of(out)
    try:
        with tempfile.TemporaryDirectory(prefix=".onnx2nn-", dir=os.path.dirname(out) or ".") as at:
            aside = os.path.join(at, "weights")
            # Alone, as safetensors puts several in any order: the first says whose file it is.
            save_file(tensors, aside, metadata={"onnx2nn": "weights"})
            os.replace(aside, out)
    except OSError as error:
        raise Error(f"{out}: cannot be written: {error.strerror}", unreadable=True) from error
