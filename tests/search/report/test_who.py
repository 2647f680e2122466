"""A trial's name on the command line is a number, a baseline's name, or a role in the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from merge_core.errors import MergeError, UnknownNameError
from search.report.who import called, who
from tests.search import toy
from tests.search.report.test_samples import Bench, finished, kept


def test_names_mean_trials_before_and_after_the_report(tmp_path: Path) -> None:
    bench = Bench(toy.spec_of(toy.STUDY, tmp_path))
    record, chosen = finished(bench)
    by_name = {t.baseline: t for t in record.trials if t.baseline}
    values = {t.number: t.value or 0.0 for t in record.trials}
    assert record.summary is None
    best = max(values, key=lambda n: values[n])
    assert who(record, "best").number == who(record, "winner").number == best
    parents = [by_name[x].number for x in ("parent:org/one", "parent:org/two")]
    assert who(record, "best_parent").number == max(parents, key=lambda n: values[n])
    assert (who(record, "best_simple").baseline or "").startswith(("simple:", "uniform", "defa"))
    for name in ("parent:org/one", "org/one", "one"):
        assert who(record, name) is by_name["parent:org/one"]
    assert who(record, "uniform") is by_name["uniform"]
    assert who(record, "3") is record.trials[3]
    kept(record, bench, chosen)
    assert who(record, "best").number == chosen.winner
    assert who(record, "best_parent").baseline == chosen.best_parent
    assert who(record, "best_simple").baseline == chosen.best_simple


def test_a_name_of_nothing_or_of_two_is_refused_with_what_there_is(tmp_path: Path) -> None:
    record: Any = SimpleNamespace(
        name="toy",
        summary=None,
        trials=[
            SimpleNamespace(baseline=name, state="failed", value=None)
            for name in ("parent:a/x", "parent:b/x", "uniform")
        ],
    )
    with pytest.raises(UnknownNameError, match=r"no trial 'unifrom'; .*, did you mean 'uniform'\?"):
        who(record, "unifrom")
    with pytest.raises(UnknownNameError, match="no trial 'x'; expected a number, best, "):
        who(record, "x")
    with pytest.raises(MergeError, match="has no best parent yet: none is complete"):
        who(record, "best_parent")


def test_export_and_reproduce_take_names_too_and_best_is_the_winner_alone(tmp_path: Path) -> None:
    bench = Bench(toy.spec_of(toy.STUDY, tmp_path))
    record, chosen = finished(bench)
    assert [t.baseline for t in called(record, "one")] == ["parent:org/one"]
    assert len(called(record, "all")) == len(record.trials)
    with pytest.raises(MergeError, match="is not finished: run it first"):
        called(record, "best")
    with pytest.raises(UnknownNameError, match="--trial: expected a number or best, got 'all'"):
        called(record, "all", several=False)
    kept(record, bench, chosen)
    assert [t.number for t in called(record, "best")] == [chosen.winner]
    assert [t.number for t in called(record, "7", several=False)] == [7]
