"""``mergetune import-mergekit``: a plain recipe -> a study that begins with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from merge_core.contract import Param
from merge_core.errors import ParameterError, join
from merge_core.methods.registry import method
from merge_core.recipe.read import Reading, reading_of
from merge_core.recipe.schema import Recipe, Scalar
from merge_core.recipe.yaml_document import read_all
from merge_core.validation import Place
from search.draft.init import SAMPLER, head
from search.draft.knobs import TENSORS, Spread, is_searched, spread_over, usual
from search.draft.layered import INSTEAD, Case, Cases, layered
from search.draft.models import Paths, Seen, look, other_vocabulary
from search.draft.tasks import Asked, entries
from search.draft.write import Draft, Written, study_file_of, write
from search.space.space import Space
from search.space.units import Drawn

ORIGINAL = "original"
WIDER = 1.5  # a range reaches so far beyond a number that is outside the usual one
MOE = ("experts", "gate_mode")


def import_mergekit(recipe: Path, asked: Asked, trials: int, out: Path, *, tasks: bool) -> Written:
    """Write a study file that searches around the numbers of a recipe.

    Args:
        recipe: The recipe file.
        asked: The tasks.
        trials: The budget.
        out: The file, or the folder that gets it as ``study.yaml``.
        tasks: Open the tasks, to count their items.

    Raises:
        DocumentError: The recipe breaks rules.
        OutputExistsError: The file is there already.
        MergeError: It makes no study; the reason.
    """
    file = study_file_of(out)
    reading = _searchable(recipe)
    paths = Paths.from_file(recipe, file)
    score = entries(asked, Paths.from_here(file))
    study = _Study(reading.recipe, paths, trials)
    notes = {p.path: f"not carried over: {p.rule}" for p in reading.notices.found} | study.notes
    told = [f"{key}: {text}" for key, text in notes.items()]
    comments = {**study.comments, "score": "what counts, each with the same weight"}
    draft = Draft(
        study.recipe,
        score.plain,
        {"sampler": "auto", "seed": 0, "trials": trials},
        {**comments, **score.comments, "search": SAMPLER},
        [head(file, f"mergetune import-mergekit {recipe.name}"), *told],
        score.known,
        {ORIGINAL: study.original},
        study.start if study.several else None,
        notes=notes,
    )
    return write(draft, file, tasks=tasks)


def _searchable(file: Path) -> Reading:
    """Read a recipe whose numbers a study can search.

    Raises:
        DocumentError: It breaks rules.
        ParameterError: It is of a kind that no study searches.
    """
    documents = read_all(file)
    for document in documents:
        moe = [key for key in MOE if isinstance(document.data, dict) and key in document.data]
        if moe:
            raise ParameterError(
                f"{file}: {moe[0]}: is a configuration of mergekit-moe, which routes between "
                f"experts and merges nothing; a study cannot search it"
            )
    reading = reading_of(documents)
    if reading.recipe.documents:
        names = ", ".join(str(one.name) for one in reading.recipe.documents)
        raise ParameterError(
            f"{file}: documents: {names}: a study searches one recipe; merge each of these by "
            f"`mergetune merge` and name its folder as a model"
        )
    if reading.recipe.modules:
        raise ParameterError(f"{file}: modules: {INSTEAD}")
    return reading


class _Study:
    """The recipe section of a study, and the recipe that it begins with."""

    def __init__(self, recipe: Recipe, paths: Paths, trials: int) -> None:
        self._paths, self._method = paths, method(recipe.merge_method)
        self.comments: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.seen: Seen | None = look(recipe.base_model or recipe.names()[0], paths.roots)
        layers = self.seen.layers if self.seen else None
        self._of = layered(recipe, layers)
        self._note(recipe, layers)
        self._spread = self._chosen(layers, trials)
        self._numbers: dict[Place, tuple[float, ...]] = {}
        self.recipe = self._section(recipe)
        names = {name: paths.reference(name) for name in recipe.names()}
        plain = replace(recipe, tokenizer=None, name=None)
        self.original = plain.with_references(names)

    @property
    def several(self) -> bool:
        """Whether a range has several numbers of the recipe, of which none alone is its start."""
        return any(len(set(numbers)) > 1 for numbers in self._numbers.values())

    def start(self, space: Space) -> dict[str, Drawn]:
        """Return the point that has the recipe's numbers."""
        found: dict[str, Drawn] = {}
        for at, numbers in self._numbers.items():
            dimensions = space.at(at)
            each = numbers if len(numbers) == len(dimensions) else numbers * len(dimensions)
            found |= {d.name: x for d, x in zip(dimensions, each, strict=True)}
        return found

    def _note(self, recipe: Recipe, layers: int | None) -> None:
        if recipe.tokenizer is not None:
            main = recipe.base_model or recipe.names()[0]
            self.notes["tokenizer"] = other_vocabulary(main)
        if self._method.base == "none" and self._of.base not in (None, *self._of.models):
            rule = f"not carried over: {recipe.merge_method} has no base"
            self.notes["base_model"] = f"{rule}; config and tokenizer are those of the first model"
        if self._of.bands:
            count = self._of.bands[-1][1] + 1
            known = f"all {count} layers" if layers else f"{count} layers, taken for all of them"
            self.notes["slices"] = f"{known} in their places, so they are `models` here"

    def _searched(self, cases: Mapping[str, list[Case]]) -> list[tuple[Param, Case]]:
        """Return the numbers that become knobs."""
        params = [(self._method.param(name), listed) for name, listed in cases.items()]
        return [
            (param, case)
            for param, listed in params
            if param is not None and is_searched(param)
            for case in listed
        ]

    def _chosen(self, layers: int | None, trials: int) -> Spread:
        """Return how the main parameter's plain numbers go over the layers."""
        owners = (*self._of.models.values(), self._of.shared)
        every = [pair for cases in owners for pair in self._searched(cases)]
        if not every:
            raise ParameterError(
                f"the recipe gives {self._method.name!r} no number that a study could search; "
                f"see `mergetune methods {self._method.name}`"
            )
        lead = self._method.params[0]
        plain = [case for param, case in every if param is lead and not case.keys]
        if not plain or lead.smooth:
            return TENSORS
        beside = sum(len(case.values) for _, case in every) - len(plain)
        return spread_over(layers, len(plain), beside, trials)

    def _section(self, recipe: Recipe) -> dict[str, Any]:
        found: dict[str, Any] = {"merge_method": recipe.merge_method}
        base = self._of.base
        if base is not None and (self._method.base != "none" or base in self._of.models):
            found["base_model"] = self._paths.model(base)
        models = []
        for i, (name, cases) in enumerate(self._of.models.items()):
            given = self._parameters(cases, ("models", i, "parameters"))
            own = {"parameters": given} if given else {}
            models.append({"model": self._paths.model(name), **own})
        found["models"] = models
        if self._of.shared:
            found["parameters"] = self._parameters(self._of.shared, ("parameters",))
        plain = ("dtype", "out_dtype", "chat_template", "seed")
        return found | {key: getattr(recipe, key) for key in plain if getattr(recipe, key)}

    def _parameters(self, cases: Cases, place: Place) -> dict[str, Any]:
        return {name: self._setting(name, x, (*place, name)) for name, x in cases.items()}

    def _setting(self, name: str, cases: list[Case], place: Place) -> Any:
        param = self._method.param(name)
        alone = len(cases) == 1 and not cases[0].filter
        places = [place if alone else (*place, i, "value") for i in range(len(cases))]
        if param is None or not self._searched({name: cases}):
            values = [_kept(name, case) for case in cases]
        else:
            pairs = zip(cases, places, strict=True)
            values = [self._knob(param, case, where) for case, where in pairs]
            self.comments[reduce(join, place, "recipe")] = self._words(param, cases)
        if alone:
            return values[0]
        parts = [{"filter": case.filter} if case.filter else {} for case in cases]
        return [{**part, "value": value} for part, value in zip(parts, values, strict=True)]

    def _words(self, param: Param, cases: list[Case]) -> str:
        said = "; ".join(", ".join(map(_shown, case.values)) for case in cases)
        words = [param.meaning, f"in the recipe: {said}"]
        if param is self._method.params[0] and not all(case.keys for case in cases):
            words.append(self._spread.words)
        return "; ".join(words)

    def _knob(self, param: Param, case: Case, place: Place) -> dict[str, Any]:
        lead, numbers = param is self._method.params[0], tuple(float(x) for x in case.values)
        self._numbers[place] = numbers
        spread = self._spread.keys if lead and not case.keys else case.keys
        start = {"start": numbers[0]} if len(set(numbers)) == 1 else {}
        return {**around(param, numbers), **spread, **start}


def around(param: Param, numbers: Sequence[float]) -> dict[str, Any]:
    """Return the usual range of a parameter, made wider where numbers are outside of it."""
    found = usual(param)
    low, high = min(numbers), max(numbers)
    if high > found["high"]:
        found["high"] = min(_rounded(high * WIDER), param.maximum)
    if low < found["low"]:
        lower = max(_rounded(low * WIDER if low < 0 else low / WIDER), param.minimum)
        found["low"] = lower if lower > param.above else low
    if found["low"] <= 0:
        found.pop("log", None)
    return found


def _kept(name: str, case: Case) -> Any:
    """Return what is no number to search as it stands.

    Raises:
        ParameterError: Slices have it differently.
    """
    if len(set(map(repr, case.values))) == 1:
        return case.values[0]
    if "gradient" in case.keys:
        return list(case.values)
    raise ParameterError(f"{name}: not all slices have the same value; {INSTEAD}")


def _shown(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
