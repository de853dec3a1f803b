"""One row for each operator, by family."""

from ..engine import Row
from . import (
    attention,
    control,
    elementwise,
    linear,
    pictures,
    random,
    recurrent,
    reduce,
    sequence,
    shape,
    signal,
    text,
)

ALL: dict[tuple[str, str], Row] = {}
for _family in (
    attention,
    control,
    elementwise,
    linear,
    pictures,
    random,
    recurrent,
    reduce,
    sequence,
    shape,
    signal,
    text,
):
    for _name, _row in _family.ROWS.items():
        ALL["", _name] = _row
for _name, _row in attention.PREVIEW.items():
    ALL["ai.onnx.preview", _name] = _row
