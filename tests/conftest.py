"""What holds for all tests."""

import os
import random
import sys

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Tests draw the same numbers in every run: one that fails does so again. ONNX2NN_TEST_SEED=N draws others."""
    seed = int(os.environ.get("ONNX2NN_TEST_SEED", "0"))
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
