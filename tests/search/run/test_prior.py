"""What another study found informs this one, and is stored with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from merge_core.errors import MergeError, StorageError
from search.run.loop import search
from search.run.resume import open_for
from search.samplers.registry import SAMPLERS
from search.storage.open import open_record
from search.storage.study_record import Record
from tests.search import toy


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Any]]]:
    """Registers the sampler ``spy``; collects the study's trials at every ask."""
    seen: list[list[Any]] = []

    class Sampler(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: Any) -> None:
            seen.append([t for t in study.get_trials() if t.state.is_finished()])

    monkeypatch.setitem(SAMPLERS._added, "spy", lambda space, start, seed: Sampler(seed))
    return seen


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of a study that is over: 10 baselines, 6 trials."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "study.yaml").write_text(toy.STUDY)
    toy.searched(toy.spec_of(toy.STUDY, folder))
    return folder


def later(
    tmp_path: Path, change: Callable[[str], str] = str, **more: Any
) -> tuple[Record, toy.Listener]:
    """Run a study after the earlier one, with a change to its text; ``stop`` aside, to its end."""
    folder = tmp_path / "later"
    folder.mkdir(exist_ok=True)
    stop = more.pop("stop", toy.never)
    changes = {"prior": "../earlier", "sampler": "random", "trials": 2, **more}
    spec = toy.spec_of(change(toy.STUDY.replace("name: toy", "name: later")), folder, **changes)
    listener, record = toy.Listener(), open_for(spec)
    search(spec, record, toy.Toy(spec), listener, stop)
    return record, listener


def stored(folder: Path) -> Record:
    return open_record(f"sqlite:///{folder}/results/study.db")


def test_trials_of_another_study_inform_the_sampler_and_its_best_is_a_baseline(
    earlier: Path, tmp_path: Path, spy: list[list[Any]]
) -> None:
    record, listener = later(tmp_path, sampler="spy")
    theirs = [t for t in stored(earlier).trials if t.params]
    informed = spy[0][: len(theirs)]
    assert [t.params for t in informed] == [t.params for t in theirs]
    assert [t.value for t in informed] == [t.value for t in theirs]
    assert {t.user_attrs["baseline"] for t in informed} == {"prior:toy"}
    best = max(stored(earlier).trials, key=lambda t: t.value or 0)
    mine = next(t for t in record.trials if t.baseline == "prior:toy")
    assert (mine.recipe, mine.params, mine.value) == (best.recipe, best.params, best.value)
    said = f"search.prior: {len(theirs)} trials of study 'toy' inform the sampler; its winner is"
    assert any(notice.startswith(said) for notice in listener.notices)


def test_the_winner_of_a_finished_study_is_taken_not_its_best_on_the_search_pool(
    earlier: Path, tmp_path: Path
) -> None:
    record = stored(earlier)
    record.finish({"winner": {"trial": 12}})
    won, _ = later(tmp_path)
    (mine,) = (t for t in won.trials if t.baseline == "prior:toy")
    assert mine.recipe == record.trials[12].recipe


@pytest.mark.parametrize(
    "sampler",
    [
        *("random", "cma-es"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("tpe", "catcma", "gp", "nsga2")),
    ],
)
def test_a_study_that_was_stopped_goes_on_without_the_other_one(
    earlier: Path, tmp_path: Path, sampler: str
) -> None:
    unbroken, _ = later(tmp_path, sampler=sampler, trials=5)
    shutil.rmtree(tmp_path / "later")
    answers = iter([False] * 13)
    later(tmp_path, sampler=sampler, trials=5, stop=lambda: next(answers, True))
    shutil.rmtree(earlier)
    again, listener = later(tmp_path, sampler=sampler, trials=5)
    assert toy.kept(again.trials) == toy.kept(unbroken.trials)
    assert any(notice.startswith("search.prior: ") for notice in listener.notices)


