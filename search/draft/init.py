"""``mergetune init``: models, a base and tasks -> a first study of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.contract import Method, Param
from merge_core.errors import ParameterError, join
from merge_core.methods.registry import method as method_of
from search.draft.knobs import TENSORS, Spread, knob, searched, spread_over
from search.draft.models import Paths, Seen, look
from search.draft.tasks import Asked, entries
from search.draft.write import Draft, Written, study_file_of, write

WITH_BASE, WITHOUT = "task_arithmetic", "linear"
SAMPLER = "auto goes by gradient where it can, then draws; the same seed gives the same trials"


@dataclass(frozen=True)
class Given:
    """What the command line says of the merge."""

    models: Sequence[str]
    base: str | None
    method: str | None
    trials: int


def init(given: Given, asked: Asked, out: Path, *, tasks: bool) -> Written:
    """Write a study file for a first search.

    Args:
        given: The models and how they are merged.
        asked: The tasks.
        out: The file, or the folder that gets it as ``study.yaml``.
        tasks: Open them, to count their items.

    Raises:
        OutputExistsError: The file is there already.
        MergeError: Models, method and tasks make no study; the reason.
    """
    file = study_file_of(out)
    paths = Paths.from_here(file)
    score = entries(asked, paths)
    if given.base in given.models:
        raise ParameterError(f"{given.base!r} is the base and one of the models; name it once")
    method = method_of(given.method or (WITH_BASE if given.base else WITHOUT))
    seen = [
        look(name, paths.roots) for name in (*([given.base] if given.base else []), *given.models)
    ]
    recipe, comments = _recipe(given, method, paths, seen)
    search = {"sampler": "auto", "seed": 0, "trials": given.trials}
    comments |= {"score": "what counts, each with the same weight", **score.comments}
    comments["search"] = SAMPLER
    draft = Draft(
        recipe, score.plain, search, comments, [head(file, "mergetune init")], score.known
    )
    return write(draft, file, tasks=tasks)


def head(file: Path, command: str) -> str:
    """Return what stands above all in a study file that a command wrote."""
    return (
        f"Written by `{command}`. `mergetune check {file.name}` says what it would search, "
        f"`mergetune run {file.name}` starts it or goes on with it. Numbers in {{low, high}} are "
        f"searched."
    )


def _recipe(
    given: Given, method: Method, paths: Paths, seen: Sequence[Seen | None]
) -> tuple[dict[str, Any], dict[str, str]]:
    lead, *others = searched(method)
    many = {"model": len(given.models), "shared": 1}
    beside = sum(many[param.scope] for param in others)
    layers = seen[0].layers if seen[0] else None
    spread = TENSORS
    if not lead.smooth:
        spread = spread_over(layers, many[lead.scope], beside, given.trials)
    recipe: dict[str, Any] = {"merge_method": method.name}
    comments = {"recipe.merge_method": _why(method, given)}
    if given.base:
        recipe["base_model"] = paths.model(given.base)
        comments["recipe.base_model"] = (
            "what the others were tuned from; config and tokenizer are its own, too"
        )
    params = [(param, spread if param is lead else None) for param in (lead, *others)]
    own = [pair for pair in params if pair[0].scope == "model"]
    recipe["models"] = [_model(paths.model(name), own) for name in given.models]
    if own:
        _say(comments, "recipe.models[0].parameters", own)
    shared = [pair for pair in params if pair[0].scope == "shared"]
    if shared:
        recipe["parameters"] = {param.name: knob(param, over) for param, over in shared}
        _say(comments, "recipe.parameters", shared)
    if seen[0] and seen[0].dtype:
        recipe["dtype"] = seen[0].dtype
        comments["recipe.dtype"] = "as the models are stored; sums are in float32, rounded once"
    return recipe, comments


def _model(name: Any, own: Sequence[tuple[Param, Spread | None]]) -> dict[str, Any]:
    if not own:
        return {"model": name}
    return {"model": name, "parameters": {p.name: knob(p, over) for p, over in own}}


def _say(
    comments: dict[str, str], path: str, params: Sequence[tuple[Param, Spread | None]]
) -> None:
    for param, over in params:
        words = f"{param.meaning}; {over.words}" if over else param.meaning
        comments[join(path, param.name)] = words


def _why(method: Method, given: Given) -> str:
    if given.method:
        return method.when or f"as --method says: {method.source}"
    if given.base:
        return f"there is a base, so task vectors can be added. {method.when}"
    return f"without --base there are no task vectors, only means of weights. {method.when}"
