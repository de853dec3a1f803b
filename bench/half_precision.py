"""Modules loaded in half precision against the answers in float32.

usage: half_precision.py FOLDER [--dtype float16|bfloat16] [--match RE]

FOLDER has NAME.onnx with NAME.npz (in:..., out:...), as bench/zoo.py makes them. A line for each file that fails, gives
floats of another dtype, or differs by more than a fifth of an output's spread; then how many were right.
"""

import argparse
import re
import warnings
from pathlib import Path

import numpy as np
import torch

import onnx2nn

_BAR = 0.2


def fault(path: Path, dtype: torch.dtype) -> str:
    """What is wrong with the model's answers in that dtype; nothing where they are right."""
    data = np.load(path.with_suffix(".npz"))
    inputs = [torch.from_numpy(data[k]) for k in data.files if k.startswith("in:")]
    outputs = [torch.from_numpy(data[k]) for k in data.files if k.startswith("out:")]
    net = onnx2nn.load(path, dtype=dtype)
    with torch.no_grad():
        got = net(*(x.to(dtype) if x.dtype == torch.float32 else x for x in inputs))
    for k, (y, right) in enumerate(
        zip(got if isinstance(got, tuple) else (got,), outputs, strict=True)
    ):
        if right.dtype == torch.float32 and y.dtype != dtype:
            return f"output {k} is of {y.dtype}"
        off = (y.double() - right.double()).abs().max() / right.double().std().clamp(min=1e-9)
        if not off < _BAR:
            return f"output {k} is off by {off:.2g} of its spread"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=["float16", "bfloat16"], default="float16")
    parser.add_argument("--match", type=re.compile, default=re.compile(""))
    a = parser.parse_args()
    warnings.simplefilter("ignore")
    paths = [p for p in sorted(a.folder.glob("*.onnx")) if a.match.search(p.stem)]
    right = 0
    for path in paths:
        try:
            why = fault(path, getattr(torch, a.dtype))
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
        if why:
            print(f"{path.stem}: {why}", flush=True)
        right += not why
    print(f"{right} of {len(paths)} right")


if __name__ == "__main__":
    main()
