"""com.microsoft: attention, rotary embeddings, embeddings and experts."""

from typing import Any

import numpy as np

from .one_node import Case, Rng, Spec, f32, scalar, specification

SPECS: list[Spec] = []
spec = specification(SPECS, "com.microsoft")


def ints(*values: int) -> Any:
    return np.array(values, np.int32)


# ---------------------------------------------------------------- GroupQueryAttention


@spec(
    "GroupQueryAttention",
    stage=["prompt", "decode", "chunk", "ragged prompt", "ragged decode", "room"],
    heads=[(4, 2), (4, 4), (4, 1), (6, 2)],
    size=[8, 16, 32],
    packed=[False, True],
    rotary=[None, "halves", "interleaved", "partial"],
    positions=[False, False, True],
    window=[-1, -1, 1, 3],
    softcap=[0.0, 0.0, 2.0],
    smooth=[-1, 0, 1],
    sink=[False, False, True],
    bias=[None, None, (1, 1), (2, 1), (1, 4), (2, 4)],
    norm=[False, False, True],
    scale=[None, 0.3],
    causal=[1, 1, 1, 0],
    scores=[0, 0, 1, 2],
    half=[False, False, True],
    cache=["float", "float", "float", "int8", "int8 channel", "int4", "int4 channel"],
    chunk_lengths=[False, False, True],
    dynamic=[False, True],
)
def group_query_attention(
    rng: Rng,
    *,
    stage: str,
    heads: tuple[int, int],
    size: int,
    packed: bool,
    rotary: str | None,
    positions: bool,
    window: int,
    softcap: float,
    smooth: int,
    sink: bool,
    bias: tuple[int, int] | None,
    norm: bool,
    scale: float | None,
    causal: int,
    scores: int,
    half: bool,
    cache: str,
    chunk_lengths: bool,
    dynamic: bool,
) -> Case | None:
    q_heads, kv_heads = heads
    if window > 0 and not causal:
        return None
    batch = 1 if stage == "chunk" else 2
    length, past = {"chunk": (3, 5), "decode": (1, 5), "ragged decode": (1, 5), "room": (1, 5)}.get(
        stage, (6, 0)
    )
    total = length + past
    filled = np.full(batch, total)
    if stage.startswith("ragged"):
        filled[1] -= 2
    capacity = total + 4 if stage == "room" else past
    dtype = np.float16 if half else np.float32
    if rotary == "partial" and size < 32:
        return None
    if half and (cache != "float" or norm):
        return None  # one more rounding of theirs decides between two steps of the cache
    if chunk_lengths and (not causal or cache != "float" or stage != "room"):
        return None

    def real(*shape: int) -> Any:
        return rng.normal(size=shape).astype(dtype)

    q, k, v = (real(batch, length, h * size) for h in (q_heads, kv_heads, kv_heads))
    first = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
    states: list[Any] = [None, None]
    scales: list[Any] = [None, None]
    attrs: dict[str, Any] = {"num_heads": q_heads, "kv_num_heads": kv_heads, "causal": causal}
    if cache == "float":
        if past or stage == "room":
            states = [real(batch, kv_heads, capacity, size) for _ in range(2)]
    else:
        bits = 4 if "int4" in cache else 8
        channel = "channel" in cache
        width = size // 2 if bits == 4 else size
        kind = np.uint8 if bits == 4 else np.int8
        low, high = (0, 256) if bits == 4 else (-128, 128)
        shape = (batch, kv_heads, capacity, width)
        states = [rng.integers(low, high, shape).astype(kind) for _ in range(2)]
        at = (1, kv_heads, 1, size) if channel else (1,)
        top = 7 if bits == 4 else 127
        scales = [(rng.uniform(0.5, 4, at) / top).astype(np.float32) for _ in range(2)]
        attrs["k_quant_type"] = attrs["v_quant_type"] = "PER_CHANNEL" if channel else "PER_TENSOR"
        attrs["kv_cache_bit_width"] = bits
    tables: list[Any] = [None, None]
    if rotary:
        half_width = 8 if rotary == "partial" else size // 2
        if rotary == "halves" and size % 16:
            return None
        if rotary == "interleaved" and size % 16:
            return None
        tables = [real(20, half_width), real(20, half_width)]
        attrs["do_rotary"] = 1
        attrs["rotary_interleaved"] = int(rotary == "interleaved")
    ids = None
    if positions and rotary:
        starts = np.zeros(batch, np.int64) if past == 0 else filled - length
        ids = (starts[:, None] + np.arange(length)).astype(np.int64)
        if past:
            ids = ids + 2
    added = real(bias[0] if batch > 1 else 1, bias[1], length, total) if bias else None
    if added is not None and bias is not None and bias[1] == 4:
        added = real(bias[0] if batch > 1 else 1, q_heads, length, total)
    norms = [real(size), real(size)] if norm else [None, None]
    counts = np.array([length, 0], np.int32) if chunk_lengths else None
    for name, value, plain in [
        ("local_window_size", window, -1),
        ("softcap", softcap, 0.0),
        ("smooth_softmax", smooth, -1),
        ("scale", scale, None),
        ("qk_output", scores, 0),
    ]:
        if value != plain:
            attrs[name] = value
    x = [
        *first,
        *states,
        (filled - 1).astype(np.int32),
        scalar(total, np.int32),
        *tables,
        ids,
        added,
        real(q_heads) if sink else None,
        *scales,
        *norms,
        counts,
    ]

    def trim(i: int, y: Any) -> Any:
        y = np.array(y)
        for b in range(batch):
            valid = int(filled[b])
            if i in (1, 2):
                y[b, :, valid:] = 0
            elif stage == "ragged prompt":
                if i == 0:
                    y[b, valid:] = 0
                else:
                    y[b, :, valid:] = 0
            if i == 3 and (y.shape[-1] > valid):
                y[b, ..., valid:] = 0
            if counts is not None and counts[b] == 0 and i in (0, 3):
                y[b] = 0
        return y

    instead = None
    if norm:
        # ONNX Runtime's CPU kernel has no norms: what it is given is normalised beforehand.
        def normalised(part: Any, weight: Any) -> Any:
            heads_of = part.reshape(batch, length, -1, size).astype(np.float64)
            root = np.sqrt((heads_of**2).mean(-1, keepdims=True) + 1e-6)
            return (heads_of / root * weight).reshape(part.shape).astype(dtype)

        parts = [normalised(q, norms[0]), normalised(k, norms[1]), v]
        instead = [*parts, *x[3:14]]
        if counts is not None:
            instead += [None, None, counts]
    shared = {1: 3, 2: 4} if stage == "room" else None
    loose = 1e-2 if half else 1e-4
    return Case(
        x,
        attrs,
        outputs=4 if scores else 3,
        dynamic=dynamic,
        rtol=loose,
        atol=2e-2 if half else 1e-5,
        steps=1,
        trim=trim,
        shared=shared,
        instead=instead,
    )


