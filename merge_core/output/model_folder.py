"""A plan -> a Hugging Face model folder, tensor by tensor; whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merge_core.architecture.remote_code import CODE_FROM
from merge_core.atomic_write import fill_whole, write_whole
from merge_core.errors import CheckpointError, OutputExistsError
from merge_core.json_text import json_text, read_json, tagged
from merge_core.output import folded_scales, gguf_export
from merge_core.output.contents import CARD, RECORD, listed
from merge_core.output.gguf_export import Quant
from merge_core.output.model_card import CardResult, card, is_as_written
from merge_core.output.safetensors_writer import SHARD_BYTES, Watch, write_shards
from merge_core.parents import digests
from merge_core.parents.companions import code_files, companions, is_of_tokenizer
from merge_core.parents.protocol import Parent
from merge_core.plan.steps import Plan
from merge_core.recipe.schema import Recipe
from merge_core.tokenizer.chat_template import chat_template

STUDY = ("study.yaml", "study.db", ".writer.lock")  # what a study's folder holds one of


@dataclass(frozen=True)
class Writing:
    """How a model folder is written."""

    shard_bytes: int = SHARD_BYTES  # of one weights file at most; a larger tensor has its own
    gguf: Quant | None = None  # how a GGUF file beside them packs weights, if there is to be one
    device: str | None = None  # where tensors are merged, in torch's words; None: where they are
    watch: Watch | None = None  # told after each tensor how many bytes are written, and of how many


USUAL = Writing()


def write(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    ours: bool = False,
    expected: str | None = None,
    result: CardResult | None = None,
    how: Writing = USUAL,
) -> str:
    """Merge into a new model folder: weights, config, tokenizer, recipe, model card.

    Args:
        plan: What to compute.
        out: The folder to make; a link is followed to the folder it names.
        overwrite: Replace ``out`` if it is there and mergetune wrote it.
        ours: Whether only mergetune writes to that place, so that its record may be gone.
        expected: The ``weights_digest`` that the result must have; None takes any.
        result: What is known of the model, for its card.
        how: The rest.

    Returns:
        The ``weights_digest`` of what was written, the same as that of the live candidate.

    Raises:
        OutputExistsError: ``out`` is taken; also with ``overwrite`` by what must not be lost.
        CheckpointError: The parents do not give the weights that are expected.
        ParameterError: Weights, or GGUF, cannot say what layers' inputs are multiplied by.
        MergeError: A tensor cannot be merged; nothing is left behind.
    """
    made: list[str] = []
    out, factors = out.resolve(), folded_scales.factors(plan)
    gguf_export.check(how.gguf, plan.config, [step.tensor for step in plan.steps])
    if overwrite:
        _check_replaceable(out, plan.opened.values(), ours)

    def fill(folder: Path) -> None:
        write_shell(plan, folder)  # first: what can be wrong there is known before hours of merging
        wait = digests.begun(plan.opened.values())  # while tensors are merged
        made.append(write_shards(plan, folder, factors, how.shard_bytes, how.watch, how.device))
        _check_expected(out, made[0], expected)
        wait()
        _describe(plan, folder, out, made[0], result, how.gguf)

    fill_whole(out, fill, overwrite=overwrite)
    return made[0]


def _check_expected(out: Path, made: str, expected: str | None) -> None:
    if expected not in (None, made):
        raise CheckpointError(
            f"{out}: not written, the merge gives other weights ({made}, was {expected}); "
            f"a parent has changed since, or the merge ran on another device (--device)"
        )


def _describe(
    plan: Plan,
    folder: Path,
    out: Path,
    weights: str,
    result: CardResult | None,
    gguf: Quant | None,
) -> None:
    """Write card, recipe, GGUF file and, last, the record of a folder that has all else."""
    recipe, record = portable(plan.recipe, plan.opened, out), _record(plan, weights)
    (folder / CARD).write_text(card(plan, recipe, record, result), encoding="utf-8")
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    if gguf is not None:
        file = folder / gguf_export.file_name(out.name, gguf)
        gguf_export.write(folder, file, gguf, out.name)
    record["files"] = listed(folder)
    (folder / RECORD).write_text(json_text(record) + "\n", encoding="utf-8")


def write_card(plan: Plan, out: Path, result: CardResult | None = None) -> bool:
    """Write the card of a model folder that is whole, where it is to say something else now.

    Args:
        plan: What the folder was written by.
        out: The folder.
        result: What is known of the model.

    Returns:
        Whether that was done or needless; False: somebody has written on the card, so it stays.

    Raises:
        OutputError: It cannot be written.
    """
    out = out.resolve()
    recipe = portable(plan.recipe, plan.opened, out)
    text = card(plan, recipe, read_json(out / RECORD), result)
    file = out / CARD
    before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else text
    if not is_as_written(before):
        return False
    if before != text or not file.is_file():
        write_whole(file, text)
    return True


def _check_replaceable(out: Path, parents: Iterable[Parent], ours: bool) -> None:
    """Refuse to replace a folder that mergetune did not write, or that holds what must stay.

    Args:
        out: What would go; links resolved. It need not exist.
        parents: Models that must stay.
        ours: Whether a record is not asked for.

    Raises:
        OutputExistsError: It must not go.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    places = [parent.located for parent in parents]
    parts = [x for place in places if place is not None for x in (place.model, place.lora)]
    models = [part.shown.resolve() for part in parts if part is not None]
    if out in (here := Path.cwd().resolve(), *here.parents):
        why = "the working directory is in it"
    elif any(out in (model, *model.parents) for model in models):
        why = "a model that is merged is in it"
    elif any(file for name in STUDY for file in out.rglob(name)):
        why = "a study is in it"
    elif not ours and not (out / RECORD).is_file():
        why = f"mergetune did not write it (it has no {RECORD})"
    else:
        return
    raise OutputExistsError(
        f"{out}: is not replaced, since {why}; choose another place or remove it yourself"
    )


