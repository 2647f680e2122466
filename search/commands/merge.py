"""`mergetune merge` and `moe`: a recipe into a model folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from merge_core import api
from merge_core.atomic_write import check_free
from merge_core.output.model_folder import Writing
from search.commands.seeds import compare_seeds
from search.commands.write_folder import Models, foretell, refuse_push, written
from search.options import (
    SIZE,
    AllowCrimes,
    Config,
    Device,
    Forecasted,
    Gguf,
    Json,
    Out,
    OutOrNone,
    Overwrite,
    PushTo,
    Quant,
    Quiet,
    ScoredBy,
    Seed,
    Seeds,
    ShardSize,
    Strict,
    Threads,
    TrustCode,
    packed,
)
from search.views.answers import hushed, made


def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe in the mergekit dialect.")],
    out: OutOrNone = None,
    overwrite: Overwrite = False,
    gguf: Gguf = False,
    quant: Quant = None,
    strict: Strict = False,
    seeds: Seeds = None,
    score: ScoredBy = None,
    seed: Seed = None,
    shard_size: ShardSize = SIZE,
    threads: Threads = None,
    device: Device = "cpu",
    push: PushTo = None,
    dry_run: Forecasted = False,
    quiet: Quiet = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Merge a recipe into a model folder, or compare merges with several seeds."""
    if seeds is not None or score is not None or out is None:
        if dry_run or seed is not None or push is not None or device != "cpu":
            rule = "--device, --dry-run, --push and --seed go with OUT, not with --seeds"
            raise typer.BadParameter(rule)
        compare_seeds(recipe, out, seeds, score, strict=strict, as_json=as_json)
        return
    read: dict[str, Any] = {"tell": hushed(quiet), "strict": strict, "seed": seed}
    how = Writing(shard_size, packed(gguf, quant), device)
    check_free(out, overwrite=overwrite)  # before anything is asked
    if dry_run:
        refuse_push(push)
        foretell(api.planned(recipe, **read), out, how, as_json)
        return
    make = partial(api.merge, recipe, out, overwrite=overwrite, **read)
    _write(make, recipe, out, how, push, quiet=quiet, as_json=as_json)


def moe(
    config: Config,
    out: Out,
    overwrite: Overwrite = False,
    strict: Strict = False,
    seed: Seed = None,
    shard_size: ShardSize = SIZE,
    threads: Threads = None,
    device: Device = "cpu",
    push: PushTo = None,
    dry_run: Forecasted = False,
    quiet: Quiet = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Make a mixture of experts of dense models."""
    read: dict[str, Any] = {"tell": hushed(quiet), "strict": strict, "seed": seed}
    how = Writing(shard_size, device=device)
    check_free(out, overwrite=overwrite)
    api.check_mixture(config)
    if dry_run:
        refuse_push(push)
        foretell(api.planned(config, **read), out, how, as_json)
        return
    make = partial(api.moe, config, out, overwrite=overwrite, **read)
    _write(make, config, out, how, push, quiet=quiet, as_json=as_json)


def _write(
    make: Callable[..., str],
    recipe: Path,
    out: Path,
    how: Writing,
    push: str | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a folder, see ``write_folder.written``, and print what was made."""

    def models() -> Models:
        found, roots = api.read(recipe)
        return found.recipe.references(), roots

    digest, address = written(lambda x: make(how=x), out, how, push, models, quiet=quiet)
    if as_json or not quiet:
        made(out, digest, as_json, address)
