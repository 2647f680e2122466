import pytest
import torch
import transformers

from merge_core.architecture.stored_names import StoredNames, fix_conversions, stored_form
from merge_core.errors import CheckpointError
from merge_core.output import live_views
from merge_core.output.live_views import stored_places

SIZES = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 20}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
EXPERTS = {"num_experts": 6, "moe_intermediate_size": 12, "num_experts_per_tok": 2}
KINDS = {
    "Llama": {},
    "Mixtral": {"num_local_experts": 6},
    "Qwen3Moe": EXPERTS,
    "GptOss": {"num_local_experts": 6, "layer_types": ["full_attention"] * 2},
}


def made(kind, **settings):
    name = f"{kind}ForCausalLM"
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **KINDS[kind], **settings})
    torch.manual_seed(0)
    model = getattr(transformers, name)(config)
    fix_conversions(model)
    return model


def views_of(model):
    live = model.state_dict()
    return {name: place.of(live[place.live]) for name, place in stored_places(model)}


def stored(model):
    every = (stored_form(model, name, x) for name, x in model.state_dict().items())
    return {name: x.clone() for parts in every for name, x in parts}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("numbers", [False, True])
def test_what_is_written_to_the_views_is_what_the_model_then_stores(kind, numbers, monkeypatch):
    if numbers:  # as where transformers' conversion copies for another reason
        monkeypatch.setattr(live_views, "_without_copies", lambda: torch.no_grad())
    model = made(kind)
    views = views_of(model)
    assert views.keys() == stored(model).keys() == StoredNames(model).shapes.keys()
    for i, view in enumerate(views.values()):
        view.copy_(torch.arange(view.numel()).reshape(view.shape) + 1000.0 * i)
    for i, (name, x) in enumerate((name, stored(model)[name]) for name in views):
        assert x.equal(torch.arange(x.numel()).reshape(x.shape) + 1000.0 * i), name


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe"])
def test_work_for_experts_grows_with_their_weights_and_not_with_their_square(kind, monkeypatch):
    entries = []
    monkeypatch.setattr(live_views, "_without_copies", lambda: torch.no_grad())
    numbered = live_views._numbered
    monkeypatch.setattr(live_views, "_numbered", lambda x: entries.append(x.numel()) or numbered(x))
    counts = {}
    for experts in (6, 24):
        entries.clear()
        assert len(views_of(made(kind, num_experts=experts, num_local_experts=experts)))
        counts[experts] = sum(entries)
    assert 0 < counts[24] == 4 * counts[6]


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe", "GptOss"])
def test_places_of_experts_are_read_off_without_a_copy(kind, monkeypatch):
    monkeypatch.setattr(live_views, "_numbered", lambda _: pytest.fail("numbers were made"))
    assert views_of(made(kind))


def test_tensors_without_entries_have_a_view_too(monkeypatch):
    live = torch.zeros(0, 4)
    view = live_views._view(live, live_views._numbered(live), torch.zeros(2, 0))
    assert live_views.Place("x", (2, 0), view).of(live).shape == (2, 0)


def test_places_that_are_no_view_of_the_weights_have_none():
    live = torch.zeros(4, 3)
    numbers = torch.arange(12).reshape(4, 3)
    odd = torch.tensor([[0, 7], [6, 11]])  # evenly spaced at first, which would lead past the end
    assert live_views._view(live, numbers, odd) is None
    assert live_views._view(live, numbers, numbers[1:]) == ((3, 1), 3)


def test_a_tensor_that_is_stored_only_with_others_is_refused_by_name(monkeypatch):
    def raises(model, state):
        raise ValueError("Expected pattern x in\ncollected tensors")

    monkeypatch.setattr("transformers.core_model_loading.revert_weight_conversion", raises)
    with pytest.raises(
        CheckpointError, match=r"^a: Linear stores it only together .*mergetune mer"
    ):
        stored_form(torch.nn.Linear(1, 1), "a", torch.zeros(1))
