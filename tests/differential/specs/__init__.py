"""One row for each operator, by family."""

from ..engine import Row
from . import elementwise, reduce, shape

ALL: dict[tuple[str, str], Row] = {}
for _family in (elementwise, reduce, shape):
    for _name, _row in _family.ROWS.items():
        ALL["", _name] = _row
