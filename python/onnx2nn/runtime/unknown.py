"""What stands in emitted source where the model has an operator that the converter does not know."""

from torch import Tensor


def unknown_operator(
    name: str, /, *values: object, outputs: int, **attributes: object
) -> Tensor:
    """Any ONNX operator that is not known: torch has none for it either; put your own code here."""
    raise NotImplementedError(
        f"{name} ({len(values)} inputs, {outputs} outputs, attributes {sorted(attributes)}) "
        "is not supported: "
        "replace the call of unknown_operator by your own code"
    )
