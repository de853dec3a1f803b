"""nn.LSTM and nn.GRU in exported programs whose length stays open: torch unrolls them where it does not know better."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["as_operators", "length_kept_open", "translations"]

_ARGUMENTS = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train,"
    " bool bidirectional, bool batch_first"
)


@contextlib.contextmanager
def length_kept_open() -> Iterator[None]:
    """While inside, torch.export follows the layers by a loop that it need not unroll; in older torch nothing changes.

    The program calls torch's layers as before: the loop only tells it of shapes.
    """
    try:
        from torch.export import _patches
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.callback(_choose_kernels_anew)
        for kind in ("lstm", "gru"):
            manager = getattr(_patches, f"register_{kind}_while_loop_decomposition", None)
            if manager is not None:
                stack.enter_context(manager())
        _choose_kernels_anew()
        yield


def _choose_kernels_anew() -> None:
    """Torch keeps what it chose for an operator, and the decompositions above do not tell it that they came or went."""
    for layer in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        layer._dispatch_cache.clear()


def translations() -> dict[Any, Callable[..., Any]]:
    """ONNX for the operators of `as_operators`, for torch.onnx.export: empty where onnxscript has none."""
    from onnxscript.function_libs.torch_lib.ops import core

    of = {kind: getattr(core, f"aten_{kind}", None) for kind in ("lstm", "gru")}
    if any(f is None for f in of.values()):
        return {}
    return {getattr(_operators(), kind).default: f for kind, f in of.items() if f is not None}


def as_operators(program: "ExportedProgram") -> None:
    """Let the program call the layers by operators that torch.onnx.export cannot take apart, and so not unroll."""
    aten, own = torch.ops.aten, _operators()
    of = {aten.lstm.input: own.lstm.default, aten.gru.input: own.gru.default}
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.target = of.get(node.target, node.target)
            module.recompile()


def _operators() -> Any:
    """torch.ops.onnx2nn with an lstm and a gru that know no more than their shapes."""
    own = torch.ops.onnx2nn
    if not hasattr(own, "lstm"):
        _LIBRARY.define(
            f"lstm(Tensor input, Tensor[] hx, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)"
        )
        _LIBRARY.define(f"gru(Tensor input, Tensor hx, {_ARGUMENTS}) -> (Tensor, Tensor)")
        torch.library.register_fake("onnx2nn::lstm", _lstm_shapes, lib=_LIBRARY)
        torch.library.register_fake("onnx2nn::gru", _gru_shapes, lib=_LIBRARY)
    return own


_untyped: Any = torch.library
_LIBRARY: Any = _untyped.Library("onnx2nn", "FRAGMENT")


def _lstm_shapes(
    x: Tensor, hx: list[Tensor], params: list[Tensor], *flags: Any
) -> tuple[Tensor, ...]:
    return _of_steps(x, hx[0], flags), torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _gru_shapes(x: Tensor, hx: Tensor, params: list[Tensor], *flags: Any) -> tuple[Tensor, ...]:
    return _of_steps(x, hx, flags), torch.empty_like(hx)


def _of_steps(x: Tensor, hidden: Tensor, flags: tuple[Any, ...]) -> Tensor:
    """What a layer gives out for each step. flags: from has_biases to batch_first."""
    _, _, _, _, bidirectional, _ = flags
    return x.new_empty([*x.shape[:-1], hidden.shape[-1] * (2 if bidirectional else 1)])
