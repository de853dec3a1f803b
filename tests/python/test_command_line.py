"""Both programs: one table of options, the same words accepted and refused, the same exit codes."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from json_schema import conforms
from onnx2nn import _native
from onnx2nn.cli import ExitCode, main
from programs import PROGRAM, ROOT, SCHEMA, Run, native
from stand_in import make_model


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    make_model(Path("m.onnx"))


# ---- One table ----

COMMANDS = {c["name"]: c for c in _native.command_line()}


def _entries(text: str) -> list[str]:
    """What help says, entry by entry, but for the line of usage."""
    text = re.sub(r"Usage: .*", "", text)
    return [" ".join(e.split()) for e in re.split(r"\n(?=  \S)|\n\n", text)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_same_but_for_the_check(command: str, python: Run) -> None:
    code, ours, _ = python(command, "--help")
    assert code == 0
    if COMMANDS[command]["python_only"]:
        assert native(command, "--help")[0] == ExitCode.USAGE
        return
    code, theirs, _ = native(command, "--help")
    assert code == 0
    entries, fewer = _entries(ours), _entries(theirs)
    assert set(fewer) <= set(entries)
    assert [e for e in entries if e in fewer] == fewer
    only = [o for o in COMMANDS[command]["options"] if o["python_only"]]
    assert len(entries) - len(fewer) == len(only) + 2 * ("--input data.npz" in ours)
    for o in COMMANDS[command]["options"]:
        for spelling in o["spellings"]:
            assert spelling in ours
            assert (re.search(rf"(?<![\w-]){spelling}(?![\w-])", theirs) is None) == o[
                "python_only"
            ]


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits(
    command: str | None, columns: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = run(*([command] if command else []), "--help")
    if command in ("verify", "transfer") and run is native:
        assert code == ExitCode.USAGE
        return
    assert (code, err) == (0, "")
    usages = [line for line in out.splitlines() if not line.startswith(("Usage:", "  onnx2nn "))]
    assert max(map(len, usages)) <= columns
    if command is None:
        for number, what in _native.EXIT_CODES.items():
            assert re.search(rf" {number} +{what} ", " ".join([*out.split(), ""]))
    else:
        examples = out.partition("Examples:\n")[2]
        others = [c for c in COMMANDS if c != command]
        assert examples
        assert not re.search(rf"onnx2nn ({'|'.join(others)}) ", examples)


def test_exit_codes_are_the_same_everywhere() -> None:
    assert {int(c) for c in ExitCode} == set(_native.EXIT_CODES)
    said = re.findall(r"^\| (\d+) \|", (ROOT / "docs/json.md").read_text(), re.MULTILINE)
    assert {int(c) for c in said} == set(_native.EXIT_CODES)
    assert set(SCHEMA["properties"]["exit_code"]["enum"]) == set(_native.EXIT_CODES)
    readme = " ".join((ROOT / "README.md").read_text().split())
    for number in _native.EXIT_CODES:
        assert re.search(rf"Exit codes: .*\b{number} ", readme)


# Words, and the exit code that both programs end with.
SAME = [
    (["m.onnx", "--no-check"], 0),
    (["m.onnx", "net.py", "--no-check"], 0),
    (["convert", "m.onnx", "net.pth", "--no-verify"], 0),
    (["m.onnx", "-onet.py", "--no-check"], 0),
    (["m.onnx", "--output=net.py", "--no-check", "--class-name=Net"], 0),
    (["--onnx_path", "m.onnx", "--pytorch_path", "p.pth", "--no-check"], 0),
    (["--no-check", "--", "m.onnx"], 0),
    (["m.onnx", "-o", "missing/folder/net.py", "--no-check"], 0),
    (["m.onnx", "-o", ".", "--no-check"], 0),
    (["m.onnx", "--input_shape", "x:2,4", "--no-check"], 0),
    (["m.onnx", "--input_shape", "2,4", "--no-check"], 0),
    (["m.onnx", "--input_shape", "x:-1,4", "--no-check"], 0),
    (["m.onnx", "--input_shape", "x:batch,4", "--no-check"], 0),
    (["m.onnx", "--input_shape", "x:2,5", "--no-check"], 2),
    (["m.onnx", "--input_shape", "x:2,4,1", "--no-check"], 2),
    (["simplify", "m.onnx", "s.onnx", "--no-check"], 0),
    (["simplify", "m.onnx", "new/folder/", "--no-check"], 0),
    (["simplify", "m.onnx", ".", "--no-check", "--disable", "fuse_bn_into_conv"], 0),
    (
        ["simplify", "m.onnx", "s.onnx", "--no-check", "--skip-optimization", "eliminate_x", "a_b"],
        0,
    ),
    (["simplify", "--list-rules"], 0),
    (["inspect", "m.onnx"], 0),
    (["inspect", "m.onnx", "-q"], 0),
    (["completion", "zsh"], 0),
    (["--version"], 0),
    (["--help"], 0),
    ([], 2),
    (["converr", "m.onnx"], 2),
    (["m.onnx", "--quite"], 2),
    (["-q", "inspect", "m.onnx"], 2),
    (["m.onnx", "--input_shape", "x:1.5"], 2),
    (["m.onnx", "--input_shape", "nothing:1,2", "--no-check"], 2),
    (["m.onnx", "-o", "x.doc", "--no-check"], 2),
    (["m.onnx", "-o", "a.py", "-o", "b.py"], 2),
    (["m.onnx", "-o"], 2),
    (["m.onnx", "--json=yes"], 2),
    (["m.onnx", "a.py", "b.py"], 2),
    (["simplify"], 2),
    (["simplify", "m.onnx", "--only", "fuse-bn"], 2),
    (["simplify", "m.onnx", "--opset", "-1"], 2),
    (["simplify", "m.onnx", "--opset", "5000"], 2),
    (["simplify", "m.onnx", "--no-large-tensor=lots"], 2),
    (["completion", "fihs"], 2),
    (["none.onnx"], 3),
    (["bad.onnx"], 3),
    (["simplify", "none.onnx"], 3),
    (["inspect", "bad.onnx"], 3),
]


@pytest.mark.parametrize("words, code", SAME)
def test_both_accept_and_refuse_the_same(words: list[str], code: int, run: Run) -> None:
    Path("bad.onnx").write_bytes(b"\xff" * 100)
    got, out, err = run(*words)
    assert got == code, err
    assert "Traceback" not in err
    if code == 2 and words:
        assert "error" in err
    if code == 0 and words[0] not in ("completion", "--help", "--version"):
        at = words.index("--") if "--" in words else len(words)
        _, out, _ = run(*words[:at], "--json", *words[at:])
        assert json.loads(out)["exit_code"] == 0


SUGGESTIONS = [
    (["converr", "m.onnx"], "did you mean convert?"),
    (["simplfy", "m.onnx"], "did you mean simplify?"),
    (["m.onnx", "--quite"], "did you mean --quiet?"),
    (["m.onnx", "--jsn"], "did you mean --json?"),
    (["simplify", "m.onnx", "--only", "fuse-bn"], "did you mean fuse-batch-norm?"),
    (["simplify", "m.onnx", "--disable", "fuse-bach-norm"], "did you mean fuse-batch-norm?"),
    (["simplify", "m.onnx", "--why-not", "fold-constnts"], "did you mean fold-constants?"),
    (["completion", "fihs"], "did you mean fish?"),
    (["m.onnx", "--opset", "3"], "--opset is no option of convert but of simplify"),
    (["-q", "inspect", "m.onnx"], "the command comes first: onnx2nn inspect"),
    (["m.onnx", "--zzzzzzzz"], "unknown option --zzzzzzzz\n"),
    (["wat"], "'wat' is neither a command nor a file; the commands are"),
]


@pytest.mark.parametrize("words, said", SUGGESTIONS)
def test_misspelt_words_are_told_what_was_meant(words: list[str], said: str, run: Run) -> None:
    code, _, err = run(*words)
    assert code == ExitCode.USAGE
    assert said in err
    if words[0] == "completion":
        return
    code, out, _ = run(*words, "--json")
    assert code == ExitCode.USAGE
    assert said.strip() in json.loads(out)["error"] + "\n"


def test_the_native_program_says_that_checking_is_elsewhere() -> None:
    for words in (["verify", "m.onnx"], ["m.onnx", "--seed", "1"]):
        code, _, err = native(*words)
        assert code == ExitCode.USAGE
        assert "onnx2nn[verify]" in err
    code, out, _ = native("m.onnx")
    assert code == 0
    assert "NOT CHECKED: this program cannot check" in out


# ---- Silly values ----

SILLY = [
    "",
    "-1",
    "x:99999999999,4",
    "99999999999999999999",
    "nan",
    "1e999",
    "x:",
    "a\x1b[31m\u202e",
    ".",
    "x.py/",
    b"\xff",
]


def _silly() -> Iterator[tuple[str, str | None, Any]]:
    for command in COMMANDS.values():
        for option in command["options"]:
            if option["metavar"]:
                for value in SILLY:
                    yield command["name"], next(iter(option["spellings"]), None), value


@pytest.mark.parametrize("program", ["python", "native"])
def test_no_silly_value_is_our_fault(program: str, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for command, spelling, value in _silly():
        text = os.fsdecode(value)
        words = [command]
        if command != "completion" and spelling != "--onnx_path":
            words.append("m.onnx")
        words += [text] if spelling is None else [spelling, text]
        if command in ("convert", "simplify") and spelling not in (
            "--input",
            "--seed",
            "--threads",
        ):
            words.append("--no-check")
        if program == "python":
            capfd.readouterr()
            code = main(words)
            err = capfd.readouterr().err
        else:
            done = subprocess.run([PROGRAM, *map(os.fsencode, words)], capture_output=True)
            code, err = done.returncode, done.stderr.decode()
        if code not in (0, 1, 2, 3, 4) or "Traceback" in err or "\x1b[31m" in err:
            wrong.append((words, code, err[-300:]))
        for path in Path().iterdir():
            if path.name != "m.onnx":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not wrong


def test_faults_of_users_are_told_as_theirs(python: Run) -> None:
    Path("folder").mkdir()
    assert python("m.onnx", "-o", "folder")[0] == 0
    assert sorted(p.name for p in Path("folder").iterdir()) == ["m.py", "m.safetensors"]
    assert python("m.onnx", "-o", "missing/dir/x.py")[0] == 0
    assert Path("missing/dir/x.safetensors").exists()
    code, _, err = python("m.onnx", "--seed", "-1")
    assert code == ExitCode.USAGE
    assert "--seed: '-1' is not a whole number from 0" in err
    code, _, err = python("m.onnx", "--input", "m.onnx")
    assert code == ExitCode.UNREADABLE
    assert "pickle" not in err
    np.save("one.npy", np.ones((5, 4), np.float32))
    code, out, _ = python("m.onnx", "--input", "one.npy")
    assert code == 0
    assert "x float32[5, 4]" in out


# ---- Not checked ----


@pytest.mark.parametrize("command", ["convert", "verify", "simplify"])
@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_not_checked_is_no_success(command: str, wrong: str, python: Run) -> None:
    if wrong == "shape":
        given = ["--test-input-shape", "x:2,5"]
    else:
        np.savez("in.npz", x=np.ones((2, 4), np.float64))
        given = ["--input", "in.npz"]
    code, out, _ = python(command, "m.onnx", *given)
    assert code == ExitCode.NOT_CHECKED
    assert "NOT CHECKED: " in out
    assert "--input FILE" in out
    assert ("--no-check" in out) == (command != "verify")  # which takes no such option
    if wrong == "dtype":
        assert "float64" in out
        assert "float32" in out
    code, out, _ = python(command, "m.onnx", *given, "--json")
    result = json.loads(out)
    assert code == result["exit_code"] == ExitCode.NOT_CHECKED
    assert (result["ok"], result["checked"], result["check"]["ok"]) == (None, False, None)
    assert result["check"]["skipped"]
    assert conforms(result, SCHEMA) == []
    if command != "verify":
        assert python(command, "m.onnx", *given, "--no-check")[0] == 0


@pytest.mark.parametrize("command", ["convert", "verify", "simplify"])
def test_an_oracle_that_died_is_given_more_and_no_other_inputs(command: str, python: Run) -> None:
    endless = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[2] x) => (float[2] y)
        <int64 n = {9223372036854775807}, bool c = {1}> {
            y = Loop <body = b (int64 i, bool g, float[2] u) => (bool h, float[2] v)
                { h = Identity (g)  v = Sin (u) }> (n, c, x) }"""
    )
    onnx.save(endless, "endless.onnx")
    code, out, _ = python(command, "endless.onnx", "--oracle-timeout", "0.3")
    assert code == ExitCode.NOT_CHECKED
    assert "--oracle-timeout S" in out
    assert "--input FILE" not in out


