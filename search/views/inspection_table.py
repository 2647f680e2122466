"""An inspection as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from merge_core.inspect.report import Inspection, Pair, Row
from search.views.tables import numbers, table
from search.views.terminal import OUT

PLACE = 40  # columns of the terminal for layer and module
NUMBER = 11  # and for one number
PAIRS = 3  # that are told one by one
CHANCE = 0.03  # how far from a half a share of signs is as if they were drawn
ANGLES = (  # least cosine, and what two task vectors do then
    (0.5, "change the weights alike"),
    (0.1, "change the weights a little alike"),
    (-0.1, "change the weights in nearly independent directions"),
    (-1.1, "work against each other"),
)
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
    for sentence in _sentences(found):
        OUT.print(sentence, soft_wrap=True)


def _sentences(found: Inspection) -> list[str]:
    """Return what the numbers of the whole model say, in words."""
    names, said = found.short_names(), []
    for one in found.total.models:
        if one.relative is None:
            continue
        kept = ""
        if one.kept is not None and one.kept.squares is not None:
            about = "about " if found.kept_is == "expected" else ""
            kept = f"; its density keeps {about}{one.kept.squares:.0%} of that, as a squared norm"
        said.append(f"{names[one.model]} moved by {one.relative:.1%} of the weights' norm{kept}.")
    pairs = [x for x in found.total.pairs if x.cosine is not None]
    pairs.sort(key=lambda pair: pair.cosine or 0.0)
    if len(pairs) > PAIRS:  # who is most against whom, and who is most alike
        pairs = [pairs[0], pairs[-1]]
    return [*said, *(_of_pair(pair, " and ".join(names[x] for x in pair.models)) for pair in pairs)]


def _of_pair(pair: Pair, names: str) -> str:
    cosine, signs = pair.cosine or 0.0, pair.sign_disagreement
    words = next((words for least, words in ANGLES if cosine >= least), "have no angle")
    if signs is None:
        return f"{names} {words} (cosine {cosine:+.2f}); no entry is changed by both."
    chance = ", as by chance" if abs(signs - 0.5) < CHANCE else ""
    return (
        f"{names} {words} (cosine {cosine:+.2f}); of the entries that both change, signs differ in "
        f"{signs:.0%}{chance}."
    )


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
