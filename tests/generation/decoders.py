"""Small decoders that keep keys and values, in the layouts of the tools that write such models."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, LAYERS = 53, 64, 4, 2
SIZE = WIDTH // HEADS


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(WIDTH, WIDTH) for _ in range(4)
        )

    def forward(
        self, x: Tensor, k: Tensor | None, v: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, ...]:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (HEADS, SIZE)).transpose(1, 2)

        new_k, new_v = split(self.k_proj(x)), split(self.v_proj(x))
        k = new_k if k is None else torch.cat([k, new_k], 2)
        v = new_v if v is None else torch.cat([v, new_v], 2)
        y = nn.functional.scaled_dot_product_attention(split(self.q_proj(x)), k, v, attn_mask=mask)
        return self.o_proj(y.transpose(1, 2).flatten(2)), k, v


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))

    def forward(
        self, x: Tensor, k: Tensor | None, v: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, ...]:
        y, *present = self.attention(self.norm1(x), k, v, mask)
        x = x + y
        return x + self.mlp(self.norm2(x)), *present


class Decoder(nn.Module):
    """Keys and values apart, `joined` in one tensor a layer; with or without its inputs besides, and
    without a past."""

    def __init__(self, mask: bool, positions: bool, joined: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.lm_head.weight = self.wte.weight
        self.mask, self.positions, self.joined = mask, positions, joined

    def forward(self, input_ids: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = list(rest)
        attention_mask = given.pop(0) if self.mask else None
        positions = given.pop(0) if self.positions else None
        new = input_ids.shape[1]
        past = given[0].shape[-2] if given else 0
        if positions is None:
            positions = (torch.arange(new) + past).unsqueeze(0)
        seen = torch.arange(past + new) <= (torch.arange(new) + past).unsqueeze(1)
        seen = seen.unsqueeze(0).unsqueeze(0)
        if attention_mask is not None:
            seen = seen & attention_mask.bool().unsqueeze(1).unsqueeze(2)
        bias = torch.where(seen, 0.0, -1e9)
        x = self.wte(input_ids) + self.wpe(positions)
        present = []
        for i, layer in enumerate(self.layers):
            k: Tensor | None = None
            v: Tensor | None = None
            if given:
                k, v = (given[i][0], given[i][1]) if self.joined else given[2 * i : 2 * i + 2]
            x, k, v = layer(x, k, v, bias)
            present += [torch.stack([k, v])] if self.joined else [k, v]
        return self.lm_head(x), *present


@dataclass
class Layout:
    """Which inputs there are besides the tokens and caches, and how the caches are called."""

    exporter: str  # "dynamo" or "torchscript"
    mask: bool = True
    positions: bool = True
    joined: bool = False
    past: str = "past_key_values.{layer}.{kind}"
    present: str = "present.{layer}.{kind}"
    integers: torch.dtype = torch.int64

    def names(self, form: str) -> list[str]:
        kinds = [""] if self.joined else ["key", "value"]
        return [form.format(layer=i, kind=kind) for i in range(LAYERS) for kind in kinds]


def export(layout: Layout, path: Path, with_past: bool = True) -> None:
    """Writes a decoder with seeded weights, every size of a text open."""
    torch.manual_seed(0)
    net = Decoder(layout.mask, layout.positions, layout.joined).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.5)
    batch, new, past = 2, 3, 5 if with_past else 0
    kv = [2] if layout.joined else []
    inputs = {"input_ids": torch.ones(batch, new, dtype=layout.integers)}
    axes: dict[str, dict[int, str]] = {"input_ids": {0: "batch", 1: "new"}}
    if layout.mask:
        inputs["attention_mask"] = torch.ones(batch, past + new, dtype=layout.integers)
        axes["attention_mask"] = {0: "batch", 1: "total" if with_past else "new"}
    if layout.positions:
        inputs["position_ids"] = torch.ones(batch, new, dtype=layout.integers)
        axes["position_ids"] = {0: "batch", 1: "new"}
    for name in layout.names(layout.past) if with_past else []:
        inputs[name] = torch.randn(*kv, batch, HEADS, past, SIZE)
        axes[name] = {len(kv): "batch", len(kv) + 2: "past"}
    outputs = ["logits", *layout.names(layout.present)]
    options: dict[str, Any] = {"input_names": [*inputs], "output_names": outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if layout.exporter == "dynamo":
            first, *others = axes.values()
            shapes = (first, tuple(others))
            options |= {"dynamic_shapes": shapes, "external_data": False, "verbose": False}
        else:
            axes |= {name: {len(kv): "batch", len(kv) + 2: "all"} for name in outputs[1:]}
            axes["logits"] = {0: "batch", 1: "new"}
            options |= {"dynamic_axes": axes, "opset_version": 17}
        torch.onnx.export(
            net, tuple(inputs.values()), path, dynamo=layout.exporter == "dynamo", **options
        )


def merged(path: Path) -> None:
    """The layout of Optimum's merge_decoders; the mask is declared as the first branch's."""
    models = []
    for with_past in False, True:
        export(Layout("torchscript"), path, with_past)
        models.append(onnx.load(path))
    merge(*models, path)


def merge(first: onnx.ModelProto, later: onnx.ModelProto, path: Path) -> None:
    """One model of both: an If on `use_cache_branch`, whose else_branch is the first. Weights that both
    have are the outer graph's."""
    plain, cached = first.graph, later.graph
    shared: dict[bytes, Any] = {}
    branches = []
    for graph, name in (plain, "no_past"), (cached, "with_past"):
        own = []
        renamed: dict[str, str] = {}
        for weight in graph.initializer:
            if not weight.dims:
                own.append(weight)
                continue
            outer = onnx.TensorProto()
            outer.CopyFrom(weight)
            outer.name = ""
            outer = shared.setdefault(outer.SerializeToString(), outer)
            outer.name = renamed[weight.name] = outer.name or f"{weight.name}_merged_{len(shared)}"
        for node in graph.node:
            node.input[:] = [renamed.get(x, x) for x in node.input]
        branches.append(h.make_graph(graph.node, name, [], graph.output, own))
    names = {i.name for i in plain.input}
    inputs = [*plain.input, *(i for i in cached.input if i.name not in names)]
    inputs.append(h.make_tensor_value_info("use_cache_branch", T.BOOL, [1]))
    outputs = [o.name for o in plain.output]
    node = h.make_node(
        "If",
        ["use_cache_branch"],
        outputs,
        name="optimum::if",
        then_branch=branches[1],
        else_branch=branches[0],
    )
    graph = h.make_graph([node], "merged", inputs, cached.output, [*shared.values()])
    onnx.save(
        h.make_model(graph, ir_version=9, opset_imports=first.opset_import),
        path,
    )