def test_a_bar_of_ones_own_for_a_simplified_model(python: Run) -> None:
    for words, right in ([], True), (["--atol", "1e-3"], True), (["--nodes", "always"], True):
        code, out, _ = python("simplify", "m.onnx", "s.onnx", "--json", *words)
        result = json.loads(out)
        assert (code == 0) == right
        assert bool(result["check"]["nodes"]) == ("always" in words)


def test_without_what_a_check_needs(python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    for module in ("onnx2nn.cli.options.find_spec",):
        monkeypatch.setattr(
            module, lambda name: None if name in ("onnxruntime", "onnx") else real(name)
        )
    for command in ("convert", "verify", "simplify"):
        code, out, _ = python(command, "m.onnx")
        assert code == ExitCode.NOT_CHECKED
        assert 'NOT CHECKED: onnxruntime, onnx not installed; pip install "onnx2nn[verify]"' in out


def test_a_bare_installation_simplifies_and_lists_rules() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['rich', 'onnx', 'onnxruntime']))\n"
        "from onnx2nn.cli import main\n"
        "assert main(['simplify', '--list-rules']) == 0\n"
        "assert main(['simplify', 'm.onnx', 's.onnx', '--no-check']) == 0\n"
        "assert main(['simplify', 'm.onnx', 's.onnx']) == 4\n"
        "assert main(['inspect', 'm.onnx']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fuse-batch-norm" in done.stdout
    assert "our fault" not in done.stderr


