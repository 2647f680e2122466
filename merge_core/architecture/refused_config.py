"""What transformers raises about a ``config.json``, as one line that names the key.

Which key it is, is found by trying: the one without which nothing is raised, or something else.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from merge_core.errors import CheckpointError

T = TypeVar("T")
Path = tuple[str, ...]

# Keys that count parts of a model, where transformers makes an object for each part.
COUNTS = re.compile(r"(layer|depth|block|stage|expert|group|level|label|codebook|quantizer)s?$")
LEAST = 10_000  # parts that any model may have, whatever its folder holds
WEIGHTS = 16  # weights that a class may make for each stored tensor, and
FEW = 2_000  # so many more
SECONDS = 2.0  # for finding the key
ASKED = ("model_type",)  # without it transformers is asked something else
SUSPECTS = 3  # keys that are named where it is none alone
LONG = 60  # characters of a value that are shown


def tried(
    config: Mapping[str, Any], make: Callable[[Mapping[str, Any]], T], tensors: int | None = None
) -> T:
    """Return what ``make`` makes of a config; whatever it raises is one error.

    Args:
        config: Contents of ``config.json``.
        make: Asks transformers.
        tensors: How many tensors the model's folder has, if that is known: a model that has far
            more is refused before it is made.

    Raises:
        CheckpointError: ``make`` raised, or the config counts more than there can be.
    """
    _check_counts(config, tensors)
    try:
        with _at_most(tensors):
            return make(config)
    except Exception as error:  # transformers has no class of its own for them
        keys = _culprits(config, make, tensors, error)
        found = " or ".join(f"{'.'.join(key)} = {_shown(_get(config, key))}" for key in keys)
        where = f"{found}: " if found else ""
        raise CheckpointError(
            f"transformers makes no model of its config.json: {where}{said(error)}"
        ) from error


def said(error: BaseException) -> str:
    """Return the whole message of an error in one line, with its kind where it does not speak."""
    text = " ".join(str(error).split())
    bare = isinstance(error, (LookupError, AttributeError, AssertionError, ArithmeticError))
    return f"{type(error).__name__}: {text}".removesuffix(": ") if bare or not text else text


class _TooManyError(ValueError):
    """A model has far more weights than its folder has tensors."""


def _check_counts(config: Mapping[str, Any], tensors: int | None) -> None:
    most = max(LEAST, tensors or 0)
    for path in _paths(config):
        value = _get(config, path)
        entries = value if isinstance(value, list) else [value]
        large = [x for x in entries if isinstance(x, (int, float)) and x > most]
        if large and COUNTS.search(path[-1]):
            has = "" if tensors is None else f"; the folder has {tensors} tensors"
            raise CheckpointError(
                f"config.json: {'.'.join(path)} = {_shown(value)}: more than there can be{has}"
            )


@contextmanager
def _at_most(tensors: int | None) -> Iterator[None]:
    """Stop a model that is being made, in this thread, at far more weights than ``tensors``."""
    from torch.nn.modules import module

    if tensors is None:
        yield
        return
    here, most, made = threading.get_ident(), WEIGHTS * tensors + FEW, 0

    def count(*_: Any) -> None:
        nonlocal made
        made += threading.get_ident() == here
        if made > most:
            raise _TooManyError(
                f"it describes more than {most} weights, the folder has {tensors} tensors"
            )

    handle = module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _culprits(
    config: Mapping[str, Any],
    make: Callable[[Mapping[str, Any]], Any],
    tensors: int | None,
    error: Exception,
) -> list[Path]:
    """Return the key without which the error goes away, else those without which it is another.

    Keys that the error names are tried first.
    """
    text, start, others = said(error), time.monotonic(), []
    paths = [path for path in _paths(config) if path[-1] not in ASKED]
    named = [path for path in paths if re.search(rf"(?<!\w){re.escape(path[-1])}(?!\w)", text)]
    counts = [path for path in paths if COUNTS.search(path[-1])]
    for path in [*named, *counts, *paths]:
        if time.monotonic() - start > SECONDS:
            break
        other = _raised(_without(config, path), make, tensors)
        if other is None or (path in named and other != text):
            return [path]
        if other != text and path not in others:
            others.append(path)
    return named[:1] or others[:SUSPECTS]


def _raised(
    config: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Any], tensors: int | None
) -> str | None:
    try:
        with _at_most(tensors):
            make(config)
    except Exception as error:  # only whether it is another one is asked
        return said(error)
    return None


def _paths(config: Mapping[str, Any], start: Path = ()) -> Iterator[Path]:
    """Yield where every value of a config is, inner ones first."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _paths(value, (*start, key))
        yield (*start, key)


def _get(config: Mapping[str, Any], path: Path) -> Any:
    value: Any = config
    for key in path:
        value = value[key]
    return value


def _without(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {key: value for key, value in config.items() if key != first}
    return {**config, first: _without(config[first], tuple(rest))}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."
