"""STUDY on the command line: what is stored counts, not what the study file says today."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import DocumentError, MergeError, UnknownNameError
from search.run.resume import about_of, open_for
from search.spec.study_file import StudySpec
from search.storage.locate import chosen, open_study, winner
from search.storage.open import open_record
from search.storage.study_record import Record
from tests.search import toy

Study = Callable[..., StudySpec]
OTHERS = {"export": ["out"], "bundle": ["out.zip"], "compare": ["b"]}  # what a command needs more
MINE = "{merge_method: linear, models: [{model: org/one, parameters: {weight: 1}}]}"


@pytest.fixture
def begun(study: Study) -> StudySpec:
    """A study of which two trials are settled, with its file."""
    (spec := study(toy.STUDY)).folder.joinpath("study.yaml").write_text(toy.STUDY)
    answers = iter([False, False, True])
    toy.searched(spec, stop=lambda: next(answers))
    return spec


@pytest.mark.parametrize("form", ["{folder}", "{folder}/study.yaml", "{storage}"])
def test_file_folder_and_storage_url_open_the_same_study(begun: StudySpec, form: str) -> None:
    spec, record = open_study(form.format(folder=begun.folder, storage=begun.storage))
    assert [t.baseline for t in record.trials] == ["base", "parent:org/one"]
    assert (spec.folder, spec.data, spec.storage) == (begun.folder, begun.data, begun.storage)
    assert spec.template == begun.template


def test_a_relative_storage_url_starts_at_the_working_directory(
    begun: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(begun.folder)
    spec, record = open_study("sqlite:///results/study.db")
    assert len(record.trials) == 2
    assert spec.folder == begun.folder


def test_the_database_says_what_the_study_is_not_a_file_that_changed(begun: StudySpec) -> None:
    file = begun.folder / "study.yaml"
    file.write_text(toy.STUDY.replace("org/one", "org/uno").replace("seed: 3", "seed: 4"))
    spec, _ = open_study(str(file))
    assert spec.search.seed == 3
    assert spec.template.references() == begun.template.references()


def test_stored_baselines_need_no_files(study: Study) -> None:
    text = toy.STUDY + "baselines: {mine: mine.yaml}\n"
    spec = study()
    (spec.folder / "mine.yaml").write_text(MINE)
    toy.searched(study(text), stop=iter([False, True]).__next__)
    (spec.folder / "mine.yaml").unlink()
    found, _ = open_study(spec.storage)
    assert found.baselines["mine"].references() == ("org/one",)


def test_a_folder_that_moved_opens_in_its_new_place(begun: StudySpec, tmp_path: Path) -> None:
    shutil.move(begun.folder, tmp_path / "moved")
    spec, record = open_study(f"sqlite:///{tmp_path}/moved/results/study.db")
    assert spec.folder == tmp_path / "moved"
    assert len(record.trials) == 2


def test_the_study_file_that_is_named_wins_over_the_stored_folder(
    begun: StudySpec, tmp_path: Path
) -> None:
    """Its database stayed where it was, so what is stored leads to the old folder."""
    copy = tmp_path / "elsewhere" / "copy.yaml"
    copy.parent.mkdir()
    copy.write_text(toy.STUDY + f"storage: {begun.storage}\n")
    spec, record = open_study(str(copy))
    assert len(record.trials) == 2
    assert (spec.folder, spec.results) == (copy.parent, copy.parent / "results" / "copy")
    assert spec.roots[0] == copy.parent
    spec, _ = open_study(begun.storage)
    assert spec.folder == begun.folder


UNNAMED = toy.STUDY.replace("name: toy\n", "")
SHARED = UNNAMED + "storage: 'sqlite:///../shared.db'\n"


def renamed(study: Study, text: str, now: str = UNNAMED) -> StudySpec:
    """Settle a trial, rename the folder, and return the study of another text in it."""
    spec = study(text, "first", trials=1)
    toy.searched(spec, stop=iter([False, True]).__next__)
    spec.folder.rename(spec.folder.parent / "second")
    (spec.folder.parent / "second" / "study.yaml").write_text(now)
    return study(now, "second", trials=1)


def test_a_renamed_folder_goes_on_with_its_study(study: Study) -> None:
    spec = renamed(study, UNNAMED)
    assert spec.name == "second"
    _, record = open_study(str(spec.folder))
    assert (record.name, len(record.trials)) == ("first", 1)
    assert len(toy.searched(spec).trials) == 11
    assert toy.searched(spec).name == "first"


@pytest.mark.parametrize(
    ("text", "now"),
    [
        (UNNAMED, toy.STUDY),  # its file has a name by now
        (toy.STUDY, UNNAMED),  # another file's study, which has a name of its own
        (SHARED, SHARED),  # perhaps that of another folder
    ],
)
def test_a_study_that_may_be_another_one_is_not_gone_on_with(
    study: Study, text: str, now: str
) -> None:
    spec = renamed(study, text, now)
    assert open_for(spec).trials == []
    assert open_for(spec).name == spec.name


def test_a_folder_with_several_studies_says_nothing_of_its_old_name(study: Study) -> None:
    toy.searched(study(toy.STUDY, "first", trials=1), stop=iter([False, True]).__next__)
    spec = renamed(study, UNNAMED)
    with pytest.raises(UnknownNameError, match="has no study 'second'; it has first, toy"):
        open_study(str(spec.folder))


@pytest.fixture
def two(study: Study, tmp_path: Path) -> StudySpec:
    """Two studies, toy and other, in one database; the study file's is toy."""
    for name, stop in (("toy", [False, False, True]), ("other", [False, True])):
        spec = study(toy.STUDY.replace("name: toy", f"name: {name}"))
        toy.searched(spec, stop=iter(stop).__next__)
    spec.folder.joinpath("study.yaml").write_text(toy.STUDY)
    return spec


