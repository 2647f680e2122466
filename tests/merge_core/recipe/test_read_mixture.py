import pytest
import yaml

from merge_core.errors import DocumentError
from merge_core.recipe.mixture_schema import Expert, Mixture
from merge_core.recipe.read import reading_of
from merge_core.recipe.schema import Source
from merge_core.recipe.yaml_document import parse_all

EXPERTS = """
experts:
  - {source_model: one, positive_prompts: [add], negative_prompts: [sort]}
  - source_model: {model: two, lora: tuned}
    positive_prompts: ["12 + 3", sort]
    noise_scale: 0.01
    residual_scale: 0.5
"""


def reading(text):
    return reading_of(parse_all(text, "moe.yaml"))


def read(text):
    return reading(text).recipe


def indented(text):
    return "".join(f"  {line}\n" for line in text.splitlines())


def said(text):
    with pytest.raises(DocumentError) as caught:
        read(text)
    return str(caught.value)


def test_configuration_of_mergekit_moe_is_the_recipe_that_moe_alone_is_short_for():
    keys = "base_model: base\ngate_mode: hidden_last\ndtype: bfloat16" + EXPERTS
    shorthand = "moe:\n" + indented(keys)
    start = "merge_method: passthrough\nmodels: [{model: base}]\ndtype: bfloat16\n"
    long = f"{start}moe:\n{indented(EXPERTS)}"
    assert read(keys) == read(shorthand) == read(long)
    assert read(keys).models == (Source("base"),)
    assert read(keys).moe == Mixture(
        (
            Expert("one", ("add",), ("sort",)),
            Expert("two+tuned", ("12 + 3", "sort"), (), 0.01, 0.5),
        )
    )
    assert read(keys).dtype == "bfloat16"


def test_every_key_of_mergekit_moe_is_read():
    found = read(
        "base_model: base\ngate_mode: random\ndtype: float16\nexperts_per_token: 1\n"
        "architecture: qwen\nshared_experts: [{source_model: three, residual_scale: 0.1}]" + EXPERTS
    )
    assert found.moe is not None
    assert found.moe.shared_experts == (Expert("three", residual_scale=0.1),)
    assert (found.moe.gate_mode, found.moe.experts_per_token) == ("random", 1)
    assert (found.moe.architecture, found.dtype) == ("qwen", "float16")


FULL = f"""
merge_method: linear
models:
  - {{model: base, parameters: {{weight: 0.5}}}}
  - {{model: one, parameters: {{weight: 0.5}}}}
moe:
{indented(EXPERTS)}
  shared_experts: [{{source_model: base}}]
  gate_mode: trained
  gates: routers.safetensors
  temperature: 0.5
  dense_layers: [3, 0]
seed: 7
"""


def test_mixture_survives_plain_data_and_yaml():
    recipe = read(FULL)
    assert recipe.moe is not None
    assert recipe.moe.dense_layers == (0, 3)
    assert read(recipe.to_yaml()) == read(yaml.safe_dump(recipe.plain())) == recipe
    assert recipe.plain()["moe"]["gates"] == "routers.safetensors"


def test_digest_covers_the_mixture_and_defaults_do_not_change_it():
    plain = read("base_model: base" + EXPERTS)
    said = read(
        "base_model: base\ngate_mode: hidden\nexperts_per_token: 2\ntemperature: 1" + EXPERTS
    )
    other = read("base_model: base\ntemperature: 2" + EXPERTS)
    assert plain.digest() == said.digest() != other.digest()


def test_references_are_those_of_the_experts_and_of_the_routers_file_too():
    recipe = read(FULL)
    assert recipe.references() == ("base", "one", "two+tuned", "routers.safetensors")
    assert recipe.names() == ("base", "one")


def test_references_are_replaced_everywhere():
    places = {"base": "B", "one": "O", "two+tuned": "T", "routers.safetensors": "R", "add": "no"}
    renamed = read(FULL).with_references(places)
    assert renamed.references() == ("B", "O", "T", "R")
    assert renamed.moe is not None
    assert renamed.moe.experts[0].positive_prompts == ("add",)


