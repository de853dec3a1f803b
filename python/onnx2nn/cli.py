"""The command line. It imports what a command needs: a conversion alone starts no torch."""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from onnx2nn import __version__
from onnx2nn.api import Error, convert, inspect, parse_shape

DONE, WRONG, UNREADABLE, INTERNAL = 0, 1, 2, 3
COMMANDS = ("convert", "simplify", "verify", "inspect", "completion")

_EXAMPLES = """\
examples:
  onnx2nn model.onnx                        model.py and model.safetensors here, checked
  onnx2nn convert model.onnx -o net.py      the same, under another name
  onnx2nn convert model.onnx -o net.pth     weights as a state_dict, source in net.py
  onnx2nn convert model.onnx --input_shape input:1,3,320,320
                                            the same for inputs of this shape only
  onnx2nn simplify model.onnx small.onnx    a smaller ONNX file, checked
  onnx2nn simplify model.onnx small.onnx --why-not fuse-batch-norm
                                            says where a rule was of no use
  onnx2nn verify model.onnx net.py          compare; names the first node that differs
  onnx2nn inspect model.onnx                what is in it, and what would not convert

exit codes: 0 done, 1 not convertible or wrong, 2 a file cannot be read, 3 our own fault
"""


class _Parser(argparse.ArgumentParser):
    """Wrong usage exits with 1: 2 means that a file cannot be read."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(WRONG, f"{self.prog}: error: {message}\n")


def _add_fixed_shape(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--input_shape",
        "--input-shape",
        "--overwrite-input-shape",
        metavar="NAME:DIMS",
        dest="input_shape",
        action="append",
        default=[],
        help="fix the shape of an input, such as input:1,3,224,224; may be repeated",
    )


def _add_check(p: argparse.ArgumentParser, *also: str) -> None:
    p.add_argument("--input", metavar="FILE.npz", help="check with these inputs, by name")
    p.add_argument(
        "--test-input-shape",
        *also,
        metavar="NAME:DIMS",
        action="append",
        default=[],
        help="the shape of an input to check with, such as input:1,3,224,224; may be repeated",
    )
    p.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    p.add_argument("--threads", type=int, default=0, help="for ONNX Runtime (default: all)")


def _add_rules(p: argparse.ArgumentParser) -> None:
    p.add_argument("check_n", nargs="?", type=int, default=3, help="random inputs to check with")
    p.add_argument(
        "--disable",
        "--skip-optimization",
        metavar="RULE",
        action="append",
        default=[],
        help="do without a rule; may be repeated",
    )
    p.add_argument(
        "--only",
        metavar="RULE",
        action="append",
        help="use this rule and no other; may be repeated",
    )
    p.add_argument(
        "--why-not",
        metavar="RULE",
        action="append",
        help="show where this rule left nodes alone, and why; may be repeated",
    )
    p.add_argument("--stop-after", metavar="N", type=int, help="stop after so many rewrites")
    p.add_argument(
        "--opset", metavar="N", type=int, help="bring the model to this opset, a newer one"
    )
    p.add_argument("--list-rules", action="store_true", help="print the rules and what they do")
    p.add_argument(
        "--external-data",
        "--save-as-external-data",
        action="store_true",
        help="write the weights to OUT.data",
    )
    p.add_argument(
        "--no-large-tensor",
        metavar="SIZE",
        nargs="?",
        const="1KB",
        help="make no constant above this size by folding (1KB where none is given)",
    )


def _add_output(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    p.add_argument("-q", "--quiet", action="store_true", help="print only what is wrong")


def _add_conversion(p: argparse.ArgumentParser) -> None:
    p.add_argument("--no-simplify", action="store_true", help="convert the graph as it is")
    p.add_argument("--class-name", metavar="NAME", help="of the emitted class")
    p.add_argument(
        "--comments-origin", action="store_true", help="name the ONNX node behind each line"
    )
    p.add_argument(
        "--allow-unknown",
        action="store_true",
        help="write a stub that raises for each operator that is not known",
    )
    p.add_argument(
        "--fuse", action="store_true", help="fold batch normalisation into weights, for inference"
    )


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="onnx2nn",
        description="ONNX models as readable, verified PyTorch source.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"onnx2nn {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    p = command("convert", "write PyTorch source and weights (what a bare model does)")
    p.add_argument("model", nargs="?", help="an ONNX file")
    p.add_argument("-o", "--output", metavar="FILE", help="x.py or x.pth (default: MODEL.py here)")
    p.add_argument("--onnx_path", metavar="FILE", help="the same as MODEL")
    p.add_argument("--pytorch_path", metavar="FILE", help="the same as --output")
    p.add_argument("--simplify_path", metavar="FILE", help="write the simplified ONNX model too")
    p.add_argument(
        "--no-verify", "--no-check", dest="check", action="store_false", help="do not check"
    )
    _add_fixed_shape(p)
    _add_conversion(p)
    _add_check(p)
    _add_output(p)

    p = command("simplify", "write a smaller ONNX model that does the same")
    p.add_argument("model", nargs="?", help="an ONNX file")
    p.add_argument("out", nargs="?", help="where to write (default: MODEL-simple.onnx here)")
    p.add_argument(
        "--no-check", "--no-verify", dest="check", action="store_false", help="do not check"
    )
    _add_fixed_shape(p)
    _add_check(p)
    _add_output(p)
    _add_rules(p)

    p = command("verify", "compare a conversion with ONNX Runtime")
    p.add_argument("model", help="an ONNX file")
    p.add_argument(
        "target", nargs="?", help="x.py, x.pth or another .onnx (default: convert MODEL)"
    )
    p.add_argument("--per-node", action="store_true", help="show every intermediate value")
    _add_conversion(p)
    _add_check(p, "--input_shape", "--input-shape")
    _add_output(p)

    p = command("inspect", "show what is in a model and what would not convert")
    p.add_argument("model", help="an ONNX file")
    _add_output(p)

    p = command("completion", "print a completion script for a shell")
    p.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] not in COMMANDS and args[0] not in ("-h", "--help", "--version"):
        args.insert(0, "convert")
    args = _spread(args)
    parser = build_parser()
    if not args:
        parser.print_help()
        return WRONG
    try:
        a = parser.parse_args(args)
    except SystemExit as stop:
        return int(stop.code or 0)
    as_json = bool(getattr(a, "json", False))
    try:
        return int(_RUN[a.command](a))
    except Error as error:
        code = UNREADABLE if error.unreadable else WRONG
        if any(d.get("code") == "internal" for d in error.diagnostics):
            code = INTERNAL
        if as_json:
            _print_json({"error": str(error), "diagnostics": error.diagnostics, "exit_code": code})
        else:
            _print_error(a, error)
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if as_json:
            _print_json({"error": f"internal: {error!r}", "diagnostics": [], "exit_code": INTERNAL})
        traceback.print_exc()
        print(
            "onnx2nn: this is our fault, not the model's; please report it with the lines above",
            file=sys.stderr,
        )
        return INTERNAL


def _spread(args: list[str]) -> list[str]:
    """The arguments with a flag for each value: onnxsim takes several after one flag, or none."""
    out: list[str] = []
    flag, taken = "", 0
    for k, arg in enumerate(args):
        if arg.startswith("-"):
            flag, taken = arg, 0
            if arg == "--no-large-tensor" and not re.fullmatch(_SIZE, "".join(args[k + 1 : k + 2])):
                arg = "--no-large-tensor=1KB"
            elif arg == "--skip-optimization" and (
                k + 1 == len(args) or args[k + 1].startswith("-")
            ):
                arg = "--only=fold-constants"
            out.append(arg)
            continue
        if taken and (
            (flag == "--skip-optimization" and re.fullmatch(r"[a-z]+([_-][a-z0-9]+)+", arg))
            or (flag in _SHAPE_FLAGS and re.fullmatch(r".+:\d+([,x]\d+)*", arg))
        ):
            out.append(flag)
        taken += 1
        out.append(arg)
    return out


_SIZE = r"(\d+)\s*([KMG]?)I?B?"
_SHAPE_FLAGS = ("--overwrite-input-shape", "--test-input-shape", "--input-shape")


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, default=str))


def _print_error(a: argparse.Namespace, error: Error) -> None:
    from onnx2nn.report import paint, print_diagnostics, printable

    if error.diagnostics and any(d.get("op_type") or d.get("hint") for d in error.diagnostics):
        print_diagnostics(_model_of(a), error.diagnostics, a.quiet)
        _print_missing(error.diagnostics)
        return
    print(f"onnx2nn: {paint(sys.stderr, 'error', '31')}: {printable(str(error))}", file=sys.stderr)


def _print_missing(diagnostics: list[dict[str, Any]]) -> None:
    errors = [d for d in diagnostics if d.get("severity") == "error"]
    types = {(d.get("domain"), d.get("op_type")) for d in errors if d.get("op_type")}
    if types:
        print(f"{len(errors)} errors in {len(types)} operator types", file=sys.stderr)


def _model_of(a: argparse.Namespace) -> str:
    return str(getattr(a, "model", None) or getattr(a, "onnx_path", None) or "")


def _shapes(texts: list[str], model: str) -> dict[str, list[int]]:
    """Shapes by input name; one without a name belongs to the only input."""
    shapes: dict[str, list[int]] = {}
    for text in texts:
        name, dims = parse_shape(text)
        if not name:
            inputs = [str(i["name"]) for i in inspect(model).get("inputs", [])]
            if len(inputs) != 1:
                raise Error(
                    f"--input_shape: {text!r} needs a name: the inputs are {', '.join(inputs)}"
                )
            name = inputs[0]
        shapes[name] = dims
    return shapes


def _check_options(a: argparse.Namespace, model: str) -> dict[str, Any]:
    return {
        "inputs": a.input,
        "input_shapes": _shapes(a.test_input_shape, model) or None,
        "seed": a.seed,
        "threads": a.threads,
    }


def _conversion_options(a: argparse.Namespace) -> dict[str, Any]:
    return {
        "simplify": not a.no_simplify,
        "class_name": a.class_name,
        "comments_origin": a.comments_origin,
        "allow_unknown": a.allow_unknown,
        "fuse": a.fuse,
    }


def _missing_for_check() -> str | None:
    """What a check would need and is not installed."""
    from importlib.util import find_spec

    missing = [
        m for m in ("torch", "onnxruntime", "onnx", "rich", "safetensors") if not find_spec(m)
    ]
    return f"{', '.join(missing)} not installed" if missing else None


def _default_output(model: str) -> str:
    """MODEL.py in the current folder, with a name that Python can import."""
    stem = re.sub(r"\W", "_", Path(model).stem, flags=re.ASCII)
    return (stem if not stem[:1].isdigit() else f"model_{stem}") + ".py"


def _run_convert(a: argparse.Namespace) -> int:
    from onnx2nn.report import Stages, human_bytes, print_diagnostics

    model = a.model or a.onnx_path
    if model is None:
        raise Error("convert needs a model: onnx2nn convert model.onnx")
    if a.model and a.onnx_path and a.model != a.onnx_path:
        raise Error("two models were given: MODEL and --onnx_path")
    fixed = _shapes(a.input_shape, model) or None
    only_simplify = a.simplify_path and not (a.output or a.pytorch_path)
    say = not (a.quiet or a.json)
    result: dict[str, Any] = {"command": "convert", "model": model}
    with Stages(5, a.quiet or a.json) as stages:
        code = DONE
        if a.simplify_path:
            stages("simplify")
            code = _simplify(a, model, a.simplify_path, fixed, result)
            if only_simplify or code != DONE:
                if a.json:
                    _print_json({**result, "exit_code": code})
                return code
        out = a.output or a.pytorch_path or _default_output(model)
        stages("convert and write")
        options = _conversion_options(a)
        done = convert(model, out, input_shapes=fixed, **options)
        result.update(
            files=done.files,
            class_name=done.class_name,
            inputs=done.inputs,
            outputs=done.outputs,
            diagnostics=done.diagnostics,
            stats=done.stats,
        )
        if not a.json:
            print_diagnostics(model, done.diagnostics, a.quiet)
        if say:
            stats = done.stats
            sizes = ", ".join(f"{f} ({human_bytes(os.path.getsize(f))})" for f in done.files)
            before, after = stats.get("nodes_before"), stats.get("nodes_after")
            nodes = f"{before} nodes" if before == after else f"{before} nodes, {after} simplified"
            print(f"{model}: {nodes}, {human_bytes(stats.get('weight_bytes', 0))} of weights")
            print(f"wrote {sizes}")
            sys.stdout.flush()
        report, skipped = None, None
        unknown = a.allow_unknown and any(
            d.get("code", "").startswith("un") and d.get("op_type") for d in done.diagnostics
        )
        if not a.check:
            skipped = "not asked for"
        elif unknown:
            skipped = "the source holds stubs for unknown operators"
        else:
            skipped = _missing_for_check()
        if skipped is None:
            from onnx2nn.check.verification import verify

            # A fixed shape is also the one to check with.
            check = _check_options(a, model)
            check["input_shapes"] = {**(fixed or {}), **(check["input_shapes"] or {})} or None
            report = verify(model, done.files[0], progress=stages, **check, **options)
    return _finish_convert(a, done, result, report, skipped)


def _finish_convert(
    a: argparse.Namespace, done: Any, result: dict[str, Any], report: Any, skipped: str | None
) -> int:
    """Print the check's result and how to use what was written; returns the exit code."""
    code = DONE
    if report is not None and report.skipped is None and not report.ok:
        code = WRONG
    if a.json:
        result["check"] = (
            report.to_dict() if report is not None else {"ok": None, "skipped": skipped}
        )
        _print_json({**result, "exit_code": code})
        return code
    if report is not None:
        from onnx2nn.report import print_report

        print_report(report, done.files[0], a.quiet)
    elif not a.quiet:
        print(f"not checked: {skipped}")
    if code == DONE and not a.quiet:
        print("\n" + _usage(done))
    return code


