"""An inspection as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from merge_core.inspect.report import Inspection, Kept, Row
from search.views.tables import OUT

PLACE = 40  # columns of the terminal for layer and module
NUMBER = 11  # and for one number
PAIR = ("cosine", "signs differ")
T = TypeVar("T")
Cells = Callable[[Row], list[str]]


def show(found: Inspection) -> None:
    """Print what was measured: facts, task vectors, pairs of them."""
    for line in _facts(found):
        OUT.print(Text(line), soft_wrap=True)
    names = found.short_names()
    words = ("norm", "relative", *(_kept_words(found) if found.kept_is else ()))
    for some in _parts(found.models, len(words) * NUMBER):
        columns = [f"{names[model]}\n{word}" for model in some for word in words]
        _print(found, "task vectors", columns, _of_models(some, found.kept_is is not None))
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


def _kept_words(found: Inspection) -> tuple[str, str]:
    about = "~" if found.kept_is == "expected" else ""
    return f"{about}kept", f"{about}of norm\u00b2"


def _parts(things: Sequence[T], width: int) -> list[Sequence[T]]:
    """Return as many of ``things`` at a time as fit beside each other, at least one."""
    across = max(1, (OUT.width - PLACE) // width)
    return [things[i : i + across] for i in range(0, len(things), across)]


def _of_models(models: Sequence[str], density: bool) -> Cells:
    def cells(row: Row) -> list[str]:
        found = {one.model: one for one in row.models}
        out = []
        for model in models:
            one = found.get(model)
            out += ["", ""] if one is None else [_number(one.norm), _number(one.relative)]
            out += _kept(None if one is None else one.kept) if density else []
        return out

    return cells


def _kept(kept: Kept | None) -> list[str]:
    return ["", ""] if kept is None else [_share(kept.entries), _share(kept.squares)]


def _of_pairs(pairs: Sequence[tuple[str, str]]) -> Cells:
    def cells(row: Row) -> list[str]:
        found = {pair.models: pair for pair in row.pairs}
        out = []
        for models in pairs:
            pair = found.get(models)
            numbers = (None, None) if pair is None else (pair.cosine, pair.sign_disagreement)
            out += [_cosine(numbers[0]), _share(numbers[1])]
        return out

    return cells


def _print(found: Inspection, title: str, columns: Sequence[str], cells: Cells) -> None:
    table = Table(title=title)
    table.add_column("layer")
    table.add_column("module", no_wrap=True)
    for column in columns:
        table.add_column(Text(column), justify="right")
    last = ""
    for row in found.rows:
        layer = found.layer_name(row)
        if layer != last:
            table.add_section()
        table.add_row(Text("" if layer == last else layer), Text(row.name), *cells(row))
        last = layer
    table.add_section()
    table.add_row("", Text(found.total.name), *cells(found.total), style="bold")
    OUT.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _size(count: int) -> str:
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.4g} {units[0]}"