def genai(path: Path, bits: int = 0, experts: int = 0) -> None:
    """The layout and names of onnxruntime-genai: GroupQueryAttention, all keys before all values, and
    weights of so many bits in MatMulNBits; with experts, a QMoE in place of a layer's MLP."""
    random = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []
    kv, block = 2, 32

    def weight(name: str, values: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(op: str, inputs: list[str], outputs: list[str], domain: str = "", **given: Any) -> str:
        name = outputs[0].removesuffix("/output_0")
        nodes.append(h.make_node(op, inputs, outputs, name=name, domain=domain, **given))
        return outputs[0]

    def output(name: str) -> str:
        return "/" + name.replace(".", "/").replace("layers/", "layers.") + "/output_0"

    def linear(x: str, name: str, rows: int, columns: int) -> str:
        name += ".MatMul"
        if not bits:
            values = random.standard_normal((columns, rows)).astype(np.float32) * 0.3
            return node("MatMul", [x, weight(f"{name}.weight", values)], [output(name)])
        shape = (rows, columns // block, block * bits // 8)
        packed = weight(f"{name}.weight_Q4", random.integers(0, 256, shape).astype(np.uint8))
        steps = random.uniform(0.02, 0.06, shape[:2]).astype(np.float32)
        scales = weight(f"{name}.weight_scales", steps)
        options = {"K": columns, "N": rows, "bits": bits, "block_size": block}
        inputs = [x, packed, scales]
        return node(
            "MatMulNBits", inputs, [output(name)], "com.microsoft", accuracy_level=4, **options
        )

    def packed(name: str, rows: int, columns: int) -> list[str]:
        """Weights of all experts in 4 bits, and their scales a block."""
        shape = (experts, rows, columns // 2)
        values = weight(f"{name}.qweight", random.integers(0, 256, shape).astype(np.uint8))
        steps = random.uniform(0.02, 0.06, (experts, rows, columns // block)).astype(np.float32)
        biases = random.standard_normal((experts, rows)).astype(np.float32)
        return [values, weight(f"{name}.scales", steps), weight(f"{name}.bias", biases)]

    def mixture(x: str, name: str) -> str:
        router = linear(x, f"{name}.router", experts, WIDTH)
        rows = node(
            "Reshape",
            [router, weight(f"{name}.router.shape", np.array([-1, experts]))],
            [output(f"{name}.router.Reshape")],
        )
        inner = [
            *packed(f"{name}.gate_up_proj", 128, WIDTH),
            *packed(f"{name}.down_proj", WIDTH, 64),
        ]
        return node(
            "QMoE",
            [x, rows, *inner],
            [output(f"{name}.QMoE")],
            "com.microsoft",
            k=2,
            activation_type="swiglu",
            activation_alpha=1.702,
            activation_beta=1.0,
            swiglu_fusion=1,
            expert_weight_bits=4,
            normalize_routing_weights=1,
            block_size=block,
        )

    def norm(inputs: list[str], name: str) -> list[str]:
        weights_of = weight(f"{name}_layernorm.weight", 1 + random.random(WIDTH, np.float32) / 4)
        out = output(f"{name}_layernorm.LayerNorm")
        if len(inputs) == 1:
            options = {"axis": -1, "epsilon": 1e-6}
            return [node("SimplifiedLayerNormalization", [*inputs, weights_of], [out], **options)]
        outputs = [out, "", "", out.replace("output_0", "output_3")]
        inputs = [*inputs, weights_of]
        node("SkipSimplifiedLayerNormalization", inputs, outputs, "com.microsoft", epsilon=1e-6)
        return [outputs[0], outputs[3]]

    one = weight("one", np.array([1], np.int64))
    sums = node("ReduceSum", ["attention_mask", one], ["sums"], keepdims=1)
    filled = node("Cast", [node("Sub", [sums, one], ["less"])], ["filled"], to=T.INT32)
    shape = node("Shape", ["attention_mask"], ["shape"])
    length = node("Gather", [shape, weight("axis", np.array(1, np.int64))], ["length"])
    total = node("Cast", [length], ["total"], to=T.INT32)
    table = weight(
        "model.embed_tokens.weight", random.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    )
    angles = np.outer(np.arange(64), 1.0 / 10000 ** (np.arange(SIZE // 2) / (SIZE // 2)))
    cos = weight("cos_cache", np.cos(angles).astype(np.float32))
    sin = weight("sin_cache", np.sin(angles).astype(np.float32))
    x = node("Gather", [table, "input_ids"], [output("model.embed_tokens.Gather")])
    (y,) = norm([x], "model.layers.0.input")
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        qkv = linear(y, f"{layer}.attn.qkv_proj", WIDTH + 2 * kv * SIZE, WIDTH)
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        attended = node(
            "GroupQueryAttention",
            [qkv, "", "", *past, filled, total, cos, sin],
            [output(f"{layer}.attn.GroupQueryAttention"), f"present.{i}.key", f"present.{i}.value"],
            "com.microsoft",
            num_heads=HEADS,
            kv_num_heads=kv,
            do_rotary=1,
        )
        y, x = norm(
            [x, linear(attended, f"{layer}.attn.o_proj", WIDTH, WIDTH)], f"{layer}.post_attention"
        )
        if experts:
            y = mixture(y, f"{layer}.moe")
        else:
            y = linear(y, f"{layer}.mlp.up_proj", 96, WIDTH)
            y = node("Relu", [y], [output(f"{layer}.mlp.act_fn.Relu")])
            y = linear(y, f"{layer}.mlp.down_proj", WIDTH, 96)
        following = f"layers.{i + 1}." + ("input" if i + 1 < LAYERS else "final_norm")
        y, x = norm([x, y], f"model.{following}")
    logits = linear(y, "lm_head", VOCABULARY, WIDTH)
    nodes.append(h.make_node("Identity", [logits], ["logits"]))
    inputs = [h.make_tensor_value_info("input_ids", T.INT64, ["batch_size", "sequence_length"])]
    mask = ["batch_size", "total_sequence_length"]
    inputs.append(h.make_tensor_value_info("attention_mask", T.INT64, mask))
    sizes = ["batch_size", "sequence_length", VOCABULARY]
    outputs = [h.make_tensor_value_info("logits", T.FLOAT, sizes)]
    for ports, name, now in (inputs, "past_key_values", "past"), (outputs, "present", "total"):
        for kind in "key", "value":
            for i in range(LAYERS):
                dims = ["batch_size", kv, f"{now}_sequence_length", "kv_cache_dim"]
                ports.append(h.make_tensor_value_info(f"{name}.{i}.{kind}", T.FLOAT, dims))
    opsets = [h.make_opsetid("", 18), h.make_opsetid("com.microsoft", 1)]
    graph = h.make_graph(nodes, "decoder", inputs, outputs, weights)
    model = h.make_model(graph, ir_version=9, opset_imports=opsets)
    model.producer_name = "onnxruntime-genai"
    onnx.save(model, path)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "optimum": lambda path: export(Layout("torchscript"), path),
    "optimum-dynamo": lambda path: export(Layout("dynamo"), path),
    "no-positions": lambda path: export(Layout("dynamo", positions=False), path),
    "no-mask": lambda path: export(Layout("dynamo", mask=False), path),
    "bare": lambda path: export(Layout("torchscript", mask=False, positions=False), path),
    "int32": lambda path: export(Layout("torchscript", integers=torch.int32), path),
    "joined": lambda path: export(
        Layout("torchscript", joined=True, past="past_{layer}", present="present_{layer}"), path
    ),
    "by-kind": lambda path: export(
        Layout(
            "torchscript", past="past_{kind}_self_{layer}", present="present_{kind}_self_{layer}"
        ),
        path,
    ),
    "merged": merged,
    "genai": genai,
    "genai-4-bit": lambda path: genai(path, 4),
    "genai-8-bit": lambda path: genai(path, 8),
    "genai-experts": lambda path: genai(path, 4, experts=4),
}
