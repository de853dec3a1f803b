"""Weights of a few bits that lie several in a byte, in blocks with scales of their own."""

import torch
import torch.nn.functional as F
from torch import Tensor


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """Unsigned values of `bits` bits from bytes, lowest bits first, along the last axis."""
    if bits == 8:
        return packed
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)


def nbits_zeros(
    zero_points: Tensor | None, scales: Tensor, rows: int, blocks: int, bits: int
) -> Tensor:
    """Zero points [rows, blocks]: real, packed as the weight is, or the middle."""
    if zero_points is None:
        return scales.new_full((rows, blocks), 1 << (bits - 1))
    if zero_points.dtype.is_floating_point:
        return zero_points.reshape(rows, blocks)
    return unpack_bits(zero_points.reshape(rows, -1), bits)[:, :blocks].to(scales.dtype)


def nbits_weight(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    g_idx: Tensor | None,
    rows: int,
    columns: int,
    bits: int,
    block_size: int,
) -> Tensor:
    """The real [rows, columns] weight of com.microsoft MatMulNBits from its packed blocks."""
    blocks = -(-columns // block_size)
    values = unpack_bits(packed.reshape(rows, blocks, -1), bits).to(scales.dtype)
    zeros = nbits_zeros(zero_points, scales, rows, blocks, bits)
    scales = scales.reshape(rows, blocks)
    if g_idx is not None:
        # Each column names its own group.
        group = g_idx[:columns].to(torch.int64)
        flat = values.reshape(rows, -1)[:, :columns]
        return (flat - zeros[:, group]) * scales[:, group]
    real = (values - zeros.unsqueeze(-1)) * scales.unsqueeze(-1)
    return real.reshape(rows, -1)[:, :columns]


def rounded_rows(a: Tensor, block_size: int) -> Tensor:
    """Each block of a row in 127 steps up to its largest magnitude, as ONNX Runtime rounds it."""
    k = a.shape[-1]
    padded = F.pad(a.float(), (0, -k % block_size))
    blocks = padded.reshape(*a.shape[:-1], -(-k // block_size), block_size)
    step = blocks.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(step > 0, blocks * step.reciprocal(), 0)
    rounded = steps + (steps.round() - steps).detach()
    return (rounded * step).flatten(-2)[..., :k].to(a.dtype)


def matmul_nbits(
    a: Tensor,
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    g_idx: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
) -> Tensor:
    """com.microsoft MatMulNBits: torch has no product with such packed weights."""
    weight = nbits_weight(packed, scales, zero_points, g_idx, N, K, bits, block_size)
    if accuracy_level == 4:
        bias = bias if bias is None else bias.float()
        return F.linear(rounded_rows(a.float(), block_size), weight.float(), bias).to(
            a.dtype
        )
    return F.linear(a, weight.to(a.dtype), bias)


def bnb4_values(quant_type: int) -> list[float]:
    """What the sixteen codes of bitsandbytes' FP4 (0) or NF4 (1) stand for."""
    if quant_type == 0:
        half = [0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4]
        return half + [-v for v in half]
    return [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
        *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
        *(0.7229568362236023, 1.0),
    ]


def matmul_bnb4(
    a: Tensor,
    packed: Tensor,
    absmax: Tensor,
    *,
    K: int,
    N: int,
    block_size: int,
    quant_type: int,
    transB: int = 1,
) -> Tensor:
    """com.microsoft MatMulBnb4: torch has no product with weights in FP4 or NF4.

    Blocks of the flat weight, the high half of a byte first, are fractions of their largest value.
    """
    table = torch.tensor(bnb4_values(quant_type), dtype=a.dtype, device=a.device)
    codes = torch.stack([packed >> 4, packed & 15], -1).flatten()[: N * K]
    largest = absmax.flatten().repeat_interleave(block_size)[: N * K]
    weight = table[codes.to(torch.int64)] * largest
    return a @ (weight.reshape(N, K).t() if transB else weight.reshape(K, N))


def block_zeros(
    zero_points: Tensor | None, bits: int, packed: bool, like: Tensor
) -> Tensor:
    """Zero points of blocks; of packed values the middle, of others 0, where there are none."""
    if zero_points is None:
        return torch.full_like(like, float(1 << (bits - 1)) if packed else 0.0)
    if packed:
        zero_points = unpack_bits(zero_points, bits).narrow(-1, 0, like.shape[-1])
    return zero_points.to(like.dtype)


def gather_block_quantized(
    data: Tensor,
    indices: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    *,
    gather_axis: int = 0,
    quantize_axis: int = 1,
    block_size: int = 128,
    bits: int = 4,
    packed: bool = False,
) -> Tensor:
    """com.microsoft GatherBlockQuantized: rows of a table; `packed` bytes hold several values."""
    gather_axis, quantize_axis = gather_axis % data.dim(), quantize_axis % data.dim()
    index = indices.to(torch.int64)
    index = torch.where(index < 0, index + data.shape[gather_axis], index).flatten()
    values, scale = (t.index_select(gather_axis, index) for t in (data, scales))
    if zero_points is not None:
        zero_points = zero_points.index_select(gather_axis, index)
    zeros = block_zeros(zero_points, bits, packed, scale)
    values = unpack_bits(values, bits) if packed else values
    y = real_blocks(values, scale, zeros, quantize_axis, block_size)
    return y.reshape(y.shape[:gather_axis] + indices.shape + y.shape[gather_axis + 1 :])


def real_blocks(
    data: Tensor,
    scale: Tensor,
    zeros: Tensor,
    axis: int,
    block_size: int,
) -> Tensor:
    """Real values of integers, scales of their blocks along an axis, and zero points."""
    size = data.shape[axis]
    spread = zeros.repeat_interleave(block_size, dim=axis).narrow(axis, 0, size)
    factor = scale.repeat_interleave(block_size, dim=axis).narrow(axis, 0, size)
    return (data.to(scale.dtype) - spread) * factor


def matmul_fp_q4(
    a: Tensor, packed: Tensor, *, K: int, N: int, blk_quant_type: int = 1
) -> Tensor:
    """com.microsoft MatMulFpQ4: weights in blocks of a column, scale, zero point and 32 halves."""
    head = 5 if blk_quant_type else 4
    blocks = packed.reshape(N, -1, head + 16)
    scales = blocks[..., :4].contiguous().view(torch.float32)
    zeros = blocks[..., 4:head].float() if blk_quant_type else torch.tensor(8.0)
    codes = blocks[..., head:]
    values = torch.cat([codes & 15, codes >> 4], -1).float()
    return a @ ((values - zeros) * scales).flatten(1)[:, :K].t()


def packed_rows(rows: Tensor, packed_type: int) -> Tensor:
    """Rows of real numbers from bytes in blocks, as GGML packs them."""
    if packed_type in (0, 1, 30):
        kinds = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
        dtype = kinds[packed_type]
        return rows.contiguous().view(dtype).float()
    size = {2: 18, 6: 22, 8: 34, 13: 176, 14: 210, 20: 18, 23: 136}[packed_type]
    b = torch.unflatten(rows, -1, (-1, size))
    # K-quants of six bits have their scale at the end of a block.
    at = 208 if packed_type == 14 else 0
    scale = b[..., at : at + 2].contiguous().view(torch.float16).float()
    if packed_type == 8:
        return (b[..., 2:].view(torch.int8).float() * scale).flatten(-2)
    if packed_type == 23:
        return uneven_blocks(b, scale)
    if packed_type == 14:
        return six_bit_blocks(b, scale)
    if packed_type == 13:
        return five_bit_blocks(b, scale)
    return nibble_blocks(b, scale, packed_type)


def nibble_blocks(b: Tensor, scale: Tensor, packed_type: int) -> Tensor:
    """Blocks of 32 with one scale: Q4_0 (2), Q5_0 (6), whose fifth bits lie apart, IQ4_NL (20)."""
    codes = b[..., -16:]
    codes = torch.cat([codes & 15, codes >> 4], -1).to(torch.int32)
    if packed_type == 20:
        return (uneven_levels(codes) * scale).flatten(-2)
    if packed_type == 6:
        codes = codes | (unpack_bits(b[..., 2:6], 1).to(torch.int32) << 4)
    return ((codes - (16 if packed_type == 6 else 8)) * scale).flatten(-2)


def uneven_blocks(b: Tensor, scale: Tensor) -> Tensor:
    """Blocks of 256 on uneven levels with eight scales of six bits: IQ4_XS."""
    low, high = unpack_bits(b[..., 4:8], 4), unpack_bits(b[..., 2:4], 2)
    steps = (low.to(torch.int32) | (high.to(torch.int32) << 4)) - 32
    codes = torch.unflatten(b[..., 8:], -1, (8, 16))
    levels = uneven_levels(torch.cat([codes & 15, codes >> 4], -1).to(torch.int32))
    return (levels * (steps * scale).unsqueeze(-1)).flatten(-3)


def six_bit_blocks(b: Tensor, scale: Tensor) -> Tensor:
    """Blocks of 256 in six bits, with a scale of one byte for sixteen each: Q6_K."""
    low = torch.unflatten(b[..., :128], -1, (2, 2, 32))
    low = torch.cat([low & 15, low >> 4], -2)
    high = torch.unflatten(b[..., 128:192], -1, (2, 1, 32))
    high = torch.cat([(high >> shift) & 3 for shift in (0, 2, 4, 6)], -2)
    codes = (low | (high << 4)).to(torch.int32).flatten(-3) - 32
    steps = b[..., 192:208].view(torch.int8).float() * scale
    return (codes * steps.repeat_interleave(16, -1)).flatten(-2)


def five_bit_blocks(b: Tensor, scale: Tensor) -> Tensor:
    """Blocks of 256 in five bits, with a scale and a shift of six bits for 32 each: Q5_K."""
    least = b[..., 2:4].contiguous().view(torch.float16).float()
    first, second, third = b[..., 4:8], b[..., 8:12], b[..., 12:16]
    steps = torch.cat([first & 63, (third & 15) | (first >> 6 << 4)], -1)
    shifts = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], -1)
    low = torch.unflatten(b[..., 48:], -1, (4, 1, 32))
    low = torch.cat([low & 15, low >> 4], -2).flatten(-3, -2)
    place = torch.arange(8, device=b.device, dtype=torch.uint8).unsqueeze(-1)
    high = (b[..., 16:48].unsqueeze(-2) >> place) & 1
    codes = (low | (high << 4)).float()
    y = codes * (steps * scale).unsqueeze(-1) - (shifts * least).unsqueeze(-1)
    return y.flatten(-3)


def uneven_levels(codes: Tensor) -> Tensor:
    """The sixteen levels of GGML's IQ4 types."""
    levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    return torch.tensor(levels, dtype=torch.float32, device=codes.device)[codes]


def gather_packed(
    data: Tensor,
    indices: Tensor,
    *,
    packed_type: int,
    K: int,
    output_dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """com.microsoft GatherPacked: rows of a packed table; no such row means the first."""
    index = torch.where((indices < 0) | (indices >= data.shape[0]), 0, indices)
    return packed_rows(data[index.long()], packed_type).to(output_dtype)
