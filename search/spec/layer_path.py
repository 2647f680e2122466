"""Layer paths: the part of a study file that says through which layers of which models to go.

A path is a sequence of hops, each through one layer of one parent. Its first and last layers are
those of the entry model, whose embeddings, final norm, head and tokenizer are used; what stands
between is searched: order, repeats, what is dropped. Akiba et al., arXiv:2403.13187, section 3.2
(data flow space).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from merge_core.errors import Problems, join, shown
from merge_core.recipe.read_fields import Node
from merge_core.validation import Place, StrictModel, Words, failed, read, read_by
from search.spec import ranges
from search.spec.ranges import Knob

PATH: Place = ("slices", "path")
METHOD = "passthrough"
SCALE = "input_scale"
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B?\s*")
_BYTES = "a number of bytes, such as 800MB, 1.5GB or 1.5GiB"

Encoding = Literal["hops", "signs", "flags"]


@dataclass(frozen=True)
class LayerPath:
    """Which paths are searched, and how one is said in numbers.

    Args:
        parents: References of the models whose layers there are; the first is the entry model.
        repeats: How often a layer may come in a path, at least 1.
        max_layers: How many layers a path may have; None: as many as the entry model has.
        min_layers: How many it must have.
        max_bytes: What the weights of its layers may take, each layer counted once; None: no limit.
        keep_first: So many of the entry model's first layers begin every path, at least 1.
        keep_last: So many of its last layers end every path, at least 1.
        encoding: ``hops``: a choice of a layer, or none, for each hop. ``signs``: a number for each
            layer and repeat; those above 0 are in the path. ``flags``: the same as true or false.
        input_scale: The range of the factors that a hop multiplies its input by; None: it is 1.
    """

    parents: tuple[str, ...]
    repeats: int = 1
    max_layers: int | None = None
    min_layers: int = 1
    max_bytes: int | None = None
    keep_first: int = 1
    keep_last: int = 1
    encoding: Encoding = "hops"
    input_scale: Knob | None = None


def parse(data: Any, path: str, problems: Problems) -> LayerPath | None:
    """Read what stands under ``slices: path:``; add everything that is wrong to ``problems``."""
    found: Problems = []
    said = read(LayerPathKeys, data, path, found)
    problems.extend(found)
    return None if said is None else LayerPath(**dict(said))


def of_recipe(data: dict[str, Any], path: str, problems: Problems) -> LayerPath | None:
    """Read the path of a recipe section; add what is wrong with it, and with what stands beside it.

    Args:
        data: With a mapping under ``slices``.
        path: The section's key path.
        problems: See :data:`errors.Problems`.
    """
    stacks = f"the layers of a path are stacked as they are, by {METHOD!r}; omit it"
    if data.get("merge_method", METHOD) != METHOD:
        problems.append(
            (join(path, "merge_method"), f"{stacks}, got {shown(data['merge_method'])}")
        )
    rules = {
        "models": "a path names its models under `parents`; omit it",
        "modules": "a path is one stack of layers; omit it",
        "base_model": "config and tokenizer are those of the first of a path's parents; omit it",
    }
    problems += [(join(path, key), rule) for key, rule in rules.items() if data.get(key)]
    where = join(path, "slices")
    given = Node(data["slices"], where, problems).mapping("slices, or {path}", ("path",))
    if given is None or "path" not in given.data:
        problems += [(join(where, "path"), "required")] if given is not None else []
        return None
    return parse(given.data["path"], join(where, "path"), problems)


def stand_in(data: dict[str, Any], said: LayerPath | None) -> dict[str, Any]:
    """Return a recipe section with slices in place of its path: the first layer of each parent.

    So it is read by the rules for recipes, and names its models where recipes do.
    """
    named = said.parents if said is not None else ("entry",)
    rest = {k: x for k, x in data.items() if k not in ("models", "modules", "base_model")}
    one = [{"sources": [{"model": name, "layer_range": [0, 1]}]} for name in named]
    return {**rest, "merge_method": METHOD, "slices": one}


def is_path(slices: Any) -> bool:
    """Return whether what stands under ``slices`` is meant as a path, not as slices."""
    return isinstance(slices, dict)


def size(data: Any) -> Any:
    """Return the bytes that a number or a text such as ``1.5GB`` says."""
    if not isinstance(data, str):
        return data
    found = _SIZE.fullmatch(data)
    if found is None:
        raise ValueError(f"expected {_BYTES}, got {shown(data)}")
    unit = (found[2] or "").replace("K", "k")
    return int(float(found[1]) * _UNITS["Ki" if unit == "ki" else unit])


def _reference(data: Any, path: str, problems: Problems) -> str | None:
    return Node(data, path, problems).model()


def _distinct(parents: list[str]) -> tuple[str, ...]:
    twice = [i for i, name in enumerate(parents) if name in parents[:i]]
    if twice:
        rule = "listed before; `repeats` says how often a layer may come"
        raise failed(((i,), rule) for i in twice)
    return tuple(parents)


def _scale(data: Any, path: str, problems: Problems) -> Knob | None:
    """Read the range of the factors."""
    if data is None:
        return None
    if not isinstance(data, dict):
        problems.append((path, f"expected a range {{low, high}}, got {shown(data)}"))
        return None
    given = {"choices", "tied", "sum", "ordered", *ranges.UNITS} & data.keys()
    if given:
        rule = "every hop has a factor of its own in one range; omit it"
        problems += [(f"{path}.{key}", rule) for key in sorted(given)]
        return None
    return ranges.parse(data, (*PATH, SCALE), path, problems)


def _begins(count: Any) -> Any:
    if type(count) is int and count < 1:
        raise ValueError(
            f"a path begins with the entry model's first layer: 1 or more, got {count}"
        )
    return count


def _ends(count: Any) -> Any:
    if type(count) is int and count < 1:
        raise ValueError(f"a path ends with the entry model's last layer: 1 or more, got {count}")
    return count


class LayerPathKeys(StrictModel):
    """Keys of a layer path."""

    parents: Annotated[
        list[Annotated[str, read_by(_reference)]],
        Field(min_length=1, max_length=100, title="required: the models whose layers there are"),
        AfterValidator(_distinct),
        Words("a list of models, the entry model first"),
    ]
    repeats: int = Field(1, ge=1, le=100)
    max_layers: int | None = Field(None, ge=2, le=1000)
    min_layers: int = Field(1, ge=1, le=1000)
    max_bytes: Annotated[int | None, BeforeValidator(size), Field(ge=1), Words(_BYTES)] = None
    keep_first: Annotated[int, BeforeValidator(_begins)] = Field(1, le=1000)
    keep_last: Annotated[int, BeforeValidator(_ends)] = Field(1, le=1000)
    encoding: Encoding = "hops"
    input_scale: Annotated[Knob | None, read_by(_scale)] = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> LayerPathKeys:
        most = self.max_layers
        kept = self.keep_first + self.keep_last
        found: list[tuple[Place, str]] = []
        if most is not None and kept >= most:
            rule = f"must be above keep_first + keep_last, which are {kept}, got {most}"
            found.append((("max_layers",), rule))
        if most is not None and self.min_layers > most:
            rule = f"must be at most max_layers, which is {most}, got {self.min_layers}"
            found.append((("min_layers",), rule))
        if found:
            raise failed(found)
        return self
