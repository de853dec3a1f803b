"""Optimiser steps against ONNX's node cases."""

import pytest
from onnx.backend.test.case.test_case import TestCase

from onnx2nn.runtime import training

from . import tensor_cases as tc

HELPERS = {
    "Adagrad": training.adagrad,
    "Adam": training.adam,
    "Momentum": training.momentum_step,
}


@pytest.mark.parametrize("case", **tc.named(tc.cases_of(*HELPERS)))
def test_node_case(case: TestCase) -> None:
    tc.check(case, lambda v, a: HELPERS[case.model.graph.node[0].op_type](*v, **a))
