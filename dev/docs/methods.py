"""Write ``docs/methods.md`` and its pictures from the methods' own declarations: make pictures.

Usage: python -m dev.docs.methods
"""

from __future__ import annotations

import re
from pathlib import Path

from dev.docs.pictures import PLANES, SPECTRA, caption, picture
from merge_core.contract import Described, Method, Param
from search.views.plugin_table import described, linked

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = (Path(__file__).parent / "methods_head.md").read_text(encoding="utf-8")
SHIPPED = {file.stem for file in (DOCS.parent / "merge_core" / "methods").glob("*.py")} | {"moe"}


def shipped() -> list[Method | Described]:
    """Return what the page explains: no methods of packages that happen to be installed."""
    return [found for name, found in described().items() if name in SHIPPED]


def page() -> str:
    """Return the page."""
    lines = [f"| [`{m.name}`](#{m.name}) | {_first(m.when)} |" for m in shipped()]
    table = "\n".join(["| method | when |", "|---|---|", *lines])
    return "\n".join([HEAD, f"{table}\n", *map(_section, shipped())])


def _first(text: str) -> str:
    """Return what is said before the first semicolon, colon or full stop, as a sentence."""
    return re.split(r"[.;:] ", text, maxsplit=1)[0].rstrip(".") + "."


def _section(m: Method | Described) -> str:
    drawn = [_picture(m)] if isinstance(m, Method) else []
    formula = "<br>\n".join(f"`{line}`" for line in m.formula.splitlines())
    smooth = ", ".join(f"`{p.name}`" for p in m.params if p.smooth)
    facts = [
        f"- When: {m.when}",
        f"- Models: {m.takes}.",
        *([f"- By gradient: {smooth}."] if smooth else []),
        *(["- Its random masks come from `seed:`."] if getattr(m, "draws", False) else []),
        f"- Source: {_source(m.source)}.",
    ]
    parts = [f"## {m.name}", m.about, *drawn, formula, "\n".join(facts), _params(m.params)]
    return "\n\n".join(parts) + "\n"


def _picture(m: Method) -> str:
    kind = (
        ["vectors in a plane"]
        if m.name in PLANES
        else ["singular values of two matrices"]
        if m.name in SPECTRA
        else []
    )
    shown = [*kind, *([caption(m)] if caption(m) else [])]
    under = f"\n\n*In the picture: {', '.join(shown)}.*" if shown else ""
    return f"![What {m.name} does to weights](pictures/{m.name}.svg){under}"


def _source(source: str) -> str:
    name, _, place = linked(source).partition(" (")
    return f"[{name}]({place.rstrip(')')})" if place else f"<{source}>"


def _params(params: tuple[Param, ...]) -> str:
    if not params:
        return "It has no parameters."
    rows = ["| parameter | range | default | one for | meaning |", "|---|---|---|---|---|"]
    for p in params:
        scope = "each model" if p.scope == "model" else "the merge"
        default = "required" if p.default is None else _value(p.default)
        rows.append(f"| `{p.name}` | {_range(p)} | {default} | {scope} | {p.meaning} |")
    return "\n".join(rows)


def _range(p: Param) -> str:
    return ", ".join(map(_value, p.choices)) if p.choices else f"{p.low:g} to {p.high:g}"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Write the page and all pictures."""
    (DOCS / "pictures").mkdir(exist_ok=True)
    for m in shipped():
        if isinstance(m, Method):
            (DOCS / "pictures" / f"{m.name}.svg").write_text(picture(m), encoding="utf-8")
    (DOCS / "methods.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
