"""`transformers`: a model that keeps keys and values, driven by Hugging Face's own `generate`."""

from typing import Any

from torch import nn

from onnx2nn.errors import Error
from onnx2nn.loading import load
from onnx2nn.source import Model

__all__ = ["transformers"]


def transformers(model: Model | nn.Module, **config: Any) -> Any:
    """A decoder as a `PreTrainedModel` with a `GenerationMixin`, for `generate` and `pipeline`.

    model: an ONNX model with inputs and outputs for keys and values (`past_key_values.0.key`,
        `present.0.key`); or a module with the methods that a page has of such a model,
        `empty_cache` and `step`.
    config: what the file does not say and its `PretrainedConfig` should hold, such as
        `eos_token_id`, `bos_token_id` and `pad_token_id`. The size of the vocabulary and the number
        of layers are the model's.
    Greedy search, sampling and beam search work, and prompts with padding in front.
    Raises Error where the model is no such decoder, or `transformers` is not installed.
    """
    try:
        from onnx2nn import pretrained
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise Error(
            "onnx2nn.transformers needs the package transformers: pip install transformers"
        ) from error
    net = model if isinstance(model, nn.Module) else load(model)
    if not (hasattr(net, "empty_cache") and hasattr(net, "step")):
        raise Error(
            "the model is no decoder that keeps keys and values: it needs the inputs input_ids and "
            "past_key_values.0.key, ..., and the outputs logits and present.0.key, ..."
        )
    return pretrained.pretrained(net, config)
