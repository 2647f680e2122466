import json

import pytest
import yaml

from merge_core import api
from merge_core.output.live_model import Candidate
from merge_core.parents.weight_files import tensor_infos
from search.run.check import check
from search.run.live_size import own_bytes
from tests.merge_core.conftest import read_recipe

SLICE = "- sources: [{{model: {model}, layer_range: [{first}, {last}]{more}}}]\n"
LAYER = 2 * 16 * 16 + 2 * 8 * 16 + 3 * 16 * 24 + 2 * 16


def stack(*parts, head="merge_method: passthrough\n"):
    lines = [
        SLICE.format(model=model, first=first, last=last, more="".join(more))
        for model, first, last, *more in parts
    ]
    return f"{head}slices:\n{''.join(lines)}"


WOVEN = [("one", 0, 3), ("two", 1, 4), ("one", 2, 4)]
SCALE = ", parameters: {scale: 0.5}"
MERGED = (
    "merge_method: linear\nslices:\n"
    "- sources: [{model: one, layer_range: [0, 2], parameters: {weight: 1}}]\n"
    "- sources:\n  - {model: one, layer_range: [1, 3], parameters: {weight: 0.5}}\n"
    "  - {model: two, layer_range: [1, 3], parameters: {weight: 0.5}}\n"
    "- sources: [{model: one, layer_range: [2, 4], parameters: {weight: 1}}]\n"
)
RECIPES = {
    "stack": (stack(*WOVEN), 0),
    "repeated in another type": (stack(*WOVEN) + "dtype: bfloat16\n", None),
    "in the type that is stored": (stack(*WOVEN) + "dtype: float32\n", 0),
    "scaled slice": (stack(("one", 0, 3), ("two", 1, 3, SCALE), ("one", 3, 4)), 4 * 2 * LAYER),
    "merged slice": (MERGED, 4 * 2 * LAYER),
    "one model": (
        "merge_method: linear\nmodels: [{model: one, parameters: {weight: 1}}]",
        0,
    ),
    "a mean": (
        (
            "merge_method: linear\nmodels: [{model: one, parameters: {weight: 1}}, "
            "{model: two, parameters: {weight: 1}}]"
        ),
        None,
    ),
}


MIXTURES = {
    "two experts": "base_model: one\nmoe: {experts: [{source_model: one}, {source_model: two}], "
    "gate_mode: random}\nmerge_method: passthrough\nmodels: [{model: one}]",
    "three, the rest merged, in another type": "merge_method: linear\nmodels: [{model: one, "
    "parameters: {weight: 1}}, {model: two, parameters: {weight: 1}}]\ndtype: bfloat16\n"
    "moe: {experts: [{source_model: one}, {source_model: two}, {source_model: one}], "
    "gate_mode: random}",
}


@pytest.mark.parametrize("name", MIXTURES)
def test_bytes_of_a_mixture_are_those_that_a_live_one_has(family, name):
    root, text = family("llama"), MIXTURES[name]
    plan = api.planned(yaml.safe_load(text), root)
    candidate = Candidate()
    candidate.build(plan)
    infos = {model: tensor_infos(root / model) for model in ("one", "two")}
    assert own_bytes(read_recipe(text), infos) == held(candidate, plan.opened)


def held(candidate, parents):
    """Bytes of a live model that are no parent's memory, each once."""
    theirs = {
        parent.tensor(name).untyped_storage().data_ptr()
        for parent in parents.values()
        for name in parent.tensors
    }
    own = {}
    for weight in candidate.model.parameters():
        if weight.untyped_storage().data_ptr() not in theirs:
            own[weight.data_ptr()] = weight.numel() * weight.element_size()
    return sum(own.values())


@pytest.mark.parametrize("name", RECIPES)
def test_bytes_by_headers_are_those_that_a_live_candidate_has(family, name):
    text, expected = RECIPES[name]
    root = family("llama")
    plan = api.planned(yaml.safe_load(text), root)
    candidate = Candidate()
    candidate.build(plan)
    infos = {model: tensor_infos(root / model) for model in ("one", "two")}
    found = own_bytes(read_recipe(text), infos)
    assert found == held(candidate, plan.opened)
    if expected is not None:
        assert found == expected


STUDY = """
recipe:
{recipe}
score: [{{evaluator: exact_match, file: q.jsonl, prompt: "{{{{ q }}}}", max_tokens: 2}}]
items: {{search: 4, select: 2, report: 2}}
search: {{trials: 2, sampler: random}}
engine: {{device: cpu}}
"""


def memory(folder, text):
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    (folder / "study.yaml").write_text(STUDY.format(recipe=lines))
    return check(folder / "study.yaml").facts["memory"]


@pytest.fixture
def root(own_family):
    root = own_family("llama")
    rows = [json.dumps({"q": f"{i}+1=", "answer": "1"}) for i in range(8)]
    (root / "q.jsonl").write_text("\n".join(rows))
    return root


def test_check_of_a_study_of_stacks_counts_what_is_not_shared(root):
    whole = (root / "one" / "model.safetensors").stat().st_size
    scaled = stack(("one", 0, 4), ("two", 1, 4, ", parameters: {scale: {low: 0.5, high: 0.9}}"))
    found = memory(root, scaled + "dtype: float32\n")
    assert found["parents"] == 2 * whole
    mean = 4 * (4 * LAYER + 2 * 55 * 16 + 16)  # the uniform baseline
    assert found["model"] == max(mean, 4 * 3 * LAYER)


def test_check_of_a_study_of_mixtures_counts_the_experts(root):
    text = "dtype: float32\n" + MIXTURES["two experts"] + "\n"
    experts, routers = 2 * 4 * 3 * 16 * 24, 4 * 2 * 16
    mean = 4 * LAYER + 2 * 55 * 16 + 16  # the uniform baseline
    assert memory(root, text)["model"] == 4 * max(mean, experts + routers)


def test_paths_share_their_layers_with_the_parents_and_need_what_another_type_needs(root):
    path = "slices: {path: {parents: [one, two], max_layers: 6}}\n"
    mean = 4 * (4 * LAYER + 2 * 55 * 16 + 16)
    assert memory(root, f"{path}dtype: float32\n")["model"] == mean  # of the uniform merge
    assert memory(root, f"{path}dtype: bfloat16\n")["model"] == mean // 2 + 2 * 2 * LAYER


def test_model_that_is_not_here_leaves_the_size_of_the_one_that_is(root):
    text = stack(("one", 0, 4), ("elsewhere/x", 1, 4)) + "dtype: bfloat16\n"
    assert memory(root, text)["model"] == 2 * (4 * LAYER + 2 * 55 * 16 + 16)
