"""Building a module whose weights come from elsewhere: without memory, values or repeated work."""

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["on_meta", "repeats_copied", "unfilled_on_meta"]

_FILLS = {
    torch.Tensor.fill_,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.zero_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
}
_MAKERS = {torch.empty, torch.full, torch.ones, torch.tensor, torch.zeros}


class on_meta(TorchFunctionMode):  # type: ignore[no-untyped-call,unused-ignore]  # noqa: N801
    """Modules without memory and without their first random values, which nobody would see.

    The same as torch.device("meta"), but that still computes the values' shapes.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FILLS:
            return _filled(args, kwargs)
        kwargs = kwargs or {}
        if func in _MAKERS:
            kwargs.setdefault("device", "meta")
            if kwargs["device"] is None:
                kwargs["device"] = "meta"
        return func(*args, **kwargs)


class unfilled_on_meta(TorchFunctionMode):  # type: ignore[no-untyped-call,unused-ignore]  # noqa: N801
    """Tensors on the meta device are not filled, for which torch imports a compiler, and takes a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FILLS and (tensor := _filled(args, kwargs)).is_meta:
            return tensor
        return func(*args, **(kwargs or {}))


def _filled(args: Any, kwargs: dict[str, Any] | None) -> Any:
    """What a function of `_FILLS` is to fill."""
    return args[0] if args else next(iter((kwargs or {}).values()))


@contextlib.contextmanager
def repeats_copied(classes: Iterable[type[nn.Module]]) -> Iterator[None]:
    """While it lasts, `classes` run their constructors twice for equal arguments, and copy after that.

    For classes that nobody else has yet. A network of 32 equal layers is then built about as fast as
    one of three: a copy is an order faster than the constructors of torch's layers inside it.
    """
    constructors = {c: c.__dict__["__init__"] for c in classes if "__init__" in c.__dict__}
    for c, constructor in constructors.items():
        _set_constructor(c, _copying(c, constructor))
    try:
        yield
    finally:
        for c, constructor in constructors.items():
            _set_constructor(c, constructor)


def _set_constructor(c: type, constructor: Callable[..., None]) -> None:
    c.__init__ = constructor  # type: ignore[misc]


def _copying(c: type[nn.Module], constructor: Callable[..., None]) -> Callable[..., None]:
    times: dict[str, int] = {}  # by arguments
    patterns: dict[str, _Pattern] = {}

    @functools.wraps(constructor)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        # Not the arguments themselves: 1, 1.0 and True are equal.
        key = (
            repr((args, kwargs)) if type(self) is c and _is_plain((*args, *kwargs.values())) else ""
        )
        pattern = patterns.get(key)
        if pattern is not None:
            pattern.fill(self, {})
            return
        constructor(self, *args, **kwargs)
        times[key] = times.get(key, 0) + 1
        if key and times[key] == 2:
            with contextlib.suppress(_NoPatternError):
                patterns[key] = _Pattern(self, {})

    return init


class _NoPatternError(Exception):
    """A module has state that a copy could not have as well."""


_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_SHARED = (*_PLAIN, type, FunctionType, BuiltinFunctionType)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (
        type(value) in (tuple, torch.Size) and all(map(_is_plain, value))
    )


class _Pattern:
    """What a module is right after its constructor; what it shares within, copies share as well."""

    def __init__(self, module: nn.Module, seen: dict[int, "_Pattern"]) -> None:
        seen[id(module)] = self
        self._type = type(module)
        # Taken as they are, and copied.
        self._values: dict[str, Any] = {}
        self._containers: list[tuple[str, Any]] = []
        self._tensors: list[tuple[str, dict[str, torch.Tensor | None]]] = []
        self._modules: list[tuple[str, _Pattern | None]] = []
        for name, value in module.__dict__.items():
            kind = type(value)
            if name in ("_parameters", "_buffers"):
                if any(type(t) not in _TENSORS for t in value.values()):
                    raise _NoPatternError
                self._tensors.append((name, dict(value)))
            elif name == "_modules":
                self._modules = [
                    (k, None if m is None else seen.get(id(m)) or _Pattern(m, seen))
                    for k, m in value.items()
                ]
            elif kind in (dict, OrderedDict, set, list) and _is_plain(
                tuple(value.values() if isinstance(value, dict) else value)
            ):
                self._containers.append((name, value.copy()))
            elif isinstance(value, _SHARED) or _is_plain(value):
                self._values[name] = value
            else:
                raise _NoPatternError

    def fill(self, module: nn.Module, made: dict[int, Any]) -> nn.Module:
        """Give `module` the state; `made`: copies so far, by the original."""
        made[id(self)] = module
        state = module.__dict__
        state.update(self._values)
        for name, container in self._containers:
            state[name] = container.copy()
        for name, table in self._tensors:
            state[name] = {k: t if t is None else _same(t, made) for k, t in table.items()}
        state["_modules"] = {
            k: p if p is None else made.get(id(p)) or p.fill(object.__new__(p._type), made)
            for k, p in self._modules
        }
        return module


_TENSORS = (nn.Parameter, torch.Tensor, type(None))


def _same(tensor: torch.Tensor, made: dict[int, Any]) -> torch.Tensor:
    """A tensor like this one, to be told from it; values that are not to come are copied."""
    out: torch.Tensor | None = made.get(id(tensor))
    if out is None:
        if not tensor.is_meta:
            out = tensor.detach().clone()
        elif type(tensor) is nn.Parameter:
            out = tensor
        else:
            out = tensor.detach()
        if type(tensor) is nn.Parameter:
            out = nn.Parameter(out, tensor.requires_grad)
        made[id(tensor)] = out
    return out
