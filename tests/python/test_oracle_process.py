"""The oracle's process: what it survives, what is said when it does not, and that nothing stays."""

import _thread
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from onnx2nn.check import posix, process, wire, worker
from onnx2nn.check.oracle import OracleDied, OracleError, Reference, Runtime
from onnx2nn.check.skeleton import Skeleton
from onnx2nn.check.verification import verify
from onnx2nn.errors import Error
from onnx2nn.source import Source

ROOT = Path(__file__).parents[2]
# Rounds of a Loop that nobody lives to see the end of.
FOREVER = 2**63 - 1
# What ends ONNX Runtime 1.32 itself: outputs of no name, and sizes that are checked by an assertion.
SEGFAULT = """<ir_version: 8, opset_import: ["" : 7]>
g (float[N,4,8,8] x) => (float[N,4,8,8] y)
<float[4] g = {1,1,1,1}, float[4] b = {0,0,0,0}, float[4] m = {0,0,0,0}, float[4] v = {1,1,1,1}>
{ y, "", "", "", "" = BatchNormalization (x, g, b, m, v) }"""
ABORT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[3,d1,d2,1] x) => (float[] v5)
<int64[8] c1 = {0,-1,0,-1,0,0,1,-1}, int64[2] c4 = {-2,-2}, int64[2] c5 = {0,3},
 int64[2] c6 = {3,0}, int64[2] c7 = {1,1}>
{
  v0, v0z = Split <axis = 1, num_outputs = 2> (x)
  v1 = Pad (v0, c1)
  v3 = Flatten <axis = 4> (v1)
  v4 = Slice (v1, c4, c5, c6, c7)
  c = Cast <to = 7> (v4)
  v5 = Cast <to = 1> (c)
}"""


def parsed(text: str) -> bytes:
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def relu() -> bytes:
    return parsed(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu (x) }'
    )


def loop(rounds: int = FOREVER) -> bytes:
    return parsed(f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) <int64 n = {{{rounds}}}, bool on = {{1}}>
    {{ y = Loop (n, on, x) <body = b (int64 i, bool c, float[2] a) => (bool d, float[2] z)
       {{ d = Identity (c)  z = Neg (a) }}> }}""")


def doubling(times: int) -> bytes:
    """2 to the power of `times` + 8 bytes."""
    lines = "".join(f"x{k + 1} = Concat <axis = 0> (x{k}, x{k})\n" for k in range(times))
    return parsed(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[64] x0) => (float[n] x{times})'
        f" {{ {lines} }}"
    )


@pytest.fixture
def limits() -> Iterator[process.Limits]:
    before = (process.limits.seconds, process.limits.memory)
    yield process.limits
    process.limits.seconds, process.limits.memory = before


def pid() -> int:
    return process.worker().pid


def feed() -> dict[str, Any]:
    return {"x": np.array([-1, 2], np.float32)}


def is_gone(number: int) -> bool:
    """Whether no such process runs; a zombie, which is somebody else's to reap, does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(what: Callable[[], bool]) -> None:
    """For as long as it takes, on a busy machine too: what never comes ends with the test's own limit."""
    while not what():
        time.sleep(0.02)


