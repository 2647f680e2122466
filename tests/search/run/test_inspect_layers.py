import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_core.errors import CheckpointError, MergeError
from search.run.inspect_layers import inspect_layers
from search.spec import study_file
from search.trial.tasks import open_tasks
from tests.merge_core.conftest import change

STUDY = """
recipe:
  merge_method: task_arithmetic
  base_model: {root}/base
  models:
    - {{model: {root}/one, parameters: {{weight: {{low: 0, high: 1}}}}}}
    - {{model: {root}/two, parameters: {{weight: {{low: 0, high: 1}}}}}}
  dtype: float32
score:
{scores}
items: {{search: 8, select: 2, report: 2}}
search: {{trials: 4}}
engine: {{device: cpu, batch_size: 4, threads: 1}}
"""
QUESTIONS = "  - {evaluator: exact_match, file: questions.jsonl, prompt: '{{{{ question }}}}='}"
COST = "  - {evaluator: cost, metric: parameters, repeats: 12}"
ROWS = [{"question": f"{i}+{i}{'+1' * (i % 3)}", "answer": str(2 * i)} for i in range(12)]
TEXTS = "one text.\n\nanother one, which is longer\n"


@pytest.fixture
def study(family, tmp_path):
    def get(*scores, kind="llama-tied"):
        lines = [json.dumps(row) for row in ROWS]
        (tmp_path / "questions.jsonl").write_text("\n".join(lines))
        text = STUDY.format(root=family(kind), scores="\n".join(scores).replace("{{{{", "{{"))
        (tmp_path / "study.yaml").write_text(text.replace("}}}}", "}}"))
        return tmp_path / "study.yaml"

    return get


