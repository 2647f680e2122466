"""The database's format: what studies of earlier versions hold is read; what is written now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from typer.testing import CliRunner

from merge_core.recipe import read as recipe_reader
from search.cli import app
from search.report.reproduce import reproduce
from search.storage.locate import open_study
from search.storage.open import open_record
from search.storage.packed import packed_scores
from search.storage.trial_codec import frozen
from search.trial.trial import Measurement
from tests.search import toy

SPACE = {
    "lambda/layers 0-1": FloatDistribution(0.0, 2.0),
    "lambda/layers 2-3": FloatDistribution(0, 2),
}
RECIPE = {
    "merge_method": "linear",
    "models": [{"model": "org/one", "parameters": {"weight": 1.0}}],
}
SECONDS = {"build": 0.5, "model": 1.25, "other": 0.0}
BASELINE = {  # attributes word for word as version 0.1.0 wrote them
    "recipe": RECIPE,
    "weights_digest": "00ff",
    "scores": {"gain": [0.1 + 0.2, 1.0]},
    "seconds": SECONDS,
    "baseline": "parent:org/one",
    "stderr": 0.125,
}
REPEATED = {
    "recipe": RECIPE,
    "weights_digest": "00ff",
    "scores": {"gain": [0.1 + 0.2, 1.0]},
    "seconds": SECONDS,
    "stderr": 0.125,
    "same_as": 0,
}
FAILED = {
    "recipe": RECIPE,
    "weights_digest": "",
    "scores": {},
    "seconds": SECONDS,
    "error": "Traceback (most recent call last):\nValueError: no luck\n",
}
POOLS = ("search", "select", "report")
LATER = {"scores": {"gain": [0.5, 0.25]}, "seconds": {"build": 0.5, "model": 1.0}}


def now(attributes: Any) -> Any:
    """Return attributes as this version writes them."""
    return {**attributes, "scores": packed_scores(attributes["scores"])}


@pytest.fixture
def old(tmp_path: Path, empty_database: Path) -> str:
    """The storage of a study that version 0.1.0 wrote."""
    shutil.copy(empty_database, tmp_path / "study.db")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="toy", direction="maximize")
    create, params = optuna.trial.create_trial, dict.fromkeys(SPACE, 0.75)
    study.add_trial(create(value=0.65, user_attrs=BASELINE))
    study.add_trial(create(value=0.65, params=params, distributions=SPACE, user_attrs=REPEATED))
    fail = optuna.trial.TrialState.FAIL
    study.add_trial(create(state=fail, params=params, distributions=SPACE, user_attrs=FAILED))
    study.set_user_attr("select:0", LATER)
    study.set_user_attr("report:0", LATER)
    return url


def test_trials_of_an_earlier_version_are_read(old: str) -> None:
    first, second, third = open_record(old).trials
    assert (first.baseline, first.value, first.stderr) == ("parent:org/one", 0.65, 0.125)
    assert first.recipe.plain() == RECIPE
    later = Measurement(LATER["scores"], LATER["seconds"])
    search = Measurement({"gain": [0.1 + 0.2, 1.0]}, SECONDS)
    assert first.measured == {"search": search, "select": later, "report": later}
    assert (second.same_as, second.measured) == (0, {"search": search})
    assert second.params == dict.fromkeys(SPACE, 0.75)
    assert (third.state, third.value, third.reason) == ("failed", None, "ValueError: no luck")
    assert third.measured == {"search": Measurement({}, SECONDS)}


def test_they_are_written_in_the_format_of_now(old: str, memory: Any) -> None:
    record = open_record(old)
    for trial in record.trials:
        memory.add(trial, SPACE)
    memory.add_measured("select", 0, record.trials[0].measured["select"])
    study = memory._stored._study
    written = [json.dumps(trial.user_attrs) for trial in study.trials]
    assert written == [json.dumps(now(x)) for x in (BASELINE, REPEATED, FAILED)]
    assert json.dumps(study.user_attrs) == json.dumps({"select:0": now(LATER)})
    assert [t.values for t in study.trials] == [[0.65], [0.65], None]
    assert study.trials[1].distributions == SPACE


def test_several_objectives_are_optunas_values_and_their_mean_an_attribute(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "study.db")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="toy", directions=["maximize"] * 2)
    attributes = {**BASELINE, "value": 0.4}
    study.add_trial(optuna.trial.create_trial(values=[0.1, 0.7], user_attrs=attributes))
    (trial,) = open_record(url).trials
    assert (trial.value, trial.values) == (0.4, (0.1, 0.7))
    stored = frozen(trial, {})
    assert (stored.values, stored.user_attrs) == ([0.1, 0.7], now(attributes))


def test_a_study_of_an_earlier_version_is_shown_and_reproduced(old: str) -> None:
    spec = toy.spec_of(toy.SHORT, Path(old.removeprefix("sqlite:///")).parent)
    bench = toy.Toy(spec)
    study = optuna.load_study(storage=old, study_name="toy")
    about = {  # the keys of version 0.1.0
        "format": 1,
        "study": dict(spec.data),
        "parents": {name: parent.digest for name, parent in bench.parents.items()},
        "tasks": {"gain": "toy gain 1"},
        "score": {"aggregate": "mean", "entries": []},
        "pools": {},
        "baselines": {},
        "threads": 1,
        "versions": {"mergetune": "0.1.0"},
        "folder": ".",
    }
    study.set_user_attr("mergetune", about)
    recipe = recipe_reader.parse(RECIPE, "recipe", [])
    assert recipe is not None
    attributes = {**BASELINE, "weights_digest": bench.build(recipe)}
    scores = {pool: {"scores": bench.score(pool), "seconds": SECONDS} for pool in POOLS}
    attributes |= scores["search"]
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs=attributes))
    for pool in POOLS[1:]:
        study.set_user_attr(f"{pool}:3", scores[pool])
    shown = CliRunner().invoke(app, ["trials", old, "--json"])
    assert [row["items"] for row in json.loads(shown.stdout)] == [2, 2, 0, 5]
    _, record = open_study(old)
    bench = toy.Toy(spec)
    assert list(reproduce(record, bench, [3])) == [{"number": 3, "verdict": "identical"}]
    assert [pool for pool, _ in bench.scored] == list(POOLS)
