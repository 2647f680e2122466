"""Recipes as strangers publish them are merged as mergekit merges them, and nothing is unsaid."""

import pytest
import yaml

from merge_core.recipe.read import reading_of
from merge_core.recipe.yaml_document import parse_all
from tests.merge_core.distances import difference
from tests.merge_core.recipes_in_the_wild import WILD

MODELS = ("base", "one", "two")
DRAWN = ("parameters at the base", "a module, its slices indented or not")  # random masks


@pytest.mark.parametrize("name", WILD)
def test_what_mergekit_passes_over_is_named_by_file_and_line(name):
    text, idle = WILD[name]
    found = reading_of(parse_all(text, "card.yaml")).notices
    assert sorted(one.path for one in found.found) == sorted(idle)
    lines = text.split("\n")
    for one in found.found:
        assert one.path.rpartition(".")[2] in lines[one.line - 1]
        assert f"card.yaml:{one.line}: {one.path}: changes nothing" in "\n".join(found.lines())


@pytest.mark.parametrize("name", [name for name in WILD if name not in DRAWN])
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")
def test_weights_are_those_that_mergekit_makes_of_the_recipe_as_it_stands(
    name, family, ours, tmp_path
):
    pytest.importorskip("mergekit", reason="the oracle is a development dependency")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from safetensors.torch import load_file

    root = family("llama-tied", "float32")
    data = _placed(yaml.safe_load(WILD[name][0]), {x: str(root / x) for x in MODELS})
    data |= {"dtype": "float32", "out_dtype": "float32"}
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(data), str(tmp_path / "theirs"), options)
    (file,) = (tmp_path / "theirs").glob("*.safetensors")
    theirs = load_file(file)
    left, _ = ours(yaml.safe_dump(data), "llama-tied", "float32")
    assert left.keys() == theirs.keys() - {"lm_head.weight"}
    assert max(difference(left[tensor], theirs[tensor]) for tensor in left) <= 2e-6


def _placed(data, places):
    """Return plain data with the models' names replaced, wherever they stand."""
    if isinstance(data, dict):
        return {key: _placed(value, places) for key, value in data.items()}
    if isinstance(data, list):
        return [_placed(value, places) for value in data]
    return places.get(data, data) if isinstance(data, str) else data