def cpu_ticks(number: int) -> int:
    """What a process has computed so far."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_until_it_computes(number: int) -> None:
    """Until a process that waited for questions is well into the one it was asked."""
    before = cpu_ticks(number)
    wait_until(lambda: cpu_ticks(number) > before + os.sysconf("SC_CLK_TCK") // 5)


@pytest.mark.parametrize("text", [SEGFAULT, ABORT])
def test_a_model_that_crashes_the_oracle_is_not_checked(text: str) -> None:
    report = verify(parsed(text))
    assert not report.ok
    assert report.skipped
    # A version that no longer crashes refuses it.
    assert "ONNX Runtime: " in report.skipped
    assert "reference" in report.skipped


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_death_by_a_signal_is_said_and_the_process_replaced(number: signal.Signals) -> None:
    other, looping = Runtime(relu()), Runtime(loop())
    first = pid()

    def kill() -> None:
        wait_until_it_computes(first)
        os.kill(first, number)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(OracleDied, match=number.name) as caught:
        looping.run(feed())
    killer.join()
    assert not caught.value.timed_out
    assert is_gone(first)
    # A session that the process had is opened again.
    assert other.run(feed())[0].tolist() == [0, 2]
    assert pid() != first
    with pytest.raises(ChildProcessError):
        os.waitpid(first, 0)  # no zombie


def test_one_that_died_while_idle_is_replaced_silently() -> None:
    runtime = Runtime(relu())
    first = process.worker()
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not first.alive)
    assert runtime.run(feed())[0].tolist() == [0, 2]


def test_a_loop_without_end_is_not_checked(limits: process.Limits) -> None:
    limits.seconds = 0.7
    report = verify(loop())
    assert not report.ok
    assert report.skipped == "ONNX Runtime: took longer than 0.7 s"
    # Python that never ends is ended too.
    with pytest.raises(OracleDied) as caught:
        Reference(Source(loop())).run(feed())
    assert caught.value.timed_out


def test_memory_has_a_limit(limits: process.Limits) -> None:
    limits.memory = 2**30
    runtime = Runtime(doubling(24))
    first = process.worker()
    with pytest.raises(OracleError, match=r"more memory than the 1\.0 GiB"):
        runtime.run({"x0": np.zeros(64, np.float32)})
    assert not first.alive  # with all that it still held
    assert Runtime(relu()).run(feed())[0].tolist() == [0, 2]
    # What is computed and would not fit twice is no answer either.
    with pytest.raises(OracleError, match="more memory"):
        Runtime(doubling(21)).run({"x0": np.zeros(64, np.float32)})


def test_threads_of_a_machine_of_many_cores_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    assert worker._threads(0, 2**30) == 2
    assert worker._threads(64, 2**30) == 2
    assert worker._threads(1, 2**30) == 1
    # The runtime's own choice, where there is room for it, or no limit.
    assert worker._threads(0, 2**40) == 0
    assert worker._threads(0, 0) == 0


def test_it_leaves_most_of_the_memory_alone_by_default() -> None:
    free = posix.free_memory()
    assert 0 < process.worker()._memory < free * 1.2


def test_errors_come_back_with_the_same_first_line() -> None:
    runtime = Runtime(relu())
    with pytest.raises(OracleError, match=r"^\[ONNXRuntimeError\] .*INVALID_ARGUMENT") as caught:
        runtime.run({"x": np.zeros(2)})
    assert not isinstance(caught.value, OracleDied)
    with pytest.raises(OracleError, match="Maga"):
        Runtime(relu().replace(b"Relu", b"Maga"))
    with pytest.raises(Error, match="cannot be loaded"):
        Runtime(relu(), custom_lib="nowhere.so")


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12, dtype=np.int16)[::2],
        np.float64(2.5),
        np.array(7, np.uint8),
        np.zeros((0, 3), np.float16),
        np.array([True, False]),
        np.array([1 + 2j, 3], np.complex64),
        np.array([1, 0.5, -3], ml_dtypes.bfloat16),
        np.array([1, 0.5, -3], ml_dtypes.float8_e5m2),
        np.array([-8, 7], ml_dtypes.int4),
        np.array([["é", "b\x00c"], ["", "\ud800"]], object),
        np.array(["a", "bc"]),
        [np.ones(2), np.zeros(0)],
        [],
        (1, 2.5, "x", True, None, b"bytes", 1 + 2j),
        {1: 0.1, 2: float("inf")},
        [{"a": np.float32(1.5)}, {}],
        float("-inf"),
        np.random.default_rng(0).standard_normal(100_000),
    ],
)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_values_travel(value: Any, kind: str) -> None:
    a, b = socket.socketpair() if kind == "unix" else tcp_pair()
    with a, b:
        sender = threading.Thread(target=wire.send, args=(a, value))
        sender.start()
        same(wire.receive(b), value)
        sender.join()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """What socket.socketpair is on Windows: it carries bytes, and no descriptors."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs = server.accept()[0]
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


