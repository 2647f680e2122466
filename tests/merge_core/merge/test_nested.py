"""Recipes of several documents that refer to each other by name, built in memory."""

import re

import pytest
import yaml

from merge_core.api import merge, planned
from merge_core.errors import DocumentError, ParameterError
from merge_core.output.live_model import Candidate
from merge_core.recipe import read as recipe_reader
from tests.merge_core.conftest import read_recipe
from tests.merge_core.tokenizer.test_tokenizer_merge import extended

INNER = """
name: inner
merge_method: slerp
base_model: {root}one
models: [{{model: {root}two}}]
parameters: {{t: [{{filter: mlp, value: [0.2, 0.9]}}, {{value: 0.4}}]}}
dtype: {dtype}
"""
OUTER = """
merge_method: {method}
base_model: {inner}
models: [{{model: {root}three}}]
parameters: {parameters}
dtype: {dtype}
seed: 5
"""
HIERARCHY = "\n---\n".join([INNER, OUTER])
SLERP = {"method": "slerp", "parameters": "{t: 0.3}"}
DARE = {"method": "dare_ties", "parameters": "{weight: 0.7, density: 0.5}"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("outer", [SLERP, DARE], ids=["slerp", "dare"])
def test_hierarchy_is_to_the_bit_what_folders_in_between_give(family, tmp_path, outer, dtype):
    given = {"root": f"{family()}/", "dtype": dtype, **outer}
    (tmp_path / "whole.yaml").write_text(HIERARCHY.format(**given, inner="inner"))
    (tmp_path / "first.yaml").write_text(INNER.format(**given).replace("name: inner", ""))
    (tmp_path / "second.yaml").write_text(OUTER.format(**given, inner=tmp_path / "first"))
    merge(tmp_path / "first.yaml", tmp_path / "first")
    digest = merge(tmp_path / "second.yaml", tmp_path / "second")
    assert merge(tmp_path / "whole.yaml", tmp_path / "whole") == digest
    assert Candidate().build(planned(tmp_path / "whole.yaml")) == digest


def test_recipe_in_the_folder_has_all_documents_and_merges_to_the_same(family, tmp_path):
    given = {"root": f"{family()}/", "dtype": "float32", "inner": "inner", **SLERP}
    (tmp_path / "r.yaml").write_text(HIERARCHY.format(**given))
    digest = merge(tmp_path / "r.yaml", tmp_path / "out")
    assert merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again") == digest


def test_intermediate_may_have_another_number_of_layers(planned):
    made = planned("""
name: deep
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 4]}]
  - sources: [{model: two, layer_range: [2, 4]}]
---
name: deeper
merge_method: passthrough
slices:
  - sources: [{model: two, layer_range: [0, 4]}]
  - sources: [{model: one, layer_range: [2, 4]}]
---
merge_method: linear
models: [{model: deep}, {model: deeper}]
parameters: {weight: 1}
""")
    assert made.plan.config["num_hidden_layers"] == 6
    _, model = made.build()
    assert len(model.model.layers) == 6


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_documents_may_stand_in_any_order(order):
    parts = [
        "name: a\nmerge_method: linear\nmodels: [{model: x, parameters: {weight: 1}}]\n",
        "name: b\nmerge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        "merge_method: linear\nmodels: [{model: b, parameters: {weight: 1}}]\n",
    ]
    recipe = read_recipe("---\n".join(parts[i] for i in order))
    assert [document.name for document in recipe.documents] == ["a", "b"]
    assert recipe.references() == ("x",)
    assert read_recipe(recipe.to_yaml()) == recipe
    problems = []
    assert recipe_reader.parse(recipe.plain(), "", problems) == recipe
    assert not problems


def test_documents_may_stand_under_a_key_and_under_each_others():
    a, b, result = (linear(*pair) for pair in (("a", "x"), ("b", "a"), ("", "b")))
    whole = read_recipe("---\n".join([a, b, result]))
    plain = {**yaml.safe_load(result), "documents": [yaml.safe_load(b), yaml.safe_load(a)]}
    assert read_recipe(yaml.safe_dump(plain)) == whole
    inner = {**yaml.safe_load(b), "documents": [yaml.safe_load(a)]}
    plain = {**yaml.safe_load(result), "documents": [inner]}
    assert read_recipe(yaml.safe_dump(plain)) == whole
    assert read_recipe(yaml.safe_dump(whole.plain())) == whole


def test_problem_of_a_document_under_a_key_has_its_path_and_line():
    text = linear("", "a") + "documents:\n- name: a\n  merge_method: linear\n  modles: [x]\n"
    with pytest.raises(DocumentError, match=r"recipe.yaml:6: documents\[0\].modles: unknown key"):
        read_recipe(text)
    alone = {**yaml.safe_load(linear("", "b")), "documents": [yaml.safe_load(linear("a", "x"))]}
    with pytest.raises(DocumentError, match="one document must be the result"):
        read_recipe(yaml.safe_dump(alone))


@pytest.mark.parametrize("reference", ["a+lora", "a@v1", "a@v1+lora", "{model: a, lora: b}"])
@pytest.mark.parametrize("key", ["model", "base_model", "tokenizer_source"])
def test_adapter_or_revision_of_a_document_is_refused(key, reference):
    result = {
        "model": f"models: [{{model: {reference}}}]\n",
        "base_model": f"base_model: {reference}\nmodels: [{{model: a}}]\n",
        "tokenizer_source": f"tokenizer_source: {reference}\nmodels: [{{model: a}}]\n",
    }[key]
    method = "task_arithmetic" if key == "base_model" else "linear"
    text = f"{linear('a', 'x')}---\nmerge_method: {method}\n{result}parameters: {{weight: 1}}\n"
    with pytest.raises(DocumentError, match="'a' is a document, which takes neither adapter nor"):
        read_recipe(text)
    read_recipe(text.replace(reference, "a"))


def test_chat_template_of_a_document_that_is_not_the_result_is_refused():
    text = f"{linear('a', 'x')}chat_template: chatml\n---\n{linear('', 'a')}chat_template: auto\n"
    with pytest.raises(DocumentError, match=r"^recipe.yaml:4: chat_template: only the result has"):
        read_recipe(text)


TOKENS = """
name: inner
merge_method: linear
models: [{{model: {root}base}}, {{model: {root}one}}]
parameters: {{weight: 1}}
tokenizer: {{source: {source}}}
dtype: float32
"""
AROUND = """
merge_method: linear
models: [{{model: {inner}}}, {{model: {root}two}}]
parameters: {{weight: 1}}
tokenizer: {{source: {source}}}
dtype: float32
"""


@pytest.mark.parametrize("source", ["base", "union"])
def test_document_with_the_tokens_of_its_models_is_what_a_folder_in_between_gives(
    own_family, tmp_path, source
):
    given = {"root": f"{own_family()}/", "source": source}
    digest = merge(f"{TOKENS}---{AROUND}".format(**given, inner="inner"), tmp_path / "whole")
    merge(TOKENS.replace("name: inner\n", "").format(**given), tmp_path / "inner")
    again = merge(AROUND.format(**given, inner=tmp_path / "inner"), tmp_path / "two")
    assert again == digest


def test_document_that_makes_a_tokenizer_of_its_own_is_refused(own_family, tmp_path):
    root = own_family()
    extended(root / "one", "<tool>")
    given = {"root": f"{root}/", "source": "union", "inner": "inner"}
    with pytest.raises(ParameterError, match="document 'inner': its tokenizer is that of none of"):
        merge(f"{TOKENS}---{AROUND}".format(**given), tmp_path / "out")
    given["source"] = f"{root}/one"  # whose tokenizer it is then
    merge(f"{TOKENS}---{AROUND}".format(**given), tmp_path / "out")


def linear(name, model):
    head = f"name: {name}\n" if name else ""
    return f"{head}merge_method: linear\nmodels: [{{model: {model}, parameters: {{weight: 1}}}}]\n"


@pytest.mark.parametrize(
    ("documents", "rule"),
    [
        ([("", "x"), ("", "y")], "every document but the result needs a name of its own"),
        ([("a", "x"), ("a", "y"), ("", "a")], "every document but the result needs a name of its"),
        ([("a", "x"), ("", "y")], "one document must be the result, .*; got 'a', '(no name)'"),
        ([("a", "b"), ("b", "a")], "one document must be the result, .*; got none"),
        ([("a", "b"), ("b", "a"), ("", "a")], "documents refer to each other in a circle: a, b"),
    ],
)
def test_documents_without_one_result_are_refused(documents, rule):
    with pytest.raises(DocumentError, match=rule.replace("(no name)", re.escape("(no name)"))):
        read_recipe("---\n".join(linear(*document) for document in documents))


def test_documents_over_hundreds_of_levels_are_refused():
    links = [linear(f"a{i}", f"a{i + 1}") for i in range(900)]
    with pytest.raises(DocumentError, match="refer to each other over more than 64 levels"):
        read_recipe("---\n".join([linear("", "a0"), *links]))


def test_problems_of_all_documents_are_told_at_once_with_their_lines(tmp_path):
    (tmp_path / "r.yaml").write_text("name: a\nmerge_method: x\n---\nmerge_method: y\nmodles: []\n")
    with pytest.raises(
        DocumentError, match=r"r.yaml:2: merge_method: no merge method 'x'"
    ) as caught:
        recipe_reader.read(tmp_path / "r.yaml")
    text = str(caught.value)
    assert "r.yaml:4: merge_method: no merge method 'y'" in text
    assert "r.yaml:5: modles: unknown key, did you mean 'modules'?" in text or "'models'" in text


def test_filter_that_is_in_no_name_is_told_with_its_document_and_its_line(family, tmp_path):
    given = {"root": f"{family()}/", "dtype": "float32", "inner": "inner", **SLERP}
    text = HIERARCHY.format(**given).replace("filter: mlp", "filter: self_atn")
    (tmp_path / "r.yaml").write_text(text.replace("t: 0.3", "t: {filter: mlp.x, value: 1}"))
    told = []
    with pytest.raises(ParameterError, match="no value of 't' holds for it"):
        planned(tmp_path / "r.yaml", tell=told.append)
    (tmp_path / "r.yaml").write_text(text)
    planned(tmp_path / "r.yaml", tell=told.append)
    why = "'self_atn' changes nothing: no tensor of the models has it in its name"
    assert told == [f"{tmp_path}/r.yaml:6: parameters.t[0].filter: {why}"]
    with pytest.raises(DocumentError, match=re.escape(why)):
        planned(tmp_path / "r.yaml", strict=True)


def test_filter_of_one_model_is_looked_for_in_that_models_names(family):
    text = """
merge_method: linear
models:
  - model: one
    parameters: {weight: [{filter: layers.7., value: 1}, {filter: layers.1., value: 2}, {value: 3}]}
  - {model: two, parameters: {weight: 1}}
"""
    told = []
    planned(text, family(), tell=told.append)
    assert [line.split(": ")[1] for line in told] == ["models[0].parameters.weight[0].filter"]
