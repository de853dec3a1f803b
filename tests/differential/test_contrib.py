"""com.microsoft and its relatives and ai.onnx.ml: each operator over what it may be given."""

from pathlib import Path
from typing import Any

import pytest

import onnx2nn._native as native

from . import (
    layouts,
    microsoft_attention,
    microsoft_hybrid,
    microsoft_layers,
    microsoft_quantized,
    ml,
)
from .one_node import Spec, check, chosen, name_of

MODULES = [layouts, microsoft_attention, microsoft_hybrid, microsoft_layers]
MODULES += [microsoft_quantized, ml]
SPECS = [spec for module in MODULES for spec in module.SPECS]
# Operators of these domains that have no case here, as domain.Type: it may only shrink.
# No node of com.microsoft.nchwc stands alone: tests/numeric/test_layouts.py has whole models.
ELSEWHERE = ("", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft.nchwc")
WITHOUT_CASE = Path(__file__).with_name("without_case.txt")


def parameters() -> list[Any]:
    return [
        pytest.param(spec, options, id=name_of(spec, options))
        for spec in SPECS
        for options in chosen(spec)
    ]


@pytest.mark.parametrize(("spec", "options"), parameters())
def test_node(spec: Spec, options: dict[str, Any]) -> None:
    check(spec, options)


def test_every_operator_has_a_case() -> None:
    cased = {spec.key for spec in SPECS if chosen(spec, 1)}
    without = {
        f"{op['domain']}.{op['type']}"
        for op in native.op_table()
        if op["domain"] not in ELSEWHERE and (op["domain"], op["type"]) not in cased
    }
    assert without == set(WITHOUT_CASE.read_text().split())
