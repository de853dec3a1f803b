"""Inputs that a model accepts, and the oracle's answers to them."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from onnx2nn.check.compare import Random, agree
from onnx2nn.check.inputs import candidates, wanted_inputs
from onnx2nn.check.oracle import OracleDied
from onnx2nn.check.result import Answer
from onnx2nn.check.values import has_random_op
from onnx2nn.core import InputShapes
from onnx2nn.errors import first_line

__all__ = ["BATCH", "Refused", "is_empty", "larger_batch", "mark_random", "search"]

# When to stop looking for inputs that the model accepts.
_SEARCH_S = 30.0
# A second batch size, to find one that was baked in; left out where one run is slow.
BATCH = 3
_SLOW_S = 5.0


class Refused(Exception):  # noqa: N818 (what it says, it says of the inputs)
    """The oracle runs the model on none of the inputs; the text is what it says to the likeliest."""


def search(ask: Callable[[dict[str, Any]], Answer], feeds: Iterable[dict[str, Any]]) -> Answer:
    """The answer to the first of the feeds that the model accepts.

    Outputs that are all empty show nothing: such an answer is taken only where no other is found.
    Raises Refused where it accepts none, OracleDied where that came before there was an answer.
    """
    first = ""
    empty: Answer | None = None
    deadline = time.perf_counter() + _SEARCH_S
    for feed in feeds:
        try:
            answer = ask(feed)
        except OracleDied:
            if empty is None:
                raise
            break
        except Exception as error:  # each runtime has error types of its own
            first = first or first_line(error)
        else:
            if not is_empty(answer.outputs):
                return answer
            empty = empty or answer
        if time.perf_counter() > deadline:
            break
    if empty is None:
        raise Refused(first or "no inputs to try")
    return empty


def larger_batch(
    proto: Any,
    answer: Answer,
    given: dict[str, Any] | None,
    shapes: InputShapes | None,
    seed: int,
) -> Answer | None:
    """The answer for a larger batch, where the model leaves that free and the oracle takes it."""
    random = any(isinstance(y, Random) for y in answer.outputs) or has_random_op(proto)
    if given or shapes or random or answer.seconds > _SLOW_S:
        return None
    free = {
        w.name: [BATCH, *answer.feed[w.name].shape[1:]]
        for w in wanted_inputs(proto)
        if w.dims and isinstance(w.dims[0], str) and isinstance(answer.feed[w.name], np.ndarray)
    }
    if not free or any(answer.feed[name].shape[0] != 1 for name in free):
        return None
    fixed = {n: list(v.shape) for n, v in answer.feed.items() if isinstance(v, np.ndarray)}
    feed = next(candidates(proto, seed, None, {**fixed, **free}), None)
    if feed is None:
        return None
    try:
        return Answer(answer.oracle, feed, answer.oracle.run(feed), answer.seconds)
    except Exception:  # the first dim was no batch, or some other input would have to grow too
        return None


def is_empty(outputs: Iterable[Any]) -> bool:
    """Whether outputs hold no elements at all, so that none of them can be wrong."""
    bare = (y.value if isinstance(y, Random) else y for y in outputs)
    return all(isinstance(y, np.ndarray) and y.size == 0 for y in bare)


def mark_random(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """The first run's outputs, marked where the second gave others."""
    return [
        x if isinstance(x, Random) or agree(x, y) else Random(x)
        for x, y in zip(first, second, strict=True)
    ]
