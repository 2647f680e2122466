"""A GGUF file as a model folder: transformers unpacks it once, into the user's cache.

The folder has the weights in float32, under the names under which the class stores them, so that a
packed parent is from then on a parent like others. Its name is a digest of what it was made of: the
file, what lies beside it and counts, and the libraries. Configuration, tokenizer and generation
settings that lie beside the file go before those that it has inside.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from merge_core.architecture import class_facts_cache, model_class, refused_config
from merge_core.atomic_write import fill_whole, make_folder
from merge_core.errors import CheckpointError, warn
from merge_core.json_text import read_json
from merge_core.parents import gguf_header, gguf_tokenizer
from merge_core.parents.companions import companions, is_of_tokenizer
from merge_core.parents.gguf_header import Header

SUFFIX = ".gguf"
NAME = f"model{SUFFIX}"  # under which libraries read a file
WEIGHTS = ("*.safetensors", "*.index.json", "pytorch_model*.bin")  # of other formats
NAMED = 3  # files that a message names
FORMAT = 1  # of the folders
FOLDERS = re.compile(r"[0-9a-f]{32}")
CONFIG, GENERATION, CARD = "config.json", "generation_config.json", "README.md"
VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "tekken.json", "*.tiktoken")
LICENCE = re.compile(r"[\w.+-]{1,80}")


def as_folder(file: Path) -> Path:
    """Return the model folder that a GGUF file is read as; it is made when it is not there yet.

    Raises:
        CheckpointError: The package ``gguf`` is not installed; the file is damaged; transformers
            does not read its architecture, or not all of the model.
        OutputError: The cache cannot be written.
    """
    folder = cache()
    if folder is None:
        raise CheckpointError(
            f"{file}: is unpacked into the user's cache, and there is no home; set MERGETUNE_CACHE "
            "to a folder"
        )
    beside = tuple(_beside(file))
    try:
        seen = tuple((x, x.stat().st_size, x.stat().st_mtime_ns) for x in (file, *beside))
        target = folder / _digest(seen)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not target.is_dir():
        _made(file, beside, target)
    return target


def cache() -> Path | None:
    """Return where the folders are; None for a user without a home."""
    mine = class_facts_cache.folder()
    return None if mine is None else mine.with_name("gguf")


def instead_of(folder: Path) -> Path | None:
    """Return the GGUF file that is meant by a folder without weights of other formats, or None.

    Raises:
        CheckpointError: There are several.
    """
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found or any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        return None
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise CheckpointError(f"{folder}: has {names}{more}; name the one that is meant")
    return found[0]


def sources(file: Path) -> list[Path]:
    """Return the files that decide what a GGUF file is read as: itself, and those beside it."""
    return [file, *_beside(file)]


def _beside(file: Path) -> Iterator[Path]:
    """Yield the files of its folder that go before what it says itself."""
    if (file.parent / CONFIG).is_file():
        yield file.parent / CONFIG
    yield from (x for x in companions(file.parent) if x.name == GENERATION or is_of_tokenizer(x))
    if (file.parent / CARD).is_file():
        yield file.parent / CARD


@lru_cache(maxsize=64)
def _digest(seen: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the name of the folder for a file and those beside it.

    Size and time of change say when it is to be found anew.
    """
    file = seen[0][0]
    parts = [f"{FORMAT} {version('transformers')} {_version() or 'none'}"]
    for x, _, _ in seen:
        with x.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(2**20):
                digest.update(block)
        name = "" if x is file else x.relative_to(file.parent).as_posix()
        parts.append(f"{name} {digest.hexdigest()}")
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def _version() -> str | None:
    return version("gguf") if importlib.util.find_spec("gguf") else None


def _made(file: Path, beside: tuple[Path, ...], target: Path) -> None:
    from filelock import FileLock

    if _version() is None:
        raise CheckpointError(
            f"{file}: reading GGUF needs the package gguf; pip install 'mergetune[gguf]'"
        )
    header = gguf_header.read(file)
    make_folder(target.parent)
    with FileLock(target.with_suffix(".lock")):  # workers begin at the same time
        if not target.is_dir():
            fill_whole(target, lambda folder: _fill(folder, file, header, beside))


