"""Weights that say where they come from: each element of a module becomes a number of its own.

Whatever moves such numbers (a transpose, a join, gates in another order) leaves their bits alone, so
that a tensor of them tells, element by element, which weight it was made of.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from onnx2nn.errors import Error

__all__ = ["Marks"]

# Marks are normal numbers from here on, up to a million. Those that end in twelve zero bits are none:
# they are the numbers that people write.
_FIRST, _LAST = 0x3A80, 0x4980  # the upper 16 bits of 2**-10 and 2**20
_ROUND = 12
_PER_ROUND = 2**_ROUND - 1


class Marks:
    """The places of a module's weights, and the values that are found for them.

    Weights that are tied have one place. `unequal` names those for which two values were found.
    """

    def __init__(self, module: nn.Module) -> None:
        self.keys: dict[str, tuple[int, Tensor]] = {}
        starts: dict[int, int] = {}
        count = 0
        for key, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            if id(tensor) not in starts:
                starts[id(tensor)] = count
                count += tensor.numel()
            self.keys[key] = starts[id(tensor)], tensor
        if count > ((_LAST - _FIRST) << (16 - _ROUND)) * _PER_ROUND:
            raise Error(f"the module has {count:,} numbers, more than can be told apart")
        wide = any(t.dtype == torch.float64 for _, t in self.keys.values())
        self._found = torch.zeros(count, dtype=torch.float64 if wide else torch.float32)
        self._seen = torch.zeros(count, dtype=torch.bool)
        self._used = torch.zeros(count, dtype=torch.bool)
        self.unequal: set[str] = set()

    def put(self, module: nn.Module) -> None:
        """Put the marks into a copy of the module, which becomes one of float32."""
        module.float()
        state = module.state_dict(keep_vars=True)
        with torch.no_grad():
            for key, (start, tensor) in self.keys.items():
                marks = _mark(torch.arange(start, start + tensor.numel()))
                state[key].copy_(marks.reshape(tensor.shape))

    def use(self, tensors: Iterable[Tensor]) -> None:
        """Note that outputs depend on the weights that have marks in these tensors."""
        for t in tensors:
            if t.dtype == torch.float32:
                places = _place(t.contiguous()).reshape(-1)
                self._used[places[(places >= 0) & (places < len(self._used))]] = True

    def missing(self) -> list[str]:
        """The weights of which outputs depend on values that are not known."""
        open_places = self._used & ~self._seen
        return [k for k, (at, t) in self.keys.items() if open_places[at : at + t.numel()].any()]

    def take(self, marked: Tensor, values: Tensor) -> bool:
        """Take values for the places that the marks of a tensor of the same shape say.

        False where there are no marks.
        """
        if marked.dtype != torch.float32:
            return False
        places = _place(marked.contiguous()).reshape(-1)
        known = (places >= 0) & (places < len(self._found))
        # A number that is a mark by chance stands alone.
        if not known.any() or (places.numel() > 1 and known.float().mean() < 0.5):
            return False
        at, new = places[known], values.reshape(-1)[known].to(self._found.dtype)
        other = self._seen[at] & (self._found[at] != new)
        if other.any():
            self.unequal.update(self.key_of(int(k)) for k in at[other][:8])
        self._found[at] = new
        self._seen[at] = True
        return True

    def set(self, marked: Tensor, value: float) -> None:
        """Take one value for all places of a tensor of marks."""
        self.take(marked, torch.full(marked.shape, value, dtype=self._found.dtype))

    def key_of(self, place: int) -> str:
        """The weight that a place belongs to."""
        return next(k for k, (start, t) in self.keys.items() if start <= place < start + t.numel())

    def found(self) -> dict[str, Tensor]:
        """The weights of which all values are known."""
        return self._tensors(lambda seen: bool(seen.all()))

    def partly(self) -> dict[str, Tensor]:
        """The weights of which some values are known; the others are the module's own."""
        return self._tensors(lambda seen: bool(seen.any()) and not bool(seen.all()))

    def _tensors(self, wanted: Callable[[Tensor], bool]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        shared: dict[tuple[int, int], Tensor] = {}
        for key, (start, tensor) in self.keys.items():
            end = start + tensor.numel()
            seen = self._seen[start:end]
            if not wanted(seen):
                continue
            if (start, end) not in shared:
                own = tensor.detach().reshape(-1).to(self._found.dtype)
                values = torch.where(seen, self._found[start:end], own)
                shared[start, end] = values.reshape(tensor.shape).to(tensor.dtype)
            out[key] = shared[start, end]
        return out


def _mark(places: Tensor) -> Tensor:
    bits = (_FIRST << 16) + (places // _PER_ROUND << _ROUND) + places % _PER_ROUND + 1
    marks: Tensor = bits.to(torch.int32).view(torch.float32)
    return marks


def _place(marks: Tensor) -> Tensor:
    """The places of marks, -1 where a number is none."""
    bits = marks.view(torch.int32).to(torch.int64) - (_FIRST << 16)
    low = bits % (1 << _ROUND)
    places = (bits >> _ROUND) * _PER_ROUND + low - 1
    return torch.where((bits >= 0) & (low > 0), places, -1)