def _usage(done: Any) -> str:
    """How to use a written module, for people to paste."""
    path = Path(done.files[0])
    where = "" if str(path.parent) == "." else f"    # in {path.parent}, or with it on sys.path\n"
    arguments = ", ".join(_example(i) for i in done.inputs)
    return (
        f"Use it:\n{where}"
        f"    import torch\n"
        f"    from {path.stem} import load\n\n"
        f"    net = load()\n"
        f"    {'y' if len(done.outputs) == 1 else 'outputs'} = net({arguments})"
    )


def _example(value: dict[str, Any]) -> str:
    name = str(value.get("py_name") or value.get("name"))
    if value.get("kind", "tensor") != "tensor" or value.get("shape") is None:
        return name
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in value["shape"]]
    dims = ", ".join(map(str, shape)) or "()"
    dtype = str(value.get("dtype"))
    if dtype == "float32":
        return f"torch.randn({dims})"
    if dtype == "string":
        return name
    return f"torch.zeros({dims}, dtype=torch.{dtype})"


def _simplify(
    a: argparse.Namespace,
    model: str,
    out: str,
    fixed: dict[str, list[int]] | None,
    result: dict[str, Any],
) -> int:
    """Simplify `model` to `out`, checked against it; fills `result` and returns the exit code."""
    from onnx2nn.report import (
        human_bytes,
        paint,
        print_misses,
        print_report,
        print_simplified,
        printable,
    )
    from onnx2nn.simplification import corresponding, rule_of, simplify_checked, size_of

    missing = _missing_for_check() if a.check else None
    outcome = simplify_checked(
        model,
        out,
        check_n=getattr(a, "check_n", 3) if a.check and missing is None else 0,
        check=_check_options(a, model) if a.check else None,
        input_shapes=fixed,
        disabled=corresponding(getattr(a, "disable", [])) or None,
        only=getattr(a, "only", None) or None,
        why_not=[rule_of(r) for r in getattr(a, "why_not", None) or []] or None,
        max_constant=size_of(getattr(a, "no_large_tensor", None)),
        stop_after=getattr(a, "stop_after", None),
        opset=getattr(a, "opset", None),
        external_data=getattr(a, "external_data", False) or None,
    )
    stats = {k: v for k, v in outcome.result.items() if k != "log"}
    result["simplified"] = stats
    result["simplify_check"] = [r.to_dict() for r in outcome.reports]
    result["culprit"] = outcome.culprit
    if a.json:
        return DONE if outcome.ok else WRONG
    if not a.quiet:
        print_simplified(stats)
        if getattr(a, "why_not", None):
            print_misses(stats.get("misses", []), a.why_not)
        size = f"{human_bytes(_size_of(model))} -> "
        files = [f for f in stats.get("files", [out]) if os.path.exists(f)]
        size += human_bytes(sum(map(_size_of, files))) if outcome.ok else "not written"
        print(f"{model} -> {out}: {stats['nodes_before']} -> {stats['nodes_after']} nodes, {size}")
    if outcome.reports:
        print_report(outcome.reports[-1], out, a.quiet)
    elif not a.quiet:
        print("not checked: " + (missing or outcome.skipped or "not asked for"))
    if outcome.culprit is not None:
        rule, node = map(printable, outcome.culprit)
        print(f"{paint(sys.stdout, 'rule at fault', '31')}: {rule}, at node {node or '(unnamed)'}")
    return DONE if outcome.ok else WRONG


