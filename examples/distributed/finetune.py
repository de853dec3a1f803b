"""FSDP2: each process keeps its part of the weights, of their gradients and of the optimiser's state.

torchrun --nproc-per-node 4 finetune.py
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from net import load
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    dist.init_process_group()
    rank, processes = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh(DEVICE, (processes,))
    model = load().train()  # mapped: nothing of it has been read
    for layers in [m for m in model.modules() if isinstance(m, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    # All learn to count; each process has its rows of the batch.
    ids = torch.arange(96, device=DEVICE).reshape(8, 12) % 60
    mine = ids.chunk(processes)[rank]
    for step in range(5):
        optimizer.zero_grad()
        logits = model(mine)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), mine[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if rank == 0:
            print(f"step {step}: {total.item() / processes:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
