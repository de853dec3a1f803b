"""The rows of all operators, and the opsets at which each is tried."""

import functools

import onnx

import onnx2nn._native as native

from .engine import Row
from .specs import ALL

DOMAINS = ("", "ai.onnx.preview")
ROWS: dict[tuple[str, str], Row] = {
    (spec_domain, name): row for (spec_domain, name), row in ALL.items()
}


def operators() -> list[tuple[str, str]]:
    """(domain, type) of every operator of the table in the domains that are tested here."""
    return [(op["domain"], op["type"]) for op in native.op_table() if op["domain"] in DOMAINS]


@functools.cache
def _versions() -> dict[tuple[str, str], set[int]]:
    versions: dict[tuple[str, str], set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        versions.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    return versions


def opsets_of(op_type: str, domain: str) -> list[int]:
    """The opsets in which the operator's meaning or types changed."""
    ours = next(
        set(op["changed_at"])
        for op in native.op_table()
        if (op["domain"], op["type"]) == (domain, op_type)
    )
    return sorted(ours | _versions().get((domain, op_type), set()))
