import pytest
import torch

from onnx2nn.runtime.unknown import unknown_operator


def test_it_names_the_operator():
    with pytest.raises(NotImplementedError, match=r"acme::Warp \(1 inputs, 2 outputs, .*'name'"):
        unknown_operator("acme::Warp", torch.zeros(1), outputs=2, name="an attribute")
