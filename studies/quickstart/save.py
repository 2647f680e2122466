"""Run the quickstart's study and keep its record in ``saved/``, for every other machine to repeat.

    python studies/quickstart/save.py               # make saved: ten minutes
    python studies/quickstart/save.py --measure     # write agreement.json anew for what is there

``saved/quickstart.zip`` is a bundle; its models are looked for where it lies, so the study is run
from a copy whose file names them as ``../models/...``. ``saved/agreement.json`` says on what it was
made, and how many items of a trial may score otherwise elsewhere. That is measured: all trials are
built again, and every fifth and the winner scored, with the instructions that other processors
have, by what torch, oneDNN and MKL take from the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SAVED = HERE / "saved"
BUNDLE, AGREEMENT = SAVED / "quickstart.zip", SAVED / "agreement.json"
EVERY = 5  # trials are scored again, and the winner
OTHERS = {  # processors -> what makes this one behave like them
    "no vector instructions of torch's own": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2, another library's products": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}


def main() -> None:
    """Make the record, and measure how far others may be from it."""
    if sys.argv[1:] != ["--measure"]:
        save()
    measured = {name: _counted_as(settings) for name, settings in {"here": {}, **OTHERS}.items()}
    assert measured["here"]["items"] == 0, measured["here"]
    assert not any(found["weights"] for found in measured.values()), measured
    worst = max(found["items"] for found in measured.values())
    made = {"made_on": made_on(), "here": 0, "elsewhere": max(2, 2 * worst), "measured": measured}
    AGREEMENT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(AGREEMENT.read_text(encoding="utf-8"))


def save() -> None:
    """Run the study in a copy of this folder, and bundle it."""
    from mergetune import run
    from search.bundle.write import write

    text = (HERE / "study.yaml").read_text(encoding="utf-8")
    for old, new, times in (("models/", "../models/", 4), ("path: tasks", "path: ../tasks", 3)):
        assert text.count(old) == times, f"study.yaml names {old} {text.count(old)} times"
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "quickstart"
        folder.mkdir()
        for name in ("models", "tasks"):
            shutil.copytree(HERE / name, Path(temporary) / name)
        (folder / "study.yaml").write_text(text, encoding="utf-8")
        run(folder)
        SAVED.mkdir(exist_ok=True)
        write(str(folder), BUNDLE, overwrite=True)


def made_on() -> dict[str, Any]:
    """Return the environment that the saved study was made in."""
    from search.storage.locate import open_study

    return dict(open_study(str(BUNDLE))[1].runs[0]["environment"])


def counted(bundle: Path) -> dict[str, Any]:
    """Build all trials of a bundle again, and score some, in a folder beside its models.

    Args:
        bundle: Lies where its models are seen from.

    Returns:
        ``trials`` that were built, ``weights``: those whose weights differ, ``scored`` items,
        ``differ``: those with another score, ``items``: the most of one trial on one pool,
        ``environment``: what is not as it was when the study ran.
    """
    from search.report.reproduce import reproduce
    from search.storage.locate import in_place, open_study, winner
    from search.trial.environment import ENGINE, differences, made_in
    from search.trial.worker import Worker

    spec, record = open_study(in_place(str(bundle), lambda line: None))
    about = record.about or {}
    worker = Worker(spec.data, spec.folder, about)
    best = winner(record)[0].number
    wanted = [t for t in record.trials if t.number % EVERY == 0 or t.number == best]
    rows = list(reproduce(record, worker, [trial.number for trial in wanted]))
    each = [
        sum(x["differ"] for x in row.get("scores", ()) if x["pool"] == pool)
        for row in rows
        for pool in ("search", "select", "report")
    ]
    now = {**worker.builder.about()["environment"], ENGINE: worker.engine}
    other = differences(made_in(about, record.runs, 0), now)
    rest = [trial for trial in record.trials if trial not in wanted]
    return {
        "trials": len(record.trials),
        "weights": sum(row["verdict"] == "weights differ" for row in rows)
        + sum(not _has_its_weights(worker, trial) for trial in rest),
        "scored": sum(found.items for trial in wanted for found in trial.measured.values()),
        "differ": sum(each),
        "items": max(each),
        "environment": {one.key: [one.was, one.now] for one in other if one.key != "mergetune"},
    }


def _has_its_weights(worker: Any, trial: Any) -> bool:
    from search.trial.worker import Job

    digest = trial.weights_digest
    job = Job(trial.recipe, "search", known=frozenset([digest]), expected=digest)
    return bool(worker.run(job).weights_digest == digest)


def _counted_as(settings: dict[str, str]) -> dict[str, Any]:
    """Count in a process whose libraries take this processor for another."""
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "saved").mkdir()
        shutil.copytree(HERE / "models", Path(temporary) / "models")
        bundle = shutil.copy(BUNDLE, Path(temporary) / "saved")
        code = (
            f"import sys, json; sys.path.insert(0, {str(HERE)!r}); import save; "
            f"from pathlib import Path; print(json.dumps(save.counted(Path({bundle!r}))))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **settings},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
