"""What the rows of a model with another tokenizer are made of, for people."""

from __future__ import annotations

from pathlib import Path

from merge_core.transplant.surgeon import Transplant
from search.views.tables import numbers, table
from search.views.terminal import OUT

KINDS = {
    "shared": "as they were: both tokenizers have the token",
    "role": "of the special token with the same role",
    "subwords": "mean of the subwords that the model cuts the token into",
    "mean": "mean of all tokens: nothing nearer, or no token",
}


def transplant(found: Transplant, out: Path) -> None:
    """Print how many rows come from where."""
    rows = found.rows
    cells = [
        (words, str(rows[kind]), f"{100 * rows[kind] / rows['after']:.1f} %")
        for kind, words in KINDS.items()
    ]
    cells.append(("in all", str(rows["after"]), "100.0 %"))
    title = f"{found.model} with the tokenizer of {found.donor}"
    OUT.print(numbers(table(title, ("rows of tokens", "number", "share"), cells), words=1))
    if rows["subwords"]:
        OUT.print(f"A mean of subwords is of {found.subwords:.2f} tokens on average.")
    where = ", ".join(found.tensors)
    OUT.print(f"{where}: {rows['before']} rows before, {rows['after']} now.", soft_wrap=True)
    OUT.print(f"{out}: weights digest {found.weights_digest}", soft_wrap=True)
