"""`input_scale` of a slice: read, written, refused."""

import pytest
import yaml

from merge_core.errors import DocumentError
from tests.merge_core.conftest import read_recipe

SLICE = "  - sources: [{model: a, layer_range: [0, %d]}]\n"
PLAIN = "merge_method: passthrough\nslices:\n" + SLICE % 2


def read(scale, layers=2, key="input_scale"):
    return read_recipe(f"{PLAIN}{SLICE % layers}    {key}: {scale}\n")


@pytest.mark.parametrize(("text", "scale"), [("0.5", 0.5), ("2", 2.0), ("-1e-1", -0.1)])
def test_scale_is_read_written_and_part_of_the_digest(text, scale):
    recipe = read(text)
    assert [one.input_scale for one in recipe.slices] == [1.0, scale]
    assert recipe.plain()["slices"][1]["input_scale"] == scale
    assert read_recipe(recipe.to_yaml()) == recipe
    assert recipe.digest() != read("1").digest()


def test_a_scale_of_one_is_no_scale_and_leaves_old_digests():
    plain = read_recipe(PLAIN + SLICE % 2)
    assert read("1.0") == plain
    assert read("1").digest() == plain.digest()
    assert "input_scale" not in plain.to_yaml()


@pytest.mark.parametrize("scale", ["0", "0.0", ".inf", ".nan", "true", "[1, 2]", "'x'"])
def test_what_is_no_finite_number_other_than_0_is_refused_by_place(scale):
    rule = r"slices\[1\]\.input_scale: expected a finite number other than 0, got "
    with pytest.raises(DocumentError, match=rf"5.*{rule}"):
        read(scale)


def test_a_slice_without_layers_takes_no_scale():
    with pytest.raises(DocumentError, match=r"slices\[1\]\.input_scale: this slice has no layers"):
        read("0.5", layers=0)


def test_a_misspelt_key_is_refused_with_the_right_one():
    with pytest.raises(DocumentError, match=r"unknown key.*input_scale"):
        read("0.5", key="input_scal")


def test_modules_take_no_scale():
    part = {"slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}], "input_scale": 0.5}]}
    text = yaml.safe_dump({"merge_method": "passthrough", "modules": {"encoder": part}})
    with pytest.raises(
        DocumentError, match=r"modules\.encoder\.slices\[0\]\.input_scale: only in slices: "
    ):
        read_recipe(text)


def test_mergekit_reads_a_recipe_with_a_scale():
    config = pytest.importorskip("mergekit.config", reason="a development dependency")
    found = config.MergeConfiguration.model_validate(yaml.safe_load(read("0.5").to_yaml()))
    assert len(found.slices) == 2
