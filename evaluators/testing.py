"""The laws that every evaluator keeps, as a test class for plugin authors.

class TestMine(EvaluatorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def build(cls): return lambda: MyEvaluator(...)

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls): return lambda: MyEvaluator(..., another_option)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls): return live_model(a_tiny_model, its_tokenizer, batch_size=8)
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch

from evaluators.protocol import Evaluator, LiveModel, ScoreVector, answer_items, score_items
from merge_core.errors import (
    NoAnswersError,
    NonFiniteError,
    NoPromptsError,
    NoTargetsError,
    ParameterError,
)

Build = Callable[[], Evaluator]
Score = Callable[[Sequence[int]], ScoreVector]


class EvaluatorContract:
    """Subclass, give the fixtures ``build``, ``build_other`` and ``live_model``, run pytest.

    ``build`` makes the same evaluator again with every call, with at least 4 items;
    ``build_other`` makes one of the same kind with another option that can change a score;
    ``live_model`` is a float32 model on the CPU, small enough to score all items often. An
    evaluator that knows right answers has ``targets``, one that can show what is said ``answers``;
    one without them is not asked for more.
    """

    tolerance: ClassVar[float] = 0.0  # how far padding may move a score that is no right or wrong

    @pytest.fixture(scope="class")
    @classmethod
    def evaluator(cls, build: Build) -> Evaluator:
        """Return the evaluator under test."""
        return build()

    @pytest.fixture(scope="class")
    @classmethod
    def score(cls, evaluator: Evaluator, live_model: LiveModel) -> Score:
        """Return what scores some positions on the model."""
        return partial(score_items, evaluator, live_model)

    @pytest.fixture(scope="class")
    @classmethod
    def full(cls, evaluator: Evaluator, score: Score) -> ScoreVector:
        """Return the scores of all items, asked for in one call and in order."""
        assert len(evaluator.items) >= 4
        return score(range(len(evaluator.items)))

    def test_items_are_the_same_when_built_again(self, evaluator: Evaluator, build: Build) -> None:
        assert build().items == evaluator.items

    def test_clusters_and_bounds_are_the_same_when_built_again(
        self, evaluator: Evaluator, build: Build
    ) -> None:
        again = build()
        assert again.cluster_ids == evaluator.cluster_ids
        assert (again.bounds, again.binary) == (evaluator.bounds, evaluator.binary)
        assert again.exact == evaluator.exact

    def test_scores_are_such_as_its_facts_say(
        self, evaluator: Evaluator, full: ScoreVector
    ) -> None:
        """Inside ``bounds``, 0 or 1 where ``binary``, all the same where ``exact``."""
        known = full[~np.isnan(full)]
        low, high = evaluator.bounds or (-np.inf, np.inf)
        assert ((low <= known) & (known <= high)).all()
        assert not evaluator.binary or set(known.tolist()) <= {0.0, 1.0}
        assert not evaluator.exact or len(set(known.tolist())) <= 1

    def test_nothing_asked_gives_an_empty_vector(self, score: Score) -> None:
        assert score([]).shape == (0,)

    def test_scoring_twice_gives_the_same_bits(self, score: Score, full: ScoreVector) -> None:
        assert score(range(len(full))).tobytes() == full.tobytes()

    def test_any_order_gives_the_same_scores(self, score: Score, full: ScoreVector) -> None:
        """An item's score does not depend on its place in the call, to the last bit."""
        order = np.random.default_rng(0).permutation(len(full)).tolist()
        assert score(order).tobytes() == full[order].tobytes()

    @pytest.mark.parametrize("size", [1, 3])
    def test_any_blocks_give_the_same_scores(
        self, score: Score, full: ScoreVector, size: int
    ) -> None:
        """An item's score does not depend on the others asked for."""
        places = range(len(full))
        parts = [score(places[start : start + size]) for start in places[::size]]
        np.testing.assert_allclose(np.concatenate(parts), full, rtol=0, atol=self.tolerance)

    def test_an_item_asked_twice_is_scored_twice(self, score: Score, full: ScoreVector) -> None:
        np.testing.assert_allclose(score([2, 0, 2]), full[[2, 0, 2]], rtol=0, atol=self.tolerance)

    @pytest.mark.parametrize("place", ["before the first", "after the last"])
    def test_a_position_outside_the_items_is_refused(
        self, evaluator: Evaluator, score: Score, place: str
    ) -> None:
        """Also -1, which Python would take for the last."""
        position = -1 if place == "before the first" else len(evaluator.items)
        with pytest.raises(IndexError, match=str(position)):
            score([position])

    def test_fingerprint_is_the_same_when_built_again(
        self, evaluator: Evaluator, build: Build
    ) -> None:
        assert build().fingerprint() == evaluator.fingerprint()

    def test_fingerprint_changes_with_the_options(
        self, evaluator: Evaluator, build_other: Build
    ) -> None:
        assert build_other().fingerprint() != evaluator.fingerprint()

    def test_prompts_are_one_text_per_position_or_refused_at_once(
        self, evaluator: Evaluator
    ) -> None:
        """Also for no positions: so it is known at once whether there are any."""
        try:
            evaluator.prompts([])
        except NoPromptsError:
            with pytest.raises(NoPromptsError, match=re.escape(evaluator.task)):
                evaluator.prompts([0])
            return
        one, other = evaluator.prompts([0]), evaluator.prompts([1])
        assert evaluator.prompts([1, 0, 1]) == [*other, *one, *other]
        assert all(isinstance(text, str) and text for text in (*one, *other))
        for position in (-1, len(evaluator.items)):
            with pytest.raises(IndexError, match=str(position)):
                evaluator.prompts([position])

    def test_targets_are_one_per_position_or_refused_at_once(self, evaluator: Evaluator) -> None:
        """Also for no positions: `mergetune check` asks so whether there is a gradient."""
        try:
            evaluator.targets([])
        except NoTargetsError:
            with pytest.raises(NoTargetsError, match=re.escape(evaluator.task)):
                evaluator.targets([0])
            return
        one, other = evaluator.targets([0]), evaluator.targets([1])
        assert [*evaluator.targets([1, 0, 1])] == [*other, *one, *other]
        for position in (-1, len(evaluator.items)):
            with pytest.raises(IndexError, match=str(position)):
                evaluator.targets([position])

    def test_how_answers_are_written_is_said_of_each_position(self, evaluator: Evaluator) -> None:
        one, other = evaluator.generation([0]), evaluator.generation([1])
        assert evaluator.generation([1, 0, 1]) == [*other, *one, *other]
        assert all(how is None or isinstance(how, Mapping) for how in (*one, *other))

    def test_answers_are_one_per_position_or_refused_at_once(
        self, evaluator: Evaluator, live_model: LiveModel
    ) -> None:
        """Also for no positions: so it is known at once whether there are any."""
        if _has_no_answers(evaluator, live_model):
            with pytest.raises(NoAnswersError, match=re.escape(evaluator.task)):
                evaluator.answers(live_model, [0])
            return
        first, second = answer_items(evaluator, live_model, [0, 1])
        assert answer_items(evaluator, live_model, [1, 0, 1]) == [second, first, second]
        assert first.prompt or second.prompt
        for position in (-1, len(evaluator.items)):
            with pytest.raises(IndexError, match=str(position)):
                evaluator.answers(live_model, [position])

    def test_answers_change_neither_scores_nor_weights_nor_random_state(
        self, evaluator: Evaluator, live_model: LiveModel, score: Score
    ) -> None:
        if _has_no_answers(evaluator, live_model):
            return
        scores, kept = score([0, 1, 2]), deepcopy(live_model.model.state_dict())
        failures, states = dict(evaluator.failures), _random_states()
        answer_items(evaluator, live_model, [2, 1])
        assert (evaluator.failures, _random_states()) == (failures, states)
        after = live_model.model.state_dict()
        assert all(torch.equal(kept[k], after[k]) for k in kept)
        assert score([0, 1, 2]).tobytes() == scores.tobytes()

    def test_losses_fall_along_the_gradient_as_it_says(
        self, evaluator: Evaluator, live_model: LiveModel
    ) -> None:
        """A small step against the gradient lowers the mean loss by its length times the step."""
        try:
            targets = evaluator.targets(range(len(evaluator.items)))
            before = live_model.engine.losses(targets)
        except (NoTargetsError, ParameterError):  # no right answers, or another engine
            return
        kept = deepcopy(live_model.model.state_dict())
        weights = [1 / len(targets)] * len(targets)
        try:
            found = live_model.engine.backward(targets, weights)
            expected = _step(live_model, fall=1e-3)
            after = live_model.engine.losses(targets)
        finally:
            live_model.model.load_state_dict(kept)
            live_model.model.zero_grad(set_to_none=True)
        assert np.isfinite(before).all()
        assert found == pytest.approx(before, rel=1e-4, abs=1e-4)
        assert np.mean(before) - np.mean(after) == pytest.approx(expected, rel=0.2)

    def test_global_random_state_is_left_alone(self, build: Build, live_model: LiveModel) -> None:
        """Neither building nor scoring seeds or draws."""
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002  no fresh seed's state
        before = _random_states()
        build().score(live_model, [0, 1])
        assert _random_states() == before

    def test_weights_are_left_as_they_were(self, score: Score, live_model: LiveModel) -> None:
        before = deepcopy(live_model.model.state_dict())
        score([0, 1])
        after = live_model.model.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before)

    def test_a_nan_model_never_gets_a_number(self, score: Score, live_model: LiveModel) -> None:
        """NaN weights answer with token 0 or choice 0; that is no score."""
        kept = deepcopy(live_model.model.state_dict())
        for p in live_model.model.parameters():
            p.data.fill_(torch.nan)
        try:
            scores = score([0, 1])
        except NonFiniteError:
            return
        finally:
            live_model.model.load_state_dict(kept)
        assert np.isnan(scores).all()


def _has_no_answers(evaluator: Evaluator, live_model: LiveModel) -> bool:
    try:
        return bool(answer_items(evaluator, live_model, []))
    except NoAnswersError:
        return True


def _step(live_model: LiveModel, fall: float) -> float:
    """Go down the gradient until a loss should have fallen so far, and return how far it should."""
    moved = [p for p in live_model.model.parameters() if p.grad is not None]
    steepness = sum(float(p.grad.square().sum()) for p in moved if p.grad is not None)
    if not steepness:  # such as of an item with one choice
        return 0.0
    with torch.no_grad():
        for p in moved:
            assert p.grad is not None
            p.sub_(p.grad, alpha=fall / steepness)
    return fall


def _random_states() -> tuple[object, ...]:
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002
    return random.getstate(), str(legacy), torch.get_rng_state().tolist()
