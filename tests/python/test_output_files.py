"""What is written where: files of others stay, names can be imported, modes and links are kept."""

import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

import onnx2nn
from onnx2nn import _native
from onnx2nn.api import convert, simplify_unchecked
from onnx2nn.simplification import simplify_checked
from product import write_model
from programs import PROGRAM


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with 1.onnx and 2.onnx in it."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "1.onnx", 1)
    write_model(tmp_path / "2.onnx", 2)
    return tmp_path


# ---- files of others


@pytest.mark.parametrize(
    ("out", "theirs"),
    [
        ("net.py", "net.py"),
        ("net.py", "net.safetensors"),
        ("net.pth", "net.py"),
        ("net.pth", "net.pth"),
    ],
)
def test_conversion_leaves_files_of_others(folder: Path, out: str, theirs: str) -> None:
    Path(theirs).write_text("mine, not converted from anything by onnx2nn.\n")
    before = contents(folder)
    with pytest.raises(onnx2nn.Error, match=rf"{theirs} exists, and onnx2nn did not write it"):
        convert("1.onnx", out)
    assert contents(folder) == before
    assert set(convert("1.onnx", out, force=True).files) == {out, out[:3] + _weights(out)}
    # Ours now, and replaced without a word.
    convert("2.onnx", out)


def test_a_long_name_does_not_make_long_lines(folder: Path) -> None:
    long = "the_name_of_a_model_that_says_what_it_was_trained_for_and_when_and_by_whom"
    Path("1.onnx").rename(f"{long}.onnx")
    convert(f"{long}.onnx", "net.py")
    assert max(map(len, Path("net.py").read_text().splitlines())) <= 88
    convert(f"{long}.onnx", "net.py")  # known as ours


def _weights(out: str) -> str:
    return ".py" if out.endswith(".pth") else ".safetensors"


def test_weights_of_others_are_known_by_their_metadata(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, "net.safetensors", {"format": "pt"})
    torch.save({"w": torch.zeros(2)}, "net.pth")
    for out in ("net.py", "net.pth"):
        with pytest.raises(onnx2nn.Error, match="did not write it"):
            convert("1.onnx", out)
    convert("1.onnx", "ours.py")
    with safe_open("ours.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "onnx2nn": "1.onnx"}
    convert("1.onnx", "ours.pth")
    state = torch.load("ours.pth", weights_only=True, mmap=True)
    assert [v.shape for v in state.values()] == [(64, 64)]


@pytest.mark.parametrize("checked", [0, 1])
def test_simplification_leaves_files_of_others(folder: Path, checked: int) -> None:
    Path("out.onnx.data").write_text("mine")
    before = contents(folder)
    for out, options in (("2.onnx", {}), ("out.onnx", {"external_data": True})):
        with pytest.raises(onnx2nn.Error, match="exists, and onnx2nn did not write it"):
            simplify_checked("1.onnx", out, check_n=checked, **options)
    for out in ("x.py", "x.pth", "x.safetensors"):
        with pytest.raises(onnx2nn.Error, match="no name for an ONNX model"):
            simplify_checked("1.onnx", out, check_n=checked, force=True)
    assert contents(folder) == before
    for model in ("1.onnx", "2.onnx"):
        simplify_checked(model, "ours.onnx", check_n=checked)
    assert names() == sorted([*before, "ours.onnx"])


def names() -> list[str]:
    return sorted(os.listdir())


def test_an_empty_file_is_nothing_to_lose(folder: Path) -> None:
    Path("net.py").touch()
    convert("1.onnx", "net.py")


def test_a_protected_file_stays(folder: Path) -> None:
    convert("1.onnx", "net.py")
    Path("net.py").chmod(0o444)
    if os.access("net.py", os.W_OK):
        pytest.skip("root may write everything")
    with pytest.raises(onnx2nn.Error, match="write-protected"):
        convert("2.onnx", "net.py")


# ---- inputs


def test_no_output_overwrites_an_input(folder: Path) -> None:
    write_model(folder / "external.onnx", 3, "w.pth")
    write_model(folder / "3.onnx", 3, "3.onnx.data")
    os.link("1.onnx", "hard.onnx")
    os.symlink("1.onnx", "soft.onnx")
    os.symlink("3.onnx.data", "soft.onnx.data")
    before = contents(folder)
    for out in ("hard.onnx", "soft.onnx"):
        with pytest.raises(onnx2nn.Error, match="cannot be the output"):
            simplify_unchecked("1.onnx", out, force=True)
    with pytest.raises(onnx2nn.Error, match="cannot be the output"):
        convert("external.onnx", "w.pth", force=True)
    with pytest.raises(onnx2nn.Error, match=r"soft\.onnx is a link"):
        simplify_unchecked("soft.onnx", "soft.onnx")
    os.remove("soft.onnx")
    del before["soft.onnx"]
    with pytest.raises(onnx2nn.Error, match=r"soft\.onnx\.data is read as part"):
        simplify_unchecked("3.onnx", "soft.onnx", force=True)
    assert contents(folder) == before


@pytest.mark.parametrize("checked", [0, 1])
def test_in_place(folder: Path, checked: int) -> None:
    """Weights of others stay; ours are replaced under their name, also the second time."""
    write_model(folder / "net.onnx", 3, "net.onnx.data")
    theirs = Path("net.onnx.data").read_bytes()
    expected = numpy_helper.to_array(onnx.load("net.onnx").graph.initializer[0])
    for _ in range(3):
        outcome = simplify_checked("./net.onnx", "net.onnx", check_n=checked)
        assert outcome.result["files"] == ["net.onnx", "net.onnx.1.data"]
        assert names() == ["1.onnx", "2.onnx", "net.onnx", "net.onnx.1.data", "net.onnx.data"]
        model = onnx.load("net.onnx")
        assert [n.op_type for n in model.graph.node] == ["MatMul", "Relu"]
        np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), expected)
    assert Path("net.onnx.data").read_bytes() == theirs
    # It is the user's model still.
    with pytest.raises(onnx2nn.Error, match="did not write it"):
        simplify_unchecked("1.onnx", "net.onnx")


