"""What a run does, step by step and with seconds, under the logger `onnx2nn`.

    logging.basicConfig(level=logging.INFO)
    logging.getLogger("onnx2nn").setLevel(logging.DEBUG)

Nothing here installs a handler or sets a level: that is the program's to do.
"""

import contextlib
import logging
import time
from collections.abc import Iterator

from onnx2nn.errors import printable

__all__ = ["LOGGER", "Steps", "step"]

LOGGER = logging.getLogger("onnx2nn")


class Steps:
    """Steps that follow each other: each is logged where it begins and, with its seconds, where it ends."""

    def __init__(self) -> None:
        self._what = ""
        self._began = 0.0

    def __call__(self, what: str) -> None:
        """End the step before and begin the next; names from a model may be in `what`."""
        self.end()
        if LOGGER.isEnabledFor(logging.DEBUG):
            self._what, self._began = printable(what), time.perf_counter()
            LOGGER.debug("%s", self._what)

    def end(self) -> None:
        """End the last step."""
        if self._what:
            LOGGER.debug("%s: %.3f s", self._what, time.perf_counter() - self._began)
        self._what = ""


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """One step, as a context."""
    steps = Steps()
    steps(what)
    try:
        yield
    finally:
        steps.end()
