"""``mergetune import-mergekit``: a plain recipe -> a study that begins with its numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from merge_core.errors import ParameterError
from merge_core.methods.registry import method
from merge_core.recipe.read import Reading, reading_of
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import read_all
from search.draft.init import SAMPLER, head
from search.draft.knobs import TENSORS, Spread, spread_over
from search.draft.layered import StackedError, layered
from search.draft.mixed import Mixed
from search.draft.models import Paths, Seen, look, other_vocabulary
from search.draft.numbers import Numbers, nothing_to_search
from search.draft.stacked import Stacked
from search.draft.tasks import Asked, entries
from search.draft.write import Draft, Written, study_file_of, write
from search.space.space import Space
from search.space.units import Drawn

ORIGINAL = "original"


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
    study = _study(reading.recipe, paths, trials)
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
        study.start if isinstance(study, _Study) and study.several else None,
        notes=notes,
    )
    return write(draft, file, tasks=tasks)


def _searchable(file: Path) -> Reading:
    """Read a recipe whose numbers a study can search.

    Raises:
        DocumentError: It breaks rules.
        ParameterError: It is of a kind that no study searches.
    """
    reading = reading_of(read_all(file))
    if reading.recipe.documents:
        names = ", ".join(str(one.name) for one in reading.recipe.documents)
        raise ParameterError(
            f"{file}: documents: {names}: a study searches one recipe; merge each of these by "
            f"`mergetune merge` and name its folder as a model"
        )
    return reading


def _study(recipe: Recipe, paths: Paths, trials: int) -> _Study | Stacked | Mixed:
    if recipe.moe is not None:
        return Mixed(recipe, paths)
    if recipe.modules:
        return Stacked(recipe, paths)
    try:
        return _Study(recipe, paths, trials)
    except StackedError as why:
        return Stacked(recipe, paths, str(why))


class _Study:
    """The recipe section of a study, and the recipe that it begins with."""

    def __init__(self, recipe: Recipe, paths: Paths, trials: int) -> None:
        self._paths, self._method = paths, method(recipe.merge_method)
        self.notes: dict[str, str] = {}
        self.seen: Seen | None = look(recipe.base_model or recipe.names()[0], paths.roots)
        layers = self.seen.layers if self.seen else None
        self._of = layered(recipe, layers)
        self._note(recipe, layers)
        self._numbers = Numbers(self._method)
        self._numbers.spread = self._chosen(layers, trials)
        self.recipe = self._section(recipe)
        self.comments = self._numbers.comments
        names = {name: paths.reference(name) for name in recipe.names()}
        plain = replace(recipe, tokenizer=None, name=None)
        self.original = plain.with_references(names)

    @property
    def several(self) -> bool:
        """Whether a range has several numbers of the recipe, of which none alone is its start."""
        return any(len(set(numbers)) > 1 for numbers in self._numbers.at.values())

    def start(self, space: Space) -> dict[str, Drawn]:
        """Return the point that has the recipe's numbers."""
        found: dict[str, Drawn] = {}
        for at, numbers in self._numbers.at.items():
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

    def _chosen(self, layers: int | None, trials: int) -> Spread:
        """Return how the main parameter's plain numbers go over the layers."""
        owners = (*self._of.models.values(), self._of.shared)
        every = [pair for cases in owners for pair in self._numbers.searched(cases)]
        if not every:
            raise nothing_to_search(self._method)
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
            given = self._numbers.parameters(cases, ("models", i, "parameters"))
            own = {"parameters": given} if given else {}
            models.append({"model": self._paths.model(name), **own})
        found["models"] = models
        if self._of.shared:
            found["parameters"] = self._numbers.parameters(self._of.shared, ("parameters",))
        plain = ("dtype", "out_dtype", "chat_template", "seed")
        return found | {key: getattr(recipe, key) for key in plain if getattr(recipe, key)}
