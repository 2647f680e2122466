"""What looks wrong in baselines' scores is said, and a study that tells none apart is not begun."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.answer import Answer
from merge_core.errors import MergeError
from search.run.loop import search
from search.run.resume import open_for
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from tests.search import toy
from tests.search.real import QUICKSTART, write_study

Study = Callable[..., StudySpec]
HELPING = {**toy.PARENTS, "org/two": (0.0, 0.5)}  # both are better than the base


class Flat(toy.Task):
    """Gives every model the same scores, and shows answers."""

    def __init__(self, task: str, *scores: float, said: str = "4 and more", **more: Any) -> None:
        super().__init__(task, **more)
        self.scores, self.said = scores or (0.0,), said

    def score_one(self, model: toy.Model, item: str) -> float:
        place = int(item.rpartition("-")[2])
        return self.scores[place % len(self.scores)]

    def answers(self, model: Any, which: Sequence[int]) -> list[Answer]:
        return [Answer(f"2 + {i} =", "4", self.said) for i in which]


class Few(toy.Task):
    """Tells models apart on each item, and all have the same mean over whole pools."""

    def score(self, model: Any, which: Sequence[int]) -> np.ndarray[Any, Any]:
        x = model.points[0][0]
        return np.array([x if place % 2 else -x for place, _ in enumerate(which)])


def ran(
    spec: StudySpec, tasks: Sequence[toy.Task], *, force: bool = False, **more: Any
) -> tuple[Record, toy.Listener]:
    record, heard = open_for(spec), toy.Listener()
    search(spec, record, toy.Toy(spec, tasks=tasks, **more), heard, toy.never, force=force)
    return record, heard


def warnings(heard: toy.Listener) -> list[str]:
    return [line for line in heard.notices if line.startswith("warning: ")]


def test_a_study_whose_baselines_all_score_the_same_is_not_searched(study: Study) -> None:
    spec, heard = study(toy.SHORT), toy.Listener()
    record, bench = open_for(spec), toy.Toy(spec, tasks=[Flat("gain", bounds=(0.0, 1.0))])
    with pytest.raises(MergeError) as caught:
        search(spec, record, bench, heard, toy.never)
    assert str(caught.value) == (
        "the search was not begun: gain: all 5 baselines of different weights score 0.000 on all "
        "5 search items; 3 of 3 answers hold the right one and say more: `stop` or "
        "`answer_regex` may cut that off; mend that and run again with --fresh, or search all the "
        "same with --force"
    )
    assert not any(trial.was_searched() for trial in record.trials)
    shown = heard.notices[heard.notices.index("first answers of parent:org/one to gain:") + 1 :]
    assert len(shown) == 9
    assert shown[0].startswith("  prompt '2 + ")
    assert shown[1:3] == ["  right  '4'", "  said   '4 and more'"]


def test_force_searches_all_the_same_and_is_asked_for_once(study: Study) -> None:
    spec = study(toy.SHORT)
    _, heard = ran(spec, [Flat("gain")], force=True)
    (line,) = warnings(heard)
    assert line == (
        "warning: gain: all 5 baselines of different weights score 0.000 on all 5 search items; "
        "the search is begun all the same (--force)"
    )
    record, heard = ran(toy.spec_of(toy.SHORT, spec.folder, trials=6), [Flat("gain")])
    assert sum(trial.was_searched() for trial in record.trials) == 6
    assert not warnings(heard)


def test_scores_that_differ_between_items_but_not_between_models_are_the_same(
    study: Study,
) -> None:
    with pytest.raises(MergeError, match="have the same score on each of 5 search items"):
        ran(study(toy.SHORT), [Flat("gain", 0.0, 1.0)])


def test_equal_values_are_the_same_where_items_differ(study: Study) -> None:
    text = toy.SHORT.replace("search: 5", "search: 6")
    with pytest.raises(MergeError, match=r"have the value -?0\.0000 on the 6 search items"):
        ran(study(text), [Few("gain")])


def test_all_right_is_said_to_leave_nothing_to_gain(study: Study) -> None:
    with pytest.raises(MergeError, match="the best there is: nothing is left to gain"):
        ran(study(toy.SHORT), [Flat("gain", 1.0, bounds=(0.0, 1.0))])


def test_one_task_of_several_is_said_and_its_answers_are_shown(study: Study) -> None:
    record, heard = ran(study(), [toy.Task("gain"), Flat("loss", said="no")])
    assert any(trial.was_searched() for trial in record.trials)
    (line,) = [line for line in warnings(heard) if "loss" in line]
    assert line.startswith("warning: loss: all 10 baselines of different weights score 0.000")
    assert "  said   'no'" in heard.notices


def test_a_cost_that_all_models_share_is_no_reason_to_stop(study: Study) -> None:
    record, heard = ran(study(), [toy.Task("gain"), Flat("loss", 7.0, exact=True)])
    assert any(trial.was_searched() for trial in record.trials)
    assert not [line for line in warnings(heard) if "loss" in line]


def test_a_cost_that_differs_does_not_hide_that_nothing_else_does(study: Study) -> None:
    class Cost(toy.Task):
        def score_one(self, model: toy.Model, item: str) -> float:
            return model.points[0][0]

    with pytest.raises(MergeError, match="the search was not begun: gain: all 10"):
        ran(study(), [Flat("gain", bounds=(0.0, 1.0)), Cost("loss", exact=True)])
    for scores in ((1.0,), (0.0, 1.0)):  # as good for less is what such a study looks for
        task = Flat("gain", *scores, bounds=(0.0, 1.0))
        record, heard = ran(study(folder=f"{scores}"), [task, Cost("loss", exact=True)])
        assert any(trial.was_searched() for trial in record.trials)
        assert [line for line in warnings(heard) if line.startswith("warning: gain: all 10")]


def test_models_of_the_same_weights_are_no_study(study: Study) -> None:
    same = dict.fromkeys(toy.PARENTS, (0.5, 0.5))
    with pytest.raises(MergeError, match="the models among them, have the same weights"):
        ran(study(), [toy.Task("gain"), toy.Task("loss")], parents=same)


def test_a_model_with_the_weights_of_another_one_is_named(study: Study) -> None:
    parents = {**toy.PARENTS, "org/two": toy.PARENTS["org/base"]}
    _, heard = ran(study(), [toy.Task("gain"), toy.Task("loss")], parents=parents)
    line = "warning: org/two has the very weights of the base: it brings nothing to a merge"
    assert line in heard.notices


def test_an_expert_that_is_no_better_than_the_base_at_any_task_is_named(study: Study) -> None:
    parents = {**toy.PARENTS, "org/two": (-1.0, 0.0)}
    _, heard = ran(study(), [toy.Task("gain"), toy.Task("loss")], parents=parents)
    (line,) = warnings(heard)
    assert line.startswith("warning: org/two is no better than the base at any task")
    assert line.endswith(" at gain: is what it came for among the tasks?") or " at loss: " in line


def test_a_task_at_which_no_model_is_better_than_the_base_is_named(study: Study) -> None:
    class Away(toy.Task):
        def score_one(self, model: toy.Model, item: str) -> float:
            return sum(x * x + y * y for x, y in model.points)

    _, heard = ran(study(), [toy.Task("gain"), Away("loss")], parents=HELPING)
    (line,) = warnings(heard)
    assert line == (
        "warning: no model is better than the base at loss, on the search items: merging can "
        "hardly gain there"
    )


def test_nothing_is_said_of_a_study_in_which_models_differ_and_experts_help(study: Study) -> None:
    _, heard = ran(study(), [toy.Task("gain"), toy.Task("loss")], parents=HELPING)
    assert not warnings(heard)


@pytest.mark.slow
def test_answers_without_a_stop_string_end_a_real_study_before_its_search(
    tmp_path: Path, mergetune: Callable[..., tuple[Any, str, str]]
) -> None:
    file = write_study(tmp_path)
    text, items = file.read_text(), (QUICKSTART / "tasks" / "add.jsonl").read_text()
    (tmp_path / "add.jsonl").write_text(items)
    start, end = text.index("score:\n"), text.index("items:")
    entry = {"evaluator": "exact_match", "file": "add.jsonl", "prompt": "{{ prompt }}"}
    score = json.dumps([{**entry, "max_tokens": 12, "delimiter": ""}])
    file.write_text(f"{text[:start]}score: {score}\n{text[end:]}")
    code, _, err = mergetune("run", tmp_path)
    assert code == 1
    assert "  right  '" in err
    assert '3 of 3 answers hold the right one and say more: `stop: "."` would end 3 of 3' in err
    code, out, _ = mergetune("run", tmp_path, "--force", "--json")
    assert (code, json.loads(out)["winner"]["report"]["mean"]) == (0, 0.0)