def _size_of(path: str) -> int:
    return os.path.getsize(path)


def _run_simplify(a: argparse.Namespace) -> int:
    from onnx2nn.report import Stages

    if a.list_rules:
        from onnx2nn.api import native
        from onnx2nn.report import print_rules

        print_rules(dict(native().simplify_rules()))
        return DONE
    if not a.model:
        raise Error("simplify needs a model: onnx2nn simplify model.onnx small.onnx")
    out = a.out or f"{Path(a.model).stem}-simple.onnx"
    result: dict[str, Any] = {"command": "simplify", "model": a.model, "files": [out]}
    with Stages(2, a.quiet or a.json) as stages:
        stages("simplify")
        fixed = _shapes(a.input_shape, a.model) or None
        code = _simplify(a, a.model, out, fixed, result)
    if a.json:
        _print_json({**result, "exit_code": code})
    return code


def _run_verify(a: argparse.Namespace) -> int:
    missing = _missing_for_check()
    if missing:
        raise Error(f"verify: {missing}")
    from onnx2nn.check.verification import verify
    from onnx2nn.report import Stages, print_report

    with Stages(4, a.quiet or a.json) as stages:
        report = verify(
            a.model,
            a.target,
            per_node=a.per_node,
            progress=stages,
            **_check_options(a, a.model),
            **_conversion_options(a),
        )
    code = DONE if report.ok else WRONG
    if a.json:
        _print_json(
            {"command": "verify", "model": a.model, "target": a.target}
            | report.to_dict()
            | {"exit_code": code}
        )
    else:
        print_report(report, a.target or a.model, a.quiet, a.per_node)
    return code


