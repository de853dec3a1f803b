"""Attention helpers against ONNX's node cases and ONNX Runtime."""

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.case.test_case import TestCase
from onnx.reference import ReferenceEvaluator

from int8_weights import int8_weights
from onnx2nn.runtime import attention, grouped, multi_head, rotary, transformer
from onnx2nn.runtime import experts as moe

from . import ort_nodes as ort
from . import tensor_cases as tc

PRECISION = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def call_attention(v: list[Any], a: dict[str, Any], scores: bool) -> Any:
    if "softmax_precision" in a:
        a["softmax_precision"] = PRECISION[a["softmax_precision"]]
    return attention.onnx_attention(*v, qk_matmul_output=scores, **a)


# The reference sums bfloat16 one by one and rounds each time; torch rounds once, which is nearer.
ROUNDED = [
    "test_attention_4d_causal_bf16",
    "test_attention_4d_padded_kv_bf16",
    "test_attention_4d_causal_padded_kv_bf16",
    "test_attention_3d_causal_bf16",
]


@pytest.mark.parametrize("case", **tc.named(tc.cases_of("Attention")))
def test_attention(case: TestCase) -> None:
    if case.name in ROUNDED:
        case = dataclasses.replace(case, rtol=2**-6)
    scores = len(case.model.graph.node[0].output) > 3
    tc.check(case, lambda v, a: call_attention(v, a, scores))


def graph_function(graph: onnx.GraphProto) -> Any:
    session = ReferenceEvaluator(graph, opsets={"": 25})
    name = graph.input[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def call_flex(v: list[Any], a: dict[str, Any]) -> Any:
    for name in ("score_mod", "prob_mod"):
        if name in a:
            a[name] = graph_function(a[name])
    return attention.flex_attention(*v, **a)


HELPERS = {
    "RotaryEmbedding": lambda v, a: attention.rotary_embedding(*v, **a),
    "LinearAttention": lambda v, a: attention.linear_attention(*v, **a),
    "SwiGLU": lambda v, a: attention.swish_gated_unit(*v, **a),
    "FlexAttention": call_flex,
}


@pytest.mark.parametrize("case", **tc.named(tc.cases_of(*HELPERS)))
def test_node_case(case: TestCase) -> None:
    tc.check(case, HELPERS[case.model.graph.node[0].op_type])


RNG = np.random.default_rng(11)


def f32(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def compare(
    op: str,
    helper: Any,
    inputs: list[np.ndarray | None],
    outputs: int = 1,
    tolerance: float = 1e-4,
    **attributes: Any,
) -> None:
    """A helper that returns one tensor or several, against ONNX Runtime's node."""
    wanted = ort.run_node(op, inputs, outputs, **attributes)
    got = helper(*ort.tensors(inputs), **attributes)
    for y, z in zip(got if isinstance(got, tuple) else (got,), wanted):
        ort.assert_close(y, z, tolerance)


def test_bias_split_gelu() -> None:
    x, bias = ort.tensors([f32(2, 3, 8), f32(8)])
    value, gate = (x + bias)[..., :4], (x + bias)[..., 4:]
    wanted = value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    torch.testing.assert_close(transformer.bias_split_gelu(x, bias), wanted)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("skip_shape", [(2, 3, 8), (1, 3, 8), (3, 8)])
def test_skip_norms(bias: bool, skip_shape: tuple[int, ...]) -> None:
    x, skip, gamma, beta = f32(2, 3, 8), f32(*skip_shape), f32(8), f32(8)
    b = f32(8) if bias else None
    wanted = ort.run_node("SkipLayerNormalization", [x, skip, gamma, beta, b], 4, epsilon=1e-5)
    got = transformer.skip_layer_norm(*ort.tensors([x, skip, gamma, beta, b]), epsilon=1e-5)
    ort.assert_close(got[0], wanted[0])
    ort.assert_close(got[3], wanted[3])
    wanted = ort.run_node("SkipSimplifiedLayerNormalization", [x, skip, gamma, b], 4, epsilon=1e-5)
    both = transformer.skip_simplified_layer_norm(*ort.tensors([x, skip, gamma, b]), epsilon=1e-5)
    ort.assert_close(both[0], wanted[0])
    ort.assert_close(both[3], wanted[3])


def test_simplified_layer_norm() -> None:
    x = [f32(2, 3, 8), f32(8)]
    wanted = ort.run_node("SimplifiedLayerNormalization", x, 1, "", axis=-1, epsilon=1e-5)
    ort.assert_close(transformer.simplified_layer_norm(*ort.tensors(x))[0], wanted[0])


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_embed_layer_norm(segments: bool, mask: bool, positions: bool) -> None:
    ids = RNG.integers(0, 10, (2, 4)).astype(np.int32)
    x = [
        ids,
        RNG.integers(0, 2, (2, 4)).astype(np.int32) if segments else None,
        f32(10, 8),
        f32(6, 8),
        f32(2, 8) if segments else None,
        f32(8),
        f32(8),
        np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32) if mask else None,
        RNG.integers(0, 6, (2, 4)).astype(np.int32) if positions else None,
    ]
    compare("EmbedLayerNormalization", transformer.embed_layer_norm, x, 3, epsilon=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"transA": 1, "alpha": 0.5},
        {"transB": 1},
        {"transBatchA": 1},
        {"transBatchA": 1, "transA": 1},
        {"transBatchB": 1, "transB": 1},
    ],
)
def test_fused_matmul(attributes: dict[str, Any]) -> None:
    a, b = f32(4, 4, 4, 4), f32(4, 4, 4, 4)
    compare("FusedMatMul", transformer.fused_matmul, [a, b], **attributes)


