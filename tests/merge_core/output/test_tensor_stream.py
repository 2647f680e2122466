"""What is handed on tensor by tensor is what the live candidate holds and what the folder has."""

import math

import pytest
import torch
from safetensors.torch import load_file

from merge_core.errors import CheckpointError, NonFiniteError
from merge_core.output.live_model import Candidate
from merge_core.output.tensor_stream import Stream, shell
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change
from tests.merge_core.recipes import DARE_TIES, LINEAR, RECIPES, SLERP, TIES


def sent(stream, plan):
    """Return the digest and all tensors."""
    held = {}
    return stream.send(plan, held.update), held


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", ["llama-tied", "pythia"])
def test_tensors_are_to_the_bit_those_of_the_exported_folder(planned, tmp_path, name, kind):
    made = planned(f"dtype: bfloat16{RECIPES[name]}", kind)
    digest, tensors = sent(Stream(), made.plan)
    assert made.write(tmp_path / "out") == digest == made.build()[0]
    stored = load_file(tmp_path / "out" / SINGLE)
    assert tensors.keys() == stored.keys()
    assert all(tensors[x].view(torch.uint8).equal(stored[x].view(torch.uint8)) for x in stored)


@pytest.mark.slow
def test_one_stream_sends_one_recipe_after_another(planned):
    stream = Stream()
    for text in (TIES, DARE_TIES, TIES):
        made = planned(text)
        assert sent(stream, made.plan)[0] == made.build()[0]


@pytest.mark.slow
def test_a_tensor_that_is_sent_is_never_written_to_again(planned):
    stream = Stream()
    _, first = sent(stream, planned(TIES).plan)
    copies = {name: tensor.clone() for name, tensor in first.items()}
    sent(stream, planned(SLERP).plan)
    assert all(first[name].equal(copies[name]) for name in copies)


def test_after_a_tensor_that_is_not_finite_the_taker_is_filled_up_and_the_error_raised(
    planned, own_family
):
    root = own_family()
    name = "model.layers.1.mlp.up_proj.weight"
    change(root / "two", model__layers__1__mlp__up_proj__weight=torch.full((24, 16), math.nan))
    made, held = planned(LINEAR, root=root), {}
    with pytest.raises(NonFiniteError, match=rf"^{name}: the merge by 'linear' is not finite"):
        Stream().send(made.plan, held.update)
    whole = sent(Stream(), planned(LINEAR).plan)[1]
    assert {n: (x.shape, x.dtype) for n, x in held.items()} == {
        n: (x.shape, x.dtype) for n, x in whole.items()
    }
    assert all(bool(x.isfinite().all()) for x in held.values())


def test_a_taker_that_stops_early_is_an_error(planned):
    with pytest.raises(CheckpointError, match=r"^\d+ tensors were to be taken, 1 were"):
        Stream().send(planned(TIES).plan, next)


def test_what_the_taker_raises_is_passed_on(planned):
    with pytest.raises(KeyError, match="no room"):
        Stream().send(planned(TIES).plan, lambda tensors: {}["no room"])


@pytest.mark.slow
def test_shell_is_the_live_model_without_its_weights(planned):
    plan = planned(f"dtype: bfloat16{TIES}").plan
    candidate = Candidate()
    candidate.build(plan)
    made = shell(plan)
    expected = [(n, p.shape, p.dtype) for n, p in candidate.model.named_parameters()]
    assert [(n, p.shape, p.dtype) for n, p in made.named_parameters()] == expected
    assert all(p.is_meta for p in made.parameters())
    assert made.dtype == candidate.model.dtype
    ours, theirs = made.generation_config.to_dict(), candidate.model.generation_config.to_dict()
    assert ours == theirs
