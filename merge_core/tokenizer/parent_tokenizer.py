"""A parent's tokenizer: the tokens that have a row, and the same tokenizer with more of them.

Ordinary tokens are put into ``tokenizer.json`` itself and the file is read again, because the
tokenizers library can only append added tokens, which match anywhere in a text.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from merge_core import consent
from merge_core.errors import CheckpointError, ParameterError, hint, shown, warn
from merge_core.json_text import read_bytes, read_json, refuse_pointer
from merge_core.parents.protocol import Parent
from merge_core.tokenizer.insert import Added, insert

MOST_IDS = 2**22  # the largest vocabularies of today have 2**20
STORED = ("tokenizer.json", "*.model", "vocab.*", "tekken.json", "*.tiktoken")
TOKENS = ("added_tokens.json", "special_tokens_map.json")
READ = (*STORED, *TOKENS, "tokenizer*", "chat_template*", "merges.txt", "config.json")
FACTS = ("single_word", "lstrip", "rstrip", "normalized", "special")
LITERAL = dict.fromkeys(FACTS, False)  # an added token that is matched as it is written


@dataclass(frozen=True)
class Lexicon:
    """What one parent calls its tokens."""

    parent: Parent
    tokenizer: Any  # as transformers reads it
    rows: int  # of its smallest vocabulary-indexed tensor
    ids: Mapping[str, int]  # token -> row, by row; tokens without a row are left out
    added: Mapping[str, Added]  # the added tokens among them, with the facts of ``FACTS``


def read(
    name: str,
    parents: Mapping[str, Parent],
    indexed: Collection[str],
    instead: Callable[[], Lexicon] | None = None,
) -> Lexicon:
    """Read the tokenizer of a parent; the first axes of its ``indexed`` tensors count tokens.

    A parent that has none, as some uploads have not, gets that of ``instead``, with a warning.

    Raises:
        ParameterError: No parent has this reference.
        CheckpointError: It has no tokenizer, none that can be read, or no embedding.
    """
    if name not in parents:
        raise ParameterError(f"tokenizer: no model {name!r} is open{hint(name, parents)}")
    parent = parents[name]
    sizes = [parent.tensors[t].shape[0] for t in indexed if t in parent.tensors]
    if not sizes:
        raise CheckpointError(f"{parent.folder}: has none of {', '.join(sorted(indexed))}")
    if instead is not None and not has_tokenizer(parent.folder):
        taken = instead()
        warn(f"{parent.folder}: no tokenizer; that of {taken.parent.reference} is taken for it")
        tokenizer = taken.tokenizer
    else:
        tokenizer = load(parent.folder)
    rows = min(sizes)
    by_row = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    added = {
        str(entry.content): {fact: bool(getattr(entry, fact)) for fact in FACTS}
        for i, entry in tokenizer.added_tokens_decoder.items()
        if i < rows
    }
    return Lexicon(parent, tokenizer, rows, {t: i for t, i in by_row if i < rows}, added)


def load(folder: Path) -> Any:
    """Return the tokenizer of a model folder.

    Raises:
        CheckpointError: There is none, or none that the tokenizers library can run.
    """
    if not has_tokenizer(folder):  # else some classes give an empty one
        raise CheckpointError(f"{folder}: no tokenizer.json; save the model's tokenizer there")
    found = open_tokenizer(folder)
    if not getattr(found, "is_fast", False):
        raise CheckpointError(
            f"{folder}: {type(found).__name__} has no form of the tokenizers library; save it as "
            f"tokenizer.json, or name another model's tokenizer as tokenizer source"
        )
    return found


def has_tokenizer(folder: Path) -> bool:
    """Return whether a model's folder holds a tokenizer of any kind."""
    return any(any(folder.glob(pattern)) for pattern in STORED)


def open_tokenizer(folder: Path) -> Any:
    """Return what transformers makes of a folder's tokenizer files.

    The folder's code is run where the user allows it.

    Raises:
        CheckpointError: It makes nothing of them without code, or nothing at all; a file is none,
            or no JSON within bounds.
    """
    from transformers import AutoTokenizer

    _check_files(folder)
    try:
        found = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=consent.code()
        )
        found.encode("")  # settings of a wrong type are seen when they are used
    except Exception as error:  # the tokenizers library raises nothing narrower
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{folder}: its tokenizer is code of the folder (`auto_map` in its "
                f"tokenizer_config.json or config.json), which is not run; if you trust it: "
                f"{consent.CODE}; else save it as tokenizer.json with a class of transformers"
            ) from error
        if not has_tokenizer(folder):
            raise CheckpointError(
                f"{folder}: has no tokenizer; save the model's tokenizer there"
            ) from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: its tokenizer cannot be read: {first}") from error
    _check_chat_templates(found, folder)
    return found


