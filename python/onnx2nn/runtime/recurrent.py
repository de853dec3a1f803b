"""LSTM, GRU and RNN with what torch's lack: activations, peepholes, lengths, clips."""

from typing import Any

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
    default_alphas = {"leakyrelu": 0.01, "hardsigmoid": 0.2, "elu": 1.0}
    for name in ("affine", "thresholdedrelu", "scaledtanh"):
        default_alphas[name] = 1.0
    default_betas = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}
    found: list[tuple[str, float, float]] = []
    for name in [n.lower() for n in names]:
        alpha, beta = default_alphas.get(name, 0.0), default_betas.get(name, 0.0)
        if name in default_alphas and left_alphas:
            alpha = left_alphas.pop(0)
        if name in default_betas and left_betas:
            beta = left_betas.pop(0)
        found.append((name, alpha, beta))
    return found


def in_order(x: Tensor, lengths: Tensor | None, direction: str, d: int) -> Tensor:
    """x [time, batch, ...] as the direction with number d goes through it."""
    backwards = direction == "reverse" or d == 1
    return reverse_steps(x, lengths) if backwards else x


def join_directions(parts: list[list[Tensor]], layout: int = 0) -> tuple[Tensor, ...]:
    """Outputs and last states of each direction, stacked; layout 1 has the batch first."""
    y = torch.stack([p[0] for p in parts], 1)
    states = [torch.stack([p[i] for p in parts]) for i in range(1, len(parts[0]))]
    if layout:
        y, states = y.permute(2, 0, 1, 3), [s.transpose(0, 1) for s in states]
    return y, *states


def of_direction(x: Tensor | None, d: int) -> Tensor | None:
    """What the direction with number d has of x, where it is given."""
    return None if x is None else x[d]


def in_directions(
    activations: list[tuple[str, float, float]], each: int
) -> list[list[tuple[str, float, float]]]:
    """The activations of each direction."""
    return [activations[i : i + each] for i in range(0, len(activations), each)]


def initial_states(
    given: list[Tensor | None], x: Tensor, directions: int, size: int, layout: int = 0
) -> list[Tensor]:
    """States [directions, batch, size], zeros where none are given; layout 1 has the batch first."""
    zeros = x.new_zeros([directions, x.shape[1], size])
    first = [s.transpose(0, 1) if s is not None and layout else s for s in given]
    return [zeros if s is None else s for s in first]


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


def added_biases(b: Tensor | None) -> Tensor | None:
    """The sum of the biases of what is fed and of the state, which lie one behind the other."""
    return None if b is None else b[: len(b) // 2] + b[len(b) // 2 :]


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
    weights: list[Tensor],
    b: Tensor | None,
    p: Tensor | None,
    lengths: Tensor | None,
    states: list[Tensor],
    activations: list[tuple[str, float, float]],
    clip: float | None,
    input_forget: bool,
) -> list[Tensor]:
    """One direction of ONNX LSTM over x [time, batch, input]."""
    w, r = weights
    h, c = states
    inputs = F.linear(x, w, added_biases(b))
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        gates = inputs[t] + F.linear(h, r)
        new = lstm_step(gates, c, p, activations, clip, input_forget)
        (h, c), y = keep_steps(new, [h, c], t, lengths)
        steps.append(y)
    return [stack_steps(steps, h), drop_empty(h, lengths), drop_empty(c, lengths)]


def lstm_directions(
    x: Tensor,
    weights: list[Tensor],
    b: Tensor | None,
    p: Tensor | None,
    lengths: Tensor | None,
    states: list[Tensor],
    direction: str,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    input_forget: bool,
) -> list[list[Tensor]]:
    """Outputs and last states of each direction of ONNX LSTM."""
    parts: list[list[Tensor]] = []
    for d, chosen in enumerate(in_directions(activations, 3)):
        ordered = in_order(x, lengths, direction, d)
        own, first = [w[d] for w in weights], [s[d] for s in states]
        biases, peepholes = of_direction(b, d), of_direction(p, d)
        about = (lengths, first, chosen, clip, input_forget)
        found = lstm_direction(ordered, own, biases, peepholes, *about)
        parts.append([in_order(found[0], lengths, direction, d), *found[1:]])
    return parts


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
    layout: int = 0,
    **options: Any,
) -> tuple[Tensor, ...]:
    """ONNX LSTM in full (Y, Y_h, Y_c), weights as in ONNX; nn.LSTM has its usual form only."""
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    x = x.transpose(0, 1) if layout else x
    states = initial_states([initial_h, initial_c], x, len(w), r.shape[2], layout)
    limits = (options.get("clip"), options.get("input_forget", False))
    run = (x, [w, r], b, p, sequence_lens, states, direction, chosen)
    return join_directions(lstm_directions(*run, *limits), layout)


