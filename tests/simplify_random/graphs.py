"""Small random models that are valid, with inputs for them: what the simplifier is tried on.

A seed gives a model. Every value's shape, and the numbers of what computes shapes, are known while the
model is made, so nearly all of them run.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

Array = np.ndarray[Any, Any]

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)
# Sizes that symbols stand for.
SIZES = {"batch": 2, "seq": 3, "width": 5}
MAX_ELEMENTS = 4096
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, float("inf"), float("-inf"), float("nan"), 3.0, 1e-5]
EXTREMES = {
    "int32": [-(2**31), 2**31 - 1, 0, 1, -1, 2, 3],
    "int64": [-(2**63), 2**63 - 1, 0, 1, -1, 2, 3, 2**31],
}


@dataclass
class Value:
    """A value: `exact` where reordered arithmetic gives the same bits; `known` where its elements are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    exact: bool = True
    known: Array | None = None
    constant: bool = False
    # Fused weights round a zero, or its sign, to another: it is no divisor.
    fusable: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Scope:
    """A graph being made: its nodes, and the values that they may use."""

    values: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)


class UnfitError(Exception):
    """There is no value of the kind that an operator needs."""


class Maker:
    """Makes one model out of the choices of `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.r = rng
        self.opset = rng.choice(OPSETS)
        self.inits: list[onnx.TensorProto] = []
        self.held: list[Value] = []
        self.scope = Scope()
        self.count = 0
        self.depth = 0
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feed: dict[str, Array] = {}

    # ------------------------------------------------------------ pieces

    def name(self, stem: str = "v") -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def chance(self, p: float) -> bool:
        return self.r.random() < p

    def data(self, dtype: str, shape: tuple[int, ...], whole: bool = True) -> Array:
        n = math.prod(shape)
        if dtype == "bool":
            flat: list[Any] = [self.r.random() < 0.5 for _ in range(n)]
        elif dtype.startswith("float"):
            flat = [
                float(self.r.randint(-4, 4)) if whole else self.r.uniform(-2, 2) for _ in range(n)
            ]
        elif dtype == "uint8":
            flat = [self.r.randint(0, 9) for _ in range(n)]
        else:
            flat = [self.r.randint(-4, 9) for _ in range(n)]
        return np.array(flat, dtype).reshape(shape)

    def const(self, array: Array, exact: bool | None = None) -> Value:
        """A constant: an initialiser, shared at times, or a Constant node."""
        if exact is None:
            exact = array.dtype.kind != "f" or bool(
                np.all(np.isfinite(array)) and np.all(array == np.round(array * 4) / 4)
            )
        for v in self.held:
            same = v.known is not None and v.dtype == array.dtype.name and v.shape == array.shape
            if same and v.known.tobytes() == array.tobytes() and self.chance(0.5):
                return v
        v = Value(self.name("c"), array.dtype.name, array.shape, exact, array, True)
        if self.chance(0.3):
            self.scope.nodes.append(
                h.make_node("Constant", [], [v.name], value=numpy_helper.from_array(array))
            )
        else:
            self.inits.append(numpy_helper.from_array(array, v.name))
            self.held.append(v)
        return v

    def ints(self, *values: int, dtype: str = "int64") -> Value:
        return self.const(np.array(values, dtype))

    def weight(self, *shape: int, whole: bool | None = None) -> Value:
        whole = self.chance(0.5) if whole is None else whole
        for v in self.held:
            if v.dtype == "float32" and v.shape == shape and v.size > 1 and self.chance(0.3):
                return v
        return self.const(self.data("float32", shape, whole))

    def pick(self, want: Callable[[Value], bool]) -> Value:
        """A value that fits, recent ones rather."""
        fit = [v for v in self.scope.values if want(v)]
        if not fit:
            raise UnfitError
        return fit[-1] if self.chance(0.5) else self.r.choice(fit)

    def floats(self, want: Callable[[Value], bool] = lambda v: True) -> Value:
        return self.pick(lambda v: v.dtype == "float32" and v.size > 0 and want(v))

    def add(
        self,
        op: str,
        inputs: list[Value | None],
        shape: tuple[int, ...],
        dtype: str | None = None,
        exact: bool = False,
        known: Array | None = None,
        **attributes: Any,
    ) -> Value:
        first = next(v for v in inputs if v is not None)
        divisor = (
            inputs[1] if op == "Div" else first if op in ("Reciprocal", "Pow", "Sign") else None
        )
        if divisor is not None and divisor.fusable:
            raise UnfitError
        out = Value(self.name(), dtype or first.dtype, tuple(map(int, shape)))
        if out.size > MAX_ELEMENTS:
            raise UnfitError
        out.exact = exact and all(v is None or v.exact for v in inputs)
        out.known = known
        linear = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
        out.fusable = op in linear or any(v is not None and v.fusable for v in inputs)
        names = [v.name if v is not None else "" for v in inputs]
        node = h.make_node(op, names, [out.name], name=f"{op}_{out.name}", **attributes)
        self.scope.nodes.append(node)
        self.scope.values.append(out)
        return out

    def axis(self, rank: int, negative: bool = True) -> int:
        a = self.r.randrange(rank)
        return a - rank if negative and self.opset >= 11 and self.chance(0.3) else a

    def axes_op(
        self, op: str, x: Value, axes: list[int] | None, since: int, shape: Any, **more: Any
    ) -> Value:
        """An operator whose axes are an attribute in old opsets and an input in newer ones."""
        if self.opset >= since:
            inputs: list[Value | None] = [x]
            if axes is not None:
                inputs.append(self.ints(*axes))
            return self.add(op, inputs, shape, **more)
        attributes = {} if axes is None else {"axes": axes}
        return self.add(op, [x], shape, **more, **attributes)

    # ------------------------------------------------------------ operators

    def unary(self) -> None:
        x = self.floats()
        op = self.r.choice(
            ["Relu", "Neg", "Abs", "Identity", "Sigmoid", "Tanh", "LeakyRelu", "Softplus", "Elu"]
            + ["Sqrt", "Exp", "Identity", "Erf"][: 2 + 2 * (self.opset >= 9)]
            + ["Reciprocal", "HardSigmoid", "HardSwish"][: 2 + (self.opset >= 14)]
        )
        if op == "Sqrt" and x.fusable:
            raise UnfitError  # what rounds to less than zero has none
        self.add(op, [x], x.shape, exact=op in ("Relu", "Neg", "Abs", "Identity"))

    def round_off(self) -> None:
        x = self.floats(lambda v: v.exact)
        self.add(self.r.choice(["Floor", "Ceil", "Sign"]), [x], x.shape, exact=True)

    def dropout(self) -> None:
        x = self.floats()
        self.add("Dropout", [x], x.shape, exact=True)

    def clip(self) -> None:
        x = self.floats()
        low, high = self.r.choice([(0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 3.0), (None, None)])
        if self.opset < 11:
            bounds = {k: v for k, v in (("min", low), ("max", high)) if v is not None}
            self.add("Clip", [x], x.shape, exact=True, **bounds)
            return
        inputs: list[Value | None] = [x]
        for bound in (low, high):
            inputs.append(None if bound is None else self.const(np.array(bound, np.float32)))
        while inputs[-1] is None:
            inputs.pop()
        self.add("Clip", inputs, x.shape, exact=True)

    def other_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with this one, and may be larger than it."""
        dims = [d if self.chance(0.6) else 1 for d in shape]
        if self.chance(0.4):
            dims = dims[self.r.randrange(len(dims) + 1) :]
        elif self.chance(0.15) and len(dims) < 4:
            dims = [self.r.choice([1, 2]), *dims]
        return tuple(dims)

    def binary(self) -> None:
        x = self.floats()
        op = self.r.choice(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Add", "Mul"])
        if self.chance(0.6):
            shape = self.other_shape(x.shape)
            kind = self.r.random()
            if kind < 0.4:
                array = np.full(shape, self.r.choice(SPECIAL), np.float32)
            else:
                array = self.data("float32", shape, self.chance(0.5))
            y = self.const(array)
        else:
            y = self.floats(lambda v: fits(v.shape, x.shape))
        if op in ("Max", "Min") and self.opset < 8 and x.shape != y.shape:
            raise UnfitError
        if self.chance(0.4):
            x, y = y, x
        if op == "Mul" and not (x.exact and y.exact):
            # What rounds to zero or next to it is not a number times infinity, or infinite.
            for v in (x, y):
                if v.known is not None and v.dtype == "float32" and np.isinf(v.known).any():
                    raise UnfitError
        exact = op in ("Add", "Sub", "Mul", "Max", "Min")
        self.add(op, [x, y], np.broadcast_shapes(x.shape, y.shape), exact=exact)

    def integer(self) -> None:
        x = self.pick(lambda v: v.dtype in EXTREMES)
        op = self.r.choice(["Add", "Sub", "Mul", "Div"])
        values = EXTREMES[x.dtype]
        shape = self.r.choice([(), (1,), x.shape])
        if op == "Div":
            values = [v for v in values if v > 0]
        c = np.array([self.r.choice(values) for _ in range(math.prod(shape))], x.dtype)
        y = self.const(c.reshape(shape))
        self.add(op, [x, y], np.broadcast_shapes(x.shape, shape), exact=True)

    def compare(self) -> None:
        x = self.floats(lambda v: v.exact)
        op = self.r.choice(["Less", "Greater"] + ["Equal"] * (self.opset >= 11))
        if self.opset < 9 and op == "Equal":
            raise UnfitError
        y = self.const(self.data("float32", self.r.choice([(), x.shape])))
        self.add(op, [x, y], np.broadcast_shapes(x.shape, y.shape), "bool", exact=True)

    def logic(self) -> None:
        x = self.pick(lambda v: v.dtype == "bool")
        op = self.r.choice(["Not", "And", "Or", "Xor"])
        if op == "Not":
            self.add(op, [x], x.shape, exact=True)
            return
        y = self.const(self.data("bool", self.r.choice([(), x.shape])))
        self.add(op, [x, y], np.broadcast_shapes(x.shape, y.shape), exact=True)

    def where(self) -> None:
        if self.opset < 9:
            raise UnfitError
        x = self.floats()
        if self.chance(0.5):
            c = self.const(self.data("bool", self.r.choice([(), (1,), x.shape])))
        elif self.chance(0.5):
            c = self.const(np.full(self.other_shape(x.shape), self.chance(0.5)))
        else:
            c = self.pick(lambda v: v.dtype == "bool" and fits(v.shape, x.shape))
        y = self.const(np.full(self.other_shape(x.shape), self.r.choice(SPECIAL), np.float32))
        a, b = (x, y) if self.chance(0.5) else (y, x)
        if not fits(c.shape, y.shape):
            raise UnfitError
        shape = np.broadcast_shapes(c.shape, a.shape, b.shape)
        self.add("Where", [c, a, b], shape, "float32", exact=True)

    def cast(self) -> None:
        x = self.pick(lambda v: v.exact and v.dtype != "uint8" and v.size > 0)
        to = self.r.choice(["float32", "float64", "int32", "int64", "bool", "float16", "float32"])
        if x.dtype in ("float32", "float64", "float16") and to.startswith("int"):
            # What an integer cannot hold may become anything.
            x = (
                self.add("Clip", [x], x.shape, exact=True, min=-9.0, max=9.0)
                if (self.opset < 11 and x.dtype == "float32")
                else self.raise_unfit(x)
            )
        known = x.known.astype(to) if x.known is not None and x.dtype.startswith("int") else None
        elem = h.np_dtype_to_tensor_dtype(np.dtype(to))
        y = self.add("Cast", [x], x.shape, to, exact=to != "float16", known=known, to=elem)
        if self.chance(0.4) and to.startswith(("float", "bool")):
            back = h.np_dtype_to_tensor_dtype(np.dtype("float32"))
            self.add("Cast", [y], y.shape, "float32", exact=True, to=back)

    def raise_unfit(self, x: Value) -> Value:
        if x.dtype.startswith("float") and not self.safe(x):
            raise UnfitError
        return x

    @staticmethod
    def safe(x: Value) -> bool:
        return x.name.startswith("x")

    # ------------------------------------------------------------ movement

    def transpose(self) -> None:
        x = self.pick(lambda v: v.rank > 0)
        perm = list(range(x.rank))
        self.r.shuffle(perm)
        attributes: dict[str, Any] = {"perm": perm}
        if self.chance(0.15):
            attributes, perm = {}, perm[:0] + list(range(x.rank))[::-1]
        shape = tuple(x.shape[p] for p in perm)
        self.add("Transpose", [x], shape, exact=True, **attributes)

    def split_size(self, n: int) -> list[int]:
        """Dims whose product is n."""
        dims = []
        while n > 1 and len(dims) < 3 and self.chance(0.7):
            d = self.r.choice([k for k in range(1, n + 1) if n % k == 0])
            dims.append(d)
            n //= d
        dims.append(n)
        self.r.shuffle(dims)
        return dims

    def reshape(self) -> None:
        x = self.pick(lambda v: True)
        dims = self.split_size(x.size) if x.size else [0]
        target = list(dims)
        if target and self.chance(0.6) and x.size:
            target[self.r.randrange(len(target))] = -1
        for k, d in enumerate(target):
            if d != -1 and k < x.rank and x.shape[k] == d and self.chance(0.5):
                target[k] = 0
        attributes = {}
        if self.opset >= 14 and 0 in target and not x.size:
            attributes["allowzero"] = 1
            target = dims
        shape = self.shape_vector(target)
        self.add("Reshape", [x, shape], tuple(dims), exact=True, **attributes)

    def shape_vector(self, target: list[int]) -> Value:
        """The target as a constant, or spelt out of other values' shapes."""
        if self.chance(0.5) or not target:
            return self.ints(*target)
        parts = []
        for d in target:
            known = [
                v
                for v in self.scope.values
                if v.known is not None
                and v.dtype == "int64"
                and v.shape == (1,)
                and int(v.known[0]) == d
            ]
            parts.append(self.r.choice(known) if known and self.chance(0.8) else self.ints(d))
        if len(parts) == 1:
            return parts[0]
        return self.add(
            "Concat", parts, (len(parts),), exact=True, known=np.array(target, np.int64), axis=0
        )

    def same_shape(self) -> None:
        """Reshape(x, Shape(y))."""
        x = self.pick(lambda v: v.size > 0)
        y = self.pick(lambda v: v.size == x.size)
        s = self.add(
            "Shape", [y], (y.rank,), "int64", exact=True, known=np.array(y.shape, np.int64)
        )
        s.exact = True
        self.add("Reshape", [x, s], y.shape, exact=True)

    def flatten(self) -> None:
        x = self.floats()
        a = self.r.randrange(x.rank + 1)
        shape = (math.prod(x.shape[:a]), math.prod(x.shape[a:]))
        self.add("Flatten", [x], shape, exact=True, axis=a)

    def squeeze(self) -> None:
        x = self.pick(lambda v: 1 in v.shape)
        ones = [k for k, d in enumerate(x.shape) if d == 1]
        axes = sorted(self.r.sample(ones, self.r.randint(1, len(ones))))
        shape = tuple(d for k, d in enumerate(x.shape) if k not in axes)
        if self.opset >= 11 and self.chance(0.3):
            axes = [a - x.rank for a in axes]
        self.axes_op("Squeeze", x, axes, 13, shape, exact=True)

    def unsqueeze(self) -> None:
        x = self.pick(lambda v: v.rank < 4)
        rank = x.rank + self.r.randint(1, 2)
        axes = sorted(self.r.sample(range(rank), rank - x.rank))
        dims = list(x.shape)
        for a in axes:
            dims.insert(a, 1)
        if self.opset >= 11 and self.chance(0.3):
            axes = [a - rank for a in axes]
        self.axes_op("Unsqueeze", x, axes, 13, tuple(dims), exact=True)

    def slice(self) -> None:
        x = self.pick(lambda v: v.rank > 0 and v.size > 0)
        k = self.axis(x.rank)
        n = x.shape[k]
        start = self.r.choice([0, 0, 1, -1, -n, n // 2, -(2**31)])
        end = self.r.choice([n, 2**31 - 1, -1, n // 2, 2**63 - 1, 1])
        step = 1
        if self.opset >= 10:
            step = self.r.choice([1, 1, 1, 2, -1, -2])
            if step < 0:
                start, end = self.r.choice(
                    [(-1, -(2**31)), (n, -(2**63)), (-1, 0), (n // 2, -n - 1)]
                )
        length = len(range(n)[start:end:step])
        dims = list(x.shape)
        dims[k] = length
        if self.opset < 10:
            if end > 2**31:
                raise UnfitError
            axis = k + x.rank if k < 0 else k
            self.add("Slice", [x], tuple(dims), exact=True, starts=[start], ends=[end], axes=[axis])
            return
        inputs: list[Value | None] = [x, self.ints(start), self.ints(end), self.ints(k)]
        if step != 1 or self.chance(0.5):
            inputs.append(self.ints(step))
        self.add("Slice", inputs, tuple(dims), exact=True)

    def concat(self) -> None:
        x = self.pick(lambda v: v.rank > 0 and v.dtype == "float32")
        k = self.axis(x.rank)
        a = k % x.rank

        def joins(v: Value) -> bool:
            same = v.dtype == x.dtype and v.rank == x.rank
            return same and v.shape[:a] + v.shape[a + 1 :] == x.shape[:a] + x.shape[a + 1 :]

        parts = [x, *(self.pick(joins) for _ in range(self.r.choice([0, 1, 1, 2])))]
        self.r.shuffle(parts)
        dims = list(x.shape)
        dims[k] = sum(p.shape[k] for p in parts)
        self.add("Concat", parts, tuple(dims), exact=True, axis=k)

    def split(self) -> None:
        x = self.floats(lambda v: v.rank > 0 and max(v.shape) > 1)
        k = self.r.choice([i for i, d in enumerate(x.shape) if d > 1])
        first = self.r.randint(1, x.shape[k] - 1)
        sizes = [first, x.shape[k] - first]
        outs = []
        for size in sizes:
            dims = list(x.shape)
            dims[k] = size
            outs.append(Value(self.name(), x.dtype, tuple(dims), x.exact, fusable=x.fusable))
        names = [o.name for o in outs]
        if self.opset >= 13:
            s = self.ints(*sizes)
            node = h.make_node("Split", [x.name, s.name], names, axis=k)
        else:
            node = h.make_node("Split", [x.name], names, axis=k, split=sizes)
        self.scope.nodes.append(node)
        self.scope.values += outs
        if self.chance(0.5):
            order = outs if self.chance(0.7) else outs[::-1]
            self.add("Concat", list(order), x.shape, exact=True, axis=k)

    def gather(self) -> None:
        x = self.pick(lambda v: v.rank > 0 and v.size > 0)
        k = self.axis(x.rank)
        n = x.shape[k]
        shape = self.r.choice([(), (1,), (2,), (2, 2)])
        low = -n if self.opset >= 11 else 0
        idx = np.array([self.r.randrange(low, n) for _ in range(math.prod(shape))], "int64")
        i = self.const(idx.reshape(shape).astype(self.r.choice(["int64", "int32"])))
        a = k % x.rank
        known = np.take(x.known, idx.reshape(shape), a) if x.known is not None else None
        dims = x.shape[:a] + shape + x.shape[a + 1 :]
        self.add("Gather", [x, i], dims, x.dtype, exact=True, known=known, axis=k)

    def pad(self) -> None:
        x = self.floats(lambda v: v.rank > 0)
        pads = [
            self.r.choice([0, 0, 1, -1 if x.shape[k % x.rank] > 2 else 0])
            for k in range(2 * x.rank)
        ]
        if self.chance(0.2):
            pads = [0] * len(pads)
        mode = self.r.choice(["constant", "constant", "edge", "reflect"])
        if mode == "reflect" and min(x.shape) < 2:
            mode = "constant"
        if mode != "constant":
            pads = [max(0, p) for p in pads]
        dims = tuple(d + pads[k] + pads[k + x.rank] for k, d in enumerate(x.shape))
        if min(dims) < 1:
            raise UnfitError
        value = self.r.choice([0.0, 0.0, -0.0, 1.0, float("-inf")])
        if self.opset < 11:
            self.add("Pad", [x], dims, exact=True, pads=pads, mode=mode, value=value)
            return
        inputs: list[Value | None] = [x, self.ints(*pads)]
        if mode == "constant" and self.chance(0.7):
            inputs.append(self.const(np.array(value, np.float32)))
        self.add("Pad", inputs, dims, exact=True, mode=mode)

    def expand(self) -> None:
        if self.opset < 8:
            raise UnfitError
        x = self.pick(lambda v: v.rank < 4)
        dims = [self.r.choice([2, 3]) if d == 1 and self.chance(0.5) else d for d in x.shape]
        target = [1 if self.chance(0.3) else d for d in dims]
        if self.chance(0.3):
            target, dims = [2, *target], [2, *dims]
        elif self.chance(0.3):
            target = target[1:]
        shape = np.broadcast_shapes(x.shape, tuple(target))
        self.add("Expand", [x, self.shape_vector(target)], shape, exact=True)

    def tile(self) -> None:
        x = self.floats(lambda v: v.rank > 0)
        times = [self.r.choice([1, 1, 1, 2]) for _ in x.shape]
        shape = tuple(d * t for d, t in zip(x.shape, times))
        self.add("Tile", [x, self.ints(*times)], shape, exact=True)

    # ------------------------------------------------------------ shapes

    def shape(self) -> None:
        x = self.pick(lambda v: v.rank > 0)
        known = np.array(x.shape, np.int64)
        attributes = {}
        if self.opset >= 15 and self.chance(0.4):
            start, end = self.r.choice([0, 1, -1, -9]), self.r.choice([None, 1, -1, 9])
            attributes = {"start": start} | ({} if end is None else {"end": end})
            known = known[start:end]
        s = self.add("Shape", [x], known.shape, "int64", known=known, **attributes)
        s.exact = True
        if known.size and self.chance(0.7):
            k = self.r.randrange(known.size)
            if self.chance(0.5):
                i = self.ints(k)
                self.add("Gather", [s, i], (1,), exact=True, known=known[k : k + 1], axis=0)
            else:
                i = self.const(np.array(k, np.int64))
                g = self.add("Gather", [s, i], (), exact=True, known=known[k], axis=0)
                self.axes_op("Unsqueeze", g, [0], 13, (1,), exact=True, known=known[k : k + 1])

    def shape_arithmetic(self) -> None:
        x = self.pick(lambda v: v.known is not None and v.dtype == "int64" and v.size > 0)
        op, c = self.r.choice(
            [("Mul", 2), ("Add", 1), ("Div", 2), ("Sub", 1), ("Mul", 1), ("Add", 0)]
        )
        y = np.array(c, np.int64).reshape(self.r.choice([(), (1,)]))
        known = {
            "Mul": lambda: x.known * y,
            "Add": lambda: x.known + y,
            "Sub": lambda: x.known - y,
            "Div": lambda: (x.known / y).astype(np.int64),
        }[op]()
        if abs(int(np.abs(known).max())) > 10**6:
            raise UnfitError
        self.add(op, [x, self.const(y)], known.shape, exact=True, known=known)

    def from_shape(self) -> None:
        x = self.pick(
            lambda v: (
                v.known is not None
                and v.dtype == "int64"
                and v.rank == 1
                and v.size > 0
                and v.known.min() >= 0
                and v.known.max() < 16
            )
        )
        dims = tuple(int(d) for d in x.known)
        kind = self.r.random()
        if kind < 0.5 and self.opset >= 9:
            value = np.array([self.r.choice(SPECIAL)], np.float32)
            t = numpy_helper.from_array(value)
            self.add("ConstantOfShape", [x], dims, "float32", value=t)
        elif kind < 0.75:
            known = np.prod(x.known, keepdims=True)
            if self.opset < 18:
                self.add("ReduceProd", [x], (1,), exact=True, known=known, axes=[0], keepdims=1)
            else:
                self.add("ReduceProd", [x, self.ints(0)], (1,), exact=True, known=known, keepdims=1)
        elif self.opset >= 11 and x.size == 1:
            end = self.axes_op("Squeeze", x, [0], 13, (), exact=True, known=x.known[0])
            zero, one = (self.const(np.array(v, np.int64)) for v in (0, 1))
            n = int(x.known[0])
            self.add("Range", [zero, end, one], (n,), exact=True, known=np.arange(n))

    # ------------------------------------------------------------ reductions and linear algebra

    def reduce(self) -> None:
        x = self.floats(lambda v: v.rank > 0)
        ops = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"]
        ops += ["ReduceSumSquare", "ReduceL1", "ReduceLogSumExp"]
        op = self.r.choice(ops)
        axes: list[int] | None = sorted(self.r.sample(range(x.rank), self.r.randint(1, x.rank)))
        if self.chance(0.2):
            axes = None
        keep = self.r.choice([0, 1])
        over = range(x.rank) if axes is None else axes
        shape = tuple(1 if k in over else d for k, d in enumerate(x.shape) if keep or k not in over)
        since = 13 if op == "ReduceSum" else 18
        if self.opset >= since and self.chance(0.15):
            empty = self.r.choice([0, 1])
            shape = x.shape if empty else tuple(1 for _ in x.shape) if keep else ()
            inputs = [x, self.const(np.array([], np.int64))]
            self.add(op, inputs, shape, keepdims=keep, noop_with_empty_axes=empty)
            return
        if axes is not None and self.opset >= 11 and self.chance(0.3):
            axes = [a - x.rank for a in axes]
        self.axes_op(op, x, axes, since, shape, keepdims=keep)

    def softmax(self) -> None:
        x = self.floats(lambda v: v.rank > 0)
        op = self.r.choice(["Softmax", "LogSoftmax"])
        attributes = {"axis": self.axis(x.rank)} if self.chance(0.8) else {}
        self.add(op, [x], x.shape, **attributes)

    def matmul(self) -> None:
        x = self.floats(lambda v: v.rank >= 2)
        n = self.r.choice([2, 4])
        w = self.weight(x.shape[-1], n)
        y = self.add("MatMul", [x, w], (*x.shape[:-1], n), exact=True)
        if self.chance(0.6):
            b = self.weight(*self.r.choice([(n,), (1,), (1, n), (), (*x.shape[:-1], n), (2, 1, n)]))
            pair = [y, b] if self.chance(0.5) else [b, y]
            if fits(b.shape, y.shape):
                self.add("Add", pair, np.broadcast_shapes(y.shape, b.shape), exact=True)

    def product(self) -> None:
        x = self.floats(lambda v: v.rank >= 2)
        y = self.floats(lambda v: v.rank == x.rank and v.shape[:-2] == x.shape[:-2])
        perm = list(range(y.rank))
        if y.shape[-2] != x.shape[-1]:
            perm[-1], perm[-2] = perm[-2], perm[-1]
            if y.shape[-1] != x.shape[-1]:
                raise UnfitError
            y = self.add("Transpose", [y], tuple(y.shape[p] for p in perm), exact=True, perm=perm)
        self.add("MatMul", [x, y], (*x.shape[:-1], y.shape[-1]), exact=True)

    def gemm(self) -> None:
        x = self.floats(lambda v: v.rank == 2)
        ta, tb = self.r.choice([0, 0, 1]), self.r.choice([0, 1])
        m, k = x.shape[::-1] if ta else x.shape
        n = self.r.choice([2, 4])
        w = self.weight(*((n, k) if tb else (k, n)))
        alpha, beta = self.r.choice([(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)])
        inputs: list[Value | None] = [x, w]
        if self.opset < 11 or self.chance(0.7):
            inputs.append(self.weight(*self.r.choice([(n,), (1, n), (), (m, n), (m, 1)])))
        y = self.add(
            "Gemm", inputs, (m, n), exact=True, transA=ta, transB=tb, alpha=alpha, beta=beta
        )
        self.maybe_affine(y, n, last=True)

    def maybe_affine(self, y: Value, channels: int, last: bool = False) -> Value:
        """What is often fused into the operator before."""
        while self.chance(0.5):
            kind = self.r.choice(["Mul", "Add", "Sub", "Div", "bn", "Mul"])
            if kind == "bn":
                if y.rank < 2 or y.shape[1] != channels:
                    return y
                y = self.batch_norm(y)
                continue
            dims: list[int] = [channels] if last else [channels] + [1] * (y.rank - 2)
            if self.chance(0.3):
                dims = [1] * self.r.randint(0, y.rank + (1 if self.chance(0.1) else 0))
            elif self.chance(0.3):
                dims = [1, *dims][-4:]
            w = self.weight(*dims)
            if not fits(w.shape, y.shape):
                return y
            pair = [y, w] if self.chance(0.6) else [w, y]
            y = self.add(kind, pair, np.broadcast_shapes(y.shape, w.shape), exact=kind != "Div")
        return y

    def batch_norm(self, y: Value) -> Value:
        c = y.shape[1]
        s, t, m = (self.weight(c) for _ in range(3))
        v = self.const(np.abs(self.data("float32", (c,), False)) + np.float32(0.5))
        eps = self.r.choice([1e-5, 1e-3])
        return self.add("BatchNormalization", [y, s, t, m, v], y.shape, epsilon=eps)

    def norm(self) -> None:
        x = self.floats(lambda v: v.rank >= 3 and v.size // v.shape[1] > 1)
        if self.chance(0.6):
            self.batch_norm(x)
            return
        c = x.shape[1]
        self.add("InstanceNormalization", [x, self.weight(c), self.weight(c)], x.shape)

    def conv(self) -> None:
        x = self.floats(lambda v: v.rank in (3, 4) and min(v.shape[2:]) >= 2)
        spatial = x.rank - 2
        c = x.shape[1]
        groups = self.r.choice([1, c])
        out = c if groups > 1 else self.r.choice([2, 4])
        transposed = self.chance(0.25)
        kernel, stride = self.r.choice([1, 2]), self.r.choice([1, 1, 2])
        pads = [self.r.choice([0, 0, 1]) for _ in range(2 * spatial)]
        if kernel == 1 and transposed:
            pads = [0] * len(pads)
        if self.chance(0.3):
            p = [0, 0, *[self.r.choice([0, 1]) for _ in range(spatial)]] * 2
            dims = tuple(d + p[k] + p[k + x.rank] for k, d in enumerate(x.shape))
            if self.opset < 11:
                x = self.add("Pad", [x], dims, exact=True, pads=p)
            else:
                x = self.add("Pad", [x, self.ints(*p)], dims, exact=True)
        shape = (c, out // groups) if transposed else (out, c // groups)
        w = self.weight(*shape, *[kernel] * spatial)
        inputs: list[Value | None] = [x, w]
        if self.chance(0.5):
            inputs.append(self.weight(out))
        sizes = [d + pads[k] + pads[k + spatial] for k, d in enumerate(x.shape[2:])]
        if transposed:
            sizes = [
                (d - 1) * stride + kernel - pads[k] - pads[k + spatial]
                for k, d in enumerate(x.shape[2:])
            ]
        else:
            sizes = [(d - kernel) // stride + 1 for d in sizes]
        if min(sizes) < 1:
            raise UnfitError
        y = self.add(
            "ConvTranspose" if transposed else "Conv",
            inputs,
            (x.shape[0], out, *sizes),
            exact=True,
            group=groups,
            kernel_shape=[kernel] * spatial,
            strides=[stride] * spatial,
            pads=pads,
        )
        self.maybe_affine(y, out)

    def pool(self) -> None:
        x = self.floats(lambda v: v.rank in (3, 4) and min(v.shape[2:]) >= 2)
        spatial = x.rank - 2
        op = self.r.choice(["MaxPool", "AveragePool", "GlobalAveragePool"])
        if op.startswith("Global"):
            self.add(op, [x], (*x.shape[:2], *[1] * spatial))
            return
        shape = (*x.shape[:2], *[d - 1 for d in x.shape[2:]])
        self.add(op, [x], shape, exact=op == "MaxPool", kernel_shape=[2] * spatial)

    # ------------------------------------------------------------ what exporters write for one operator

    def scalar(self, value: float) -> Value:
        return self.const(np.array(value, np.float32).reshape(self.r.choice([(), (1,)])), False)

    def mean(self, x: Value, axes: list[int]) -> Value:
        over = [a % x.rank for a in axes]
        shape = tuple(1 if k in over else d for k, d in enumerate(x.shape))
        return self.axes_op("ReduceMean", x, axes, 18, shape, keepdims=1)

    def layer_norm(self) -> None:
        x = self.floats(lambda v: v.rank >= 2)
        axes = [-1] if self.opset >= 11 and self.chance(0.7) else [x.rank - 1]
        if self.chance(0.2) and x.rank > 2:
            axes = self.r.choice([[1], [x.rank - 2, x.rank - 1]])
        mean = self.mean(x, axes)
        d = self.add("Sub", [x, mean] if self.chance(0.9) else [mean, x], x.shape)
        if self.chance(0.7):
            sq = self.add("Pow", [d, self.scalar(self.r.choice([2.0, 2.0, 3.0]))], x.shape)
        else:
            sq = self.add("Mul", [d, d], x.shape)
        var = self.mean(sq, axes)
        e = self.add("Add", [var, self.scalar(self.r.choice([1e-5, 1e-12, 1.0]))], var.shape)
        root = self.add("Sqrt", [e], var.shape)
        y = self.add("Div", [d if self.chance(0.9) else x, root], x.shape)
        dims = self.r.choice([(x.shape[-1],), (1,), (), x.shape])
        if self.chance(0.8):
            y = self.add("Mul", [y, self.weight(*dims)], x.shape)
        if self.chance(0.8):
            self.add("Add", [y, self.weight(*dims)], x.shape)

    def rms_norm(self) -> None:
        x = self.floats(lambda v: v.rank >= 2)
        axes = [x.rank - 1]
        sq = self.add("Mul", [x, x], x.shape)
        m = self.mean(sq, axes)
        e = self.add("Add", [m, self.scalar(1e-5)], m.shape)
        root = self.add("Sqrt", [e], m.shape)
        if self.chance(0.5):
            y = self.add("Div", [x, root], x.shape)
        else:
            r = self.add("Reciprocal", [root], m.shape)
            y = self.add("Mul", [x, r], x.shape)
        self.add("Mul", [self.weight(x.shape[-1]), y], x.shape)

    def gelu(self) -> None:
        x = self.floats()
        if self.opset >= 9 and self.chance(0.5):
            a = self.add("Div", [x, self.scalar(self.r.choice([2**0.5, 2**0.5, 2.0]))], x.shape)
            a = self.add("Erf", [a], x.shape)
            a = self.add("Add", [a, self.scalar(1.0)], x.shape)
            half = self.scalar(self.r.choice([0.5, 0.5, 0.25]))
            if self.chance(0.5):
                b = self.add("Mul", [x, a], x.shape)
                self.add("Mul", [b, half], x.shape)
            else:
                b = self.add("Mul", [x, half], x.shape)
                self.add("Mul", [b, a], x.shape)
            return
        cube = self.add("Pow", [x, self.scalar(3.0)], x.shape)
        a = self.add("Mul", [cube, self.scalar(0.044715)], x.shape)
        a = self.add("Add", [x, a], x.shape)
        a = self.add("Mul", [a, self.scalar(0.7978845608)], x.shape)
        a = self.add("Tanh", [a], x.shape)
        a = self.add("Add", [a, self.scalar(1.0)], x.shape)
        b = self.add("Mul", [x, self.scalar(0.5)], x.shape)
        self.add("Mul", [b, a], x.shape)

    def gate(self) -> None:
        x = self.floats()
        kind = self.r.choice(["silu", "hard", "mish", "hardsigmoid"])
        if kind == "silu":
            y = x if self.chance(0.8) else self.add("Mul", [x, self.scalar(1.702)], x.shape)
            s = self.add("Sigmoid", [y], x.shape)
        elif kind == "mish":
            s = self.add("Tanh", [self.add("Softplus", [x], x.shape)], x.shape)
        elif kind == "hardsigmoid":
            alpha = self.r.choice([1 / 6, 0.2])
            s = self.add("HardSigmoid", [x], x.shape, alpha=alpha, beta=0.5)
        else:
            a = self.add("Add", [x, self.scalar(3.0)], x.shape)
            if self.opset < 11:
                c = self.add("Clip", [a], x.shape, min=0.0, max=6.0)
            else:
                bounds = [self.const(np.array(v, np.float32)) for v in (0.0, 6.0)]
                c = self.add("Clip", [a, *bounds], x.shape)
            s = self.add("Div", [c, self.scalar(self.r.choice([6.0, 6.0, 5.0]))], x.shape)
        self.add("Mul", [x, s] if self.chance(0.5) else [s, x], x.shape)

    def long_softmax(self) -> None:
        x = self.floats(lambda v: v.rank > 0)
        axis = self.r.randrange(x.rank)
        shape = tuple(1 if k == axis else d for k, d in enumerate(x.shape))
        if self.chance(0.5):
            top = self.axes_op("ReduceMax", x, [axis], 18, shape, keepdims=1)
            x = self.add("Sub", [x, top], x.shape)
        e = self.add("Exp", [x], x.shape)
        total = self.axes_op("ReduceSum", e, [axis], 13, shape, keepdims=1)
        self.add("Div", [e, total], x.shape)

    def norm_l2(self) -> None:
        x = self.floats(lambda v: v.rank > 0)
        axis = self.r.randrange(x.rank)
        shape = tuple(1 if k == axis else d for k, d in enumerate(x.shape))
        sq = self.add("Mul", [x, x], x.shape)
        total = self.axes_op("ReduceSum", sq, [axis], 13, shape, keepdims=1)
        root = self.add("Sqrt", [total], shape)
        if self.chance(0.5):
            self.add("Div", [x, root], x.shape)

    def depth_to_space(self) -> None:
        x = self.floats(lambda v: v.rank == 4 and v.shape[1] % 4 == 0)
        n, c, hh, w = x.shape
        order = self.r.choice([[0, 1, 4, 2, 5, 3], [0, 3, 4, 1, 5, 2], [0, 1, 4, 2, 3, 5]])
        first = [n, 2, 2, c // 4, hh, w] if order[1] == 3 else [n, c // 4, 2, 2, hh, w]
        y = self.add("Reshape", [x, self.ints(*first)], tuple(first), exact=True)
        dims = tuple(first[p] for p in order)
        y = self.add("Transpose", [y], dims, exact=True, perm=order)
        last = (n, c // 4, hh * 2, w * 2)
        self.add("Reshape", [y, self.ints(*last)], last, exact=True)

    def chain(self) -> None:
        """Two movements that may cancel."""
        x = self.floats(lambda v: v.rank >= 2)
        kind = self.r.choice(["transpose", "reshape", "squeeze"])
        if kind == "transpose":
            perm = list(range(x.rank))
            self.r.shuffle(perm)
            back = [perm.index(k) for k in range(x.rank)]
            if self.chance(0.3):
                self.r.shuffle(back)
            y = self.add("Transpose", [x], tuple(x.shape[p] for p in perm), exact=True, perm=perm)
            if self.chance(0.5):
                y = self.add(self.r.choice(["Relu", "Neg"]), [y], y.shape, exact=True)
            self.add("Transpose", [y], tuple(y.shape[p] for p in back), exact=True, perm=back)
        elif kind == "reshape":
            for _ in range(2):
                dims = self.split_size(x.size)
                target = [0 if k < x.rank and x.shape[k] == d else d for k, d in enumerate(dims)]
                x = self.add("Reshape", [x, self.ints(*target)], tuple(dims), exact=True)
        else:
            a = self.r.randrange(x.rank + 1)
            dims = (*x.shape[:a], 1, *x.shape[a:])
            y = self.axes_op("Unsqueeze", x, [a], 13, dims, exact=True)
            ones = [k for k, d in enumerate(dims) if d == 1]
            b = self.r.choice(ones)
            shape = tuple(d for k, d in enumerate(dims) if k != b)
            self.axes_op("Squeeze", y, [b], 13, shape, exact=True)

    def twin(self) -> None:
        """A node that says again what another says, or nearly so."""
        done = [n for n in self.scope.nodes if len(n.output) == 1 and n.op_type != "Constant"]
        if not done:
            raise UnfitError
        node = onnx.NodeProto()
        node.CopyFrom(self.r.choice(done))
        if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
            raise UnfitError
        old = next((v for v in self.scope.values if v.name == node.output[0]), None)
        if old is None:
            raise UnfitError
        new = Value(self.name(), old.dtype, old.shape, old.exact, old.known, fusable=old.fusable)
        node.output[0] = new.name
        node.name = node.op_type + "_" + new.name
        self.scope.nodes.append(node)
        self.scope.values.append(new)

    def quantize(self) -> None:
        if self.opset < 10:
            raise UnfitError
        x = self.floats(lambda v: v.exact)
        scale, zero = self.const(np.array(0.5, np.float32)), self.const(np.array(8, np.uint8))
        q = self.add("QuantizeLinear", [x, scale, zero], x.shape, "uint8", exact=True)
        self.add("DequantizeLinear", [q, scale, zero], x.shape, "float32", exact=True)

    # ------------------------------------------------------------ control flow

    def body(self, size: int, values: list[Value]) -> Scope:
        """A nested graph that may use the values around it."""
        outer, self.scope = self.scope, Scope([*self.scope.values, *values])
        self.depth += 1
        made = 0
        try:
            for _ in range(size * 3):
                made += self.step()
                if made >= size:
                    break
        finally:
            inner, self.scope = self.scope, outer
            self.depth -= 1
        inner.values = inner.values[len(outer.values) :]
        return inner

    def branch(self) -> None:
        if self.depth or self.opset < 9:
            raise UnfitError
        if self.chance(0.5):
            c = self.const(np.array(self.chance(0.5)))
        else:
            c = self.pick(lambda v: v.dtype == "bool" and v.size == 1)
        like = self.floats()
        graphs = []
        for which in ("then", "else"):
            inner = self.body(self.r.randint(1, 4), [])
            fit = [v for v in inner.values if v.shape == like.shape and v.dtype == like.dtype]
            out = Value(self.name("b"), like.dtype, like.shape)
            chosen = self.r.choice(fit) if fit else like
            inner.nodes.append(h.make_node("Identity", [chosen.name], [out.name]))
            info = h.make_tensor_value_info(out.name, T.FLOAT, None)
            graphs.append(h.make_graph(inner.nodes, which, [], [info]))
        branched = self.add(
            "If", [c], like.shape, "float32", then_branch=graphs[0], else_branch=graphs[1]
        )
        branched.fusable = True

    def loop(self) -> None:
        if self.depth or self.opset < 11:
            raise UnfitError
        x = self.floats()
        trips = self.const(np.array(self.r.choice([0, 1, 2, 3]), np.int64))
        go = self.const(np.array(True)) if self.chance(0.6) else None
        state = Value(self.name("s"), x.dtype, x.shape, False, fusable=True)
        i, c = self.name("i"), self.name("k")
        inner = self.body(self.r.randint(1, 4), [state])
        fit = [v for v in inner.values if v.shape == x.shape and v.dtype == x.dtype]
        c_out, s_out, scan = self.name("k"), self.name("s"), self.name("s")
        if self.chance(0.6):
            inner.nodes.append(h.make_node("Identity", [c], [c_out]))
        else:
            inner.nodes.append(
                h.make_node(
                    "Constant",
                    [],
                    [c_out],
                    value=numpy_helper.from_array(np.array(self.chance(0.8))),
                )
            )
        inner.nodes.append(h.make_node("Identity", [self.r.choice([*fit, state]).name], [s_out]))
        inner.nodes.append(h.make_node("Relu", [self.r.choice([*fit, state]).name], [scan]))
        graph = h.make_graph(
            inner.nodes,
            "body",
            [
                h.make_tensor_value_info(i, T.INT64, []),
                h.make_tensor_value_info(c, T.BOOL, []),
                h.make_tensor_value_info(state.name, T.FLOAT, None),
            ],
            [
                h.make_tensor_value_info(c_out, T.BOOL, []),
                h.make_tensor_value_info(s_out, T.FLOAT, None),
                h.make_tensor_value_info(scan, T.FLOAT, None),
            ],
        )
        out, scanned = Value(self.name(), x.dtype, x.shape, False, fusable=True), self.name("scan")
        names = [trips.name, go.name if go else "", x.name]
        self.scope.nodes.append(h.make_node("Loop", names, [out.name, scanned], body=graph))
        self.scope.values.append(out)

    # ------------------------------------------------------------ the model

    def step(self) -> int:
        weights = [
            (self.unary, 3), (self.binary, 6), (self.round_off, 1), (self.dropout, 1), (self.clip, 2),
            (self.integer, 1), (self.compare, 1), (self.logic, 1), (self.where, 2), (self.cast, 2),
            (self.transpose, 3), (self.reshape, 4), (self.same_shape, 1), (self.flatten, 1),
            (self.squeeze, 2), (self.unsqueeze, 2), (self.slice, 3), (self.concat, 2),
            (self.split, 2), (self.gather, 2), (self.pad, 2), (self.expand, 2), (self.tile, 1),
            (self.shape, 3), (self.shape_arithmetic, 2), (self.from_shape, 1), (self.reduce, 3),
            (self.softmax, 1), (self.matmul, 3), (self.product, 1), (self.gemm, 2), (self.norm, 1),
            (self.conv, 4), (self.pool, 1), (self.layer_norm, 1), (self.rms_norm, 1),
            (self.gelu, 1), (self.gate, 2), (self.long_softmax, 1), (self.norm_l2, 1),
            (self.depth_to_space, 1), (self.chain, 3), (self.twin, 2), (self.quantize, 1),
            (self.branch, 1), (self.loop, 1),
        ]  # fmt: skip
        make = self.r.choices([w[0] for w in weights], [w[1] for w in weights])[0]
        held, nodes, values = len(self.inits), len(self.scope.nodes), len(self.scope.values)
        try:
            make()
        except UnfitError:
            del self.scope.nodes[nodes:]
            del self.scope.values[values:]
            dropped = {t.name for t in self.inits[held:]}
            del self.inits[held:]
            self.held = [v for v in self.held if v.name not in dropped]
            return 0
        return 1

    def add_input(self) -> None:
        dtype = self.r.choice(["float32"] * 6 + ["int64", "int32", "bool"])
        rank = self.r.choice([0, 1, 2, 2, 3, 3, 4, 4])
        dims: list[Any] = [self.r.choice([1, 2, 3, 4, 4, 5]) for _ in range(rank)]
        for k in range(rank):
            if self.chance(0.2):
                dims[k] = self.r.choice([*SIZES, *(["?"] if k == 0 else [])])
        shape = tuple(SIZES.get(d, 4) if isinstance(d, str) else d for d in dims)
        v = Value(f"x{len(self.inputs)}", dtype, shape)
        declared = [None if d == "?" else d for d in dims]
        elem = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
        info = h.make_tensor_value_info(v.name, elem, None if self.chance(0.05) else declared)
        self.inputs.append(info)
        self.feed[v.name] = self.data(dtype, shape)
        self.scope.values.append(v)

    def model(self, size: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """A model of about `size` steps, and what to feed it."""
        for _ in range(self.r.randint(1, 3)):
            self.add_input()
        made = 0
        for _ in range(size * 4):
            made += self.step()
            if made >= size:
                break
        outputs = self.outputs()
        used = {o.name for o in outputs}
        for t in self.inits:
            if self.chance(0.03) and self.opset >= 9 and t.name not in used:
                self.inputs.append(h.make_tensor_value_info(t.name, t.data_type, t.dims))
        graph = h.make_graph(self.scope.nodes, "g", self.inputs, outputs, self.inits)
        graph = with_used_nodes_marked(graph)
        ir = next(
            k
            for top, k in (
                (8, 3),
                (9, 4),
                (10, 5),
                (11, 6),
                (14, 7),
                (18, 8),
                (20, 9),
                (22, 10),
                (99, 11),
            )
            if self.opset <= top
        )
        if ir < 4:
            listed = {i.name for i in graph.input}
            for t in self.inits:
                if t.name not in listed:
                    graph.input.append(h.make_tensor_value_info(t.name, t.data_type, t.dims))
        made_model = h.make_model(
            graph, opset_imports=[h.make_opsetid("", self.opset)], ir_version=ir
        )
        return made_model, self.feed

    def outputs(self) -> list[onnx.ValueInfoProto]:
        made = [v for v in self.scope.values if not v.name.startswith("x")]
        chosen = made[-1:]
        chosen += [v for v in made[:-1] if self.chance(0.15)]
        if self.chance(0.1):
            chosen += [v for v in self.scope.values if v.name.startswith("x")][:1]
        if self.chance(0.1):
            chosen += [v for v in self.held[:1] if v.known is not None]
        if not chosen:
            chosen = self.scope.values[:1]
        found = []
        for v in chosen:
            elem = h.np_dtype_to_tensor_dtype(np.dtype(v.dtype))
            kind = self.r.random()
            dims: Any = None if kind < 0.5 else [None] * v.rank
            found.append(h.make_tensor_value_info(v.name, elem, dims))
        return found


def with_used_nodes_marked(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph without initialisers that nothing uses, as exporters leave it."""
    used = {o.name for o in graph.output} | {i.name for i in graph.input}

    def collect(g: onnx.GraphProto) -> None:
        for n in g.node:
            used.update(n.input)
            for a in n.attribute:
                if a.HasField("g"):
                    collect(a.g)

    collect(graph)
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return graph


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes broadcast."""
    return all(p == q or 1 in (p, q) for p, q in zip(a[::-1], b[::-1]))


def make(seed: int, size: int | None = None) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model of a seed; a smaller `size` gives its beginning."""
    rng = random.Random(seed)
    maker = Maker(rng)
    steps = rng.randint(1, 14)
    return maker.model(steps if size is None else size)
