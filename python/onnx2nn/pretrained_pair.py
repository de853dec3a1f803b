"""An encoder's and a decoder's files as one model of `transformers`, which this file imports."""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    DynamicCache,
    EncoderDecoderCache,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from onnx2nn.core import run_native
from onnx2nn.errors import Error
from onnx2nn.loading import load
from onnx2nn.source import Model, as_source

__all__ = ["OnnxForSeq2SeqLM", "OnnxSeq2SeqConfig", "pretrained_pair"]

_PAST = re.compile(r"past_key_values\.(\d+)\.(decoder|encoder)\.(key|value)")


class Part(nn.Module):
    """A converted file, asked by the names of its inputs and answering by those of its outputs."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        interface = run_native(as_source(model), {})
        self.net = load(model)
        self.inputs = {str(i["name"]): i for i in interface.inputs}
        self.outputs = {str(o["name"]): o for o in interface.outputs}

    def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """given: all inputs of the file, and maybe others. Integers and masks become its types."""
        args = [given[n].to(getattr(torch, str(i["dtype"]))) for n, i in self.inputs.items()]
        found = self.net(*args)
        values = found if isinstance(found, (tuple, list)) else [found]
        return dict(zip(self.outputs, values, strict=True))

    def pasts(self) -> list[str]:
        """The names of its caches, each with heads and size fixed."""
        return [name for name in self.inputs if _PAST.fullmatch(name)]

    def empty(self, name: str, states: Tensor) -> Tensor:
        """A cache of no token, for as many rows as the encoder's states have."""
        sizes = [size or 0 for size in _sizes(self.inputs[name])]
        return states.new_zeros([len(states), *sizes[1:]])


class Encoder(nn.Module):
    """The encoder's file as `transformers` asks for it."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.main_input_name = next(iter(part.inputs))

    def forward(
        self, *args: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """The last hidden states, of the first input as `transformers` names it."""
        x = args[0] if args else kwargs[self.main_input_name]
        if attention_mask is None:
            attention_mask = x.new_ones(x.shape[:2], dtype=torch.int64)
        found = self.part({self.main_input_name: x, "attention_mask": attention_mask})
        return BaseModelOutput(last_hidden_state=found[next(iter(self.part.outputs))])


class OnnxSeq2SeqConfig(PretrainedConfig):  # type: ignore[misc,unused-ignore]
    """What is known of an encoder and its decoder."""

    model_type = "onnx2nn-seq2seq"


class OnnxForSeq2SeqLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc,unused-ignore]
    """An encoder, and a decoder whose first step computes keys and values of the encoder's states."""

    config_class = OnnxSeq2SeqConfig

    def __init__(self, config: OnnxSeq2SeqConfig, encoder: Part, first: Part, later: Part) -> None:
        super().__init__(config)
        self.encoder = Encoder(encoder)
        self.first, self.later = first, later
        self.main_input_name = self.encoder.main_input_name

    def get_encoder(self, *args: Any, **options: Any) -> Encoder:
        """The module for the states that the decoder reads."""
        del args, options
        return self.encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        cache: Any = None,
        **given: Any,
    ) -> Seq2SeqLMOutput:
        """Logits of what follows the decoder's tokens, int[batch, new], and the caches with them.

        attention_mask: of the encoder's input; 0 where there is padding.
        """
        if encoder_outputs is None:
            x = input_ids if input_ids is not None else given[self.main_input_name]
            encoder_outputs = self.encoder(x, attention_mask=attention_mask)
        states = encoder_outputs[0]
        cache = past_key_values if cache is None else cache
        if cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        before = cache.get_seq_length()
        if attention_mask is None or attention_mask.shape != states.shape[:2]:
            attention_mask = torch.ones(states.shape[:2], dtype=torch.int64, device=states.device)
        part = self.later if before else self.first
        inputs = {
            "input_ids": decoder_input_ids,
            "encoder_attention_mask": attention_mask,
            "encoder_hidden_states": states,
            "use_cache_branch": torch.tensor([before > 0], device=states.device),
        } | {
            name: _past(cache, name) if before else part.empty(name, states)
            for name in part.pasts()
        }
        found = part(inputs)
        for i in range(self.config.num_hidden_layers):
            kinds = ("key", "value")
            own = [found[f"present.{i}.decoder.{kind}"][:, :, before:] for kind in kinds]
            cache.self_attention_cache.update(*own, i)
            if not before:
                others = [found[f"present.{i}.encoder.{kind}"] for kind in kinds]
                cache.cross_attention_cache.update(*others, i)
                cache.is_updated[i] = True
        return Seq2SeqLMOutput(
            logits=found["logits"], past_key_values=cache, encoder_last_hidden_state=states
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the weights are the files'."""


def _sizes(value: dict[str, Any]) -> list[int | None]:
    """The dims of an input or output; None where the file leaves one open, none at all where it says no shape."""
    dims = [str(d) for d in value.get("shape") or []]
    return [int(d) if d.isdigit() else None for d in dims]


AutoModelForSeq2SeqLM.register(OnnxSeq2SeqConfig, OnnxForSeq2SeqLM)


def _past(cache: Any, name: str) -> Tensor:
    """What the caches hold for an input of the decoder."""
    found = _PAST.fullmatch(name)
    assert found is not None
    layer, side, kind = found.groups()
    both = cache.self_attention_cache if side == "decoder" else cache.cross_attention_cache
    held = both.layers[int(layer)]
    return held.keys if kind == "key" else held.values  # type: ignore[no-any-return,unused-ignore]


def pretrained_pair(
    encoder: Model, decoder: Model, later: Model | None, config: dict[str, Any]
) -> OnnxForSeq2SeqLM:
    """The model of the two or three files; `config` adds to what they say."""
    first = Part(decoder)
    after = first if later is None else Part(later)
    if (
        "logits" not in first.outputs
        or "present.0.encoder.key" not in first.outputs
        or "past_key_values.0.encoder.key" not in after.inputs
    ):
        raise Error(
            "these are no decoder with an encoder's keys and values: it needs the outputs logits, "
            "present.0.decoder.key, present.0.encoder.key, ..., and, in the merged file or in "
            "decoder_with_past, the inputs past_key_values.0.decoder.key, ..."
        )
    known = {
        "is_encoder_decoder": True,
        "num_hidden_layers": math.ceil(sum("present." in name for name in first.outputs) / 4),
        "architectures": [OnnxForSeq2SeqLM.__name__],
    }
    sizes = _sizes(first.outputs["logits"])
    if sizes and sizes[-1] is not None:
        known["vocab_size"] = sizes[-1]
    model = OnnxForSeq2SeqLM(OnnxSeq2SeqConfig(**known | config), Part(encoder), first, after)
    model.eval()
    return model
