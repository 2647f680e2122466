from __future__ import annotations

import math

import numpy as np
import pytest

from evaluators.protocol import Evaluator, Item, TaskFacts, canonical, items_of, score_items
from merge_core.errors import EvaluationError

ITEMS = items_of("sums", [{"q": 1}, {"q": 2}])
FACTS = {"task": "sums", "unit": "acc", "higher_is_better": True, "items": ITEMS}


class Gives(Evaluator):
    """Gives what it is told to, whatever is asked."""

    def __init__(self, scores, **facts):
        super().__init__(TaskFacts(**FACTS, **facts))
        self._scores = scores

    def score(self, model, which):
        self.check_positions(which)
        return self._scores

    def fingerprint(self):
        return "gives"


def test_ids_do_not_depend_on_the_place():
    a, b = {"q": "1+1", "a": 2}, {"q": "1+2", "a": 3}
    there, back = items_of("sums", [a, b]), items_of("sums", [b, a])
    assert there == back[::-1]


def test_ids_do_not_depend_on_the_order_of_keys():
    assert items_of("sums", [{"q": 1, "a": 2}]) == items_of("sums", [{"a": 2, "q": 1}])


def test_the_same_document_in_another_task_is_another_item():
    doc = {"q": "1+1"}
    assert items_of("sums", [doc])[0].id != items_of("quiz", [doc])[0].id


def test_twins_share_the_id_of_their_content_and_are_numbered():
    items = items_of("sums", [{"q": 1}, {"q": 2}, {"q": 1}, {"q": 1}])
    first = items[0].id
    assert [items[2].id, items[3].id] == [f"{first}#2", f"{first}#3"]
    assert first not in items[1].id


def test_golden_id():
    # sha256(b'["sums",{"a":2,"q":"1+1"}]'), by `printf ... | sha256sum`.
    assert items_of("sums", [{"q": "1+1", "a": 2}]) == (Item("649200d60d6733f8", "sums"),)


@pytest.mark.parametrize("text", ["é", "\ud800", "日本"])
def test_any_text_has_an_id(text):
    assert len(items_of("texts", [{"q": text}])[0].id) == 16


def test_canonical_text_has_sorted_keys_and_no_spaces():
    assert canonical({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'.encode()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"items": (*ITEMS, ITEMS[0])}, f"sums: 2 of its items have the id '{ITEMS[0].id}'"),
        ({"documents": ("a", "a")}, "sums: 2 of its documents have the id 'a'"),
        ({"items": (*ITEMS, Item("0", "quiz"))}, "sums: has items of the task 'quiz'"),
        ({"sizes": (1.0,)}, "sums: expected one of `sizes` for each of 2 items, got 1"),
        ({"documents": ("a",)}, "sums: expected one of `documents` for each of 2 items, got 1"),
        ({"sizes": (1.0, 0.0)}, "sums: `sizes` must be above 0, got 0.0"),
        ({"sizes": (1.0, float("nan"))}, "sums: `sizes` must be above 0, got nan"),
        ({"chance": 1.5}, r"sums: `chance` must be in \[0, 1\], got 1.5"),
        ({"clusters": ("a",)}, "sums: expected one of `clusters` for each of 2 items, got 1"),
        ({"bounds": (1.0, 0.0)}, "sums: `bounds` must be two finite numbers.* got 1 and 0"),
        ({"bounds": (0.0, math.inf)}, "sums: `bounds` must be two finite.* got 0 and inf"),
        ({"bounds": (math.nan, 1.0)}, "sums: `bounds` must be two finite.* got nan and 1"),
        ({"binary": True}, "sums: `binary` needs `bounds` of 0 and 1"),
        ({"exact": True, "measured": True}, "sums: what is `measured` is not `exact`"),
    ],
)
def test_facts_that_do_not_agree_are_refused(changes, rule):
    with pytest.raises(EvaluationError, match=f"^{rule}$"):
        TaskFacts(**{**FACTS, **changes})


def test_a_typing_error_in_a_fact_is_an_error():
    with pytest.raises(TypeError, match="'chanse'"):
        TaskFacts(**FACTS, chanse=0.5)
    with pytest.raises(AttributeError, match="chance"):
        Gives([]).chance = 0.5


def test_an_evaluator_shows_its_facts_and_the_defaults_of_the_others():
    found = Gives([])
    assert {name: getattr(found, name) for name in FACTS} == FACTS
    assert (found.sizes, found.chance, found.documents, found.notice) == (None, None, None, "")
    assert (found.measured, found.reported(0.5), found.failures) == (False, 0.5, {})
    assert (found.clusters, found.exact, found.bounds, found.binary) == (None, False, None, False)


def test_items_of_one_content_are_one_cluster():
    items = items_of("sums", ["a", "b", "a"])
    alone = TaskFacts(**{**FACTS, "items": items})
    assert alone.cluster_ids == (items[0].id, items[1].id, items[0].id)


def test_twins_join_the_clusters_that_they_are_in():
    items = items_of("sums", ["a", "b", "a", "c"])
    facts = TaskFacts(**{**FACTS, "items": items}, clusters=("p", "q", "q", "r"))
    assert facts.cluster_ids == ("p", "p", "p", "r")
    assert facts.clusters == ("p", "q", "q", "r")


def test_one_float64_a_position_is_taken_as_it_is():
    scores = np.array([0.5, np.nan])
    assert score_items(Gives(scores), None, [0, 1]) is scores


@pytest.mark.parametrize(
    ("scores", "got"),
    [
        ([0.5, 1.0], "list"),
        (np.array([1, 0]), "int64 of shape"),
        (np.array([0.5]), r"float64 of shape \(1,\)"),
        (np.array([[0.5, 1.0]]), r"float64 of shape \(1, 2\)"),
    ],
)
def test_scores_of_another_number_or_type_are_refused(scores, got):
    rule = f"sums: expected 2 scores as a float64 array, got {got}"
    with pytest.raises(EvaluationError, match=rule):
        score_items(Gives(scores), None, [0, 1])


@pytest.mark.parametrize(
    ("facts", "scores", "rule"),
    [
        ({"bounds": (0, 1)}, [1.0, 1.5], r"`bounds` say that scores are in \[0, 1\], got 1.5"),
        ({"bounds": (-1, 1)}, [-np.inf, 0.0], r"`bounds` say .* \[-1, 1\], got -inf"),
        ({"bounds": (0, 1), "binary": True}, [1.0, 0.5], "`binary` says .* 0 or 1, got 0.5"),
        ({"exact": True}, [np.nan, 7.0, 8.0], "`exact` says .* the same score, got 8.0"),
    ],
)
def test_scores_that_the_facts_exclude_are_refused(facts, scores, rule):
    with pytest.raises(EvaluationError, match=f"^sums: its facts' {rule}$"):
        score_items(Gives(np.array(scores), **facts), None, [0] * len(scores))


@pytest.mark.parametrize("facts", [{"bounds": (0, 1), "binary": True}, {"exact": True}])
def test_a_score_that_failed_is_outside_of_nothing(facts):
    scores = np.array([np.nan, 1.0, 1.0])
    assert score_items(Gives(scores, **facts), None, [0, 1, 1]) is scores
    assert score_items(Gives(scores[:0], **facts), None, []).shape == (0,)