def test_the_name_of_our_weights_stays(folder: Path) -> None:
    """What refers to it from outside, such as an upload, goes on working; inside, nothing is left."""
    for model in ("1.onnx", "2.onnx", "2.onnx"):
        simplify_unchecked(model, "out.onnx", external_data=True)
        assert names() == ["1.onnx", "2.onnx", "out.onnx", "out.onnx.data"]
    bytes_of_first = contents(folder)
    simplify_unchecked("2.onnx", "out.onnx", external_data=True)
    assert contents(folder) == bytes_of_first
    simplify_unchecked("2.onnx", "out.onnx")
    assert names() == ["1.onnx", "2.onnx", "out.onnx"]


# ---- kinds of files


def test_only_regular_files_are_written(folder: Path) -> None:
    Path("folder.onnx").mkdir()
    for name in ("pipe.py", "pipe.onnx"):
        os.mkfifo(name)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.py")
    os.symlink("/dev/null", "null.py")
    os.symlink("/dev/null", "null.onnx")
    before = {n: stat.S_IFMT(os.lstat(n).st_mode) for n in names()}
    for name in ("pipe", "socket", "null"):
        with pytest.raises(onnx2nn.Error, match="cannot write"):
            convert("1.onnx", f"{name}.py", force=True)
    for name in ("folder", "pipe", "null"):
        for checked in (0, 1):
            with pytest.raises(onnx2nn.Error, match="cannot write"):
                simplify_checked("1.onnx", f"{name}.onnx", check_n=checked, force=True)
    with pytest.raises(onnx2nn.Error, match="cannot write"):
        simplify_unchecked("1.onnx", "/dev/null", force=True)
    server.close()
    assert {n: stat.S_IFMT(os.lstat(n).st_mode) for n in names()} == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_modes_are_kept(folder: Path) -> None:
    old = os.umask(0o027)
    try:
        files = convert("1.onnx", "net.py").files
        assert [os.stat(f).st_mode & 0o777 for f in files] == [0o640] * 2
        os.chmod("net.py", 0o755)
        os.chmod("net.safetensors", 0o600)
        convert("2.onnx", "net.py")
        assert [os.stat(f).st_mode & 0o777 for f in files] == [0o755, 0o600]
    finally:
        os.umask(old)


def test_links_are_followed(folder: Path) -> None:
    Path("far").mkdir()
    os.symlink("far/weights", "net.safetensors")
    for model in ("1.onnx", "2.onnx"):
        convert(model, "net.py")
        assert Path("net.safetensors").is_symlink()
    assert os.listdir("far") == ["weights"]
    convert("2.onnx", "other.py")
    assert Path("far/weights").read_bytes()[100:] == Path("other.safetensors").read_bytes()[100:]
    Path("far/theirs").write_text("mine")
    os.symlink("far/theirs", "third.py")
    with pytest.raises(onnx2nn.Error, match="did not write it"):
        convert("1.onnx", "third.py")


