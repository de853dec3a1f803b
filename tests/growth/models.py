"""Models of any size, one kind for each thing of the format that can be many; and models that ask for more than they are.

`GROWING` has functions from a number to a model whose file grows in proportion to it: conversion and
simplification must, too. `BOMBS` are small models that would come to gigabytes or to hours.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

node = h.make_node
Nodes = list[onnx.NodeProto]
Shape = Sequence[int | str] | None
DOMAIN = "my"
CONDITION = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["c"], to=T.BOOL)]


def names(stem: str, n: int) -> list[str]:
    return [f"{stem}{i}" for i in range(n)]


def value(name: str, shape: Shape = ("batch", 8), dtype: int = T.FLOAT) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, dtype, shape)


def values(listed: Iterable[str], shape: Shape = ("batch", 8)) -> list[onnx.ValueInfoProto]:
    return [value(name, shape) for name in listed]


def constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def weights(n: int) -> list[onnx.TensorProto]:
    return [constant(f"w{i}", np.full(8, i, np.float32)) for i in range(n)]


def model(
    nodes: Nodes,
    inputs: Sequence[str | onnx.ValueInfoProto] = ("x",),
    outputs: Sequence[str] = ("y",),
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    **rest: object,
) -> onnx.ModelProto:
    graph = h.make_graph(
        nodes,
        "g",
        [value(v) if isinstance(v, str) else v for v in inputs],
        values(outputs, None),
        initializers,
        **rest,
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid(DOMAIN, 1)]
    return h.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


def function(name: str, nodes: Nodes, attributes: Sequence[str] = ()) -> onnx.FunctionProto:
    """A function of "x" and "y"."""
    opsets = [h.make_opsetid("", 17), h.make_opsetid(DOMAIN, 1)]
    return h.make_function(DOMAIN, name, ["x"], ["y"], nodes, opsets, attributes)


def graph(nodes: Nodes, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.GraphProto:
    return h.make_graph(nodes, "body", values(inputs, None), values(outputs, None))


def row(op_type: str, n: int, stem: str = "v", **attributes: object) -> Nodes:
    """A chain of `n` nodes from x to {stem}{n-1}."""
    ins = ["x", *names(stem, n - 1)]
    return [node(op_type, [ins[i]], [f"{stem}{i}"], **attributes) for i in range(n)]


def fan(n: int, stem: str = "v", of: str = "x") -> Nodes:
    return [node("LeakyRelu", [of], [f"{stem}{i}"], alpha=float(i)) for i in range(n)]


# ---------------------------------------------------------------- nodes and values


def chain(n: int) -> onnx.ModelProto:
    return model(row("Relu", n), outputs=[f"v{n - 1}"])


def backwards(n: int) -> onnx.ModelProto:
    return model(row("Relu", n)[::-1], outputs=[f"v{n - 1}"])


def fan_out(n: int) -> onnx.ModelProto:
    return model([*fan(n), node("Concat", names("v", n), ["y"], axis=1)])


def outputs(n: int) -> onnx.ModelProto:
    return model(fan(n), outputs=names("v", n))


def outputs_of_one_name(n: int) -> onnx.ModelProto:
    nodes = [node("LeakyRelu", ["x"], [f"/a/same/{i}"], alpha=float(i)) for i in range(n)]
    return model(nodes, outputs=[f"/a/same/{i}" for i in range(n)])


def outputs_of_a_node(n: int) -> onnx.ModelProto:
    parts = names("v", n)
    nodes = [node("Split", ["x"], parts, axis=1), node("Concat", parts, ["y"], axis=0)]
    return model(nodes, [value("x", ("batch", n))])


def concat_inputs(n: int) -> onnx.ModelProto:
    return model([node("Concat", names("x", n), ["y"], axis=1)], names("x", n))


def one_input_many_times(n: int) -> onnx.ModelProto:
    return model([node("Concat", ["x"] * n, ["y"], axis=1)])


def concats_in_a_row(n: int) -> onnx.ModelProto:
    nodes = [
        node("Concat", ["x" if i == 0 else f"v{i - 1}", "x"], [f"v{i}"], axis=1) for i in range(n)
    ]
    return model(nodes, outputs=[f"v{n - 1}"])


def unknown_operators(n: int) -> onnx.ModelProto:
    return model(row("Foo", n, domain=DOMAIN), outputs=[f"v{n - 1}"])


def wrong_nodes(n: int) -> onnx.ModelProto:
    nodes = [node("Softmax", ["x"], [f"v{i}"], axis=5 + i) for i in range(n)]
    return model(nodes, outputs=names("v", n))


def attributes(n: int) -> onnx.ModelProto:
    given = {f"a{i}": i for i in range(n)}
    return model([node("Foo", ["x"], ["y"], domain=DOMAIN, **given)])


# ---------------------------------------------------------------- sizes


def symbols(n: int) -> onnx.ModelProto:
    inputs = [value(f"x{i}", (f"s{i}", 8)) for i in range(n)]
    return model([node("Concat", names("x", n), ["y"], axis=0)], inputs)


def symbols_of_one_beginning(n: int) -> onnx.ModelProto:
    inputs = [value(f"x{i}", (f"{'s' * 40}{i}", 8)) for i in range(n)]
    return model([node("Concat", names("x", n), ["y"], axis=0)], inputs)


def symbols_and_branches(n: int) -> onnx.ModelProto:
    nodes = [*CONDITION]
    for i in range(n):
        branch = graph([node("Relu", [f"x{i}"], ["t"])], [], ["t"])
        other = graph([node("Neg", [f"x{i}"], ["e"])], [], ["e"])
        nodes.append(node("If", ["c"], [f"y{i}"], then_branch=branch, else_branch=other))
    inputs = [value("x"), *(value(f"x{i}", (f"s{i}", 8)) for i in range(n))]
    return model(nodes, inputs, names("y", n))


def products_of_symbols(n: int) -> onnx.ModelProto:
    nodes = [node("Shape", [f"x{i}"], [f"h{i}"]) for i in range(n)]
    before = ["h0", *names("v", n - 1)]
    nodes += [node("Mul", [before[i], f"h{i}"], [f"v{i}"]) for i in range(n)]
    return model(nodes, [value(f"x{i}", (f"s{i}",)) for i in range(n)], [f"v{n - 1}"])


def shapes_in_a_row(n: int) -> onnx.ModelProto:
    before = ["s", *names("v", n - 1)]
    nodes = [node("Concat", [before[i], "s"], [f"v{i}"], axis=0) for i in range(n)]
    return model([node("Shape", ["x"], ["s"]), *nodes], outputs=[f"v{n - 1}"])


# ---------------------------------------------------------------- weights


def weights_used(n: int) -> onnx.ModelProto:
    nodes = [node("Concat", [f"w{i}" for i in range(n)], ["z"], axis=0)]
    return model(
        [*nodes, node("MatMul", ["x", "z"], ["y"])], [value("x", (1, 8 * n))], ["y"], weights(n)
    )


def weights_unused(n: int) -> onnx.ModelProto:
    return model(row("Relu", 1, "y"), outputs=["y0"], initializers=weights(n))


def weights_that_begin_alike(n: int) -> onnx.ModelProto:
    # Fewer, as each has some kilobytes.
    few = n // 8
    arrays = np.zeros((few, 1536), np.float32)
    arrays[:, 700] = np.arange(few)
    given = [constant(f"w{i}", a) for i, a in enumerate(arrays)]
    return model(
        [node("Concat", ["x", *names("w", few)], ["y"], axis=0)], [value("x", ("n",))], ["y"], given
    )


def weights_of_one_name(n: int) -> onnx.ModelProto:
    given = [constant(f"onnx::w_{i}", np.full((8, 8), i, np.float32)) for i in range(n)]
    before = ["x", *names("v", n - 1)]
    nodes = [node("Gemm", [before[i], f"onnx::w_{i}"], [f"v{i}"]) for i in range(n)]
    return model(nodes, outputs=[f"v{n - 1}"], initializers=given)


def weights_in_modules(n: int) -> onnx.ModelProto:
    given = [constant(f"layers.{i}.proj.weight", np.full((8, 8), i, np.float32)) for i in range(n)]
    before = ["x", *names("v", n - 1)]
    nodes = [
        node("Gemm", [before[i], f"layers.{i}.proj.weight"], [f"v{i}"], transB=1) for i in range(n)
    ]
    return model(nodes, outputs=[f"v{n - 1}"], initializers=given)


def parts_of_a_name(n: int) -> onnx.ModelProto:
    name = ".".join(names("p", n))
    given = [constant(name, np.ones(8, np.float32))]
    return model([node("Add", ["x", name], ["y"])], initializers=given)


def sparse_weights(n: int) -> onnx.ModelProto:
    sparse = [
        h.make_sparse_tensor(
            h.make_tensor(f"w{i}", T.FLOAT, [1], [float(i)]),
            h.make_tensor("", T.INT64, [1], [3]),
            [8],
        )
        for i in range(n)
    ]
    nodes = [node("Concat", names("w", n), ["z"], axis=0), node("Add", ["x", "z"], ["y"])]
    return model(nodes, [value("x", ("n",))], sparse_initializer=sparse)


def folded_in_a_row(n: int) -> onnx.ModelProto:
    before = ["w", *names("v", n - 1)]
    nodes = [node("Mul", [before[i], "w"], [f"v{i}"]) for i in range(n)]
    given = [constant("w", np.ones(n, np.float32))]
    return model([*nodes, node("Add", ["x", f"v{n - 1}"], ["y"])], [value("x", (n,))], ["y"], given)


# ---------------------------------------------------------------- nested graphs


def loop(n: int, nodes: Nodes, results: Sequence[str], used: int) -> onnx.ModelProto:
    """A Loop of `n` carried values, c0 and so on inside, of which the first `used` are outputs."""
    body = h.make_graph(
        [node("Identity", ["cond"], ["goes_on"]), *nodes],
        "body",
        [value("i", (), T.INT64), value("cond", (), T.BOOL), *values(names("c", n), None)],
        [value("goes_on", (), T.BOOL), *values(results, None)],
    )
    looped = node("Loop", ["trips", "", *names("x", n)], names("y", n), body=body)
    inputs = [value("trips", (), T.INT64), *values(names("x", n))]
    return model([looped], inputs, names("y", used))


def carried(n: int) -> onnx.ModelProto:
    return loop(n, [node("Relu", [f"c{i}"], [f"d{i}"]) for i in range(n)], names("d", n), n)


def carried_in_turns(n: int) -> onnx.ModelProto:
    return loop(n, [], [f"c{(i + 1) % n}" for i in range(n)], n)


def carried_unused(n: int) -> onnx.ModelProto:
    return loop(n, [node("Relu", [f"c{i}"], [f"d{i}"]) for i in range(n)], names("d", n), 1)


def states(n: int) -> onnx.ModelProto:
    body = graph(
        [node("Add", [f"c{i}", "z"], [f"d{i}"]) for i in range(n)],
        [*names("c", n), "z"],
        names("d", n),
    )
    scan = node("Scan", [*names("x", n), "s"], names("y", n), body=body, num_scan_inputs=1)
    return model([scan], [*names("x", n), value("s", (5, "batch", 8))], names("y", n))


def loops(n: int) -> onnx.ModelProto:
    before = ["x", *names("y", n - 1)]
    body = h.make_graph(
        [node("Identity", ["cond"], ["goes_on"]), node("Relu", ["c"], ["d"])],
        "body",
        [value("i", (), T.INT64), value("cond", (), T.BOOL), value("c", None)],
        [value("goes_on", (), T.BOOL), value("d", None)],
    )
    nodes = [node("Loop", ["trips", "", before[i]], [f"y{i}"], body=body) for i in range(n)]
    return model(nodes, [value("trips", (), T.INT64), "x"], [f"y{n - 1}"])


def if_outputs(n: int) -> onnx.ModelProto:
    branches = [graph(fan(n, s), [], names(s, n)) for s in "te"]
    nodes = [
        *CONDITION,
        node("If", ["c"], names("y", n), then_branch=branches[0], else_branch=branches[1]),
    ]
    return model(nodes, outputs=names("y", n))


def if_outputs_unused(n: int) -> onnx.ModelProto:
    made = if_outputs(n)
    del made.graph.output[1:]
    return made


def captures(n: int) -> onnx.ModelProto:
    branches = [
        graph([node("Concat", names("v", n), [s], axis=a)], [], [s]) for a, s in enumerate("te")
    ]
    chosen = node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    return model([*CONDITION, *fan(n), chosen])


# ---------------------------------------------------------------- functions


def function_calls(n: int) -> onnx.ModelProto:
    f = function("f", [node("Relu", ["x"], ["t"]), node("Neg", ["t"], ["y"])])
    return model(row("f", n, domain=DOMAIN), outputs=[f"v{n - 1}"], functions=[f])


def functions(n: int) -> onnx.ModelProto:
    made = [function(f"f{i}", [node("Relu", ["x"], ["y"])]) for i in range(n)]
    before = ["x", *names("v", n - 1)]
    nodes = [node(f"f{i}", [before[i]], [f"v{i}"], domain=DOMAIN) for i in range(n)]
    return model(nodes, outputs=[f"v{n - 1}"], functions=made)


def attribute_references(n: int) -> onnx.ModelProto:
    nodes = row("LeakyRelu", n)
    nodes[-1].output[0] = "y"
    for i, made in enumerate(nodes):
        a = made.attribute.add()
        a.name, a.ref_attr_name, a.type = "alpha", f"a{i}", onnx.AttributeProto.FLOAT
    given = {f"a{i}": float(i) for i in range(n)}
    return model(
        [node("f", ["x"], ["y"], domain=DOMAIN, **given)],
        functions=[function("f", nodes, names("a", n))],
    )


def long_name_of_a_caller(n: int) -> onnx.ModelProto:
    body = [*row("LeakyRelu", n), node("Neg", [f"v{n - 1}"], ["y"])]
    return model(
        [node("f", ["x"], ["y"], name="z" * n, domain=DOMAIN)], functions=[function("f", body)]
    )


def long_name_of_an_argument(n: int) -> onnx.ModelProto:
    body = [*row("Foo", n, domain="other"), node("Neg", [f"v{n - 1}"], ["y"])]
    body[-2].input[:] = ["x"] * 9
    return model(
        [node("f", ["x" * n], ["y"], domain=DOMAIN)], ["x" * n], functions=[function("f", body)]
    )


# ---------------------------------------------------------------- what describes


def value_infos(n: int) -> onnx.ModelProto:
    infos = [value(f"v{i}", (f"q{i}", 8)) for i in range(n)]
    return model(row("Relu", n), outputs=[f"v{n - 1}"], value_info=infos)


def metadata(n: int) -> onnx.ModelProto:
    made = model(row("Relu", 1, "y"), outputs=["y0"])
    h.set_model_props(made, {f"k{i}": "v" for i in range(n)})
    return made


def opsets(n: int) -> onnx.ModelProto:
    made = model(row("Relu", 1, "y"), outputs=["y0"])
    made.opset_import.extend(h.make_opsetid(f"d{i}", 1) for i in range(n))
    return made


def inputs_unused(n: int) -> onnx.ModelProto:
    return model(row("Relu", 1, "y"), ["x", *names("u", n)], ["y0"])


GROWING: dict[str, Callable[[int], onnx.ModelProto]] = {
    make.__name__: make
    for make in (
        chain,
        backwards,
        fan_out,
        outputs,
        outputs_of_one_name,
        outputs_of_a_node,
        concat_inputs,
        one_input_many_times,
        concats_in_a_row,
        unknown_operators,
        wrong_nodes,
        attributes,
        symbols,
        symbols_of_one_beginning,
        symbols_and_branches,
        products_of_symbols,
        shapes_in_a_row,
        weights_used,
        weights_unused,
        weights_that_begin_alike,
        weights_of_one_name,
        weights_in_modules,
        parts_of_a_name,
        sparse_weights,
        folded_in_a_row,
        carried,
        carried_in_turns,
        carried_unused,
        states,
        loops,
        if_outputs,
        if_outputs_unused,
        captures,
        function_calls,
        functions,
        attribute_references,
        long_name_of_a_caller,
        long_name_of_an_argument,
        value_infos,
        metadata,
        opsets,
        inputs_unused,
    )
}

# ---------------------------------------------------------------- bombs


def doubling_concats() -> onnx.ModelProto:
    before = ["w", *names("v", 39)]
    nodes = [node("Concat", [before[i]] * 2, [f"v{i}"], axis=0) for i in range(40)]
    return model(nodes, [], ["v39"], [constant("w", np.zeros(64, np.float32))])


def doubling_concats_of_one() -> onnx.ModelProto:
    # No fold of one of them adds much to what its inputs come to.
    nodes = [
        node("Concat", ["w"] * 1000, ["a"], axis=0),
        node("Concat", ["a"] * 1000, ["b"], axis=0),
    ]
    nodes.append(node("Concat", ["b"] * 1000, ["y"], axis=0))
    return model(nodes, [], ["y"], [constant("w", np.zeros(64, np.float32))])


def constants_of_shapes() -> onnx.ModelProto:
    nodes = [
        node("ConstantOfShape", ["s"], [f"v{i}"], value=constant("", np.array([i], np.float32)))
        for i in range(50_000)
    ]
    nodes.append(node("Concat", names("v", 50_000), ["y"], axis=0))
    return model(nodes, [], ["y"], [constant("s", np.array([16_000]))])


def folds_of_a_weight() -> onnx.ModelProto:
    before = ["w", *names("v", 1999)]
    nodes = [node("Mul", [before[i], "w"], [f"v{i}"]) for i in range(2000)]
    return model(nodes, [], ["v1999"], [constant("w", np.ones(1 << 18, np.float32))])


def sums_of_a_weight() -> onnx.ModelProto:
    nodes = [node("ReduceSum", ["w", f"a{i}"], [f"v{i}"], keepdims=0) for i in range(2000)]
    given = [constant(f"a{i}", np.zeros(i + 1, np.int64)) for i in range(2000)]
    return model(nodes, [], names("v", 2000), [constant("w", np.ones(1 << 18, np.float32)), *given])


def functions_doubling(inner: Nodes) -> onnx.ModelProto:
    """Each calls the one before twice; the first is `inner`."""
    made = [function("f0", inner)]
    for i in range(1, 40):
        calls = [
            node(f"f{i - 1}", ["x"], ["t"], domain=DOMAIN),
            node(f"f{i - 1}", ["t"], ["y"], domain=DOMAIN),
        ]
        made.append(function(f"f{i}", calls))
    return model([node("f39", ["x"], ["y"], domain=DOMAIN)], functions=made)


def functions_that_double() -> onnx.ModelProto:
    return functions_doubling([node("Relu", ["x"], ["y"])])


def functions_that_double_nothing() -> onnx.ModelProto:
    made = functions_doubling([])
    for f in made.functions:
        f.output[:] = ["x"]
    return made


def functions_with_weights() -> onnx.ModelProto:
    nodes = [
        node("Constant", [], ["w"], value_ints=list(range(10_000))),
        node("Cast", ["w"], ["v"], to=T.FLOAT),
        node("Add", ["x", "v"], ["y"]),
    ]
    calls = row("f", 50_000, domain=DOMAIN)
    return model(calls, outputs=["v49999"], functions=[function("f", nodes)])


def long_call() -> onnx.ModelProto:
    body = [*row("LeakyRelu", 5000), node("Neg", ["v4999"], ["y"])]
    calls = row("f", 50, domain=DOMAIN)
    for i, call in enumerate(calls):
        call.name = f"{'z' * 50_000}{i}"
    return model(calls, outputs=["v49"], functions=[function("f", body)])


def factors() -> onnx.ModelProto:
    before = ["s", *names("v", 39)]
    nodes = [node("Mul", [before[i]] * 2, [f"v{i}"]) for i in range(40)]
    return model([node("Shape", ["x"], ["s"]), *nodes], [value("x", ("a", "b"))], ["v39"])


def terms() -> onnx.ModelProto:
    nodes = [node("Shape", [f"x{i}"], [f"h{i}"]) for i in range(200)]
    before = ["h0", *names("v", 199)]
    for i in range(200):
        nodes += [
            node("Add", [before[i], f"h{i}"], [f"t{i}"]),
            node("Mul", [f"t{i}", before[i]], [f"v{i}"]),
        ]
    return model(nodes, [value(f"x{i}", (f"s{i}",)) for i in range(200)], ["v199"])


def tensors_of_nothing() -> onnx.ModelProto:
    sparse = [
        h.make_sparse_tensor(
            h.make_tensor(f"w{i}", T.FLOAT, [0], []), h.make_tensor("", T.INT64, [0], []), [1 << 27]
        )
        for i in range(40)
    ]
    return model(
        [node("Concat", names("w", 40), ["y"], axis=0)], [], ["y"], sparse_initializer=sparse
    )


BOMBS: dict[str, Callable[[], onnx.ModelProto]] = {
    make.__name__: make
    for make in (
        doubling_concats,
        doubling_concats_of_one,
        constants_of_shapes,
        folds_of_a_weight,
        sums_of_a_weight,
        functions_that_double,
        functions_that_double_nothing,
        functions_with_weights,
        long_call,
        factors,
        terms,
        tensors_of_nothing,
    )
}
