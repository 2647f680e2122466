import re

import pytest

from merge_core import api
from merge_core.architecture.layers import Layers
from merge_core.errors import DocumentError, ShapeError
from merge_core.plan.stack_fit import width
from tests.merge_core import stacks
from tests.merge_core.parents.test_ties import other_head


@pytest.fixture
def root(family, own_family):
    return stacks.models(family, own_family)


@pytest.fixture
def unread(monkeypatch):
    """Fail where a weight is read."""

    def read(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("merge_core.merge.execute.Execution.carry_out", read)


def recipe(root, slices):
    file = root / "recipe.yaml"
    file.write_text(stacks.recipe_of(slices))
    return file


@pytest.mark.parametrize("name", stacks.WRONG)
def test_stack_that_cannot_be_is_named_by_line_before_a_tensor_is_read(root, unread, name):
    slices, (line, path, rule) = stacks.WRONG[name]
    with pytest.raises(DocumentError) as caught:
        api.merge(recipe(root, slices), root / "out")
    assert str(caught.value) == f"{root / 'recipe.yaml'}:{line}: {path}: {rule}"
    assert not (root / "out").exists()


def test_all_that_is_wrong_with_a_stack_is_said_at_once(root):
    slices = [("one", 0, 2), ("wide", 2, 5), ("two", 3, 7), ("wide", 0, 1)]
    with pytest.raises(DocumentError) as caught:
        api.planned(recipe(root, slices))
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [
        "slices[1].sources[0].model",
        "slices[1].sources[0].layer_range",
        "slices[2].sources[0].layer_range",
    ]


def test_head_of_another_vocabulary_than_the_embedding_is_named(root, unread):
    slices, rule = stacks.VOCABULARY
    with pytest.raises(ShapeError, match=f"^{re.escape(rule)}$"):
        api.merge(recipe(root, slices), root / "out")
    assert not (root / "out").exists()


def test_slices_of_modules_and_of_other_documents_are_checked_too(root, tmp_path):
    text = (
        "name: inner\nmerge_method: passthrough\nslices:\n"
        "- sources: [{model: two, layer_range: [0, 5]}]\n---\n"
        "merge_method: passthrough\nmodules:\n  default:\n    slices:\n"
        "    - sources: [{model: one, layer_range: [0, 9]}]\n"
        "    - sources: [{model: inner, layer_range: [0, 99]}]\n"
    )
    (root / "recipe.yaml").write_text(text)
    with pytest.raises(DocumentError) as caught:
        api.planned(root / "recipe.yaml")
    assert [(x.line, x.path) for x in caught.value.problems] == [
        (4, "slices[0].sources[0].layer_range"),
        (10, "modules.default.slices[0].sources[0].layer_range"),
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt-neox", "gpt2", "gemma2", "mixtral", "phi3"])
def test_width_is_the_hidden_size_of_any_class(planned, kind):
    made = planned("merge_method: passthrough\nmodels: [{model: one}]", kind).plan
    parent = made.parents["one"]
    (stack,) = parent.architecture.stacks
    shapes = {name: info.shape for name, info in parent.tensors.items()}
    assert width(shapes, stack) == 16


def test_width_that_names_do_not_tell_is_not_known():
    assert width({"model.layers.0.up.weight": (3, 4)}, Layers("model.layers", 1)) is None


def test_embedding_and_head_of_two_tied_models_are_the_first_ones_and_that_is_told(root, tmp_path):
    told = []
    made = api.planned(recipe(root, [("one", 0, 2), ("two", 2, 4)]), tell=told.append)
    assert made.config["tie_word_embeddings"] is True
    assert told == [
        (
            "lm_head.weight: tied to model.embed_tokens.weight of one, the first slice's model, "
            "though the last layers are those of two; end with a slice of one if that matters"
        )
    ]


@pytest.mark.parametrize(
    "slices",
    [
        [("one", 0, 2), ("two", 2, 3), ("one", 3, 4)],
        [("one", 0, 4), ("two", 1, 2), ("one", 4, 4)],
        [("one", 0, 4)],
    ],
)
def test_head_of_the_model_that_ends_the_stack_needs_no_word(root, slices):
    told = []
    api.planned(recipe(root, slices), tell=told.append)
    assert told == []


def test_head_that_one_of_two_models_has_of_its_own_is_kept_without_a_word(root):
    told = []
    other_head(root, "two", untie=True)
    made = api.planned(recipe(root, [("one", 0, 2), ("two", 2, 4)]), tell=told.append)
    assert made.config["tie_word_embeddings"] is False
    assert told == []