@pytest.fixture
def no_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that is reached as on Windows."""
    process.stop()
    monkeypatch.setattr("socket.socketpair", tcp_pair)
    yield
    process.stop()


@pytest.mark.usefixtures("no_descriptors")
def test_it_needs_no_descriptors(limits: process.Limits) -> None:
    runtime = Runtime(doubling(15))  # 8 MiB
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    [y] = runtime.run({"x0": x})
    assert process.worker()._channel.family == socket.AF_INET
    np.testing.assert_array_equal(y.reshape(-1, 64), np.broadcast_to(x, (2**15, 64)))
    y[:] = 0  # it is ours
    large = np.arange(2**20, dtype=np.float32)[::-1]
    np.testing.assert_array_equal(Runtime(relu()).run({"x": large})[0], large)
    with pytest.raises(OracleError, match="INVALID_ARGUMENT"):
        runtime.run({"x0": np.zeros(2)})
    looping, first = Runtime(loop()), pid()

    def kill() -> None:
        wait_until_it_computes(first)
        os.kill(first, signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(OracleDied, match="SIGSEGV"):
        looping.run(feed())
    killer.join()
    limits.seconds = 0.7
    with pytest.raises(OracleDied, match=r"longer than 0\.7 s"):
        looping.run(feed())
    limits.seconds = process.TIMEOUT_S
    [y] = runtime.run({"x0": x})
    assert y.size == 64 * 2**15


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (-signal.SIGSEGV, "SIGSEGV"),
        (-200, "signal 200"),
        (0, None),
        (3, None),
        (0xC0000005, "access violation"),
        (0xC00000FD, "stack overflow"),
        (0xC0000142, "exception 0xc0000142"),
    ],
)
def test_what_ended_a_process_is_said_of_every_system(code: int, how: str | None) -> None:
    assert process.how_it_crashed(code) == how


def test_weights_lie_below_the_model_by_the_rules_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_taken(location: str) -> bool:
        found = Skeleton.__new__(Skeleton)
        monkeypatch.setattr(Skeleton, "_map", lambda self, name: b"12345678")
        return found._external({"location": location, "offset": "0", "length": "8"}) is not None

    assert is_taken("a/b.data")
    assert is_taken("a\\..\\b")  # a name, here
    assert not is_taken("/a")
    assert not is_taken("a/../b")
    monkeypatch.setattr("onnx2nn.check.skeleton.PurePath", PureWindowsPath)
    assert is_taken("a/b.data")
    assert is_taken("a\\b.data")
    for location in ("/a", "\\a", "C:a", "C:\\a", "\\\\server\\share\\a", "a\\..\\b", "../a"):
        assert not is_taken(location), location


def same(got: Any, want: Any) -> None:
    if isinstance(want, (list, tuple, dict)):
        assert type(got) is type(want)
        assert len(got) == len(want)
        if isinstance(want, dict):
            got, want = [*got.items()], [*want.items()]
        for x, y in zip(got, want, strict=True):
            same(x, y)
    elif isinstance(want, (np.ndarray, np.generic)):
        assert isinstance(got, type(want))
        assert got.dtype == want.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, want)
        if isinstance(got, np.ndarray):
            assert got.flags.writeable
    else:
        assert got == want
        assert type(got) is type(want)


def test_sequences_maps_and_absent_optionals() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[n] x, {0}) => ({1}) {{ {2} }}"""
    split = text.format("int64 k", "seq(float[m]) y", "y = SplitToSequence (x, k)")
    [parts] = Runtime(parsed(split)).run({"x": np.arange(5.0, dtype=np.float32), "k": np.array(2)})
    assert [p.tolist() for p in parts] == [[0, 1], [2, 3], [4]]
    has = text.format("optional(float[n]) o", "bool y", "y = OptionalHasElement (o)")
    assert not Runtime(parsed(has)).run({"x": np.ones(1, np.float32), "o": None})[0]
    zipped = """<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>
    g (float[n,2] x) => (seq(map(int64,float)) y)
    { y = ai.onnx.ml.ZipMap <classlabels_int64s = [5, 7]> (x) }"""
    [maps] = Runtime(parsed(zipped)).run({"x": np.array([[0.25, 0.75]], np.float32)})
    assert maps == [{5: 0.25, 7: 0.75}]


def test_many_bytes_travel_quickly_and_leave_nothing() -> None:
    runtime = Runtime(doubling(17))  # 32 MiB of the same numbers
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    [y] = runtime.run({"x0": x})
    before = time.process_time()
    [y] = runtime.run({"x0": x})
    assert time.process_time() - before < 1.0
    np.testing.assert_array_equal(y.reshape(-1, 64), np.broadcast_to(x, (2**17, 64)))
    y[:] = 0  # it is ours
    open_files = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        runtime.run({"x0": x})
    assert len(os.listdir("/proc/self/fd")) == open_files


