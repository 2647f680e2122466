"""Whatever a stranger sends is data or one clear error: no traceback, no hang, no gigabyte."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.kinds import KINDS
from tests.fuzz.worker import BAD, Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
INPUTS = 25  # of each kind, the same in every run; ``make fuzz`` reads thousands


@pytest.fixture(scope="module")
def worker(world):
    with Worker(world) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_spoilt_input_is_data_or_one_clear_error(kind, worker, world):
    @settings(max_examples=INPUTS, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(random):
        outcome = worker.run(kind.call, kind.spoilt(random, world))
        assert outcome.what not in BAD, f"{outcome.what}\n{outcome.detail}"

    check()
