"""What torch has one of for all threads: its generator, and the flags that choose kernels."""

import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["in_turn"]

_lock = threading.RLock()


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """A context that one thread is in at a time: whoever sets and restores what all share would
    otherwise restore what another has set meanwhile."""
    with _lock:
        yield


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
