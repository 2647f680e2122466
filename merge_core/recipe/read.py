"""Plain data -> Recipe, with every problem found at once and named by its key path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from merge_core.errors import DocumentError, ParameterError, Problem, Problems, shown
from merge_core.recipe import read_tokenizer
from merge_core.recipe.read_fields import Node, settings
from merge_core.recipe.schema import PART, ModulePart, Recipe, Slice, Source
from merge_core.recipe.validate import check_method
from merge_core.recipe.yaml_document import Document, read_all

OWN = ("base_model", "modules", "dtype", "out_dtype", "seed", "name")
KEYS = ("merge_method", *PART, *OWN, *read_tokenizer.KEYS, "documents")
DTYPES = ("float32", "bfloat16", "float16")


def read(path: Path) -> Recipe:
    """Read a recipe file, of one document or of several that refer to each other by name.

    Raises:
        MergeError: The file cannot be read.
        DocumentError: It is not a recipe; all problems with file, line and key path.
    """
    return of_documents(read_all(path))


def of_documents(documents: Sequence[Document]) -> Recipe:
    """Turn the documents of one file into a recipe: the one that no other refers to.

    Raises:
        DocumentError: Problems, all at once.
    """
    found: list[Recipe] = []
    wrong: list[Problem] = []
    for document in documents:
        problems: Problems = []
        recipe = parse(document.data, "", problems)
        wrong.extend(Problem(p, r, document.line(p)) for p, r in dict.fromkeys(problems))
        found.extend([recipe] if recipe is not None else [])
    if wrong:
        raise DocumentError(documents[0].file, wrong)
    try:
        return _joined(found)
    except ParameterError as error:
        problem = Problem("name", str(error), documents[-1].line("name"))
        raise DocumentError(documents[0].file, [problem]) from error


def _joined(recipes: list[Recipe]) -> Recipe:
    """Return the recipe that is the result, with the others in the order they are needed."""
    named = {recipe.name: recipe for recipe in recipes if recipe.name is not None}
    unnamed = [recipe for recipe in recipes if recipe.name is None]
    if len(unnamed) > 1 or len(named) + len(unnamed) < len(recipes):
        raise ParameterError("every document but the result needs a name of its own")
    used = {name for recipe in recipes for name in recipe.names() if name in named}
    results = [recipe for recipe in recipes if recipe.name not in used]
    if len(results) != 1:
        shown_names = ", ".join(repr(recipe.name or "(no name)") for recipe in results) or "none"
        raise ParameterError(
            f"one document must be the result, which no other refers to; got {shown_names}"
        )
    ordered: dict[str, Recipe] = {}
    _visit(results[0], named, ordered, ())
    return replace(results[0], documents=tuple(ordered.values()))


def _visit(
    recipe: Recipe, named: dict[str, Recipe], ordered: dict[str, Recipe], above: tuple[str, ...]
) -> None:
    for name in recipe.names():
        if name in above:
            raise ParameterError(f"documents refer to each other in a circle: {', '.join(above)}")
        if name in named and name not in ordered:
            _visit(named[name], named, ordered, (*above, name))
            ordered[name] = named[name]


def parse(data: Any, path: str, problems: Problems) -> Recipe | None:
    """Turn plain data, as read from YAML or as :meth:`Recipe.plain` gives it, into a recipe.

    ``path`` is its key path in the document, "" for the whole. What is wrong is added to
    ``problems`` as (key path, rule); the recipe is None then.
    """
    node = Node(data, path, [])
    recipe = _recipe(node) if node.is_mapping("a recipe (a mapping)") else None
    if recipe is not None and recipe.merge_method:
        check_method(recipe, path, node.problems)
    problems.extend(node.problems)
    return None if node.problems else recipe


def _recipe(node: Node) -> Recipe:
    node.only(KEYS)
    given = [key for key in ("models", "slices", "modules") if key in node.data]
    if not given:
        node.at("models").refuse("required (or slices, or modules)")
    for key in given[1:]:
        node.at(key).refuse(f"expected one of models, slices and modules, got {given[0]} too")
    return Recipe(
        merge_method=node.text("merge_method", required=True) or "",
        models=node.read("models", _models),
        slices=node.read("slices", _slices),
        modules=node.read("modules", _modules),
        base_model=node.reference("base_model"),
        parameters=settings(node.at("parameters")),
        dtype=_dtype(node, "dtype"),
        out_dtype=_dtype(node, "out_dtype"),
        seed=node.whole("seed", 0, 2**63 - 1, "0 to 2**63 - 1") or 0,
        tokenizer=read_tokenizer.tokenizer(node),
        chat_template=read_tokenizer.chat_template(node),
        name=node.text("name"),
        documents=_documents(node.at("documents")),
    )


def _dtype(node: Node, key: str) -> str | None:
    value = node.text(key)
    name = value.removeprefix("torch.") if value else None
    if name is not None and name not in DTYPES:
        node.at(key).expected(" or ".join(DTYPES))
    return name


def _models(node: Node) -> tuple[Source, ...]:
    return _sources(node, ("model", "parameters"))


def _sources(node: Node, keys: tuple[str, ...]) -> tuple[Source, ...]:
    sources: list[Source] = []
    names: set[str] = set()
    for entry in node.entries("models"):
        if not entry.is_mapping(f"{{{', '.join(keys)}}}"):
            continue
        entry.only(keys)
        name = entry.reference("model", required=True) or ""
        if name and name in names:
            entry.at("model").refuse(f"{name!r} is listed twice")
        names.add(name)
        own = settings(entry.at("parameters"))
        span = _range(entry.at("layer_range")) if "layer_range" in keys else None
        sources.append(Source(name, own, span))
    return tuple(sources)


def _range(node: Node) -> tuple[int, int] | None:
    data = node.data
    plain = isinstance(data, list) and len(data) == 2
    if not plain or not all(isinstance(x, int) and not isinstance(x, bool) for x in data):
        got = str(data) if isinstance(data, list) else shown(data)
        node.refuse(f"expected [first layer, layer after the last], got {got}")
        return None
    if not 0 <= data[0] <= data[1]:
        node.refuse(f"expected 0 <= first <= last, got {data}")
        return None
    return (data[0], data[1])


def _slices(node: Node) -> tuple[Slice, ...]:
    slices: list[Slice] = []
    for entry in node.entries("slices"):
        if not entry.is_mapping("{sources, parameters}"):
            continue
        entry.only(("sources", "base_model", "parameters"))
        place = entry.at("sources")
        sources = _sources(place, ("model", "layer_range", "parameters"))
        lengths = {s.layer_range[1] - s.layer_range[0] for s in sources if s.layer_range}
        if len(lengths) > 1:
            counts = ", ".join(map(str, sorted(lengths)))
            place.refuse(f"expected equally many layers from each source, got {counts}")
        base = entry.reference("base_model")
        slices.append(Slice(sources, base, settings(entry.at("parameters"))))
    return tuple(slices)


def _modules(node: Node) -> tuple[ModulePart, ...]:
    if not isinstance(node.data, dict) or not node.data:
        node.expected("modules (name: models or slices)")
        return ()
    parts: list[ModulePart] = []
    for name in node.data:
        entry = node.at(name)
        if not isinstance(entry.data, dict) or ("models" in entry.data) == ("slices" in entry.data):
            entry.refuse("expected {models} or {slices}, and parameters")
            continue
        entry.only(PART)
        models, slices = entry.read("models", _models), entry.read("slices", _slices)
        parts.append(ModulePart(str(name), models, slices, settings(entry.at("parameters"))))
    return tuple(parts)


def _documents(node: Node) -> tuple[Recipe, ...]:
    entries = [] if node.data is None else node.entries("recipes")
    found = [parse(entry.data, entry.path, node.problems) for entry in entries]
    return tuple(recipe for recipe in found if recipe is not None)
