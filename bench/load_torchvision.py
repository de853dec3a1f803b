"""torchvision beside a torch for CPUs, for the scripts here that import it or a package that does."""

import importlib.util
from pathlib import Path

import torch


def load_torchvision() -> None:
    """Declares the two operators that torchvision registers on import, where its own library does not load.

    The wheels of the registry are built for torch with CUDA; nothing of the library is used here.
    """
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    for path in Path(next(iter(spec.submodule_search_locations))).glob("_C.*"):
        try:
            torch.ops.load_library(path)
        except OSError:
            for name in "nms", "qnms":
                torch.library.define(
                    f"torchvision::{name}",
                    "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                )
