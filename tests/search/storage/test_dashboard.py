"""optuna-dashboard shows a study of every storage, and how long its trials really took."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.pool import NullPool

from merge_core.recipe.schema import Recipe, Source
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial
from tests.search.storage.test_every_storage import KINDS, Place, place

__all__ = ["place"]  # a fixture
pytestmark = pytest.mark.slow

RECIPE = Recipe("linear", (Source("one", (("weight", 1.0),)),))
SECONDS = ({"build": 2.5, "a": 60.25}, {"build": 0.5, "a": 3600.0}, {"build": 7.0})
SPACE = {"weight": optuna.distributions.FloatDistribution(0.0, 2.0)}
App = Callable[[Mapping[str, Any], Callable[..., Any]], Any]


def trials() -> list[Trial]:
    """Return one trial that is complete, one that was stopped early and one that failed."""
    complete, stopped, failed = (Measurement({"a": [0.5] * 3}, seconds) for seconds in SECONDS)
    about: dict[str, Any] = {"params": {"weight": 0.5}}
    return [
        Trial(0, "complete", RECIPE, value=0.5, measured={"search": complete}, **about),
        Trial(1, "stopped", RECIPE, value=0.4, measured={"search": stopped}, **about),
        Trial(2, "failed", RECIPE, error="broke", measured={"search": failed}, **about),
    ]


def opened(kind: str, url: str) -> optuna.storages.BaseStorage:
    """Open a storage with Optuna alone, as the dashboard does."""
    if kind == "journal":
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:///")))
    if kind == "grpc_proxy":
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            return optuna.storages.GrpcStorageProxy(port=int(url.rpartition(":")[2]))
    return optuna.storages.RDBStorage(url, {"poolclass": NullPool})


def asked(app: App, path: str) -> Any:
    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    said: list[str] = []
    body = b"".join(app(environ, lambda status, _headers, _error=None: said.append(status)))
    assert said == ["200 OK"], body
    return json.loads(body)


def seconds(trial: Mapping[str, str]) -> float:
    begun, ended = (datetime.fromisoformat(trial[f"datetime_{x}"]) for x in ("start", "complete"))
    return (ended - begun).total_seconds()


@pytest.mark.parametrize("kind", KINDS)
def test_the_dashboard_shows_a_study_while_it_is_written(kind: str, place: Place) -> None:
    url = place(kind)
    record: Record = open_record(url, "toy", create=True)
    storage = opened(kind, url)
    with record.writing():
        for number, trial in enumerate(trials()):
            record.add(trial, SPACE)
            app = optuna_dashboard.wsgi(storage)  # one shows the same for ten seconds
            (study,) = asked(app, "/api/studies")["study_summaries"]
            assert (study["study_name"], study["directions"]) == ("toy", ["maximize"])
            found = asked(app, f"/api/studies/{study['study_id']}")["trials"]
            assert [x["number"] for x in found] == list(range(number + 1))
    assert [x["state"] for x in found] == ["Complete", "Pruned", "Fail"]
    assert [x.get("values") for x in found] == [[0.5], [0.4], None]
    assert found[0]["params"][0]["name"] == "weight"
    wrong = 1.0 if kind == "mariadb" else 1e-3  # MySQL keeps times to the second
    for trial, took in zip(found, SECONDS, strict=True):
        assert math.isclose(seconds(trial), sum(took.values()), abs_tol=wrong)


def test_the_dashboard_shows_a_finished_file_from_a_folder_that_was_moved(tmp_path: Path) -> None:
    record = open_record(f"sqlite:///{tmp_path}/here/study.db", "toy", create=True)
    with record.writing():
        record.add(trials()[0], SPACE)
    (tmp_path / "here").rename(tmp_path / "there")
    assert [x.name for x in (tmp_path / "there").iterdir()] == ["study.db"]
    app = optuna_dashboard.wsgi(opened("sqlite", f"sqlite:///{tmp_path}/there/study.db"))
    assert len(asked(app, "/api/studies")["study_summaries"]) == 1
