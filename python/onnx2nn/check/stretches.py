"""Two ONNX files that name the same values: what one computes between them, on the other's inputs.

A rewritten model keeps many of the names. Cut open at those, each stretch of it starts from the
original's own values, so that a difference is seen where it is made.
"""

from typing import Any

import numpy as np

from onnx2nn.api import Source
from onnx2nn.check.compare import Random
from onnx2nn.check.nodes import Traced, difference, node_values
from onnx2nn.check.oracle import first_line, read_proto
from onnx2nn.check.result import Answer, Report, describe
from onnx2nn.check.values import NodeValues, NoValues

__all__ = ["check_stretches"]


def check_stretches(
    traced: Traced, values: NodeValues, target: Source, answer: Answer, report: Report
) -> bool:
    """Compare the values of another model that this one names too; the first that is wrong is reported.

    traced: the conversion of this model, which says how much rounding each value may hold.
    Fills in `report.nodes`. Returns whether all agree. Raises NoValues where the oracle fails.
    """
    other = NodeValues(target, read_proto(target), answer)
    theirs = {name for _, _, name in node_values(other.proto)}
    names = [n for n in traced.names if n in theirs]
    real = values.right(names)
    inputs = [n for n in names if _can_be_fed(real.get(n))]
    try:
        opened = other.opened(inputs, names, real)
        made = opened.run({**answer.feed, **{n: real[n] for n in inputs}})
    except Exception as error:  # each runtime has error types of its own
        raise NoValues(first_line(error)) from error
    hook = traced.hook
    hook.want, hook.found, hook.against = real, {}, made
    traced.run(answer.feed)
    hook.want, hook.against = None, {}
    report.nodes = [hook.found[n] for n in names if n in hook.found]
    wrong = next((c for c in report.nodes if not c.ok), None)
    if wrong is None:
        return True
    shown = {n: describe(n, v) for n, v in real.items()}
    report.first_difference = difference(values, answer, shown, wrong.name)
    report.first_difference.comparison = wrong
    return False


def _can_be_fed(value: Any) -> bool:
    return not isinstance(value, Random) and isinstance(value, np.ndarray)
