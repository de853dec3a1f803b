"""`load`: an ONNX file as an nn.Module whose weights are mapped from that file."""

import contextlib
import itertools
import linecache
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from onnx2nn.api import compiled
from onnx2nn.construction import on_meta, repeats_copied
from onnx2nn.core import Axes, InputShapes, run_native
from onnx2nn.errors import Error, diagnostic_text
from onnx2nn.log import LOGGER, step
from onnx2nn.runtime.quantization import dequantized
from onnx2nn.source import Model, as_source

__all__ = ["load"]


_counter = itertools.count(1)


def load(
    model: Model,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    simplify: bool = True,
    input_shapes: InputShapes | None = None,
    dynamic_batch: bool = False,
    dynamic: Axes | None = None,
    class_name: str | None = None,
    allow_unknown: bool = False,
    fuse: bool = False,
    data_roots: Iterable[str | os.PathLike[str]] = (),
    drop_undefined_outputs: bool = False,
    keep_quantized: bool = False,
) -> nn.Module:
    """An ONNX model as an nn.Module in eval mode, with its weights mapped from the file.

    The time this takes depends on the number of nodes, not on the weights: they are read when
    first used, and only those that lie misaligned in the file, or are stored in another form
    than torch's, are copied. The mapping is private: training changes memory, never the file.
    Do not change the file while the module lives.

    device: where the weights go, "meta" for none; the CPU where it is not given.
    dtype: a floating type that floating weights are brought to.
    keep_quantized: weights that the model holds as integers stay so, and are made real with each
        use: less memory, more time, and nothing to train. Otherwise they are parameters.
    The other options are those of `convert`.
    Raises Error, with all diagnostics, where the model cannot be read or converted; warnings go to
    the logger "onnx2nn".
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: {dtype!r} is not a floating torch.dtype")
    if not isinstance(keep_quantized, bool):
        raise TypeError(f"keep_quantized: {keep_quantized!r} is not True or False")
    source = as_source(model)
    options = {
        "simplify": simplify,
        "input_shapes": input_shapes,
        "dynamic_batch": dynamic_batch,
        "dynamic": dynamic,
        "class_name": class_name,
        "allow_unknown": allow_unknown,
        "fuse": fuse,
        "data_roots": data_roots,
        "drop_undefined_outputs": drop_undefined_outputs,
    }
    conversion = run_native(source, options)
    for d in conversion.diagnostics:
        if d.get("severity") == "warning":
            LOGGER.warning("%s", diagnostic_text(source.name, d))
    net = build(conversion, keep_quantized=keep_quantized)
    # A model that had to be saved to a temporary folder keeps it while it is in use.
    if source.folder is not None:
        object.__setattr__(net, "_onnx2nn_folder", source.folder)
    if device is None and dtype is None:
        return net

    def placed(t: torch.Tensor) -> torch.Tensor:
        return t.to(device=device, dtype=dtype if t.is_floating_point() else None)

    exact = [attrgetter(w["key"]) for w in conversion.weights if w["exact"]]
    kept = [tensor_of(net).detach() for tensor_of in exact]
    net._apply(placed)  # type: ignore[no-untyped-call,unused-ignore]
    for tensor_of, value in zip(exact, kept, strict=True):
        tensor_of(net).data = value.to(device)
    return net


def build(
    conversion: Any,
    names: dict[str, Any] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
    keep_quantized: bool = False,
) -> nn.Module:
    """The module of a native Conversion; `names` are put into the source's namespace first.

    state: weights to take instead of the model's, where key and shape are the same.
    """
    with contextlib.ExitStack() as how:
        how.enter_context(step(f"build {conversion.class_name}"))
        net_class = run_source(conversion.source, conversion.class_name, names)
        if conversion.weights:
            how.enter_context(on_meta())
        how.enter_context(repeats_copied(_module_classes(net_class)))
        net = net_class()
    assign_weights(net, conversion, state or {}, keep_quantized)
    net.eval()
    assert isinstance(net, nn.Module)
    return net


def _module_classes(net_class: type[nn.Module]) -> list[type[nn.Module]]:
    """The classes of modules of executed source, given the last of them."""
    forward = net_class.forward
    assert isinstance(forward, FunctionType)
    return [
        c
        for c in forward.__globals__.values()
        if isinstance(c, type) and issubclass(c, nn.Module) and c.__module__ == net_class.__module__
    ]


class _StandIn(ModuleType):
    """What sys.modules holds for executed source: its names, without keeping them alive.

    Pickle, `inspect` and torch.compile find classes and globals in it for as long as the module's
    class lives.
    """

    def __init__(self, name: str, file: str, anchor: FunctionType) -> None:
        super().__init__(name)
        self.__file__ = file
        # A dict cannot be referred to weakly; a function can, and it leads to its globals.
        self._anchor = weakref.ref(anchor)

    def __getattr__(self, name: str) -> Any:
        anchor = self.__dict__["_anchor"]()
        if anchor is None or name not in anchor.__globals__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return anchor.__globals__[name]


def _forget(name: str, file: str) -> None:
    sys.modules.pop(name, None)
    linecache.cache.pop(file, None)


def keep_while_alive(name: str, file: str, net_class: type[nn.Module]) -> None:
    """Let sys.modules know executed source by `name` for as long as its class lives."""
    forward = net_class.forward
    assert isinstance(forward, FunctionType)
    sys.modules[name] = _StandIn(name, file, forward)
    weakref.finalize(net_class, _forget, name, file)


def run_source(
    source: str, class_name: str, names: dict[str, Any] | None = None
) -> type[nn.Module]:
    """Execute emitted source; its class, known to `inspect`, tracebacks and pickle while it lives."""
    name = f"onnx2nn_loaded_{next(_counter)}_{class_name}"
    filename = f"<{name}.py>"
    namespace = {**(names or {}), "__name__": name, "__file__": filename}
    # No modification time: linecache then keeps the lines until they are taken out.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        exec(compiled(source, filename), namespace)
        net_class = namespace[class_name]
        assert isinstance(net_class, type)
        assert issubclass(net_class, nn.Module)
        keep_while_alive(name, filename, net_class)
    except BaseException:
        _forget(name, filename)
        raise
    return net_class


class _Maps:
    """Weight files, each mapped once, copy-on-write."""

    def __init__(self) -> None:
        self._maps: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}

    def __call__(self, path: str) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        if path not in self._maps:
            if os.path.getsize(path) == 0:
                self._maps[path] = np.empty(0, np.uint8)
            else:
                # Slices of a plain array are an order faster to make than those of a memmap.
                self._maps[path] = np.asarray(np.memmap(path, np.uint8, "c"))
        return self._maps[path]


def weight_tensor(
    conversion: Any, index: int, w: dict[str, Any], maps: Callable[[str], Any]
) -> torch.Tensor:
    """Weight `index`, described by `w`: a view of its mapped file, or a copy where misaligned.

    Each view has a storage of its own, so that saving a state_dict writes just the weights.
    """
    dtype = getattr(torch, w["dtype"].removeprefix("torch."))
    itemsize = dtype.itemsize
    shape = list(w["shape"])
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)

    def stored(place: dict[str, Any], data: Any, start: int, end: int) -> torch.Tensor:
        """Its elements from `start` to `end`, which are copied where they lie misaligned."""
        if not place["file"]:
            raw = np.asarray(data()).reshape(-1).view(np.uint8)
        else:
            offset, nbytes = place["offset"], place["nbytes"]
            mapped = maps(place["file"])
            if offset + nbytes > mapped.size:
                raise Error(
                    f"{place['file']}: ends before the weight {w['key']}: has it been changed?"
                )
            raw = mapped[offset : offset + nbytes]
        if raw.size < end * itemsize:
            raise Error(f"weight {w['key']}: {raw.size} bytes for {dtype} of shape {shape}")
        if (end - start) * itemsize != raw.size:
            raw = raw[start * itemsize : end * itemsize]
        if not raw.flags.writeable:
            raw = raw.copy()
        flat = torch.frombuffer(raw, dtype=dtype)
        return torch.frombuffer(raw.copy(), dtype=dtype) if flat.data_ptr() % itemsize else flat

    def matrix(number: int, piece: dict[str, Any]) -> torch.Tensor:
        """The elements of a piece in torch's order, as one dimension."""
        rows, columns, stride = piece["rows"], piece["columns"], piece["stride"]
        strides = (1, stride) if piece["transpose"] else (stride, 1)
        last = (rows - 1) * strides[0] + (columns - 1) * strides[1]
        start = piece["start"]
        flat = stored(piece, lambda: conversion.weight_data(index, number), start, start + last + 1)
        return flat.as_strided((rows, columns), strides).reshape(-1)

    if w.get("pieces"):
        return torch.cat([matrix(i, piece) for i, piece in enumerate(w["pieces"])]).view(shape)
    if w["nbytes"] != count * itemsize:
        raise Error(f"weight {w['key']}: {w['nbytes']} bytes for {dtype} of shape {shape}")
    flat = stored(w, lambda: conversion.weight_data(index), 0, count)
    if w.get("transpose"):
        # `shape` is what the module has; the file holds it transposed.
        return flat.view(shape[::-1]).t()
    return flat.view(shape)


