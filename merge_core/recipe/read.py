"""Plain data -> Recipe, with every problem found at once and named by its key path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from merge_core.errors import DocumentError, Notices, ParameterError, Problem, Problems, join, shown
from merge_core.recipe import read_mixture, read_tokenizer
from merge_core.recipe.model_reference import parse as parse_reference
from merge_core.recipe.read_fields import Node, settings, whole_number
from merge_core.recipe.schema import PART, ModulePart, Recipe, Slice, Source
from merge_core.recipe.validate import check_method
from merge_core.recipe.yaml_document import DEEPEST, Document, read_all

OWN = ("base_model", "modules", "dtype", "out_dtype", "seed", "name")
KEYS = ("merge_method", *PART, *OWN, *read_tokenizer.KEYS, "moe", "documents")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Reading:
    """A recipe as it stands in a file."""

    recipe: Recipe
    notices: Notices
    # name of a document -> where it stands, and its key path there
    places: Mapping[str | None, tuple[Document, str]] = field(repr=False)

    def at(self, name: str | None, path: str, rule: str) -> Problem:
        """Return a notice on a key path of the document ``name``, with its place in the file."""
        document, start = self.places[name]
        where = f"{start}.{path}" if start else path
        return Problem(where, rule, document.line(where))


def read(path: Path) -> Recipe:
    """Read a recipe file, of one document or of several that refer to each other by name.

    Raises:
        MergeError: The file cannot be read.
        DocumentError: It is not a recipe; all problems with file, line and key path.
    """
    return of_documents(read_all(path))


def of_documents(documents: Sequence[Document]) -> Recipe:
    """Return the recipe of :func:`reading_of`."""
    return reading_of(documents).recipe


def reading_of(documents: Sequence[Document]) -> Reading:
    """Turn the documents of one file into a recipe: the one that no other refers to.

    Raises:
        DocumentError: Problems, all at once.
    """
    found: list[Recipe] = []
    wrong: list[Problem] = []
    idle: list[Problem] = []
    places: dict[str | None, tuple[Document, str]] = {}
    for document in documents:
        problems: Problems = []
        notices: Problems = []
        recipe = parse(document.data, "", problems, notices)
        wrong.extend(document.placed(problems))
        idle.extend(document.placed(notices))
        for where, one in _with_inner(recipe, ""):
            found.append(replace(one, documents=()))
            places[one.name] = document, where
    file = documents[0].file
    if wrong:
        raise DocumentError(file, wrong)
    try:
        reading = Reading(_joined(found), Notices(file, tuple(idle)), places)
    except ParameterError as error:
        problem = Problem("name", str(error), documents[-1].line("name"))
        raise DocumentError(file, [problem]) from error
    inner = [one.name for one in reading.recipe.documents if one.chat_template is not None]
    if inner:
        rule = "only the result has a chat template; move it there"
        raise DocumentError(file, [reading.at(name, "chat_template", rule) for name in inner])
    return reading


def _with_inner(recipe: Recipe | None, path: str) -> Iterator[tuple[str, Recipe]]:
    """Yield a recipe and those under its ``documents``, each with its key path."""
    if recipe is not None:
        yield path, recipe
        for i, one in enumerate(recipe.documents):
            yield from _with_inner(one, join(join(path, "documents"), i))


def _joined(recipes: list[Recipe]) -> Recipe:
    """Return the recipe that is the result, with the others in the order they are needed.

    ``recipes`` have no documents of their own yet, so their references are all that they name.
    """
    named = {recipe.name: recipe for recipe in recipes if recipe.name is not None}
    unnamed = [recipe for recipe in recipes if recipe.name is None]
    if len(unnamed) > 1 or len(named) + len(unnamed) < len(recipes):
        raise ParameterError("every document but the result needs a name of its own")
    for recipe in recipes:
        for reference in recipe.references():
            _refuse_adapted(reference, named)
    used = {name for recipe in recipes for name in recipe.references() if name in named}
    results = [recipe for recipe in recipes if recipe.name not in used]
    if len(results) != 1:
        shown_names = ", ".join(repr(recipe.name or "(no name)") for recipe in results) or "none"
        raise ParameterError(
            f"one document must be the result, which no other refers to; got {shown_names}"
        )
    ordered: dict[str, Recipe] = {}
    _visit(results[0], named, ordered, ())
    return replace(results[0], documents=tuple(ordered.values()))


def _refuse_adapted(reference: str, named: Mapping[str, Recipe]) -> None:
    """Refuse an adapter on a document, or a revision of one: only folders and hub ids have them."""
    if reference in named or not ("+" in reference or "@" in reference):
        return
    try:
        path = parse_reference(reference).path
    except ParameterError:  # a folder of that name, perhaps
        return
    if path in named:
        raise ParameterError(
            f"{reference!r}: {path!r} is a document, which takes neither adapter nor revision; "
            f"put the adapter on its models, or merge it to a folder first"
        )


def _visit(
    recipe: Recipe, named: dict[str, Recipe], ordered: dict[str, Recipe], above: tuple[str, ...]
) -> None:
    for name in recipe.references():
        if name in above:
            raise ParameterError(f"documents refer to each other in a circle: {', '.join(above)}")
        if len(above) >= DEEPEST:
            raise ParameterError(f"documents refer to each other over more than {DEEPEST} levels")
        if name in named and name not in ordered:
            _visit(named[name], named, ordered, (*above, name))
            ordered[name] = named[name]


def parse(
    data: Any, path: str, problems: Problems, notices: Problems | None = None
) -> Recipe | None:
    """Turn plain data, as read from YAML or as :meth:`Recipe.plain` gives it, into a recipe.

    Args:
        data: A mapping.
        path: Its key path in the document, "" for the whole.
        problems: What is wrong is added as (key path, rule); the recipe is None then.
        notices: What is said in vain, the same way; it is not in the recipe.
    """
    place = Node(data, path, [], [] if notices is None else notices)
    experts = isinstance(data, dict) and "experts" in data and "moe" not in data
    keys = (*KEYS, *read_mixture.OWN, *read_mixture.OURS) if experts else KEYS
    node, recipe = place.mapping("a recipe (a mapping)", keys), None
    if node is not None:
        recipe = _recipe(read_mixture.lifted(node) if experts or "moe" in node.data else node)
        if recipe.merge_method:
            recipe = check_method(recipe, path, node.problems, node.notices)
    problems.extend(place.problems)
    return None if place.problems else recipe


def _recipe(node: Node) -> Recipe:
    forms = _forms(node, ("models", "slices", "modules"))
    if not forms:
        node.at("models").refuse("required (or slices, or modules)")
    for key in forms[1:]:
        node.at(key).refuse(f"expected one of models, slices and modules, got {forms[0]} too")
    return Recipe(
        merge_method=node.text("merge_method", required=True) or "",
        models=_models(node.at("models")) if "models" in forms else (),
        slices=_slices(node.at("slices")) if "slices" in forms else (),
        modules=_modules(node.at("modules")) if "modules" in forms else (),
        base_model=node.reference("base_model"),
        parameters=settings(node.at("parameters")),
        dtype=_dtype(node, "dtype"),
        out_dtype=_dtype(node, "out_dtype"),
        seed=node.whole("seed", 0, 2**63 - 1, "0 to 2**63 - 1") or 0,
        tokenizer=read_tokenizer.tokenizer(node),
        chat_template=read_tokenizer.chat_template(node),
        name=node.text("name"),
        documents=_documents(node.at("documents")),
        moe=read_mixture.mixture(node),
    )


def _forms(node: Node, keys: Sequence[str]) -> list[str]:
    """Return which of some keys are given: empty ones do not count beside others."""
    return [key for key in keys if node.data.get(key)] or [key for key in keys if key in node.data]


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
    for place in node.entries("models"):
        entry = place.mapping(f"{{{', '.join(keys)}}}", keys)
        if entry is None:
            continue
        name = entry.reference("model", required=True) or ""
        if name and name in names:
            entry.at("model").refuse(f"{name!r} is listed twice")
        names.add(name)
        own = settings(entry.at("parameters"))
        span = _range(entry.at("layer_range")) if "layer_range" in keys else None
        sources.append(Source(name, own, span))
    return tuple(sources)


def _range(node: Node) -> tuple[int, int] | None:
    data = node.data if isinstance(node.data, list) else []
    numbers = [number for number in map(whole_number, data) if number is not None]
    if len(data) != 2 or len(numbers) != 2:
        got = str(node.data) if data else shown(node.data)
        node.refuse(f"expected [first layer, layer after the last], got {got}")
        return None
    if not 0 <= numbers[0] <= numbers[1]:
        node.refuse(f"expected 0 <= first <= last, got {data}")
        return None
    return (numbers[0], numbers[1])


def _slices(node: Node) -> tuple[Slice, ...]:
    slices: list[Slice] = []
    keys = ("sources", "base_model", "input_scale", "parameters")
    for place in node.entries("slices"):
        entry = place.mapping("{sources, parameters}", keys)
        if entry is None:
            continue
        sources = _sources(entry.at("sources"), ("model", "layer_range", "parameters"))
        lengths = {s.layer_range[1] - s.layer_range[0] for s in sources if s.layer_range}
        if len(lengths) > 1:
            counts = ", ".join(map(str, sorted(lengths)))
            rule = f"expected equally many layers from each source, got {counts}"
            entry.at("sources").refuse(rule)
        base, scale = entry.reference("base_model"), entry.factor("input_scale")
        if scale != 1 and lengths == {0}:
            entry.at("input_scale").refuse("this slice has no layers, and so no input to scale")
        slices.append(Slice(sources, base, settings(entry.at("parameters")), scale))
    return tuple(slices)


def _modules(node: Node) -> tuple[ModulePart, ...]:
    if not isinstance(node.data, dict) or not node.data:
        node.expected("modules (name: models or slices)")
        return ()
    parts: list[ModulePart] = []
    for name in node.data:
        entry = node.at(name).mapping("{models} or {slices}, and parameters", PART)
        if entry is None:
            continue
        forms = _forms(entry, ("models", "slices"))
        if len(forms) != 1:
            entry.refuse("expected {models} or {slices}, and parameters")
            continue
        models = _models(entry.at("models")) if forms == ["models"] else ()
        slices = _slices(entry.at("slices")) if forms == ["slices"] else ()
        for i, one in enumerate(slices):
            if one.input_scale != 1:
                rule = "only in slices: of a recipe with one stack of layers, not under modules:"
                entry.at("slices").at(i).at("input_scale").refuse(rule)
        parts.append(ModulePart(str(name), models, slices, settings(entry.at("parameters"))))
    return tuple(parts)


def _documents(node: Node) -> tuple[Recipe, ...]:
    entries = node.entries("recipes") if node.data else []
    found = [parse(entry.data, entry.path, node.problems, node.notices) for entry in entries]
    return tuple(recipe for recipe in found if recipe is not None)
