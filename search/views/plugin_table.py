"""What is installed: merge methods and evaluators, read from their declarations."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from evaluators.registry import EVALUATORS
from merge_core.contract import Described, Method, Param
from merge_core.json_text import json_text
from merge_core.methods.registry import METHODS, method
from merge_core.mixture.described import MIXTURE
from search.views.tables import table
from search.views.terminal import OUT

COLUMNS = ("method", "parameter", "range", "default", "scope", "meaning")
NOTATION = (
    "W_b, W_i: weights of the base, of model i; d_i = W_i - W_b; v_i: d_i, or W_i without a base;\n"
    "k: number of models i; [p]: 1 where p holds, else 0; <a, b>, |a|: product, norm as vectors"
)


def methods(as_json: bool) -> None:
    """Print the merge methods."""
    found = [method(name) for name in METHODS.names()]
    if as_json:
        print(json_text([_method(m) for m in found]))
        return
    OUT.print(table("merge methods", COLUMNS, [row for m in found for row in _rows(m)]))
    OUT.print(
        "All about one: `mergetune methods NAME`; mixtures of experts: `mergetune methods moe`"
    )


def names() -> list[str]:
    """Return what `mergetune methods NAME` may be asked for; nothing is imported."""
    return [*METHODS.names(), MIXTURE.name]


def described() -> dict[str, Method | Described]:
    """Return all that `mergetune methods NAME` explains, by name: merge methods, then mixtures."""
    return {**{name: method(name) for name in METHODS.names()}, MIXTURE.name: MIXTURE}


def one_method(name: str, as_json: bool) -> None:
    """Print all that one merge method, or ``moe``, says about itself.

    Raises:
        UnknownNameError: No method has that name.
    """
    found = MIXTURE if name == MIXTURE.name else method(name)
    if as_json:
        print(json_text(_method(found)))
        return
    facts = Table.grid(padding=(0, 2))
    for what, text in said(found):
        facts.add_row(what, text)
    OUT.print(facts)
    if found.params:
        OUT.print(table("parameters", COLUMNS[1:], [row[1:] for row in _rows(found)]))


def said(found: Method | Described) -> list[tuple[str, str]]:
    """Return what a method says of itself beside its parameters: name of the fact, text."""
    smooth = ", ".join(param.name for param in found.params if param.smooth)
    facts = [
        ("method", found.name),
        ("about", found.about),
        ("formula", found.formula),
        ("notation", NOTATION if found.formula and isinstance(found, Method) else ""),
        ("when", found.when),
        ("models", found.takes),
        ("by gradient", smooth),
        ("source", linked(found.source)),
    ]
    return [(what, text) for what, text in facts if text]


def linked(source: str) -> str:
    """Return a source with its address: of arXiv and DOI it follows from the number."""
    kind, _, number = source.partition(":")
    place = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}.get(kind)
    return source if place is None else f"{source} ({place}{number})"


def evaluators(as_json: bool) -> None:
    """Print the evaluators."""
    found = [EVALUATORS.get(name).describe() for name in EVALUATORS.names()]
    if as_json:
        print(json_text(found))
        return
    cells = [
        (
            e["name"] if i == 0 else "",
            o["name"],
            o["kind"],
            "required" if o["required"] else json.dumps(o["default"]),
            o["meaning"],
        )
        for e in found
        for i, o in enumerate(e["options"])
    ]
    columns = ("evaluator", "key", "kind", "default", "meaning")
    OUT.print(table("evaluators", columns, cells))


def _method(found: Method | Described) -> dict[str, Any]:
    keys = ("name", "low", "high", "default", "scope", "choices", "smooth", "meaning")
    return {
        "name": found.name,
        "params": [{key: getattr(p, key) for key in keys} for p in found.params],
        **({"base": found.base, "models": found.models} if isinstance(found, Method) else {}),
        "reference": found.source,
        "about": found.about,
        "formula": found.formula,
        "when": found.when,
    }


def _rows(found: Method | Described) -> list[tuple[str, ...]]:
    """Return one row for each parameter, or one in all; the name stands in the first."""
    cells = [(p.name, _range(p), _default(p), p.scope, p.meaning) for p in found.params]
    return [(found.name if i == 0 else "", *row) for i, row in enumerate(cells or [("",) * 5])]


def _range(param: Param) -> str:
    if param.choices:
        return ", ".join(json.dumps(choice) for choice in param.choices)
    return f"{param.low:g} to {param.high:g}"


def _default(param: Param) -> str:
    return "required" if param.default is None else json.dumps(param.default)