# ---- JSON ----

JSON_RUNS = [
    ["m.onnx"],
    ["m.onnx", "--no-check"],
    ["m.onnx", "--simplify_path", "s.onnx"],
    ["m.onnx", "--simplify_path", "s.onnx", "-o", "net.py"],
    ["inspect", "m.onnx"],
    ["inspect", "unknown.onnx"],
    ["simplify", "m.onnx"],
    ["simplify", "m.onnx", "--why-not", "fuse-batch-norm"],
    ["simplify", "--list-rules"],
    ["verify", "m.onnx"],
    ["verify", "m.onnx", "other.onnx", "--per-node"],
    ["unknown.onnx"],
    ["none.onnx"],
    ["bad.onnx"],
    ["m.onnx", "--nonsense"],
    ["nonsense"],
    ["m.onnx", "-o", "x.doc"],
]


def _write_models() -> None:
    Path("bad.onnx").write_bytes(b"\xff" * 100)
    graph = h.make_graph(
        [h.make_node("Mag\x1b[31mic", ["x"], ["y"], "node\u202e", domain="custom")],
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, [1])],
        [h.make_tensor_value_info("y", T.FLOAT, [1])],
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid("custom", 1)]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="producer")
    # A producer and an operator that are not UTF-8.
    data = (
        model.SerializeToString()
        .replace(b"producer", b"prod\xff\xfer")
        .replace(b"Mag", b"M\xff\xfe")
    )
    Path("unknown.onnx").write_bytes(data)
    other = make_model()
    other.graph.initializer[1].float_data.extend([]) if other.graph.initializer[
        1
    ].float_data else None
    bias = other.graph.initializer[1]
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 1).tobytes()
    onnx.save(other, "other.onnx")


