"""A Ctrl-C while a later pool is scored ends after that candidate; the next run goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from search.report import files as results
from search.run import study as whole
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.trial.trial import Trial
from search.views.progress_line import Stopper
from search.workers import hire
from tests.search import toy

Study = Callable[..., StudySpec]
TEXT = toy.SHORT.replace("sampler: tpe", "sampler: cma-es").replace("trials: 4", "trials: 12")


class Interrupted(toy.Toy):
    """Gets an interrupt while the ``count``-th candidate is scored on a pool."""

    def __init__(self, spec: StudySpec, at: str, count: int) -> None:
        super().__init__(spec)
        self.at, self.left = at, count

    def score(self, pool: str, blocks: Any = None) -> dict[str, list[float]]:
        if pool == self.at:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return super().score(pool, blocks)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run(spec: StudySpec, worker: toy.Toy) -> Any:
    """Run a whole study, but for its files, until it ends or is interrupted."""
    (spec.folder / "study.yaml").write_text(json.dumps(dict(spec.data)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hire, "Worker", lambda *_: worker)
        patch.setattr(results, "write", lambda *_: None)
        return whole.run(spec.folder, toy.Listener(), Stopper())


def left_by(spec: StudySpec) -> tuple[list[Trial], Any, Any]:
    """Return what is stored, without seconds."""
    record = open_record(spec.storage)
    summary = {**record.summary, "cost": {**record.summary["cost"], "seconds": {}}}
    return toy.kept(record.trials), record.finalists, summary


@pytest.mark.parametrize(("pool", "count"), [("select", 1), ("select", 3), ("report", 2)])
def test_an_interrupt_on_a_later_pool_keeps_its_candidate_and_the_next_run_goes_on(
    study: Study, pool: str, count: int
) -> None:
    spec, other = study(TEXT), study(TEXT, folder="unbroken")
    first, second = Interrupted(spec, pool, count), toy.Toy(spec)
    assert run(spec, first) is None
    record = open_record(spec.storage)
    assert (len(toy.measured(record, pool)), record.summary) == (count, None)
    assert run(spec, second) is not None
    again = [x for x in second.scored if x[0] != "search"]
    assert not {*again} & {*first.scored}
    assert run(other, toy.Toy(other)) is not None
    ours, theirs = left_by(spec), left_by(other)
    assert ours[:2] == theirs[:2]
    assert ours[2] == theirs[2]