def _check_chat_templates(tokenizer: Any, folder: Path) -> None:
    """Refuse templates that are no texts, and names that would be other files when saved."""
    given = getattr(tokenizer, "chat_template", None)
    named = given if isinstance(given, dict) else {"default": "" if given is None else given}
    for name, text in named.items():
        if not isinstance(text, str) or not re.fullmatch(r"\w[\w.-]*", str(name)):
            raise CheckpointError(
                f"{folder}: its tokenizer's chat_template {str(name)[:80]!r}: expected a plain "
                f"name and a text"
            )


def save(tokenizer: Any, folder: Path, where: Path) -> None:
    """Write a tokenizer's files into ``folder``; it is of the model in ``where``, for messages.

    Raises:
        CheckpointError: transformers cannot write it.
    """
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # what a stranger's settings lead to is of any class
        said = " ".join((str(error) or type(error).__name__).split())
        raise CheckpointError(f"{where}: its tokenizer cannot be saved: {said}") from error


def _check_files(folder: Path) -> None:
    """Read what transformers will read, within bounds: it has none, and waits for a pipe."""
    for file in sorted({file for pattern in READ for file in folder.glob(pattern)}):
        if file.suffix != ".json":
            refuse_pointer(read_bytes(file), file)
            continue
        for found in _ids(file.name, read_json(file)):
            if isinstance(found, int) and found > MOST_IDS:
                raise CheckpointError(
                    f"{file}: expected token ids of at most {MOST_IDS}, got {shown(found)}; fetch "
                    f"it again"
                )


def _ids(name: str, data: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what a file calls token ids; the library takes memory for each id up to the highest."""
    if name == "tokenizer.json":
        model, added = data.get("model"), data.get("added_tokens")
        tokens = model.get("vocab") if isinstance(model, dict) else None
        entries = added if isinstance(added, list) else ()
        yield from (entry.get("id") for entry in entries if isinstance(entry, dict))
    else:
        tokens = data if name in ("vocab.json", "added_tokens.json") else None
    if isinstance(tokens, dict):
        yield from tokens.values()


def extended(start: Lexicon, new: Mapping[str, Added | None]) -> Any:
    """Return a lexicon's tokenizer without the tokens that have no row, and with others appended.

    Args:
        start: The lexicon; its tokens keep their ids.
        new: Tokens that it does not have; with their facts for added tokens, None for ordinary
            ones. Their ids follow in this order.

    Raises:
        CheckpointError: The kind of tokenizer cannot be changed so.
    """
    stripped = start.tokenizer.get_vocab().keys() - start.ids.keys()
    if not stripped and not new:
        return start.tokenizer
    end = max(start.ids.values(), default=-1) + 1
    ids = {token: end + i for i, token in enumerate(new)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(start.tokenizer, folder, start.parent.folder)
        shutil.copyfile(start.parent.folder / "config.json", folder / "config.json")
        document = read_json(folder / "tokenizer.json")
        if stripped:
            _strip(document, stripped, start)
            _forget(folder / "tokenizer_config.json", stripped - new.keys())
        if new:
            insert(document, new, ids, start.ids, start.parent.folder)
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        made = load(folder)
    check_kept(made, {**start.ids, **ids}, start.parent.folder)
    return made


def check_kept(tokenizer: Any, wanted: Mapping[str, int], folder: Path) -> None:
    """Check that a tokenizer has exactly the tokens and ids that it should have.

    Raises:
        CheckpointError: It has not; ``folder`` is named.
    """
    found = tokenizer.get_vocab()
    differing = [t for t in {**wanted, **found} if found.get(t) != wanted.get(t)]
    if differing:
        token = differing[0]
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} gives the token {token!r} the id "
            f"{found.get(token)} where {wanted.get(token)} is wanted ({len(differing)} such); "
            f"leave this tokenizer as it is, or take another model's as tokenizer source"
        )


def _strip(document: dict[str, Any], gone: set[str], start: Lexicon) -> None:
    model = document["model"]
    if model["type"] != "BPE":
        raise CheckpointError(
            f"{start.parent.folder}: its tokenizer has the token {min(gone)!r} beyond the "
            f"{start.rows} rows of its embedding ({len(gone)} such), and only BPE tokenizers can "
            f"be cut, not {model['type']}; resize the embedding"
        )
    entries = document["added_tokens"]
    document["added_tokens"] = [entry for entry in entries if entry["content"] not in gone]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in gone}
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    model["merges"] = [pair for pair in pairs if gone.isdisjoint([*pair, "".join(pair)])]


def _forget(file: Path, gone: set[str]) -> None:
    """Take the names of special tokens that are gone out of ``tokenizer_config.json``."""
    config = read_json(file)
    for key, value in list(config.items()):
        if key.endswith("_token") and _content(value) in gone:
            del config[key]
        if key in ("extra_special_tokens", "additional_special_tokens") and isinstance(value, list):
            config[key] = [token for token in value if _content(token) not in gone]
        if key == "added_tokens_decoder":
            config[key] = {i: token for i, token in value.items() if _content(token) not in gone}
    file.write_text(json.dumps(config), encoding="utf-8")


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
