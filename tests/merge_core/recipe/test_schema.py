import hashlib
import json
import pickle
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.recipe.schema import Conditional, Recipe, Source
from tests.merge_core.conftest import read_recipe
from tests.merge_core.recipes import RECIPES

WEIGHT = (Conditional("mlp", (0.1, 1)), Conditional(None, 2))
RECIPE = Recipe(
    merge_method="ties",
    base_model="base",
    models=(Source("base"), Source("one", (("density", 0.5), ("weight", WEIGHT)))),
    parameters=(("normalize", True),),
    dtype="bfloat16",
    seed=3,
)
PLAIN = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [
        {"model": "base"},
        {
            "model": "one",
            "parameters": {
                "density": 0.5,
                "weight": [{"filter": "mlp", "value": [0.1, 1]}, {"value": 2}],
            },
        },
    ],
    "parameters": {"normalize": True},
    "dtype": "bfloat16",
    "seed": 3,
}


def test_plain_data_is_that_of_the_yaml_document():
    assert RECIPE.plain() == PLAIN
    assert yaml.safe_load(RECIPE.to_yaml()) == PLAIN


def test_settings_that_were_not_given_are_not_written():
    plain = Recipe("linear", (Source("a", (("weight", 1),)),)).plain()
    assert plain == {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 1}}],
    }


def test_recipe_is_hashable_and_travels_through_pickle():
    assert pickle.loads(pickle.dumps(RECIPE)) == RECIPE
    assert len({RECIPE, pickle.loads(pickle.dumps(RECIPE))}) == 1


def test_golden_digest():
    # By hand: the plain data as JSON, keys sorted, no blanks, whole numbers as floats.
    text = (
        '{"base_model":"base","dtype":"bfloat16","merge_method":"ties","models":[{"model":"base"},'
        '{"model":"one","parameters":{"density":0.5,"weight":[{"filter":"mlp","value":[0.1,1.0]},'
        '{"value":2.0}]}}],"parameters":{"normalize":true},"seed":3.0}'
    )
    assert json.loads(text) == PLAIN
    assert RECIPE.digest() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_read_back_from_its_yaml_is_the_same(name):
    recipe = read_recipe(RECIPES[name])
    again = read_recipe(recipe.to_yaml())
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_digest_of_the_same_recipe_in_other_key_order_is_the_same():
    other = """
seed: 3
dtype: bfloat16
parameters: {normalize: yes}
models:
  - model: base
  - parameters: {weight: [{value: [0.1, 1.0], filter: mlp}, {value: 2}], density: 5e-1}
    model: one
base_model: base
merge_method: ties
"""
    assert read_recipe(other).digest() == RECIPE.digest()


def weighing(value):
    return Recipe("linear", (Source("a", (("weight", value),)),))


def test_digest_does_not_tell_1_from_1_0_but_tells_true_from_1():
    assert weighing(1).digest() == weighing(1.0).digest()
    assert weighing((1, 0)).digest() == weighing((1.0, 0.0)).digest()
    assert weighing(True).digest() != weighing(1).digest()


def test_digest_tells_large_whole_numbers_apart():
    a, b = (Recipe("linear", (Source("a"),), seed=seed) for seed in (2**53, 2**53 + 1))
    assert a.digest() != b.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"merge_method": "dare_ties"},
        {"models": RECIPE.models[::-1]},
        {"base_model": "one"},
        {"parameters": ()},
        {"dtype": "float16"},
        {"out_dtype": "float16"},
        {"seed": 4},
    ],
)
def test_digest_changes_with_every_part_of_a_recipe(change):
    fields = {name: getattr(RECIPE, name) for name in RECIPE.__dataclass_fields__}
    assert Recipe(**{**fields, **change}).digest() != RECIPE.digest()


def test_digest_does_not_depend_on_the_hash_seed():
    code = (
        "from tests.merge_core.conftest import read_recipe;"
        "from tests.merge_core.recipes import TIES; print(read_recipe(TIES).digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {read_recipe(RECIPES["ties"]).digest()}


def test_references_come_once_in_order_the_base_last_if_it_is_not_listed():
    assert RECIPE.references() == ("base", "one")
    unlisted = Recipe("ties", (Source("b"), Source("a")), base_model="c")
    assert unlisted.references() == ("b", "a", "c")


def test_references_can_be_replaced_and_the_rest_stays():
    moved = RECIPE.with_references({"base": "../base", "one": "../one"})
    assert moved.references() == ("../base", "../one")
    assert moved.with_references({"../base": "base", "../one": "one"}) == RECIPE


@pytest.mark.parametrize("name", ["7e10", "1e5", "-1.5E-3", "0:30", "12:30", "1:2:3.5", "12"])
def test_name_that_looks_like_a_number_stays_a_name(name):
    recipe = Recipe("linear", (Source(name, (("weight", (Conditional(name, 1),)),)),))
    assert read_recipe(recipe.to_yaml()) == recipe


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6) | (
    st.from_regex(r"[-+]?\d{1,3}([:.eE]-?\d{1,2}){0,2}", fullmatch=True)  # looks like a number
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)
GRADIENTS = st.lists(NUMBERS, min_size=1, max_size=4).map(tuple)
CASES = st.lists(
    st.builds(Conditional, st.none() | NAMES, NUMBERS | GRADIENTS), min_size=1, max_size=3
).map(tuple)


@st.composite
def recipes(draw):
    models = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    setting = NUMBERS | GRADIENTS | CASES
    sources = tuple(Source(name, (("weight", draw(setting)),)) for name in models)
    return Recipe("linear", sources, seed=draw(st.integers(0, 2**63 - 1)))


@settings(max_examples=50)
@given(recipes())
def test_any_recipe_read_back_from_its_yaml_is_the_same(recipe):
    assert read_recipe(recipe.to_yaml()) == recipe
