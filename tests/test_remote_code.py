"""Code that a model folder brings (``auto_map``) is run with consent only, and not asked about."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import transformers

import mergetune
from merge_core.api import planned
from merge_core.architecture import model_class
from merge_core.architecture.model_class import config_of, shell
from merge_core.architecture.remote_code import CODE_FROM
from merge_core.errors import CheckpointError, MergeError
from merge_core.output.live_model import Candidate
from merge_core.tokenizer import parent_tokenizer
from search.trial.builder import Builder
from tests.search.toy import spec_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("merge_core", "evaluators", "search", "mergetune")
OPENS = {"from_pretrained", "from_config", "get_config_dict"}
NO_CODE = {"GenerationConfig"}  # transformers never runs code of a folder for these
ANSWERS = ("False", "consent.code()")
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
        if answer is None or ast.unparse(answer) not in ANSWERS:
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
    with pytest.raises(
        CheckpointError, match=r"not run; if you trust it: --trust-.*\.json"
    ) as refused:
        opened(evil)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("opened", OPENERS)
def test_model_type_that_is_code_is_refused_whoever_opens_it(evil, opened):
    change_config(evil, model_type="evil", auto_map={"AutoConfig": "evil.C"})
    with pytest.raises(MergeError):
        opened(evil)


def test_model_class_that_is_code_is_refused_with_the_way_out():
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}
    with pytest.raises(CheckpointError, match=r"^x: .* not run; .*saved with a class of transf"):
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


MINE = {
    "configuration_mine.py": """
from pathlib import Path
from transformers import LlamaConfig
class MineConfig(LlamaConfig):
    model_type = "mine"
""",
    "modeling_mine.py": """
from transformers import LlamaForCausalLM
from .configuration_mine import MineConfig
class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
    own = True
""",
}
MAP = {
    "AutoConfig": "configuration_mine.MineConfig",
    "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
}


@pytest.fixture
def mine(own_family, monkeypatch):
    """A family whose class is code of its folders: Llama under another name."""
    root = own_family()
    change_config(root, model_type="mine", architectures=["MineForCausalLM"], auto_map=MAP)
    for folder in root.iterdir():
        for name, text in MINE.items():
            (folder / name).write_text(text)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    return root


LINEAR = """
merge_method: linear
models: [{model: base, parameters: {weight: 1}}, {model: one, parameters: {weight: 1}}]
"""
STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 3]}]
  - sources: [{model: one, layer_range: [1, 4]}]
"""


@pytest.mark.parametrize(("recipe", "layers"), [(LINEAR, 4), (STACKED, 6)])
def test_with_consent_a_class_of_the_folder_is_merged_live_and_to_a_folder(
    mine, tmp_path, recipe, layers
):
    with pytest.raises(CheckpointError, match=r"not run; if you trust it: --trust-remote-code"):
        mergetune.merge(recipe, tmp_path / "out", folder=mine)
    with mergetune.consent(trust_remote_code=True):
        digest = mergetune.merge(recipe, tmp_path / "out", folder=mine)
        candidate = Candidate()
        assert candidate.build(planned(recipe, mine)) == digest
        assert candidate.model.own
    with pytest.raises(CheckpointError, match=r"not run; if you trust it: --trust-remote-code"):
        planned(recipe, mine)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["auto_map"] == MAP
    assert CODE_FROM not in written
    assert {name: (tmp_path / "out" / name).read_text() for name in MINE} == MINE
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", trust_remote_code=True
    )
    assert model.own
    assert len(model.model.layers) == layers


def test_with_consent_a_tokenizer_that_is_code_is_read(evil):
    with mergetune.consent(trust_remote_code=True):
        parent_tokenizer.open_tokenizer(evil / "base")
    for file in evil.parent.rglob("RAN"):  # in the copy of the code that transformers made
        pytest.fail(f"{file}: the code was run in the folder itself")


@pytest.mark.parametrize("reference", ["org/code--configuration_mine.MineConfig", "../x.y", 3])
def test_code_of_another_place_is_not_run_with_consent_either(mine, tmp_path, reference):
    change_config(mine, auto_map={**MAP, "AutoConfig": reference})
    why = "is code of another repository; put it into the folder|expected file.Class"
    with mergetune.consent(trust_remote_code=True), pytest.raises(CheckpointError, match=why):
        mergetune.merge(LINEAR, tmp_path / "out", folder=mine)


def test_a_config_cannot_say_itself_where_code_lies(mine, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "configuration_mine.py").write_text("raise SystemExit('run')")
    change_config(mine, **{CODE_FROM: str(tmp_path / "elsewhere")})
    with mergetune.consent(trust_remote_code=True):
        mergetune.merge(LINEAR, tmp_path / "out", folder=mine)
    with pytest.raises(CheckpointError, match="is not run"):
        mergetune.merge(LINEAR, tmp_path / "out", folder=mine, overwrite=True)


def test_no_file_or_stored_study_can_consent(mine):
    text = STUDY.format(models=mine)
    for more in ("trust_remote_code: true\n", "engine: {trust_remote_code: true}\n"):
        with pytest.raises(MergeError, match="trust_remote_code: unknown key"):
            spec_of(text + more, mine)
    with pytest.raises(CheckpointError, match="is not run"):
        _ = Builder(spec_of(text, mine)).space