def gru_step(
    fed: Tensor,
    h: Tensor,
    r: Tensor,
    b: Tensor | None,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    linear_before_reset: bool,
) -> Tensor:
    """The state after one step of ONNX GRU, from what its three gates are fed by the input."""
    gate, hidden = activations
    size = r.shape[1]
    bzr, bh = (None, None) if b is None else (b[: 2 * size], b[2 * size :])
    zr, g = fed.tensor_split([2 * size], 1)
    zr = zr + F.linear(h, r[: 2 * size], bzr)
    z, reset = rnn_activation(clip_symmetric(zr, clip), *gate).chunk(2, 1)
    if linear_before_reset:
        g = g + reset * F.linear(h, r[2 * size :], bh)
    else:
        g = g + F.linear(reset * h, r[2 * size :], bh)
    g = rnn_activation(clip_symmetric(g, clip), *hidden)
    return (1 - z) * g + z * h


def gru_direction(
    x: Tensor,
    weights: list[Tensor],
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    linear_before_reset: bool,
) -> list[Tensor]:
    """One direction of ONNX GRU over x [time, batch, input]."""
    w, r = weights
    wb, rb = (None, None) if b is None else b.chunk(2)
    inputs = F.linear(x, w, wb)
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        new = gru_step(inputs[t], h, r, rb, activations, clip, linear_before_reset)
        (h,), y = keep_steps([new], [h], t, lengths)
        steps.append(y)
    return [stack_steps(steps, h), drop_empty(h, lengths)]


def gru_directions(
    x: Tensor,
    weights: list[Tensor],
    b: Tensor | None,
    lengths: Tensor | None,
    states: Tensor,
    direction: str,
    activations: list[tuple[str, float, float]],
    clip: float | None,
    linear_before_reset: bool,
) -> list[list[Tensor]]:
    """Outputs and last states of each direction of ONNX GRU."""
    parts: list[list[Tensor]] = []
    for d, chosen in enumerate(in_directions(activations, 2)):
        ordered = in_order(x, lengths, direction, d)
        own, biases = [w[d] for w in weights], of_direction(b, d)
        about = (lengths, states[d], chosen, clip, linear_before_reset)
        found = gru_direction(ordered, own, biases, *about)
        parts.append([in_order(found[0], lengths, direction, d), *found[1:]])
    return parts


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
    layout: int = 0,
    **options: Any,
) -> tuple[Tensor, ...]:
    """ONNX GRU in full (Y, Y_h), weights as in ONNX; nn.GRU has linear_before_reset only."""
    names = activations or ["Sigmoid", "Tanh"] * len(w)
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    x = x.transpose(0, 1) if layout else x
    (states,) = initial_states([initial_h], x, len(w), r.shape[2], layout)
    limits = (options.get("clip"), options.get("linear_before_reset", False))
    run = (x, [w, r], b, sequence_lens, states, direction, chosen)
    return join_directions(gru_directions(*run, *limits), layout)


def rnn_direction(
    x: Tensor,
    weights: list[Tensor],
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    activation: tuple[str, float, float],
    clip: float | None,
) -> list[Tensor]:
    """One direction of ONNX RNN over x [time, batch, input]."""
    w, r = weights
    inputs = F.linear(x, w, added_biases(b))
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        fed = clip_symmetric(inputs[t] + F.linear(h, r), clip)
        new = rnn_activation(fed, *activation)
        (h,), y = keep_steps([new], [h], t, lengths)
        steps.append(y)
    return [stack_steps(steps, h), drop_empty(h, lengths)]