def write_shell(plan: Plan, folder: Path) -> None:
    """Write all that a model folder has beside its weights: config, tokenizer, processor, ..."""
    _write_config(plan, folder)
    _copy(plan, folder)
    _write_tokenizer(plan, folder)


def _write_config(plan: Plan, folder: Path) -> None:
    config = dict(plan.config)
    config.pop("torch_dtype", None)  # the key before transformers 5
    config.pop(CODE_FROM, None)
    config["dtype"] = plan.dtype
    text = json.dumps(tagged(config), indent=2, allow_nan=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _write_tokenizer(plan: Plan, folder: Path) -> None:
    setting, text = plan.recipe.chat_template, None
    if setting is not None:
        text = chat_template(setting, plan.parents, plan.recipe.names())
    if plan.vocabulary is not None:
        if text is not None:
            plan.vocabulary.tokenizer.chat_template = text
        plan.vocabulary.save(folder)
        return
    if text is not None:
        _set_chat_template(folder, text)


def _copy(plan: Plan, folder: Path) -> None:
    """Copy what lies beside the weights; the files of a vocabulary that is another now stay."""
    source = plan.parents[plan.tokens_from].folder
    for file in companions(source):
        if plan.vocabulary is None or not is_of_tokenizer(file):
            place = folder / file.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, place)
    for file in code_files(plan.parents[plan.config_from].folder):
        shutil.copyfile(file, folder / file.name)


def _set_chat_template(folder: Path, text: str) -> None:
    """Put a template beside the tokenizer, and take away the one inside its config."""
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    (folder / "chat_template.json").unlink(missing_ok=True)  # an older name
    file = folder / "tokenizer_config.json"
    if file.is_file():
        config = read_json(file)
        config.pop("chat_template", None)
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def portable(recipe: Recipe, opened: Mapping[str, Parent], folder: Path) -> Recipe:
    """Return the recipe for a file in ``folder``: paths relative to it, hub ids with revision."""
    names = {}
    for name in recipe.references():
        located = opened[name].located
        assert located is not None
        names[name] = located.seen_from(folder)
    return recipe.with_references(names)


def _record(plan: Plan, weights: str) -> dict[str, Any]:
    libraries = ("mergetune", "torch", "transformers", "safetensors")
    places = {name: parent.located for name, parent in plan.opened.items()}
    pinned = {name: place.pinned() for name, place in places.items() if place is not None}
    return {
        "format": 1,
        "recipe": plan.recipe.plain(),
        "recipe_digest": plan.recipe.digest(),
        "weights_digest": weights,
        "pinned": {name: text for name, text in pinned.items() if text is not None},
        "parents": {name: plan.opened[name].digest for name in plan.recipe.references()},
        "dropped": dict(plan.dropped),
        "versions": {name: version(name) for name in libraries},
    }
