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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
import torch

from evaluators.protocol import Evaluator, LiveModel, ScoreVector, score_items
from merge_core.errors import NonFiniteError

Build = Callable[[], Evaluator]


class EvaluatorContract:
    """Subclass, give the fixtures ``build``, ``build_other`` and ``live_model``, run pytest.

    ``build`` makes the same evaluator again with every call, with at least 4 items;
    ``build_other`` makes one of the same kind with another option that can change a score;
    ``live_model`` is a float32 model on the CPU, small enough to score all items often.
    """

    tolerance: ClassVar[float] = 0.0  # how far padding may move a score that is no right or wrong

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls) -> Build:
        """Return the maker of the evaluator under test."""
        raise NotImplementedError("give a fixture named build")

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls) -> Build:
        """Return the maker of an evaluator with another option."""
        raise NotImplementedError("give a fixture named build_other")

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls) -> LiveModel:
        """Return the model to score."""
        raise NotImplementedError("give a fixture named live_model")

    @pytest.fixture(scope="class")
    @classmethod
    def evaluator(cls, build: Build) -> Evaluator:
        """Return the evaluator under test."""
        return build()

    @pytest.fixture(scope="class")
    @classmethod
    def full(cls, evaluator: Evaluator, live_model: LiveModel) -> ScoreVector:
        """Return the scores of all items, asked for in one call and in order."""
        assert len(evaluator.items) >= 4
        return score_items(evaluator, live_model, range(len(evaluator.items)))

    def test_items_are_the_same_when_built_again(self, evaluator: Evaluator, build: Build) -> None:
        """Ids and order come from the content."""
        assert build().items == evaluator.items

    def test_nothing_asked_gives_an_empty_vector(
        self, evaluator: Evaluator, live_model: LiveModel
    ) -> None:
        """An empty block is a block."""
        assert score_items(evaluator, live_model, []).shape == (0,)

    def test_scoring_twice_gives_the_same_bits(
        self, evaluator: Evaluator, live_model: LiveModel, full: ScoreVector
    ) -> None:
        """Nothing is left over from one call to the next."""
        again = evaluator.score(live_model, range(len(full)))
        assert again.tobytes() == full.tobytes()

    def test_any_order_gives_the_same_scores(
        self, evaluator: Evaluator, live_model: LiveModel, full: ScoreVector
    ) -> None:
        """An item's score does not depend on its place in the call, to the last bit."""
        order = np.random.default_rng(0).permutation(len(full)).tolist()
        assert evaluator.score(live_model, order).tobytes() == full[order].tobytes()

    @pytest.mark.parametrize("size", [1, 3])
    def test_any_blocks_give_the_same_scores(
        self, evaluator: Evaluator, live_model: LiveModel, full: ScoreVector, size: int
    ) -> None:
        """An item's score does not depend on the others asked for."""
        starts = range(0, len(full), size)
        blocks = [range(start, min(start + size, len(full))) for start in starts]
        parts = [evaluator.score(live_model, block) for block in blocks]
        np.testing.assert_allclose(np.concatenate(parts), full, rtol=0, atol=self.tolerance)

    def test_an_item_asked_twice_is_scored_twice(
        self, evaluator: Evaluator, live_model: LiveModel, full: ScoreVector
    ) -> None:
        """Repeats are allowed."""
        scores = evaluator.score(live_model, [2, 0, 2])
        np.testing.assert_allclose(scores, full[[2, 0, 2]], rtol=0, atol=self.tolerance)

    @pytest.mark.parametrize("place", ["before the first", "after the last"])
    def test_a_position_outside_the_items_is_refused(
        self, evaluator: Evaluator, live_model: LiveModel, place: str
    ) -> None:
        """Also -1, which Python would take for the last."""
        position = -1 if place == "before the first" else len(evaluator.items)
        with pytest.raises(IndexError, match=str(position)):
            evaluator.score(live_model, [position])

    def test_fingerprint_is_the_same_when_built_again(
        self, evaluator: Evaluator, build: Build
    ) -> None:
        """Equal evaluators share a name."""
        assert build().fingerprint() == evaluator.fingerprint()

    def test_fingerprint_changes_with_the_options(
        self, evaluator: Evaluator, build_other: Build
    ) -> None:
        """Other numbers, other name."""
        assert build_other().fingerprint() != evaluator.fingerprint()

    def test_global_random_state_is_left_alone(self, build: Build, live_model: LiveModel) -> None:
        """Neither building nor scoring seeds or draws."""
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002  no fresh seed's state
        before = _random_states()
        build().score(live_model, [0, 1])
        assert _random_states() == before

    def test_weights_are_left_as_they_were(
        self, evaluator: Evaluator, live_model: LiveModel
    ) -> None:
        """Only the merge core writes to the model."""
        before = {k: v.clone() for k, v in live_model.model.state_dict().items()}
        evaluator.score(live_model, [0, 1])
        after = live_model.model.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before)

    def test_a_nan_model_never_gets_a_number(
        self, evaluator: Evaluator, live_model: LiveModel
    ) -> None:
        """NaN weights answer with token 0 or choice 0; that is no score."""
        with _nan_weights(live_model.model):
            try:
                scores = evaluator.score(live_model, [0, 1])
            except NonFiniteError:
                return
        assert np.isnan(scores).all()


def _random_states() -> tuple[object, ...]:
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002
    return random.getstate(), str(legacy), torch.get_rng_state().tolist()


@contextmanager
def _nan_weights(model: torch.nn.Module) -> Iterator[None]:
    kept = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(torch.nan)
        try:
            yield
        finally:
            for p, old in zip(model.parameters(), kept, strict=True):
                p.copy_(old)