def _fill(folder: Path, file: Path, header: Header, beside: tuple[Path, ...]) -> None:
    named = folder / NAME  # alone in a folder, so that nothing beside it is read
    named.symlink_to(file)
    try:
        with _told(file):
            _write_model(folder, file, header)
            if gguf_tokenizer.TOKENS in header.metadata and not _have_vocabulary(beside):
                gguf_tokenizer.write(folder, NAME, file, header.metadata)
    finally:
        named.unlink()
    for x in beside:
        place = folder / x.relative_to(file.parent)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(x, place)
    _write_licence(folder, header)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Say of whatever libraries raise which file it is about."""
    try:
        yield
    except CheckpointError as error:
        text = str(error)
        raise error if str(file) in text else CheckpointError(f"{file}: {text}") from error
    except Exception as error:  # transformers raises whatever the metadata lead to
        raise CheckpointError(
            f"{file}: transformers does not read it: {refused_config.said(error)}; use the model "
            "in safetensors"
        ) from error


def _have_vocabulary(beside: tuple[Path, ...]) -> bool:
    return any(x.match(pattern) for x in beside for pattern in VOCABULARIES)


def _write_model(folder: Path, file: Path, header: Header) -> None:
    """Write config, generation settings and weights of the model that transformers loads."""
    import torch

    config = _config(folder, file)
    facts = model_class.read(config.to_dict(), str(file), len(header.tensors), keep=False)
    shapes = {name: shape for name, shape in facts.shapes.items() if name not in facts.tied}
    _check_size(file, sum(map(prod, shapes.values())), header)
    with _without_bars():
        model, about = type(model_class.shell(config)).from_pretrained(
            folder,
            config=config,
            gguf_file=NAME,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below
            **_unpacked(),
        )
    _check_whole(file, config, about, header)
    fresh = model_class.shell(config)  # transformers does not save what it has unpacked
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    with _without_bars():
        fresh.save_pretrained(folder)


def _config(folder: Path, file: Path) -> Any:
    """Return the config that lies beside a file, else the one that transformers makes of it."""
    from transformers import AutoConfig

    if (file.parent / CONFIG).is_file():
        config = model_class.checked(read_json(file.parent / CONFIG), str(file.parent))
    else:
        config = AutoConfig.from_pretrained(
            folder, gguf_file=NAME, local_files_only=True, trust_remote_code=False
        )
    config.architectures = [model_class.model_class(config).__name__]
    return config


def _check_size(file: Path, needed: int, header: Header) -> None:
    """Refuse a model that is far larger than the file before memory is taken for it."""
    there = sum(header.tensors.values())
    if needed > 2 * there:
        raise CheckpointError(
            f"{file}: describes a model of {needed} weights and has {there}; fetch it again, or "
            "put the model's config.json beside it"
        )
    used = {name for name in header.tensors if re.match(r"rope_(freqs|factors)", name)}
    if used and not (file.parent / CONFIG).is_file():
        warn(
            f"{file}: {min(used)} is not read, and its frequencies hold for long texts; put the "
            "model's config.json beside it"
        )
    left = there - needed - sum(header.tensors[name] for name in used)
    if left > 0:
        warn(f"{file}: {left} of its {there} weights have no place in transformers' class of it")


def _check_whole(file: Path, config: Any, about: Mapping[str, Any], header: Header) -> None:
    """Refuse a model of which the file has not all, or has more layers."""
    lacking = sorted({*about["missing_keys"], *(x[0] for x in about["mismatched_keys"])})
    blocks = header.metadata.get(f"{header.metadata.get('general.architecture')}.block_count")
    layers = getattr(config, "num_hidden_layers", blocks)
    own = file.parent / CONFIG
    if own.is_file() and (lacking or layers != blocks):
        raise CheckpointError(
            f"{own}: describes another model than {file.name} beside it; remove it, or give the "
            "file a folder of its own"
        )
    if lacking:
        raise CheckpointError(
            f"{file}: transformers finds no {lacking[0]} in it ({len(lacking)} such), so it is "
            "not the whole model; use the model in safetensors"
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Leave out transformers' progress bars where no terminal shows them."""
    if sys.stderr.isatty():
        yield
        return
    with Path(os.devnull).open("w") as nothing, redirect_stderr(nothing):
        yield


def _unpacked() -> dict[str, Any]:
    """Return the setting by which transformers unpacks all, in versions that would not."""
    import transformers

    settings = getattr(transformers, "GgufConfig", None)
    return {} if settings is None else {"quantization_config": settings(dequantize=True)}


def _write_licence(folder: Path, header: Header) -> None:
    """Write the licence that the file states, where cards of merges look for it."""
    stated = header.metadata.get("general.license")
    if isinstance(stated, str) and LICENCE.fullmatch(stated) and not (folder / CARD).exists():
        (folder / CARD).write_text(f"---\nlicense: {stated}\n---\n", encoding="utf-8")
