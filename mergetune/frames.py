"""Scores and studies as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.protocol import Evaluator, LiveModel, Suite
from merge_core.errors import DocumentError, Problem, Problems
from search.report.summary import Report
from search.run import study as studies
from search.scoring.pools import NAMES
from search.spec.score import read_entry
from search.storage.locate import in_place, open_study, winner
from search.trial.budget import Change
from search.trial.tasks import complete_scores
from search.trial.trial import Measurement
from search.views.answers import note
from search.views.progress_line import ProgressLine, hush_libraries
from search.workers.hire import Staff

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = ("name", "force", "fresh", "callbacks")  # of ``study.run``


def scored(
    model: LiveModel,
    evaluator: Evaluator | Suite | Mapping[str, Any],
    folder: Path,
    limit: int | None,
) -> pd.Series[float]:
    """Return scores by task and item; see ``mergetune.score``."""
    import pandas as pd

    if isinstance(evaluator, Mapping):
        evaluator = _opened(evaluator, folder, model)
    found: dict[tuple[str, str], float] = {}
    for one, _ in evaluator.members if isinstance(evaluator, Suite) else ((evaluator, 1.0),):
        items = one.items[:limit]
        scores = complete_scores(one, model, range(len(items)))
        found |= {(one.task, item.id): x for item, x in zip(items, scores, strict=True)}
    index = pd.MultiIndex.from_tuples(found, names=["task", "item"])
    return pd.Series(found.values(), index, "float64", "score")


def ran(
    study: Path,
    prior: Sequence[str],
    *,
    workers: int | None = None,
    accept_environment: bool = False,
    **options: Any,
) -> Study:
    """Start or resume a study; a ``MergeError`` says why it cannot be run, see ``study.run``.

    Args:
        study: Its file, its folder, or a bundle, which is unpacked beside itself.
        prior: Other studies that may have reported on the same items.
        workers: How many candidates are built and scored at a time.
        accept_environment: Go on with other libraries or on another device than before.
        options: ``name``, ``force``, ``fresh``, ``callbacks``, see ``study.run``; ``trials``,
            ``more``, ``hours``, see ``search.trial.budget.Change``.
    """
    hush_libraries()
    how = {key: options.pop(key) for key in OPTIONS if key in options}
    study, change = Path(in_place(str(study), note)), Change.of(**options)
    staff, accept = Staff(workers), accept_environment
    with ProgressLine() as progress:
        studies.run(study, progress, lambda: False, change, prior, staff, accept=accept, **how)
    return Study(study, how.get("name"))


def _opened(entry: Mapping[str, Any], folder: Path, model: LiveModel) -> Evaluator | Suite:
    problems: Problems = []
    score = read_entry(dict(entry), "", problems)
    if score is None:
        raise DocumentError("entry", [Problem(*found) for found in problems])
    return score.plugin.opened(score.options, folder, model.tokenizer)


class Study:
    """A study that has begun, as it is stored when this is made.

    ``name`` is its name, ``folder`` where the relative model paths of its recipes start.

    Args:
        study: A study file, its folder, a bundle (.zip), or an Optuna storage URL.
        name: Which one, where the storage holds several.

    Raises:
        MergeError: There is no such study, or it has not begun.
    """

    def __init__(self, study: str | Path, name: str | None = None) -> None:
        spec, self._record = open_study(str(study), name)
        self.name, self.folder = self._record.name, spec.folder

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, by its number; knobs stand under ``params_`` and their names."""
        import pandas as pd

        rows = [trial.row() for trial in self._record.trials]
        flat = [row | {f"params_{k}": x for k, x in row.pop("params").items()} for row in rows]
        return pd.DataFrame(flat, columns=None if flat else ["number"]).set_index("number")

    @property
    def answers(self) -> pd.DataFrame:
        """One row a score: ``trial``, ``pool``, ``task``, ``item`` and ``score``, as stored."""
        import pandas as pd

        return pd.DataFrame([*self._answers()], columns=["trial", "pool", "task", "item", "score"])

    @property
    def report(self) -> pd.DataFrame:
        """One row a candidate, by its name: scores on the report pool, ``low`` to ``high`` 95 %.

        Raises:
            MergeError: The study is not finished.
        """
        import pandas as pd

        report = Report.from_json(winner(self._record)[1])
        rows = {}
        for row in report.candidates:
            found = row.report
            means = {name: found.of(name).mean for name in report.entries}
            total = {"mean": found.mean, "low": found.low, "high": found.high}
            rows[row.name] = {"trial": row.trial, **total, **means}
        made = pd.DataFrame(rows.values(), index=list(rows))
        return made.rename_axis("candidate")

    def recipe(self, trial: int) -> dict[str, Any]:
        """Return a trial's recipe as plain data.

        Raises:
            UnknownNameError: The study has no such trial.
        """
        return self._record.trial(int(trial)).recipe.plain()

    def _answers(self) -> Iterator[tuple[int, str, str, str, float]]:
        record = self._record
        for pool in NAMES:
            ids = record.item_ids(pool)
            for trial in record.trials:
                measured = trial.measured.get(pool, Measurement())
                for task, scores in measured.scores.items():
                    rows = zip(ids[task], scores, strict=False)  # some have the first ones only
                    yield from ((trial.number, pool, task, *row) for row in rows)