def test_expert_may_be_another_document():
    recipe = read(
        "name: soup\nmerge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n"
        "---\nbase_model: base\ngate_mode: random\n"
        "experts: [{source_model: soup}, {source_model: b}]\n"
    )
    assert [document.name for document in recipe.documents] == ["soup"]
    assert recipe.references() == ("base", "b", "a")


FEWER = "expected a whole number from 1 to 2, the number of experts"


def test_all_that_is_wrong_comes_at_once():
    text = """
base_model: base
gate_mod: hidden
experts_per_token: 4
temperature: 0
dense_layers: [1, 1, -1]
gates: x
shared_experts: [{source_model: base, noise_scale: -1}]
experts:
  - {source_model: x, postive_prompts: [a], residual_scale: no}
  - {positive_prompts: [1]}
"""
    assert said(text).splitlines() == [
        "moe.yaml:3: gate_mod: unknown key, did you mean 'gate_mode'?",
        f"moe.yaml:4: experts_per_token: {FEWER}, got 4",
        "moe.yaml:5: temperature: expected a number above 0, got 0",
        "moe.yaml:6: dense_layers[1]: 1 is listed twice",
        "moe.yaml:6: dense_layers[2]: expected the number of a layer, from 0, got -1",
        "moe.yaml:8: shared_experts[0].noise_scale: expected a number of at least 0, got -1",
        "moe.yaml:10: experts[0].postive_prompts: unknown key, did you mean 'positive_prompts'?",
        "moe.yaml:10: experts[0].residual_scale: expected a number, got false",
        "moe.yaml:11: experts[1].source_model: required",
        "moe.yaml:11: experts[1].positive_prompts[0]: expected a prompt (text in quotes), got 1",
    ]


PASSED = "merge_method: passthrough\nmodels: [{model: a}]\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("base_model: b\nexperts: []", "experts: expected a list of experts, got an empty list"),
        ("base_model: b\nexperts: [{source_model: a, positive_prompts: [x]}]", "required where"),
        (
            "gate_mode: random\nexperts: [{source_model: a}, {source_model: b}]",
            "base_model: required, or merge_method and models",
        ),
        (
            "moe: {gate_mode: random, experts: [{source_model: a}, {source_model: b}]}",
            "moe.base_model: required, or merge_method and models",
        ),
        (
            "base_model: b\nexperts: [{source_model: a}, {source_model: b}]",
            "experts[0].positive_prompts: required by gate_mode: hidden",
        ),
        ("base_model: b\ngate_mode: hiden" + EXPERTS, "did you mean 'hidden'?"),
        ("base_model: b\ngates: x.safetensors" + EXPERTS, "is read with gate_mode: trained only"),
        (
            f"dtype: float16\nmoe:\n  base_model: b\n  dtype: bfloat16\n{indented(EXPERTS)}",
            "moe.dtype: the recipe has dtype too; remove one of them",
        ),
        (
            f"{PASSED}moe:\n  base_model: b\n{indented(EXPERTS)}",
            "moe.base_model: the rest of the recipe says what all but the experts is",
        ),
        ("moe: 3\nbase_model: b", "moe: expected {experts, ...}, got 3"),
    ],
)
def test_what_a_mixture_cannot_be_is_said(text, rule):
    assert rule in said(text)


@pytest.mark.parametrize(
    ("experts", "rule"),
    [
        (
            "[{source_model: a, positive_prompts: [x]}, {source_model: b, positive_prompts: [x]}]",
            "all have the same prompts",
        ),
        (
            "[{source_model: a, positive_prompts: [x]}, {source_model: a, positive_prompts: [y]}]",
            "all are 'a': it computes what one does",
        ),
    ],
)
def test_experts_between_which_nothing_differs_are_noticed(experts, rule):
    (line,) = reading(f"base_model: b\nexperts: {experts}").notices.lines()
    assert rule in line


def test_noise_makes_copies_of_one_model_differ():
    noisy = "{source_model: a, noise_scale: 1}"
    text = f"base_model: b\ngate_mode: random\nexperts: [{noisy}, {noisy}]"
    assert not reading(text).notices.lines()
