"""Values that a checked writer would not write: tensors, types and attributes."""

from random import Random
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, TensorProto, TypeProto, helper, numpy_helper

INTEGERS = [0, 1, -1, 2, -2, 3, 7, 31, 32, 64, 65, 127, 255, 1000, 4096, 2**16]
INTEGERS += [2**31 - 1, 2**31, -(2**31), 2**32, 2**33, 2**40, -(2**40), 2**53 + 1]
INTEGERS += [2**62, 2**63 - 1, 2**63 - 2, -(2**63), -(2**63) + 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, 1e-8, 3.4e38, -3.4e38, 1e30, 1e10, 65520.0]
FLOATS += [float("nan"), float("inf"), float("-inf"), 2.0**63, -(2.0**63), 2.0**31, 1e6 + 0.5]
WORDS = ["", "a", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "linear", "cubic", "nearest"]
WORDS += ["reverse", "bidirectional", "SUM", "NONE", "add", "mul", "constant", "reflect", "wrap"]
WORDS += ["...i->i", "ij,jk->ik", "i->", "->", "ij", "é" * 40, "x" * 2000, "\x00\n"]
# Of dims: sizes that are declared cost nothing.
DIMS: list[Any] = [0, 1, 2, 3, 7, -1, 2**31, 2**40, 2**62, 2**63 - 1, "N", "M", "", None, "N*N"]
DTYPES = [1, 1, 1, 7, 7, 6, 9, 10, 11, 2, 3, 5, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
DTYPES += [23, 24, 25, 26, 27, 28, 0, 77]
_LONG = 1100  # more than what is taken for a shape


def integer(r: Random) -> int:
    return r.choice(INTEGERS) if r.random() < 0.8 else r.randint(-9, 9)


def number(r: Random) -> float:
    return r.choice(FLOATS) if r.random() < 0.8 else r.uniform(-3, 3)


def dims(r: Random) -> list[int]:
    """Of a tensor that is there: few elements, or none along sizes that nobody has."""
    kind = r.randrange(9)
    if kind < 3:
        return [[], [0], [1]][kind]
    if kind == 3:
        return [0, r.choice([2**40, 2**62, 5])]
    if kind == 4:
        return [r.choice([2**40, 2**31, 3]), 0, r.choice([2**40, 2])]
    if kind == 5:
        return [1] * r.choice([5, 9, 64, 65, 300])
    if kind == 6:
        return [r.choice([2, 4, 8, 65, _LONG])]
    return [r.randint(1, 4) for _ in range(r.randint(1, 5))]


def tensor(
    r: Random, name: str, dtype: int | None = None, shape: list[int] | None = None
) -> TensorProto:
    dtype = r.choice(DTYPES) if dtype is None else dtype
    shape = dims(r) if shape is None else shape
    size = int(np.prod(np.array(shape, object))) if shape else 1
    if dtype == TensorProto.STRING:
        words = [r.choice(WORDS).encode() for _ in range(size)]
        return helper.make_tensor(name, dtype, shape, words)
    made = TensorProto(name=name, data_type=dtype, dims=shape)
    try:
        numpy_dtype = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
    except (KeyError, ValueError, TypeError):
        return made
    same = r.random() < 0.4
    values: Any
    if numpy_dtype.kind == "f" or numpy_dtype.name.startswith(("bfloat", "float")):
        values = [number(r)] * size if same else [number(r) for _ in range(size)]
    elif numpy_dtype.kind == "c":
        values = [complex(number(r), number(r)) for _ in range(size)]
    else:
        values = [integer(r)] * size if same else [integer(r) for _ in range(size)]
        if numpy_dtype.kind in "iub" and numpy_dtype.itemsize:
            bits = 8 * numpy_dtype.itemsize
            values = [v % 2**bits for v in values]
            unsigned = np.array(values, object).astype(np.uint64).astype(f"uint{bits}")
            array = (unsigned % 2 if numpy_dtype.kind == "b" else unsigned).view(numpy_dtype)
            made.raw_data = array.tobytes()
            return made
        values = [v % 4 for v in values]
    with np.errstate(all="ignore"):
        array = np.array(values, complex if numpy_dtype.kind == "c" else float).astype(numpy_dtype)
    made.CopyFrom(numpy_helper.from_array(array, name))
    made.dims[:] = shape
    return made


def tensor_type(r: Random, dtype: int | None = None, depth: int = 0) -> TypeProto:
    kind = r.random()
    if kind < 0.06 and depth < 3:
        return helper.make_sequence_type_proto(tensor_type(r, dtype, depth + 1))
    if kind < 0.1 and depth < 3:
        return helper.make_optional_type_proto(tensor_type(r, dtype, depth + 1))
    dtype = r.choice(DTYPES) if dtype is None else dtype
    made = TypeProto()
    made.tensor_type.elem_type = dtype
    if kind > 0.85:
        return made
    made.tensor_type.shape.SetInParent()
    for _ in range(r.choice([0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 70])):
        dim, size = made.tensor_type.shape.dim.add(), r.choice(DIMS)
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size
    return made


def _length(r: Random) -> int:
    return r.choice([0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8, 70, _LONG])


def attribute(r: Random, name: str, kind: int, graphs: list[GraphProto]) -> AttributeProto:
    """An attribute of that type, or of another one now and then; graphs are of `graphs`."""
    if r.random() < 0.1:
        kind = r.randint(1, 14)
    a = AttributeProto(name=name, type=kind)
    if kind == AttributeProto.FLOAT:
        a.f = number(r)
    elif kind == AttributeProto.INT:
        a.i = integer(r)
    elif kind == AttributeProto.STRING:
        a.s = r.choice(WORDS).encode()
    elif kind == AttributeProto.TENSOR:
        a.t.CopyFrom(tensor(r, "t"))
    elif kind == AttributeProto.GRAPH and graphs:
        a.g.CopyFrom(r.choice(graphs))
    elif kind == AttributeProto.FLOATS:
        a.floats.extend(number(r) for _ in range(_length(r)))
    elif kind == AttributeProto.INTS:
        small = r.random() < 0.5
        a.ints.extend(r.randint(-2, 5) if small else integer(r) for _ in range(_length(r)))
    elif kind == AttributeProto.STRINGS:
        a.strings.extend(r.choice(WORDS).encode() for _ in range(min(_length(r), 80)))
    elif kind == AttributeProto.TENSORS:
        a.tensors.extend(tensor(r, "t") for _ in range(min(_length(r), 4)))
    elif kind == AttributeProto.GRAPHS and graphs:
        a.graphs.extend(r.choice(graphs) for _ in range(min(_length(r), 3)))
    elif kind == AttributeProto.TYPE_PROTO:
        a.tp.CopyFrom(tensor_type(r))
    elif kind == AttributeProto.SPARSE_TENSOR:
        a.sparse_tensor.values.CopyFrom(tensor(r, "v"))
        a.sparse_tensor.indices.CopyFrom(tensor(r, "i", TensorProto.INT64))
        a.sparse_tensor.dims.extend(dims(r))
    return a


def changed(r: Random, a: AttributeProto) -> None:
    """One number, word or element of an attribute becomes another; its type stays."""
    if a.type == AttributeProto.FLOAT:
        a.f = number(r)
    elif a.type == AttributeProto.INT:
        a.i = integer(r)
    elif a.type == AttributeProto.STRING:
        a.s = r.choice(WORDS).encode()
    elif a.type == AttributeProto.TENSOR:
        a.t.CopyFrom(tensor(r, "t", a.t.data_type if r.random() < 0.7 else None))
    else:
        for values, draw in ((a.ints, integer), (a.floats, number)):
            if not values:
                continue
            kind = r.randrange(4)
            if kind == 0:
                del values[r.randrange(len(values)) :]
            elif kind == 1:
                values.extend([draw(r)] * r.choice([1, 2, 70]))
            else:
                values[r.randrange(len(values))] = draw(r)  # type: ignore[assignment]
