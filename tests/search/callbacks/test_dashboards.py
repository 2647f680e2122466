"""What W&B, MLflow and TensorBoard have of a study, read with their own readers, offline."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.callbacks.flat import Best, flat
from search.callbacks.on_mlflow import _named
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from tests.search.run.test_changed_budget import after, record_of, run

Study = Callable[..., StudySpec]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's tables
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of these libraries' own
]


def in_two_runs(study: Study, name: str) -> tuple[Record, Any]:
    """Run a study that is stopped once, and return its record and report."""
    spec = study(trials=3)
    assert run(spec, stop=after(12), callbacks=[name]) is None
    report = run(spec, callbacks=[name])
    return record_of(spec), report


def best_of(record: Record) -> list[float]:
    """Return the best value after each trial."""
    values = [trial.value or 0.0 for trial in record.trials]
    return [max(values[: i + 1]) for i in range(len(values))]


def test_tensorboard_has_each_trial_once(study: Study) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, report = in_two_runs(study, "tensorboard")
    (folder,) = (study().results / "tensorboard").iterdir()
    found = EventAccumulator(str(folder))
    found.Reload()

    def drawn(name: str) -> list[tuple[int, float]]:
        return [(event.step, pytest.approx(event.value)) for event in found.Scalars(name)]

    numbers = list(range(len(record.trials)))
    assert drawn("trial") == [(i, i) for i in numbers]
    assert drawn("value") == [(t.number, t.value) for t in record.trials]
    assert drawn("best") == list(enumerate(best_of(record)))
    name = next(iter(record.trials[-1].params))
    assert drawn(f"knobs/{name}") == [
        (t.number, t.params[name]) for t in record.trials if name in t.params
    ]
    last = report.candidates[-1]
    assert drawn(f"report/{last.name}/mean") == [(numbers[-1], last.report.mean)]


def test_mlflow_has_a_run_for_each_trial_inside_that_of_the_study(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    record, report = in_two_runs(study, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id])
    (whole,) = [x for x in runs if "mergetune.study" in x.data.tags]
    inside = {int(x.data.tags["mergetune.trial"]): x for x in runs if x is not whole}
    assert len(inside) == len(runs) - 1 == len(record.trials)
    for trial in record.trials:
        one = inside[trial.number]
        assert one.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert one.data.metrics["value"] == trial.value
        assert one.info.status == "FINISHED"
        assert {
            k.removeprefix("knobs/"): float(x)
            for k, x in one.data.params.items()
            if k.startswith("knobs/")
        } == dict(zip(_named(trial.params), trial.params.values(), strict=True))
    assert whole.info.status == "FINISHED"
    assert whole.data.params["search.seed"] == "3"
    history = client.get_metric_history(whole.info.run_id, "best")
    assert [(m.step, m.value) for m in history] == list(enumerate(best_of(record)))
    last = report.candidates[-1]
    assert whole.data.metrics[f"report/{last.name}/mean"] == last.report.mean


def test_wandb_has_each_trial_once_and_no_code(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    record, report = in_two_runs(study, "wandb")
    folders = sorted((study().results / "wandb").glob("offline-run-*"))
    assert len(folders) >= 1
    assert not [*(study().results / "wandb").rglob("*.py")]
    rows: dict[int, dict[str, Any]] = {}
    summary: dict[str, Any] = {}
    for file in [file for folder in folders for file in folder.glob("*.wandb")]:
        for kind, found in stored(file):
            if kind == "history":
                rows[found["trial"]] = found
            elif kind == "summary":
                summary |= found
            elif kind == "run":
                assert found["search"]["seed"] == 3
    assert sorted(rows) == list(range(len(record.trials)))
    assert [rows[i]["value"] for i in sorted(rows)] == [t.value for t in record.trials]
    assert [rows[i]["best"] for i in sorted(rows)] == best_of(record)
    last = record.trials[-1]
    assert {k: rows[last.number][f"knobs/{k}"] for k in last.params} == last.params
    assert summary[f"report/{report.candidates[-1].name}/mean"] == report.candidates[-1].report.mean


def stored(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a file of W&B holds: history, summary and config, by W&B's own messages.

    It is a log of LevelDB's kind: blocks of 32 KiB, in them records (checksum, length, kind), of
    which long ones come in parts.
    """
    import json

    from wandb.proto import wandb_internal_pb2 as messages

    data, block, place, whole = file.read_bytes(), 2**15, 7, b""
    while place + 7 <= len(data):
        left = block - place % block
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            record = messages.Record()
            record.ParseFromString(whole)
            whole = b""
            which = record.WhichOneof("record_type")
            items = {
                "history": lambda r: r.history.item,
                "summary": lambda r: r.summary.update,
                "run": lambda r: r.run.config.update,
            }.get(which)
            if items is not None:
                found = {
                    x.key or "/".join(x.nested_key): json.loads(x.value_json) for x in items(record)
                }
                yield which, found


def test_names_that_become_one_are_told_apart() -> None:
    assert _named({"a[1]": 1, "a(1)": 2, "..": 3, "/x//y": 4}) == {
        "a_1_": 1,
        "a_1__2": 2,
        "_": 3,
        "x_y": 4,
    }


def test_what_is_no_number_is_not_drawn() -> None:
    trial = {
        "number": 0,
        "state": "failed",
        "value": None,
        "stderr": None,
        "items": 0,
        "seconds": 1.0,
        "params": {"flag": True, "word": "ties"},
    }
    assert Best().values(trial) == {
        "items": 0,
        "seconds": 1.0,
        "state": "failed",
        "knobs/flag": True,
        "knobs/word": "ties",
    }
    assert flat({"a": [{"b": None, "c": 1}], "d": "x"}) == {"a[0].c": 1, "d": "x"}
