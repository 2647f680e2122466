"""A study that changes depth at every trial: no slower and no larger with each."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.engines.hf.engine import HfEngine, live_model
from merge_core.merge.nested import plan
from merge_core.output.live_model import MODELS
from merge_core.parents.open import open_parents
from merge_core.parents.residency import Placement
from merge_core.recipe.schema import Recipe, Slice, Source
from search.spec.sections import Engine
from search.trial.backends import InPlace, open_host

PAIRS = [(f"abcdabcdabcdabcdabcd{'ef' * i}", answer) for i in range(3) for answer in ("a", "bc")]
GROWTH = 12 * 2**20  # bytes, which the interpreter and the C library take as they like


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("RssAnon:"))


def recipe(path: list[tuple[str, int, float]]) -> Recipe:
    slices = tuple(Slice((Source(m, (), (i, i + 1)),), None, (), x) for m, i, x in path)
    return Recipe("passthrough", slices=slices, base_model="base")


def drawn(stream: random.Random) -> list[tuple[str, int, float]]:
    """A path of any depth, scaled here and there."""
    return [
        (stream.choice(("base", "one")), stream.randrange(4), stream.choice((1.0, 1.0, 0.9)))
        for _ in range(stream.randint(1, MODELS + 8))
    ]


@pytest.fixture
def host(family: Callable[..., Path]) -> Any:
    """A host, its parents, and what its tokenizer is asked for."""
    from transformers import AutoTokenizer

    root = family("llama")

    def tokenizer() -> Any:
        return AutoTokenizer.from_pretrained(root / "base")

    placement = Placement("mapped", "", 2**28)
    made = open_host(Engine(device="cpu", batch_size=4), placement, Path(), 100, tokenizer)
    assert isinstance(made, InPlace)
    return made, open_parents(["base", "one"], [root])


@pytest.mark.slow
def test_a_second_hundred_of_depths_takes_no_more_memory(host: Any) -> None:
    """The first ones fill what is kept, and what the allocator holds of a process that did more."""
    place, parents = host
    stream, sizes, tensors = random.Random(0), [], []
    for i in range(200):
        place.build(plan(recipe(drawn(stream)), parents))
        place.live.engine.loglikelihood(PAIRS)
        if i % 50 == 49:
            gc.collect()
            sizes.append(anonymous())
            tensors.append(sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects()))
    assert sizes[-1] - sizes[1] < GROWTH, [x >> 10 for x in sizes]
    assert tensors[-1] < 1.2 * tensors[0]


def test_engines_of_all_depths_answer_as_engines_of_their_own(host: Any) -> None:
    place, parents = host
    stream = random.Random(1)
    paths = [drawn(stream) for _ in range(6)]
    for path in [*paths, *reversed(paths)]:
        place.build(plan(recipe(path), parents))
        live = place.live
        alone = live_model(live.model, live.tokenizer, batch_size=4)
        assert live.engine.loglikelihood(PAIRS) == alone.engine.loglikelihood(PAIRS)


def test_depths_share_encoded_texts_and_a_depth_keeps_its_engine(host: Any) -> None:
    place, parents = host
    engines: list[HfEngine] = []
    for depth in (2, 5, 2):
        place.build(plan(recipe([("base", 0, 1.0)] * depth), parents))
        place.live.engine.loglikelihood(PAIRS)
        engines.append(place.live.engine)
    assert engines[0] is engines[2] is not engines[1]
    assert engines[0]._ids is engines[1]._ids
    assert engines[0]._forward._memories is engines[1]._forward._memories
