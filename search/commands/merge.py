"""`mergetune merge` and `moe`: a recipe into a model folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from merge_core import api
from merge_core.atomic_write import check_free
from merge_core.inspect.forecast import forecast
from search.commands.seeds import compare_seeds
from search.options import (
    SIZE,
    AllowCrimes,
    Config,
    Forecasted,
    Gguf,
    Json,
    Out,
    OutOrNone,
    Overwrite,
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
from search.views import writing
from search.views.answers import answer, made, warn


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
    dry_run: Forecasted = False,
    quiet: Quiet = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Merge a recipe into a model folder, or compare merges with several seeds."""
    if seeds is not None or score is not None or out is None:
        if dry_run or seed is not None:
            raise typer.BadParameter("--dry-run and --seed go with OUT, not with --seeds")
        compare_seeds(recipe, out, seeds, score, strict=strict, as_json=as_json)
        return
    how = {"tell": _told(quiet), "strict": strict, "seed": seed}
    if dry_run:
        _foretell(recipe, out, shard_size, as_json, overwrite=overwrite, **how)
        return
    how |= {"overwrite": overwrite, "gguf": packed(gguf, quant), "shard_bytes": shard_size}
    _write(partial(api.merge, recipe, out, **how), out, quiet, as_json)


def moe(
    config: Config,
    out: Out,
    overwrite: Overwrite = False,
    strict: Strict = False,
    seed: Seed = None,
    shard_size: ShardSize = SIZE,
    threads: Threads = None,
    dry_run: Forecasted = False,
    quiet: Quiet = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Make a mixture of experts of dense models."""
    how = {"tell": _told(quiet), "strict": strict, "seed": seed}
    if dry_run:
        api.check_mixture(config)
        _foretell(config, out, shard_size, as_json, overwrite=overwrite, **how)
        return
    how |= {"overwrite": overwrite, "shard_bytes": shard_size}
    _write(partial(api.moe, config, out, **how), out, quiet, as_json)


def _told(quiet: bool) -> Any:
    return (lambda line: None) if quiet else warn


def _write(make: Callable[..., str], out: Path, quiet: bool, as_json: bool) -> None:
    """Make a folder, showing how that goes, and print what was made."""
    with writing.written_bytes(quiet=quiet) as watch:
        digest = make(watch=watch)
    if as_json or not quiet:
        made(digest, out, as_json)


def _foretell(
    recipe: Path, out: Path, size: int, as_json: bool, *, overwrite: bool, **how: Any
) -> None:
    check_free(out, overwrite=overwrite)
    found = forecast(api.planned(recipe, **how), out, size)
    answer(as_json, found.plain(), lambda: writing.forecast(found))
