"""Layers stacked anew, live: references to the parents' layers, and the model that is exported."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import NonFiniteError
from merge_core.merge.nested import plan
from merge_core.numerics import weights_hash
from merge_core.output.live_model import MODELS, Candidate
from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import SINGLE
from tests.merge_core import tiny_classes
from tests.merge_core.conftest import change, read_recipe, weights_digest

IDS = torch.tensor([[5, 9, 20, 11, 7, 3, 3, 18, 40, 2]])
ROOM = 12  # tokens that are written
REPEAT = [("base", 0, 3), ("base", 1, 4)]
REORDER = [("base", 0, 1), ("base", 2, 3), ("base", 1, 2), ("base", 3, 4)]
DROP = [("base", 0, 1), ("base", 3, 4)]
TWO = [("base", 0, 2), ("one", 1, 4), ("base", 1, 2), ("one", 3, 4)]
PATHS = {"repeat": REPEAT, "reorder": REORDER, "drop": DROP, "two": TWO}
SLIDING = {
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": 4,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
    },
    "gemma3": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
}


def within(path, kind):
    """A path over the layers that a kind has."""
    most = 3 if kind == "gpt-neox" else 4
    return [(model, min(a, most - 1), min(b, most)) for model, a, b in path]


def stack(path, **keys):
    """A passthrough recipe of slices, each ``(model, first, last)``."""
    slices = "".join(
        f"\n  - sources: [{{model: {model}, layer_range: [{a}, {b}]}}]" for model, a, b in path
    )
    more = "".join(f"\n{key}: {value}" for key, value in keys.items())
    return f"merge_method: passthrough\nbase_model: base{more}\nslices:{slices}\n"


MERGED = """
merge_method: linear
base_model: base
parameters: {weight: 1}
slices:
  - sources: [{model: base, layer_range: [0, 2]}]
  - sources:
      - {model: base, layer_range: [1, 3], parameters: {weight: 0.3}}
      - {model: one, layer_range: [0, 2], parameters: {weight: 0.7}}
  - sources: [{model: one, layer_range: [2, 3]}]
