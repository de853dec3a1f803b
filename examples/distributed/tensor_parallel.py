"""Each process has its heads of every attention, and its features of every MLP.

torchrun --nproc-per-node 2 tensor_parallel.py
"""

import torch
import torch.distributed as dist
from net import load, tp_plan
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    dist.init_process_group()
    mesh = init_device_mesh(DEVICE, (dist.get_world_size(),))
    # Each process takes its part of the mapped weights: nothing is sent.
    model = parallelize_module(load(), mesh, tp_plan(), src_data_rank=None).to(DEVICE)
    ids = torch.arange(24, device=DEVICE).reshape(2, 12)
    with torch.no_grad():
        logits = model(ids)
    if dist.get_rank() == 0:
        print("logits:", *(f"{x:.4f}" for x in logits[:, -1, :4].flatten().tolist()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