@pytest.mark.parametrize("words", JSON_RUNS, ids=" ".join)
def test_json_is_as_documented(words: list[str], run: Run) -> None:
    _write_models()
    code, out, _ = run(*words, "--json")
    assert out.isascii()
    result = json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert conforms(result, SCHEMA) == []
    assert result["exit_code"] == code
    assert result["ok"] == {0: True, 4: None}.get(code, False)
    if run is native:
        assert result["checked"] is False
    elif code == 0 and words[0] != "inspect" and not {"--no-check", "--list-rules"} & {*words}:
        assert result["checked"] is True
    if "other.onnx" in words and run is not native:
        assert code == ExitCode.WRONG
        assert result["check"]["first_difference"]["node"] == "gemm1"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_made_an_error_of(
    number: signal.Signals, code: int, python: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def importing(*_: Any, **__: Any) -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise ImportError("it was interrupted") from error

    monkeypatch.setattr("onnx2nn.cli.inspect.print_answer", importing)
    got, _, err = python("inspect", "m.onnx")
    assert got == code
    assert "our fault" not in err


def test_json_of_our_own_fault(python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a promise was broken")

    monkeypatch.setattr("onnx2nn.cli.inspect.print_answer", broken)
    code, out, err = python("inspect", "m.onnx", "--json")
    assert code == ExitCode.INTERNAL
    assert conforms(json.loads(out), SCHEMA) == []
    assert "please report it" in err

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx2nn.cli.inspect.print_answer", interrupted)
    assert python("inspect", "m.onnx", "--json")[0] == ExitCode.INTERRUPTED


# ---- Use it ----


def _many_inputs(count: int) -> onnx.ModelProto:
    past = [f"past.{k}" for k in range(count - 2)]
    nodes = [
        h.make_node("Cast", ["ids"], ["i"], to=T.FLOAT),
        h.make_node("Cast", ["mask"], ["m"], to=T.FLOAT),
    ]
    nodes += [h.make_node("ReduceSum", [p], [f"r{k}"], keepdims=0) for k, p in enumerate(past)]
    nodes.append(h.make_node("Sum", ["i", "m", *[f"r{k}" for k in range(len(past))]], ["y"]))
    inputs = [h.make_tensor_value_info(n, T.INT64, ["batch", "seq"]) for n in ("ids", "mask")]
    inputs += [h.make_tensor_value_info(p, T.FLOAT, ["batch", 2, "past", 4]) for p in past]
    outputs = [h.make_tensor_value_info("y", T.FLOAT, ["batch", "seq"])]
    graph = h.make_graph(nodes, "g", inputs, outputs)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("out", ["many.py", "sub/many.py", "not-a-name.py"])
def test_use_it_is_short_and_runs_as_pasted(out: str, python: Run) -> None:
    onnx.save(_many_inputs(86), "many.onnx")
    code, shown, _ = python("many.onnx", out)
    assert code == 0, shown
    lines = shown.partition("Use it:\n")[2].splitlines()
    assert len(lines) <= 8
    assert max(map(len, lines)) < 200
    script = "\n".join(line.removeprefix("    ") for line in lines)
    subprocess.run([sys.executable, "-c", script], check=True)


# ---- Pipes and terminals ----


def test_nothing_is_wrapped_in_a_pipe(python: Run) -> None:
    long = "a" * 120
    Path(long).mkdir()
    shutil.copy("m.onnx", f"{long}/m.onnx")
    _, out, _ = python("verify", f"{long}/m.onnx")
    assert f"{long}/m.onnx: right, against ONNX Runtime" in out
    _, out, _ = python("simplify", f"{long}/m.onnx", f"{long}/s.onnx")
    assert f"{long}/m.onnx -> {long}/s.onnx" in out


class Terminal(io.StringIO):
    """What a terminal would be sent."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[True, False], ids=["rich", "plain"])
def with_rich(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        for module in ("rich", "rich.console"):
            monkeypatch.setitem(sys.modules, module, None)
    return bool(request.param)


TABLES = [
    ["simplify", "--list-rules"],
    ["simplify", "m.onnx", "s.onnx"],
    ["verify", "m.onnx", "--per-node"],
    ["inspect", "m.onnx"],
]


@pytest.mark.parametrize("columns, no_color", [(60, ""), (100, "1")])
def test_tables_fit_a_terminal(
    columns: int, no_color: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    for words in TABLES:
        out = Terminal()
        monkeypatch.setattr(sys, "stdout", out)
        assert main(words) == 0
        # What the core says itself has no colours.
        assert ("\033[" in out.getvalue()) == (not no_color and words[0] != "inspect")
        lines = re.sub("\033.*?m", "", out.getvalue()).splitlines()
        assert max(len(line) for line in lines if ".onnx: " not in line) <= columns, words


def test_tables_are_the_same_in_pipes_and_without_rich(
    python: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")  # pipes have no width
    for words in (TABLES[0], TABLES[3]):
        code, piped, _ = python(*words)
        assert code == 0
        with monkeypatch.context() as without:
            for module in ("rich", "rich.console"):
                without.setitem(sys.modules, module, None)
            out = Terminal()
            without.setattr(sys, "stdout", out)
            assert main(words) == 0
            assert out.getvalue() == piped
    assert "collapse-casts" in python(*TABLES[0])[1]


def test_progress_shows_bytes_and_the_time_left(
    with_rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx2nn.cli import progress

    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(progress, "_PATIENCE_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")

    def wait_for(shown: str) -> None:
        while not re.search(shown, err.getvalue()):
            time.sleep(0.05)

    with progress.Stages(2, quiet=False) as stages:
        stages("convert")
        wait_for(r"convert \d:\d\d:\d\d" if with_rich else r"^convert \.\.\.\n")
        stages("write", 2**21)
        wait_for(r"write +0\.\d/2\.0 MiB -:--:-- left" if with_rich else r"write \.\.\.\n$")
        Path("a").write_bytes(bytes(2**19))
        if with_rich:
            wait_for(r"write 0\.5/2\.0 MiB")
            Path("b").write_bytes(bytes(2**19))
            wait_for(r"write 1\.0/2\.0 MiB \d:\d\d:\d\d left")
    assert ("\033[?25h" in err.getvalue()) == with_rich  # the cursor is back


def test_nothing_moves_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx2nn.cli import progress

    monkeypatch.setattr(progress, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.Stages(1, quiet=False) as stages:
        stages("convert")
        time.sleep(0.3)
    assert sys.stderr.getvalue() == ""


def test_a_reader_that_goes_away_is_no_fault() -> None:
    script = "set -o pipefail; python -m onnx2nn simplify --list-rules | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- Completion ----


def _bash(script: str, words: tuple[str, ...]) -> str:
    return script + (
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        '_onnx2nn; printf "%s\\n" "${COMPREPLY[@]}"'
    )


def _zsh(script: str, words: tuple[str, ...]) -> str:
    """As zsh's bashcompinit calls the function: with arrays from 0, in the emulation of sh."""
    return (
        "autoload -U +X compinit && compinit -D -u\n"
        f"{script}\n"
        "ask() { emulate -L sh; setopt kshglob noglob braceexpand nokshautoload\n"
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
        # The last word is what zsh itself matches what it is offered with.
        f"_onnx2nn; printf '%s\\n' \"${{COMPREPLY[@]}}\" | grep -e ^{shlex.quote(words[-1])}\n}}\nask"
    )


def _fish(script: str, words: tuple[str, ...]) -> str:
    return f"{script}\ncomplete -C {shlex.quote(' '.join(words))}"


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


@pytest.fixture(params=_SHELLS)
def completed(request: pytest.FixtureRequest) -> Callable[..., set[str]]:
    """What a shell offers in place of the last word."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")

    def ask(*words: str) -> set[str]:
        text = _SHELLS[shell](_native.completion(shell), words)
        done = subprocess.run([shell, "-c", text], capture_output=True, text=True, check=False)
        assert not done.stderr, done.stderr
        return {line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()}

    return ask


def test_commands_options_rules_and_shells_are_completed(
    completed: Callable[..., set[str]],
) -> None:
    assert {"convert", "simplify", "m.onnx"} <= completed("onnx2nn", "")
    assert completed("onnx2nn", "simp") == {"simplify"}
    assert "--version" in completed("onnx2nn", "--v")
    assert "--opset" in completed("onnx2nn", "simplify", "m.onnx", "--o")
    assert "--opset" not in completed("onnx2nn", "m.onnx", "--o")
    assert completed("onnx2nn", "simplify", "--disable", "fuse-bat") == {"fuse-batch-norm"}
    assert completed("onnx2nn", "completion", "") >= {"bash", "zsh", "fish"}
    assert completed("onnx2nn", "verify", "m.onnx", "--nodes", "a") == {"always", "auto"}


def test_models_are_completed(completed: Callable[..., set[str]]) -> None:
    for name in ("a model.onnx", "notes.txt", "data.npz", "net.py"):
        Path(name).touch()
    Path("more").mkdir()
    is_fish = completed("onnx2nn", "inspect", "no") != set()
    models = {"m.onnx", "a model.onnx", "more"}
    if is_fish:  # which shows what fits first, and does not hide the rest
        assert models <= completed("onnx2nn", "inspect", "")
        assert "data.npz" in completed("onnx2nn", "verify", "m.onnx", "--input", "")
        assert completed("onnx2nn", "m.onnx", "--data-root", "") == {"more"}
        return
    assert {w for w in completed("onnx2nn", "inspect", "") if w[:1] != "-"} == models
    assert models <= completed("onnx2nn", "")
    assert "notes.txt" not in completed("onnx2nn", "")
    assert completed("onnx2nn", "verify", "m.onnx", "--input", "") == {"data.npz", "more"}
    assert completed("onnx2nn", "m.onnx", "--data-root", "") == {"more"}
    # What is written, or compared, may be of any kind; an option's value takes no place.
    assert "net.py" in completed("onnx2nn", "verify", "m.onnx", "")
    assert "net.py" in completed("onnx2nn", "verify", "--seed", "1", "m.onnx", "")
    assert "net.py" not in completed("onnx2nn", "verify", "--seed", "1", "")
    assert completed("onnx2nn", "m.onnx", "--seed", "") <= {""}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_its_shell(shell: str, run: Run) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "fuse-batch-norm" in out
    assert "allow-unknown" in out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True)


def test_limits_of_the_oracle_reach_it(python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx2nn.check import pieces, process, verification

    seen = []
    for module in (pieces, verification):
        real = module.read_proto

        def spy(*args: Any, real: Any = real) -> Any:
            seen.append((process.limits.seconds, process.limits.memory))
            return real(*args)

        monkeypatch.setattr(module, "read_proto", spy)
    before = (process.limits.seconds, process.limits.memory)
    for words in (["verify", "m.onnx"], ["m.onnx"], ["simplify", "m.onnx"]):
        assert python(*words, "--oracle-timeout", "50", "--oracle-memory", "4GB")[0] == 0
    assert set(seen) == {(50.0, 4 * 2**30)}
    assert (process.limits.seconds, process.limits.memory) == before
