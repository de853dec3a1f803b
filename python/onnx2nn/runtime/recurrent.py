"""LSTM, GRU and RNN with what torch's lack: activations, peepholes, lengths, clips."""

import torch
import torch.nn.functional as F
from torch import Tensor


def rnn_activation(x: Tensor, name: str, alpha: float, beta: float) -> Tensor:
    """An activation of ONNX's recurrent operators by its lower-case name."""
    if name == "sigmoid":
        return x.sigmoid()
    if name == "tanh":
        return x.tanh()
    if name == "relu":
        return F.relu(x)
    if name == "affine":
        return x * alpha + beta
    if name == "leakyrelu":
        return F.leaky_relu(x, alpha)
    if name == "thresholdedrelu":
        return torch.where(x > alpha, x, torch.zeros_like(x))
    if name == "scaledtanh":
        return alpha * (beta * x).tanh()
    if name == "hardsigmoid":
        return (alpha * x + beta).clamp(0, 1)
    if name == "elu":
        return F.elu(x, alpha)
    if name == "softsign":
        return F.softsign(x)
    if name == "softplus":
        return F.softplus(x)
    raise ValueError(f"recurrent activation {name!r} is not known")


def rnn_activations(
    names: list[str], alphas: list[float] | None, betas: list[float] | None
) -> list[tuple[str, float, float]]:
    """Names of activations with the alpha and beta that each takes in turn, or its default."""
    left_alphas, left_betas = list(alphas or []), list(betas or [])
    default_alphas = {
        "affine": 1.0,
        "leakyrelu": 0.01,
        "thresholdedrelu": 1.0,
        "scaledtanh": 1.0,
        "hardsigmoid": 0.2,
        "elu": 1.0,
    }
    default_betas = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}
    found: list[tuple[str, float, float]] = []
    for name in (n.lower() for n in names):
        alpha, beta = default_alphas.get(name, 0.0), default_betas.get(name, 0.0)
        if name in default_alphas and left_alphas:
            alpha = left_alphas.pop(0)
        if name in default_betas and left_betas:
            beta = left_betas.pop(0)
        found.append((name, alpha, beta))
    return found


def clip_symmetric(x: Tensor, clip: float | None) -> Tensor:
    """The clip of ONNX's recurrent operators, which limits what goes into an activation."""
    return x if clip is None else x.clamp(-clip, clip)