def run(code: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


ASK = f"""
import numpy as np, os, sys, time
from onnx2nn.check import process
from onnx2nn.check.oracle import Runtime
runtime = Runtime({relu()!r})
answer = runtime.run({{"x": np.array([-1, 2], np.float32)}})[0].tolist()
print(process.worker().pid, answer, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True])
def test_it_dies_with_us(number: signal.Signals, busy: bool) -> None:
    then = f"Runtime({loop()!r}).run({{'x': np.ones(2, np.float32)}})" if busy else "time.sleep(60)"
    program = run(ASK + then)
    assert program.stdout is not None
    worker, _, answer = program.stdout.readline().partition(" ")
    assert answer.strip() == "[0.0, 2.0]"
    if busy:
        wait_until_it_computes(int(worker))
    program.send_signal(number)
    program.wait()
    program.stdout.close()
    wait_until(lambda: is_gone(int(worker)))


def test_it_ends_with_a_program_that_ends() -> None:
    program = run(ASK)
    out, _ = program.communicate()
    assert program.returncode == 0
    wait_until(lambda: is_gone(int(out.split()[0])))


def test_interrupting_ends_the_run_at_once() -> None:
    code = f"""
process.limits.seconds = 1e6  # never given up
try:
    Runtime({loop()!r}).run({{"x": np.ones(2, np.float32)}})
except KeyboardInterrupt:
    print(runtime.run({{"x": np.array([-1, 2], np.float32)}})[0].tolist())
"""
    program = run(ASK + code, start_new_session=True)
    assert program.stdout is not None
    worker = int(program.stdout.readline().split()[0])
    wait_until_it_computes(worker)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    out, _ = program.communicate()
    assert out.strip() == "[0.0, 2.0]"
    assert is_gone(worker)


def test_interrupting_is_noticed_where_it_ends_no_wait() -> None:
    # As on Windows: no signal comes, and only what runs in Python sees that one is meant.
    looping, first = Runtime(loop()), pid()

    def interrupt() -> None:
        wait_until_it_computes(first)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        looping.run(feed())
    thread.join()
    assert is_gone(first)


@pytest.mark.parametrize("closed", ["0", "0, 1, 2"])
def test_closed_standard_streams_are_no_trouble(closed: str, tmp_path: Path) -> None:
    code = f"import os\nfor fd in ({closed},): os.close(fd)\n" + ASK.replace("print(", "said = (")
    code = (
        code.replace(", flush=True", "") + f"open({str(tmp_path / 'out')!r}, 'w').write(str(said))"
    )
    assert run(code).wait() == 0
    assert "[0.0, 2.0]" in (tmp_path / "out").read_text()


def test_it_outlives_the_thread_that_started_it() -> None:
    code = f"""
import threading
from onnx2nn.check import process
def ask():
    exec({ASK!r}, {{}})
for _ in range(2):
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
"""
    out, _ = run(code).communicate()
    first, second = out.splitlines()
    assert first == second


def test_threads_share_it() -> None:
    runtime = Runtime(relu())
    found: list[Any] = []

    def ask(k: int) -> None:
        for _ in range(20):
            x = np.full(20_000, k, np.float32)
            found.append(bool((runtime.run({"x": x})[0] == k).all()))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [True] * 80


def test_a_forked_child_has_one_of_its_own() -> None:
    code = """
if os.fork() == 0:
    child = Runtime(runtime._session._arguments["model"])
    child.run({"x": np.ones(2, np.float32)})
    print(process.worker().pid, flush=True)
    sys.exit()
os.wait()
print(runtime.run({"x": np.array([-1, 2], np.float32)})[0].tolist())
"""
    out, _ = run(ASK + code).communicate()
    first, second, last = out.splitlines()
    assert first.split()[0] != second
    assert last == "[0.0, 2.0]"
    wait_until(lambda: is_gone(int(second)))


def test_starting_waits_for_nothing_and_imports_no_torch() -> None:
    code = """
import sys, time
from pathlib import Path
from onnx2nn.check import process
receive, process._receive = process._receive, None  # whoever waited for an answer would fail
process.start()
process._receive = receive
files = Path(f"/proc/{process.worker().pid}/maps").read_text
while "onnxruntime" not in files():
    time.sleep(0.01)
time.sleep(0.2)
print("torch" in files(), {"torch", "numpy", "onnxruntime"} & set(sys.modules))
"""
    assert run(code).communicate()[0] == "False set()\n"


def test_sessions_are_closed_where_nobody_has_them() -> None:
    def resident() -> int:
        text = Path(f"/proc/{pid()}/status").read_text()
        return int(next(x for x in text.splitlines() if x.startswith("RssAnon")).split()[1]) // 1024

    weights = np.ones((8 * 2**20,), np.float32)  # 32 MiB
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    imports = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    Runtime(relu()).run(feed())
    before = resident()
    for _ in range(8):
        Runtime(model)
    Runtime(relu()).run(feed())
    assert resident() - before < 3 * 32
