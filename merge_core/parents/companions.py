"""What a model folder has beside weights, config and card, and what of it goes with a merge.

That is: files of the tokenizer, of the processor, chat templates, generation settings. Code,
weights of other formats, notes of trainings and quantization are left, here as on the hub; code
goes along where the user trusts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from merge_core import consent
from merge_core.errors import warn
from merge_core.json_text import BYTES, POINTER, read_json, refuse_pointer

CODE = "*.py"
CHATS = "additional_chat_templates/*.jinja"
TOKENIZER = (  # belong to one vocabulary
    *("tokenizer*", "vocab.*", "*vocab*.json", "merges.txt", "dict.txt", "bpe.codes"),
    *("tekken.json", "added_tokens.json"),
    *("*.model", "*.model.v*", "*.tiktoken", "*.spm", "*.bpe", "special_tokens_map.json"),
    *("chat_template*", CHATS),
)
KEPT = (*TOKENIZER, "*.json", "*.jinja")
LEFT = (  # of these
    *("*.py", "*.index.json", "params.json", "*quant*.json", "trainer_state.json"),
    *("*_results.json", "mergetune.json"),
)
OWN = ("config.json", "adapter_config.json")  # read, and written anew or not at all
CHECKED = ("generation_config.json", "tokenizer*.json", "special_tokens_map.json")


def companions(folder: Path) -> list[Path]:
    """Return the files that go with a model, sorted; each is a file of the folder itself.

    A link that leaves the folder, and the model's part of the hub's cache, could bring any file of
    this machine into what is published: it is left with a warning, as is what is over 256 MiB.

    Raises:
        CheckpointError: A file that decides how the model behaves is no JSON object, or git-lfs
            has left a pointer in place of one.
    """
    found = [file for file in _candidates(folder) if file.is_file() and _may_go(file, folder)]
    for file in found:
        with file.open("rb") as stream:
            refuse_pointer(stream.read(len(POINTER)), file)
        if any(fnmatch(file.name, pattern) for pattern in CHECKED):
            read_json(file)
    return found


def code_files(folder: Path) -> list[Path]:
    """Return the files of a model's own class, sorted; none, unless the user trusts code."""
    there = sorted(folder.glob(CODE)) if consent.code() else []
    return [file for file in there if file.is_file() and _may_go(file, folder)]


def is_of_tokenizer(file: Path) -> bool:
    """Return whether a companion holds for one vocabulary only."""
    return any(file.match(pattern) for pattern in TOKENIZER)


def _candidates(folder: Path) -> Iterator[Path]:
    for file in sorted({file for pattern in KEPT for file in folder.glob(pattern)}):
        hidden = file.name.startswith(".")
        if not hidden and not any(fnmatch(file.name, pattern) for pattern in (*LEFT, *OWN)):
            yield file


def _may_go(file: Path, folder: Path) -> bool:
    place, root = file.resolve(), _root(folder)
    if not place.is_relative_to(root):
        warn(f"{file}: not copied: it leads to {place}, out of its folder; put a copy there")
        return False
    if place.stat().st_size > BYTES:
        warn(f"{file}: not copied: expected at most {BYTES} bytes, got {place.stat().st_size}")
        return False
    return True


def _root(folder: Path) -> Path:
    """Return the folder, or of a snapshot in the hub's cache the model's, where its blobs are."""
    folder = folder.resolve()
    model = folder.parent.parent
    cached = folder.parent.name == "snapshots" and model.name.startswith("models--")
    return model if cached else folder