def rnn_directions(
    x: Tensor,
    weights: list[Tensor],
    b: Tensor | None,
    lengths: Tensor | None,
    states: Tensor,
    direction: str,
    activations: list[tuple[str, float, float]],
    clip: float | None,
) -> list[list[Tensor]]:
    """Outputs and last states of each direction of ONNX RNN."""
    parts: list[list[Tensor]] = []
    for d, chosen in enumerate(activations):
        ordered = in_order(x, lengths, direction, d)
        own, biases = [w[d] for w in weights], of_direction(b, d)
        found = rnn_direction(ordered, own, biases, lengths, states[d], chosen, clip)
        parts.append([in_order(found[0], lengths, direction, d), *found[1:]])
    return parts


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
) -> tuple[Tensor, ...]:
    """ONNX RNN in full (Y, Y_h), weights as in ONNX; nn.RNN has two activations, no clip."""
    names = activations or ["Tanh"] * len(w)
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    x = x.transpose(0, 1) if layout else x
    (states,) = initial_states([initial_h], x, len(w), r.shape[2], layout)
    run = (x, [w, r], b, sequence_lens, states, direction, chosen)
    return join_directions(rnn_directions(*run, clip), layout)


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


def attention_lstm_direction(
    x: Tensor,
    weights: list[Tensor],
    given: list[Tensor | None],
    lengths: Tensor | None,
    states: list[Tensor],
    activations: list[tuple[str, float, float]],
    memory: Tensor,
    seen: Tensor,
    limits: tuple[float | None, bool],
) -> list[Tensor]:
    """One direction of AttnLSTM over x [time, batch, input]."""
    (w, r, query_weight, memory_weight, v), (b, p, joined) = weights, given
    (h, c), fed, keys = states, w[:, x.shape[2] :], memory @ memory_weight
    inputs = F.linear(x, w[:, : x.shape[2]], added_biases(b))
    attended = x.new_zeros([x.shape[1], fed.shape[1]])
    steps: list[Tensor] = []
    for t in range(x.shape[0]):
        gates = inputs[t] + F.linear(attended, fed) + F.linear(h, r)
        new = lstm_step(gates, c, p, activations, limits[0], limits[1])
        (h, c), y = keep_steps(new, [h, c], t, lengths)
        steps.append(y)
        attended = bahdanau_attention(y, keys, memory, seen, query_weight, v)
        attended = attended if joined is None else torch.cat([y, attended], 1) @ joined
    return [stack_steps(steps, h), drop_empty(h, lengths), drop_empty(c, lengths)]


def filled_places(memory: Tensor, lengths: Tensor | None) -> Tensor:
    """Which steps of a memory [batch, steps, depth] there are."""
    places = torch.arange(memory.shape[1], device=memory.device)
    if lengths is None:
        return torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
    return places < lengths.unsqueeze(1)


def own_weights(weights: list[Tensor | None], d: int) -> list[Tensor]:
    """What the direction with number d has of the weights that there are."""
    own: list[Tensor] = []
    for w in weights:
        if w is not None:
            own.append(w[d])
    return own


def attention_lstm_directions(
    x: Tensor,
    weights: list[Tensor | None],
    given: list[Tensor | None],
    lengths: Tensor | None,
    states: list[Tensor],
    direction: str,
    activations: list[tuple[str, float, float]],
    memory: Tensor,
    seen: Tensor,
    limits: tuple[float | None, bool],
) -> list[list[Tensor]]:
    """Outputs and last states of each direction."""
    parts: list[list[Tensor]] = []
    for d, chosen in enumerate(in_directions(activations, 3)):
        ordered, own = in_order(x, lengths, direction, d), own_weights(weights, d)
        extra, first = [of_direction(t, d) for t in given], [s[d] for s in states]
        y, h, c = attention_lstm_direction(
            ordered, own, extra, lengths, first, chosen, memory, seen, limits
        )
        parts.append([in_order(y, lengths, direction, d), h, c])
    return parts


def attention_lstm(
    x: Tensor,
    *inputs: Tensor | None,
    direction: str = "forward",
    activations: list[str] | None = None,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    clip: float | None = None,
    input_forget: int = 0,
) -> tuple[Tensor, ...]:
    """com.microsoft AttnLSTM: an LSTM each of whose steps sees what the last one attended to."""
    w, r, b, lengths, h, c, p, query_weight, memory_weight, v, memory = inputs[:11]
    memory_lengths = inputs[11] if len(inputs) > 11 else None
    joined = inputs[12] if len(inputs) > 12 else None
    assert w is not None
    assert r is not None
    assert memory is not None
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    chosen = rnn_activations(names, activation_alpha, activation_beta)
    states = initial_states([h, c], x, len(w), r.shape[2])
    weights = [w, r, query_weight, memory_weight, v]
    run = (x, weights, [b, p, joined], lengths, states, direction, chosen)
    about = (memory, filled_places(memory, memory_lengths), (clip, bool(input_forget)))
    return join_directions(attention_lstm_directions(*run, *about))


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
