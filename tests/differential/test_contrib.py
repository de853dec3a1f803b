"""com.microsoft and its relatives, every operator of the table, over what each may be given."""

from typing import Any

import pytest

from . import microsoft_attention
from .one_node import Spec, check, chosen, name_of

SPECS = microsoft_attention.SPECS


def parameters() -> list[Any]:
    return [
        pytest.param(spec, options, id=name_of(spec, options))
        for spec in SPECS
        for options in chosen(spec)
    ]


@pytest.mark.parametrize(("spec", "options"), parameters())
def test_node(spec: Spec, options: dict[str, Any]) -> None:
    check(spec, options)
