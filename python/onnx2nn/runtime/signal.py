"""Fourier transforms, windows and filter banks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def interleaved_to_complex(x: Tensor) -> Tensor:
    """ONNX's [..., 1] (real) or [..., 2] (complex) as a real or complex tensor."""
    if x.shape[-1] == 1:
        return x.squeeze(-1)
    return torch.complex(x[..., 0].contiguous(), x[..., 1].contiguous())


def transformed(x: Tensor, length: int | None, axis: int, onesided: bool) -> Tensor:
    """The Fourier transform, or its first half."""
    if onesided and not x.is_complex():
        half: Tensor = torch.fft.rfft(x, length, axis)
        return half
    y: Tensor = torch.fft.fft(x, length, axis)
    return y.narrow(axis, 0, y.shape[axis] // 2 + 1) if onesided else y


def dft(
    x: Tensor,
    dft_length: int | None = None,
    *,
    axis: int = -2,
    inverse: bool = False,
    onesided: bool = False,
) -> Tensor:
    """ONNX DFT with its last axis for real and imaginary parts (opset 17: axis is 1 if absent)."""
    axis %= x.dim()
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    signal = interleaved_to_complex(wide)
    if inverse and onesided:
        length = 2 * (signal.shape[axis] - 1) if dft_length is None else dft_length
        real: Tensor = torch.fft.irfft(signal, length, axis)
        return real.unsqueeze(-1).to(x.dtype)
    if inverse:
        y = torch.fft.ifft(signal, dft_length, axis)
    else:
        y = transformed(signal, dft_length, axis, onesided)
    return torch.view_as_real(y.resolve_conj()).to(x.dtype)


def stft(
    signal: Tensor,
    frame_step: int,
    window: Tensor | None = None,
    frame_length: int | None = None,
    *,
    onesided: bool = True,
) -> Tensor:
    """ONNX STFT: [batch, frames, bins, 2] from [batch, time, 1 or 2], axes torch.stft lacks."""
    if frame_length is None:
        frame_length = signal.shape[1] if window is None else window.shape[0]
    wide = signal if signal.dtype == torch.float64 else signal.to(torch.float32)
    frames = interleaved_to_complex(wide).unfold(1, frame_length, frame_step)
    if window is not None:
        frames = frames * window.to(wide.dtype)
    if onesided and not frames.is_complex():
        y = torch.fft.rfft(frames)
    else:
        y = torch.fft.fft(frames)
        if onesided:
            y = y[..., : frame_length // 2 + 1]
    return torch.view_as_real(y).to(signal.dtype)


def mel_bins(
    count: int, low: float, high: float, device: torch.device | None
) -> Tensor:
    """Frequencies that lie evenly on the mel scale from `low` to `high` hertz."""
    least, most = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
    mels = torch.arange(count, dtype=torch.float64, device=device)
    return 700 * (10 ** ((mels * ((most - least) / count) + least) / 2595) - 1)


def mel_weight_matrix(
    num_mel_bins: int,
    dft_length: int,
    sample_rate: int,
    lower_edge_hertz: float,
    upper_edge_hertz: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """ONNX MelWeightMatrix [dft_length // 2 + 1, num_mel_bins]: triangles even on the mel scale."""
    hertz = mel_bins(num_mel_bins + 2, lower_edge_hertz, upper_edge_hertz, device)
    bins = ((dft_length + 1) * hertz / sample_rate).floor()
    left, center, right = bins[:-2], bins[1:-1], bins[2:]
    at = torch.arange(dft_length // 2 + 1, dtype=torch.float64, device=device)
    at = at.unsqueeze(1)
    # A triangle without a left side is 1 at its centre, and so is every other.
    rising = (at - left) / (center - left).clamp(min=1)
    falling = (right - at) / (right - center).clamp(min=1)
    matrix = torch.where(at < center, rising, torch.where(at > center, falling, 1.0))
    return matrix.clamp(min=0).to(dtype)


def cosine_window(
    size: int,
    coefficients: list[float],
    *,
    periodic: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """ONNX's windows at any size: torch makes a window of one element 1, not the curve's value."""
    steps = size if periodic else size - 1
    if not steps:
        return torch.full([size], torch.nan, device=device).to(dtype)
    places = torch.arange(size, dtype=torch.float64, device=device) / steps
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    first, second = ((k * math.pi * places).cos().to(wide) for k in (2, 4))
    a, b, c = coefficients
    return (a - b * first + c * second).to(dtype)


def real_fft(x: Tensor, *, signal_ndim: int = 1) -> Tensor:
    """com.microsoft Rfft: one-sided, the parts in a last axis; halves in float32."""
    axes = list(range(-signal_ndim, 0))
    wide = x.float() if x.dtype == torch.float16 else x
    return torch.view_as_real(torch.fft.rfftn(wide, dim=axes)).to(x.dtype)


def inverse_real_fft(x: Tensor, *, signal_ndim: int) -> Tensor:
    """com.microsoft Irfft: the inverse of Rfft, of an even length."""
    axes = list(range(-signal_ndim, 0))
    wide = x.float() if x.dtype == torch.float16 else x
    y: Tensor = torch.fft.irfftn(torch.view_as_complex(wide.contiguous()), dim=axes)
    return y.to(x.dtype)


def path_costs(x: Tensor) -> Tensor:
    """From where the cheapest path comes to each cell: 0 both before, 1 the row's, 2 the column's."""
    rows, columns = x.shape
    cost = F.pad(x, (1, 0, 1, 0), value=torch.inf)
    cost[0, 0] = 0
    steps = torch.full((rows + 1, columns + 1), 2, device=x.device)
    steps[1:, 0] = 1
    # All cells of an antidiagonal depend on the two before alone.
    for total in range(2, rows + columns + 1):
        first, last = max(1, total - columns), min(rows, total - 1)
        i = torch.arange(first, last + 1, device=x.device)
        j = total - i
        before = torch.stack([cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]])
        both, down, right = before[0], before[1], before[2]
        step = torch.where((down < both) & (down < right), 1, 2)
        step = torch.where((both < down) & (both < right), 0, step)
        cost[i, j] = cost[i, j] + before.gather(0, step.unsqueeze(0)).squeeze(0)
        steps[i, j] = step
    return steps


def dynamic_time_warping(x: Tensor) -> Tensor:
    """com.microsoft DynamicTimeWarping: the cheapest path through costs, step by step on the host."""
    rows, columns = x.shape[-2:]
    taken = [row.tolist() for row in path_costs(x.reshape(rows, columns)).unbind()]
    place = (rows, columns)
    path: list[list[int]] = []
    while place != (0, 0):
        path.append([place[0] - 1, place[1] - 1])
        step = taken[place[0]][place[1]]
        place = (place[0] - int(step != 2), place[1] - int(step != 1))
    return torch.tensor(path[::-1], dtype=torch.int32, device=x.device).t().contiguous()
