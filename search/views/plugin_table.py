"""What is installed: merge methods and evaluators, read from their declarations."""

from __future__ import annotations

import json
from typing import Any

from evaluators.registry import EVALUATORS
from merge_core.contract import Method, Param
from merge_core.methods.registry import METHODS, method
from search.views.tables import OUT, table


def methods(as_json: bool) -> None:
    """Print the merge methods."""
    found = [method(name) for name in METHODS.names()]
    if as_json:
        print(json.dumps([_method(m) for m in found], indent=1))
        return
    columns = ("method", "parameter", "range", "default", "scope", "meaning")
    OUT.print(table("merge methods", columns, [row for m in found for row in _rows(m)]))


def evaluators(as_json: bool) -> None:
    """Print the evaluators."""
    found = [EVALUATORS.get(name).describe() for name in EVALUATORS.names()]
    if as_json:
        print(json.dumps(found, indent=1))
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
    keys = ("name", "low", "high", "default", "scope", "choices", "meaning")
    return {
        "name": found.name,
        "params": [{key: getattr(p, key) for key in keys} for p in found.params],
        "base": found.base,
        "models": found.models,
        "reference": found.source,
    }


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
