"""What is installed: merge methods and evaluators, read from their declarations."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from evaluators.registry import EVALUATORS
from merge_core.contract import Method, Param
from merge_core.json_text import json_text
from merge_core.methods.registry import METHODS, method
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


def one_method(name: str, as_json: bool) -> None:
    """Print all that one merge method says about itself.

    Raises:
        UnknownNameError: No method has that name.
    """
    found = method(name)
    if as_json:
        print(json_text(_method(found)))
        return
    facts = Table.grid(padding=(0, 2))
    facts.add_row("method", found.name)
    if found.formula:
        facts.add_row("formula", found.formula)
        facts.add_row("notation", NOTATION)
    if found.when:
        facts.add_row("when", found.when)
    facts.add_row("models", _models(found))
    smooth = [param.name for param in found.params if param.smooth]
    if smooth:
        facts.add_row("by gradient", ", ".join(smooth))
    facts.add_row("source", found.source)
    OUT.print(facts)
    if found.params:
        OUT.print(table("parameters", COLUMNS[1:], [row[1:] for row in _rows(found)]))


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


def _method(found: Method) -> dict[str, Any]:
    keys = ("name", "low", "high", "default", "scope", "choices", "smooth", "meaning")
    return {
        "name": found.name,
        "params": [{key: getattr(p, key) for key in keys} for p in found.params],
        "base": found.base,
        "models": found.models,
        "reference": found.source,
        "formula": found.formula,
        "when": found.when,
    }


def _models(found: Method) -> str:
    least, most = found.models
    count = "" if most == least else " or more" if most is None else f" to {most}"
    base = "not used" if found.base == "none" else f"{found.base}, and one of them"
    return f"{least}{count}; base_model: {base}"


def _rows(found: Method) -> list[tuple[str, ...]]:
    """Return one row for each parameter, or one in all; the name stands in the first."""
    cells = [(p.name, _range(p), _default(p), p.scope, p.meaning) for p in found.params]
    return [(found.name if i == 0 else "", *row) for i, row in enumerate(cells or [("",) * 5])]


def _range(param: Param) -> str:
    if param.choices:
        return ", ".join(json.dumps(choice) for choice in param.choices)
    return f"{param.low:g} to {param.high:g}"


def _default(param: Param) -> str:
    return "required" if param.default is None else json.dumps(param.default)