@spec(
    "GroupQueryAttention",
    capacity=[4, 5, 6],
    total=[1, 3, 5, 9, 12],
    length=[1, 2, 4],
    rotary=[0, 1],
    bias=[False, True],
    cache=["float", "int8"],
)
def sliding_window_cache(
    rng: Rng, *, capacity: int, total: int, length: int, rotary: int, bias: bool, cache: str
) -> Case | None:
    window, heads, kv_heads, size, batch = 4, 4, 2, 16, 1
    if length > total:
        return None
    past = total - length
    gap = capacity - window + 1

    def resident(t: int) -> int:
        return t if t <= capacity else t - gap * -(-(t - capacity) // gap)

    attrs: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "local_window_size": window,
        "sliding_window_cache": 1,
        "do_rotary": rotary,
    }
    scales: list[Any] = [None, None]
    shape = (batch, kv_heads, capacity, size)
    states = [f32(rng, *shape), f32(rng, *shape)]
    if cache == "int8":
        states = [rng.integers(-128, 128, shape).astype(np.int8) for _ in range(2)]
        scales = [np.array([0.02], np.float32), np.array([0.03], np.float32)]
        attrs |= {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
        attrs["kv_cache_bit_width"] = 8
    for state in states:
        state[:, :, resident(past) :] = 0
    x = [
        f32(rng, batch, length, heads * size),
        f32(rng, batch, length, kv_heads * size),
        f32(rng, batch, length, kv_heads * size),
        *states,
        ints(total - 1),
        scalar(total, np.int32),
        *([f32(rng, 20, 8), f32(rng, 20, 8)] if rotary else [None, None]),
        None,
        f32(rng, 1, 1, length, total) if bias else None,
        None,
        *scales,
    ]

    def trim(i: int, y: Any) -> Any:
        return y if i == 0 else np.array(y)[:, :, : resident(total)]

    return Case(x, attrs, outputs=3, trim=trim, steps=1)


# ---------------------------------------------------------------- MultiHeadAttention


def padding_mask(rng: Rng, kind: str, batch: int, length: int, keys: int, past: int) -> Any:
    """One of the kinds of integer mask that tell padding from keys."""
    total = past + keys
    lengths = rng.integers(1, total + 1, batch)
    if kind == "none":
        return None
    if kind == "lengths":
        return lengths.astype(np.int32)
    if kind == "ends and starts":
        return np.concatenate([lengths, rng.integers(0, 2, batch) * (lengths > 1)]).astype(np.int32)
    if kind == "keys":
        mask = (np.arange(total) < lengths[:, None]).astype(np.int32)
        return mask
    if kind == "scattered keys":
        mask = rng.integers(0, 2, (batch, total)).astype(np.int32)
        mask[:, 0] = 1
        return mask
    if kind == "nothing":
        mask = np.ones((batch, total), np.int32)
        mask[-1] = 0
        return mask
    mask = rng.integers(0, 2, (batch, length, total)).astype(np.int32)
    mask[..., 0] = 1
    return mask


@spec(
    "MultiHeadAttention",
    form=["plain", "packed", "packed keys", "cross", "past", "keys only", "cross past"],
    batch=[1, 2, 3],
    heads=[1, 2, 4],
    sizes=[(8, 8), (8, 4), (16, 16)],
    lengths=[(3, 3), (1, 5), (4, 2), (5, 5)],
    bias=[False, True],
    mask=["none", "lengths", "keys", "scattered keys", "queries", "nothing"],
    added=[None, None, (1, 1), (1, 4), (2, 1), (2, 4)],
    causal=[0, 0, 1],
    scale=[None, 0.2],
    filler=[None, -500.0],
    outputs=[1, 3, 4],
    dynamic=[False, True],
)
def multi_head_attention(
    rng: Rng,
    *,
    form: str,
    batch: int,
    heads: int,
    sizes: tuple[int, int],
    lengths: tuple[int, int],
    bias: bool,
    mask: str,
    added: tuple[int, int] | None,
    causal: int,
    scale: float | None,
    filler: float | None,
    outputs: int,
    dynamic: bool,
) -> Case | None:
    size, v_size = sizes
    length, keys = lengths
    past = 4 if form in ("past", "cross past") else 0
    if form == "packed":
        keys, v_size = length, size
        x: list[Any] = [f32(rng, batch, length, heads, 3, size), None, None]
        if bias:
            return None
    elif form == "packed keys":
        v_size = size
        q = f32(rng, batch, length, heads * size)
        x = [q, f32(rng, batch, keys, heads, 2, size), None]
        if bias:
            return None
    elif form == "cross":
        q = f32(rng, batch, length, heads * size)
        x = [q, f32(rng, batch, heads, keys, size), f32(rng, batch, heads, keys, v_size)]
    else:
        keys = keys if form in ("plain", "keys only", "cross past") else length
        if past:
            v_size = size
        q = f32(rng, batch, length, heads * size)
        k, v = f32(rng, batch, keys, heads * size), f32(rng, batch, keys, heads * v_size)
        x = [q, k, v]
    total = past + keys
    x.append(f32(rng, heads * (2 * size + v_size)) if bias else None)
    x.append(padding_mask(rng, mask, batch, length, keys, past))
    extra = None
    if added:
        extra = f32(
            rng,
            batch if added[0] > 1 else 1,
            heads if added[1] > 1 else 1,
            length,
            total,
        )
    x.append(extra)
    if past:
        x += [f32(rng, batch, heads, past, size), f32(rng, batch, heads, past, v_size)]
    attrs: dict[str, Any] = {"num_heads": heads}
    for name, value in (
        ("unidirectional", causal or None),
        ("scale", scale),
        ("mask_filter_value", filler),
    ):
        if value is not None:
            attrs[name] = value
    if past and outputs == 1:
        return None  # ONNX Runtime then reads memory that it never wrote
    if form == "cross" and (v_size != size or outputs > 1):
        return None
    instead = None
    if form == "packed":
        parts = [x[0][:, :, :, i].reshape(batch, length, -1) for i in range(3)]
        instead = [*parts, *x[3:]]
    elif form == "packed keys":
        parts = [x[1][:, :, :, i].reshape(batch, keys, -1) for i in range(2)]
        instead = [x[0], *parts, *x[3:]]
    if outputs > 1 and form in ("packed", "packed keys"):
        return None
    return Case(
        x,
        attrs,
        outputs=outputs,
        dynamic=dynamic,
        instead=instead,
        rtol=2e-3 if mask == "nothing" else 1e-4,  # -10000 takes the scores' last digits
        atol=2e-3 if mask == "nothing" else 1e-5,
        out_types={3: 1},
    )


@spec(
    "Attention",
    batch=[1, 2],
    length=[1, 4],
    past=[0, 0, 3],
    heads=[1, 2],
    sizes=[None, None, (16, 16, 8), (8, 8, 16)],
    mask=["none", "lengths", "ends and starts", "keys", "scattered keys", "queries", "nothing"],
    added=[None, None, (1, 1), (2, 2), (1, 2)],
    causal=[0, 1],
    scale=[None, 0.2],
    filler=[None, -500.0],
    bias=[True, True, False],
    present=[False, True],
    constant=[False, True],
    dynamic=[False, True],
)
def attention(
    rng: Rng,
    *,
    batch: int,
    length: int,
    past: int,
    heads: int,
    sizes: tuple[int, int, int] | None,
    mask: str,
    added: tuple[int, int] | None,
    causal: int,
    scale: float | None,
    filler: float | None,
    bias: bool,
    present: bool,
    constant: bool,
    dynamic: bool,
) -> Case | None:
    if past and (sizes or added):
        return None
    widths = sizes or (16, 16, 16)
    total = past + length
    x: list[Any] = [f32(rng, batch, length, 16), f32(rng, 16, sum(widths))]
    x.append(f32(rng, sum(widths)) if bias else None)
    x.append(padding_mask(rng, mask, batch, length, length, past))
    x.append(f32(rng, 2, batch, heads, past, 16 // heads) if past else None)
    extra = None
    if added:
        shape = (batch if added[0] > 1 else 1, heads if added[1] > 1 else 1, length, total)
        extra = f32(rng, *shape)
    x.append(extra)
    attrs: dict[str, Any] = {"num_heads": heads}
    for name, value in (
        ("unidirectional", causal or None),
        ("scale", scale),
        ("mask_filter_value", filler),
        ("qkv_hidden_sizes", list(sizes) if sizes else None),
    ):
        if value is not None:
            attrs[name] = value
    if present and widths[0] != widths[2]:
        return None
    return Case(
        x,
        attrs,
        outputs=2 if present or past else 1,
        constants=[1, 2] if constant else [],
        dynamic=dynamic,
        rtol=2e-3 if mask == "nothing" else 1e-4,
        atol=2e-3 if mask == "nothing" else 1e-5,
    )


@spec(
    "QAttention",
    batch=[1, 2],
    length=[1, 4],
    past=[0, 0, 3],
    heads=[1, 2],
    mask=["none", "lengths", "ends and starts", "keys", "queries"],
    causal=[0, 1],
    filler=[None, -500.0],
    scale=[None, 0.2],
    types=[(np.uint8, np.uint8), (np.uint8, np.int8)],
    zeros=["none", "one", "columns"],
    columns=[False, True],
    constant=[False, True],
)
def quantised_attention(
    rng: Rng,
    *,
    batch: int,
    length: int,
    past: int,
    heads: int,
    mask: str,
    causal: int,
    filler: float | None,
    scale: float | None,
    types: tuple[Any, Any],
    zeros: str,
    columns: bool,
    constant: bool,
) -> Case | None:
    width = 16

    def whole(dtype: Any, *shape: int) -> Any:
        # Weights of 7 bits: 8 x 8 bits saturate in ONNX Runtime on a processor without VNNI.
        low, high = (-64, 64) if dtype == np.int8 else (0, 256)
        return rng.integers(low, high, shape).astype(dtype)

    scales = (rng.uniform(0.005, 0.02, 3 * width if columns else ())).astype(np.float32)
    x: list[Any] = [
        whole(types[0], batch, length, width),
        whole(types[1], width, 3 * width),
        f32(rng, 3 * width),
        scalar(0.02),
        scales,
        padding_mask(rng, mask, batch, length, length, past),
    ]
    if zeros == "none":
        x += [None, None]
    else:
        many = (3 * width,) if zeros == "columns" and columns else ()
        x += [scalar(7, types[0]), rng.integers(0, 9, many).astype(types[1])]
    x.append(f32(rng, 2, batch, heads, past, width // heads) if past else None)
    attrs: dict[str, Any] = {"num_heads": heads, "unidirectional": causal}
    if filler is not None:
        attrs["mask_filter_value"] = filler
    if scale is not None:
        attrs["scale"] = scale
    return Case(
        x,
        attrs,
        outputs=2 if past else 1,
        constants=[1, 7] if constant else [],
        rtol=1e-3,
        atol=1e-4,
    )


@spec(
    "DecoderMaskedMultiHeadAttention",
    form=["cross", "buffer", "buffer", "beams"],
    batch=[2, 4],
    heads=[2],
    mask=[False, True],
    added=[False, True],
    bias=[False, True],
    scale=[None, 0.3],
    outputs=[1, 3],
)
def decoder_masked(
    rng: Rng,
    *,
    form: str,
    batch: int,
    heads: int,
    mask: bool,
    added: bool,
    bias: bool,
    scale: float | None,
    outputs: int,
) -> Case | None:
    size, past, room = 8, 3, 6
    q = f32(rng, batch, 1, heads * size)
    attrs: dict[str, Any] = {"num_heads": heads}
    if scale is not None:
        attrs["scale"] = scale
    if form == "cross":
        total = past
        x: list[Any] = [q, f32(rng, batch, heads, past, size), f32(rng, batch, heads, past, size)]
        states: list[Any] = [None] * 5
        if outputs > 1 or added:
            return None
    else:
        total = past + 1
        x = [q, f32(rng, *q.shape), f32(rng, *q.shape)]
        cache = (batch, heads, room, size)
        states = [f32(rng, *cache), f32(rng, *cache), ints(past), None, None]
        attrs["past_present_share_buffer"] = 1
        if form == "beams":
            beams = 2
            states[3] = ints(beams)
            lent = rng.integers(0, beams, (batch // beams, beams, room)).astype(np.int32)
            states[4] = lent
        if outputs == 1:
            return None
    whole = np.ones((batch, total), np.int32)
    whole[:, 1] = rng.integers(0, 2, batch)
    x.append(whole if mask else None)
    x.append(f32(rng, 1, heads, 1, total) if added else None)
    x += states
    x.append(f32(rng, 3 * heads * size) if bias else None)

    def trim(i: int, y: Any) -> Any:
        first = past if form == "beams" else 0
        return np.array(y)[:, :, first : past + 1] if i in (1, 2) else y

    instead = None
    if form == "beams":
        # ONNX Runtime's kernel reads each beam's own rows: it is given those of the right beam.
        rows = np.arange(batch).reshape(-1, 1) // 2 * 2 + x[9].reshape(batch, room)
        gathered = [
            np.stack([x[i][rows[b], :, np.arange(room)] for b in range(batch)]).swapaxes(1, 2)
            for i in (5, 6)
        ]
        instead = [*x[:5], *gathered, x[7], None, None, x[10]]
    shared = {1: 5, 2: 6} if form in ("buffer", "beams") else None
    return Case(x, attrs, outputs=outputs, trim=trim, shared=shared, instead=instead)


# ---------------------------------------------------------------- RotaryEmbedding


@spec(
    "RotaryEmbedding",
    form=["rows", "heads", "partial", "partial heads", "packed batching"],
    batch=[1, 2],
    length=[1, 3],
    positions=["offset", "each"],
    interleaved=[0, 1],
    scale=[None, 1.0, 0.5],
    half=[False, True],
    constant=[False, True],
    dynamic=[False, True],
)
def rotary_embedding(
    rng: Rng,
    *,
    form: str,
    batch: int,
    length: int,
    positions: str,
    interleaved: int,
    scale: float | None,
    half: bool,
    constant: bool,
    dynamic: bool,
) -> Case | None:
    heads, size, width = 2, 8, 4
    dtype = np.float16 if half else np.float32
    attrs: dict[str, Any] = {"interleaved": interleaved}
    if scale is not None:
        attrs["scale"] = scale
    shape: tuple[int, ...] = (batch, length, heads * size)
    if "heads" in form:
        shape = (batch, heads, length, size)
    if form.startswith("partial"):
        width = 2
        attrs |= {"num_heads": heads, "rotary_embedding_dim": 2 * width}
    if form == "packed batching":
        attrs["is_packed_batching"] = 1
    steps = 6 if length == 1 else 8
    ids = rng.integers(0, steps, (batch, length))
    if positions == "offset":
        ids = np.array([2])
    x = [rng.normal(size=shape).astype(dtype), ids.astype(np.int64)]
    x += [rng.normal(size=(steps, width)).astype(dtype) for _ in range(2)]
    return Case(
        x,
        attrs,
        constants=[2, 3] if constant else [],
        dynamic=dynamic,
        rtol=5e-3 if half else 1e-4,
        atol=5e-3 if half else 1e-5,
    )


# ---------------------------------------------------------------- EmbedLayerNormalization


@spec(
    "EmbedLayerNormalization",
    batch=[1, 3],
    length=[1, 4],
    segments=[False, True],
    mask=[False, True],
    positions=[None, "each", "one"],
    kind=[0, 1],
    outputs=[2, 3],
    epsilon=[None, 1e-5],
    constant=[False, True],
    dynamic=[False, True],
)
def embed_layer_norm(
    rng: Rng,
    *,
    batch: int,
    length: int,
    segments: bool,
    mask: bool,
    positions: str | None,
    kind: int,
    outputs: int,
    epsilon: float | None,
    constant: bool,
    dynamic: bool,
) -> Case | None:
    def ids(top: int, *shape: int) -> Any:
        return rng.integers(0, top, shape).astype(np.int32)

    x = [
        ids(10, batch, length),
        ids(2, batch, length) if segments else None,
        f32(rng, 10, 8),
        f32(rng, 6, 8),
        f32(rng, 2, 8) if segments else None,
        f32(rng, 8),
        f32(rng, 8),
        ids(2, batch, length) if mask else None,
        None if positions is None else ids(6, batch if positions == "each" else 1, length),
    ]
    attrs: dict[str, Any] = {"mask_index_type": kind} if kind else {}
    if epsilon is not None:
        attrs["epsilon"] = epsilon
    if dynamic and not constant:
        return None  # ONNX Runtime wants the tables' widths
    return Case(
        x,
        attrs,
        outputs=outputs,
        constants=[2, 3, 4, 5, 6] if constant else [],
        dynamic=dynamic,
    )


# ---------------------------------------------------------------- experts


@spec(
    "MoE",
    tokens=[1, 6],
    batch=[None, 2],
    k=[1, 2, 3],
    activation=["relu", "gelu", "silu", "identity", "swiglu"],
    normalize=[0, 1],
    fusion=[1],
    limit=[None, 1.5],
    shape=[None, (1.702, 1.0)],
    bias=[False, True],
    constant=[False, True],
)
def experts(
    rng: Rng,
    *,
    tokens: int,
    batch: int | None,
    k: int,
    activation: str,
    normalize: int,
    fusion: int,
    limit: float | None,
    shape: tuple[float, float] | None,
    bias: bool,
    constant: bool,
) -> Case | None:
    count, width, inner = 4, 32, 16
    wide = 2 * inner if activation == "swiglu" else inner
    rows = tokens * (batch or 1)
    x = f32(rng, tokens, width) if batch is None else f32(rng, batch, tokens, width)
    inputs = [
        x,
        f32(rng, rows, count),
        f32(rng, count, wide, width) * 0.3,
        f32(rng, count, wide) if bias else None,
        f32(rng, count, width, inner) * 0.3,
        f32(rng, count, width) if bias else None,
    ]
    attrs: dict[str, Any] = {"k": k, "activation_type": activation}
    attrs["normalize_routing_weights"] = normalize
    if activation == "swiglu":
        attrs["swiglu_fusion"] = fusion
        if limit is not None:
            attrs["swiglu_limit"] = limit
        if shape is not None:
            attrs |= {"activation_alpha": shape[0], "activation_beta": shape[1]}
    return Case(inputs, attrs, constants=[2, 3, 4, 5] if constant else [], rtol=1e-3, atol=1e-3)


@spec(
    "QMoE",
    tokens=[1, 6],
    k=[1, 2],
    activation=["relu", "gelu", "silu", "identity", "swiglu"],
    bits=[2, 4, 8],
    block=[0, 16, 32],
    zeros=[False, True],
    bias=[False, True],
    normalize=[0, 1],
    router=[False, True],
    limit=[None, 1.5],
)
def quantised_experts(
    rng: Rng,
    *,
    tokens: int,
    k: int,
    activation: str,
    bits: int,
    block: int,
    zeros: bool,
    bias: bool,
    normalize: int,
    router: bool,
    limit: float | None,
) -> Case | None:
    count, width, inner = 4, 32, 32
    wide = 2 * inner if activation == "swiglu" else inner
    pack = 8 // bits

    def weight(rows: int, columns: int) -> list[Any]:
        values = rng.integers(0, 256, (count, rows, columns // pack)).astype(np.uint8)
        groups = columns // block if block else 0
        shape = (count, rows, groups) if block else (count, rows)
        return [values, (rng.uniform(0.5, 1, shape) * 0.5 / 2 ** (bits - 1)).astype(np.float32)]

    def zero(rows: int, columns: int) -> Any:
        if not zeros:
            return None
        groups = columns // block if block else 0
        shape = (count, rows, -(-groups // pack)) if block else (count, -(-rows // pack))
        return rng.integers(0, 256, shape).astype(np.uint8)

    x = [
        f32(rng, tokens, width),
        f32(rng, tokens, count),
        *weight(wide, width),
        f32(rng, count, wide) if bias else None,
        *weight(width, inner),
        f32(rng, count, width) if bias else None,
        None,
        None,
        None,
        zero(wide, width),
        zero(width, inner),
        None,
        rng.uniform(0.1, 1, (tokens, count)).astype(np.float32) if router else None,
    ]
    attrs: dict[str, Any] = {"k": k, "activation_type": activation, "expert_weight_bits": bits}
    attrs["normalize_routing_weights"] = normalize
    if block:
        attrs["block_size"] = block
    if activation == "swiglu":
        attrs["swiglu_fusion"] = 1
        if limit is not None:
            attrs["swiglu_limit"] = limit
    return Case(x, attrs, rtol=2e-3, atol=2e-3)


@spec(
    "SparseAttention",
    stage=["prompt", "decode"],
    rotary=[None, "halves", "interleaved"],
    packed=[False, True],
    layouts=[1, 2],
    scale=[None, 0.3],
)
def sparse_attention(
    rng: Rng,
    *,
    stage: str,
    rotary: str | None,
    packed: bool,
    layouts: int,
    scale: float | None,
) -> Case | None:
    # Lengths are equal: else ONNX Runtime's kernel reads memory that it never wrote.
    heads, kv_heads, size, block, room, batch = 4, 2, 16, 16, 64, 2
    length, past = (40, 0) if stage == "prompt" else (1, 40)
    total = length + past
    blocks = room // block
    grids = np.tril(rng.integers(0, 2, (layouts, blocks, blocks)))
    for grid in grids:
        np.fill_diagonal(grid, 1)
    rows = np.concatenate([np.zeros((layouts, 1), int), grids.sum(2).cumsum(1)], 1)
    columns = np.full((layouts, int(grids.sum((1, 2)).max())), -1)
    for i, grid in enumerate(grids):
        at = np.nonzero(grid)[1]
        columns[i, : len(at)] = at
    q, k, v = (f32(rng, batch, length, h * size) for h in (heads, kv_heads, kv_heads))
    first = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
    filled = np.full(batch, total)
    x = [
        *first,
        f32(rng, batch, kv_heads, room, size),
        f32(rng, batch, kv_heads, room, size),
        rows.astype(np.int32),
        columns.astype(np.int32),
        scalar(total, np.int32).reshape(1),
        filled.astype(np.int32),
        *([f32(rng, room, size // 2), f32(rng, room, size // 2)] if rotary else []),
    ]
    attrs: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "sparse_block_size": block,
        "do_rotary": int(rotary is not None),
        "rotary_interleaved": int(rotary == "interleaved"),
    }
    if scale is not None:
        attrs["scale"] = scale

    def trim(i: int, y: Any) -> Any:
        y = np.array(y)
        for b in range(batch):
            if i:
                y[b, :, filled[b] :] = 0
            elif stage == "prompt":
                y[b, filled[b] :] = 0
        return y

    return Case(x, attrs, outputs=3, trim=trim, shared={1: 3, 2: 4})


@spec("BifurcationDetector", guesses=[0, 1, 3, 5], sizes=[(1, 3), (2, 4), (1, 1)], seed=range(30))
def bifurcation(rng: Rng, *, guesses: int, sizes: tuple[int, int], seed: int) -> Case | None:
    source = rng.integers(0, 4, 8)
    start = int(rng.integers(0, 8))
    tokens = rng.integers(0, 4, int(rng.integers(1, 6)))
    x = [source, tokens, scalar(start, np.int64)]
    if guesses:
        x.append(rng.integers(0, 4, len(source) + 1 - start))
    attrs = {"min_ngram_size": sizes[0], "max_ngram_size": sizes[1]}
    return Case(x, attrs, outputs=2)


@spec(
    "MRotaryEmbedding",
    section=[(2, 1, 1), (4, 0, 0), (1, 2, 1), (2, 1, 1)],
    layout=[None, 0, 1],
    interleaved=[None, 0, 1],
    rank=[3, 4],
    partial=[False, True],
    scale=[None, 0.5],
    dynamic=[False, True],
)
def multimodal_rotary(
    rng: Rng,
    *,
    section: tuple[int, int, int],
    layout: int | None,
    interleaved: int | None,
    rank: int,
    partial: bool,
    scale: float | None,
    dynamic: bool,
) -> Case:
    batch, heads, length, half = 2, 3, 5, sum(section)
    size = 2 * half + (4 if partial else 0)
    x = f32(rng, batch, heads, length, size)
    if rank == 3:
        x = x.swapaxes(1, 2).reshape(batch, length, heads * size)
    angles = rng.uniform(-3, 3, (16, half))
    positions = rng.integers(0, 16, (3, batch, length))
    tables = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]
    named = (("mrope_layout", layout), ("interleaved", interleaved), ("scale", scale))
    attrs: dict[str, Any] = {"mrope_section": list(section)}
    attrs |= {k: v for k, v in named if v is not None}
    if rank == 3 or partial:
        attrs["num_heads"] = heads
    if partial:
        attrs["rotary_embedding_dim"] = 2 * half
    return Case([x, positions, *tables], attrs, constants=[2, 3], dynamic=dynamic)


# ---------------------------------------------------------------- packed sequences, position biases


def attended(q: Any, k: Any, v: Any, heads: int, scale: float | None, added: Any) -> Any:
    """Attention of one sequence [length, width], in float64."""
    parts = [x.astype(np.float64).reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v)]
    scores = parts[0] @ parts[1].transpose(0, 2, 1)
    scores = scores * (scale or parts[0].shape[-1] ** -0.5) + added
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = (weights / weights.sum(-1, keepdims=True)) @ parts[2]
    return y.transpose(1, 0, 2).reshape(len(q), -1)


@spec(
    "PackedAttention",
    "PackedMultiHeadAttention",
    lengths=[(1, 2, 4), (3,), (2, 2)],
    form=["apart", "together"],
    value=[4, 6],
    bias=[False, True],
    scale=[None, 0.3],
    added=[None, (1, 1), (0, 2)],
)
def packed_attention(
    rng: Rng,
    *,
    op_type: str,
    lengths: tuple[int, ...],
    form: str,
    value: int,
    bias: bool,
    scale: float | None,
    added: tuple[int, int] | None,
) -> Case | None:
    heads, width, batch, longest = 2, 4, len(lengths), max(lengths)
    together = op_type == "PackedMultiHeadAttention" and form == "together"
    if together and value != width:
        return None
    bounds = np.cumsum([0, *lengths]).astype(np.int32)
    tokens = int(bounds[-1])
    real = [b * longest + i for b, n in enumerate(lengths) for i in range(n)]
    padding = [p for p in range(batch * longest) if p not in real]
    offset = np.array(real + padding, np.int32).reshape(batch, longest)
    q, k, v = f32(rng, tokens, width), f32(rng, tokens, width), f32(rng, tokens, value)
    vector = f32(rng, 2 * width + value)
    attrs: dict[str, Any] = {"num_heads": heads}
    extra = None
    if added is not None:
        extra = f32(rng, added[0] or batch, added[1], longest, longest)
    if op_type == "PackedAttention":
        x, weights = f32(rng, tokens, 3), f32(rng, 3, 2 * width + value)
        inputs: list[Any] = [x, weights, vector, offset, bounds, extra]
        projected = x @ weights + vector
        if value != width:
            attrs["qkv_hidden_sizes"] = [width, width, value]
        q, k, v = np.split(projected, [width, 2 * width], -1)
    else:
        inputs = [q, k, v, vector if bias else None, offset, bounds, extra]
        if together:
            stacked = np.stack([x.reshape(tokens, heads, -1) for x in (q, k, v)], 2)
            inputs[:3] = [stacked, None, None]
        if bias:
            parts = np.split(vector, [width, 2 * width])
            q, k, v = (x + part for x, part in zip((q, k, v), parts, strict=True))
    if scale is not None:
        attrs["scale"] = scale
    rows = []
    for b, n in enumerate(lengths):
        at = slice(bounds[b], bounds[b + 1])
        more = 0 if extra is None else extra[b % len(extra), :, :n, :n]
        rows.append(attended(q[at], k[at], v[at], heads, scale, more))
    return Case(inputs, attrs, expected=[np.concatenate(rows).astype(np.float32)])


@spec("GemmaRotaryEmbedding", batch=[1, 2], heads=[1, 3])
def gemma_rotary_embedding(rng: Rng, *, batch: int, heads: int) -> Case:
    emb = f32(rng, batch, 5, 4) * 3
    parts = [f32(rng, batch, heads, 5, 4).astype(np.float16) for _ in range(4)]
    sin, cos = np.sin(emb)[:, None], np.cos(emb)[:, None]
    q, q_rot, k, k_rot = (part.astype(np.float32) for part in parts)
    wanted = [q * cos + q_rot * sin, k * cos + k_rot * sin]
    expected = [y.astype(np.float16) for y in wanted]
    return Case([emb, *parts], outputs=2, expected=expected, rtol=1e-2, atol=1e-2)


@spec(
    "RelativePositionBias",
    lengths=[(6, 6), (70, 70), (200, 200), (3, 40)],
    both=[None, 0, 1],
    buckets=[32, 16],
    distance=[128, 40],
    constant=[False, True],
)
def relative_position_bias(
    rng: Rng,
    *,
    lengths: tuple[int, int],
    both: int | None,
    buckets: int,
    distance: int,
    constant: bool,
) -> Case:
    table = f32(rng, buckets, 3)
    count = buckets // 2 if both else buckets
    exact = count // 2
    places = np.zeros(lengths, np.int64)
    for i, j in np.ndindex(lengths):
        first = count if both and j > i else 0
        away = abs(j - i) if both else max(i - j, 0)
        if away >= exact:
            share = np.log(np.float32(away / exact)) / np.log(np.float32(distance / exact))
            away = min(exact + int(np.float32(share) * (count - exact)), count - 1)
        places[i, j] = first + away
    # The numbers lie head by head.
    expected = [table.reshape(3, buckets)[:, places][None]]
    attrs = {"max_distance": distance} | ({} if both is None else {"is_bidirectional": both})
    x = [table, *(np.array([n]) for n in lengths)]
    return Case(x, attrs, constants=[1, 2] if constant else [], expected=expected)


@spec("GatedRelativePositionBias", heads=[1, 2], width=[2, 8])
def gated_relative_position_bias(rng: Rng, *, heads: int, width: int) -> Case:
    x = [f32(rng, 2, 5, heads * 4), f32(rng, heads * 4), f32(rng, 1, heads, 5, 5)]
    x += [f32(rng, 4, width), f32(rng, width), f32(rng, 1, heads, 1, 1)]
    q = (x[0] + x[1]).reshape(2, 5, heads, 4).transpose(0, 2, 1, 3)
    gates = (q @ x[3] + x[4]).reshape(2, heads, 5, 2, width // 2).sum(-1)
    update, reset = np.split(1 / (1 + np.exp(-gates)), 2, -1)
    expected = [(update * (reset * x[5] - 1) + 2) * x[2]]
    return Case(x, {"num_heads": heads}, expected=expected)
