"""What is written in one statement is what Optuna writes one by one."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from search.storage.bulk import BulkStorage

SPACE = {
    "x": FloatDistribution(0.0, 1.0, step=0.1),
    "k": IntDistribution(1, 8, log=True),
    "m": CategoricalDistribution(("ties", 1, True, None)),
}


SAME = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")


def whole(x: float, names: tuple[str, ...] = ("x", "k", "m")) -> FrozenTrial:
    params = {"x": x, "k": 4, "m": (True, 1)[x > 0.5]}
    return create_trial(
        params={name: params[name] for name in names},
        distributions={name: SPACE[name] for name in names},
        value=x,
        user_attrs={"scores": [x, 1.0]},
    )


def filled(storage: RDBStorage) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="toy")
    for x, names in ((0.1, ("x", "k", "m")), (0.9, ("x", "m")), (0.3, ("x", "k", "m"))):
        study.add_trial(whole(x, names))
    return study


def test_trials_are_read_by_optuna_as_those_that_it_wrote_itself(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("ours", "theirs")]
    for kind, url in zip((BulkStorage, RDBStorage), urls, strict=True):
        filled(kind(url))
    ours, theirs = (optuna.load_study(study_name="toy", storage=url).trials for url in urls)
    for one, other in zip(ours, theirs, strict=True):
        for what in SAME:
            assert getattr(one, what) == getattr(other, what)
        assert [type(v) for v in one.params.values()] == [type(v) for v in other.params.values()]


def odd() -> list[FrozenTrial]:
    """Return trials of every state, with values and attributes that are written otherwise."""
    state, several = TrialState, {"user_attrs": {"ä": [None, 1.5]}, "system_attrs": {"s": "t"}}
    return [
        create_trial(state=state.FAIL, **several),
        create_trial(state=state.PRUNED),
        create_trial(state=state.PRUNED, values=[math.inf, 0.1 + 0.2], **several),
        create_trial(
            values=[-math.inf, 5e-324], params={"x": 0.3}, distributions={"x": SPACE["x"]}
        ),
        create_trial(values=[0.0, 1.0], intermediate_values={3: 0.5}),
    ]


@pytest.mark.parametrize("steps", [False, True])
def test_trials_of_every_kind_are_read_and_counted_by_both_alike(
    tmp_path: Path, steps: bool
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    ours, theirs = BulkStorage(url), RDBStorage(url)
    study = optuna.create_study(storage=ours, directions=["maximize", "minimize"])
    for trial in odd()[: 5 if steps else 4]:
        study.add_trial(trial)
    optuna.create_study(storage=ours, study_name="another").add_trial(whole(0.5))
    assert ours.count_trials(study._study_id) == len(study.trials)
    found, expected = (storage.get_all_trials(study._study_id) for storage in (ours, theirs))
    assert found == expected
    for one, trial in zip(found, odd(), strict=False):
        assert (one.state, one.values, one.params) == (trial.state, trial.values, trial.params)
        assert (one.user_attrs, one.system_attrs) == (trial.user_attrs, trial.system_attrs)


def test_a_trial_that_runs_is_read_by_both_alike(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url)
    study.ask(SPACE)
    ours, theirs = (kind(url).get_all_trials(1) for kind in (BulkStorage, RDBStorage))
    assert ours == theirs
    assert ours[0].datetime_complete is None


def test_a_later_trial_takes_as_many_statements_whatever_number_of_knobs_it_has(
    tmp_path: Path,
) -> None:
    """Were Optuna's own way of writing a parameter called by another name, this would fail."""
    counts = []
    for knobs in (2, 30):
        storage = BulkStorage(f"sqlite:///{tmp_path / str(knobs)}.db")
        study = optuna.create_study(storage=storage)
        space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(knobs)}
        trial = create_trial(params=dict.fromkeys(space, 0.5), distributions=space, value=1.0)
        study.add_trial(trial)
        said: list[str] = []
        event.listen(
            storage.engine, "before_cursor_execute", lambda *a, said=said: said.append(a[2])
        )
        study.add_trial(trial)
        counts.append(len(said))
    assert counts[0] == counts[1]


def test_another_kind_of_distribution_by_the_same_name_is_refused_as_by_optuna(
    tmp_path: Path,
) -> None:
    study = filled(BulkStorage(f"sqlite:///{tmp_path / 'study.db'}"))
    other = create_trial(params={"x": 1}, distributions={"x": IntDistribution(0, 1)}, value=0.0)
    with pytest.raises(ValueError, match="Cannot set different distribution kind"):
        study.add_trial(other)
    assert len(study.trials) == 3
    study.add_trial(whole(0.2))
    assert study.trials[3].params["x"] == 0.2
