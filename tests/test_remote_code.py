"""Code that a model folder brings (``auto_map``) is neither run nor asked about."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import mergetune
from merge_core.architecture import model_class
from merge_core.architecture.model_class import config_of, shell
from merge_core.errors import CheckpointError, MergeError
from merge_core.tokenizer import parent_tokenizer
from search.trial.builder import Builder
from tests.search.toy import spec_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("merge_core", "evaluators", "search", "mergetune")
OPENS = {"from_pretrained", "from_config", "get_config_dict"}
NO_CODE = {"GenerationConfig"}  # transformers never runs code of a folder for these
EVIL = """
from pathlib import Path
Path(__file__).with_name("RAN").touch()
from transformers import PretrainedConfig, PreTrainedTokenizerFast
class C(PretrainedConfig):
    model_type = "evil"
class T(PreTrainedTokenizerFast):
    pass
"""
STUDY = """
name: s
recipe:
  merge_method: linear
  models: [{{model: {models}/base, parameters: {{weight: {{low: 0.0, high: 1.0}}}}}},
           {{model: {models}/one, parameters: {{weight: 1}}}}]
score:
  - {{evaluator: cost, metric: parameters}}
items: {{search: 2, select: 2, report: 2}}
search: {{trials: 1}}
"""


def calls_that_may_run_code(source: str) -> list[int]:
    """Return the lines that open something with transformers and do not refuse its code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of = node.func.value
        if node.func.attr not in OPENS or (isinstance(of, ast.Name) and of.id in NO_CODE):
            continue
        given = {key.arg: key.value for key in node.keywords}
        answer = given.get("trust_remote_code")
        if not (isinstance(answer, ast.Constant) and answer.value is False):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("file", sorted(x for p in PACKAGES for x in (ROOT / p).rglob("*.py")))
def test_every_call_that_could_run_a_folders_code_refuses_to(file):
    assert calls_that_may_run_code(file.read_text()) == []


@pytest.mark.parametrize(
    "call",
    ["AutoTokenizer.from_pretrained(x)", "AutoModel.from_config(c, trust_remote_code=None)",
     "f(x).from_pretrained(y, trust_remote_code=True)"],
)  # fmt: skip
def test_call_that_does_not_refuse_is_found(call):
    assert calls_that_may_run_code(call) == [1]


@pytest.fixture
def evil(own_family, monkeypatch):
    """A family whose tokenizers are code, and that fails the test if somebody is asked."""
    root = own_family()
    for folder in root.iterdir():
        file = folder / "tokenizer_config.json"
        changed = json.loads(file.read_text()) | {
            "auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]},
            "tokenizer_class": "T",
        }
        file.write_text(json.dumps(changed))
        (folder / "evil.py").write_text(EVIL)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    yield root
    assert not list(root.parent.rglob("RAN"))


def change_config(root, **changes):
    for file in root.glob("*/config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def opened_by_a_merge(root):
    return parent_tokenizer.load(root / "base")


def opened_by_a_study(root):
    return Builder(spec_of(STUDY.format(models=root), root)).tokenizer


def opened_by_the_face(root):
    models = [{"model": str(root / n), "parameters": {"weight": 1}} for n in ("base", "one")]
    return mergetune.build({"merge_method": "linear", "models": models})


OPENERS = [opened_by_a_merge, opened_by_a_study, opened_by_the_face]


@pytest.mark.parametrize("opened", OPENERS)
def test_tokenizer_that_is_code_is_refused_in_one_line_with_the_way_out(evil, opened):
    with pytest.raises(CheckpointError, match=r"never run; save it as tokenizer\.json") as refused:
        opened(evil)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("opened", OPENERS)
def test_model_type_that_is_code_is_refused_whoever_opens_it(evil, opened):
    change_config(evil, model_type="evil", auto_map={"AutoConfig": "evil.C"})
    with pytest.raises(MergeError):
        opened(evil)


def test_model_class_that_is_code_is_refused_with_the_way_out():
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}
    with pytest.raises(CheckpointError, match=r"^x: .* never run: .*saved with a class of transf"):
        model_class.read(config, "x")


def test_own_class_beside_auto_map_is_that_of_transformers(evil):
    change_config(evil, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    for file in evil.glob("*/tokenizer_config.json"):
        plain = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        del plain["auto_map"]
        file.write_text(json.dumps(plain))
    assert opened_by_the_face(evil).model.__class__.__name__ == "LlamaForCausalLM"


def test_code_of_a_part_of_a_model_is_not_asked_about(monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "no")
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        # a config that transformers knows, of which it has no model
        "vision_config": {"model_type": "align_text_model", "auto_map": {"AutoModel": "x--y.M"}},
    }
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        shell(config_of(config))
    assert not asked
