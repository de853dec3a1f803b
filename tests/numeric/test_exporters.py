"""Graphs of several nodes as exporters write them, each with what made it hard; at several sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from .harness import compare, expected_outputs, run_converted


def check_text(text: str, *feeds: dict[str, Any]) -> None:
    """Converts the model both ways and compares on each of the feeds."""
    model = onnx.parser.parse_model(text)
    for feed in feeds:
        wanted = expected_outputs(model, feed)
        for simplify in (True, False):
            for g, w in zip(run_converted(model, feed, simplify), wanted, strict=True):
                compare(g, w, 1e-5, 1e-5)


def test_reshape_by_sizes_that_are_only_known_when_run() -> None:
    """An unknown size in the place of one that the input has is not the input's."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
    agraph (float[batch, seq, 4] x) => (float[a, b, c, d] y) {
      batch = Shape <start = 0, end = 1>(x)
      seq = Shape <start = 1, end = 2>(x)
      two = Constant <value_ints = [2]>()
      three = Constant <value_ints = [3]>()
      four = Constant <value_ints = [4]>()
      missing = Sub(three, batch)
      length = Add(seq, missing)
      rows = Div(length, two)
      shape = Concat <axis = 0>(batch, rows, two, four)
      y = Reshape <allowzero = 1>(x, shape)
    }"""
    rng = np.random.default_rng(0)
    for size in (4, 8):
        check_text(text, {"x": rng.standard_normal((3, size, 4)).astype(np.float32)})


def test_padding_to_a_multiple() -> None:
    """PyTorch says how much is missing as (4 - n % 4) % 4: a remainder of what may be negative."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
    agraph (float[batch, seq] x) => (float[batch, chunks, 4] y) {
      seq = Shape <start = 1, end = 2>(x)
      zero = Constant <value_ints = [0, 0, 0]>()
      minus = Constant <value_ints = [-1]>()
      four = Constant <value_ints = [4]>()
      negative = Neg(seq)
      missing = Mod(negative, four)
      pads = Concat <axis = 0>(zero, missing)
      padded = Pad(x, pads)
      length = Add(seq, missing)
      chunks = Div(length, four)
      batch = Shape <start = 0, end = 1>(x)
      shape = Concat <axis = 0>(batch, chunks, four)
      y = Reshape <allowzero = 1>(padded, shape)
    }"""
    rng = np.random.default_rng(0)
    sizes = [(2, 7), (3, 8), (1, 1)]
    check_text(text, *[{"x": rng.standard_normal(s).astype(np.float32)} for s in sizes])


def test_extremes_of_what_may_be_nothing() -> None:
    """How many are not zero, or were found, may be none: then an extreme is the type's limit."""
    text = """<ir_version: 10, opset_import: ["" : 20]>
    agraph (float[n, 3] x) => (float[a] most, float[b] least) {
      zero = Constant <value_float = 0.0>()
      one = Constant <value_ints = [1]>()
      largest = ReduceMax <keepdims = 0>(x, one)
      kept = Greater(largest, zero)
      rows = Compress <axis = 0>(x, kept)
      first = Constant <value_ints = [0]>()
      most = ReduceMax <keepdims = 0>(rows, first)
      least = ReduceMin <keepdims = 0>(rows, first)
    }"""
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    check_text(text, {"x": x}, {"x": -abs(x)})


def test_unbind_in_a_script() -> None:
    """PyTorch writes unbind as pieces of the size 1 without their axis, which ONNX Runtime obeys."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
    agraph (float[batch, seq, 3] x) => (float[seq, batch] y) {
      one = Constant <value_int = 1>()
      last = Constant <value_ints = [-1]>()
      yes = Constant <value = bool {1}>()
      empty = SequenceEmpty()
      parts = SplitToSequence <axis = 1, keepdims = 0>(x, one)
      n = SequenceLength(parts)
      sums = Loop(n, yes, empty) <body = b (int64 i, bool c, seq(float) s) => (bool go, seq(float) t) {
        part = SequenceAt(parts, i)
        sum = ReduceSum <keepdims = 0>(part, last)
        t = SequenceInsert(s, sum)
        go = Identity(c)
      }>
      y = ConcatFromSequence <axis = 0, new_axis = 1>(sums)
    }"""
    rng = np.random.default_rng(0)
    sizes = [(2, 4, 3), (1, 2, 3)]
    check_text(text, *[{"x": rng.standard_normal(s).astype(np.float32)} for s in sizes])
