"""`mergetune tokensurgeon`: a model with the tokenizer of another one."""

from __future__ import annotations

from typing import Annotated

import typer

from merge_core.transplant.surgeon import tokensurgeon as transplanted
from search.options import Json, Out, Overwrite, TrustCode
from search.views.answers import answer
from search.views.transplant import transplant

Model = Annotated[str, typer.Argument(help="The model that gets it: a folder or a hub id.")]
Donor = Annotated[
    str, typer.Argument(help="What has the tokenizer: a folder or a hub id; no weights are read.")
]


def tokensurgeon(
    model: Model,
    donor: Donor,
    out: Out,
    overwrite: Overwrite = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Give a model the tokenizer of another one, and say what each token's row is made of."""
    found = transplanted(model, donor, out, overwrite=overwrite)
    answer(as_json, {"out": str(out), **found.plain()}, lambda: transplant(found, out))
