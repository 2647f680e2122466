"""What decides scores has a digest each; a parent's file that changes during a study is seen."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from merge_core.errors import CheckpointError
from merge_core.parents.open import open_parents
from merge_core.recipe.schema import Recipe, Source
from search.trial.behaviour import Watch, digests
from search.trial.worker import Job
from tests.search import toy

Family = Callable[..., Path]
CONFIG = "config.json"


def of(folder: Path) -> dict[str, str]:
    return digests(open_parents(("base", "one"), (folder,)), "base")


def edit(file: Path, **keys: object) -> None:
    data = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(data | keys))


CHANGES = {  # what is changed -> its names
    "base's config": (lambda x: edit(x / "base" / CONFIG, rms_norm_eps=0.5), {"base/config.json"}),
    "one's config": (lambda x: edit(x / "one" / CONFIG, rms_norm_eps=0.5), {"one/config.json"}),
    "generation": (
        lambda x: edit(x / "base/generation_config.json", repetition_penalty=1.5),
        {"base/generation_config.json"},
    ),
    "tokenizer": (
        lambda x: edit(x / "base/tokenizer.json", model={}),
        {"base/tokenizer.json"},
    ),
    "chat template": (
        lambda x: (x / "base/chat_template.jinja").write_text("{{ messages }}"),
        {"base/chat_template.jinja"},
    ),
    "tokens gone": (
        lambda x: (x / "base/tokenizer_config.json").unlink(),
        {"base/tokenizer_config.json"},
    ),
    "one's tokenizer, which no candidate has": (
        lambda x: edit(x / "one/tokenizer.json", model={}),
        set(),
    ),
    "who wrote the config": (
        lambda x: edit(x / "base" / CONFIG, transformers_version="9", _name_or_path="/here"),
        set(),
    ),
    "a card": (lambda x: (x / "base/README.md").write_text("hello"), set()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_decides_how_candidates_answer_has_a_digest_each(
    own_family: Family, what: str
) -> None:
    folder = own_family()
    before = of(folder)
    assert {"base/config.json", "one/config.json", "base/tokenizer.json"} <= set(before)
    change, names = CHANGES[what]
    change(folder)
    after = of(folder)
    assert {x for x in before | after if before.get(x) != after.get(x)} == names


def written_over(file: Path) -> None:
    with file.open("r+b") as stream:
        first = stream.read(1)
        stream.seek(0)
        stream.write(first)  # the same bytes, as far as anybody can know before reading all


def written_over_in_secret(file: Path) -> None:
    state = file.stat()
    written_over(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat()[:9] == state[:9], "size and time are as they were"


def renamed_onto(file: Path) -> None:
    state = file.stat()
    shutil.copy(file, file.with_suffix(".new"))
    os.utime(file.with_suffix(".new"), ns=(state.st_atime_ns, state.st_mtime_ns))
    file.with_suffix(".new").replace(file)


@pytest.mark.parametrize(
    "change", [written_over, written_over_in_secret, renamed_onto, Path.unlink]
)
@pytest.mark.parametrize(
    "file", ["one/model.safetensors", "base/tokenizer.json", "base/config.json"]
)
def test_a_file_that_is_another_one_now_is_named(
    own_family: Family, file: str, change: Callable[[Path], object]
) -> None:
    folder = own_family()
    watch = Watch(open_parents(("base", "one"), (folder,)).values())
    watch.check()
    (folder / "base/README.md").write_text("of no matter")
    watch.check()
    change(folder / file)
    with pytest.raises(CheckpointError, match=f"{file}: was changed while the study ran"):
        watch.check()


def test_a_file_that_gets_other_rights_or_another_link_is_the_same(own_family: Family) -> None:
    folder = own_family()
    file = folder / "one/model.safetensors"
    watch = Watch(open_parents(("base", "one"), (folder,)).values())
    file.chmod(0o640)
    watch.check()
    (folder / "backup").hardlink_to(file)
    watch.check()
    time.sleep(0.02)  # the system's clock for files moves in steps
    written_over_in_secret(file)
    with pytest.raises(CheckpointError, match="was changed while the study ran"):
        watch.check()


@pytest.mark.parametrize("moment", [1, 2])
def test_scores_of_a_trial_in_which_a_parent_changed_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    bench = toy.Toy(toy.spec_of(toy.STUDY, tmp_path))
    calls: list[int] = []

    def check(_: object) -> None:
        calls.append(1)
        if len(calls) == moment:
            raise CheckpointError("one/model.safetensors: was changed")

    monkeypatch.setattr(toy.ToyBuilder, "check_files", check)
    recipe = Recipe("linear", (Source("org/one", (("weight", 1.0),)),))
    result = bench.run(Job(recipe, "search"))
    assert result.scores is None
    assert result.failure is not None
    assert not result.failure.candidate
