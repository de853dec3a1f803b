"""Which operators of a program XNNPACK is to compute: ExecuTorch's choice, less what it computes wrongly."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

__all__ = ["xnnpack_partitioner"]

# Operators that ExecuTorch gives channels as the last axis in memory; those after them keep that order.
_CHANNELS_LAST = {
    f"aten.{name}"
    for name in (
        "amax.default",
        "avg_pool2d.default",
        "convolution.default",
        "max.dim",
        "max_pool2d.default",
        "mean.dim",
        "prelu.default",
        "upsample_bilinear2d.vec",
    )
}


def xnnpack_partitioner() -> Any:
    """ExecuTorch's partitioner for XNNPACK. Raises ImportError where ExecuTorch is not installed."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.generic_node_configs import SoftmaxConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class OverLastAxis(SoftmaxConfig):  # type: ignore[misc]
        """Softmax where the last axis is the last one in memory too: XNNPACK knows no other."""

        def check_constraints(self, node: "fx.Node", program: Any) -> bool:
            return super().check_constraints(node, program) and not _has_channels_last(node)

    configs = [OverLastAxis if c is SoftmaxConfig else c for c in ALL_PARTITIONER_CONFIGS]
    return XnnpackPartitioner(configs=configs)


def _has_channels_last(node: "fx.Node") -> bool:
    """Whether a value may come, by values of four axes alone, from an operator of _CHANNELS_LAST."""
    left, seen = [node], {node}
    while left:
        n = left.pop()
        if getattr(n.target, "__name__", "") in _CHANNELS_LAST:
            return True
        for x in n.all_input_nodes:
            if x not in seen and getattr(x.meta.get("val"), "ndim", 0) == 4:
                seen.add(x)
                left.append(x)
    return False
