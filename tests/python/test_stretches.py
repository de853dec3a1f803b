"""The check of a simplified model, stretch by stretch: what rounding is allowed, and what is a fault."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnx2nn import _native
from onnx2nn.check import process
from onnx2nn.check.equivalence import Original
from onnx2nn.check.pieces import Graph
from onnx2nn.check.stretches import compare_stretches
from onnx2nn.simplification import simplify_checked
from onnx2nn.source import Source

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def model(graph: str, opset: int = 17, **weights: Any) -> Source:
    proto = onnx.parser.parse_model(HEAD.replace("17", str(opset)) + graph)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()
    )
    return Source(proto.SerializeToString())


def of(rng_seed: int, *shape: int) -> Any:
    return np.random.default_rng(rng_seed).standard_normal(shape).astype(np.float32)


# What follows the products makes a thousand times more of every digit: the sine of large angles.
CHAOTIC = """g (float[n,64] x) => (float[n,64] y) <float k = {{20000}}>
{{ {first} a = Mul (h, k)  y = Sin (a) }}"""
TWO_STEPS = CHAOTIC.format(first="t = MatMul (x, w)  h = MatMul (t, v)")
ONE_STEP = CHAOTIC.format(first="h = MatMul (x, u)")


def test_rounding_that_grows_is_right_with_a_note() -> None:
    w, v = of(1, 64, 64), of(2, 64, 64)
    original = Original(model(TWO_STEPS, w=w, v=v), 1)
    [report] = original.compare(model(ONE_STEP, u=w @ v))
    assert report.ok, report
    assert all(c.rounding for c in report.outputs)
    assert "rounding that grows" in report.notes[-1]
    assert "stretches agrees on equal inputs" in report.notes[-1]


def test_a_bar_of_ones_own_counts_in_place_of_what_lies_between() -> None:
    w, v = of(1, 64, 64), of(2, 64, 64)
    other = model(ONE_STEP, u=w @ v)
    for atol, right in (1e-6, False), (3.0, True):
        [report] = Original(model(TWO_STEPS, w=w, v=v), 1, atol=atol).compare(other)
        assert report.ok is right
    assert report.nodes == []
    [report] = Original(model(TWO_STEPS, w=w, v=v), 1, atol=3.0, nodes="always").compare(other)
    assert report.ok
    assert report.nodes
    [report] = Original(model(TWO_STEPS, w=w, v=v), 1, nodes="never").compare(other)
    assert not report.ok


def test_values_on_the_way_count_though_the_outputs_agree() -> None:
    text = "g (float[n,64] x) => (bool y) <float k = {0}> { a = Abs (x) b = ReduceSum (%s) y = Less (b, k) }"
    original = Original(model(text % "a"), 1, nodes="always")
    [report] = original.compare(model(text.replace("= Abs", "= Exp") % "a"))
    assert report.ok is False
    assert "a is the first value that differs" in report.notes[-1]


@pytest.mark.parametrize("fault", ["weight", "operator", "scale"])
def test_a_fault_before_chaos_is_found(fault: str) -> None:
    w, v = of(1, 64, 64), of(2, 64, 64)
    u = w @ v
    text = ONE_STEP
    if fault == "weight":
        u[5, 7] += 1e-2
    elif fault == "scale":
        u *= np.float32(1 + 1e-5)
    else:
        text = text.replace("Sin", "Cos")
    original = Original(model(TWO_STEPS, w=w, v=v), 1)
    [report] = original.compare(model(text, u=u))
    assert report.ok is False
    first = next(c for c in report.nodes if not c.ok)
    assert first.name == ("y" if fault == "operator" else "h")
    assert first.name in report.notes[-1]


@pytest.mark.parametrize("by", [1.0, 1 + 1e-5])
def test_a_name_that_a_rule_left_to_another_value_is_held_against_that(by: float) -> None:
    steps = (
        CHAOTIC.format(first="m = MatMul (x, w)  n = Add (m, c)  h = Mul (n, k)")
        .replace("float k", "float big")
        .replace("(h, k)", "(h, big)")
    )
    fused = CHAOTIC.format(first="t = MatMul (x, u)  m = Add (t, d)").replace("(h, k)", "(m, k)")
    w, c, k = of(1, 64, 64), of(2, 64), np.abs(of(3, 64)) + 1
    original = Original(model(steps, w=w, c=c, k=k), 1)
    [report] = original.compare(model(fused, u=w * k * np.float32(by), d=c * k))
    assert report.ok is (by == 1)


def test_a_tie_of_a_quantiser_may_fall_on_the_other_side() -> None:
    text = """g (float[n,64] x) => (int8[n,64] y) <float s = {{0.0001}}, int8 z = {{0}}>
    {{ {first} y = QuantizeLinear (h, s, z) }}"""
    w, v = of(1, 64, 64) / 1e3, of(2, 64, 64) / 1e3
    feed = {"x": of(3, 2000, 64)}
    original = Original(
        model(text.format(first="t = MatMul (x, w)  h = MatMul (t, v)"), w=w, v=v), 1, inputs=feed
    )
    one = model(text.format(first="h = MatMul (x, u)"), u=w @ v)
    [report] = original.compare(one)
    assert report.ok, report
    # Half a step is another matter.
    wrong = text.format(first="m = MatMul (x, u)  h = Add (m, b)")
    assert not original.compare(model(wrong, u=w @ v, b=5e-5))[0].ok


DROPOUT = """g (float[n,64] x) => (float[n,64] y) <float r = {{0.5}}, bool t = {{1}}>
{{ {first} d = Dropout (h, r, t)  {last} }}"""


def test_what_is_drawn_is_passed_by_and_the_rest_compared() -> None:
    w = of(1, 64, 64)
    right = DROPOUT.format(first="h = MatMul (x, w)", last="y = Relu (d)")
    original = Original(model(right, w=w), 1)
    [report] = original.compare(model(right, w=w))
    assert report.ok
    assert not any(c.random for c in report.outputs)
    after = DROPOUT.format(first="h = MatMul (x, w)", last="y = Neg (d)")
    gone = "g (float[n,64] x) => (float[n,64] y) { h = MatMul (x, w)  y = Relu (h) }"
    for text in (after, gone):
        assert original.compare(model(text, w=w))[0].ok is False
    [report] = original.compare(model(right, w=2 * w))
    assert report.ok is False
    assert "h is the first value that differs" in report.notes[-1]


def test_a_batch_norm_that_trains_is_not_the_same_as_one_that_infers() -> None:
    text = """g (float[n,4,8] x) => (float[n,4,8] y)
    <float[4] s = {{1,2,3,4}}, float[4] b = {{0,1,0,1}}, float[4] m = {{0,0,0,1}}, float[4] v = {{1,1,4,1}},
     float r = {{0.5}}, bool t = {{1}}>
    {{ {norm}  y = Dropout (h, r, t) }}"""
    trains = text.format(norm="h, m2, v2 = BatchNormalization <training_mode = 1> (x, s, b, m, v)")
    infers = text.format(norm="h = BatchNormalization (x, s, b, m, v)")
    original = Original(model(trains), 1)
    assert original.skipped is None
    assert original.compare(model(infers))[0].ok is False
    assert original.compare(model(trains))[0].ok


def test_an_oracle_that_answers_differently_twice_is_said_and_no_rule_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model(
        "g (float[n,64] x) => (float[n,64] y, float[n,64] z) { y = Relu (x)  i = Identity (x)  z = Neg (i) }"
    )
    # An oracle whose `y` is never the same.
    from onnx2nn.check.oracle import Runtime

    plain = Runtime.run
    rng = np.random.default_rng(0)

    def shaky(self: Any, feed: dict[str, Any]) -> list[Any]:
        values = plain(self, feed)
        for k, name in enumerate(self.outputs):
            if name == "y":
                values[k] = values[k] + rng.standard_normal(values[k].shape).astype(np.float32)
        return values

    monkeypatch.setattr(Runtime, "run", shaky)
    outcome = simplify_checked(source.data, tmp_path / "out.onnx")
    assert outcome.ok
    assert outcome.culprit is None
    assert any("itself answers differently twice" in n for r in outcome.reports for n in r.notes)


def test_a_rule_is_blamed_only_if_undoing_it_mends_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model(
        "g (float[n,8] x) => (float[n,8] y) { a = Identity (x)  b = Mul (a, w)  c = Identity (b)  y = Relu (c) }",
        w=np.arange(1, 9),
    )
    real = _native.simplify

    def broken(only_with: set[str] | None) -> Any:
        def simplify(data: Any, out: Any, options: dict[str, Any]) -> Any:
            result = real(data, out, options)
            used = {rule for rule, _ in result["log"]}
            if result["log"] and (only_with is None or used & only_with):
                path = Path(options.get("staging") or Path(out).parent) / Path(out).name
                written = onnx.load(path)
                written.graph.initializer[0].CopyFrom(
                    numpy_helper.from_array(np.zeros(8, np.float32), "w")
                )
                onnx.save(written, path)
            return result

        return simplify

    log = simplify_checked(source.data, tmp_path / "out.onnx").result["log"]
    rules = {rule for rule, _ in log}
    monkeypatch.setattr(_native, "simplify", broken({log[0][0]}))
    assert simplify_checked(source.data, tmp_path / "out.onnx").culprit == tuple(log[0])
    if len(rules) > 1:
        monkeypatch.setattr(_native, "simplify", broken(None))
        outcome = simplify_checked(source.data, tmp_path / "out.onnx")
        assert outcome.ok is False
        assert outcome.culprit is None


def test_an_oracle_that_cannot_run_is_not_checked(tmp_path: Path) -> None:
    endless = model(
        """g (float[2] x) => (float[2] y) <int64 n = {9223372036854775807}, bool on = {1}>
        { i = Identity (x)  y = Loop (n, on, i) <body = b (int64 k, bool c, float[2] a) => (bool d, float[2] z)
        { d = Identity (c)  z = Neg (a) }> }"""
    )
    with process.allowing(0.7):
        outcome = simplify_checked(endless.data, tmp_path / "out.onnx")
    assert outcome.ok is None
    assert "took longer than 0.7 s" in str(outcome.skipped)


def test_pieces_of_nested_graphs_and_constants() -> None:
    text = """g (float[n] x, bool c) => (float[n] y)
    {{ a = Neg (x)  k = {constant}  s = Add (a, k)
       y = If (c) <then_branch = t () => (float[n] p) {{ p = Relu (s) }},
                   else_branch = e () => (float[n] q) {{ q = Neg (a) }}> }}"""
    folded = text.replace("k = {constant}", "").format()
    original = Graph(model(text.format(constant="Constant <value = float[1] {2.5}> ()")))
    for value, ok in ((2.5, True), (2.6, False)):
        other = Graph(model(folded, k=[value]))
        for c in (True, False):
            feed = {"x": of(0, 5), "c": np.array(c)}
            found = compare_stretches(original, other, feed, {})
            assert {x.name for x in found.compared} == {"a", "k", "s", "y"}
            assert [x.name for x in found.wrong] == ([] if ok else ["k"])


def test_maps_have_no_stretches_and_are_compared_all_the_same() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
    g (float[n,2] x) => (seq(map(int64,float)) y)
    { a = Softmax (x)  y = ai.onnx.ml.ZipMap <classlabels_int64s = [5, LABEL]> (a) }"""
    sources = [
        Source(onnx.parser.parse_model(text.replace("LABEL", label)).SerializeToString())
        for label in ("7", "8")
    ]
    original = Original(sources[0], 1)
    assert original.compare(sources[0])[0].ok
    assert original.compare(sources[1])[0].ok is False


