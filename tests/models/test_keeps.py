"""What simplifying keeps, over ONNX's own models and, with ONNX2NN_MODELS, over real ones: inputs and outputs with
their names, order, types and dims, opsets, metadata, quantisation; the checker's consent; and it settles at once."""

import os
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.backend.test.loader import load_model_tests

from onnx2nn import _native

MODELS = Path(os.environ.get("ONNX2NN_MODELS", ""))
# In CI every so many of ONNX's models; ONNX2NN_EVERY=1 takes all.
EVERY = int(os.environ.get("ONNX2NN_EVERY", "12"))
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


def passes(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # the checker has error types of its own
        return False
    return True


def ports(model: onnx.ModelProto) -> list[list[tuple[str, bytes]]]:
    """Inputs that are no weights, and outputs, with all that is said of them."""
    held = {t.name for t in model.graph.initializer}
    held |= {t.values.name for t in model.graph.sparse_initializer}
    inputs = [v for v in model.graph.input if v.name not in held]
    out = []
    for values in (inputs, model.graph.output):
        out.append([(v.name, v.SerializeToString(deterministic=True)) for v in values])
    return out


def header(model: onnx.ModelProto) -> tuple[Any, ...]:
    return (
        model.producer_name,
        model.producer_version,
        model.domain,
        model.model_version,
        model.doc_string,
        model.graph.name,
        model.graph.doc_string,
        sorted((p.key, p.value) for p in model.metadata_props),
    )


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    local = {f.domain for f in model.functions}
    return {o.domain or "ai.onnx": o.version for o in model.opset_import if o.domain not in local}


def quantised(model: onnx.ModelProto) -> tuple[int, int]:
    types = [n.op_type for n in model.graph.node]
    return types.count("QuantizeLinear"), types.count("DequantizeLinear")


def lost(model: onnx.ModelProto, opset: int | None = None) -> list[str]:
    """What is not as it was, in words."""
    result = _native.simplify(model.SerializeToString(), None, {"opset": opset} if opset else {})
    if not result["ok"]:
        return [f"refused: {[d['message'] for d in result['diagnostics']][:1]}"]
    after = onnx.load_from_string(result["model"])
    (inputs, outputs), (new_inputs, new_outputs) = ports(model), ports(after)
    wrong = ["other inputs"] if inputs != new_inputs else []
    # Shapes that no runtime can find are not worth keeping.
    same = (
        outputs == new_outputs
        if passes(model)
        else [*zip(*outputs)][:1] == [*zip(*new_outputs)][:1]
    )
    if not same:
        wrong.append("other outputs")
    if header(model) != header(after):
        wrong.append(f"{header(after)} instead of {header(model)}")
    before = opsets(model) | ({"ai.onnx": opset} if opset else {})
    if before.items() - opsets(after).items():
        wrong.append(f"opsets {opsets(after)} instead of {before}")
    if quantised(model) != quantised(after):
        wrong.append(f"{quantised(after)} instead of {quantised(model)}")
    if passes(model) and not passes(after):
        wrong.append("the checker refuses it")
    if _native.simplify(result["model"], None, {})["model"] != result["model"]:
        wrong.append("simplifying it again changes it")
    return wrong


def onnx_models() -> list[tuple[str, onnx.ModelProto]]:
    out = []
    for kind in KINDS:
        for k, case in enumerate(load_model_tests(kind=kind)):
            if k % EVERY == 0:
                model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
                out.append((case.name, model))
    return out


def test_onnx_models_keep_what_is_theirs() -> None:
    models = onnx_models()
    assert len(models) > 1500 // EVERY
    wrong = {name: found for name, model in models if (found := lost(model))}
    assert not wrong, "\n".join(f"{n}: {w}" for n, w in wrong.items())


def test_onnx_models_in_a_newer_opset() -> None:
    wrong = {}
    for name, model in onnx_models():
        opset = next((o.version for o in model.opset_import if o.domain == ""), None)
        if opset is None:
            continue
        if opset < 9 and any(n.op_type == "Scan" for n in model.graph.node):
            continue  # it runs over a batch, which is refused
        if any(n.op_type == "Gradient" for n in model.graph.node):
            continue  # it names values of the graph, which has to stay as it is
        newer = next((v for v in (13, 18, 21, 24) if v > opset), None)
        if newer is not None and (found := lost(model, newer)):
            wrong[name] = found
    assert not wrong, "\n".join(f"{n}: {w}" for n, w in wrong.items())


def described() -> onnx.ModelProto:
    """Inputs and outputs with documentation, denotations, metadata, dims of -1 and 0, and a default."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]> g
        (float[N, 3] x, float[2, 3] k = {1, 2, 3, 4, 5, 6}, seq(float[M]) s)
        => (float[N, 3] y, float[2, 3] z, int64 n)
        { i = Identity(x) y = Relu(i) z = Identity(k) n = SequenceLength(s) }""")
    graph = model.graph
    for v in (*graph.input, *graph.output):
        v.doc_string = f"what {v.name} is"
        v.metadata_props.add(key="pkg.torch", value=v.name)
        v.type.denotation = "TENSOR"
        for d in v.type.tensor_type.shape.dim:
            d.denotation = "DATA_BATCH"
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 0
    return model


