"""Exports networks of torchvision, timm and transformers by both exporters of torch, with their own answers.

usage: zoo.py FOLDER [--match RE] [--list]

Needs a virtual environment of its own, with the project's version of torch:
    python -m venv zoovenv && zoovenv/bin/pip install -r bench/zoo-requirements.txt
    zoovenv/bin/python bench/zoo.py FOLDER

Writes for each network, exporter and opset, named NETWORK-OPSET-dynamo or NETWORK-OPSET-legacy:
    NAME.onnx       the model: seeded random weights, the batch dynamic
    NAME.npz        in:INPUT in the model's order, at two rows; out:OUTPUT, what torch answered
    NAME.keys.json  {key: [shape, dtype, sha256 of the bytes]} of the network's state_dict
    zoo.json        {NAME: note} of what an exporter refused or got wrong, and of files that answer only two rows

Files that are there already are kept. Norms' weights, running statistics and all other parameters
that start as one number get noise, so that nothing is 0 or 1 by chance. ONNX Runtime runs each file:
one that does not give torch's answers is removed and noted, since no converter could.
"""

import argparse
import hashlib
import json
import logging
import re
import sys
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from zoo_networks import NETWORKS, ROTATION, Network

_WORSE_THAN_FLOAT32 = (
    1e-3  # ONNX Runtime's distance from torch, of the largest answer: the exporter erred
)


def randomise(model: nn.Module) -> None:
    """Gives noise to every parameter and running statistic that starts as one number."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif isinstance(value, nn.Parameter) and bool((value == value.flatten()[0]).all()):
                value.add_(torch.randn_like(value) * 0.1)


def answers(outputs: Any) -> list[torch.Tensor]:
    """The tensors of what a forward returned, in the exporters' order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    items = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for item in items if item is not None for tensor in answers(item)]


def keys(model: nn.Module) -> dict[str, list[Any]]:
    def row(tensor: torch.Tensor) -> list[Any]:
        array = np.ascontiguousarray(tensor.detach().numpy())
        return [list(tensor.shape), str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()]

    return {key: row(tensor) for key, tensor in model.state_dict().items()}


def export(
    model: nn.Module, inputs: dict[str, torch.Tensor], path: Path, exporter: str, opset: int
) -> None:
    axes = {name: {0: "batch"} for name in inputs}
    options: dict[str, Any] = {"opset_version": opset, "input_names": list(inputs)}
    if exporter == "dynamo":
        options |= {"dynamic_shapes": axes, "external_data": False, "verbose": False}
        torch.onnx.export(model, (), path, kwargs=inputs, dynamo=True, **options)
        return
    # The older exporter takes no parameters that it cannot place, and no classes of results.
    forward = model.forward
    model.forward = lambda *values: tuple(answers(forward(**dict(zip(inputs, values)))))
    values = tuple(inputs.values())
    torch.onnx.export(model, values, path, dynamo=False, dynamic_axes=axes, **options)


def check(path: Path, feeds: dict[str, np.ndarray], want: list[torch.Tensor]) -> str:
    """Why the file is of no use, by ONNX Runtime; empty where it is right."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, feeds)
    if len(got) != len(want):
        return f"{len(got)} outputs for {len(want)} of torch"
    for name, ours, theirs in zip((o.name for o in session.get_outputs()), got, want):
        distance = (
            np.abs(ours.astype(np.float64) - theirs.double().numpy()).max()
            if ours.shape == tuple(theirs.shape)
            else np.inf
        )
        if distance > _WORSE_THAN_FLOAT32 * max(1.0, float(theirs.abs().max())):
            return f"output {name} is {distance:.2g} off torch's"
    return ""


def three_rows(path: Path, feeds: dict[str, np.ndarray]) -> str:
    """What ONNX Runtime says to three rows; empty where it takes them."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    try:
        session.run(
            None, {name: np.concatenate([value, value[:1]]) for name, value in feeds.items()}
        )
    except Exception as error:
        return f"only two rows: {str(error).splitlines()[0][:160]}"
    return ""


def make(network: Network, name: str, folder: Path, exporter: str, opset: int) -> str:
    """Writes the three files of a network by one exporter; what is wrong with them, or an empty text."""
    torch.manual_seed(zlib.crc32(name.encode()))
    model = network.make().eval()
    randomise(model)
    inputs = network.inputs()
    with torch.no_grad():
        want = answers(model(**inputs))
    path = folder / f"{name}-{opset}-{exporter}.onnx"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        draft = Path(scratch) / "model.onnx"
        export(model, inputs, draft, exporter, opset)
        graph = onnx.load(draft).graph
        feeds = {value.name: inputs[value.name].numpy() for value in graph.input}
        if wrong := check(draft, feeds, want):
            return f"wrong: {wrong}"
        fixed = three_rows(draft, feeds)
        results = {f"out:{value.name}": tensor.numpy() for value, tensor in zip(graph.output, want)}
        np.savez(
            path.with_suffix(".npz"),
            **{f"in:{key}": value for key, value in feeds.items()},
            **results,
        )
        path.with_suffix(".keys.json").write_text(json.dumps(keys(model)))
        draft.replace(path)
    return fixed


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--match", default="", help="only names that this regular expression finds")
    parser.add_argument("--list", action="store_true", help="print the names and make nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    notes_path = options.folder / "zoo.json"
    notes: dict[str, str] = json.loads(notes_path.read_text()) if notes_path.exists() else {}
    for place, (name, network) in enumerate(NETWORKS.items()):
        for exporter, rotation in ROTATION.items():
            for opset in network.opsets.get(exporter, (rotation[place % len(rotation)],)):
                full = f"{name}-{opset}-{exporter}"
                if not re.search(options.match, full):
                    continue
                if options.list:
                    print(full)
                    continue
                if (options.folder / f"{full}.onnx").exists():
                    continue
                try:
                    note = make(network, name, options.folder, exporter, opset)
                except Exception as error:
                    note = f"refused: {type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
                notes.pop(full, None)
                if note:
                    notes[full] = note
                notes_path.write_text(json.dumps(notes, indent=1, sort_keys=True) + "\n")
                print(full, note, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
