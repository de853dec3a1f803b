"""Models of one node, made from what an operator may be given, and the answers that they get.

A specification is a function that makes a `Case` from one value of each of its options, or None
where these do not go together. `chosen` draws combinations of the options such that every value
of every option appears; each case is converted simplified and not, and compared with ONNX
Runtime, or with the `expected` outputs where it has no kernel.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from tests.numeric.harness import Array, compare, node_model, run_converted

Rng = np.random.Generator
Options = dict[str, Any]
Trim = Callable[[int, Any], Any]

# How many cases of each operator are drawn; thousands are drawn by hand with a larger number.
COUNT = int(os.environ.get("ONNX2NN_DIFFERENTIAL", "8"))
SEED = int(os.environ.get("ONNX2NN_DIFFERENTIAL_SEED", "0"))


@dataclass
class Case:
    """One node, what it is fed, and how near the answer must be."""

    inputs: Sequence[Any]
    attrs: Options = field(default_factory=dict)
    outputs: int | Sequence[bool] = 1
    constants: Sequence[int] = ()
    dynamic: bool = False
    elem_types: dict[int, int] | None = None
    expected: Sequence[Any] | None = None  # where ONNX Runtime has no kernel for the CPU
    rtol: float = 1e-4
    atol: float = 1e-5
    steps: int = 0  # how far integers may be apart, where rounding decides
    trim: Trim | None = None  # takes away what an output leaves unspecified
    opset: int | None = None
    shared: dict[int, int] | None = None  # outputs that must lie in the memory of an input
    out_types: dict[int, int] | None = None  # element types that ONNX Runtime cannot infer
    instead: Sequence[Any] | None = None  # inputs of equal meaning that ONNX Runtime's kernel takes
    instead_attrs: Options | None = None


@dataclass
class Spec:
    domain: str
    op_type: str
    make: Callable[..., Case | None]
    options: dict[str, Sequence[Any]]
    opset: int = 1

    @property
    def key(self) -> tuple[str, str]:
        return self.domain, self.op_type


def specification(
    registry: list[Spec], domain: str, opset: int = 1
) -> Callable[..., Callable[..., Any]]:
    """A decorator maker: `@spec("Name", option=[values], ...)` over a function that makes a case."""

    def spec(*op_types: str, **options: Sequence[Any]) -> Callable[..., Any]:
        def enter(make: Callable[..., Case | None]) -> Callable[..., Case | None]:
            for op_type in op_types:
                registry.append(Spec(domain, op_type, make, options, opset))
            return make

        return enter

    return spec


def seed_of(spec: Spec, options: Options) -> int:
    return zlib.crc32(repr((spec.key, sorted(options.items()), SEED)).encode())


def make_case(spec: Spec, options: Options) -> Case | None:
    rng = np.random.default_rng(seed_of(spec, options))
    extra = {"op_type": spec.op_type} if "op_type" in spec.make.__code__.co_varnames else {}
    return spec.make(rng, **options, **extra)


def combinations(spec: Spec, rng: Rng) -> Iterator[Options]:
    """Endless combinations; each run through the longest option meets every value of each."""
    if not spec.options:
        yield {}
        return
    while True:
        length = max(map(len, spec.options.values()))
        columns = {}
        for name, values in spec.options.items():
            repeated = [values[i % len(values)] for i in range(length)]
            columns[name] = [repeated[i] for i in rng.permutation(length)]
        for i in range(length):
            yield {name: column[i] for name, column in columns.items()}


def chosen(spec: Spec, count: int = COUNT) -> list[Options]:
    """At most `count` combinations that make a case, none twice, always the same ones."""
    rng = np.random.default_rng(zlib.crc32(repr((spec.key, SEED)).encode()))
    found: list[Options] = []
    for tried, options in enumerate(combinations(spec, rng)):
        if len(found) == count or tried > 20 * count:
            break
        if options not in found and make_case(spec, options) is not None:
            found.append(options)
    return found


def name_of(spec: Spec, options: Options) -> str:
    return "-".join([spec.op_type, *(f"{k}={v}" for k, v in options.items())]).replace(" ", "")


def runtime_answer(model: Any, feeds: dict[str, Any], case: Case) -> list[Any]:
    """ONNX Runtime's outputs; it must take the model, or the case tests nothing."""
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    session_options.intra_op_num_threads = 1
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
    )
    if not case.shared:
        return list(session.run(None, feeds))
    # The bound values lie in the arrays' memory, so copies of the arrays are kept.
    copies = {name: np.array(value) for name, value in feeds.items()}
    kept = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in copies.items()}
    binding = session.io_binding()
    for name, value in kept.items():
        binding.bind_ortvalue_input(name, value)
    for i, output in enumerate(session.get_outputs()):
        if i in case.shared:
            binding.bind_ortvalue_output(output.name, kept[f"x{case.shared[i]}"])
        else:
            binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    return [value.numpy().copy() for value in binding.get_outputs()]


def near(got: Any, wanted: Any, case: Case) -> None:
    """Equal; floats within the tolerance, integers within the case's steps."""
    if isinstance(wanted, list | dict):
        assert got == wanted
        return
    wanted = np.asarray(wanted)
    if case.steps and wanted.dtype.kind in "iu":
        y = np.asarray(got)
        assert y.dtype == wanted.dtype
        assert y.shape == wanted.shape
        np.testing.assert_allclose(y.astype(np.int64), wanted.astype(np.int64), 0, case.steps)
        return
    compare(got, wanted, case.rtol, case.atol)


def model_of(
    spec: Spec, case: Case, given: Sequence[Any], attrs: Options
) -> tuple[onnx.ModelProto, Any]:
    inputs = list(given)
    while inputs and inputs[-1] is None:
        inputs.pop()
    model, feeds = node_model(
        spec.op_type,
        inputs,
        opset=case.opset or spec.opset,
        attrs=attrs,
        constants=[i for i in case.constants if i < len(inputs) and inputs[i] is not None],
        outputs=case.outputs,
        domain=spec.domain,
        dynamic=case.dynamic,
        elem_types=case.elem_types,
    )
    for i, elem_type in (case.out_types or {}).items():
        for value in model.graph.output:
            if value.name == f"y{i}":
                value.type.tensor_type.elem_type = elem_type
    return model, feeds


def check(spec: Spec, options: Options) -> None:
    """Converts the case's node both ways, and compares."""
    case = make_case(spec, options)
    assert case is not None
    model, feeds = model_of(spec, case, case.inputs, case.attrs)
    wanted = case.expected
    if wanted is None:
        attrs = case.attrs if case.instead_attrs is None else case.instead_attrs
        known = (model, feeds)
        if case.instead is not None or case.instead_attrs is not None:
            known = model_of(spec, case, case.instead or case.inputs, attrs)
        wanted = runtime_answer(*known, case)
    trim = case.trim or (lambda _, x: x)
    for simplify in (True, False):
        got = run_converted(model, feeds, simplify)
        assert len(got) == len(wanted)
        for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
            near(trim(i, g), trim(i, w), case)


def f32(rng: Rng, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def integers(rng: Rng, dtype: Any, *shape: int) -> Array:
    """Any values of the integer dtype."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)