def test_all_that_is_said_of_inputs_and_outputs() -> None:
    model = described()
    after = onnx.load_from_string(_native.simplify(model.SerializeToString(), None, {})["model"])
    assert after.graph.input == model.graph.input
    assert after.graph.output == model.graph.output
    assert len(after.graph.node) < len(model.graph.node)


def test_other_shapes_keep_the_rest() -> None:
    options = {"input_shapes": {"x": [2, 3]}}
    result = _native.simplify(described().SerializeToString(), None, options)
    x = onnx.load_from_string(result["model"]).graph.input[0]
    assert [d.dim_value for d in x.type.tensor_type.shape.dim] == [2, 3]
    assert x.doc_string == "what x is"
    assert [(p.key, p.value) for p in x.metadata_props] == [("pkg.torch", "x")]


def real_models() -> list[Path]:
    return sorted(MODELS.glob("*/*.onnx")) if MODELS.name else []


@pytest.mark.slow
@pytest.mark.skipif(not real_models(), reason="ONNX2NN_MODELS names no folder with models")
@pytest.mark.parametrize("path", real_models(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_real_models_keep_what_is_theirs(path: Path) -> None:
    model = onnx.load(str(path))
    if model.ByteSize() > 2**30:
        pytest.skip("over 1 GiB")
    # Not by the path: external data was read into the message.
    assert not lost(model)


def test_a_branch_of_a_function_does_not_hide_a_name() -> None:
    """Once the function is inlined, what its branches give out would have the graph's own names."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "local" : 1]>
        agraph (float[n] X, bool c) => (float[n] y) {
          first = local.pick(X, c)
          y = local.pick(first, c)
        }
        <domain: "local", opset_import: ["" : 18]>
        pick (a, c) => (b) {
          b = If(c) <
            then_branch = t () => (float[n] X) { X = Neg(a) },
            else_branch = e () => (float[n] X) { X = Exp(a) }
          >
        }"""
    )
    once = _native.simplify(model.SerializeToString(), None, {})["model"]
    assert passes(onnx.load_from_string(once))
    assert _native.simplify(once, None, {})["model"] == once


def test_no_type_is_written_that_is_not_known() -> None:
    """A node that goes leaves what it knew to its input: here nothing, of an unknown operator's."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "strange" : 1]>
        agraph (float[1, 4, 8, 8] x) => (float[a, b, c, d] y) {
          odd = strange.Conv(x)
          same = Concat <axis = 1>(odd)
          y = strange.Relu(same)
        }"""
    )
    once = onnx.load_from_string(_native.simplify(model.SerializeToString(), None, {})["model"])
    assert [n.op_type for n in once.graph.node] == ["Conv", "Relu"]
    assert all(v.type.tensor_type.elem_type for v in once.graph.value_info)
