"""An inspection as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from merge_core.inspect.report import Inspection, Row
from search.views.tables import OUT, numbers, table

PLACE = 40  # columns of the terminal for layer and module
NUMBER = 11  # and for one number
PAIR = ("cosine", "signs differ")
T = TypeVar("T")
Cells = Callable[[Row], list[str]]


def show(found: Inspection) -> None:
    """Print what was measured: facts, task vectors, pairs of them."""
    for line in _facts(found):
        OUT.print(line, soft_wrap=True)
    names = found.short_names()
    about = "~" if found.kept_is == "expected" else ""
    kept = (f"{about}kept", f"{about}of norm\u00b2") if found.kept_is else ()
    words = ("norm", "relative", *kept)
    for some in _parts(found.models, len(words) * NUMBER):
        columns = [f"{names[model]}\n{word}" for model in some for word in words]
        _print(found, "task vectors", columns, _of_models(some, len(words)))
    pairs = [pair.models for pair in found.total.pairs]
    for part in _parts(pairs, 3 * NUMBER):  # two numbers under two names
        columns = [f"{names[a]}, {names[b]}\n{word}" for a, b in part for word in PAIR]
        _print(found, "pairs of task vectors", columns, _of_pairs(part))


def _facts(found: Inspection) -> list[str]:
    memory = found.memory
    parents = ", ".join(f"{name} {count:,}" for name, count in found.parents.items())
    sizes = (
        f"memory: parents {_size(memory.parents)} on disk and in the page cache, "
        f"result {_size(memory.result)}, temporaries about {_size(memory.temporaries)}"
    )
    return [
        f"{found.merge_method}, {found.dtype}, recipe digest {found.recipe_digest}",
        f"measured from: {', '.join(found.measured_from)}",
        f"task vectors: {', '.join(found.models) or 'none, every place has one model'}",
        f"parameters: {found.parameters:,} in the result; {parents}",
        sizes,
    ]


def _parts(things: Sequence[T], width: int) -> list[Sequence[T]]:
    """Return as many of ``things`` at a time as fit beside each other, at least one."""
    across = max(1, (OUT.width - PLACE) // width)
    return [things[i : i + across] for i in range(0, len(things), across)]


def _of_models(models: Sequence[str], width: int) -> Cells:
    def cells(row: Row) -> list[str]:
        found = {one.model: one for one in row.models}
        out = []
        for one in map(found.get, models):
            here = [] if one is None else [_shown(one.norm, ".4g"), _shown(one.relative, ".4g")]
            if one is not None and one.kept is not None:
                here += [_shown(one.kept.entries, ".1%"), _shown(one.kept.squares, ".1%")]
            out += [*here, *[""] * (width - len(here))]
        return out

    return cells


def _of_pairs(pairs: Sequence[tuple[str, str]]) -> Cells:
    def cells(row: Row) -> list[str]:
        found = {pair.models: (pair.cosine, pair.sign_disagreement) for pair in row.pairs}
        both = [found.get(models, (None, None)) for models in pairs]
        return [x for cosine, signs in both for x in (_shown(cosine, "+.3f"), _shown(signs, ".1%"))]

    return cells


def _print(found: Inspection, title: str, columns: Sequence[str], cells: Cells) -> None:
    made = table(title, ("layer", "module", *columns), ())
    made.columns[1].no_wrap = True
    last = ""
    for row in found.rows:
        layer = found.layer_name(row)
        if layer != last:
            made.add_section()
        made.add_row("" if layer == last else layer, row.name, *cells(row))
        last = layer
    made.add_section()
    made.add_row("", found.total.name, *cells(found.total))
    OUT.print(numbers(made, words=2))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}".replace("%", " %")


def _size(count: int) -> str:
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.4g} {units[0]}"
