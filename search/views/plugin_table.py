"""What is installed: merge methods and evaluators, read from their declarations."""

from __future__ import annotations

import json
from typing import Any

from evaluators.registry import EVALUATORS
from merge_core.contract import Method, Param
from merge_core.methods.registry import METHODS, method
from search.views import tables


def methods(as_json: bool) -> None:
    """Print the merge methods."""
    found = [method(name) for name in METHODS.names()]
    if as_json:
        print(json.dumps([_method(m) for m in found], indent=1))
        return
    cells = [row for m in found for row in _rows(m)]
    columns = ("method", "parameter", "range", "default", "scope", "meaning")
    tables.rows("merge methods", columns, cells)


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
    tables.rows("evaluators", ("evaluator", "key", "kind", "default", "meaning"), cells)


def _method(found: Method) -> dict[str, Any]:
    return {
        "name": found.name,
        "params": [
            {
                "name": p.name,
                "low": p.low,
                "high": p.high,
                "default": p.default,
                "scope": p.scope,
                "choices": list(p.choices),
                "meaning": p.meaning,
            }
            for p in found.params
        ],
        "base": found.base,
        "models": list(found.models),
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
