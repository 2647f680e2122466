"""What no candidate of a study can be, said before the first of them is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from merge_core.errors import MergeError, Problems
from merge_core.json_text import hint_of
from merge_core.parents.locate import locate_here
from merge_core.parents.weight_files import TensorInfo, shapes_of, tensor_infos
from merge_core.plan import stack_fit
from merge_core.plan.kinds import refuse_unlike
from merge_core.plan.steps import Plan
from search.space.space import Space
from search.space.starting_points import UNIFORM, Baseline, defaults
from search.spec.mixture_knobs import DENSE
from search.spec.study_file import StudySpec
from search.trial.builder import Builder
from search.trial.router_file import begun

Infos = dict[str, dict[str, TensorInfo]]  # model -> its tensors


def tensors_here(spec: StudySpec) -> Infos:
    """Return the tensors of every model of a study whose files are here.

    Of models that are only merged over all their layers nothing: they must have the same.
    """
    if spec.template.plain and not spec.template.data.get("moe"):
        return {}
    return infos_here(spec.template.references(), spec.roots)


def infos_here(references: Iterable[str], roots: Sequence[Path]) -> Infos:
    """Return the tensors of every model whose files are here; adapters have those of their base."""
    there = {name: locate_here(name, roots) for name in references}
    return {name: tensor_infos(folder) for name, folder in there.items() if folder is not None}


def refuse_unlike_here(references: Iterable[str], roots: Sequence[Path]) -> None:
    """Refuse models of unlike architectures, of those whose files are here.

    Raises:
        CheckpointError: See ``kinds.refuse_unlike``.
    """
    there = {name: locate_here(name, roots) for name in references}
    refuse_unlike({x: hint_of(folder / "config.json") for x, folder in there.items() if folder})


def misfits(spec: StudySpec, space: Space, tensors: Infos) -> Problems:
    """Return key path and rule of slices whose layers do not fit each other, whatever is drawn."""
    if not tensors:
        return []
    shapes = {name: shapes_of(own) for name, own in tensors.items()}
    found = stack_fit.misfits(space.recipe(defaults(space)), shapes)
    return [(f"recipe.{path}", rule) for path, rule in found]


def plannable(
    builder: Builder, found: Iterable[Baseline], tell: Callable[[str], None]
) -> list[Baseline]:
    """Plan every baseline, which reads no weights, and return those that can be built.

    The uniform merge is left out, with a word, where parents of other vocabularies have no mean.

    Args:
        builder: Has the study's parents.
        found: The baselines; among them is the point that the space starts from.
        tell: Is called with a line for what is left out.

    Raises:
        MergeError: One cannot be planned; so no candidate like it could.
    """
    return [baseline for baseline, _ in _planned(builder, found, tell)]


def refuse_other_types(
    builder: Builder, found: Iterable[Baseline], tell: Callable[[str], None]
) -> None:
    """Plan every baseline, and refuse those whose weights have another type than the first one's.

    Scores of several types are not compared, so a run would end there.

    Args:
        builder: As above.
        found: As above; a model of the study comes first.
        tell: As above.

    Raises:
        MergeError: One cannot be planned, or has another type.
    """
    types = {one.name: plan.dtype for one, plan in _planned(builder, found, tell)}
    expected = next(iter(types.values()), None)
    for name, dtype in types.items():
        if dtype != expected:
            raise MergeError(
                f"baseline {name}: its weights are {dtype}, those of the study's first baseline "
                f"{expected}, and scores of both are not compared: let its recipe, or the study's, "
                f"have `dtype: {expected}`"
            )


def _planned(
    builder: Builder, found: Iterable[Baseline], tell: Callable[[str], None]
) -> list[tuple[Baseline, Plan]]:
    kept = []
    for baseline in found:
        try:
            kept.append((baseline, builder.plan(begun(baseline.recipe))))
        except MergeError as error:
            if baseline.name != UNIFORM:
                raise MergeError(f"baseline {baseline.name}: {error}") from error
            tell(f"no baseline {UNIFORM}: {error}")
    _plan_dense_layer(builder)
    return kept


def _plan_dense_layer(builder: Builder) -> None:
    """Plan a mixture with one dense layer that is not the first, where such are searched."""
    space = builder.space
    if DENSE not in space.places:
        return
    one = space.at(DENSE)[:2][-1].name
    try:
        builder.plan(begun(space.recipe({**defaults(space), one: True})))
    except MergeError as error:
        raise MergeError(f"recipe.moe.dense_layers cannot be searched: {error}") from error