def test_leftovers_of_killed_runs_go(folder: Path) -> None:
    Path(".onnx2nn-0123456789abcdef.tmp").write_text("dead")
    Path(".onnx2nn-0123456789abcdee").mkdir()
    Path(".onnx2nn-0123456789abcdee/out.onnx").write_text("dead")
    kept = [".onnx2nn-notes.tmp", ".onnx2nn-0123456789abcdef.txt", ".onnx2nn-1111111111111111.tmp"]
    for name in kept:
        Path(name).write_text("alive")
    os.symlink("1.onnx", ".onnx2nn-2222222222222222.tmp")
    import fcntl

    with open(kept[2]) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        convert("1.onnx", "net.py")
        hidden = {n for n in names() if n.startswith(".")}
        assert hidden == {*kept, ".onnx2nn-2222222222222222.tmp"}


def test_two_writers_do_not_mix(folder: Path) -> None:
    """Source and weights are of one and the same run, whoever comes last."""
    write_model(folder / "other.onnx", 5)
    model = onnx.load("other.onnx")
    model.graph.initializer[0].name = "v"
    model.graph.node[0].input[1] = "v"
    onnx.save(model, "other.onnx")
    for _ in range(8):
        runs = [
            subprocess.Popen([PROGRAM, "convert", f"{name}.onnx", "-o", "net.py", "-q"])
            for name in ("1", "other", "1", "other")
        ]
        assert [r.wait() for r in runs] == [0] * 4
        space: dict[str, object] = {"__file__": str(folder / "net.py")}
        exec(Path("net.py").read_text(), space)
        space["load"]()  # type: ignore[operator]
    assert {n for n in names() if "net" in n} == {"net.py", "net.safetensors"}


# ---- names


def module_name(model: str) -> str:
    return Path(_native.output_paths(model, "")[0]).name.removesuffix(".py")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("net", "net"),
        ("my-net.v2 (1)", "my_net_v2_1"),
        ("_a__b", "_a__b"),
        ("01", "model_01"),
        ("class", "class_model"),
        ("torch", "torch_model"),
        ("json", "json_model"),
        ("onnx2nn", "onnx2nn_model"),
        ("__init__", "__init___model"),
        ("模型", "模型"),
        ("模-型 2", "模_型_2"),
        ("été", "été"),
        (unicodedata.normalize("NFD", "été"), "été"),
        (unicodedata.normalize("NFD", "モデル한국"), "モデル한국"),
        ("ﬁne Ａ①", "fine_A1"),
        ("🙂", "model"),
        ("--", "model"),
        ("\N{ARABIC-INDIC DIGIT ONE}a", "model_\N{ARABIC-INDIC DIGIT ONE}a"),
    ],
)
def test_names_of_modules(stem: str, name: str) -> None:
    assert module_name(f"some/folder/{stem}.onnx") == name


def test_every_name_can_be_imported() -> None:
    """And is looked up as it is written: NFKC, whatever the name of the model is made of."""
    draw = random.Random(0)
    alphabets = ["abc_019-. ", "àéîõü", "가각갂힣각", "がぎモ゙", "ﬀ①²ｱﾞ", "क़्षि", "עִברית", "ỗ"]
    pool = "".join(alphabets) + "".join(unicodedata.normalize("NFD", a) for a in alphabets)
    for k in range(3000):
        letters = pool if k % 2 else [chr(draw.randrange(0x20, 0x30000)) for _ in range(20)]
        stem = "".join(draw.choices([c for c in letters if not 0xD800 <= ord(c) < 0xE000], k=8))
        name = module_name(stem.replace("/", "-").replace("\0", "-") + ".onnx")
        assert name.isidentifier(), stem
        assert unicodedata.normalize("NFKC", name) == name, stem
        words = unicodedata.normalize("NFKC", stem)
        assert all(c in name for c in words if c.isalpha() and ("a" + c).isidentifier()) or (
            "/" in stem or "." in stem
        )


def test_no_name_hides_a_module() -> None:
    known = {"torch", "numpy", "safetensors", "onnx", "onnxruntime", "onnx2nn", "rich"}
    for module in sorted(sys.stdlib_module_names | known):
        assert module_name(f"{module}.onnx") != module


