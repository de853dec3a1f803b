"""One of several processes, started by torchrun beside net.py: `worker.py WHAT` holds it to one process's answers."""

import re
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from net import Net, load, tp_plan
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module


def sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    lists = [m for m in model.modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]
    for layer in [layer for layers in lists for layer in layers]:
        if next(layer.parameters(), None) is not None:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def by_checkpoint(mesh: DeviceMesh) -> nn.Module:
    with torch.device("meta"):
        model = sharded(Net(), mesh)
    model.to_empty(device="cpu")
    state = model.state_dict() | dict(model.named_buffers())
    dcp.load(state, storage_reader=HuggingFaceStorageReader("."))
    return model.eval()


def whole(t: Tensor) -> Tensor:
    return t.full_tensor() if isinstance(t, DTensor) else t


def compare(what: str, mesh: DeviceMesh) -> None:
    """Outputs, the loss, all gradients, and the weights after a step."""
    alone = load()
    if what == "tensor":
        model: nn.Module = parallelize_module(load(), mesh, tp_plan(), src_data_rank=None)
        split = [p for p in model.parameters() if isinstance(p, DTensor)]
        assert len(split) == 4 * 9, len(split)
    else:
        model = by_checkpoint(mesh) if what == "checkpoint" else sharded(load(), mesh)
        assert all(isinstance(p, DTensor) for p in model.parameters())
    ids = torch.arange(96).reshape(8, 12) % 60
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (alone, model)]
    for _ in range(2):
        losses = []
        for net, optimizer in zip((alone, model), optimizers):
            optimizer.zero_grad()
            logits = net(ids)
            losses.append(F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
            losses[-1].backward()
        torch.testing.assert_close(losses[1], losses[0])
        expected = dict(alone.named_parameters())
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert expected[name].grad is not None, name
            torch.testing.assert_close(
                whole(p.grad), expected[name].grad, rtol=1e-4, atol=1e-6, msg=name
            )
        for optimizer in optimizers:
            optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(whole(p), dict(alone.named_parameters())[name], msg=name)


def kilobytes(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def memory(what: str, mesh: DeviceMesh) -> None:
    """Prints what this process took above torch itself, at most: MiB."""
    base = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    if what == "memory-tensor":
        model: nn.Module = parallelize_module(load(), mesh, tp_plan(), src_data_rank=None)
    elif what == "memory-checkpoint":
        model = by_checkpoint(mesh)
    elif what == "memory-alone":
        model = load()
        for p in model.parameters():
            p.data = p.data.clone()
    else:
        model = sharded(load(), mesh)
    with torch.no_grad():
        model(torch.ones(2, next(model.parameters()).shape[-1]))
    taken = torch.tensor((kilobytes("VmHWM") - base) >> 10)
    dist.all_reduce(taken, dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        print("MiB:", taken.item())


if __name__ == "__main__":
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    over = init_device_mesh("cpu", (dist.get_world_size(),))
    (memory if sys.argv[1].startswith("memory") else compare)(sys.argv[1], over)
    dist.barrier()
    dist.destroy_process_group()
