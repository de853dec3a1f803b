"""nn.LSTM, nn.GRU and nn.RNN come back as the modules that they were: one of each, with all layers, under the
author's keys and in torch's layout, whichever exporter of torch took their weights apart."""

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onnx2nn
from pages import written


class Tagger(nn.Module):
    """A recurrent module with something before and after it."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.before = nn.Linear(6, 100)
        self.rnn = getattr(nn, kind)(100, 128, **options)
        self.after = nn.Linear(128 * (1 + options.get("bidirectional", False)), 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.rnn(self.before(x).relu())[0])


class States(Tagger):
    """Begins with states of the caller's and gives back what they have become."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(kind, **options)
        del self.after

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        state = states if len(states) > 1 else states[0]
        y, after = self.rnn(self.before(x), state)
        return (y, *after) if isinstance(after, tuple) else (y, after)


class Last(Tagger):
    """The last layer's state alone."""

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(self.before(x))[1]
        h = state[0] if isinstance(state, tuple) else state
        return self.after(torch.cat([h[-2], h[-1]], 1) if self.rnn.bidirectional else h[-1])


class Two(nn.Module):
    """Two modules one after the other, which are not layers of one."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.GRU(100, 128)
        self.upper = nn.GRU(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self.lower(x)[0])[0]


class Again(Tagger):
    """One module called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.rnn(self.before(x))[0] + self.rnn(self.before(x * 2))[0])


DEEP = {"num_layers": 2, "bidirectional": True}
LEGACY = [
    (Tagger, "LSTM", {}),
    (Tagger, "LSTM", {"batch_first": True, **DEEP}),
    (Tagger, "LSTM", {"num_layers": 3, "bias": False}),
    (Tagger, "GRU", {"batch_first": True, "num_layers": 3}),
    (Tagger, "GRU", DEEP),
    (Tagger, "RNN", {"nonlinearity": "relu", "batch_first": True, **DEEP}),
    (States, "LSTM", {"batch_first": True, **DEEP}),
    (States, "GRU", {"num_layers": 3}),
    (States, "RNN", {}),
    (Last, "LSTM", {"num_layers": 2, "batch_first": True}),
    (Last, "GRU", {"batch_first": True, **DEEP}),
    (Again, "LSTM", {"batch_first": True}),
]
DYNAMO = [
    (Tagger, "LSTM", {"batch_first": True, **DEEP}),
    (Tagger, "GRU", {"num_layers": 2, "batch_first": True}),
    (States, "LSTM", {"num_layers": 2}),
    (Again, "GRU", {}),
]


def inputs_for(net: nn.Module, batch: int = 2) -> tuple[Tensor, ...]:
    steps = 5
    if isinstance(net, Two):
        return (torch.randn(steps, batch, 100),)
    rnn: Any = net.rnn
    x = torch.randn(batch, steps, 6) if rnn.batch_first else torch.randn(steps, batch, 6)
    if not isinstance(net, States):
        return (x,)
    rows = rnn.num_layers * (1 + rnn.bidirectional)
    count = 2 if isinstance(rnn, nn.LSTM) else 1
    return (x, *(torch.randn(rows, batch, 128) for _ in range(count)))


def exported(net: nn.Module, dynamo: bool) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(net, inputs_for(net), dynamo=True, verbose=False)
            assert program is not None
            program.save(file)
        else:
            torch.onnx.export(net, inputs_for(net), file, dynamo=False)
    return file.getvalue()


def check(net: nn.Module, dynamo: bool, folder: Path) -> list[Any]:
    """The recurrent modules of what is written, after everything about them was checked."""
    model = exported(net, dynamo)
    ours = written(model, folder)
    loaded = onnx2nn.load(model)
    keys = {k: v for k, v in net.state_dict().items() if not dynamo or "rnn" in k}
    state, same = ours.state_dict(), loaded.state_dict()
    assert state.keys() == same.keys()
    for key, value in state.items():
        assert torch.equal(value, same[key]), key
    for key, value in keys.items():
        assert torch.equal(value, state[key]), key
    if not dynamo:
        ours.load_state_dict(net.state_dict(), strict=True)
    xs = inputs_for(net)
    with torch.no_grad():
        want = net(*xs)
        for mine in (ours, loaded):
            got = mine(*xs)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    return [m for m in ours.modules() if isinstance(m, nn.RNNBase)]


@pytest.mark.parametrize(("outer", "kind", "options"), LEGACY)
def test_modules_of_the_older_exporter(
    outer: type[nn.Module], kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = outer(kind, **options).eval()
    (ours,) = check(net, False, tmp_path)
    theirs: Any = net.rnn
    for name in ("num_layers", "bidirectional", "batch_first", "bias", "mode"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize(("outer", "kind", "options"), DYNAMO)
def test_modules_of_the_newer_exporter(
    outer: type[nn.Module], kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = outer(kind, **options).eval()
    (ours,) = check(net, True, tmp_path)
    theirs: Any = net.rnn
    for name in ("num_layers", "bidirectional", "batch_first", "bias", "mode"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_modules_that_were_two_stay_two(tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert len(check(Two().eval(), False, tmp_path)) == 2