@pytest.mark.parametrize("external", [False, True])
def test_sizes_count_external_data(external: bool, tmp_path: Path) -> None:
    from onnx2nn.check.fields import stored_bytes

    proto = onnx.load_from_string(model(ONE_STEP, u=of(0, 64, 64)).data)
    onnx.save_model(
        proto,
        tmp_path / "m.onnx",
        save_as_external_data=external,
        location="m.data",
        size_threshold=0,
    )
    size = stored_bytes(str(tmp_path / "m.onnx"))
    assert size == sum(f.stat().st_size for f in tmp_path.iterdir())
    assert size > 64 * 64 * 4
    (tmp_path / "text.onnx").write_text("no model")
    assert stored_bytes(str(tmp_path / "text.onnx")) == 8


def test_large_weights_stay_in_their_file_for_the_oracle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx2nn.check import skeleton
    from onnx2nn.check.oracle import read_proto
    from onnx2nn.check.readable import readable
    from onnx2nn.check.verification import verify

    monkeypatch.setattr(skeleton, "_LARGE_FILE", 0)
    monkeypatch.setattr(skeleton, "_LARGE_TENSOR", 1024)
    path = tmp_path / "m.onnx"
    path.write_bytes(model(ONE_STEP, u=of(0, 64, 64) / 1e4).data)
    source = readable(Source(str(path)))
    assert read_proto(source).ByteSize() < 1000
    report = verify(str(path))
    assert report.ok
    assert report.nodes or report.outputs
