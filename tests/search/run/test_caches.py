"""``mergetune cache``: what is on disk is shown and cleared, and nothing else is touched."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from merge_core.architecture import class_facts_cache
from merge_core.errors import MergeError
from merge_core.merge.cache_folder import PAGE, CacheFolder
from search.cli import app
from search.run import caches
from tests.search.real import write_study

NAME = "0" * 64


def called(*arguments):
    found = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def study(tmp_path):
    path = write_study(tmp_path / "a")
    path.write_text(path.read_text().replace("engine: {", "engine: {cache: kept, ", 1))
    CacheFolder(path.parent / "kept").write(NAME, b"some")
    return path


def test_cache_of_a_study_is_shown_and_cleared(study, monkeypatch):
    monkeypatch.setenv("MERGETUNE_CACHE_GIB", "2")
    place = study.parent / "kept"
    shown = {"holds": "statistics of parents", "place": str(place), "entries": 1}
    shown |= {"bytes": PAGE, "bound": 2**31}
    assert json.loads(called(study, "--json")) == shown
    assert json.loads(called(place, "--json")) == shown
    text = called(study.parent, "--clear")
    assert (
        text == f"{place}: statistics of parents: 1 entries, 0.0 MiB of at most 2.0 GiB, cleared\n"
    )
    assert json.loads(called(study, "--json")) == shown | {"entries": 0, "bytes": 0}


def test_cache_of_the_user_is_that_of_model_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path))
    class_facts_cache.keep("{}", {"a": 1})
    found = json.loads(called("--json"))
    assert (found["entries"], found["bound"]) == (1, None)
    assert found["place"] == str(tmp_path / "architectures")
    called("--clear")
    assert class_facts_cache.read("{}") is None
    assert caches.cache(None).entries == 0


def test_models_unpacked_from_gguf_are_shown_and_cleared_beside_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path))
    one = tmp_path / "gguf" / ("0" * 32)
    one.mkdir(parents=True)
    (one / "model.safetensors").write_bytes(b"12345")
    (one.parent / "mine").mkdir()
    found = json.loads(called("--json"))["unpacked"]
    assert (found["entries"], found["bytes"], found["place"]) == (1, 5, str(one.parent))
    assert "models unpacked from GGUF files: 1 entries, 0.0 MiB, cleared\n" in called("--clear")
    assert [x.name for x in one.parent.iterdir()] == ["mine"]
    assert caches.unpacked().entries == 0


def test_study_without_a_cache_is_told(tmp_path):
    path = write_study(tmp_path / "a")
    with pytest.raises(MergeError, match=r"the study keeps none; engine\.cache names a folder"):
        caches.cache(path)


def test_user_without_a_home_has_no_cache_and_misses_none(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MERGETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    class_facts_cache.keep("{}", {"a": 1})
    assert class_facts_cache.read("{}") is None
    with pytest.raises(MergeError, match="no home; set MERGETUNE_CACHE to a folder"):
        caches.cache(None)