def test_a_name_chooses_where_a_storage_holds_several_studies(
    two: StudySpec, mergetune: Any
) -> None:
    for where in (str(two.folder), f"{two.folder}/study.yaml", two.storage):
        for said in ((where, "other"), (f"{where}#other",), (f"{where}#other", "other")):
            _, record = open_study(*said)
            assert (record.name, len(record.trials)) == ("other", 1)
    assert open_study(str(two.folder))[1].name == "toy"
    with pytest.raises(UnknownNameError, match=r"has several studies, it has other, toy; say whic"):
        open_study(two.storage)
    with pytest.raises(UnknownNameError, match=r"has no study 'oter'; it has other, toy$"):
        open_study(two.storage, "oter")
    for said in ([two.storage, "--name", "other"], [f"{two.storage}#other"]):
        code, out, _ = mergetune("trials", *said, "--json")
        assert (code, len(json.loads(out))) == (0, 1)
    for command in ("report", "export", "bundle", "reproduce", "compare", "check", "cache"):
        code, _, err = mergetune(command, f"{two.folder}#oter", *OTHERS.get(command, ()))
        assert (command, code) == (command, 0 if command == "check" else 1)
        assert "no such file" not in err
        assert "'oter'" in err or command in ("check", "cache"), err
    code, _, err = mergetune("best", f"{two.storage}#toy", "--name", "other")
    assert (code, "called 'toy' after # and 'other' by --name" in err) == (1, True)
    for command in ("trials", "best", "report", "reproduce"):
        code, _, err = mergetune(command, two.storage)
        assert code == 1
        assert "has several studies, it has other, toy; say which: --name N" in err
        assert mergetune(command, two.storage, "--name", " ")[0] == 2
    assert mergetune("run", f"{two.folder}#new")[0] == 1  # its models are not here
    assert open_record(two.storage, "new").trials == []


def test_a_run_under_another_name_is_another_study(study: Study, tmp_path: Path) -> None:
    spec = study(toy.STUDY, trials=1)
    toy.searched(spec, stop=iter([False, True]).__next__)
    other = spec.called("other")
    assert (open_for(other).name, open_for(other).trials) == ("other", [])
    toy.searched(other, stop=iter([False, True]).__next__)
    assert open_study(spec.storage, "other")[0].name == "other"
    assert open_for(spec).trials


