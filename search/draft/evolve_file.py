"""A mergekit-evolve configuration as it is written, with its own defaults; what it cannot be.

Behaviour as of mergekit 0.1.x (``mergekit/evo/config.py``, ``genome.py``): keys that it does not
know are passed over there, so here they are told by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from merge_core.errors import DocumentError, Problems, hint, join, shown
from merge_core.recipe.read_fields import Node
from merge_core.recipe.yaml_document import read as read_document
from merge_core.validation import StrictModel, Words, read, read_by

METRIC = "acc,none"


def _reference(data: Any, path: str, problems: Problems) -> str | None:
    return None if data is None else Node(data, path, problems).model()


Reference = Annotated[str | None, read_by(_reference)]


class Genome(StrictModel):
    """What is merged, and which numbers of it are genes."""

    models: Annotated[
        list[Annotated[str, read_by(_reference)]], Field(min_length=1), Words("a list of models")
    ] = Field(title="required: a list of models")
    merge_method: Literal["linear", "task_arithmetic", "ties", "dare_ties", "slerp"] = Field(
        title="required: linear, task_arithmetic, ties, dare_ties or slerp"
    )
    base_model: Reference = None
    tokenizer_source: Any = None
    layer_granularity: int = 0
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: Annotated[list[str] | None, Words("a list of parts of tensors' names")] = None
    smooth: bool = False


class Task(StrictModel):
    """One lm-eval task; its score is the sum of ``metric * weight`` over all."""

    name: Annotated[str, Field(min_length=1)] = Field(title="required: an lm-eval task")
    weight: Annotated[float, Words("a number")] = 1.0
    metric: Annotated[str, Field(min_length=1)] = METRIC


class Settings(StrictModel):
    """What stands beside ``genome`` and ``tasks``."""

    limit: int | None = Field(None, ge=1)
    num_fewshot: int | None = Field(None, ge=0)
    shuffle: bool = False
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True


@dataclass(frozen=True)
class Evolve:
    """A configuration.

    Args:
        genome, tasks, settings: What it says, or the defaults.
        said: The key paths that stand in it.
        unknown: Those that mergekit-evolve passes over.
    """

    genome: Genome
    tasks: tuple[Task, ...]
    settings: Settings
    said: frozenset[str]
    unknown: tuple[str, ...]


def read_evolve(file: Path) -> Evolve:
    """Read a configuration.

    Raises:
        MergeError: The file cannot be read.
        DocumentError: It breaks rules, mergekit-evolve's own included; all problems at once.
    """
    document = read_document(file)
    data = document.data
    if not isinstance(data, dict) or "genome" not in data:
        raise DocumentError(
            str(file),
            document.placed([("(file)", "expected genome and tasks, as mergekit-evolve has them")]),
        )
    problems: Problems = []
    reader = _Reader(problems)
    top = reader.known(data, "", {"genome", "tasks", *Settings.declared()})
    settings = {key: x for key, x in top.items() if key not in ("genome", "tasks")}
    genome = reader.read(Genome, top["genome"], "genome")
    tasks = [_task(reader, entry, f"tasks[{i}]") for i, entry in enumerate(_tasks(top, problems))]
    rest = reader.read(Settings, settings, "")
    if genome is not None:
        problems += _refused(genome)
    document.fail(problems)
    assert genome is not None
    assert rest is not None
    said = frozenset(document.lines)
    return Evolve(genome, tuple(t for t in tasks if t), rest, said, tuple(reader.unknown))


class _Reader:
    """Reads parts of a file; keys that no part has are collected, likely typing errors refused."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.unknown: list[str] = []

    def known(self, data: Mapping[str, Any], path: str, keys: set[str]) -> dict[str, Any]:
        found = {}
        for key, value in data.items():
            if key in keys:
                found[key] = value
            elif near := hint(str(key), keys):
                self.problems.append((join(path, key), f"unknown key{near}"))
            else:
                self.unknown.append(join(path, key))
        return found

    def read(self, model: type[Any], data: Any, path: str) -> Any:
        if isinstance(data, dict):
            data = self.known(data, path, set(model.declared()))
        return read(model, data, path, self.problems)


def _tasks(top: Mapping[str, Any], problems: Problems) -> list[Any]:
    given = top.get("tasks")
    if isinstance(given, list) and given:
        return given
    got = "an empty list" if given == [] else shown(given)
    problems.append(("tasks", f"expected a list of tasks, got {got}"))
    return []


def _task(reader: _Reader, entry: Any, path: str) -> Task | None:
    found: Task | None = reader.read(
        Task, {"name": entry} if isinstance(entry, str) else entry, path
    )
    return found


def _refused(genome: Genome) -> Problems:
    """Return what mergekit-evolve refuses too, and what it lets pass that can make no merge."""
    found: Problems = []
    method, models = genome.merge_method, genome.models
    if len({*models}) < len(models):
        found.append(("genome.models", "a model is listed twice"))
    if method in ("task_arithmetic", "ties", "dare_ties") and genome.base_model is None:
        rule = f"required by merge_method {method!r}: task vectors are measured from it"
        found.append(("genome.base_model", f"{rule}; name the model that all were tuned from"))
    if method == "slerp":
        found += _refused_of_slerp(genome)
    elif [*models] == [genome.base_model] and method != "linear":
        found.append(("genome.models", "has the base alone; name what was tuned from it, too"))
    if genome.merge_method == "dare_ties" and len({*models, genome.base_model}) < 2:
        found.append(("genome.models", "'dare_ties' takes 2 or more models, the base included"))
    return found


def _refused_of_slerp(genome: Genome) -> Problems:
    found: Problems = []
    if len(genome.models) != 2:
        rule = f"a study searches 'slerp' between two models, got {len(genome.models)}"
        more = "mergekit-evolve chooses two of several in each band of layers"
        found.append(("genome.models", f"{rule} ({more}); name two, or use task_arithmetic"))
    elif genome.base_model not in (None, *genome.models):
        rule = "'slerp' has two models and no base beside them; remove it, or name one of the two"
        found.append(("genome.base_model", rule))
    for key in ("smooth", "filters"):
        if getattr(genome, key):
            found.append((f"genome.{key}", "mergekit-evolve has none for 'slerp'; remove it"))
    return found
