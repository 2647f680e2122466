"""What looks wrong in the scores of baselines, said before a search is begun that cannot work.

A task that gives all of them one score tells no candidate from another, and mostly something else
is the matter: no stop string, a pattern that matches nothing, a prompt unlike those of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from evaluators.answer import Answer
from merge_core.errors import MergeError
from search.report import ask
from search.run.answer_ends import stop_for
from search.space.starting_points import BASE, PARENT
from search.storage.said import end, start
from search.storage.study_record import Record
from search.trial.progress import Progress
from search.trial.tasks import SEARCH, Tasks
from search.trial.trial import Trial
from search.trial.worker import Bench

FIRST = 3  # answers of a task that are shown
LONGEST = 160  # characters of a text that are shown
ALIKE = 1e-12  # values that are nearer to each other are one


def check_baselines(
    record: Record, bench: Bench, progress: Progress, *, force: bool = False
) -> None:
    """Say what looks wrong in the scores of the baselines, once they are settled.

    Nothing is said of a study that has searched already, or is finished.

    Args:
        record: Has the trials.
        bench: Is asked for first answers.
        progress: Is told.
        force: Go on where all of them score the same.

    Raises:
        MergeError: All of them score the same.
    """
    if record.summary is not None or any(trial.was_searched() for trial in record.trials):
        return
    trials, tasks = _scored(record.trials), bench.tasks
    same = flat(tasks, trials)
    for line in (*_twins(trials), *_no_gain(tasks, trials, same)):
        progress.notice(f"warning: {line}")
    why = _all_alike(tasks, trials, same)
    if not (why or same):
        return
    if why and force:
        progress.notice(f"warning: {why}; the search is begun all the same (--force)")
        return
    for line in () if why else same.values():
        progress.notice(f"warning: {line}")
    why_not = _shown(bench, trials, [*same] or [*tasks.evaluators], progress)
    if why:
        raise MergeError(
            f"the search was not begun: {why}; {why_not}; mend that and run again with --fresh, or "
            "search all the same with --force"
        )


def flat(tasks: Tasks, trials: Sequence[Trial]) -> dict[str, str]:
    """Return task -> sentence, of tasks in which baselines of different weights have one score.

    That is: on each search item all of them have the same. Tasks of exact scores, which are the
    same for all models of one size, and of measured times are passed over.

    Args:
        tasks: The study's.
        trials: Baselines that are scored.
    """
    trials = _once(trials)
    if len(trials) < 2:
        return {}
    found = {}
    for task in _telling(tasks):
        first, *others = (list(trial.search.scores[task]) for trial in trials)
        if all(other == first for other in others):
            found[task] = f"{task}: {_alike(tasks, task, first, len(trials))}"
    return found


def _alike(tasks: Tasks, task: str, scores: Sequence[float], count: int) -> str:
    evaluator, items = tasks.scored_by(SEARCH)[task], len(scores)
    who = f"all {count} baselines of different weights"
    if len({*scores}) > 1:
        return f"{who} have the same score on each of {items} search items"
    told = f"{who} score {scores[0]:.3f} on all {items} search items"
    if evaluator.bounds is not None and scores[0] == evaluator.bounds[evaluator.higher_is_better]:
        return f"{told}, the best there is: nothing is left to gain"
    return told


def _all_alike(tasks: Tasks, trials: Sequence[Trial], same: Mapping[str, str]) -> str:
    """Return why no baseline can be told from another, or nothing where one can."""
    models = [trial for trial in trials if _is_model(trial)]
    if len(models) > 1 and len(_once(trials)) == 1:
        return f"all {len(trials)} baselines, the models among them, have the same weights"
    if len(_once(trials)) < 2:
        return ""
    telling = _telling(tasks)
    if telling and len(same) == len(telling):
        paid = _costs_differ(tasks, trials) and not all(_is_lost(tasks, t, trials[0]) for t in same)
        return "" if paid else "; ".join(same.values())
    values = [trial.value for trial in _once(trials) if trial.value is not None]
    if max(values) - min(values) <= ALIKE and not any(trial.values for trial in trials):
        items = len(tasks.pools[SEARCH])
        return (
            f"all {len(values)} baselines of different weights have the value {values[0]:.4f} on "
            f"the {items} search items"
        )
    return ""


def _costs_differ(tasks: Tasks, trials: Sequence[Trial]) -> bool:
    """Return whether some baseline costs less than another: as good for less is a find, too."""
    costs = tasks.scored_by(SEARCH).keys() - {*_telling(tasks)}
    return any(len({tuple(t.search.scores[cost]) for t in trials}) > 1 for cost in costs)


def _is_lost(tasks: Tasks, task: str, trial: Trial) -> bool:
    """Return whether all items have one score, which is not the best: as where nothing is right."""
    evaluator, scores = tasks.scored_by(SEARCH)[task], {*trial.search.scores[task]}
    bounds = evaluator.bounds
    best = None if bounds is None else bounds[evaluator.higher_is_better]
    return len(scores) == 1 and scores != {best}


def _shown(bench: Bench, trials: Sequence[Trial], names: Iterable[str], progress: Progress) -> str:
    """Show first answers of a parent to some tasks; return what may be the matter, in words."""
    who = next((t for t in trials if (t.baseline or "").startswith(PARENT)), trials[0])
    asks = {t: tuple(range(min(FIRST, len(bench.tasks.pools[SEARCH].of(t))))) for t in names}
    try:
        said = ask.said(ask.ask(bench, who, SEARCH, asks))
    except MergeError as error:
        progress.notice(f"no answers of {who.baseline} are shown: {error}")
        said = {}
    for task, answers in said.items():
        progress.notice(f"first answers of {who.baseline} to {task}:")
        for one in answers:
            progress.notice(f"  prompt {end(one.prompt, LONGEST)!r}")
            progress.notice(f"  right  {start(one.right, LONGEST)!r}")
            progress.notice(f"  said   {start(one.said, LONGEST)!r}")
    return cause([one for answers in said.values() for one in answers])


def cause(answers: Sequence[Answer]) -> str:
    """Return what may be the matter with scores that are all the same, by some answers."""
    wrong = [one for one in answers if one.right and one.said.strip() != one.right.strip()]
    holding = [one for one in wrong if any(x and x in one.said for x in one.right.split(" | "))]
    if wrong and 2 * len(holding) >= len(wrong):
        more = stop_for(answers) or "`stop` or `answer_regex` may cut that off"
        return f"{len(holding)} of {len(wrong)} answers hold the right one and say more: {more}"
    if answers and not any(one.said.strip() for one in answers):
        return "the answers are empty: a stop string may come first, or the prompt end in it"
    return (
        "look at the answers above (more: `mergetune answers`), at `stop`, `answer_regex` and "
        "`apply_chat_template`, and whether items are too hard or too easy for all models"
        if answers
        else "no task has answers to show; look at its metric and its items"
    )


def _twins(trials: Sequence[Trial]) -> list[str]:
    """Say which of the models have the same weights."""
    first: dict[str, Trial] = {}
    found = []
    for trial in trials:
        if not _is_model(trial):
            continue
        if trial.weights_digest in first:
            one, other = _name(first[trial.weights_digest]), _name(trial)
            found.append(f"{other} has the very weights of {one}: it brings nothing to a merge")
        first.setdefault(trial.weights_digest, trial)
    return found


def _no_gain(tasks: Tasks, trials: Sequence[Trial], same: Mapping[str, str]) -> list[str]:
    """Say which parents are no better than the base at any task, and at which tasks none is."""
    base = next((trial for trial in trials if trial.baseline == BASE), None)
    names = [task for task in _telling(tasks) if task not in same]
    parents = [t for t in trials if _is_model(t) and t is not base]
    if base is None or not parents or not names:
        return []
    gains = {_name(trial): _gains(tasks, names, trial, base) for trial in parents}
    idle = [name for name, found in gains.items() if max(found.values()) <= 0]
    if len(idle) == len(gains):
        return ["no model is better than the base at any task, on the search items"]
    lines = []
    for name in idle:
        best = max(gains[name], key=gains[name].__getitem__)
        lines.append(
            f"{name} is no better than the base at any task on the search items, at best "
            f"{gains[name][best]:+.3f} at {best}: is what it came for among the tasks?"
        )
    missing = [task for task in names if max(found[task] for found in gains.values()) <= 0]
    if missing:
        lines.append(
            f"no model is better than the base at {', '.join(missing)}, on the search items: "
            "merging can hardly gain there"
        )
    return lines


def _gains(tasks: Tasks, names: Iterable[str], trial: Trial, base: Trial) -> dict[str, float]:
    ours, theirs = (tasks.contributions(t.search.scores, SEARCH) for t in (trial, base))
    return {task: float(ours[task].mean() - theirs[task].mean()) for task in names}


def _telling(tasks: Tasks) -> list[str]:
    """Return the tasks by whose scores models can be told apart."""
    found = tasks.scored_by(SEARCH).items()
    return [task for task, e in found if not (e.exact or e.measured)]


def _scored(trials: Iterable[Trial]) -> list[Trial]:
    return [t for t in trials if t.baseline is not None and t.state == "complete"]


def _once(trials: Iterable[Trial]) -> list[Trial]:
    """Return the first trial of each weights."""
    found: dict[str, Trial] = {}
    for trial in trials:
        found.setdefault(trial.weights_digest, trial)
    return [*found.values()]


def _is_model(trial: Trial) -> bool:
    return trial.baseline == BASE or (trial.baseline or "").startswith(PARENT)


def _name(trial: Trial) -> str:
    name = trial.baseline or ""
    return "the base" if name == BASE else name.removeprefix(PARENT)
