import re

import pytest
import torch

from merge_core.contract import Inputs, Method, Prepared
from merge_core.errors import MethodError
from merge_core.kernels import compiled, eager, run
from merge_core.methods.registry import method
from tests.merge_core.methods.merging import inputs_for, random_models

TIES = method("ties")
WHOLE = Method("sum", (), "none", (1, None), "by hand", merge=lambda x: x.models[0] + x.models[1])


def inputs(shape=(10, 100)):
    base, models = random_models()
    return inputs_for(TIES, base.reshape(shape), [m.reshape(shape) for m in models], density=0.4)


def test_method_on_whole_tensors_is_called_and_its_result_rounded_to_the_type_asked_for():
    made = run.merge(WHOLE, inputs())
    expected = inputs().models[0] + inputs().models[1]
    assert made.equal(expected)
    assert run.merge(WHOLE, inputs(), dtype=torch.bfloat16).equal(expected.bfloat16())


def test_tensor_that_is_made_is_float32_if_no_type_is_asked_for():
    assert run.merge(TIES, inputs()).dtype == torch.float32
    assert run.merge(TIES, inputs(), dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize("found", [TIES, WHOLE])
def test_result_is_written_into_the_tensor_given_and_is_that_tensor(found):
    out = torch.empty(10, 100, dtype=torch.bfloat16)
    assert run.merge(found, inputs(), out) is out
    assert out.equal(run.merge(found, inputs(), dtype=torch.bfloat16))


def test_part_of_a_tensor_that_is_not_contiguous_is_written():
    whole = torch.full((10, 200), 9.0)
    run.merge(TIES, inputs(), whole[:, ::2])
    assert whole[:, ::2].equal(run.merge(TIES, inputs()))
    assert bool((whole[:, 1::2] == 9).all())


@pytest.mark.parametrize(("fuse", "called"), [(True, ["kernel"]), (False, ["blocks"])])
def test_kernels_are_used_where_they_are_asked_for(monkeypatch, fuse, called):
    ways = []
    monkeypatch.setattr(compiled, "merge", lambda *given: ways.append("kernel"))
    monkeypatch.setattr(eager, "merge_blocks", lambda *given: ways.append("blocks"))
    run.merge(TIES, inputs(), fuse=fuse)
    assert ways == called


WRONG = {
    "float64 of shape (10, 100)": lambda x: x.models[0].double(),
    "bfloat16 of shape (10, 100)": lambda x: x.models[0].bfloat16(),
    "bool of shape (10, 100)": lambda x: x.models[0] > 0,
    "float32 of shape (100, 10)": lambda x: x.models[0].T,
    "float32 of shape ()": lambda x: x.models[0].sum(),
    "float32 of shape (1, 100)": lambda x: x.models[0][:1],
    "a NoneType": lambda x: None,
    "a ndarray": lambda x: x.models[0].numpy(),
    "a list": lambda x: list(x.models),
}


@pytest.mark.parametrize("got", WRONG)
def test_result_of_another_kind_names_the_method_and_what_it_gave(got):
    found = Method("mine", (), "none", (1, None), "by hand", merge=WRONG[got])
    rule = "merge method 'mine' must give a float32 tensor of its inputs' shape (10, 100), got "
    with pytest.raises(MethodError, match=f"^{re.escape(rule + got)}; mend the method$"):
        run.merge(found, inputs(), dtype=torch.float16)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize(
    "entry",
    [
        lambda block: block.models[0].double(),
        lambda block: block.models[0].sum(),
        lambda block: block.models[0][:1],
        lambda block: block.models[0] > 0,
        lambda block: 1.0,
    ],
)
def test_entries_of_another_kind_name_the_method_before_they_are_written(entry, fuse):
    found = Method(
        "mine", (), "none", (1, None), "by hand", prepare=lambda x: Prepared(), entry=entry
    )
    models = [torch.ones(257, 401), torch.ones(257, 401)]
    given = Inputs(models, None, [{}, {}], {}, [0, 0])
    with pytest.raises(MethodError, match=r"^merge method 'mine' must give a float32 tensor of "):
        run.merge(found, given, fuse=fuse)


def test_method_that_cannot_run_is_a_bug_and_told_by_its_name():
    with pytest.raises(AssertionError, match="empty has neither merge nor prepare and entry"):
        run.merge(Method("empty", (), "none", (1, None), "by hand"), inputs())
