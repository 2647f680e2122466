"""A config for another number of layers or tokens: the key that counts them is found by trying."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from merge_core.architecture import model_class
from merge_core.errors import CheckpointError

TIES = "tie_word_embeddings"


def with_layers(
    config: Mapping[str, Any], stack: str, picked: Sequence[tuple[Mapping[str, Any], int]]
) -> dict[str, Any]:
    """Return a config whose ``stack``, such as ``model.layers``, has other layers.

    The key that counts them is found by trying: which number, when changed, changes the stack
    and nothing else. Lists with one entry per layer beside it are picked from, too. ``picked`` is
    for every layer of the result the config and the layer number it comes from.

    Raises:
        CheckpointError: No such key is found.
    """
    counts = _counts(config)
    now, wanted = counts[stack], len(picked)
    for place, key in _numbers(config, now):
        probe = _edited(config, place, key, picked, now)
        grown = _edited(config, place, key, [*picked, picked[-1]], now)
        trial, more = (probe, 0) if wanted != now else (grown, 1)
        try:
            after = _counts(trial)
        except CheckpointError:
            continue
        if after == {**counts, stack: wanted + more}:
            return probe
    raise CheckpointError(f"{stack}: no key of the config sets its number of layers")


def with_vocabulary(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return a config for a vocabulary of another size.

    Raises:
        CheckpointError: No key of it sets the number of embeddings.
    """
    found = model_class.read(config, "config")
    rows = {found.shapes[name][0] for name in found.vocabulary}
    changed = copy.deepcopy(dict(config))
    for now in rows:
        for place, key in _numbers(config, now):
            if "vocab" in key:
                _at(changed, place)[key] = size
    after = model_class.read(changed, "config")
    if {after.shapes[name][0] for name in after.vocabulary} != {size}:
        raise CheckpointError("no key of the config sets the number of token embeddings")
    return changed


def untied(config: Mapping[str, Any], apart: Collection[str]) -> dict[str, Any]:
    """Return a config whose class does not tie the tensors ``apart`` to others.

    Where the class ties them whatever its config says, the config stays what it is: transformers
    then unties what is stored with different values.
    """
    if not apart:
        return dict(config)
    effective = model_class.config_of(config).to_dict()
    places = [(), *(place for place, key in _walk(effective, (), True) if key == TIES)]
    changed = copy.deepcopy(dict(config))
    for place in places:
        _at(changed, place)[TIES] = False
        if model_class.read(changed, "config").tied.keys().isdisjoint(apart):
            return changed
    return dict(config)


def _counts(config: Mapping[str, Any]) -> dict[str | None, int]:
    return {x.stack: x.count for x in model_class.read(config, "config").stacks}


def _numbers(config: Mapping[str, Any], value: int) -> list[tuple[tuple[str, ...], str]]:
    """Return where a config, defaults included, has a number; likely layer counts first."""
    found = list(_walk(model_class.config_of(config).to_dict(), (), value))
    return sorted(found, key=lambda x: not re.search("layer|depth|block", x[1]))


def _walk(
    data: Mapping[str, Any], place: tuple[str, ...], value: object
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, member in data.items():
        if isinstance(member, dict):
            yield from _walk(member, (*place, key), value)
        elif type(member) is type(value) and member == value:
            yield place, key


def _at(data: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for key in place:
        data = data.setdefault(key, {})
    return data


def _edited(
    config: Mapping[str, Any],
    place: tuple[str, ...],
    key: str,
    picked: Sequence[tuple[Mapping[str, Any], int]],
    now: int,
) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    owner = _at(changed, place)
    owner[key] = len(picked)
    for name, value in owner.items():
        if isinstance(value, list) and len(value) == now:
            lists = [(_at(copy.deepcopy(dict(c)), place).get(name, value), i) for c, i in picked]
            owner[name] = [entries[i] for entries, i in lists]
    return changed
