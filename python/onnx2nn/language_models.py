"""`transformers`: a model that keeps keys and values, driven by Hugging Face's own `generate`."""

from typing import Any

from torch import nn

from onnx2nn.errors import Error
from onnx2nn.loading import load
from onnx2nn.source import Model

__all__ = ["transformers"]


def transformers(
    model: Model | nn.Module,
    decoder: Model | None = None,
    decoder_with_past: Model | None = None,
    **config: Any,
) -> Any:
    """A decoder, or an encoder and its decoder, as a `PreTrainedModel` with a `GenerationMixin`.

    model: an ONNX model with inputs and outputs for keys and values (`past_key_values.0.key`,
        `present.0.key`); or a module with the methods that a page has of such a model,
        `empty_cache` and `step`. With `decoder`, the model of the encoder.
    decoder: the model of the encoder's decoder, in Optimum's layout (`present.0.decoder.key`,
        `present.0.encoder.key`): merged, with `use_cache_branch`, or that for the first step.
    decoder_with_past: beside the latter, that for all other steps.
    config: what the file does not say and its `PretrainedConfig` should hold, such as
        `eos_token_id`, `bos_token_id`, `pad_token_id` and, of an encoder's decoder,
        `decoder_start_token_id`. The size of the vocabulary and the number of layers are the model's.
    Greedy search, sampling and beam search work, and prompts with padding: in front, of a decoder
    alone.
    Raises Error where the model is no such decoder, or `transformers` is not installed.
    """
    try:
        from onnx2nn import pretrained, pretrained_pair
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise Error(
            "onnx2nn.transformers needs the package transformers: pip install transformers"
        ) from error
    if decoder is not None:
        if isinstance(model, nn.Module):
            raise Error("with a decoder, the encoder is given as an ONNX model")
        return pretrained_pair.pretrained_pair(model, decoder, decoder_with_past, config)
    net = model if isinstance(model, nn.Module) else load(model)
    if not (hasattr(net, "empty_cache") and hasattr(net, "step")):
        raise Error(
            "the model is no decoder that keeps keys and values: it needs the inputs input_ids and "
            "past_key_values.0.key, ..., and the outputs logits and present.0.key, ..."
        )
    return pretrained.pretrained(net, config)
