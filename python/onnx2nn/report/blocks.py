"""The tree of a module with its operators and shapes, found by one run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["Block", "Group", "arguments_of", "blocks_of"]

_MOST_BLOCKS = 1500  # in one report
_MOST_STEPS = 80  # in one block
# What asks a tensor for its form, and computes nothing.
_QUESTIONS = {"size", "dim", "numel", "stride", "is_floating_point", "__len__", "element_size"}


@dataclass
class Block:
    """A module: its class, the parameters and multiply-adds in it, and what it does, in order.

    steps: (operator or name of a module inside, the shape that it gives).
    """

    name: str
    class_name: str
    detail: str = ""
    shape: str = ""
    parameters: int = 0
    multiply_adds: int = 0
    steps: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0
    groups: "list[Group]" = field(default_factory=list)
    is_layer: bool = False

    @property
    def form(self) -> tuple[Any, ...]:
        """What two modules of one kind have in common."""
        inner = tuple((g.title, tuple(b.form for b in g.blocks)) for g in self.groups)
        return self.class_name, self.detail, self.parameters, inner


@dataclass
class Group:
    """Neighbours of one class, folded; left_out: how many are not shown."""

    title: str
    class_name: str
    blocks: list[Block]
    count: int

    @property
    def left_out(self) -> int:
        """How many there are beyond those that are shown."""
        return self.count - len(self.blocks)


class _Recorder(TorchFunctionMode):
    """Notes which functions of torch are called in which module, and what shapes they give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.stack: list[str] = [""]
        self.steps: dict[str, list[tuple[str, str]]] = {}
        self.shapes: dict[str, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name not in _QUESTIONS and not name.startswith("__get"):
            shape = shape_of(out)
            if shape:
                self.steps.setdefault(self.stack[-1], []).append((name.strip("_"), shape))
        return out


def shape_of(value: Any) -> str:
    """The shapes of what a function gives; nothing where it gives no tensor."""
    if isinstance(value, torch.Tensor):
        return "×".join(str(int(d)) for d in value.shape) or "scalar"
    if isinstance(value, (list, tuple)):
        shapes = [s for s in map(shape_of, value[:4]) if s]
        return ", ".join(shapes) + (", …" if len(value) > 4 else "") if shapes else ""
    return ""


@contextlib.contextmanager
def _noting(net: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which module is at work."""
    handles = []
    for path, module in net.named_modules():
        if not path:
            continue

        def enter(_: Any, __: Any, path: str = path) -> None:
            recorder.stack.append(path)

        def leave(_: Any, __: Any, out: Any, path: str = path) -> None:
            recorder.stack.pop()
            shape = shape_of(out)
            recorder.shapes.setdefault(path, shape)
            at = recorder.stack[-1]
            inner = path[len(at) + 1 :] if at and path.startswith(at + ".") else path
            recorder.steps.setdefault(at, []).append((inner, shape))

        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave, always_call=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def arguments_of(inputs: list[tuple[str, str, list[int] | None]]) -> list[Any]:
    """Arguments without numbers, for a module on the meta device: (name, dtype, shape) of each."""
    return [_argument(dtype, shape) for _, dtype, shape in inputs]


def blocks_of(
    net: nn.Module, arguments: list[Any], adds: dict[str, int], share: float = 1.0
) -> Block:
    """The tree of a module, with what it does on these arguments.

    adds: multiply-adds by the path of a module, as the core counts them on the file.
    share: of the modules that are shown at most.

    Where a module on the meta device needs numbers to run, as one with control flow on data does,
    the tree is without what comes after that.
    """
    recorder = _Recorder()
    # Whatever code of a model raises without numbers is no matter here.
    with contextlib.suppress(Exception), torch.no_grad(), _noting(net, recorder), recorder:
        net(*arguments)
    return _block("", net, recorder, adds, [int(share * _MOST_BLOCKS)])


def _argument(dtype: str, shape: list[int] | None) -> Any:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or shape is None:
        return None
    return torch.empty(shape, dtype=kind, device="meta")


def _block(
    path: str, module: nn.Module, recorder: _Recorder, adds: dict[str, int], left: list[int]
) -> Block:
    left[0] -= 1
    is_layer = type(module).__module__.startswith("torch.nn.")
    children = list(module.named_children())
    steps = [] if is_layer else recorder.steps.get(path, [])
    block = Block(
        path.rpartition(".")[2],
        type(module).__name__,
        module.extra_repr() if is_layer else "",
        recorder.shapes.get(path, ""),
        sum(p.numel() for p in module.parameters()),
        adds.get(path, 0),
        steps[:_MOST_STEPS],
        max(0, len(steps) - _MOST_STEPS),
        is_layer=is_layer,
    )
    made: list[tuple[str, Block]] = []
    skipped = 0
    for name, child in children:
        if left[0] <= 0:
            skipped += 1
            continue
        made.append((name, _block(f"{path}.{name}" if path else name, child, recorder, adds, left)))
    block.groups = _grouped(made)
    if skipped:
        block.groups.append(Group(f"{skipped} more modules", "", [], skipped))
    return block


def _grouped(children: list[tuple[str, Block]]) -> list[Group]:
    """Neighbours of one class and form in one group."""
    groups: list[Group] = []
    for name, block in children:
        last = groups[-1] if groups else None
        if last and not block.is_layer and last.blocks[-1].form == block.form:
            last.blocks.append(block)
            last.count += 1
            last.title = f"{last.blocks[0].name} … {name}"
        else:
            groups.append(Group(name, block.class_name, [block], 1))
    return groups
