"""A page's decoder as a model of `transformers`, which this file imports."""

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

__all__ = ["OnnxConfig", "OnnxForCausalLM", "pretrained"]

# What version 5 calls the cache, in arguments and in outputs; and what it was called before.
_CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in {f.name for f in dataclasses.fields(CausalLMOutputWithPast)}
)


class OnnxConfig(PretrainedConfig):  # type: ignore[misc,unused-ignore]
    """What is known of a decoder."""

    model_type = "onnx2nn"


class OnnxForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc,unused-ignore]
    """A decoder `net` with the methods `empty_cache` and `step` of an emitted page."""

    config_class = OnnxConfig
    main_input_name = "input_ids"

    def __init__(self, config: OnnxConfig, net: Any) -> None:
        super().__init__(config)
        self.net = net
        self._takes_mask = "attention_mask" in inspect.signature(net.step).parameters
        # [batch, heads, tokens, size], or both keys and values in [2, batch, heads, tokens, size].
        empty = net.empty_cache(1)
        self._joined = empty[0].ndim == 5
        self._length = empty[0].shape.index(0) - empty[0].ndim

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        **ignored: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of what follows the tokens, int[batch, new], and the cache with them.

        attention_mask: of all tokens so far, [batch, past + new]; 0 where there is padding. The
        positions are counted from it.
        """
        del ignored  # position_ids, use_cache, ...: what `generate` may give besides
        cache = past_key_values if cache is None else cache
        if cache is None:
            cache = DynamicCache()
        before = cache.get_seq_length()
        past = self._tensors(cache) if before else self.net.empty_cache(input_ids.shape[0])
        if not self._takes_mask:
            logits, present = self.net.step(input_ids, past)
        else:
            if attention_mask is None:
                attention_mask = input_ids.new_ones(len(input_ids), before + input_ids.shape[1])
            logits, present = self.net.step(input_ids, past, attention_mask)
        for i, pair in enumerate(self._pairs(present)):
            keys, values = (x.movedim(self._length, -2)[..., before:, :] for x in pair)
            cache.update(keys, values, i)
        return CausalLMOutputWithPast(logits=logits, **{_CACHE: cache})

    def _pairs(self, caches: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Two tensors a layer: the file's keys and values, in the file's order."""
        if self._joined:
            return [(x[0], x[1]) for x in caches]
        return list(zip(caches[::2], caches[1::2], strict=True))

    def _tensors(self, cache: Any) -> list[Tensor]:
        pairs = [[x.movedim(-2, self._length) for x in (c.keys, c.values)] for c in cache.layers]
        if self._joined:
            return [torch.stack(pair) for pair in pairs]
        return [x for pair in pairs for x in pair]

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the weights are the file's."""


# Known to `pipeline` as a model that writes text.
AutoModelForCausalLM.register(OnnxConfig, OnnxForCausalLM)


def pretrained(net: Any, config: dict[str, Any]) -> OnnxForCausalLM:
    """The model around a decoder; `config` adds to what its caches and logits say."""
    empty = net.empty_cache(1)
    device = empty[0].device
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    takes_mask = "attention_mask" in inspect.signature(net.step).parameters
    with torch.no_grad():
        logits, _ = net.step(token, empty, *([torch.ones_like(token)] if takes_mask else []))
    known = {
        "vocab_size": logits.shape[-1],
        "num_hidden_layers": len(empty) if empty[0].ndim == 5 else len(empty) // 2,
        "num_key_value_heads": empty[0].shape[-3],
        "architectures": [OnnxForCausalLM.__name__],
    }
    model = OnnxForCausalLM(OnnxConfig(**known | config), net)
    model.eval()
    return model
