"""Modules that are exported and filled again: what the tests of weights for other modules share."""

import contextlib
import copy
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

BOTH = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])


def drawn(module: nn.Module) -> nn.Module:
    """The module with weights of its own, running statistics too."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for t in module.state_dict(keep_vars=True).values():
            if t.is_floating_point():
                t.copy_(torch.rand(t.shape, generator=rng) - 0.4)
        for key, t in module.named_buffers():
            if key.endswith("running_var"):
                t.abs_().add_(0.2)
    return module.eval()


def export(module: nn.Module, x: Tensor, path: Path, dynamo: bool, **options: Any) -> Path:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if dynamo:
        options["verbose"] = False
    else:
        options["opset_version"] = 17
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo, **options)
    return path


def same(module: nn.Module, state: dict[str, Tensor], right: nn.Module, x: Tensor) -> None:
    ready = copy.deepcopy(module).eval()
    ready.load_state_dict(state, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ready(x), right(x), rtol=1e-4, atol=1e-5)
