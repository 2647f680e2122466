"""What each of k workers gets of a machine."""

import pytest

from merge_core.errors import ParameterError
from search.spec.sections import Engine
from search.workers.devices import BOUND, VISIBLE, cpus_here, gpus_here, gpus_per_worker, shares

CORES = tuple(range(8))
FOUR = ("0", "1", "2", "3")


def seen(found):
    return [share.environment.get(VISIBLE) for share in found]


def test_each_worker_sees_one_gpu_that_no_other_sees():
    assert seen(shares(3, CORES, FOUR, None, 1)) == ["0", "1", "2"]


def test_a_worker_of_a_model_on_two_gpus_sees_two():
    assert seen(shares(2, CORES, ("GPU-a", "GPU-b", "7", "9"), None, 2)) == ["GPU-a,GPU-b", "7,9"]


def test_workers_without_gpus_see_what_there_is():
    assert seen(shares(2, CORES, FOUR, None, 0)) == [None, None]


@pytest.mark.parametrize(
    ("each", "count", "text"),
    [
        (1, 5, "workers: each takes a GPU, got 5 workers and 4 GPUs here; ask for at most 4"),
        (4, 2, "workers: each takes 4 GPUs, got 2 workers and 4 GPUs here; ask for at most 1"),
        (8, 1, "each takes 8 GPUs, got 1 workers and 4 GPUs here; set another engine.tensor_par"),
    ],
)
def test_more_workers_than_gpus_are_refused_in_one_line(each, count, text):
    with pytest.raises(ParameterError, match=text):
        shares(count, CORES, FOUR, None, each)


@pytest.mark.parametrize(("count", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_cores_are_divided_and_every_worker_has_one_at_least(count, threads):
    found = shares(count, CORES, (), None, 0)
    assert [share.threads for share in found] == [threads] * count
    assert {share.environment["OMP_NUM_THREADS"] for share in found} == {str(threads)}


def test_a_study_keeps_the_threads_that_decide_its_last_bits():
    assert [share.threads for share in shares(3, CORES, (), 6, 0)] == [6, 6, 6]


def test_a_vllm_for_cpus_is_bound_to_cores_of_its_own_where_there_are_enough():
    found = shares(2, (2, 3, 6, 7), (), None, 0)
    assert [share.environment[BOUND] for share in found] == ["2,3", "6,7"]
    assert [BOUND in share.environment for share in shares(2, (2, 3), (), 2, 0)] == [False, False]


@pytest.mark.parametrize(
    ("engine", "gpus", "each"),
    [
        ({}, (), 0),
        ({}, FOUR, 1),
        ({"device": "cpu"}, FOUR, 0),
        ({"device": "cuda"}, FOUR, 1),
        ({"device": "cuda"}, (), 1),
        ({"name": "vllm"}, FOUR, 1),
        ({"name": "vllm"}, (), 0),
        ({"name": "vllm", "tensor_parallel_size": 2}, FOUR, 2),
    ],
)
def test_the_engine_says_how_many_gpus_a_worker_takes(engine, gpus, each):
    assert gpus_per_worker(Engine(**engine), 2, gpus) == each


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_is_not_shared_out_and_one_worker_may_have_it(device):
    with pytest.raises(ParameterError, match=f"engine.device '{device}' is one device, which 2"):
        gpus_per_worker(Engine(device=device), 2, FOUR)
    assert gpus_per_worker(Engine(device=device), 1, FOUR) == 0


def test_gpus_here_have_the_names_that_the_user_made_visible(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)
    assert gpus_here() == ("0", "1")
    monkeypatch.setenv(VISIBLE, "GPU-5, 3")
    assert gpus_here() == ("GPU-5", "3")
    assert cpus_here()