def test_a_storage_url_starts_at_the_study_files_folder(earlier: Path, tmp_path: Path) -> None:
    record, _ = later(tmp_path, prior="sqlite:///../earlier/results/study.db")
    assert "prior:toy" in [t.baseline for t in record.trials]


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda text: text, 12),
        (lambda text: text.replace("weight: 0.5}\nitems", "weight: 0.25}\nitems"), 0),  # scores
        (lambda text: text.replace("per: 2", "per: 1"), 0),  # other names
        (lambda text: text.replace("{low: 0.0, high: 1.5}}}", "1.0}}"), 12),  # fewer names
        (lambda text: text.replace("high: 1.5", "high: 0.7"), None),  # some lie outside
    ],
)
def test_only_trials_that_mean_the_same_here_inform(
    earlier: Path, tmp_path: Path, spy: list[list[Any]], change: Any, count: int | None
) -> None:
    later(tmp_path, change, sampler="spy")
    informed = [t for t in spy[0] if t.user_attrs.get("baseline") == "prior:toy"]
    taken_anew = [t for t in informed if "recipe" in t.user_attrs]  # the winner, scored here
    informed = [t for t in informed if t not in taken_anew]
    assert len(informed) == count if count is not None else 0 < len(informed) < 12


def test_other_weights_under_the_same_name_are_another_study(earlier: Path, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    folder.mkdir()
    spec = toy.spec_of(toy.STUDY.replace("toy", "late"), folder, prior="../earlier", trials=1)
    moved = {**toy.PARENTS, "org/one": (0.5, 0.5)}
    record, listener = open_for(spec), toy.Listener()
    search(spec, record, toy.Toy(spec, parents=moved), listener, toy.never)
    said = "search.prior: 0 trials of study 'toy' inform the sampler; it has no winner whose parent"
    assert any(notice.startswith(said) for notice in listener.notices)
    assert "prior:toy" not in [t.baseline for t in record.trials]


def test_parents_are_known_by_their_weights_whatever_they_are_called(
    earlier: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    folder.mkdir()
    text = toy.STUDY.replace("name: toy", "name: l").replace("org/one", "mine/one")
    spec = toy.spec_of(text, folder, prior="../earlier", trials=1)
    parents = {name.replace("org/one", "mine/one"): x for name, x in toy.PARENTS.items()}
    record = open_for(spec)
    search(spec, record, toy.Toy(spec, parents=parents), toy.Listener(), toy.never)
    (mine,) = (t for t in record.trials if t.baseline == "prior:toy")
    assert mine.recipe.models[0].model in ("mine/one", "org/two")
    assert "org/one" not in mine.recipe.references()


@pytest.mark.parametrize(
    ("change", "pools"),
    [
        (lambda text: text.replace("search: 20, select: 20", "search: 10, select: 30"), "select"),
        (lambda text: text.replace("select: 20, report: 20", "select: 5, report: 35"), "report"),
    ],
)
def test_items_that_the_other_study_chose_by_are_not_asked_again(
    earlier: Path, tmp_path: Path, change: Any, pools: str
) -> None:
    rule = rf"search\.prior: the \w+ pool of study 'toy' has \d+ items of this study's {pools} pool"
    with pytest.raises(MergeError, match=rule):
        later(tmp_path, change)


@pytest.mark.parametrize(
    ("prior", "rule"),
    [
        ("../nowhere", "search.prior: .*nowhere"),
        ("sqlite:///nowhere.db", "search.prior: .*nowhere.db: no such file"),
        ("nonsense://x", "search.prior: "),
    ],
)
def test_another_study_that_is_not_there_is_refused(tmp_path: Path, prior: str, rule: str) -> None:
    with pytest.raises(MergeError, match=rule):
        later(tmp_path, prior=prior)


def test_what_was_stored_is_checked_when_it_is_read(earlier: Path, tmp_path: Path) -> None:
    record, _ = later(tmp_path, stop=lambda: True)
    record.keep_prior({"study": "toy", "trials": [{"params": {}, "values": ["x"]}]})
    with pytest.raises(StorageError, match=r"is damaged: prior\.trials"):
        later(tmp_path)


def test_a_password_in_the_url_is_not_stored(tmp_path: Path) -> None:
    url = "postgresql://me:secret@host/db"
    spec = toy.spec_of(toy.STUDY, tmp_path, prior=url)
    assert "secret" not in repr(spec)
    assert spec.data["search"]["prior"] == "postgresql://me:***@host/db"
