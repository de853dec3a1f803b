"""Changes of a model, each keeping it a file that can be read, none caring for what it means."""

from collections.abc import Callable, Iterator
from random import Random

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx import helper as h

from . import odd
from .bases import OPERATORS, attribute_kinds

Change = Callable[[Random, ModelProto], None]


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all that are nested in it."""
    yield graph
    for node in graph.node:
        for a in node.attribute:
            for inner in (a.g, *a.graphs) if a.type in (5, 10) else ():
                yield from graphs(inner)


def _graph(r: Random, model: ModelProto) -> GraphProto:
    return r.choice(list(graphs(model.graph)))


def _node(r: Random, model: ModelProto) -> NodeProto | None:
    nodes = [n for g in graphs(model.graph) for n in g.node]
    nodes += [n for f in model.functions for n in f.node]
    return r.choice(nodes) if nodes else None


def _names(model: ModelProto) -> list[str]:
    found = [""]
    for g in graphs(model.graph):
        found += [v.name for v in (*g.input, *g.initializer)]
        found += [o for n in g.node for o in n.output]
    return found


def _declared(graph: GraphProto, name: str) -> ValueInfoProto | None:
    return next((v for v in graph.input if v.name == name), None)


def _dtype(value: ValueInfoProto) -> int:
    kind = value.type
    for _ in range(4):
        if kind.WhichOneof("value") == "sequence_type":
            kind = kind.sequence_type.elem_type
        elif kind.WhichOneof("value") == "optional_type":
            kind = kind.optional_type.elem_type
    return int(kind.tensor_type.elem_type) or 1


# ---------------------------------------------------------------- constants and declarations


def odd_constant(r: Random, model: ModelProto) -> None:
    """An input of a node becomes a constant, of its type more often than not."""
    graph, node = model.graph, _node(r, model)
    if node is None or not node.input:
        return
    i = r.randrange(len(node.input))
    name = node.input[i]
    known = [t for t in graph.initializer if t.name == name]
    declared = _declared(graph, name)
    dtype = known[0].data_type if known else _dtype(declared) if declared is not None else 1
    shape = list(known[0].dims) if known and r.random() < 0.4 else None
    made = odd.tensor(r, name or "odd", dtype if r.random() < 0.85 else None, shape)
    for t in known:
        graph.initializer.remove(t)
    if declared is not None and r.random() < 0.8:
        graph.input.remove(declared)
    node.input[i] = made.name
    if r.random() < 0.3:
        producer = h.make_node("Constant", [], [made.name])
        producer.attribute.append(h.make_attribute("value", made))
        graph.node.insert(0, producer)
    else:
        graph.initializer.append(made)


def odd_declaration(r: Random, model: ModelProto) -> None:
    """An input's or a value's declared type."""
    graph = _graph(r, model)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = r.choice(values)
    shape = value.type.tensor_type.shape
    if r.random() < 0.5 and shape.dim:
        dim, size = r.choice(shape.dim), r.choice(odd.DIMS)
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size or ""
        return
    value.type.CopyFrom(odd.tensor_type(r, _dtype(value) if r.random() < 0.6 else None))


def odd_attribute(r: Random, model: ModelProto) -> None:
    """One attribute goes, comes or becomes another."""
    node = _node(r, model)
    if node is None:
        return
    kinds = attribute_kinds().get((node.domain, node.op_type), {})
    kind = r.random()
    if node.attribute and kind < 0.15:
        del node.attribute[r.randrange(len(node.attribute))]
    elif node.attribute and kind < 0.6:
        odd.changed(r, r.choice(node.attribute))
    elif kinds:
        name = r.choice(list(kinds))
        made = odd.attribute(r, name, kinds[name], list(graphs(model.graph)))
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        node.attribute.append(made)


# ---------------------------------------------------------------- structure


def swap_operator(r: Random, model: ModelProto) -> None:
    if (node := _node(r, model)) is not None:
        node.domain, node.op_type = r.choice(OPERATORS)
        if node.domain and all(o.domain != node.domain for o in model.opset_import):
            model.opset_import.append(h.make_opsetid(node.domain, r.choice([1, 1, 2, 3, 5])))


def rewire(r: Random, model: ModelProto) -> None:
    node = _node(r, model)
    if node is not None and node.input:
        node.input[r.randrange(len(node.input))] = r.choice(_names(model))


def drop_input(r: Random, model: ModelProto) -> None:
    node = _node(r, model)
    if node is not None and node.input:
        del node.input[r.randrange(len(node.input))]


def add_input(r: Random, model: ModelProto) -> None:
    if (node := _node(r, model)) is not None:
        names = [r.choice(_names(model))] * r.choice([1, 1, 1, 2, 40])
        node.input.extend(names)


def drop_output(r: Random, model: ModelProto) -> None:
    node = _node(r, model)
    if node is not None and node.output:
        i = r.randrange(len(node.output))
        if r.random() < 0.5:
            node.output[i] = ""
        else:
            del node.output[i]


def add_output(r: Random, model: ModelProto) -> None:
    if (node := _node(r, model)) is not None:
        for _ in range(r.choice([1, 1, 2, 30])):
            node.output.append(r.choice(["", f"extra{r.randrange(10**6)}"]))


def drop_node(r: Random, model: ModelProto) -> None:
    graph = _graph(r, model)
    if graph.node:
        del graph.node[r.randrange(len(graph.node))]


def copy_node(r: Random, model: ModelProto) -> None:
    graph = _graph(r, model)
    if graph.node:
        node = NodeProto()
        node.CopyFrom(r.choice(graph.node))
        node.output[:] = [o if r.random() < 0.2 else f"{o}_c{r.randrange(99)}" for o in node.output]
        graph.node.insert(r.randrange(len(graph.node) + 1), node)


def chain(r: Random, model: ModelProto) -> None:
    """A node again and again, each upon the one before."""
    graph = _graph(r, model)
    nodes = [n for n in graph.node if n.input and n.output]
    if not nodes or len(model.SerializeToString()) > 20_000:
        return
    first = r.choice(nodes)
    last, end = first.output[0], first.output[0]
    for k in range(r.choice([2, 3, 8, 30, 30, 400])):
        node = NodeProto()
        node.CopyFrom(first)
        node.input[r.randrange(len(node.input)) if r.random() < 0.2 else 0] = last
        node.output[:] = [f"{o}_{k}" if o else "" for o in first.output]
        last = node.output[0]
        graph.node.append(node)
    for value in graph.output:
        if value.name == end:
            value.name = last


def shuffle(r: Random, model: ModelProto) -> None:
    graph = _graph(r, model)
    nodes = list(graph.node)
    r.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def same_name(r: Random, model: ModelProto) -> None:
    """Two nodes, values or outputs of one name."""
    graph, names = _graph(r, model), _names(model)
    kind = r.randrange(4)
    if kind == 0 and graph.input:
        r.choice(graph.input).name = r.choice(names)
    elif kind == 1 and graph.initializer:
        r.choice(graph.initializer).name = r.choice(names)
    elif kind == 2 and graph.output:
        r.choice(graph.output).name = r.choice(names)
    elif graph.node:
        node = r.choice(graph.node)
        if node.output:
            node.output[r.randrange(len(node.output))] = r.choice(names)


def make_input(r: Random, model: ModelProto) -> None:
    """An initialiser becomes an input, or stays one beside it."""
    graph = model.graph
    if not graph.initializer:
        return
    t = r.choice(graph.initializer)
    shape = r.choice([list(t.dims), [None] * len(t.dims), None, ["N"] * len(t.dims)])
    graph.input.append(h.make_tensor_value_info(t.name, t.data_type, shape))
    if r.random() < 0.7:
        graph.initializer.remove(t)


def make_constant(r: Random, model: ModelProto) -> None:
    """An input becomes an initialiser of the sizes that it declares."""
    graph = model.graph
    if not graph.input:
        return
    value = r.choice(graph.input)
    sizes = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
    count = 1
    for s in sizes:
        count *= max(s, 0)
    if count > 4096 or any(s < 0 for s in sizes):
        return
    graph.initializer.append(odd.tensor(r, value.name, _dtype(value), sizes))
    if r.random() < 0.8:
        graph.input.remove(value)


def outputs(r: Random, model: ModelProto) -> None:
    graph = _graph(r, model)
    kind = r.randrange(4)
    if kind == 0 and graph.output:
        del graph.output[r.randrange(len(graph.output))]
    elif kind == 1:
        graph.output.append(ValueInfoProto(name=r.choice(_names(model))))
    elif kind == 2 and graph.input:
        del graph.input[r.randrange(len(graph.input))]
    else:
        graph.input.append(h.make_tensor_value_info(f"in{r.randrange(99)}", 1, None))


def opset(r: Random, model: ModelProto) -> None:
    if model.opset_import:
        chosen = r.choice(model.opset_import)
        chosen.version = r.choice([*range(1, 29), 0, -1, 99, 2**40])
    model.ir_version = r.choice([3, 4, 7, 8, 10, 13])


def nest(r: Random, model: ModelProto) -> None:
    """The nodes move into a branch or a body."""
    graph = _graph(r, model)
    if not graph.node or not graph.output or len(list(graphs(model.graph))) > 12:
        return
    inner = GraphProto(name="inner")
    inner.node.extend(graph.node)
    inner.output.extend(graph.output)
    names = [f"{o.name}_n" for o in graph.output]
    del graph.node[:]
    for value, name in zip(graph.output, names, strict=True):
        value.name = name
    condition = h.make_tensor("nest_c", TensorProto.BOOL, [], [1])
    count = h.make_tensor("nest_n", TensorProto.INT64, [], [r.choice([0, 1, 3, 2**62, -1])])
    kind = r.randrange(3)
    if kind == 0:
        node = h.make_node("If", ["nest_c"], names, then_branch=inner, else_branch=inner)
    elif kind == 1:
        inner.input.append(h.make_tensor_value_info("nest_i", TensorProto.INT64, []))
        inner.input.append(h.make_tensor_value_info("nest_k", TensorProto.BOOL, []))
        inner.output.insert(0, h.make_tensor_value_info("nest_k", TensorProto.BOOL, []))
        node = h.make_node("Loop", ["nest_n", "nest_c"], names, body=inner)
    else:
        given = [v.name for v in model.graph.input][:2]
        inner.input.extend(h.make_tensor_value_info(f"nest_{n}", 1, None) for n in given)
        node = h.make_node("Scan", given, names, body=inner, num_scan_inputs=max(len(given), 1))
    graph.node.append(node)
    if r.random() < 0.6:
        model.graph.initializer.extend([condition, count])
    else:
        model.graph.input.append(h.make_tensor_value_info("nest_c", TensorProto.BOOL, []))
        model.graph.initializer.append(count)


def function(r: Random, model: ModelProto) -> None:
    """A node's operator becomes a function of the model, of another node's doing."""
    node, other = _node(r, model), _node(r, model)
    if node is None or other is None:
        return
    model.functions.append(
        h.make_function(
            node.domain,
            node.op_type,
            [f"a{i}" for i in range(len(node.input))],
            [f"b{i}" for i in range(len(node.output))],
            [
                h.make_node(
                    other.op_type,
                    [f"a{i}" for i in range(len(other.input))],
                    [f"b{i}" for i in range(len(other.output))],
                    domain=other.domain,
                )
            ],
            list(model.opset_import),
            [a.name for a in node.attribute],
        )
    )


def graph_attribute(r: Random, model: ModelProto) -> None:
    """A graph goes where another one was."""
    holders = [
        a
        for g in graphs(model.graph)
        for n in g.node
        for a in n.attribute
        if a.type == AttributeProto.GRAPH
    ]
    found = list(graphs(model.graph))
    if not holders or len(model.SerializeToString()) > 20_000:
        return
    chosen = GraphProto()
    chosen.CopyFrom(r.choice(found))
    r.choice(holders).g.CopyFrom(chosen)


def join(r: Random, model: ModelProto, other: ModelProto) -> None:
    """Another model's nodes come along, and read what this one has made."""
    prefix = f"j{r.randrange(10**6)}_"
    made = [n for n in _names(model) if n]
    renamed = {v.name: r.choice(made) for v in other.graph.input if made and r.random() < 0.7}

    def name(old: str) -> str:
        return renamed.get(old, prefix + old) if old else ""

    def take(graph: GraphProto) -> None:
        for node in graph.node:
            node.input[:] = [name(n) for n in node.input]
            node.output[:] = [name(n) for n in node.output]
            for a in node.attribute:
                for inner in (a.g, *a.graphs) if a.type in (5, 10) else ():
                    take(inner)
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = name(value.name)

    inputs = [v for v in other.graph.input if v.name not in renamed]
    take(other.graph)
    model.graph.input.extend(inputs)
    model.graph.node.extend(other.graph.node)
    model.graph.initializer.extend(other.graph.initializer)
    model.graph.output.extend(other.graph.output)
    known = {o.domain for o in model.opset_import}
    model.opset_import.extend(o for o in other.opset_import if o.domain not in known)


SWEEP: list[Change] = [odd_constant, odd_constant, odd_constant, odd_attribute, odd_attribute]
SWEEP += [odd_declaration]
STRUCTURE: list[Change] = [
    *(swap_operator, swap_operator, swap_operator, rewire, rewire, rewire, drop_input, add_input),
    *(drop_output, add_output, drop_node, copy_node, copy_node, chain, shuffle, same_name),
    *(make_input, make_constant, make_constant, outputs, opset, nest, nest, function),
    *(graph_attribute, graph_attribute),
]