@pytest.mark.parametrize(
    ("activation", "params"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.2, 0.5]),
    ],
)
def test_fused_activation(activation: str, params: list[float]) -> None:
    x, w, b = f32(1, 3, 6, 6), f32(4, 3, 3, 3), f32(4)
    extra = {"activation_params": params} if params else {}
    wanted = ort.run_node("FusedConv", [x, w, b], activation=activation, **extra)[0]
    y = torch.nn.functional.conv2d(*ort.tensors([x, w, b]))
    ort.assert_close(transformer.fused_activation(y, activation, *params), wanted, 1e-4)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", ["offset", "each"])
@pytest.mark.parametrize("form", ["packed", "heads", "partial"])
def test_ms_rotary_embedding(interleaved: int, positions: str, form: str) -> None:
    x = f32(2, 3, 4 * 8) if form != "heads" else f32(2, 4, 3, 8)
    width = 2 if form == "partial" else 4
    ids = np.array([2]) if positions == "offset" else RNG.integers(0, 10, (2, 3))
    extra = {"num_heads": 4, "rotary_embedding_dim": 4} if form == "partial" else {}
    inputs = [x, ids.astype(np.int64), f32(10, width), f32(10, width)]
    compare("RotaryEmbedding", rotary.ms_rotary_embedding, inputs, interleaved=interleaved, **extra)


GQA_OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_rotary": 1},
    {"do_rotary": 1, "rotary_interleaved": 1},
    {"local_window_size": 3},
    {"softcap": 2.0},
    {"smooth_softmax": 1},
    {"scale": 0.3, "bias": True},
    {"softcap": 1.5, "bias": True},
    {"sink": True},
    {"packed": True, "do_rotary": 1},
    {"positions": True, "do_rotary": 1},
    {"qk_output": 1},
    {"qk_output": 2},
    {"qk_output": 1, "softcap": 1.5, "bias": True},
    {"norm": True},
    {"causal": 0},
]


