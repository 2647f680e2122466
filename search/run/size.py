"""How large a study is, before anything is built: candidates, memory, and dimensions that fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from merge_core.architecture import layers
from merge_core.parents import lora, lora_keys
from merge_core.parents.locate import local_folder, locate_here
from merge_core.parents.weight_files import TensorInfo, files_of
from merge_core.recipe.model_reference import parse
from search.space.path_space import cut_sizes
from search.space.space import Space
from search.space.starting_points import DEFAULTS, PARENT, SIMPLE, baselines
from search.spec.ranges import UNITS, Knob
from search.spec.study_file import StudySpec
from search.trial.budget import Budget
from search.trial.builder import candidate_bytes
from search.trial.slopes import ALONE, FIRST, without_slopes

UNSPREAD: dict[str, Any] = dict.fromkeys(UNITS[1:])  # of a range that is not spread
TRIALS_PER_DIMENSION = 4  # fewer than that, and a noisy search hardly moves (dev/LOG.md)


@dataclass(frozen=True)
class Counts:
    """How many candidates a study has, by what becomes of them; the last three at most.

    Args:
        baselines, trials: On the search pool.
        select: Finalists and parents.
        report: Those on the whole report pool.
        again: Other finalists on a part of it, as large as the select pool.
    """

    baselines: int
    trials: int
    select: int
    report: int
    again: int

    @classmethod
    def of(cls, spec: StudySpec, space: Space, budget: Budget) -> Counts:
        """Return those of a study that begins with a budget and uses it up."""
        names = [baseline.name for baseline in baselines(spec, space)]
        names += [f"{SIMPLE}path=" for _ in cut_sizes(space)] if spec.engine.name == "hf" else []
        simple = sum(name.startswith(SIMPLE) or name == DEFAULTS for name in names)
        trials = budget.trials if space.dimensions else 0
        finalists = min(spec.search.finalists, trials + len(names))
        front = finalists if spec.aggregate == "apart" else 1
        shown = len(names) - simple + min(simple, 1)
        parents = sum(name.startswith(PARENT) for name in names)
        return cls(len(names), trials, finalists + parents, shown + front, finalists - front)


def memory(
    spec: StudySpec, tensors: Mapping[str, TensorInfo], own: int | None = None
) -> dict[str, int]:
    """Return bytes by what needs them, from the headers of files that are here.

    Args:
        spec: The study.
        tensors: Those of the model that candidates are like.
        own: What a candidate needs, where that is known; None: as much as that model.

    Returns:
        ``model``: the live one, of a stack what it does not share with parents; ``parents``: their
        files, each once; ``computed once``.
    """
    found = {
        "model": candidate_bytes(spec.template, tensors) if own is None else own,
        "parents": _parents_bytes(spec),
        "computed once": once(spec, tensors)[1],
    }
    return {key: round(value) for key, value in found.items()}


def once(spec: StudySpec, tensors: Mapping[str, TensorInfo]) -> tuple[float, float]:
    """Return about what thresholds, ranks and sums of the parents cost once, on two cores.

    Returns:
        Seconds, and the bytes that are kept.
    """
    methods, others = spec.template.methods(), len(spec.template.references()) - 1
    entries = sum(math.prod(info.shape) for info in tensors.values()) * others
    seconds = sum(method.once_ns for method in methods) * 1e-9 * entries
    return seconds, sum(method.once_bytes for method in methods) * entries


def too_many(spec: StudySpec, space: Space, tensors: Iterable[str]) -> str | None:
    """Say that a study has more dimensions than its trials can search, and what would fit."""
    trials, sampler = spec.search.trials, spec.search.sampler
    has_slopes = without_slopes(spec, space) is None
    steps = has_slopes and sampler in (ALONE, FIRST)
    count = sum(not steps or d.name not in space.smooth for d in space.dimensions)
    if trials >= TRIALS_PER_DIMENSION * count:
        return None
    most = trials // TRIALS_PER_DIMENSION
    other = [f"`sampler: {FIRST}`"] if has_slopes and not steps else []
    advice = [fitting(space, tensors, most), *other, f"plan {TRIALS_PER_DIMENSION * count} trials"]
    return (
        f"{count} dimensions are many for {trials} trials, which can search about {most}: "
        f"{', or '.join(filter(None, advice))}"
    )


def fitting(space: Space, tensors: Iterable[str], most: int) -> str:
    """Return the finest bands of layers that make at most so many dimensions, in words.

    Args:
        space: What the study file asks for.
        tensors: Names of all tensors of the models.
        most: How many dimensions are wanted.
    """
    numbers, names = Counter(map(_shared, (d.knob for d in space.dimensions))), tuple(tensors)
    if not any(knob.spread for knob in space.template.knobs):
        return ""
    for per, bands in _bands(names):
        knobs = tuple(
            replace(knob, **UNSPREAD, **_band(knob, per))
            if knob.spread and numbers[_shared(knob)] > bands
            else knob
            for knob in space.template.knobs
        )
        found = len(Space(replace(space.template, knobs=knobs), names).dimensions)
        if found <= most:
            break
    shape = f"`per: {per}`" if per else "one number"
    return f"{shape} for each range that is finer makes {found}"


def _shared(knob: Knob) -> object:
    """Return what is the same for places that share their numbers."""
    return knob.tied or knob.place


def _band(knob: Knob, per: int | None) -> dict[str, Any]:
    return {"per": per, "ordered": knob.ordered and per is not None}


def _bands(names: Sequence[str]) -> Iterator[tuple[int | None, int]]:
    """Yield how many layers may share a number, and the bands that makes, from fine to coarse."""
    stacks = layers.stacks(names)
    depth = stacks[0].count if len(stacks) == 1 else 0
    sizes = {math.ceil(depth / per): per for per in range(depth - 1, 1, -1)}
    yield from ((per, bands) for bands, per in sorted(sizes.items(), reverse=True))
    yield None, 1


def _parents_bytes(spec: StudySpec) -> int:
    files: set[Path] = set()
    for reference in spec.template.references():
        folder = locate_here(reference, spec.roots)
        if folder is not None:
            files |= {(folder / name).resolve() for name in files_of(folder)[0]}
        if local_folder(reference, spec.roots) is None and (adapter := parse(reference).lora):
            beside = local_folder(adapter, spec.roots)
            names = (lora_keys.WEIGHTS, lora.PICKLE) if beside else ()
            files |= {(beside / name).resolve() for name in names if beside}
    return sum(file.stat().st_size for file in files if file.is_file())
