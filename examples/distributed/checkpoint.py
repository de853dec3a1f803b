"""Each process reads its part of the shards into an empty model, and saves its part.

torchrun --nproc-per-node 4 checkpoint.py
"""

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from net import Net
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    dist.init_process_group()
    mesh = init_device_mesh(DEVICE, (dist.get_world_size(),))
    with torch.device("meta"):
        model = Net()
    for layers in [m for m in model.modules() if isinstance(m, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=DEVICE)
    # The buffers too: tables and masks are in the shards, but in no state_dict.
    state = model.state_dict() | dict(model.named_buffers())
    dcp.load(state, storage_reader=HuggingFaceStorageReader("."))
    model.eval()
    ids = torch.arange(24, device=DEVICE).reshape(2, 12)
    with torch.no_grad():
        logits = model(ids)
    dcp.save(model.state_dict(), checkpoint_id="saved")
    if dist.get_rank() == 0:
        print("logits:", *(f"{x:.4f}" for x in logits[:, -1, :4].flatten().tolist()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
