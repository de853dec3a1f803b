"""Keras to ONNX to PyTorch to NCNN, by the programs that people use for each step."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from tests.exports.environments import environment, run

import onnx2nn

# The environments are installed by the first test that needs them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
_BAR = 1e-5  # mean squared error at fp32

RUN_NCNN = """
import json, sys
import ncnn, numpy as np
with ncnn.Net() as net:
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param("net.ncnn.param") == 0 and net.load_model("net.ncnn.bin") == 0
    with net.create_extractor() as extractor:
        x = np.load("x.npy")[0]  # kept while ncnn.Mat borrows its memory
        extractor.input("in0", ncnn.Mat(x).clone())
        got = []
        for k in range(int(sys.argv[1])):
            state, y = extractor.extract(f"out{k}")
            assert state == 0
            got.append(np.array(y).tolist())
        print(json.dumps(got))
"""

# Keras' own exporter, or tf2onnx by its command's function.
EXPORT_KERAS = """
import json, sys
import numpy as np, keras
from keras import layers
keras.utils.set_random_seed(0)
inputs = keras.Input((16, 16, 3), name="image")
x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
x = layers.BatchNormalization()(x)
x = layers.ReLU()(x)
x = layers.DepthwiseConv2D(3, padding="same")(x)
x = layers.Activation("relu")(x)
y = layers.Conv2D(8, 1)(x)
x = layers.Add()([x, y])
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dense(5, activation="softmax")(x)
net = keras.Model(inputs, x)
for w in net.weights:
    w.assign(w + 0.05 * np.random.default_rng(0).normal(size=w.shape))
x = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype("float32")
np.save("x.npy", x)
want = np.asarray(net(x)).tolist()
if sys.argv[1] == "keras":
    net.export("net.onnx", format="onnx", verbose=False)
else:
    import tensorflow as tf, tf2onnx
    spec = (tf.TensorSpec((1, 16, 16, 3), tf.float32, name="image"),)
    function = tf.function(lambda image: net(image), input_signature=spec)
    tf2onnx.convert.from_function(function, spec, opset=15, output_path="net.onnx")
print(json.dumps(want))
"""


def by_pnnx(folder: Path, file: str, shape: list[int], outputs: int = 1) -> Any:
    """What ncnn computes for x.npy of the file that pnnx converts: an array for each output."""
    done = subprocess.run(
        [environment("ncnn") / "pnnx", file, f"inputshape={shape}".replace(" ", ""), "fp16=0"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    text = (folder / "net.ncnn.param").read_text()
    # pnnx leaves what it does not know in the file, and says nothing.
    assert not [w for w in ("aten::", "prim::", "pnnx.", "nn.", "F.", "torch.") if w in text], text
    return [np.array(y) for y in run("ncnn", RUN_NCNN, folder, str(outputs))]


def test_torchscript_by_pnnx(tmp_path: Path) -> None:
    onnx2nn.convert(DIGITS, tmp_path / "net.pt")
    x = torch.randn(1, 1, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    (got,) = by_pnnx(tmp_path, "net.pt", [1, 1, 8, 8])
    assert np.square(got - onnx2nn.load(DIGITS)(x).detach().numpy()[0]).mean() < _BAR


@pytest.mark.parametrize("exporter", ["keras", "tf2onnx"])
def test_keras_to_ncnn(exporter: str, tmp_path: Path) -> None:
    """By TorchScript, and by the ONNX that torch writes of the module."""
    want = np.array(run("keras", EXPORT_KERAS, tmp_path, exporter))
    x = np.load(tmp_path / "x.npy")
    net = onnx2nn.load(tmp_path / "net.onnx")
    assert np.square(net(torch.from_numpy(x)).detach().numpy() - want).mean() < 1e-7
    onnx2nn.convert(tmp_path / "net.onnx", tmp_path / "net.pt")
    again = tmp_path / "again"
    again.mkdir()
    (again / "x.npy").symlink_to(tmp_path / "x.npy")
    onnx2nn.export_onnx(net, tmp_path / "net.onnx", again / "net.onnx", for_pnnx=True)
    for folder, file in (tmp_path, "net.pt"), (again, "net.onnx"):
        (got,) = by_pnnx(folder, file, [1, 16, 16, 3])
        assert np.square(got - want[0]).mean() < _BAR


def test_reductions_by_onnx(tmp_path: Path) -> None:
    """Over one axis, whose number as an input pnnx reads as no axis, and over two; and parts."""
    made = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 12]>
        net (float[1, 3, 4, 5] x) => (
            float[1, 4, 5] a, float[1, 4] b, float[1, 4, 5] c, float[1, 4, 4, 1] d, float[1, 2, 4, 5] e
        ) {
            y = Conv(x, w)
            a = ReduceMax<axes = [2], keepdims = 0>(y)
            b = ReduceMin<axes = [2, 3], keepdims = 0>(y)
            c = ReduceMean<axes = [1], keepdims = 0>(y)
            d = ReduceSum<axes = [-1]>(y)
            p, q = Split<axis = 1>(y)
            e = Mul(p, q)
        }
    """)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3, 1, 1)).astype("f")
    made.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    x = rng.normal(size=(1, 3, 4, 5)).astype("f")
    np.save(tmp_path / "x.npy", x)
    net = onnx2nn.load(made)
    onnx2nn.export_onnx(net, made, tmp_path / "net.onnx", for_pnnx=True)
    got = by_pnnx(tmp_path, "net.onnx", [1, 3, 4, 5], outputs=5)
    for y, want in zip(got, net(torch.from_numpy(x)), strict=True):
        np.testing.assert_allclose(y, want.detach()[0], atol=1e-5, rtol=1e-5)
