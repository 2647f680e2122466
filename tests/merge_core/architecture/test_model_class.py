import json

import pytest
import torch

from merge_core.architecture import model_class
from merge_core.architecture.class_facts_cache import FORMAT
from merge_core.architecture.model_class import Architecture
from merge_core.errors import CheckpointError
from merge_core.parents.checkpoint import Checkpoint
from tests.merge_core.places import at

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def facts_of(folder):
    return model_class.read(json.loads((folder / "config.json").read_text()), str(folder))


def test_head_of_a_tied_model_is_tied_and_that_of_an_untied_one_is_not(family):
    assert facts_of(family("llama-tied") / "base").tied == {HEAD: EMBEDDING}
    assert facts_of(family("llama") / "base").tied == {}


def test_no_weights_are_made(family, monkeypatch):
    made = []
    initialise = torch.nn.Parameter.__new__

    def new(cls, data=None, *args, **kwargs):
        made.append(data)
        return initialise(cls, data, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", new)
    model_class._made((family() / "base" / "config.json").read_text())
    assert made
    assert all(data.is_meta for data in made)


def test_buffers_that_old_checkpoints_store_are_dropped_and_nothing_else(family):
    facts = facts_of(family("pythia") / "base")
    stored = Checkpoint(at(family("pythia") / "base")).tensors
    today = Checkpoint(at(family("gpt-neox") / "base")).tensors
    dropped = {name for name in stored if facts.reason_to_drop(name, stored)}
    assert dropped == set(stored) - set(today)
    assert len(dropped) == 9


def test_rotary_buffers_of_old_llamas_are_dropped(family):
    facts = facts_of(family("llama") / "base")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert facts.reason_to_drop(name, {}) == "not loaded by the model class"
    assert facts.reason_to_drop("model.layers.0.self_attn.q_proj.weight", {}) is None


def test_checkpoint_lacks_what_the_class_has_and_neither_it_nor_its_twin_stores():
    names = (HEAD, EMBEDDING, "norm.weight", "mask.weight")
    facts = Architecture(dict.fromkeys(names, (4,)), {HEAD: EMBEDDING}, may_lack=("mask",))
    assert facts.lacking([HEAD]) == ["norm.weight"]
    assert facts.lacking([EMBEDDING, "norm.weight"]) == []
    assert facts.lacking(["norm.weight"]) == [HEAD, EMBEDDING]


def test_tied_tensor_is_dropped_only_where_the_one_it_is_tied_to_is_stored():
    facts = Architecture({HEAD: (4, 2), EMBEDDING: (4, 2)}, {HEAD: EMBEDDING})
    assert facts.reason_to_drop(HEAD, {HEAD: 0, EMBEDDING: 0}) == f"tied to {EMBEDDING}"
    assert facts.reason_to_drop(HEAD, {HEAD: 0}) is None
    assert facts.reason_to_drop(EMBEDDING, {HEAD: 0, EMBEDDING: 0}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "nobody"},
        {"hidden_size": "x"},
        {"hidden_act": "nobody"},
        {"model_type": "clip", "architectures": None},
    ],
)
def test_config_without_a_model_class_is_refused(own_family, change):
    folder = own_family() / "base"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match="base: transformers makes no model of its"):
        facts_of(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path / "cache"))
    model_class._read.cache_clear()
    yield tmp_path / "cache"
    model_class._read.cache_clear()


@pytest.mark.parametrize("kind", ["llama-tied", "gpt-neox", "mixtral", "bert", "pythia"])
def test_facts_kept_between_runs_are_the_facts(family, cache, monkeypatch, kind):
    folder = family(kind) / "base"
    fresh = facts_of(folder)
    model_class._read.cache_clear()
    monkeypatch.setattr(model_class, "_made", lambda _: pytest.fail("asked transformers again"))
    kept = facts_of(folder)
    assert kept == fresh
    assert list(kept.shapes) == list(fresh.shapes)  # their order tells what stands ahead


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"format": 0}', f'{{"format": {FORMAT}}}'),
        f'{{"format": {FORMAT}, "shapes": {{"a": 1}}}}',
    ],
)
def test_damaged_file_of_kept_facts_is_made_anew(family, cache, text):
    fresh = facts_of(family() / "base")
    (file,) = (cache / "architectures").iterdir()
    file.write_text(text)
    model_class._read.cache_clear()
    assert facts_of(family() / "base") == fresh
    assert file.read_text() != text


def test_home_that_cannot_be_written_to_costs_nothing(family, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path / "file"))
    model_class._read.cache_clear()
    assert facts_of(family() / "base").tied == {HEAD: EMBEDDING}
