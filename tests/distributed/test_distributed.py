"""Converted models in several processes, over gloo: FSDP2, tensor parallel, checkpoints, accelerate."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.distributed import decoder

import onnx2nn

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "distributed"
WORKER = Path(__file__).with_name("worker.py")
TO_THE_END = Path(__file__).with_name("to_the_end.py")


def torchrun(folder: Path, processes: int, program: Path, *arguments: str) -> str:
    """What the first process printed; torchrun finds a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(TO_THE_END), str(program), *arguments]
    return run(folder, command)


def run(folder: Path, command: list[str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.py with tp_plan(), its weights in several shards."""
    path = tmp_path_factory.mktemp("distributed")
    onnx.save(decoder.model(), path / "model.onnx")
    options = {"class_name": "Net", "max_shard_size": "100KB", "tp_plan": True}
    files = onnx2nn.convert(path / "model.onnx", path / "net.py", **options).files
    assert len(files) > 5
    assert onnx2nn.verify(path / "model.onnx", path / "net.py").ok
    return path


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("what", ["sharded", "tensor", "checkpoint"])
def test_answers_and_gradients_are_one_process_s(folder: Path, what: str, processes: int) -> None:
    torchrun(folder, processes, WORKER, what)


@pytest.mark.parametrize("example", ["checkpoint", "finetune", "tensor_parallel"])
def test_examples(folder: Path, example: str) -> None:
    printed = [
        re.findall(r"-?\d+\.\d+", torchrun(folder, processes, EXAMPLES / f"{example}.py"))
        for processes in (1, 2, 4)
    ]
    one, *others = [torch.tensor([float(x) for x in line]) for line in printed]
    assert len(one) >= 5
    for several in others:
        torch.testing.assert_close(several, one, rtol=0, atol=2e-4)


def test_accelerate_example(folder: Path) -> None:
    pytest.importorskip("accelerate")
    expected = torchrun(folder, 1, EXAMPLES / "tensor_parallel.py")
    done = run(folder, [sys.executable, str(EXAMPLES / "dispatch.py")])
    assert "devices: cpu" in done or "devices: 0" in done
    assert done.splitlines()[-1] == expected.splitlines()[-1]


def test_accelerate_offloads_to_the_disk(folder: Path) -> None:
    pytest.importorskip("accelerate")
    code = (
        "import torch; from net import Net, load\n"
        "from accelerate import init_empty_weights, load_checkpoint_and_dispatch\n"
        "with init_empty_weights(): model = Net()\n"
        "alone = load(); model.cos, model.sin = alone.cos, alone.sin\n"
        "places = {n: 'cpu' for n, _ in model.named_children()} | {'': 'cpu'}; del places['layers']\n"
        "places |= {f'layers.{i}': 'disk' if i % 2 else 'cpu' for i in range(4)}; del places['']\n"
        "places |= {'cos': 'cpu', 'sin': 'cpu'}\n"
        "model = load_checkpoint_and_dispatch(model, 'net.safetensors.index.json', device_map=places,"
        " offload_folder='disk')\n"
        "assert model.layers[1].mlp.up_proj.weight.device.type == 'meta'\n"
        "ids = torch.arange(24).reshape(2, 12)\n"
        "torch.testing.assert_close(model(ids), alone(ids))\n"
    )
    run(folder, [sys.executable, "-c", code])


# ---- memory


def layers(path: Path, count: int, width: int) -> None:
    """Layers of `width` squared elements, in a hole of a file."""
    size = 4 * width * width
    with open(path.with_name("w.bin"), "wb") as file:
        file.truncate(count * size)
    value = helper.make_tensor_value_info
    tensors, nodes = [], []
    for i in range(count):
        weight = TensorProto(name=f"layers.{i}.weight", data_type=TensorProto.FLOAT)
        weight.dims.extend([width, width])
        weight.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "w.bin"), ("offset", i * size), ("length", size)):
            weight.external_data.add(key=key, value=str(text))
        tensors.append(weight)
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"layers.{i}.weight"], [f"h{i}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"h{i}"], [f"x{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x0", TensorProto.FLOAT, ["n", width])],
        [value(f"x{count}", TensorProto.FLOAT, ["n", width])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.slow
def test_a_process_takes_its_share_of_memory(tmp_path: Path) -> None:
    """A gigabyte in four processes: a quarter each, the parts that are being read, and a layer or two."""
    layers(tmp_path / "model.onnx", 16, 4096)
    onnx2nn.convert(
        tmp_path / "model.onnx",
        tmp_path / "net.py",
        class_name="Net",
        max_shard_size="140MB",
        tp_plan=True,
    )
    taken = {}
    for what in ("memory-alone", "memory-sharded", "memory-checkpoint", "memory-tensor"):
        processes = 1 if what == "memory-alone" else 4
        printed = torchrun(tmp_path, processes, WORKER, what)
        taken[what] = int(re.findall(r"MiB: (\d+)", printed)[0])
    print(taken)
    assert taken.pop("memory-alone") >= 1024
    for what, most in taken.items():
        assert most < 640, what
    shutil.rmtree(tmp_path)
