"""What a model's card says of a study's result: the hub's ``model-index``, a table, the words.

The form is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md. It has no place
for intervals, so they are in a metric's name and, as numbers, among its ``args``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from merge_core.output.model_card import CardResult, code
from search.report.markdown import words
from search.report.measure import REPORT
from search.report.summary import Candidate, Report, Scored
from search.scoring.intervals import Estimate
from search.space.starting_points import BASE, UNIFORM
from search.storage.study_record import Record
from search.trial.trial import Trial


def card_result(record: Record, trial: Trial) -> CardResult:
    """Return what a study has found of a trial, as its model's card says it.

    Of a trial that the report names: its report scores. Of others there is the search score only,
    which comes with a warning and into no ``model-index``.

    Raises:
        MergeError: The study's summary is damaged.
    """
    report = None if record.summary is None else Report.from_json(record.summary)
    named = [] if report is None else [c for c in report.candidates if c.trial == trial.number]
    if report is None or not named:
        return CardResult({}, _searched(record, trial) + _promised(report, trial))
    scored = named[-1].report
    index = _model_index(report.study, scored, record.about or {})
    return CardResult({"model-index": index}, _text(report, trial, scored))


def _searched(record: Record, trial: Trial) -> str:
    told = f"Trial {trial.number} of the mergetune study {code(record.name)}"
    if trial.value is None:
        return f"{told}, which has no score.\n"
    error = "" if trial.stderr is None else f" (standard error {_number(trial.stderr)})"
    which = "search score"
    if trial.state == "stopped":
        which = f"search score, an estimate by the first {trial.search.items} search items,"
    return (
        f"{told}. Its {which} is {_number(trial.value)}{error}, higher is better. Trials are "
        "chosen by that score, so it is too optimistic.\n"
    )


def _promised(report: Report | None, trial: Trial) -> str:
    """Return what the report says of a trial that is none of its candidates."""
    finalists = [] if report is None else report.finalists
    scored = [x.report for x in finalists if x.trial == trial.number and x.report is not None]
    if not scored:
        return "Nothing else is known of it.\n"
    whole = Estimate(scored[0].mean, scored[0].low, scored[0].high)
    return f"It was a finalist: {_estimate(whole)}, 95 % interval, on a part of the report items.\n"


def _text(report: Report, trial: Trial, scored: Scored) -> str:
    won = trial.number == report.winner.trial
    which = "the winner" if won else f"not the winner, which is trial {report.winner.trial}"
    names = [c.name for c in report.candidates if c.trial == trial.number and c.name != "winner"]
    which += "".join(f"; in the report {code(name)}" for name in names)
    parts = [
        f"Trial {trial.number} of the mergetune study {code(report.study)}: {which}.",
        *([words(sentence) for sentence in report.sentences] if won else []),
        _table(report, trial, scored),
        f"95 % intervals, on {report.pools[REPORT]} report items; nothing was chosen by them.",
        "\n".join(f"- {words(notice)}" for notice in report.notices),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(report: Report, trial: Trial, scored: Scored) -> str:
    """Return a row for the trial and for each of those that it is compared with."""
    entries = report.entries
    rows = [["this model", *_cells(scored, entries)]]
    for label, candidate in _rivals(report):
        if candidate.trial != trial.number:
            rows.append([label, *_cells(candidate.report, entries)])
    head = ["", "score", *map(_in_cell, entries)]
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rivals(report: Report) -> list[tuple[str, Candidate]]:
    found = {c.name: c for c in report.candidates}
    rivals = {"winner": "winner", report.best_parent: "best parent"}
    if report.best_simple is not None:
        rivals.setdefault(report.best_simple, "best simple merge")
    for name, label in ((UNIFORM, "uniform merge"), (BASE, "base")):
        rivals.setdefault(name, label)
    labels = {
        name: f"{label}, {_in_cell(name.partition(':')[2])}" if ":" in name else label
        for name, label in rivals.items()
    }
    return [(label, found[name]) for name, label in labels.items() if name in found]


def _cells(scored: Scored, entries: Sequence[str]) -> list[str]:
    whole = Estimate(scored.mean, scored.low, scored.high)
    return [_estimate(x) for x in (whole, *map(scored.of, entries))]


def _estimate(x: Estimate) -> str:
    return f"{_number(x.mean)} ({_number(x.low)} to {_number(x.high)})"


def _number(x: float) -> str:
    return f"{x:.4f}" if abs(x) < 1e4 else f"{x:.4g}"


def _in_cell(text: str) -> str:
    return code(text).replace("|", r"\|")


def _model_index(study: str, scored: Scored, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    items = about.get("pools", {}).get(REPORT, {})
    results = []
    for task, x in scored.tasks.items():
        facts = _facts(about.get("tasks", {}).get(task))
        metric = str(facts.get("metric", facts.get("evaluator", "score")))
        limits = {k: v for k, v in (("low", x.low), ("high", x.high)) if math.isfinite(v)}
        shots = {"num_few_shot": facts["num_fewshot"]} if facts.get("num_fewshot") else {}
        results.append(
            EvalResult(
                task_type="text-generation",
                task_name="Text Generation",
                dataset_type=task,
                dataset_name=task,
                dataset_args={"items": items.get(task, {}).get("items", 0), **shots},
                metric_type=metric,
                metric_name=f"{metric} (95 % interval {_number(x.low)} to {_number(x.high)})",
                metric_value=x.mean,
                metric_args={
                    "level": 0.95,
                    **{k: v for k, v in limits.items() if math.isfinite(v)},
                },
            )
        )
    index: list[dict[str, Any]] = eval_results_to_model_index(study, results)
    return index


def _facts(fingerprint: Any) -> Mapping[str, Any]:
    """Return what an evaluator's fingerprint tells; a plugin's may be any text."""
    try:
        found = json.loads(fingerprint)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
