"""Each operator of the table at each opset that changed it, drawn at random from fixed seeds.

`python -m tests.differential --ops Add --seeds 0:1000` runs more of them by hand. What an operator
is drawn like is in `specs/`, a row each.
"""

from pathlib import Path

import pytest

from .engine import cases, run_case
from .table import ROWS, operators, opsets_of

# Seeds for each opset of each operator.
SEEDS = range(4)
# Operators without a row: it may only shrink.
WITHOUT_ROW = Path(__file__).with_name("without_row.txt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("domain, op_type", ROWS, ids=lambda v: v or "onnx")
def test_operator(domain: str, op_type: str) -> None:
    row = ROWS[domain, op_type]
    checked, wrong = 0, []
    for opset in opsets_of(op_type, domain):
        for seed, case in cases(op_type, domain, opset, SEEDS, row):
            result = run_case(case, row)
            checked += result.status == "ok"
            if result.status == "failed":
                where = f"{op_type} {opset} {seed}, {result.form}, against {result.oracle}"
                wrong.append(f"{where}: {result.message}")
    assert not wrong, "\n".join(wrong)
    assert checked > 0, "no case that an oracle answers"


def test_every_operator_has_a_row() -> None:
    without = {name for domain, name in operators() if (domain, name) not in ROWS}
    assert without == set(WITHOUT_ROW.read_text().split())
