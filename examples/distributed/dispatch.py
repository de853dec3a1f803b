"""Layers go to GPUs, memory or the disk, wherever there is room: accelerate reads the shards.

pip install accelerate
python dispatch.py
"""

import json
from pathlib import Path

import torch
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from net import Net
from safetensors import safe_open

INDEX = Path("net.safetensors.index.json")


def main() -> None:
    with init_empty_weights():
        model = Net()
    # Tables and masks are in the shards as well, but in no state_dict: accelerate leaves them to us.
    shard_of = json.loads(INDEX.read_text())["weight_map"]
    for name, buffer in model.named_buffers():
        with safe_open(INDEX.with_name(shard_of[name]), "pt") as shard:
            buffer.copy_(shard.get_tensor(name))
    model = load_checkpoint_and_dispatch(
        model, str(INDEX), device_map="auto", offload_folder="offloaded"
    ).eval()
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        logits = model(ids)
    print("devices:", *sorted({str(d) for d in model.hf_device_map.values()}))
    print("logits:", *(f"{x:.4f}" for x in logits[:, -1, :4].flatten().tolist()))


if __name__ == "__main__":
    main()
