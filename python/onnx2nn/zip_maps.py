"""ZipMap in a module that is exported to ONNX again.

torch knows no maps: the program gives out the rows of scores, and the operator is put behind them in the file.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["has_maps", "put_behind", "rows_of_maps"]

_HELPER = "zip_map"
Labels = tuple[str, ...] | tuple[int, ...]


def has_maps(net: "nn.Module") -> bool:
    """Whether the page of the module makes maps."""
    return _HELPER in _page(net)


def _page(net: "nn.Module") -> dict[str, Any]:
    return getattr(type(net).forward, "__globals__", {})


@contextlib.contextmanager
def rows_of_maps(net: "nn.Module") -> Iterator[set[Labels]]:
    """While inside, the page's maps are the rows of scores that they are made of.

    Gives the labels, once the module has run.
    """
    page, found = _page(net), set[Labels]()
    helper = page.get(_HELPER)

    def keep_rows(x: "Tensor", labels: Sequence[Any]) -> "Tensor":
        found.add(tuple(labels))
        return x

    if helper is not None:
        page[_HELPER] = keep_rows
    try:
        yield found
    finally:
        if helper is not None:
            page[_HELPER] = helper


def put_behind(path: Path, names: dict[str, str], labels: Labels) -> None:
    """Make maps of a written model's outputs. names: of a map, by that of its rows, an output until now."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path, load_external_data=False)
    is_text = isinstance(labels[0], str)
    scores = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    key = TensorProto.STRING if is_text else TensorProto.INT64
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, scores))
    labelled = {"classlabels_strings" if is_text else "classlabels_int64s": labels}
    for output in model.graph.output:
        if output.name not in names:
            continue
        name = names[output.name]
        model.graph.node.append(
            helper.make_node("ZipMap", [output.name], [name], domain="ai.onnx.ml", **labelled)
        )
        output.CopyFrom(helper.make_value_info(name, kind))
    if all(o.domain != "ai.onnx.ml" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    onnx.save(model, path)
