"""One row for each operator, by family."""

from ..engine import Row
from . import attention, elementwise, linear, pictures, recurrent, reduce, shape

ALL: dict[tuple[str, str], Row] = {}
for _family in (attention, elementwise, linear, pictures, recurrent, reduce, shape):
    for _name, _row in _family.ROWS.items():
        ALL["", _name] = _row
for _name, _row in attention.PREVIEW.items():
    ALL["ai.onnx.preview", _name] = _row
