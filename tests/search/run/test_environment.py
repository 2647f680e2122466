"""A study goes on in the environment that it ran in, or in another one that was accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from merge_core.errors import MergeError, StorageError
from search.run import environment as entries
from search.run.loop import search
from search.run.resume import open_for
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial import builder, environment
from search.trial.environment import differences, environment_of, made_in
from tests.search import toy

Study = Callable[..., StudySpec]


class Elsewhere(toy.Toy):
    """A worker with another live engine."""

    facts_now: Any = {"engine": "toy", "dtype": "bfloat16"}  # noqa: RUF012

    @property
    def engine(self) -> dict[str, Any]:
        return self.facts_now


def go_on(spec: StudySpec, bench: toy.Toy | None = None, *, accept: bool = False) -> list[str]:
    """Run a study, or go on with it, and return what was told."""
    heard = toy.Listener()
    search(spec, open_for(spec), bench or toy.Toy(spec), heard, toy.never, accept=accept)
    return heard.notices


def with_torch(patch: pytest.MonkeyPatch, number: str) -> None:
    patch.setattr(builder, "version", lambda name: number if name == "torch" else "1.0")


def record_of(spec: StudySpec) -> Record:
    return open_record(spec.storage)


def test_each_run_is_stored_with_where_when_and_in_which_environment(study: Study) -> None:
    for trials in (1, 2):
        go_on(study(trials=trials))
    record = record_of(study())
    assert [(run["trials"], run["workers"]) for run in record.runs] == [(0, 1), (11, 1)]
    first, second = (run["environment"] for run in record.runs)
    assert first == second
    assert first["engine"] == {"engine": "toy"}
    assert {"torch", "transformers", "lm_eval", "numpy", "python"} <= first.keys()
    assert {"device", "threads", "processor", "blas", "cpu", "merges_on"} <= first.keys()
    assert all(run["host"] and run["time"].endswith("+00:00") for run in record.runs)
    stored = record._stored.attributes()["runs"]
    assert stored[1]["environment"] == 0, "an environment is stored once"


def test_another_version_stops_a_run_before_anything_is_written(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch(monkeypatch, "2.1")
    go_on(study(trials=1))
    before = record_of(study())._stored.attributes()
    with_torch(monkeypatch, "2.2")
    rule = (
        r"^study 'toy' in sqlite.*study\.db ran in another environment: torch was 2\.1, is 2\.2\. "
        r"Scores of both are not mixed unasked: .* with --accept-environment$"
    )
    with pytest.raises(MergeError, match=rule):
        go_on(study(trials=3))
    assert record_of(study())._stored.attributes() == before


def test_what_was_accepted_once_needs_no_second_word(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch(monkeypatch, "2.1")
    go_on(study(trials=1))
    with_torch(monkeypatch, "2.2")
    told = go_on(study(trials=2), accept=True)
    assert any(x.startswith("torch was 2.1, is 2.2: --accept-environment takes it") for x in told)
    assert not [x for x in go_on(study(trials=3)) if "torch" in x]
    with_torch(monkeypatch, "2.1")
    told = go_on(study(trials=4))
    assert any(x.startswith("torch was 2.2, is 2.1: an earlier run had it") for x in told)
    record = record_of(study())
    assert record.about is not None
    made = [made_in(record.about, record.runs, number)["torch"] for number in (0, 10, 11, 12, 13)]
    assert made == ["2.1", "2.1", "2.2", "2.2", "2.1"]


def test_another_version_of_mergetune_or_host_is_told_and_stops_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on(study(trials=1))
    real = builder.version
    monkeypatch.setattr(builder, "version", lambda x: "9" if x == "mergetune" else real(x))
    monkeypatch.setattr(environment, "_cpu", lambda: "a faster one")
    monkeypatch.setattr(entries.socket, "gethostname", lambda: "elsewhere")
    told = go_on(study(trials=2))
    assert [x for x in told if x.startswith("mergetune was ") and x.endswith("it stops no run")]
    assert [x for x in told if x.startswith("cpu was ") and "is a faster one" in x]
    assert any(x.endswith("this one is on elsewhere") for x in told)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("python", "3.1"),
        ("device", "NVIDIA H200"),
        ("processor", ["aarch64", "DEFAULT"]),
        ("blas", "openblas 1"),
        ("merges_on", "device"),
        ("numpy", "0.1"),
    ],
)
def test_what_may_move_a_score_or_a_draw_stops_a_run(
    study: Study, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    go_on(study(trials=1))
    monkeypatch.setattr(
        builder, "environment_of", lambda *given: {**environment_of(*given), key: value}
    )
    with pytest.raises(MergeError, match=rf"another environment: {key} was .*, is "):
        go_on(study(trials=2))
    go_on(study(trials=2), accept=True)


def test_another_live_engine_is_refused_until_it_is_accepted_and_then_stored(study: Study) -> None:
    Elsewhere.facts_now = {"engine": "toy", "dtype": "float32"}
    go_on(study(trials=1), Elsewhere(study()))
    Elsewhere.facts_now = {"engine": "toy", "dtype": "bfloat16"}
    with pytest.raises(MergeError, match=r"dtype was 'float32' and is 'bfloat16'.*--accept-env"):
        go_on(study(trials=2), Elsewhere(study()))
    assert len(record_of(study()).trials) == 11
    told = go_on(study(trials=2), Elsewhere(study()), accept=True)
    assert any(x.startswith("dtype was float32, is bfloat16: --accept-env") for x in told)
    record = record_of(study())
    assert (record.about or {})["engine"]["dtype"] == "float32", "what it began with stays"
    assert record.runs[-1]["environment"]["engine"]["dtype"] == "bfloat16"
    go_on(study(trials=3), Elsewhere(study()))
    assert len(record_of(study()).trials) == 13
    Elsewhere.facts_now = {"engine": "toy", "dtype": "float16"}
    with pytest.raises(MergeError, match="dtype was 'bfloat16' and is 'float16'"):
        go_on(study(trials=4), Elsewhere(study()))


@pytest.mark.parametrize("accept", [False, True])
def test_all_scores_of_a_run_come_from_one_engine(study: Study, accept: bool) -> None:
    """Also of the first run, and of one that accepts another engine: that is one, too."""
    facts = iter([{"engine": "toy", "dtype": "float32"}] * 4)
    Elsewhere.facts_now = property(lambda _: next(facts, {"engine": "toy", "dtype": "bfloat16"}))
    with pytest.raises(MergeError, match="dtype was 'float32' and is 'bfloat16'"):
        go_on(study(trials=1), Elsewhere(study()), accept=accept)
    assert len(record_of(study()).trials) == 4


def test_a_study_of_an_earlier_version_began_in_the_environment_that_it_noted(
    study: Study,
) -> None:
    record = toy.searched(study(trials=1))
    about = dict(record.about or {})
    noted = {"torch": "2.1", "mergetune": "0"}  # no numpy
    record.begin({**about, "versions": noted})
    toy.forget_runs(record)
    with pytest.raises(MergeError, match=r"environment: torch was 2\.1, is [^;]*\. Scores"):
        go_on(study(trials=2))
    told = go_on(study(trials=2), accept=True)
    assert [x.split(" was ")[0] for x in told if " was " in x][1:] == ["torch", "mergetune"]
    again = record_of(study())
    assert again.about is not None
    assert made_in(again.about, again.runs, 0)["torch"] == "2.1"
    assert made_in(again.about, again.runs, 11)["torch"] != "2.1"


def test_facts_that_one_of_two_environments_lacks_are_not_compared() -> None:
    was = {"torch": "1", "vllm": "1", "engine": {"dtype": "float32"}}
    assert differences(was, {"torch": "1", "numpy": "2"}) == []
    (one,) = differences(was, {"torch": "1", "engine": {"dtype": "bfloat16"}})
    assert (one.key, one.stops) == ("dtype", True)
    assert one.plain() == {"key": "dtype", "was": "float32", "is": "bfloat16"}


def test_torchs_words_on_matrix_products_become_names_and_versions() -> None:
    mkl = (
        "Math Kernel Library Version 2024.2-Product Build 1\n MKL-DNN v3.7.1 (Git)\n BLAS_INFO=mkl,"
    )
    assert environment._blas(mkl) == "mkl 2024.2-Product, oneDNN 3.7.1"
    assert environment._blas("BLAS_INFO=accelerate,") == "accelerate"


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        ([{"time": "now"}], r"runs\[0\]\.host"),
        (
            [{"time": "t", "host": "h", "trials": 0, "environment": 0}],
            r"runs\[0\]\.environment: expected a run before it, got 0",
        ),
    ],
)
def test_damaged_runs_are_named(study: Study, stored: Any, rule: str) -> None:
    record = toy.searched(study(trials=1))
    record._attributes.set("runs", stored)
    with pytest.raises(StorageError, match=rule):
        record.runs  # noqa: B018
