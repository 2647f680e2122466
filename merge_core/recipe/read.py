"""Plain data -> Recipe, with every problem found at once and named by its key path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from merge_core.errors import DocumentError, ParameterError, Problem, Problems, join, shown
from merge_core.recipe import tokenizer_schema
from merge_core.recipe.read_fields import check_keys, reference, text
from merge_core.recipe.read_settings import settings
from merge_core.recipe.schema import ModulePart, Recipe, Slice, Source
from merge_core.recipe.tokenizer_schema import TokenizerSetting
from merge_core.recipe.validate import check_method
from merge_core.recipe.yaml_document import Document, read_all
from merge_core.tokenizer import chat_template

PART = ("models", "slices", "parameters")
OWN = ("base_model", "modules", "dtype", "out_dtype", "seed", "name")
TOKENS = ("tokenizer_source", "tokenizer", "chat_template")
KEYS = ("merge_method", *PART, *OWN, *TOKENS, "documents")
DTYPES = ("float32", "bfloat16", "float16")
T = TypeVar("T")


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
    """Return the recipe that is the result, with the others in the order they are needed.

    Raises:
        ParameterError: Names are missing, repeated, go in a circle, or leave several results.
    """
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
    """Turn plain data into a recipe; add what is wrong to ``problems`` as (key path, rule).

    Args:
        data: As read from YAML, or as :meth:`Recipe.plain` gives it.
        path: Key path of ``data`` in its document, "" for the whole.
        problems: Is extended.

    Returns:
        The recipe, or None if there were problems.
    """
    if not isinstance(data, dict):
        problems.append((path or "(file)", f"expected a recipe (a mapping), got {shown(data)}"))
        return None
    found: Problems = []
    check_keys(data, KEYS, path, found)
    _check_form(data, path, found)
    recipe = Recipe(
        merge_method=text(data, "merge_method", path, found, required=True) or "",
        models=_sources(data["models"], join(path, "models"), found) if "models" in data else (),
        slices=_slices(data["slices"], join(path, "slices"), found) if "slices" in data else (),
        modules=_modules(data["modules"], join(path, "modules"), found)
        if "modules" in data
        else (),
        base_model=reference(data, "base_model", path, found),
        parameters=settings(data.get("parameters"), join(path, "parameters"), found),
        dtype=_dtype(data, "dtype", path, found),
        out_dtype=_dtype(data, "out_dtype", path, found),
        seed=_seed(data, path, found),
        tokenizer=_tokenizer(data, path, found),
        chat_template=_chat_template(data, path, found),
        name=text(data, "name", path, found),
        documents=_documents(data.get("documents"), join(path, "documents"), found),
    )
    if recipe.merge_method:
        check_method(recipe, path, found)
    problems.extend(found)
    return None if found else recipe


def _of_key(
    read: Callable[[Any, str, Problems], tuple[T, ...]],
    data: dict[str, Any],
    key: str,
    path: str,
    problems: Problems,
) -> tuple[T, ...]:
    return read(data[key], join(path, key), problems) if key in data else ()


def _check_form(data: dict[str, Any], path: str, problems: Problems) -> None:
    given = [key for key in ("models", "slices", "modules") if key in data]
    if not given:
        problems.append((join(path, "models"), "required (or slices, or modules)"))
    problems.extend(
        (join(path, key), f"expected one of models, slices and modules, got {given[0]} too")
        for key in given[1:]
    )


def _dtype(data: dict[str, Any], key: str, path: str, problems: Problems) -> str | None:
    value = text(data, key, path, problems)
    name = value.removeprefix("torch.") if value else None
    if name is not None and name not in DTYPES:
        problems.append((join(path, key), f"expected {' or '.join(DTYPES)}, got {value!r}"))
    return name


def _seed(data: dict[str, Any], path: str, problems: Problems) -> int:
    value = data.get("seed", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        rule = f"expected a whole number from 0 to 2**63 - 1, got {shown(value)}"
        problems.append((join(path, "seed"), rule))
        return 0
    return value


def _list(data: Any, path: str, of: str, problems: Problems) -> list[Any]:
    if isinstance(data, list) and data:
        return data
    got = "an empty list" if data == [] else shown(data)
    problems.append((path, f"expected a list of {of}, got {got}"))
    return []


def _sources(data: Any, path: str, problems: Problems, ranged: bool = False) -> tuple[Source, ...]:
    keys = ("model", "layer_range", "parameters") if ranged else ("model", "parameters")
    sources: list[Source] = []
    for i, entry in enumerate(_list(data, path, "models", problems)):
        where = join(path, i)
        if not isinstance(entry, dict):
            rule = f"expected {{{', '.join(keys)}}}, got {shown(entry)}"
            problems.append((where, rule))
            continue
        check_keys(entry, keys, where, problems)
        name = reference(entry, "model", where, problems, required=True) or ""
        if name and name in [source.model for source in sources]:
            problems.append((join(where, "model"), f"{name!r} is listed twice"))
        own = settings(entry.get("parameters"), join(where, "parameters"), problems)
        span = _range(entry.get("layer_range"), join(where, "layer_range"), problems, ranged)
        sources.append(Source(name, own, span))
    return tuple(sources)


def _range(data: Any, path: str, problems: Problems, required: bool) -> tuple[int, int] | None:
    if not required:
        return None
    plain = isinstance(data, list) and len(data) == 2
    if not plain or not all(isinstance(x, int) and not isinstance(x, bool) for x in data):
        got = str(data) if isinstance(data, list) else shown(data)
        problems.append((path, f"expected [first layer, layer after the last], got {got}"))
        return None
    if not 0 <= data[0] <= data[1]:
        problems.append((path, f"expected 0 <= first <= last, got {data}"))
        return None
    return (data[0], data[1])


def _slices(data: Any, path: str, problems: Problems) -> tuple[Slice, ...]:
    slices: list[Slice] = []
    for i, entry in enumerate(_list(data, path, "slices", problems)):
        where = join(path, i)
        if not isinstance(entry, dict):
            problems.append((where, f"expected {{sources, parameters}}, got {shown(entry)}"))
            continue
        check_keys(entry, ("sources", "base_model", "parameters"), where, problems)
        place = join(where, "sources")
        sources = _sources(entry.get("sources"), place, problems, ranged=True)
        lengths = {s.layer_range[1] - s.layer_range[0] for s in sources if s.layer_range}
        if len(lengths) > 1:
            counts = ", ".join(map(str, sorted(lengths)))
            problems.append((place, f"expected equally many layers from each source, got {counts}"))
        base = reference(entry, "base_model", where, problems)
        own = settings(entry.get("parameters"), join(where, "parameters"), problems)
        slices.append(Slice(sources, base, own))
    return tuple(slices)


def _modules(data: Any, path: str, problems: Problems) -> tuple[ModulePart, ...]:
    if not isinstance(data, dict) or not data:
        problems.append((path, f"expected modules (name: models or slices), got {shown(data)}"))
        return ()
    parts: list[ModulePart] = []
    for name, entry in data.items():
        where = join(path, str(name))
        if not isinstance(entry, dict) or ("models" in entry) == ("slices" in entry):
            problems.append((where, "expected {models} or {slices}, and parameters"))
            continue
        check_keys(entry, PART, where, problems)
        models = _of_key(_sources, entry, "models", where, problems)
        slices = _of_key(_slices, entry, "slices", where, problems)
        own = settings(entry.get("parameters"), join(where, "parameters"), problems)
        parts.append(ModulePart(str(name), models, slices, own))
    return tuple(parts)


def _tokenizer(data: dict[str, Any], path: str, problems: Problems) -> TokenizerSetting | None:
    if "tokenizer" in data and "tokenizer_source" in data:
        rule = "expected one of tokenizer and tokenizer_source, got both"
        problems.append((join(path, "tokenizer_source"), rule))
    if "tokenizer" in data:
        return tokenizer_schema.parse(data["tokenizer"], join(path, "tokenizer"), problems)
    if "tokenizer_source" in data:
        place = join(path, "tokenizer_source")
        return tokenizer_schema.parse_source(data["tokenizer_source"], place, problems)
    return None


def _chat_template(data: dict[str, Any], path: str, problems: Problems) -> str | None:
    if "chat_template" not in data:
        return None
    return chat_template.parse(data["chat_template"], join(path, "chat_template"), problems)


def _documents(data: Any, path: str, problems: Problems) -> tuple[Recipe, ...]:
    if data is None:
        return ()
    found = [
        parse(entry, join(path, i), problems)
        for i, entry in enumerate(_list(data, path, "recipes", problems))
    ]
    return tuple(recipe for recipe in found if recipe is not None)
