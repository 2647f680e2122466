"""Whether the layers that slices name are there, and as wide as each other.

By names and shapes alone: no model class is asked, so it can be said before anything is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from merge_core.architecture import layers
from merge_core.architecture.layers import Layers
from merge_core.errors import CheckpointError, DocumentError, Problems
from merge_core.recipe.read import Reading
from merge_core.recipe.schema import Recipe, Slice, Source

Shapes = Mapping[str, tuple[int, ...]]  # tensor -> its shape
LAST = "the last number is the layer after the last"


def check(reading: Reading, shapes: Mapping[str, Shapes]) -> None:
    """Refuse slices of layers that are not there, or of another width than the others.

    Args:
        reading: The recipe, as it stands in its file.
        shapes: Those of the models that are known, by reference; of others nothing is said.

    Raises:
        DocumentError: There are such slices; all at once.
    """
    found = [
        reading.at(one.name, path, rule)
        for one in (*reading.recipe.documents, reading.recipe)
        for path, rule in misfits(one, shapes)
    ]
    if found:
        raise DocumentError(reading.notices.file, found)


def misfits(recipe: Recipe, shapes: Mapping[str, Shapes]) -> Problems:
    """Return key path and rule of what does not fit in the slices of one document."""
    main = recipe.base_model or recipe.names()[0]
    if main not in shapes:
        return []
    names = tuple(shapes[main])
    try:
        modules = {x.name: x.layers for x in layers.modules_of(names, layers.stacks(names))}
    except CheckpointError:  # no model that can be sliced, as planning says with its reason
        return []
    problems: Problems = []
    if len(modules) == 1:
        problems += _of_slices(recipe.slices, "slices", next(iter(modules.values())), shapes)
    for part in recipe.modules:
        if part.name in modules:
            path = f"modules.{part.name}.slices"
            problems += _of_slices(part.slices, path, modules[part.name], shapes)
    return problems


def width(shapes: Shapes, stack: Layers) -> int | None:
    """Return the width of the residual stream in a stack's layers, or None where names tell none.

    It is the length of most vectors in the layers (norms), as far as a matrix outside of them, such
    as the embedding, has rows of that length.
    """
    inside = {name: stack.index(name) is not None for name in shapes}
    rows = {x[-1] for name, x in shapes.items() if not inside[name] and len(x) == 2}
    sizes = [x[0] for name, x in shapes.items() if inside[name] and len(x) == 1 and x[0] in rows]
    return Counter(sizes).most_common(1)[0][0] if sizes else None


def _of_slices(
    slices: Sequence[Slice], path: str, stack: Layers, shapes: Mapping[str, Shapes]
) -> Problems:
    problems: Problems = []
    first: tuple[str, int] | None = None
    told: set[str] = set()
    for where, source in _sources(slices, path):
        known = shapes.get(source.model)
        if known is None:
            continue
        there = next((x.count for x in layers.stacks(known) if x.stack == stack.stack), 0)
        start, end = source.layer_range or (0, there)
        if end > there:
            rule = too_few(source.model, there, stack, start, end)
            problems.append((f"{where}.layer_range", rule))
        wide = width(known, stack)
        if wide is None or source.model in told:
            continue
        told.add(source.model)
        first = first or (source.model, wide)
        if wide != first[1]:
            rule = unlike(*first, source.model, wide)
            problems.append((f"{where}.model", rule))
    return problems


def too_few(model: str, there: int, stack: Layers, first: int, end: int) -> str:
    """Return the rule that a range breaks of a model with ``there`` layers of a stack."""
    if not there:
        return f"{model} has no {stack.stack}; models whose layers are stacked share a class"
    return f"{model} has {there} layers, got [{first}, {end}]; {LAST}"


def unlike(one: str, wide: int, other: str, other_wide: int) -> str:
    """Return the rule that two models break whose streams have other widths."""
    return (
        f"expected layers of one width, got {other}, whose hidden size is {other_wide}, beside "
        f"{one} with {wide}; choose models of one hidden size"
    )


def _sources(slices: Sequence[Slice], path: str) -> Iterator[tuple[str, Source]]:
    for i, one in enumerate(slices):
        for j, source in enumerate(one.sources):
            yield f"{path}[{i}].sources[{j}]", source
