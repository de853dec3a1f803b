"""The command line. It imports what a command needs: a conversion alone starts no torch."""

import contextlib
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from onnx2nn.cli.codes import ExitCode, code_of
from onnx2nn.cli.parser import Request, parse
from onnx2nn.errors import Error, counted
from onnx2nn.hub import HUB, fetch

__all__ = ["ExitCode", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Names of any script, on a terminal of any encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    request = parse(sys.argv[1:] if argv is None else argv)
    came: list[int] = []
    try:
        with _stop_signals(came):
            code = _run(request)
        sys.stdout.flush()
        return int(code)
    except Error as error:
        return int(_refuse(request, error))
    except KeyboardInterrupt:
        return int(_fail(request, ExitCode.INTERRUPTED, "interrupted"))
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.DONE)
    except Exception as error:
        # A library that is being imported may make another exception of the one that a signal raised.
        if came and came[-1] != signal.SIGINT:
            return 128 + came[-1]
        if came:
            return int(_fail(request, ExitCode.INTERRUPTED, "interrupted"))
        traceback.print_exc()
        code = _fail(request, ExitCode.INTERNAL, f"internal: {error!r}")
        print(
            "onnx2nn: this is our fault, not the model's; please report it with the lines above",
            file=sys.stderr,
        )
        return int(code)


@contextlib.contextmanager
def _stop_signals(came: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does: what was begun is removed.

    came: gets the number of each signal that came.
    """

    def stop(number: int, frame: object) -> NoReturn:
        came.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    old: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        hang_up = getattr(signal, "SIGHUP", signal.SIGTERM)  # not on Windows
        for number in (int(signal.SIGTERM), int(hang_up), int(signal.SIGINT)):
            # What others handle, or ignore as nohup does, is left to them.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                old[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _run(request: Request) -> ExitCode:
    if request.text is not None:
        print(request.text, end="")
        if request.words[0] in ("-V", "--version") and request.words[1:2] == ["--verbose"]:
            from onnx2nn.cli.verbose import versions

            print(versions(), end="")
        return ExitCode.DONE
    if request.error:
        code = _fail(request, ExitCode.USAGE, request.error)
        if not request.json:
            print(f"usage: {request.usage.rstrip()}", file=sys.stderr)
        return code
    with _logging(request):
        return _run_command(request)


def _run_command(request: Request) -> ExitCode:
    a = request.values
    if request.command != "inspect" and getattr(a, "more_models", None):
        from onnx2nn.cli.many import run_each

        return run_each(request)
    if request.command not in ("inspect", "diff"):
        for name in ("model", "target"):
            if str(getattr(a, name, None) or "").startswith(HUB):
                setattr(a, name, fetch(getattr(a, name)))
    module = importlib.import_module(f"onnx2nn.cli.{request.command}")
    run: Callable[[Request], ExitCode] = module.run
    return run(request)


def _logging(request: Request) -> contextlib.AbstractContextManager[None]:
    verbose = bool(getattr(request.values, "verbose", False))
    if not verbose and not os.environ.get("ONNX2NN_LOG"):
        return contextlib.nullcontext()
    from onnx2nn.cli.verbose import logging_shown

    return logging_shown(verbose)


def _fail(request: Request, code: ExitCode, message: str) -> ExitCode:
    from onnx2nn.cli.output import paint, print_json, printable, result

    if request.json:
        print_json(result(request, code, error=message))
    elif code is not ExitCode.INTERNAL:
        text = "\n".join(map(printable, message.split("\n")))
        print(f"onnx2nn: {paint(sys.stderr, 'error', '31')}: {text}", file=sys.stderr)
    return code


def _refuse(request: Request, error: Error) -> ExitCode:
    """A model that was refused: every reason, and how many operators are behind them."""
    from onnx2nn.cli.output import print_diagnostics, print_json, result

    code = code_of(error)
    if request.json:
        print_json(result(request, code, error=str(error), diagnostics=error.diagnostics))
        return code
    if not any(d.get("op_type") or d.get("hint") for d in error.diagnostics):
        return _fail(request, code, str(error))
    print_diagnostics(
        str(request.values.model or ""),
        error.diagnostics,
        bool(getattr(request.values, "quiet", 0)),
    )
    errors = [d for d in error.diagnostics if d.get("severity") == "error"]
    types = {(d.get("domain"), d.get("op_type")) for d in errors if d.get("op_type")}
    if types:
        found = f"{counted(len(errors), 'error')} in {counted(len(types), 'operator type')}"
        print(found, file=sys.stderr)
    return code
