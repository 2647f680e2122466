import pytest
import torch

from merge_core.contract import Prepared
from merge_core.kernels import eager
from merge_core.kernels.eager import flat_blocks, merge_blocks, of_model, row_blocks, spans
from merge_core.methods.registry import METHODS, method
from tests.merge_core.methods.merging import inputs_for, random_models


def places(prepared, count, size):
    return [(span.start, span.stop) for span in spans(prepared, count, size)]


def test_spans_follow_each_other_and_are_no_larger_than_asked():
    assert places(Prepared(), 10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert places(Prepared(), 0, 4) == []


def test_span_ends_where_its_numbers_change():
    changes = [(3, {"a": [1.0]}), (3, {"b": [2.0]}), (9, {"a": [3.0]})]
    found = list(spans(Prepared({"a": [0.0], "b": [0.0]}, changes=changes), 10, 5))
    assert [(s.start, s.stop, s.numbers["a"][0], s.numbers["b"][0]) for s in found] == [
        (0, 3, 0.0, 0.0),
        (3, 8, 1.0, 2.0),
        (8, 9, 1.0, 2.0),
        (9, 10, 3.0, 2.0),
    ]


def test_span_ends_where_32_bits_do_and_the_upper_word_goes_into_the_start_of_a_mask():
    prepared = Prepared(words={"start": [5], "step": [1]})
    found = list(spans(prepared, 2**32 + 10, 2**32))
    assert [(s.start, s.stop) for s in found] == [(0, 2**32), (2**32, 2**32 + 10)]
    assert [list(s.words["start"]) for s in found] == [[5], [5 ^ 1]]


def test_blocks_of_a_tensor_are_its_entries_in_order_as_float32():
    base, models = random_models(1000)
    inputs = inputs_for(method("task_arithmetic"), base.bfloat16(), [m.half() for m in models])
    found = list(flat_blocks(inputs, Prepared(words={"start": [0]}), 300))
    assert torch.cat([block.base for block in found]).equal(base.bfloat16().float())
    assert torch.cat([block.models[2] for block in found]).equal(models[2].half().float())
    assert torch.cat([block.places for block in found]).tolist() == list(range(1000))


def test_rows_come_whole_and_with_their_own_numbers(monkeypatch):
    monkeypatch.setattr(eager, "BLOCK", 20)
    base, models = (x.reshape(25, 8) for x in (random_models(200)[0], random_models(200)[1][0]))
    inputs = inputs_for(method("task_arithmetic"), base, [models])
    numbers = torch.arange(25.0).unsqueeze(-1)
    found = list(row_blocks(inputs, Prepared(rows={"x": [numbers]})))
    assert {block.base.shape[1] for block in found} == {8}
    assert torch.cat([block.base for block in found]).equal(base)
    assert torch.cat([block.numbers["x"][0] for block in found]).equal(numbers)


def test_blocks_of_one_model_have_its_numbers_alone():
    base, models = random_models(10)
    inputs = inputs_for(method("task_arithmetic"), base, models)
    prepared = Prepared({"a": [1.0, 2.0, 3.0]}, changes=[(4, {"a": [4.0, 5.0, 6.0]})])
    found = list(of_model(inputs, prepared, 1, 100))
    assert [block.numbers["a"] for block in found] == [[2.0], [5.0]]
    assert torch.cat([block.models[0] for block in found]).equal(models[1])


@pytest.mark.parametrize("name", [name for name in METHODS.names() if method(name).prepare])
def test_size_of_blocks_does_not_change_a_bit(monkeypatch, name):
    found = method(name)
    base, models = (random_models(33 * 48, 3)[0].reshape(33, 48), random_models(33 * 48, 3)[1])
    least, most = found.models
    count = 3 if most is None else most - (found.base != "none")
    models = [model.reshape(33, 48) for model in models][:count]
    start = {p.name: p.start for p in found.params if p.start is not None}
    start = {"lambda_" if key == "lambda" else key: value for key, value in start.items()}
    inputs = inputs_for(found, base if found.base != "none" else None, models, **start)
    made = []
    for size in (2**17, 7, 100):
        monkeypatch.setattr(eager, "BLOCK", size)
        out = torch.empty(33, 48)
        prepared = found.prepare(inputs)
        for span in spans(prepared, out.numel(), size):
            assert span.stop - span.start <= size
        merge_blocks(found, inputs, prepared, out)
        made.append(out)
    assert made[0].equal(made[1])
    assert made[0].equal(made[2])
    assert least <= len(models) + (found.base != "none")