"""


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def written(model, ids=IDS, **options):
    options = {"max_new_tokens": ROOM, "min_new_tokens": ROOM, "do_sample": False} | options
    return model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)


def assert_same(a, b):
    """The same logits to the bit, and the same texts with and without a cache."""
    with torch.no_grad():
        assert a(IDS).logits.equal(b(IDS).logits)
        assert a(IDS[:, :1]).logits.equal(b(IDS[:, :1]).logits), "one row, as with a cache"
    text = written(a)
    assert text.equal(written(b))
    assert text.equal(written(a, use_cache=False))


def parts(folder, kind="llama", **settings):
    """Two models of a kind in a folder, with sliding windows where the kind has them."""
    for seed, name in enumerate(("base", "one")):
        tiny_classes.save(kind, folder / name, seed, num_hidden_layers=4, **settings)
    return folder


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt-neox", "qwen3", "mixtral"])
def test_live_stack_is_to_the_bit_the_exported_folder(planned, tmp_path, kind, path):
    made = planned(stack(within(PATHS[path], kind)), kind)
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    assert_same(model, loaded(tmp_path / "out"))


@pytest.mark.parametrize("path", ["repeat", "reorder"])
@pytest.mark.parametrize("kind", SLIDING)
def test_live_stack_keeps_each_layer_s_window(planned, tmp_path, kind, path):
    root = parts(tmp_path / "models", kind, **SLIDING[kind])
    made = planned(stack(PATHS[path]), root=root)
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    types = SLIDING[kind]["layer_types"]
    assert model.config.layer_types == [types[i] for _, a, b in PATHS[path] for i in range(a, b)]
    assert_same(model, loaded(tmp_path / "out"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_live_stack_of_another_type_is_the_exported_folder(planned, tmp_path, dtype):
    made = planned(stack(TWO, dtype=dtype), "llama", "bfloat16")
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    there = loaded(tmp_path / "out").state_dict()
    for name, x in model.state_dict().items():
        assert x.dtype == there[name].dtype
        assert x.view(torch.uint8).equal(there[name].view(torch.uint8)), name
    with torch.no_grad():
        assert model(IDS).logits.equal(loaded(tmp_path / "out")(IDS).logits)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt-neox", "mixtral"])
def test_merged_slices_stand_between_references(planned, tmp_path, kind):
    made = planned(MERGED, kind)
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    assert_same(model, loaded(tmp_path / "out"))


def test_layers_are_the_parents_own_memory_and_repeated_ones_share_it(planned):
    made = planned(stack(TWO), "llama", "bfloat16")
    _, model = made.build()
    live = {name: p.data_ptr() for name, p in model.named_parameters()}
    for step in made.plan.steps:
        (operand,) = step.operands
        assert live[step.tensor] == made.parents[operand.parent].tensor(operand.tensor).data_ptr()
    assert not any(p.requires_grad for p in model.parameters())


def begins_at(folder, place):
    """Save a model again so that its tensors begin at a place of 16 bytes."""
    stored, file = load_file(folder / SINGLE), folder / SINGLE
    for n in range(64):
        save_file(stored, file, metadata={"format": "pt", "note": "x" * n})
        size = int.from_bytes(file.read_bytes()[:8], "little")
        if (8 + size) % 16 == place:
            return
    raise AssertionError("no header of that length")


@pytest.mark.parametrize("places", [(0, 0), (8, 0), (8, 8)])
def test_live_stack_is_the_folder_wherever_its_parents_tensors_begin(planned, tmp_path, places):
    root = parts(tmp_path / "models", "qwen2", hidden_size=32, intermediate_size=48)
    for name, place in zip(("base", "one"), places, strict=True):
        begins_at(root / name, place)
    made = planned(stack(TWO), root=root)
    digest, model = made.build()
    found = {p.data_ptr() % 16 for name, p in model.named_parameters()}
    assert found == {0}
    up = [layer.mlp.up_proj.weight.data_ptr() for layer in model.model.layers]
    assert up[1] == up[5], "a repeated layer shares memory"
    own = made.parents["base"].tensor("model.layers.1.mlp.up_proj.weight").data_ptr()
    assert (own == up[1]) is (places[0] == 0)
    assert made.write(tmp_path / "out") == digest
    assert_same(model, loaded(tmp_path / "out"))


def test_tensors_of_a_folder_begin_at_multiples_of_64_bytes(planned, tmp_path):
    made = planned(stack(TWO), "llama")
    made.write(tmp_path / "out")
    for name, x in load_file(tmp_path / "out" / SINGLE).items():
        assert x.dim() < 2 or x.nbytes % 64 or x.data_ptr() % 64 == 0, name


def test_converted_layers_are_converted_once_for_all_places(planned):
    made = planned(stack([("base", 1, 2)] * 5, dtype="float32"), "llama", "bfloat16")
    _, model = made.build()
    places = {x.mlp.up_proj.weight.data_ptr() for x in model.model.layers}
    assert len(places) == 1


def test_merged_layers_have_memory_of_their_own(planned):
    made = planned(MERGED, "llama")
    _, model = made.build()
    owned = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    every = [(parent, name) for parent in made.parents.values() for name in parent.tensors]
    parents = {parent.tensor(name).data_ptr() for parent, name in every}
    assert len(owned) == 2 * 9
    assert owned.isdisjoint(parents)


def test_digest_is_that_of_the_weights_under_their_places(planned):
    digest, model = planned(stack(TWO), "llama").build()
    assert digest == weights_digest(model.state_dict().items())


def file_digests(root):
    return {
        x: hashlib.sha256((root / x / SINGLE).read_bytes()).hexdigest() for x in ("base", "one")
    }


def test_a_merge_in_place_behind_a_reference_leaves_parents_and_files_alone(planned, own_family):
    root = own_family("llama")
    files = file_digests(root)
    first, second = planned(stack(TWO), root=root), planned(MERGED, root=root)
    parents = first.parents
    before = {
        (x, n): parents[x].tensor(n).clone() for x in ("base", "one") for n in parents[x].tensors
    }
    candidate, alone = Candidate(), Candidate()
    whole = read_recipe("merge_method: passthrough\nmodels: [{model: base}]")
    mixed = read_recipe(
        "merge_method: linear\nmodels: [{model: base, parameters: {weight: 0.2}}, "
        "{model: one, parameters: {weight: 0.9}}]"
    )
    for made in (whole, mixed, whole, mixed):
        digest = candidate.build(plan(made, parents))
        assert digest == Candidate().build(plan(made, parents))
    for made in (first, second, first, second):
        alone.build(plan(made.plan.recipe, parents))
    candidate.build(plan(mixed, parents))
    with torch.no_grad():
        for p in candidate.model.parameters():
            p.fill_(7.0)  # what is the model's own may be written
    assert all(parents[x].tensor(n).equal(before[x, n]) for x, n in before)
    assert file_digests(root) == files


def test_model_of_a_whole_passthrough_then_merged_is_the_same_object(planned):
    made = planned("merge_method: passthrough\nmodels: [{model: base}]", "llama")
    candidate = Candidate()
    candidate.build(made.plan)
    model = candidate.model
    text = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 0.5}}]"
    digest = candidate.build(plan(read_recipe(text), made.parents))
    assert candidate.model is model
    assert digest == planned(text, "llama").build()[0]


def test_candidates_of_many_depths_are_those_of_a_fresh_process(planned):
    made = planned(stack(TWO), "llama")
    stream = torch.Generator().manual_seed(0)
    candidate, digests = Candidate(), {}
    for _ in range(2 * MODELS):
        depth = int(torch.randint(2, 9, (1,), generator=stream))
        layers = torch.randint(0, 4, (depth,), generator=stream).tolist()
        path = tuple((("base", "one")[i % 2], i, i + 1) for i in layers)
        recipe = read_recipe(stack(path))
        digests[path] = candidate.build(plan(recipe, made.parents))
        with torch.no_grad():
            assert candidate.model(IDS).logits.isfinite().all()
        assert digests[path] == weights_digest(candidate.model.state_dict().items())
    assert len(set(digests.values())) == len(digests)


def test_a_stack_that_was_seen_computes_no_digest_again(planned, monkeypatch):
    made, candidate = planned(stack(TWO), "llama"), Candidate()
    first = candidate.build(made.plan)
    candidate.build(plan(read_recipe(stack(DROP)), made.parents))
    monkeypatch.setattr(weights_hash, "digest_and_finiteness", lambda *_, **__: pytest.fail("seen"))
    assert candidate.build(plan(read_recipe(stack(TWO)), made.parents)) == first


def test_stack_of_broken_layers_is_refused_by_tensor(planned, own_family):
    root = own_family("llama")
    name = "model.layers.3.input_layernorm.weight"
    change(root / "base", **{name.replace(".", "__"): torch.tensor([1.0] * 15 + [torch.inf])})
    parents, candidate = open_parents(["base", "one"], [root]), Candidate()
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=r"^model\.layers\.1\.input_layernorm.*not finite"):
            candidate.build(plan(read_recipe(stack(DROP)), parents))
    good = read_recipe(stack([("base", 0, 2)]))
    assert candidate.build(plan(good, parents)) == Candidate().build(plan(good, parents))


def test_reference_of_a_pickled_parent_is_a_reference_too(planned, own_family, tmp_path):
    root = own_family("llama")
    for name in ("base", "one"):
        torch.save(load_file(root / name / SINGLE), root / name / "pytorch_model.bin")
        (root / name / SINGLE).unlink()
    made = planned(stack(TWO), root=root)
    digest, model = made.build()
    assert digest == planned(stack(TWO), "llama").build()[0]
    assert made.write(tmp_path / "out") == digest
    assert_same(model, loaded(tmp_path / "out"))
