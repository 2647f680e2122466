"""A folder that was written is whole until anything of it is gone, cut or another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from merge_core import api
from merge_core.errors import OutputExistsError
from merge_core.output import contents, model_folder
from merge_core.output.contents import is_whole

RECIPE = {"merge_method": "linear", "models": [{"model": "base", "parameters": {"weight": 1}}]}
Written = tuple[Path, str]


@pytest.fixture
def written(family: Callable[..., Path], tmp_path: Path) -> Written:
    return tmp_path / "out", api.merge(RECIPE, tmp_path / "out", folder=family())


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("change", [flipped, cut, Path.unlink, folder_instead])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_is_gone_cut_or_another_is_seen(
    written: Written, name: str, change: Callable[[Path], None]
) -> None:
    out, digest = written
    assert is_whole(out, digest)
    change(out / name)
    assert not is_whole(out, digest)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 1}', '{"files": {"x": 1}}', "\udcff"])
def test_a_record_that_says_nothing_is_not_whole(written: Written, text: str) -> None:
    out, digest = written
    (out / "mergetune.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert not is_whole(out, digest)


def test_of_large_files_the_size_is_looked_at(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, digest = written
    monkeypatch.setattr(contents, "HASHED", 100)
    record = json.loads((out / "mergetune.json").read_text())
    record["files"] = contents.listed(out)
    (out / "mergetune.json").write_text(json.dumps(record))
    assert set(record["files"]["model.safetensors"]) == {"bytes"}
    assert is_whole(out, digest)
    cut(out / "model.safetensors")
    assert not is_whole(out, digest)


def test_another_model_is_not_this_one_and_notes_of_its_owner_change_nothing(
    written: Written,
) -> None:
    out, digest = written
    (out / "README.md").write_text("my own card")
    (out / "model.gguf").write_text("made of it")
    assert is_whole(out, digest)
    assert not is_whole(out, "00ff")
    assert not is_whole(out / "nowhere", digest)


def test_a_folder_without_record_is_replaced_only_where_it_is_ours(
    written: Written, family: Callable[..., Path]
) -> None:
    out, digest = written
    (out / "mergetune.json").unlink()
    plan = api.planned(RECIPE, family())
    with pytest.raises(OutputExistsError, match="mergetune did not write it"):
        model_folder.write(plan, out, overwrite=True)
    model_folder.write(plan, out, overwrite=True, ours=True)
    assert is_whole(out, digest)