def _run_inspect(a: argparse.Namespace) -> int:
    found = inspect(a.model)
    diagnostics = list(found.get("diagnostics", []))
    code = DONE if found["convertible"] else WRONG
    if a.json:
        _print_json({"command": "inspect", "model": a.model, **found, "exit_code": code})
        return code
    from onnx2nn.report import print_diagnostics, printable

    if not a.quiet:
        print(printable(_inspect_text(a.model, found)))
    print_diagnostics(a.model, diagnostics, a.quiet)
    if code == DONE and not a.quiet:
        print("everything in it can be converted")
    return code


def _inspect_text(model: str, found: dict[str, Any]) -> str:
    """What is in a model, line by line; counts of operators in columns."""
    from onnx2nn.report import human_bytes

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
            shape = "" if dims is None else "[" + ", ".join(str(d or "?") for d in dims) + "]"
            kind = "" if v.get("kind", "tensor") == "tensor" else f"{v['kind']} of "
            lines.append(f"  {key[:-1]:10} {v['name']}  {kind}{v['dtype']}{shape}")
    lines.append("  operators")
    counts = sorted(found["op_types"].items(), key=lambda kv: (-int(kv[1]), kv[0]))
    lines += [f"    {count:6} {name}" for name, count in counts]
    return "\n".join(lines)


