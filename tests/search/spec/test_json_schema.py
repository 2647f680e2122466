"""The schema for editors takes what study files may say, and refuses what they may not."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from evaluators.registry import EVALUATORS
from merge_core.methods.registry import METHODS
from search.cli import app
from search.spec import json_schema
from search.spec.key_meanings import MEANINGS
from search.spec.ranges import ChoicesKeys, RangeKeys
from search.spec.sections import Engine, Items, Race, Search
from search.spec.study_file import StudyFile
from tests.search.toy import STUDY

ROOT = Path(__file__).resolve().parents[3]
STUDIES = sorted((ROOT / "studies").rglob("study.yaml"))


@pytest.fixture(scope="module")
def schema():
    found = json_schema.study()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def refusals(schema, data):
    return [list(error.absolute_path) for error in schema.iter_errors(data)]


def test_kept_file_is_what_the_command_prints_today():
    printed = CliRunner().invoke(app, ["schema"]).stdout
    assert (ROOT / "studies" / json_schema.FILE).read_text(encoding="utf-8") == printed


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.parent.name)
def test_shipped_study_names_the_kept_file_and_keeps_to_it(schema, file):
    text = file.read_text(encoding="utf-8")
    named = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / named).resolve() == ROOT / "studies" / json_schema.FILE
    assert refusals(schema, yaml.safe_load(text)) == []


RANGE = {"low": 0.0, "high": 1.5}
RIGHT = [
    ("search", {"race": False}),
    ("search", {"race": {"margin": 0.1}, "hours": 2, "order": "free"}),
    ("items", {"search": 10, "report": "rest"}),
    ("engine", {"name": "vllm", "tensor_parallel_size": 2}),
    ("baselines", {"mine": "mine.yaml"}),
    ("aggregate", "apart"),
    ("recipe.merge_method", {"choices": ["ties", "dare_ties"]}),
    ("recipe.models.0.parameters", {"weight": "search", "density": [0.1, 0.9]}),
    ("recipe.models.0.parameters", {"weight": {**RANGE, "per": [[0, 1], [2, 3]]}}),
    (
        "recipe.models.0.parameters",
        {"weight": [{"filter": "mlp", "value": RANGE}, {"value": 1}]},
    ),
    ("recipe.models.0.parameters", {"weight": [RANGE, 0.5, {"choices": [0, 1]}]}),
    ("recipe.models.0.model", {"model": {"path": "a@b", "revision": "v1"}}),
    ("recipe.models.0.take_part", {"choices": [True, False]}),
    ("recipe.moe", {"experts": [{"source_model": "a", "gate_scale": RANGE}]}),
    ("score.0", {"evaluator": "exact_match", "file": "q.jsonl", "prompt": "x", "max_tokens": 4}),
    ("score.0", {"evaluator": "lm_eval", "task": "x", "weight": 2, "chance": "auto"}),
]
WRONG = [
    ("serach", {}),
    ("name", 3),
    ("aggregate", "median"),
    ("items.search", 0),
    ("search.sampler", "bayes"),
    ("search.trials", "many"),
    ("search.race", {"margins": 1}),
    ("engine.name", "tgi"),
    ("engine.batchsize", 4),
    ("storage", 7),
    ("baselines", ["mine.yaml"]),
    ("recipe.merge_method", "tiess"),
    ("recipe.method", "ties"),
    ("recipe.dtype", "float8"),
    ("recipe.models.0.modl", "x"),
    ("recipe.models.0.parameters.wieght", 1),
    ("recipe.models.0.parameters.weight", {"low": 0, "hihg": 1}),
    ("recipe.models.0.parameters.weight", {"choices": [1]}),
    ("score", []),
    ("score.0", {"evaluator": "lm_eval", "tsk": "x"}),
    ("score.0", {"evaluator": "lmeval", "task": "x"}),
    ("score.0", {"evaluator": "exact_match", "prompt": "x"}),
    ("score.0", {"task": "x"}),
]


def with_(path, value):
    data = yaml.safe_load(STUDY) if isinstance(STUDY, str) else copy.deepcopy(STUDY)
    owner, (*above, last) = data, path.split(".")
    for part in above:
        owner = owner[int(part)] if part.isdigit() else owner.setdefault(part, {})
    owner[int(last) if last.isdigit() else last] = value
    return data


@pytest.mark.parametrize(("path", "value"), RIGHT)
def test_what_a_study_file_may_say_is_taken(schema, path, value):
    assert refusals(schema, with_(path, value)) == []


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_what_it_may_not_is_refused_where_it_stands(schema, path, value):
    wanted = [int(part) if part.isdigit() else part for part in path.split(".")]
    found = refusals(schema, with_(path, value))
    assert found
    assert all(place[:1] == wanted[:1] or not place for place in found), found


def test_every_key_says_what_it_means_and_no_other_is_told(schema):
    models = {"": StudyFile, "items": Items, "search": Search, "engine": Engine}
    models |= {"search.race": Race}
    keys = {f"{path}.{key}".lstrip(".") for path, one in models.items() for key in one.declared()}
    keys |= {f"knob.{key}" for one in (RangeKeys, ChoicesKeys) for key in one.declared()}
    told = {key for key in MEANINGS if not key.startswith(("recipe.", "score.", "model"))}
    assert keys - told == set()
    assert told - keys == {"knob"}


def test_methods_evaluators_and_their_keys_are_in_it(schema):
    text = json.dumps(schema.schema)
    for name in (*METHODS.names(), *EVALUATORS.names()):
        assert f'"{name}"' in text
    options = schema.schema["$defs"]["score"]["allOf"]
    cases = {case["if"]["properties"]["evaluator"]["const"]: case["then"] for case in options}
    for name in EVALUATORS.names():
        keys = EVALUATORS.get(name).options.declared()
        assert keys.keys() <= cases[name]["properties"].keys()
        described = cases[name]["properties"].items()
        assert all("description" in value for key, value in described if key in keys)


def test_first_study_keeps_to_the_schema_that_is_written_beside_it(schema, tmp_path):
    models, questions = ROOT / "studies/quickstart/models", tmp_path / "questions.jsonl"
    questions.write_text("\n".join(json.dumps({"q": f"{i}", "a": f"{i}"}) for i in range(60)))
    file = tmp_path / "first" / "study.yaml"
    given = [models / "add", models / "sort", "--base", models / "base", "--file", questions]
    found = CliRunner().invoke(app, ["init", *map(str, given), "--out", str(file)])
    assert found.exit_code == 0, found.output
    text = file.read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={json_schema.FILE}\n")
    assert refusals(schema, yaml.safe_load(text)) == []
    beside = file.with_name(json_schema.FILE)
    assert beside.read_text(encoding="utf-8") == json_schema.text()
