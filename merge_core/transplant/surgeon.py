"""A model and a tokenizer -> a model folder with that tokenizer, and what its rows are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from merge_core.architecture import model_class
from merge_core.atomic_write import check_free, fill_whole
from merge_core.errors import CheckpointError
from merge_core.json_text import json_text, read_json
from merge_core.output.contents import CARD, check_ours
from merge_core.output.model_card import code, tool_card
from merge_core.output.model_folder import write_shell
from merge_core.output.safetensors_writer import write_shards
from merge_core.parents.locate import locate
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent
from merge_core.plan.planner import SPECIAL, plan_document
from merge_core.plan.steps import Plan
from merge_core.recipe.read import of_documents
from merge_core.recipe.yaml_document import Document
from merge_core.tokenizer import parent_tokenizer
from merge_core.tokenizer.vocabulary import Vocabulary
from merge_core.transplant.sources import Source, counted, sources
from merge_core.transplant.transplanted import Transplanted

RECORD = "tokensurgeon.json"
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Donor:
    """A folder with a tokenizer.

    ``config``: contents of ``config.json``, if any; ``rows``: as many as its model's embedding has,
    and at least one for each token.
    """

    reference: str
    folder: Path
    tokenizer: Any
    config: Mapping[str, Any]
    rows: int

    def special(self) -> dict[str, Any]:
        """Return the ids of special tokens by the config, else by the tokenizer."""
        own = {key: getattr(self.tokenizer, key, None) for key in SPECIAL}
        return {key: self.config.get(key, own[key]) for key in SPECIAL}


@dataclass(frozen=True)
class Transplant:
    """What was written, in plain data.

    Args:
        tensors: Those that have new rows.
        rows: How many each has, was before, and how many of them come from where; see ``sources``.
        subwords: Tokens that a row made of subwords is the mean of, on average.
        weights_digest: Of all weights.
    """

    model: str
    donor: str
    tensors: list[str]
    rows: dict[str, int]
    subwords: float
    weights_digest: str

    def plain(self) -> dict[str, Any]:
        """Return the data of ``tokensurgeon.json``."""
        return dict(vars(self))


def tokensurgeon(model: str, donor: str, out: Path, *, overwrite: bool = False) -> Transplant:
    """Write a model with the tokenizer of another one.

    Args:
        model: Reference of the model whose weights stay but for rows of tokens.
        donor: Reference of what has the tokenizer: a model, of which no weights are read, or a
            folder with a tokenizer alone.
        out: The folder to make.
        overwrite: Replace a folder that this has written.

    Raises:
        OutputExistsError: ``out`` is taken.
        CheckpointError: A tokenizer cannot be read, or the model has no embedding.
    """
    check_free(out, overwrite=overwrite)
    if overwrite:
        check_ours(out, RECORD, "tokensurgeon")
    roots = (Path.cwd(),)
    given, opened = _donor(donor, roots), open_parents((model,), roots)
    parent = opened[model]
    lexicon = parent_tokenizer.read(model, opened, parent.architecture.vocabulary)
    found = sources(lexicon, given.tokenizer, given.rows)
    made = Transplanted(parent, found, [*lexicon.ids.values()], given.special())
    plan = _plan(model, made, given)
    digest: list[str] = []

    def fill(folder: Path) -> None:
        write_shell(plan, folder)
        _set_special(folder / GENERATION, given)
        digest.append(write_shards(plan, folder))
        told = _told(model, donor, made, parent, found, digest[0])
        (folder / CARD).write_text(_card(told), encoding="utf-8")
        (folder / RECORD).write_text(json_text(told.plain()) + "\n", encoding="utf-8")

    fill_whole(out, fill, overwrite=overwrite)
    return _told(model, donor, made, parent, found, digest[0])


def _donor(reference: str, roots: tuple[Path, ...]) -> Donor:
    folder = locate(reference, roots, weights=False).model.folder
    tokenizer = parent_tokenizer.load(folder)
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    least = max(tokenizer.get_vocab().values(), default=-1) + 1
    if "model_type" not in config:
        return Donor(reference, folder, tokenizer, {}, least)
    facts = model_class.read(config, str(folder))
    rows = {facts.shapes[name][0] for name in facts.vocabulary}
    if not rows:
        raise CheckpointError(f"{folder}: its model has no embedding of tokens, so no vocabulary")
    return Donor(reference, folder, tokenizer, config, max(least, *rows))


def _plan(model: str, made: Transplanted, donor: Donor) -> Plan:
    data = {"merge_method": "passthrough", "models": [{"model": model}]}
    recipe = of_documents([Document("tokensurgeon", data, {})])
    tokens = Vocabulary(donor.tokenizer, donor.rows, {}, {}, frozenset(), {}, made.indexed)
    return replace(plan_document(recipe, {model: made}, {model: made}), vocabulary=tokens)


def _set_special(file: Path, donor: Donor) -> None:
    """Give the generation settings the donor's ids of special tokens: the model's are others."""
    if not file.is_file():
        return
    settings, given = read_json(file), donor.folder / GENERATION
    theirs = read_json(given) if given.is_file() else {}
    settings |= {key: theirs.get(key, value) for key, value in donor.special().items()}
    plain = {key: value for key, value in settings.items() if value is not None}
    file.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def _told(
    model: str, donor: str, made: Transplanted, parent: Parent, found: list[Source], digest: str
) -> Transplant:
    tensors = sorted(made.indexed)
    before = parent.tensors[tensors[0]].shape[0]
    cut = [len(source.rows) for source in found if source.kind == "subwords"]
    rows = {"before": before, "after": len(found), **counted(found)}
    return Transplant(model, donor, tensors, rows, sum(cut) / max(1, len(cut)), digest)


def _card(told: Transplant) -> str:
    rows = told.rows
    lines = [
        f"{code(told.model)} with the tokenizer of {code(told.donor)}.",
        f"Of {rows['after']} rows {rows['shared']} are those of tokens that both have,",
        f"{rows['role']} those of special tokens with the same role, {rows['subwords']} means",
        f"of {told.subwords:.2f} subwords on average, {rows['mean']} the mean of all.",
        "All other weights are the model's.",
    ]
    head = {"base_model": [told.model], "tags": ["mergetune", "tokensurgeon"]}
    return tool_card(head, "A model with another tokenizer", lines, "tokensurgeon")
