"""A config for another number of layers or tokens: the key that counts them is found by trying."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from merge_core.architecture import layer_kinds, model_class
from merge_core.errors import CheckpointError

TIES = "tie_word_embeddings"
NUMBERS = re.compile(r"layers?$|idxs?$|ind(ex|ices)$|ids?$")  # of layers, in lists
OTHER_LISTS = re.compile(r"^architectures$|_token_ids?$")

Place = tuple[str, ...]  # keys that lead to a part of a config
Picked = tuple[Mapping[str, Any], int]  # a config and the number of one of its layers


def with_layers(config: Mapping[str, Any], stack: str, picked: Sequence[Picked]) -> dict[str, Any]:
    """Return a config whose ``stack``, such as ``model.layers``, has other layers.

    The key that counts them is found by trying: which number, when changed, changes the stack
    and nothing else. Beside it lists with one entry per layer are picked from, be they in the
    config or its class's defaults, and lists of layer numbers are numbered anew.

    Args:
        config: The one to change.
        stack: What stands before the layers' numbers.
        picked: For every layer of the result the config and the layer number it comes from.

    Raises:
        CheckpointError: No such key is found; a layer would be of another kind than it was.
    """
    place, key = _counting_key(config, stack, picked)
    changed = _edited(config, place, key, picked, _counts(config)[stack])
    return _of_the_same_kinds(changed, place, stack, picked)


def _counting_key(
    config: Mapping[str, Any], stack: str, picked: Sequence[Picked]
) -> tuple[Place, str]:
    """Return where the number of a stack's layers stands: tried with a layer more, else as asked.

    Raises:
        CheckpointError: No key sets it.
    """
    found = _key_by_growing(_text(config), stack)
    if found is None:  # a class that takes no single layer more
        found = _tried(config, stack, picked)
    if found is None:
        raise CheckpointError(f"{stack}: no key of the config sets its number of layers")
    return found


@lru_cache(maxsize=64)
def _key_by_growing(config: str, stack: str) -> tuple[Place, str] | None:
    given = json.loads(config)
    now = _counts(given)[stack]
    return _tried(given, stack, [(given, min(i, now - 1)) for i in range(now + 1)])


def _tried(
    config: Mapping[str, Any], stack: str, picked: Sequence[Picked]
) -> tuple[Place, str] | None:
    """Return the key that, changed for the layers that are picked, changes this stack alone."""
    counts = _counts(config)
    now = counts[stack]
    more = [picked[-1]] if len(picked) == now else []
    for place, key in _numbers(config, now):
        try:
            after = _counts(_edited(config, place, key, [*picked, *more], now))
        except CheckpointError:
            continue
        if after == {**counts, stack: len(picked) + len(more)}:
            return place, key
    return None


def _of_the_same_kinds(
    config: dict[str, Any], place: Place, stack: str, picked: Sequence[Picked]
) -> dict[str, Any]:
    """Return the config under which every layer is what it was; entries of lists decide."""
    said: list[str] = []
    for data in _with_lists(config, place, picked):
        try:
            change = _changed(data, stack, picked)
        except CheckpointError:  # numbers that were none of layers
            continue
        if change is None:
            return data
        said.append(change)
    raise CheckpointError(
        f"{said[-1]}; no list of the config says so for each layer; choose layers for which it is "
        f"the same"
    )


def _with_lists(
    config: dict[str, Any], place: Place, picked: Sequence[Picked]
) -> Iterator[dict[str, Any]]:
    """Yield what a config may say of its layers, the least change first."""
    yield config
    made = _with_defaults(config, place, picked)
    yield made
    yield _renumbered(config, place, picked)
    yield _renumbered(made, place, picked)


def _changed(config: Mapping[str, Any], stack: str, picked: Sequence[Picked]) -> str | None:
    """Return which layer would be of another kind than it was, and how."""
    made = model_class.kinds(config, stack)
    before = {id(given): model_class.kinds(given, stack) for given, _ in _distinct(picked)}
    for out, (given, index) in enumerate(picked):
        was, now = before[id(given)][index], made[out]
        name = layer_kinds.difference(was, index, now, out)
        if name is not None:
            return (
                f"{stack}.{out}: the parent's layer {index} has {name} = {was.get(name)!r}, here "
                f"it would be {now.get(name)!r}"
            )
    return None


def _with_defaults(
    config: Mapping[str, Any], place: Place, picked: Sequence[Picked]
) -> dict[str, Any]:
    """Write the lists with an entry per layer that the class makes up by a layer's number."""
    changed = copy.deepcopy(dict(config))
    whole = _whole(picked, place)
    for name, value in _effective(config, place).items():
        if _is_per_layer(name, value, len(picked)):
            wanted = _entries(name, whole)
            if wanted is not None and wanted != value:
                _at(changed, place)[name] = wanted
    return changed


