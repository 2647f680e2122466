"""What a model changed -> a folder that peft loads on the base, with its errors in words."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.atomic_write import check_free, fill_whole
from merge_core.contract import Tensor
from merge_core.extract.lora import Asked, Extracted, extract
from merge_core.extract.modules import names_of_modules
from merge_core.json_text import json_text
from merge_core.output.contents import CARD, check_ours
from merge_core.output.model_card import code, tool_card
from merge_core.parents import ties
from merge_core.parents.companions import companions, is_of_tokenizer
from merge_core.parents.lora_keys import CONFIG, WEIGHTS
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent

RECORD = "extraction.json"
PREFIX = "base_model.model."  # of all keys that peft saves


@dataclass(frozen=True)
class Extraction:
    """What was written, in plain data; lengths are roots of sums of squares.

    Args:
        modules: Of each linear layer: ``name``, ``rank``, ``norm`` of the task vector, ``error``
            (length of task vector minus ``B A``, of the factors as written), ``relative`` (their
            quotient), ``largest`` (entry of the difference).
        whole: Modules that are in the adapter as they are in the model.
        biases: Likewise, of linear layers.
        left: Tensor that is the base's in the adapter -> ``why``, and the ``norm`` of its change.
        norm: Length of the task vector without what is whole.
        error: Length of what the adapter lacks of it.
        bytes: Size of the adapter's weights.
    """

    model: str
    base: str
    rank: int
    dtype: str
    modules: list[dict[str, Any]]
    whole: list[str]
    biases: list[str]
    left: dict[str, dict[str, Any]]
    norm: float
    error: float
    bytes: int

    @property
    def relative(self) -> float:
        """The error as a share of the task vector's length."""
        return self.error / self.norm if self.norm else 0.0

    def plain(self) -> dict[str, Any]:
        """Return the data of ``extraction.json``."""
        return {**vars(self), "relative": self.relative}


def extract_lora(
    model: str,
    base: str,
    out: Path,
    asked: Asked,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Extract a LoRA adapter into a folder of its own.

    Args:
        model: A reference: folder, hub id, with ``@revision`` or ``+lora``.
        base: Another one, what it was tuned from.
        out: The folder to make.
        asked: Rank, type, what to leave out.
        overwrite: Replace a folder that this has written.
        progress: See ``extract``.

    Raises:
        OutputExistsError: ``out`` is taken.
        MergeError: A model cannot be read, or they are no model and its base.
    """
    check_free(out, overwrite=overwrite)
    if overwrite:
        check_ours(out, RECORD, "extract-lora")
    opened = open_parents((model, base), (Path.cwd(),))
    found = extract(opened[model], opened[base], asked, progress)
    every = names_of_modules(opened[base])
    tensors, config = _tensors(opened[model], found), _config(opened[base], found, every)
    told = _told(model, base, asked, found, tensors)

    def fill(folder: Path) -> None:
        from safetensors.torch import save_file

        for file in filter(is_of_tokenizer, companions(opened[model].folder)):
            place = folder / file.relative_to(opened[model].folder)
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(file.read_bytes())
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(_card(told), encoding="utf-8")
        (folder / RECORD).write_text(json_text(told.plain()) + "\n", encoding="utf-8")
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # the library's is for the owner alone

    fill_whole(out, fill, overwrite=overwrite)
    return told


def _tensors(model: Parent, found: Extracted) -> dict[str, Tensor]:
    """Return key in the adapter's file -> tensor."""
    model = ties.untied(model, model.architecture.tied)
    made, wrapped = {}, {x.module.name for x in found.low_rank}
    for one in found.low_rank:
        made[f"{PREFIX}{one.module.name}.lora_A.weight"] = one.factors.a
        made[f"{PREFIX}{one.module.name}.lora_B.weight"] = one.factors.b
    for module in found.whole:
        for own, place in module.tensors.items():
            made[f"{PREFIX}{module.name}.{own}"] = model.tensor(place).clone()
    for layer, place in found.biases:
        inside = ".base_layer" if layer in wrapped else ""
        made[f"{PREFIX}{layer}{inside}.bias"] = model.tensor(place).clone()
    return made


def _config(base: Parent, found: Extracted, every: Sequence[str]) -> dict[str, Any]:
    """Return peft's config: the scale of every pair is 1."""
    ranks = {x.module.name: x.factors.rank for x in found.low_rank}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    conv1d = any(x.module.kind == "conv1d" for x in found.low_rank)
    located = base.located
    return {
        "peft_type": "LORA",
        "task_type": None if base.architecture.not_causal else "CAUSAL_LM",
        "base_model_name_or_path": located.model.path if located else base.reference,
        "revision": located.model.commit if located else None,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "lora_dropout": 0.0,
        "bias": "all" if found.biases else "none",
        "fan_in_fan_out": conv1d,
        "target_modules": short(ranks, every),
        "modules_to_save": short([x.name for x in found.whole], every) or None,
    }


def short(wanted: Mapping[str, object] | Sequence[str], every: Sequence[str]) -> list[str]:
    """Return the last parts of names where they name these of all modules, else whole names.

    peft takes a module whose name ends with one of these; ``norm`` would be ``q_norm``, too.
    """
    left = tuple(name for name in every if name not in {*wanted})
    ends = {name: name.rpartition(".")[2] for name in wanted}
    taken = {end: any(name.endswith(end) for name in left) for end in {*ends.values()}}
    return sorted({name if taken[end] else end for name, end in ends.items()})


def _told(
    model: str, base: str, asked: Asked, found: Extracted, tensors: Mapping[str, Tensor]
) -> Extraction:
    rows = [
        {
            "name": one.module.name,
            "rank": one.factors.rank,
            "norm": one.factors.norm,
            "error": one.factors.error,
            "relative": one.factors.error / one.factors.norm,
            "largest": one.factors.largest,
        }
        for one in found.low_rank
    ]
    return Extraction(
        model,
        base,
        asked.rank,
        asked.dtype,
        rows,
        [module.name for module in found.whole],
        [place for _, place in found.biases],
        {name: {"why": why, "norm": norm} for name, (why, norm) in found.left.items()},
        found.norm,
        found.error,
        sum(x.numel() * x.element_size() for x in tensors.values()),
    )


def _card(told: Extraction) -> str:
    whole = f" Whole, not low-rank: {', '.join(map(code, told.whole))}." if told.whole else ""
    left = f" Left at the base: {', '.join(map(code, told.left))}." if told.left else ""
    lines = [
        f"What {code(told.model)} changed of {code(told.base)}, in rank {told.rank} at most:",
        "the nearest matrices of that rank to the task vectors (singular value decomposition).",
        f"{100 * told.relative:.3g} % of the task vector's length are not in it; of each",
        f"module: `{RECORD}`.{whole}{left}",
    ]
    head = {"base_model": told.base, "library_name": "peft", "tags": ["mergetune", "lora"]}
    return tool_card(head, "A LoRA extracted from a fine-tune", lines, "extract-lora")