def test_long_names_fit() -> None:
    name = module_name("模" * 80 + ".onnx")
    assert name == "模" * 66


def test_default_output_hides_no_installed_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    Path("installed").mkdir()
    Path("installed/__init__.py").touch()
    Path("ours.py").touch()
    for name, written in (("installed", "installed_model"), ("ours", "ours"), ("模型", "模型")):
        os.rename("1.onnx", f"{name}.onnx")
        assert convert(f"{name}.onnx", "").files == [f"{written}.py", f"{written}.safetensors"]
        os.rename(f"{name}.onnx", "1.onnx")
    # A name that was asked for is taken.
    assert convert("1.onnx", "installed.py").files[0] == "installed.py"


@pytest.mark.parametrize("stem", ["模型", "été", "01", "class"])
def test_models_of_any_name_are_imported(folder: Path, stem: str) -> None:
    os.rename("1.onnx", f"{stem}.onnx")
    subprocess.run([PROGRAM, "convert", f"{stem}.onnx", "-q"], check=True)
    name = module_name(stem)
    code = f"import {name} as m; n = m.load(); print(type(n).__name__)"
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    expected = {"模型": "模型", "été": "été", "01": "Model01", "class": "Class"}
    assert done.stdout.strip() == expected[stem]


def test_a_name_that_was_asked_for_is_taken_with_a_warning(folder: Path) -> None:
    done = convert("1.onnx", "class.py")
    assert [d["code"] for d in done.diagnostics] == ["bad-name"]
    assert done.files == ["class.py", "class.safetensors"]


# ---- signals


def big_model(path: Path, megabytes: int) -> None:
    """Weights that are a hole in a file: nothing to write, and all to read."""
    size = megabytes << 18
    with open(path.with_name("w.bin"), "wb") as file:
        file.truncate(size * 4)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024, size // 1024])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(size * 4))):
        weight.external_data.add(key=key, value=value)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", 1024])],
        [value("y", TensorProto.FLOAT, ["n", size // 1024])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("program", ["native", "python"])
def test_signals_stop_the_work(
    tmp_path: Path, program: str, number: signal.Signals, code: int
) -> None:
    big_model(tmp_path / "big.onnx", 4096)
    before = contents_names(tmp_path)
    command: list[str | Path] = [PROGRAM]
    if program == "python":
        command = [sys.executable, "-m", "onnx2nn"]
    command += ["convert", "big.onnx", "-o", "net.pth", "--no-check"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1)
    _wait_until_writing(run)
    run.send_signal(number)
    run.communicate()
    assert run.returncode == code
    # It did not write on to the end, which is gigabytes away.
    assert contents_names(tmp_path) == before


def contents_names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def _wait_until_writing(run: "subprocess.Popen[bytes]") -> None:
    while True:
        assert run.poll() is None, run.communicate()
        files = Path(f"/proc/{run.pid}/fd")
        for link in files.iterdir():
            target = os.readlink(link) if link.is_symlink() else ""
            if "(deleted)" in target or ".onnx2nn-" in target:
                return
        time.sleep(0.02)


def test_a_handler_that_raises_is_heard(tmp_path: Path) -> None:
    """As in a notebook: work of the core ends with what the handler of the signal raises."""
    big_model(tmp_path / "big.onnx", 4096)
    code = (
        "import signal, onnx2nn\n"
        "def stop(*_): raise ZeroDivisionError\n"
        "signal.signal(signal.SIGALRM, stop); signal.setitimer(signal.ITIMER_REAL, 0.7)\n"
        "try: onnx2nn.convert('big.onnx', 'net.pth')\n"
        "except ZeroDivisionError: print('heard')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "heard\n", done.stderr
    assert contents_names(tmp_path) == ["big.onnx", "w.bin"]


@pytest.mark.parametrize("program", [[PROGRAM], [sys.executable, "-m", "onnx2nn"]])
def test_nothing_is_written_unless_all_may_be(folder: Path, program: list[str]) -> None:
    Path("net.py").write_text("mine")
    before = contents(folder)
    command = [*program, "convert", "1.onnx", "-o", "net.py", "--simplify_path", "new.onnx"]
    done = subprocess.run([*command, "--no-check"], capture_output=True, text=True)
    assert done.returncode == 3
    assert "net.py exists, and onnx2nn did not write it" in done.stderr
    assert contents(folder) == before
    done = subprocess.run([*command, "--no-check", "--force"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"new.onnx", "net.py", "net.safetensors"} <= set(names())