def _entries(name: str, picked: Sequence[Picked]) -> list[Any] | None:
    """Return an entry for every layer from the lists that parts of configs have, if they have."""
    found: list[Any] = []
    for data, i in picked:
        entries = data.get(name)
        if not isinstance(entries, list) or i >= len(entries):
            return None
        found.append(entries[i])
    return found


def _renumbered(
    config: Mapping[str, Any], place: Place, picked: Sequence[Picked]
) -> dict[str, Any]:
    """Write lists of layer numbers for the layers' new places."""
    changed = copy.deepcopy(dict(config))
    owner, whole = _at(changed, place), _whole(picked, place)
    for name, value in whole[0][0].items():
        numbers = isinstance(value, list) and all(type(x) is int for x in value)
        if numbers and value and sorted({*value}) == value and NUMBERS.search(name):
            owner[name] = [out for out, (data, i) in enumerate(whole) if i in data.get(name, ())]
    return changed


def _is_per_layer(name: str, value: object, layers: int) -> bool:
    return isinstance(value, list) and len(value) == layers and not OTHER_LISTS.search(name)


def _effective(config: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return a part of a config, defaults included; not to be written to."""
    return _at(_filled_in(_text(config)), place)


@lru_cache(maxsize=64)
def _filled_in(config: str) -> dict[str, Any]:
    """Return a config with its class's defaults; not to be written to."""
    found: dict[str, Any] = model_class.config_of(json.loads(config)).to_dict()
    return found


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config)


def _distinct(picked: Sequence[Picked]) -> list[Picked]:
    """Return one layer of each config: there are few configs, and many layers."""
    return [*{id(given): (given, i) for given, i in picked}.values()]


def _whole(picked: Sequence[Picked], place: Place) -> list[Picked]:
    """Return picked layers with that part of their configs, defaults included."""
    parts = {id(given): _effective(given, place) for given, _ in _distinct(picked)}
    return [(parts[id(given)], i) for given, i in picked]


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
    effective = _filled_in(_text(config))
    places = [(), *(place for place, key in _walk(effective, (), True) if key == TIES)]
    changed = copy.deepcopy(dict(config))
    for place in places:
        _at(changed, place)[TIES] = False
        if model_class.read(changed, "config").tied.keys().isdisjoint(apart):
            return changed
    return dict(config)


def _counts(config: Mapping[str, Any]) -> dict[str | None, int]:
    return {x.stack: x.count for x in model_class.read(config, "config").stacks}


def _numbers(config: Mapping[str, Any], value: int) -> list[tuple[Place, str]]:
    """Return where a config, defaults included, has a number; likely layer counts first."""
    found = list(_walk(_filled_in(_text(config)), (), value))
    return sorted(found, key=lambda x: not re.search("layer|depth|block", x[1]))


def _walk(data: Mapping[str, Any], place: Place, value: object) -> Iterator[tuple[Place, str]]:
    for key, member in data.items():
        if isinstance(member, dict):
            yield from _walk(member, (*place, key), value)
        elif type(member) is type(value) and member == value:
            yield place, key


def _at(data: dict[str, Any], place: Place) -> dict[str, Any]:
    for key in place:
        data = data.setdefault(key, {})
    return data


def _given_at(data: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """Return the part of a config that is there, or nothing."""
    for key in place:
        data = data.get(key) or {}
    return data


def _edited(
    config: Mapping[str, Any], place: Place, key: str, picked: Sequence[Picked], now: int
) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    owner = _at(changed, place)
    parts = [(_given_at(given, place), i) for given, i in picked]
    for name, value in owner.items():
        if _is_per_layer(name, value, now):
            own = [({name: value, **part}, i) for part, i in parts]
            owner[name] = _entries(name, own) or value
    owner[key] = len(picked)
    return changed
