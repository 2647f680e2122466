"""`mergetune extract-lora`: what a fine-tune changed, as a LoRA adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from merge_core.extract.adapter_folder import extract_lora as extracted
from merge_core.extract.lora import Asked
from search.options import Json, Overwrite, TrustCode
from search.views.answers import answer
from search.views.extraction import extraction
from search.views.share_done import share_done

Model = Annotated[str, typer.Argument(help="The fine-tune: a folder or a hub id.")]
Folder = Annotated[Path, typer.Argument(help="The adapter's folder to make.")]
Base = Annotated[str, typer.Option("--base", help="The model that it was tuned from.")]
Rank = Annotated[
    int, typer.Option("--rank", min=1, help="Greatest rank of a layer: more is nearer and larger.")
]
Dtype = Annotated[
    str, typer.Option("--dtype", help="Of the factors: float32, bfloat16 or float16.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="TEXT",
        help="Leave modules whose name contains this at the base; may be repeated.",
    ),
]


def extract_lora(
    model: Model,
    out: Folder,
    base: Base,
    rank: Rank = 32,
    dtype: Dtype = "float32",
    exclude: Exclude = None,
    overwrite: Overwrite = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Extract a LoRA adapter from a fine-tune, and say how far base and adapter are from it."""
    asked = Asked(rank, dtype, tuple(exclude or ()))
    with share_done("linear layers") as progress:
        found = extracted(model, base, out, asked, overwrite=overwrite, progress=progress)
    answer(as_json, {"out": str(out), **found.plain()}, lambda: extraction(found, out))