@pytest.fixture
def texts(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text(TEXTS)
    return file


def silence(folder, layer):
    """Let a layer of a Llama add nothing to the stream."""
    kinds = {"self_attn__o_proj": (16, 16), "mlp__down_proj": (16, 24)}
    names = {f"model__layers__{layer}__{kind}__weight": s for kind, s in kinds.items()}
    change(folder, **{name: torch.zeros(shape) for name, shape in names.items()})


def unheard(line):
    raise AssertionError(line)


def test_a_type_with_torchs_prefix_is_the_type(study):
    file = study(QUESTIONS)
    plain = inspect_layers(str(file), None, unheard)
    file.write_text(file.read_text().replace("dtype: float32", "dtype: torch.float32"))
    assert inspect_layers(str(file), None, unheard).models == plain.models


def test_layer_that_adds_nothing_is_the_one_to_cut(own_family, texts):
    root = own_family()
    silence(root / "one", 2)
    found = inspect_layers(str(root / "one"), texts, unheard)
    ((name, one),) = found.models.items()
    assert name == str(root / "one")
    assert (one.texts, one.layers) == (2, 4)
    assert one.best(1) == 2
    assert one.angular[0][2] == one.influence[2] == 0.0
    assert min(one.angular[0][:2]) > 0.01


def test_study_is_measured_on_the_prompts_of_its_search_items_for_every_model(study, family):
    lines = []
    file = study(QUESTIONS, COST)
    found = inspect_layers(str(file), None, lines.append)
    assert [*found.models] == [f"{family()}/{name}" for name in ("one", "two", "base")]
    assert lines == [
        "cost_parameters has no prompts: a cost is a number of the model, whatever it reads"
    ]
    for name, one in found.models.items():
        tokenizer = AutoTokenizer.from_pretrained(name)
        places = open_tasks(study_file.read(file), tokenizer).pools["search"].of("questions")
        assert (one.texts, one.layers) == (len(places), 4)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
        angles = [distance(model, tokenizer, f"{ROWS[i]['question']}=") for i in places]
        assert one.angular[1][0] == pytest.approx(np.mean(angles), abs=1e-6)


def distance(model, tokenizer, text):
    """That of layers 0 and 1, by transformers' own hidden states."""
    with torch.no_grad():
        ids = tokenizer(text, return_tensors="pt").input_ids
        states = model(ids, output_hidden_states=True).hidden_states
    a, b = states[0][0, -1].double(), states[2][0, -1].double()
    return float(torch.arccos(a @ b / a.norm() / b.norm())) / np.pi


def test_texts_take_the_place_of_search_items_in_a_study_and_are_needed_elsewhere(
    study, texts, family, tmp_path
):
    file = study(COST)
    found = inspect_layers(str(file.parent), texts, unheard)
    assert {one.texts for one in found.models.values()} == {2}
    alone = inspect_layers(f"{family()}/two", texts, unheard)
    assert alone.models[f"{family()}/two"] == found.models[f"{family()}/two"]
    with pytest.raises(MergeError, match=r"two: layers are measured on texts: expected --texts"):
        inspect_layers(f"{family()}/two", None, unheard)


def test_study_without_a_prompt_is_refused(study):
    with pytest.raises(MergeError, match=r"cost_parameters has no prompts: .*; give texts with"):
        inspect_layers(str(study(COST)), None, unheard)


def test_recipe_is_measured_model_by_model(family, texts, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    names = [f"{family()}/{name}" for name in ("one", "three")]
    recipe.write_text(
        "merge_method: linear\nmodels:\n"
        + "".join(f"  - {{model: {x}, parameters: {{weight: 1}}}}\n" for x in names)
    )
    assert [*inspect_layers(str(recipe), texts, unheard).models] == names


def test_recipe_of_documents_and_experts_is_measured_by_all_its_models(family, texts, tmp_path):
    recipe, root = tmp_path / "recipe.yaml", family("llama")
    recipe.write_text(
        f"name: inner\nmerge_method: passthrough\nmodels: [{{model: {root}/one}}]\n---\n"
        "merge_method: passthrough\nmodels: [{model: inner}]\n"
        f"moe: {{experts: [{{source_model: {root}/two}}, {{source_model: inner}}], "
        "gates: gates.safetensors, gate_mode: trained}\n"
    )
    found = inspect_layers(str(recipe), texts, unheard)
    assert [*found.models] == [f"{root}/one", f"{root}/two"]


@pytest.mark.parametrize("kind", ["gpt-neox", "gpt2", "gemma3", "mixtral", "phi3"])
def test_layers_of_any_class_are_found(family, texts, kind):
    folder = str(family(kind) / "one")
    (one,) = inspect_layers(folder, texts, unheard).models.values()
    assert one.layers == (3 if kind == "gpt-neox" else 4)
    assert all(0 < x < 1 for row in one.angular for x in row)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_model_that_is_not_causal_is_refused(family, texts, kind):
    with pytest.raises(CheckpointError, match="a study scores causal language models"):
        inspect_layers(str(family(kind) / "one"), texts, unheard)


def test_command_prints_tables_and_a_sentence_and_json_and_a_page(mergetune, own_family, texts):
    root = own_family()
    silence(root / "one", 1)
    page = root / "page.html"
    code, out, err = mergetune(
        "inspect", root / "one", "--layers", "--texts", texts, "--html", page
    )
    assert (code, err) == (0, "")
    assert "one: of all blocks of 1, dropping layer 1 changes the stream least" in out
    assert "blocks to cut" in out
    rows = ElementTree.parse(page).findall(".//tbody/tr")
    assert len(rows) == 4 + 1
    assert [len(row.findall("td")) for row in rows] == [4] * 5
    framed = [cell.get("title") for cell in rows[0] if "outline" in (cell.get("style") or "")]
    assert framed == ["layer 1: 0"]
    code, out, _ = mergetune("inspect", root / "one", "--layers", "--texts", texts, "--json")
    data = json.loads(out)["models"][str(root / "one")]
    assert (data["layers"], data["texts"]) == (4, 2)
    assert data["blocks"][0] == {"size": 1, "first": 1, "last": 1, "distance": 0.0}
    assert [len(row) for row in data["angular"]] == [4, 3, 2, 1]


def test_command_refuses_what_it_cannot_measure_in_one_line(mergetune, study):
    code, out, err = mergetune("inspect", study(COST), "--layers")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "give texts with --texts" in err
