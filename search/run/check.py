"""What a study file or a recipe would do, without loading a model; torch only for its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError, Notices, Problems
from merge_core.parents.locate import locate_cached, locate_here, not_local
from merge_core.parents.weight_files import shapes_of, tensor_infos
from merge_core.plan import stack_fit
from merge_core.recipe.read import Reading, reading_of
from merge_core.recipe.yaml_document import Document, read_all
from merge_core.tokenizer.chat_template import check_chat_templates
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from search.run.check_machine import machine, window
from search.run.check_mixture import mixture_of
from search.run.check_tasks import opened_tasks
from search.run.first_items import FirstItem
from search.run.first_plans import (
    Infos,
    infos_here,
    misfits,
    refuse_other_types,
    refuse_unlike_here,
    tensors_here,
)
from search.run.idle_settings import beyond_layers, unmatched_filters
from search.run.live_size import most_bytes
from search.run.size import Counts, memory, once, too_many
from search.run.unlike_parents import unlike_parents
from search.space.inverse import point_of
from search.space.path_space import PathSpace, cut_sizes
from search.space.space import Space
from search.space.starting_points import baselines
from search.spec import study_file
from search.spec.score import Score
from search.spec.storage_url import masked
from search.spec.study_file import StudySpec
from search.trial.budget import NO_CHANGE, Budget
from search.trial.builder import Builder

OF_RECIPES = {"merge_method", "moe", "experts"}  # a recipe has one of these keys, no study has


@dataclass(frozen=True)
class Checked:
    """Facts in the order they are printed, and what is allowed but unwise.

    ``first`` are the first items of each task as a model will read them.
    """

    facts: dict[str, Any]
    warnings: list[str]
    first: Mapping[str, Sequence[FirstItem]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return the facts, and first items where there are some, as JSON values."""
        first = {task: [one.plain() for one in items] for task, items in self.first.items()}
        return {**self.facts, **({"first items": first} if first else {})}


def check(path: Path, *, strict: bool = False, tasks: bool = False) -> Checked:
    """Check a study file, a folder with one, or a recipe file.

    Args:
        path: Of it.
        strict: What a recipe says in vain is a problem, not a warning.
        tasks: Open a study's tokenizers and tasks, too.

    Raises:
        DocumentError: It breaks rules; all problems at once.
        CheckpointError: A model that must be a folder is not there.
    """
    file = study_file.file_of(path)
    documents = read_all(file)
    data = [document.data for document in documents]
    if all(isinstance(x, dict) and "recipe" not in x and x.keys() & OF_RECIPES for x in data):
        reading = reading_of(documents)
        found, idle = _recipe(file, reading), [reading.notices]
    else:
        spec = study_file.read(path)
        found, idle = _study(spec, documents[0]), notices(spec)
        merged = [x for x in spec.template.references() if x not in spec.template.experts()]
        refuse_unlike_here(merged, spec.roots)
        if tasks:
            more = _opened(spec, documents[0])
            found = Checked(found.facts | more.facts, found.warnings + more.warnings, more.first)
    for one in idle if strict else ():
        one.refuse()
    return replace(found, warnings=[*(x for one in idle for x in one.lines()), *found.warnings])


def _opened(spec: StudySpec, document: Document) -> Checked:
    """Open tokenizers and tasks; return what is known of these, and warnings."""
    main = locate_cached(spec.template.base_or_first(), spec.roots)
    if main is None:
        here = machine(spec)
        document.fail(here.problems)
        absent = (
            "tasks are not opened: the tokenizer is not on this disk; `run` fetches it, and opens "
            "them before it fetches weights"
        )
        return Checked(here.facts, [absent, *here.warnings])
    try:
        tokenizer = open_tokenizer(main)
    except MergeError as error:
        document.fail([("recipe", str(error))])
        raise
    opened = opened_tasks(spec, tokenizer, fetch=False)
    found = [machine(spec)]
    if opened.tasks is not None:
        found.append(window(spec, opened.tasks, tokenizer, main))
    document.fail([*opened.problems, *(problem for one in found for problem in one.problems)])
    seen = {key: fact for one in found for key, fact in one.facts.items()}
    there = {name: locate_cached(name, spec.roots) for name in spec.template.references()}
    folders = {name: folder for name, folder in there.items() if folder is not None}
    unlike = unlike_parents(folders, spec.template.base_or_first(), tokenizer)
    warnings = [*opened.warnings, *unlike, *(line for one in found for line in one.warnings)]
    return Checked(opened.facts | seen, warnings + _planned(spec, document), opened.first)


def _planned(spec: StudySpec, document: Document) -> list[str]:
    """Plan what a run would begin with, if all is here; return warnings.

    Of plain merges nothing is planned: what can be wrong is known without. Recipes of other files
    may want other tensors, or have another type.
    """
    references = [*spec.template.references()]
    references += [name for recipe in spec.recipes.values() for name in recipe.references()]
    whole = spec.template.plain and not spec.template.experts() and not spec.recipes
    if whole or any(not_local(name, spec.roots) for name in references):
        return []
    warnings: list[str] = []
    try:
        on_disk = {"name": "hf", "device": "cpu", "parents": "mapped"}
        engine = spec.engine.model_copy(update=on_disk)
        builder = Builder(spec.model_copy(update={"engine": engine}))
        refuse_other_types(builder, baselines(spec, builder.space), warnings.append)
    except MergeError as error:
        document.fail([("recipe", str(error))])
    return warnings


