"""Digests of several parents at once: a SHA-256 is work of one thread, so each has its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from merge_core.errors import MergeError
from merge_core.parents.protocol import Parent


def begun(parents: Iterable[Parent]) -> Callable[[], None]:
    """Begin to compute the digests of parents, in as many threads as torch may use.

    They are daemons: a process that ends does not wait for them. Parents that are kept on a device
    are left to whoever asks for their digests: their copies are one thread's.

    Returns:
        What waits until they are known. It does not raise: what cannot be read is told by whoever
        asks for that digest.
    """
    import torch

    left: SimpleQueue[Parent] = SimpleQueue()
    for parent in {id(parent): parent for parent in parents if parent.mapped}.values():
        left.put(parent)

    def work() -> None:
        try:
            while True:
                _ = left.get_nowait().digest
        except (Empty, OSError, MergeError):
            return

    count = min(left.qsize(), torch.get_num_threads())
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()

    def wait() -> None:
        for thread in threads:
            thread.join()

    return wait
