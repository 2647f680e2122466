"""Opening tasks with what is on this disk, and nothing from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

WORDS = ("OfflineModeIsEnabled", "offline mode is enabled")  # of the hub's libraries


@contextmanager
def cache_only() -> Iterator[None]:
    """Let nothing be fetched from the hub; what its cache has is found.

    The libraries read their environment variable when they are imported, so it is put where they
    keep it.
    """
    from datasets import config  # imports pyarrow and pandas

    hub = config.constants
    before = config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before


def is_absent(error: BaseException) -> bool:
    """Return whether an error is that something was not in the hub's cache."""
    link: BaseException | None = error
    while link is not None:
        if any(word in f"{type(link).__name__} {link}" for word in WORDS):
            return True
        link = link.__cause__ or link.__context__
    return False
