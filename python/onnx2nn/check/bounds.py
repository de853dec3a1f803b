"""How much rounding a value may hold: running error analysis of a torch computation.

`Tape` notes how each tensor comes about while a module runs; `Tape.bound` then says, element by element,
how far two right implementations may differ there, given the same inputs. It is the classical analysis
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, section 3.3): each operator hands on
the errors of its operands and adds what its own arithmetic may round, a few units in the last place of
the largest term that it sums. What an operator decides (a rounding, a comparison, a largest element) can
come out differently only where its operand lies within its error of the border.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from onnx2nn.check.calls import Bound, Call, flat, most
from onnx2nn.check.general_bounds import MOVES
from onnx2nn.check.operator_bounds import bounds_of, summed_products
from onnx2nn.check.turns import in_turn

__all__ = ["Tape", "aside", "unfused"]

_aten = torch.ops.aten


class _StepByStep(TorchFunctionMode):  # type: ignore[no-untyped-call,unused-ignore]
    """Recurrent layers by torch's own loop, where a fused kernel would hide it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            # Where there is no Intel GPU, setting the flags warns about one of them.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call,unused-ignore]
                    return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def unfused(net: nn.Module) -> Iterator[None]:
    """A context, of one thread at a time, in which attention and recurrent layers run in steps that a
    tape can follow."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with in_turn(), contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(m, nn.RNNBase) for m in net.modules()):
            stack.enter_context(_StepByStep())  # type: ignore[no-untyped-call,unused-ignore]
        yield


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """While it is active, notes the calls that tensors come from.

    `given` says of a tensor that its value is known, but for `error`: nothing before it counts.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be guarded against torch's compiler, whose import takes over a second."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self._made: Any = WeakTensorKeyDictionary()
        self._given: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        changed = _changed(func, args) if func._schema.is_mutable else None
        if changed is not None:
            return self._change(func, args, kwargs, changed)
        result = func(*args, **kwargs)
        outs = [x for x in flat([result]) if isinstance(x, Tensor)]
        if outs and any(isinstance(x, Tensor) for x in flat([args, kwargs])):
            call = Call(func, args, kwargs, outs)
            for k, out in enumerate(outs):
                if not any(out is x for x in flat([args])):
                    self._made[out] = (call, k)
        return result

    def _change(self, func: Any, args: Any, kwargs: Any, changed: Tensor) -> Any:
        """Run what writes into a tensor: it holds the result of the same call on what it held."""
        before = changed.clone()
        for table in (self._made, self._given):
            if changed in table:
                table[before] = table[changed]
        result = func(*args, **kwargs)
        call = Call(_functional(func), (before, *args[1:]), kwargs, [changed])
        self._made[changed] = (call, 0)
        self._given.pop(changed, None)
        base = changed._base
        if base is not None:
            # A part was written: no element of the whole is off by more than the worst of both.
            self._given[base] = most([self.bound(base), self.bound(changed)])
        return result

    def given(self, value: Tensor, error: Bound = 0.0) -> None:
        """Take the value of a tensor for known, up to `error`."""
        self._made.pop(value, None)
        self._given[value] = error

    def bound(self, value: Tensor) -> Bound:
        """How far right implementations may differ in `value`, given what is known."""
        with torch.no_grad(), aside():
            pending = [value]
            while pending:
                top = pending[-1]
                call = self._call(top)
                if call is None or call.bounds is not None:
                    pending.pop()
                    continue
                needed = [
                    x
                    for x in flat([call.args, call.kwargs])
                    if isinstance(x, Tensor) and self._is_open(x)
                ]
                if needed:
                    pending += needed
                    continue
                call.bounds = bounds_of(call, self._known)
                pending.pop()
            return self._known(value)

    def terms(self, value: Tensor) -> float:
        """How many products are summed for each element of a value, seen through what only moves it."""
        call = self._call(value)
        while call is not None and call.name in MOVES and isinstance(call.args[0], Tensor):
            call = self._call(call.args[0])
        return summed_products(call) if call is not None else 1.0

    def _call(self, value: Tensor) -> Call | None:
        return self._made[value][0] if value in self._made and value not in self._given else None

    def _is_open(self, value: Tensor) -> bool:
        call = self._call(value)
        return call is not None and call.bounds is None

    def _known(self, value: Any) -> Bound:
        if not isinstance(value, Tensor):
            return 0.0
        if value in self._given:
            return cast(Bound, self._given[value])
        if value in self._made:
            call, k = self._made[value]
            return cast(Bound, call.bounds[k])
        return 0.0


def aside() -> Any:
    """A context in which no tape is written."""
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()


def _changed(func: Any, args: Any) -> Tensor | None:
    """The tensor that a call writes into, where it is the first argument."""
    first = func._schema.arguments[0] if func._schema.arguments else None
    writes = first is not None and first.alias_info is not None and first.alias_info.is_write
    return args[0] if writes and args and isinstance(args[0], Tensor) else None


def _functional(func: Any) -> Any:
    """The form of an operator that gives a new tensor: add for add_."""
    packet = getattr(_aten, str(func._schema.name).removeprefix("aten::").removesuffix("_"), None)
    return getattr(packet, func._overloadname, func)
