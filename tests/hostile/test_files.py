"""Hostile files through both programs: an answer and an exit code of ours, in bounded time and memory."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto
from onnx import helper as h

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "build/ci/bin/onnx2nn"
MODELS = sorted(Path(__file__).with_name("models").glob("*.onnx"))
# Done, wrong or not convertible, an unreadable file, not checked.
ANSWERS = (0, 1, 3, 4)
SECONDS = 20
# Python maps several hundred megabytes of libraries, and torch as many threads' stacks.
BYTES = {"native": 1 << 30, "python": 8 << 30}


def model(nodes: list[object], inputs: list[str], initializers: list[TensorProto]) -> ModelProto:
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in inputs],
        [h.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=8)


def sum_of(count: int) -> ModelProto:
    names = [f"x{i}" for i in range(count)]
    return model([h.make_node("Sum", names, ["y"])], names, [])


def unsqueeze_along(count: int) -> ModelProto:
    axes = h.make_tensor("axes", TensorProto.INT64, [count], range(count))
    return model([h.make_node("Unsqueeze", ["x", "axes"], ["y"])], ["x"], [axes])


def slices_along_one_axis(count: int) -> ModelProto:
    axes, ones = (
        h.make_tensor(name, TensorProto.INT64, [count], [value] * count)
        for name, value in (("axes", 0), ("ones", 1))
    )
    far = h.make_tensor("far", TensorProto.INT64, [count], [2**40] * count)
    return model(
        [h.make_node("Slice", ["x", "ones", "far", "axes"], ["y"])], ["x"], [axes, ones, far]
    )


def nested_sequences(count: int) -> ModelProto:
    nodes = [
        h.make_node("SequenceConstruct", ["x" if k == 0 else f"s{k - 1}"], [f"s{k}"])
        for k in range(count)
    ]
    return model([*nodes, h.make_node("Identity", [f"s{count - 1}"], ["y"])], ["x"], [])


def chain_of(op_type: str, count: int) -> ModelProto:
    nodes = [
        h.make_node(op_type, ["x" if k == 0 else f"v{k - 1}"], [f"v{k}"]) for k in range(count)
    ]
    return model([*nodes, h.make_node("Identity", [f"v{count - 1}"], ["y"])], ["x"], [])


def graph_in_the_wrong_place() -> ModelProto:
    """An attribute that a newer opset drops, with nodes inside."""
    inner = h.make_graph([h.make_node("Relu", ["x"], ["z"])], "g", [], [])
    inner.output.append(h.make_tensor_value_info("z", TensorProto.FLOAT, None))
    made = model([h.make_node("Selu", ["x"], ["y"], consumed_inputs=inner)], ["x"], [])
    made.opset_import[0].version = 1
    return made


def vast_nothing() -> ModelProto:
    nothing = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 0, 2**40])
    mask = h.make_tensor("mask", TensorProto.BOOL, [1], [0])
    return model([h.make_node("Compress", ["w", "mask"], ["y"], axis=1)], ["x"], [nothing, mask])


MADE: dict[str, Callable[[], ModelProto]] = {
    "sum_6000_inputs": lambda: sum_of(6000),
    "unsqueeze_100k_axes": lambda: unsqueeze_along(100_000),
    "slice_5000_times": lambda: slices_along_one_axis(5000),
    "sequences_nested_5000": lambda: nested_sequences(5000),
    "graph_in_the_wrong_place": graph_in_the_wrong_place,
    "vast_nothing": vast_nothing,
    "chain_of_10k_exp": lambda: chain_of("Exp", 10_000),
}


@pytest.fixture(params=[*(p.stem for p in MODELS), *MADE])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A hostile file in a folder of its own."""
    name = request.param
    out = tmp_path / f"{name}.onnx"
    made = MADE[name]().SerializeToString() if name in MADE else None
    out.write_bytes(made or Path(__file__).with_name("models").joinpath(out.name).read_bytes())
    return out


def run(program: str, folder: Path, *arguments: str) -> None:
    command = [str(NATIVE)] if program == "native" else [sys.executable, "-m", "onnx2nn"]

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (BYTES[program], BYTES[program]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Of the processor, so that a busy machine takes nothing away.
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))

    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "OMP_NUM_THREADS": "1"},
        preexec_fn=limits,
    )
    said = done.stdout + done.stderr
    assert done.returncode in ANSWERS, f"exit code {done.returncode}: {said[-1000:]}"
    assert "internal error" not in said
    if done.returncode != 0:
        assert "error" in said


@pytest.mark.parametrize("program", ["native", "python"])
def test_a_hostile_file_is_answered(path: Path, program: str) -> None:
    if program == "native" and not NATIVE.exists():
        pytest.skip("the native program is not built")
    run(program, path.parent, str(path), "--no-check")
    if program == "native":
        small = str(path.with_suffix(".small.onnx"))
        run(program, path.parent, "simplify", str(path), small)
        run(program, path.parent, "simplify", str(path), small, "--opset", "21")