@pytest.mark.parametrize("stage", ["prompt", "decode", "ragged", "chunk"])
@pytest.mark.parametrize("options", GQA_OPTIONS, ids=str)
def test_group_query_attention(stage: str, options: dict[str, Any]) -> None:
    options = dict(options)
    heads, kv_heads, size, batch = 4, 2, 16, 2
    length, past = {"prompt": (6, 0), "decode": (1, 5), "ragged": (1, 5), "chunk": (3, 5)}[stage]
    if stage == "chunk":
        batch = 1
    total = length + past
    lengths = np.full(batch, total - 1, np.int32)
    if stage == "ragged":
        lengths = np.array([total - 1, total - 3], np.int32)
    q, k, v = f32(batch, length, heads * size), f32(batch, length, kv_heads * size), None
    v = f32(batch, length, kv_heads * size)
    packed = options.pop("packed", False)
    first = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
    rotary = [f32(16, size // 2), f32(16, size // 2)] if options.get("do_rotary") else [None, None]
    ids = None
    if options.pop("positions", False):
        ids = np.tile(np.arange(past, total), (batch, 1)).astype(np.int64)
    bias = f32(batch, heads, length, total) if options.pop("bias", False) else None
    sink = f32(heads) if options.pop("sink", False) else None
    x = [
        *first,
        f32(batch, kv_heads, past, size) if past else None,
        f32(batch, kv_heads, past, size) if past else None,
        lengths,
        np.array(total, np.int32),
        *rotary,
        ids,
        bias,
        sink,
    ]
    norms = [f32(size), f32(size)] if options.pop("norm", False) else None
    options |= {"num_heads": heads, "kv_num_heads": kv_heads}
    outputs = 4 if options.get("qk_output") else 3
    try:
        ort_inputs = x + ([None, None, *norms] if norms else [])
        wanted = ort.run_node("GroupQueryAttention", ort_inputs, outputs, **options)
    except Exception as error:
        pytest.skip(f"ONNX Runtime refuses it: {str(error)[-120:]}")
    extra = {}
    if norms:
        extra = dict(zip(("q_norm_weight", "k_norm_weight"), ort.tensors(norms)))
    got = grouped.group_query_attention(*ort.tensors(x), **options, **extra)
    ort.assert_close(got[0], wanted[0], 1e-4)
    for i in range(batch):
        # What lies behind a sample's last key is not defined.
        n = lengths[i] + 1
        np.testing.assert_allclose(got[1][i, :, :n], wanted[1][i, :, :n], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got[2][i, :, :n], wanted[2][i, :, :n], rtol=1e-4, atol=1e-4)
    if outputs == 4 and stage != "ragged":
        ort.assert_close(got[3], wanted[3], 1e-4)


MASKS = ["none", "lengths", "keys", "queries"]


def make_mask(kind: str, batch: int, length: int, total: int) -> np.ndarray | None:
    if kind == "lengths":
        return np.array([total, total - 2][:batch], np.int32)
    if kind == "keys":
        mask = np.ones((batch, total), np.int32)
        mask[-1, -2:] = 0
        return mask
    if kind == "queries":
        mask = np.ones((batch, length, total), np.int32)
        mask[-1, :, -2:] = 0
        mask[0, 1:, 0] = 0
        return mask
    return None


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "options",
    [{}, {"past": True}, {"unidirectional": 1}, {"bias": True, "scale": 0.2}, {"packed": "qkv"}]
    + [{"packed": "kv"}, {"cross": True}, {"past": True, "unidirectional": 1}],
    ids=str,
)
def test_multi_head_attention(mask: str, options: dict[str, Any]) -> None:
    options = dict(options)
    batch, length, heads, size = 2, 3, 2, 8
    past = 4 if options.pop("past", False) else 0
    cross = options.pop("cross", False)
    packed = options.pop("packed", "")
    keys = 5 if cross or packed == "kv" else length
    total = keys + past
    x: list[np.ndarray | None] = [f32(batch, length, heads * size)]
    if packed == "qkv":
        x = [f32(batch, length, heads, 3, size), None, None, None]
    elif packed == "kv":
        x += [f32(batch, keys, heads, 2, size), None, None]
    elif cross:
        x += [f32(batch, heads, keys, size), f32(batch, heads, keys, size), None]
    else:
        x += [f32(batch, keys, heads * size), f32(batch, keys, heads * size), f32(3 * heads * size)]
    x.append(make_mask(mask, batch, length, total))
    x.append(f32(batch, heads, length, total) if options.pop("bias", False) else None)
    if past:
        x += [f32(batch, heads, past, size), f32(batch, heads, past, size)]
    try:
        wanted = ort.run_node(
            "MultiHeadAttention", x, 1 if cross else 3, num_heads=heads, **options
        )
    except Exception as error:
        pytest.skip(f"ONNX Runtime refuses it: {str(error)[-120:]}")
    got = multi_head.multi_head_attention(*ort.tensors(x), num_heads=heads, **options)
    for y, z in zip(got, wanted):
        ort.assert_close(y, z, 1e-4)


@pytest.mark.parametrize("mask", [*MASKS, "starts"])
@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("options", [{}, {"unidirectional": 1}, {"bias": True}], ids=str)
@pytest.mark.parametrize("quantised", [False, True])
def test_ms_attention(mask: str, past: int, options: dict[str, Any], quantised: bool) -> None:
    options = dict(options)
    batch, length, heads, size = 2, 3, 2, 8
    hidden, total = 16, length + past
    if mask == "starts":
        index = np.array([total, total - 1, 0, 1], np.int32)
    else:
        index = make_mask(mask, batch, length, total)
    state = f32(2, batch, heads, past, size) if past else None
    added = f32(batch, heads, length, total) if options.pop("bias", False) else None
    bias = f32(3 * heads * size)
    if quantised:
        if added is not None:
            pytest.skip("QAttention adds no bias")
        x = RNG.integers(0, 256, (batch, length, hidden)).astype(np.uint8)
        w = int8_weights(RNG, hidden, 3 * heads * size)
        scales = [np.array(0.01, np.float32), np.array(0.02, np.float32)]
        zeros = [np.array(120, np.uint8), np.array(4, np.int8)]
        inputs = [x, w, bias, *scales, index, *zeros, state]
        op, helper = "QAttention", multi_head.qattention
    else:
        inputs = [f32(batch, length, hidden), f32(hidden, 3 * heads * size), bias, index, state]
        inputs.append(added)
        op, helper = "Attention", multi_head.ms_attention
    try:
        wanted = ort.run_node(op, inputs, 2, num_heads=heads, **options)
    except Exception as error:
        pytest.skip(f"ONNX Runtime refuses it: {str(error)[-120:]}")
    got = helper(*ort.tensors(inputs), num_heads=heads, **options)
    for y, z in zip(got, wanted):
        ort.assert_close(y, z, 1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_bifurcation_detector(seed: int) -> None:
    rng = np.random.default_rng(seed)
    src = rng.integers(0, 4, 12).astype(np.int64)
    cur = rng.integers(0, 4, 5).astype(np.int64)
    start = int(rng.integers(0, 6))
    pred = src[start:].copy() if seed % 3 else None
    if pred is not None:
        pred = np.append(pred, 3).astype(np.int64)
        if seed % 2:
            pred[rng.integers(0, len(pred))] += 1
    x = [src, cur, np.array(start, np.int64), pred]
    compare("BifurcationDetector", transformer.bifurcation_detector, x, 2)


def routed(tokens: int, experts: int) -> list[np.ndarray]:
    return [f32(tokens, 32), f32(tokens, experts)]


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity", "swiglu"])
@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("fusion", [1, 2])
def test_mixture_of_experts(activation: str, normalize: int, fusion: int) -> None:
    experts, hidden, inner = 4, 32, 16
    wide = inner * (2 if activation == "swiglu" else 1)
    x = [
        *routed(6, experts),
        f32(experts, wide, hidden),
        f32(experts, wide),
        f32(experts, hidden, inner),
        f32(experts, hidden),
    ]
    options: dict[str, Any] = {"k": 2, "activation_type": activation}
    options["normalize_routing_weights"] = normalize
    if activation == "swiglu":
        options |= {"swiglu_fusion": fusion, "activation_alpha": 1.7, "activation_beta": 1.0}
        options["swiglu_limit"] = 3.0
    try:
        wanted = ort.run_node("MoE", x, **options)[0]
    except Exception as error:
        pytest.skip(f"ONNX Runtime refuses it: {str(error)[-120:]}")
    ort.assert_close(moe.mixture_of_experts(*ort.tensors(x), **options), wanted, 1e-3)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity", "swiglu"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("zeros", [False, True])
def test_quantised_mixture_of_experts(activation: str, bits: int, block: int, zeros: bool) -> None:
    experts, hidden, inner = 4, 32, 32
    wide = inner * (2 if activation == "swiglu" else 1)

    def packed(rows: int, columns: int) -> np.ndarray:
        return RNG.integers(0, 256, (experts, rows, columns * bits // 8)).astype(np.uint8)

    def scales(rows: int, columns: int) -> np.ndarray:
        shape = (experts, rows, columns // block) if block else (experts, rows)
        return (RNG.random(shape) * 0.1 + 0.01).astype(np.float32)

    def points(rows: int, columns: int) -> np.ndarray | None:
        if not zeros:
            return None
        shape = (experts, -(-rows * bits // 8))
        if block:
            shape = (experts, rows, -(-(columns // block) * bits // 8))
        return RNG.integers(0, 256, shape).astype(np.uint8)

    x = [
        *routed(6, experts),
        packed(wide, hidden),
        scales(wide, hidden),
        f32(experts, wide),
        packed(hidden, inner),
        scales(hidden, inner),
        f32(experts, hidden),
        None,
        None,
        None,
        points(wide, hidden),
        points(hidden, inner),
    ]
    options: dict[str, Any] = {"k": 2, "activation_type": activation, "expert_weight_bits": bits}
    options["normalize_routing_weights"] = 1
    if block:
        options["block_size"] = block
    if activation == "swiglu":
        options |= {"swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0}
    try:
        wanted = ort.run_node("QMoE", x, extra={"weights_prepacked": 0}, **options)[0]
    except Exception as error:
        pytest.skip(f"ONNX Runtime refuses it: {str(error)[-120:]}")
    got = moe.quantised_mixture_of_experts(*ort.tensors(x), **options)
    ort.assert_close(got, wanted, 1e-3 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("stage", ["prompt", "decode"])
@pytest.mark.parametrize("options", [{}, {"do_rotary": 1}, {"packed": True}], ids=str)
def test_sparse_attention(stage: str, options: dict[str, Any]) -> None:
    options = dict(options)
    heads, kv_heads, size, batch, room, block = 4, 2, 16, 2, 64, 16
    length, total = (40, 40) if stage == "prompt" else (1, 50)
    q, k = f32(batch, length, heads * size), f32(batch, length, kv_heads * size)
    v = f32(batch, length, kv_heads * size)
    packed = options.pop("packed", False)
    first = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
    columns = np.array([[0, 0, 1, 1, 2, 1, 2, 3, -1], [0, 0, 1, 0, 1, 2, 0, 2, 3]], np.int32)
    rows = np.array([[0, 1, 3, 5, 8], [0, 1, 3, 6, 9]], np.int32)
    x = [
        *first,
        f32(batch, kv_heads, room, size),
        f32(batch, kv_heads, room, size),
        rows,
        columns,
        np.array([total], np.int32),
        np.full(batch, total, np.int32),
    ]
    if options.get("do_rotary"):
        x += [f32(64, size // 2), f32(64, size // 2)]
    options |= {"num_heads": heads, "kv_num_heads": kv_heads, "sparse_block_size": block}
    wanted = ort.run_node("SparseAttention", x, 3, shared={1: 3, 2: 4}, **options)
    got = grouped.sparse_attention(*ort.tensors(x), **options)
    ort.assert_close(got[0], wanted[0], 1e-4)
    np.testing.assert_allclose(got[1][:, :, :total], wanted[1][:, :, :total], 1e-4, 1e-4)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"local_window_size": 3}], ids=str)
@pytest.mark.parametrize("rotary", [0, 1])
def test_paged_attention_as_grouped(options: dict[str, Any], rotary: int) -> None:
    """ONNX Runtime has it for CUDA only, so each sequence is done by its own grouped attention."""
    heads, kv_heads, size, block = 4, 2, 8, 4
    lengths, past = [3, 1, 5], [2, 6, 0]
    table = torch.tensor([[7, 2, -1], [0, 5, -1], [3, 1, -1]], dtype=torch.int32)
    pool = [torch.from_numpy(f32(8, block, kv_heads, size)) for _ in range(2)]
    q = torch.from_numpy(f32(9, heads * size))
    k, v = (torch.from_numpy(f32(9, kv_heads * size)) for _ in range(2))
    caches = [torch.from_numpy(f32(16, size // 2)) for _ in range(2)]
    starts = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
    options = options | {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": rotary}
    y, key_pool, _ = grouped.paged_attention(
        q, k, v, *pool, starts, torch.tensor(past), table, *caches, **options
    )
    for i, (length, old) in enumerate(zip(lengths, past)):
        rows = slice(int(starts[i]), int(starts[i + 1]))
        olds = [p[table[i, :2].long()].flatten(0, 1)[:old].transpose(0, 1)[None] for p in pool]
        total = length + old
        wanted, key_now, _, _ = grouped.group_query_attention(
            *(part[rows][None] for part in (q, k, v)),
            *olds,
            torch.tensor([total - 1]),
            total,
            *caches,
            **options,
        )
        torch.testing.assert_close(y[rows], wanted[0])
        kept = key_pool[table[i, :2].long()].flatten(0, 1)[:total].transpose(0, 1)
        torch.testing.assert_close(kept, key_now[0])