def notices(spec: StudySpec) -> list[Notices]:
    """Return what a study's recipe and its baselines' recipes say in vain."""
    baselines = spec.data.get("baselines") or {}
    files = [spec.folder / str(file) for file in baselines.values()]
    return [spec.notices, *(reading_of(read_all(file)).notices for file in files)]


def _recipe(file: Path, reading: Reading) -> Checked:
    recipe = reading.recipe
    check_chat_templates(recipe)
    roots = (file.resolve().parent, Path.cwd())
    infos = infos_here(recipe.references(), roots)
    if any(one.slices or one.modules for one in (*recipe.documents, recipe)):
        stack_fit.check(reading, {name: shapes_of(own) for name, own in infos.items()})
    for one in (*recipe.documents, recipe):
        refuse_unlike_here(one.names(), roots)
    facts = {
        "recipe": str(file),
        "merge_method": recipe.merge_method,
        "models": list(recipe.references()),
        "recipe_digest": recipe.digest(),
    }
    if recipe.moe is not None:
        facts["mixture"] = mixture_of(reading, roots)
    return Checked(facts, _absent(recipe.references(), roots))


def _study(spec: StudySpec, document: Document) -> Checked:
    references = spec.template.references()
    warnings = _absent(references, spec.roots)
    steer = [f"{_task(score)} by {score.steer}" for score in spec.scores if score.steer]
    facts: dict[str, Any] = {
        "study": spec.name,
        "merge_method": [m.name for m in spec.template.methods()],
        "models": list(references),
        "tasks": [_task(score) for score in spec.scores],
        **({"steer": steer} if steer else {}),
        "aggregate": spec.aggregate,
        "knobs": len(spec.template.knobs) + (spec.template.path is not None),
        "sampler": spec.search.sampler,
        "trials": spec.search.trials,
        "storage": masked(spec.storage),
    }
    main = locate_here(spec.template.base_or_first(), spec.roots)
    path = spec.template.path
    needed = () if path is None else path.parents  # of plain merges all models are like the first
    if main is None or any(locate_here(name, spec.roots) is None for name in needed):
        warnings.append("dimensions are not counted: the model's files are not here")
        return Checked(facts, warnings)
    tensors, there = tensor_infos(main), tensors_here(spec)
    space = _space(spec, tensors, there, document)
    facts["baselines"] = [baseline.name for baseline in baselines(spec, space)]
    if (cut := cut_sizes(space)) and spec.engine.name == "hf":
        sizes = " or ".join(map(str, cut))
        facts["baselines"].append(f"simple:path=without the {sizes} layers that matter least")
    facts["budget"] = _budget(spec, space)
    facts["memory"] = memory(spec, tensors, most_bytes(spec, space, there))
    seconds, kept = once(spec, tensors)
    facts["computed once"] = f"about {seconds:.1f} s, {kept / 2**20:.0f} MiB"
    facts["dimensions"] = len(space.dimensions)
    facts["dimension_names"] = [d.name for d in space.dimensions]
    if not space.dimensions:
        warnings.append("the recipe has no range and no choices: there is nothing to search")
    warnings += [*unmatched_filters(spec.template, (tensors, *there.values()))]
    warnings += [*beyond_layers(space)]
    if idle := space.idle:
        warnings.append(
            f"{len(idle)} dimensions reach no tensor of the models: {', '.join(idle[:3])}"
            f"{', ...' if idle[3:] else ''}; search what the filter hits, or omit the knob"
        )
    many = too_many(spec, space, tensors)
    return Checked(facts, [*warnings, *([many] if many else [])])


def _space(spec: StudySpec, tensors: Iterable[str], there: Infos, document: Document) -> Space:
    """Return the dimensions; what does not fit the models is a problem of the file."""
    problems: Problems = []
    parents = {name: tuple(found) for name, found in there.items()}
    if spec.template.path is None:
        space = Space(spec.template, tensors, problems, parents=parents)
    else:
        space = PathSpace(spec.template, tensors, problems, infos=there)
    if not problems:
        problems += misfits(spec, space, there)
    if not problems and spec.search.start is not None:
        try:
            point_of(space, spec.search.start)
        except MergeError as error:
            problems.append(("search.start", f"no point of this space: {error}"))
    document.fail(problems)
    return space


def _budget(spec: StudySpec, space: Space) -> str:
    budget, items = Budget.of(spec.search, NO_CHANGE, ()), spec.items
    counts = Counts.of(spec, space, budget)
    ends = [f"{key} {x:g}" for key, x in asdict(budget).items() if x is not None][1:]
    rest = "the rest" if items.report == "rest" else items.report
    return (
        f"{counts.baselines} baselines and {counts.trials} trials on {items.search} items each"
        f"{', or until ' if ends else ''}{' or '.join(ends)}; then at most {counts.select} "
        f"candidates on {items.select} others, {counts.report} on {rest}, {counts.again} on a part"
    )


def _task(score: Score) -> str:
    """Return the name of a task, which may be written out, or else that of its evaluator."""
    task = getattr(score.options, "task", score.plugin.name)
    return str(task.get("group", task.get("task")) if isinstance(task, dict) else task)


def _absent(references: tuple[str, ...], roots: tuple[Path, ...]) -> list[str]:
    absent = [part for name in references for part in not_local(name, roots)]
    return [f"{part}: no folder of that name; it will be looked up on the hub" for part in absent]
