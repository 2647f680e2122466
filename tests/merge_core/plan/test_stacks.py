"""Plans of many stacks over the same parents: what is found by trying is found once."""

from merge_core.architecture import class_facts_cache, model_class
from merge_core.merge.nested import plan
from merge_core.parents.open import open_parents
from tests.merge_core.conftest import read_recipe


def stack(*layers):
    """A passthrough recipe of single layers, each ``(model, number)``."""
    slices = "".join(
        f"\n  - sources: [{{model: {model}, layer_range: [{i}, {i + 1}]}}]" for model, i in layers
    )
    return read_recipe(f"merge_method: passthrough\nbase_model: base\nslices:{slices}")


def made_models(monkeypatch):
    """Count the models that transformers is asked for."""
    count, shell = [], model_class.shell
    monkeypatch.setattr(model_class, "shell", lambda *x, **y: count.append(1) or shell(*x, **y))
    return count


def test_a_stack_of_a_length_that_was_planned_asks_for_no_model(family, monkeypatch):
    parents = open_parents(["base", "one"], [family()])
    plan(stack(("base", 0), ("base", 1), ("base", 0)), parents)
    count = made_models(monkeypatch)
    made = plan(stack(("base", 1), ("one", 0), ("one", 1)), parents)
    assert made.config["num_hidden_layers"] == 3
    assert not count


def test_a_stack_of_a_new_length_asks_for_its_own_model_alone(family, monkeypatch):
    parents = open_parents(["base", "one"], [family("llama")])
    plan(stack(("base", 0), ("base", 1), ("base", 0)), parents)
    count = made_models(monkeypatch)
    plan(stack(*[("base", 1)] * 7), parents)
    assert len(count) <= 2, "its facts, and the kinds of its layers"


def test_stacks_leave_no_files_behind(family):
    parents = open_parents(["base", "one"], [family("qwen3")])
    plan(stack(*[("base", 0)] * 5), parents)
    folder = class_facts_cache.folder()
    before = {*folder.iterdir()}
    for depth in (6, 7, 8):
        plan(stack(*[("base", 0), ("one", 1)] * depth), parents)
    assert {*folder.iterdir()} == before
