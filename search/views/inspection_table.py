"""An inspection as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from merge_core.inspect.report import Inspection, Row
from search.views.tables import numbers, table
from search.views.terminal import OUT

PLACE = 40  # columns of the terminal for layer and module
NUMBER = 11  # and for one number
Cells = dict[str, dict[Row, list[str]]]  # what stands under a name in each row that has it


def show(found: Inspection) -> None:
    """Print what was measured: facts, task vectors, pairs of them."""
    for line in _facts(found):
        OUT.print(line, soft_wrap=True)
    about = "~" if found.kept_is == "expected" else ""
    kept = (f"{about}kept", f"{about}of norm\u00b2") if found.kept_is else ()
    words = ("norm", "relative", *kept)
    vectors, pairs = _cells(found)
    _print(found, "task vectors", vectors, words, "", len(words) * NUMBER)
    words = ("cosine", "signs differ")
    _print(found, "pairs of task vectors", pairs, words, "-", 3 * NUMBER)  # under two names


def _cells(found: Inspection) -> tuple[Cells, Cells]:
    """Return what is shown of task vectors, and of pairs of them."""
    names, vectors, pairs = found.short_names(), Cells(), Cells()
    for row in (found.total, *found.rows):
        for one in row.models:
            shown = [_shown(one.norm, ".4g"), _shown(one.relative, ".4g")]
            if one.kept is not None:
                shown += [_shown(one.kept.entries, ".1%"), _shown(one.kept.squares, ".1%")]
            vectors.setdefault(names[one.model], {})[row] = shown
        for pair in row.pairs:
            shown = [_shown(pair.cosine, "+.3f"), _shown(pair.sign_disagreement, ".1%")]
            pairs.setdefault(", ".join(names[x] for x in pair.models), {})[row] = shown
    return vectors, pairs


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


def _print(
    found: Inspection, title: str, cells: Cells, words: Sequence[str], none: str, width: int
) -> None:
    """Print as many tables as the terminal needs, each with all rows; ``none``: an empty cell."""
    across = max(1, (OUT.width - PLACE) // width)
    for i in range(0, len(cells), across):
        names = list(cells)[i : i + across]
        columns = [f"{name}\n{word}" for name in names for word in words]
        made = table(title, ("layer", "module", *columns), ())
        made.columns[1].no_wrap = True
        last = None
        for row in (*found.rows, found.total):
            layer = found.layer_name(row)
            if layer != last or row is found.total:
                made.add_section()
            shown = [x for name in names for x in cells[name].get(row, [none] * len(words))]
            made.add_row("" if layer == last else layer, row.name, *shown)
            last = layer
        OUT.print(numbers(made, words=2))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}".replace("%", " %")


def _size(count: int) -> str:
    step = min(max(count.bit_length() - 1, 0) // 10, 4)
    return f"{count / 1024**step:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[step]}"