def _flags(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """The options of each command, from the parser itself."""
    found: dict[str, list[str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                found[name] = sorted(f for x in sub._actions for f in x.option_strings)
    return found


def _run_completion(a: argparse.Namespace) -> int:
    flags = _flags(build_parser())
    names = " ".join(flags)
    if a.shell == "fish":
        lines = ["complete -c onnx2nn -n __fish_use_subcommand -a '" + names + "'"]
        for name, options in flags.items():
            for option in options:
                kind = "-l " + option[2:] if option.startswith("--") else "-s " + option[1:]
                lines.append(f"complete -c onnx2nn -n '__fish_seen_subcommand_from {name}' {kind}")
        print("\n".join(lines))
        return DONE
    if a.shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print("_onnx2nn() {")
    print('    local word="${COMP_WORDS[COMP_CWORD]}" flags=""')
    print('    case "${COMP_WORDS[1]}" in')
    for name, options in flags.items():
        print(f'        {name}) flags="{" ".join(options)}" ;;')
    print(f'        *) flags="{" ".join(flags["convert"])}" ;;')
    print("    esac")
    print(f'    [ "$COMP_CWORD" -eq 1 ] && flags="$flags {names}"')
    print('    COMPREPLY=($(compgen -W "$flags" -- "$word") $(compgen -f -- "$word"))')
    print("}")
    print("complete -o filenames -F _onnx2nn onnx2nn")
    return DONE


_RUN = {
    "convert": _run_convert,
    "simplify": _run_simplify,
    "verify": _run_verify,
    "inspect": _run_inspect,
    "completion": _run_completion,
}


if __name__ == "__main__":
    sys.exit(main())