def reverse_steps(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [time, batch, ...] backwards; with lengths each entry's own steps only, the rest stays."""
    if lengths is None:
        return x.flip(0)
    step = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    last = lengths.to(torch.int64).unsqueeze(0)
    index = torch.where(step < last, last - 1 - step, step)
    return x.gather(
        0, index.reshape([*index.shape] + [1] * (x.dim() - 2)).expand(x.shape)
    )


def keep_steps(
    new: list[Tensor], old: list[Tensor], step: int, lengths: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """The state after a step and its output: entries that have ended keep theirs and give zeros."""
    if lengths is None:
        return new, new[0]
    going = (lengths > step).unsqueeze(1)
    kept = [torch.where(going, n, o) for n, o in zip(new, old, strict=True)]
    return kept, torch.where(going, new[0], torch.zeros_like(new[0]))


def drop_empty(state: Tensor, lengths: Tensor | None) -> Tensor:
    """The last state of ONNX's recurrent operators: zeros where a sequence has no steps."""
    return state if lengths is None else state * (lengths > 0).unsqueeze(1)


def stack_steps(steps: list[Tensor], like: Tensor) -> Tensor:
    """Outputs of all steps as one tensor, also where there was no step."""
    return torch.stack(steps) if steps else like.new_zeros([0, *like.shape])


def lstm_step(
    gates: Tensor,
    c: Tensor,
    p: Tensor | None,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    input_forget: bool,
) -> list[Tensor]:
    """The states h and c after one step of ONNX LSTM, from what its four gates are fed."""
    gate, cell, hidden = activations
    pi, po, pf = p.chunk(3) if p is not None else (None, None, None)
    i, o, f, g = gates.chunk(4, 1)
    if pi is not None and pf is not None:
        i, f = i + pi * c, f + pf * c
    i = rnn_activation(clip_symmetric(i, clip), *gate)
    f = 1 - i if input_forget else rnn_activation(clip_symmetric(f, clip), *gate)
    new_c = f * c + i * rnn_activation(clip_symmetric(g, clip), *cell)
    if po is not None:
        o = o + po * new_c
    o = rnn_activation(clip_symmetric(o, clip), *gate)
    return [o * rnn_activation(new_c, *hidden), new_c]


def lstm_direction(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    c: Tensor,
    p: Tensor | None,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    input_forget: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of ONNX LSTM over x [time, batch, input]."""
    wb, rb = (None, None) if b is None else b.chunk(2)
    inputs = F.linear(x, w, None if wb is None or rb is None else wb + rb)
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        gates = inputs[t] + F.linear(h, r)
        new = lstm_step(gates, c, p, activations, clip, input_forget)
        (h, c), y = keep_steps(new, [h, c], t, lengths)
        steps.append(y)
    return stack_steps(steps, h), drop_empty(h, lengths), drop_empty(c, lengths)


def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    direction: str = "forward",
    activations: list[str] | None = None,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    clip: float | None = None,
    input_forget: bool = False,
    layout: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """ONNX LSTM in full (Y, Y_h, Y_c), weights as in ONNX; nn.LSTM has its usual form only."""
    count = 2 if direction == "bidirectional" else 1
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * count
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    if layout:
        x = x.transpose(0, 1)
    zeros = x.new_zeros([x.shape[1], r.shape[2]])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for d in range(count):
        backwards = direction == "reverse" or d == 1
        y, h, c = lstm_direction(
            reverse_steps(x, sequence_lens) if backwards else x,
            w[d],
            r[d],
            None if b is None else b[d],
            sequence_lens,
            zeros if initial_h is None else initial_h[:, d] if layout else initial_h[d],
            zeros if initial_c is None else initial_c[:, d] if layout else initial_c[d],
            None if p is None else p[d],
            chosen[3 * d : 3 * d + 3],
            clip,
            input_forget,
        )
        parts.append((reverse_steps(y, sequence_lens) if backwards else y, h, c))
    y, h, c = (
        torch.stack(part, dim)
        for part, dim in zip(zip(*parts, strict=True), (1, 0, 0), strict=True)
    )
    return (
        (y.permute(2, 0, 1, 3), h.transpose(0, 1), c.transpose(0, 1))
        if layout
        else (y, h, c)
    )


def gru_direction(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    linear_before_reset: bool,
) -> tuple[Tensor, Tensor]:
    """One direction of ONNX GRU over x [time, batch, input]."""
    gate, hidden = activations
    size = r.shape[1]
    wb, rb = (None, None) if b is None else b.chunk(2)
    inputs = F.linear(x, w, wb)
    rzr, rh = r[: 2 * size], r[2 * size :]
    bzr, bh = (None, None) if rb is None else (rb[: 2 * size], rb[2 * size :])
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        zr, g = inputs[t].tensor_split([2 * size], 1)
        zr = zr + F.linear(h, rzr, bzr)
        z, reset = rnn_activation(clip_symmetric(zr, clip), *gate).chunk(2, 1)
        if linear_before_reset:
            g = g + reset * F.linear(h, rh, bh)
        else:
            g = g + F.linear(reset * h, rh, bh)
        g = rnn_activation(clip_symmetric(g, clip), *hidden)
        (h,), y = keep_steps([(1 - z) * g + z * h], [h], t, lengths)
        steps.append(y)
    return stack_steps(steps, h), drop_empty(h, lengths)


def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    direction: str = "forward",
    activations: list[str] | None = None,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    clip: float | None = None,
    linear_before_reset: bool = False,
    layout: int = 0,
) -> tuple[Tensor, Tensor]:
    """ONNX GRU in full (Y, Y_h), weights as in ONNX; nn.GRU has linear_before_reset only."""
    count = 2 if direction == "bidirectional" else 1
    names = activations or ["Sigmoid", "Tanh"] * count
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    if layout:
        x = x.transpose(0, 1)
    zeros = x.new_zeros([x.shape[1], r.shape[2]])
    parts: list[tuple[Tensor, Tensor]] = []
    for d in range(count):
        backwards = direction == "reverse" or d == 1
        y, h = gru_direction(
            reverse_steps(x, sequence_lens) if backwards else x,
            w[d],
            r[d],
            None if b is None else b[d],
            sequence_lens,
            zeros if initial_h is None else initial_h[:, d] if layout else initial_h[d],
            chosen[2 * d : 2 * d + 2],
            clip,
            linear_before_reset,
        )
        parts.append((reverse_steps(y, sequence_lens) if backwards else y, h))
    y, h = (
        torch.stack(part, dim)
        for part, dim in zip(zip(*parts, strict=True), (1, 0), strict=True)
    )
    return (y.permute(2, 0, 1, 3), h.transpose(0, 1)) if layout else (y, h)


def rnn_direction(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    activation: tuple[str, float, float],
    clip: float | None,
) -> tuple[Tensor, Tensor]:
    """One direction of ONNX RNN over x [time, batch, input]."""
    wb, rb = (None, None) if b is None else b.chunk(2)
    inputs = F.linear(x, w, None if wb is None or rb is None else wb + rb)
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        new = rnn_activation(
            clip_symmetric(inputs[t] + F.linear(h, r), clip), *activation
        )
        (h,), y = keep_steps([new], [h], t, lengths)
        steps.append(y)
    return stack_steps(steps, h), drop_empty(h, lengths)


def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    direction: str = "forward",
    activations: list[str] | None = None,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    clip: float | None = None,
    layout: int = 0,
) -> tuple[Tensor, Tensor]:
    """ONNX RNN in full (Y, Y_h), weights as in ONNX; nn.RNN has two activations, no clip."""
    count = 2 if direction == "bidirectional" else 1
    chosen = rnn_activations(
        activations or ["Tanh"] * count, activation_alpha, activation_beta
    )
    if layout:
        x = x.transpose(0, 1)
    zeros = x.new_zeros([x.shape[1], r.shape[2]])
    parts: list[tuple[Tensor, Tensor]] = []
    for d in range(count):
        backwards = direction == "reverse" or d == 1
        y, h = rnn_direction(
            reverse_steps(x, sequence_lens) if backwards else x,
            w[d],
            r[d],
            None if b is None else b[d],
            sequence_lens,
            zeros if initial_h is None else initial_h[:, d] if layout else initial_h[d],
            chosen[d],
            clip,
        )
        parts.append((reverse_steps(y, sequence_lens) if backwards else y, h))
    y, h = (
        torch.stack(part, dim)
        for part, dim in zip(zip(*parts, strict=True), (1, 0), strict=True)
    )
    return (y.permute(2, 0, 1, 3), h.transpose(0, 1)) if layout else (y, h)


def bahdanau_attention(
    query: Tensor,
    keys: Tensor,
    memory: Tensor,
    seen: Tensor,
    query_weight: Tensor,
    v: Tensor,
) -> Tensor:
    """The part of the memory [batch, steps, depth] that a query [batch, size] attends to."""
    scores = (v * torch.tanh(keys + (query @ query_weight).unsqueeze(1))).sum(-1)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights.unsqueeze(1) @ memory).squeeze(1)


def attention_lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    sequence_lens: Tensor | None,
    initial_h: Tensor | None,
    initial_c: Tensor | None,
    p: Tensor | None,
    query_weight: Tensor,
    memory_weight: Tensor,
    v: Tensor,
    memory: Tensor,
    memory_seq_lens: Tensor | None = None,
    attention_weight: Tensor | None = None,
    *,
    direction: str = "forward",
    activations: list[str] | None = None,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    clip: float | None = None,
    input_forget: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """com.microsoft AttnLSTM: an LSTM each of whose steps sees what the last one attended to."""
    count = 2 if direction == "bidirectional" else 1
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * count
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    zeros = x.new_zeros([x.shape[1], r.shape[2]])
    places = torch.arange(memory.shape[1], device=x.device).expand(memory.shape[:2])
    seen = torch.ones_like(places, dtype=torch.bool)
    if memory_seq_lens is not None:
        seen = places < memory_seq_lens.unsqueeze(1)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for d in range(count):
        backwards = direction == "reverse" or d == 1
        own = reverse_steps(x, sequence_lens) if backwards else x
        wb, rb = (None, None) if b is None else b[d].chunk(2)
        bias = None if wb is None or rb is None else wb + rb
        inputs = F.linear(own, w[d, :, : x.shape[2]], bias)
        fed = w[d, :, x.shape[2] :]
        keys = memory @ memory_weight[d]
        h = zeros if initial_h is None else initial_h[d]
        c = zeros if initial_c is None else initial_c[d]
        attended = x.new_zeros([x.shape[1], fed.shape[1]])
        steps: list[Tensor] = []
        for t in range(x.shape[0]):
            gates = inputs[t] + F.linear(attended, fed) + F.linear(h, r[d])
            new = lstm_step(
                gates,
                c,
                None if p is None else p[d],
                chosen[3 * d : 3 * d + 3],
                clip,
                bool(input_forget),
            )
            (h, c), y = keep_steps(new, [h, c], t, sequence_lens)
            steps.append(y)
            attended = bahdanau_attention(y, keys, memory, seen, query_weight[d], v[d])
            if attention_weight is not None:
                attended = torch.cat([y, attended], 1) @ attention_weight[d]
        ys = stack_steps(steps, h)
        ys = reverse_steps(ys, sequence_lens) if backwards else ys
        parts.append((ys, drop_empty(h, sequence_lens), drop_empty(c, sequence_lens)))
    y, h, c = (
        torch.stack(part, dim)
        for part, dim in zip(zip(*parts, strict=True), (1, 0, 0), strict=True)
    )
    return y, h, c


def gru_unit(
    hidden: Tensor,
    gates: Tensor,
    seq_lengths: Tensor,
    t: Tensor,
    *,
    drop_states: int = 0,
) -> Tensor:
    """ONNX GRUUnit of opset 1: one step, whose gates have been reset already."""
    _, update, output = gates.chunk(3, -1)
    kept = torch.sigmoid(update)
    new = kept * hidden + (1 - kept) * torch.tanh(output)
    old = torch.zeros_like(hidden) if drop_states else hidden
    return torch.where((t.reshape(()) < seq_lengths).unsqueeze(-1), new, old)