def test_a_study_that_was_never_run_says_so(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(toy.STUDY)
    with pytest.raises(UnknownNameError, match=r"no such file; `mergetune run` the study first"):
        open_study(str(tmp_path))
    (spec := study()).folder.joinpath("study.yaml").write_text(toy.STUDY)
    open_record(spec.storage, spec.name, create=True)
    with pytest.raises(MergeError, match=r"study 'toy' in .* has not begun: run it first"):
        open_study(spec.storage)


def test_a_stored_study_that_does_not_read_any_more_is_named_by_its_database(study: Study) -> None:
    spec = study()
    record = open_record(spec.storage, spec.name, create=True)
    data = {**spec.data, "colour": 1}
    record.begin({**about_of(spec, toy.Toy(spec)), "study": data, "folder": ".."})
    with pytest.raises(DocumentError, match=r"^study 'toy' in sqlite.*db:1: colour: unknown key"):
        open_study(spec.storage)


@pytest.fixture
def finished(memory: Record, study: Study) -> Record:
    """A record of 11 trials whose winner is the eighth."""
    for trial in toy.in_memory(study(trials=1)).trials:
        memory.add(trial, toy.Toy(study()).builder.space.distributions())
    memory.finish({"winner": {"trial": 7}})
    return memory


def test_the_winner_is_the_trial_that_the_summary_names(finished: Record) -> None:
    trial, summary = winner(finished)
    assert (trial.number, summary) == (7, {"winner": {"trial": 7}})


def test_a_study_that_is_not_finished_has_no_winner(memory: Record) -> None:
    with pytest.raises(MergeError, match=r"^study '.*' is not finished: run it first$"):
        winner(memory)


@pytest.mark.parametrize(
    ("which", "numbers"), [("0", [0]), ("10", [10]), ("best", [7]), ("all", list(range(11)))]
)
def test_trials_are_chosen_by_number_best_or_all(
    finished: Record, which: str, numbers: list[int]
) -> None:
    assert [trial.number for trial in chosen(finished, which)] == numbers


def test_a_sample_is_drawn_by_the_seed_and_has_the_winner_and_all_smaller_ones_in_it(
    finished: Record, study: Study
) -> None:
    samples = [{t.number for t in chosen(finished, f"sample:{k}")} for k in range(1, 13)]
    assert samples[0] == {winner(finished)[0].number}
    assert [len(x) for x in samples] == [*range(1, 12), 11]
    assert all(small <= large for small, large in itertools.pairwise(samples))
    assert samples[2] == {t.number for t in chosen(finished, "sample:3")}
    spec = study(seed=8)
    finished.begin({**about_of(spec, toy.Toy(spec)), "folder": "."})
    others = {t.number for k in (3, 4, 5) for t in chosen(finished, f"sample:{k}")}
    assert others != samples[4]


@pytest.mark.parametrize(
    ("which", "several", "rule"),
    [
        ("worst", True, "^--trial: expected a number, best, all or sample:K, got 'worst'"),
        ("-1", True, "^--trial: expected a number, best, all or sample:K, got '-1'"),
        ("", True, "^--trial: expected a number, best, all or sample:K, got ''"),
        ("all", False, "^--trial: expected a number or best, got 'all'"),
        ("sample:0", True, "^--trial: expected sample:K with K of at least 1, got '0'"),
        ("sample:x", True, "^--trial: expected sample:K with K of at least 1, got 'x'"),
        ("sample:2", False, "^--trial: expected a number or best, got 'sample:2'"),
        ("11", True, "has no trial 11; it has 0 to 10"),
    ],
)
def test_anything_else_names_no_trial(
    finished: Record, which: str, several: bool, rule: Any
) -> None:
    with pytest.raises(UnknownNameError, match=rule):
        chosen(finished, which, several=several)
