"""Values of the command line as the functions of the package take them."""

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from onnx2nn.api import inspect
from onnx2nn.errors import Error

__all__ = [
    "check_options",
    "conversion_options",
    "freed",
    "input_shapes",
    "missing_for_check",
    "start_oracle",
]


def input_shapes(
    given: list[tuple[str, list[int | str | None]]], a: SimpleNamespace
) -> dict[str, list[int | str | None]] | None:
    """Shapes by input name; one without a name belongs to the only input."""
    shapes: dict[str, list[int | str | None]] = {}
    for name, dims in given:
        if not name:
            found = inspect(
                a.model, data_roots=a.data_root, drop_undefined_outputs=a.drop_undefined_outputs
            )
            inputs = [str(i["name"]) for i in found["inputs"]]
            if len(inputs) != 1:
                raise Error(
                    f"--input_shape needs a name: the inputs are {', '.join(inputs)}", usage=True
                )
            name = inputs[0]
        shapes[name] = dims
    return shapes or None


def check_options(a: SimpleNamespace) -> dict[str, Any]:
    """What `verify` and the check of a simplification have in common."""
    return {
        "inputs": a.input,
        "input_shapes": input_shapes(a.test_input_shape, a),
        "seed": a.seed,
        "nodes": a.nodes,
        "atol": a.atol,
        "rtol": a.rtol,
        "threads": a.threads,
        "oracle_timeout": a.oracle_timeout,
        "oracle_memory": a.oracle_memory,
        "keep_values": a.report is not None,
    }


def conversion_options(a: SimpleNamespace) -> dict[str, Any]:
    """What `convert` and `verify` have in common."""
    return {
        "simplify": not a.no_simplify,
        "allow_unknown": a.allow_unknown,
        "fuse": a.fuse,
        "data_roots": a.data_root,
        "drop_undefined_outputs": a.drop_undefined_outputs,
        **freed(a),
    }


def freed(a: SimpleNamespace) -> dict[str, Any]:
    """The dims that are to be opened."""
    axes: dict[str, list[int]] = {}
    for name, dims in a.dynamic:
        axes.setdefault(name, []).extend(dims)
    return {"dynamic_batch": a.dynamic_batch, "dynamic": axes}


def start_oracle() -> None:
    """Let the oracle's process import what it needs while the core and torch are at work."""
    from onnx2nn.check import process

    process.start()


def missing_for_check() -> str | None:
    """What a check would need and is not installed."""
    needed = ("torch", "onnxruntime", "onnx", "safetensors")
    missing = [m for m in needed if find_spec(m) is None]
    if not missing:
        return None
    return f'{", ".join(missing)} not installed; pip install "onnx2nn[verify]"'