class _Dequantized(nn.Module):
    """What a weight is that stays in integers: less their zero point, times their scale."""

    def __init__(
        self, scale: torch.Tensor, zero_point: torch.Tensor | None, shape: torch.Size
    ) -> None:
        super().__init__()
        self.like = {"weight": torch.empty(shape, device="meta")}
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def forward(self, integers: torch.Tensor) -> torch.Tensor:
        stored = {"weight": integers, **{f"weight.{k}": b for k, b in self.named_buffers()}}
        return dequantized(stored, self.like)["weight"]


def _keep_integers(
    net: nn.Module,
    key: str,
    integers: torch.Tensor,
    beside: Mapping[str, torch.Tensor],
    shape: torch.Size,
) -> None:
    """Puts `integers` in the place of a weight that is computed from them with each use."""
    path, _, name = key.rpartition(".")
    owner = net.get_submodule(path)
    delattr(owner, name)
    owner.register_buffer(name, integers)
    real = _Dequantized(beside[f"{key}.scale"], beside.get(f"{key}.zero_point"), shape)
    parametrize.register_parametrization(owner, name, real, unsafe=True)


def assign_weights(
    net: nn.Module,
    conversion: Any,
    state: Mapping[str, torch.Tensor] = MappingProxyType({}),
    keep_quantized: bool = False,
) -> None:
    """Put a conversion's weights, or those of `state`, into a module that was built on the meta device.

    Every place that shares a parameter gets the same new one, so that tied weights stay tied.
    """
    slots: dict[int, list[tuple[dict[str, Any], str]]] = {}
    by_key: dict[str, torch.Tensor] = {}
    # As named_modules does, which asks every parent for each module.
    todo: list[tuple[str, nn.Module]] = [("", net)]
    while todo:
        prefix, module = todo.pop()
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            for name, tensor in table.items():
                if tensor is not None:
                    by_key[prefix + name] = tensor
                    slots.setdefault(id(tensor), []).append((table, name))
        todo += [(f"{prefix}{k}.", m) for k, m in module._modules.items() if m is not None]
    maps = _Maps()
    # Scales and zero points by the weight in integers that they make real.
    quantizers: dict[str, dict[str, torch.Tensor]] = {}
    weights = conversion.weights
    for index, w in enumerate(weights):
        if w.get("quantized"):
            beside = weight_tensor(conversion, index, w, maps)
            quantizers.setdefault(w["quantized"], {})[w["key"]] = beside
    for index, w in enumerate(weights):
        if w.get("quantized"):
            continue
        placeholder = by_key.get(w["key"])
        if placeholder is None:
            raise Error(f"internal: the emitted class has no place for the weight {w['key']}")
        given = state.get(w["key"])
        fits = given is not None and given.shape == placeholder.shape
        value = given if fits else weight_tensor(conversion, index, w, maps)
        assert value is not None
        if keep_quantized and w["key"] in quantizers:
            _keep_integers(net, w["key"], value, quantizers[w["key"]], placeholder.shape)
            continue
        if not fits and w["key"] in quantizers:
            stored = {w["key"]: value, **quantizers[w["key"]]}
            value = dequantized(stored, {w["key"]: placeholder})[w["key"]]
        if value.shape != placeholder.shape:
            raise Error(
                f"internal: weight {w['key']} has shape {list(value.shape)} where the emitted "
                f"class expects {list(placeholder.shape)}"
            )
        if isinstance(placeholder, nn.Parameter):
            value = nn.Parameter(value, requires_grad=w.get("requires_grad", True))
        for table, name in slots[id(placeholder)]:
            table[name] = value
    left = [
        key
        for key, placeholder in by_key.items()
        for table, name in slots[id(placeholder)]
        if name in table and table[name].is_meta
    ]
    if left:
        raise Error(f"internal: no value for {', '.join(left[:5])}")
