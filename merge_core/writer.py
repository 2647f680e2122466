"""A plan -> a Hugging Face model folder, tensor by tensor; whole or absent."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_core import digest
from merge_core.errors import CheckpointError
from merge_core.execution import carry_out
from merge_core.files import fill_whole
from merge_core.parent import INDEX, SINGLE, Parent
from merge_core.plan import Plan, Step
from merge_core.recipe import Recipe
from merge_core.references import relative_to

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 5 * 10**9
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)


def write(
    plan: Plan,
    parents: Mapping[str, Parent],
    out: Path,
    *,
    overwrite: bool = False,
    expected: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> str:
    """Merge into a new model folder: weights, config, tokenizer, recipe, model card.

    Args:
        plan: What to compute.
        parents: Every parent of the plan.
        out: The folder to make.
        overwrite: Replace ``out`` if it exists.
        expected: The ``weights_digest`` that the result must have; None takes any.
        shard_bytes: Greatest size of one weights file; a larger tensor gets a file of its own.

    Returns:
        The ``weights_digest`` of what was written, the same as that of the live candidate.

    Raises:
        OutputExistsError: ``out`` is taken.
        CheckpointError: The parents do not give the weights that are expected.
        MergeError: A tensor cannot be merged; nothing is left behind.
    """
    hashes: list[int] = []

    def fill(folder: Path) -> None:
        shards = _shards(plan, shard_bytes)
        for file, steps in shards:
            hashes.extend(_write_shard(plan, parents, folder / file, steps))
        _check_expected(out, digest.combined(hashes), expected)
        if len(shards) > 1:
            _write_index(plan, folder, shards)
        _copy_config(plan, parents[plan.config_from].folder, folder)
        record = _record(plan, parents, digest.combined(hashes))
        (folder / "README.md").write_text(_card(plan, record), encoding="utf-8")
        recipe = portable_yaml(plan.recipe, parents, out)
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        # last: its presence says that the folder is complete
        (folder / "mergetune.json").write_text(json.dumps(record, indent=1) + "\n")

    fill_whole(out, fill, overwrite=overwrite)
    return digest.combined(hashes)


def _check_expected(out: Path, made: str, expected: str | None) -> None:
    if expected is not None and made != expected:
        raise CheckpointError(
            f"{out}: not written, the merge gives other weights ({made}, was {expected}); "
            f"a parent has changed since"
        )


def _bytes(plan: Plan, step: Step) -> int:
    width = 4 if plan.dtype == "float32" else 2
    return math.prod(step.shape) * (8 if step.copied else width)


def _shards(plan: Plan, limit: int) -> list[tuple[str, list[Step]]]:
    groups: list[list[Step]] = [[]]
    size = 0
    for step in plan.steps:
        if groups[-1] and size + _bytes(plan, step) > limit:
            groups.append([])
            size = 0
        groups[-1].append(step)
        size += _bytes(plan, step)
    if len(groups) == 1:
        return [(SINGLE, groups[0])]
    n = len(groups)
    return [(f"model-{i + 1:05d}-of-{n:05d}.safetensors", group) for i, group in enumerate(groups)]


def _write_shard(
    plan: Plan, parents: Mapping[str, Parent], file: Path, steps: Sequence[Step]
) -> Iterator[int]:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for step in steps:
        tensors[step.tensor] = carry_out(plan, step, parents).contiguous()
        yield digest.tensor_digest(step.tensor, tensors[step.tensor])
    save_file(tensors, file, metadata={"format": "pt"})


def _write_index(plan: Plan, folder: Path, shards: list[tuple[str, list[Step]]]) -> None:
    total = sum(_payload(folder / file) for file, _ in shards)
    placed = {step.tensor: file for file, steps in shards for step in steps}
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _payload(file: Path) -> int:
    """Return the bytes of a safetensors file's tensors: without the header and its length."""
    with file.open("rb") as stream:
        return file.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")


def _copy_config(plan: Plan, source: Path, folder: Path) -> None:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # the key before transformers 5
    config["dtype"] = plan.dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for pattern in ("generation_config.json", *TOKENIZER):
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


def portable_yaml(recipe: Recipe, parents: Mapping[str, Parent], folder: Path) -> str:
    """Return the recipe as YAML for a file in ``folder``: local parents relative to it."""
    names = {
        name: name if parents[name].from_hub else relative_to(parents[name].folder, folder)
        for name in recipe.references()
    }
    return recipe.with_references(names).to_yaml()


def _record(plan: Plan, parents: Mapping[str, Parent], weights: str) -> dict[str, Any]:
    libraries = ("mergetune", "torch", "transformers", "safetensors")
    return {
        "format": 1,
        "recipe": plan.recipe.plain(),
        "recipe_digest": plan.recipe.digest(),
        "weights_digest": weights,
        "parents": {name: parents[name].digest for name in plan.recipe.references()},
        "dropped": dict(plan.dropped),
        "versions": {name: version(name) for name in libraries},
    }


def _card(plan: Plan, record: Mapping[str, Any]) -> str:
    parents = "\n".join(f"- `{name}` (SHA-256 {sha})" for name, sha in record["parents"].items())
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"""---
library_name: transformers
tags: [merge, mergetune]
---
# A merge by `{plan.method.name}`

Made with mergetune from these parents:

{parents}

```yaml
{plan.recipe.to_yaml()}```

`mergetune merge recipe.yaml OUT` makes the same weights again (digest {record["weights_digest"]}).
Method: {plan.method.reference}. Versions: {versions}.
"""
