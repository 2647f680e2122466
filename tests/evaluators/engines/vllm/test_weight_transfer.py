"""How weights travel; vLLM itself is not needed for that."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from types import SimpleNamespace

import pytest
import torch

from evaluators.engines.vllm.weight_transfer import WeightTaker, send

NAMED = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(7),
    "d": torch.zeros((0, 4)),
    "e": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
}


def assert_same(found):
    assert list(found) == list(NAMED)
    for name, tensor in NAMED.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].equal(tensor)


def read_in(process_queue, received):
    process_queue.put({n: x.float().tolist() for n, x in pickle.loads(received)})


def test_every_reader_gets_every_tensor():
    found = [{}, {}]

    def ask(received):
        threads = [
            threading.Thread(target=lambda held=held: held.update(received)) for held in found
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    send(iter(NAMED.items()), 2, ask)
    assert_same(found[0])
    assert_same(found[1])


@pytest.mark.slow
def test_tensors_reach_another_process():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()

    def ask(received):
        other = context.Process(target=read_in, args=(queue, pickle.dumps(received)))
        other.start()
        other.join()

    send(iter(NAMED.items()), 1, ask)
    assert queue.get() == {name: x.float().tolist() for name, x in NAMED.items()}


def test_a_reader_that_fails_before_it_reads_is_heard():
    def ask(received):
        raise RuntimeError("no such worker")

    with pytest.raises(RuntimeError, match="no such worker"):
        send(iter(NAMED.items()), 2, ask)


def test_a_reader_that_fails_on_the_way_is_heard():
    def ask(received):
        for name, _ in received:
            raise RuntimeError(f"cannot use {name}")

    many = ((str(i), torch.zeros(100_000)) for i in range(50))  # more than a socket holds
    with pytest.raises(RuntimeError, match="cannot use 0"):
        send(many, 1, ask)


def test_what_the_weights_raise_is_passed_on():
    def broken():
        yield "a", NAMED["a"]
        raise ValueError("no more")

    def ask(received):
        with pytest.raises(EOFError):
            dict(received)

    with pytest.raises(ValueError, match="no more"):
        send(broken(), 1, ask)


class Model(torch.nn.Linear):
    """Loads what it is given, and may say so."""

    says = True

    def load_weights(self, weights):
        names = {name for name, _ in weights}
        return names if self.says else None


class Worker(WeightTaker):
    def __init__(self):
        self.model = Model(2, 2)
        self.model_runner = SimpleNamespace(
            reload_weights=lambda weights_iterator: self.model.load_weights(weights_iterator)
        )

    def get_model(self):
        return self.model


@pytest.fixture
def no_heads(monkeypatch):
    monkeypatch.setattr(
        "evaluators.engines.vllm.weight_transfer._pack_tied_heads", lambda model: None
    )


def test_weights_that_nothing_goes_to_are_an_error(no_heads):
    with pytest.raises(RuntimeError, match=r"^bias: a weight that no tensor goes to \(1 such\)"):
        Worker().take_weights({"weight": NAMED["a"]}.items())


@pytest.mark.parametrize("says", [True, False])
def test_weights_that_are_all_there_are_no_error(says, no_heads):
    worker = Worker()
    worker.model.says = says
    worker.take_weights({"weight": NAMED["a"], "bias": NAMED["b"]}.items())
    assert "load_weights" not in vars(worker.model)  # watched only while it loads
