"""``check`` opens tokenizers and tasks; the models of these tests have no weights at all."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
import yaml

from evaluators.harness.task_files import task_code
from merge_core import consent
from merge_core.errors import DocumentError
from search.run.check import check
from tests.evaluators.conftest import CHOICE, Tasks, character_tokenizer
from tests.search.run.test_check import write_model

ROWS = [{"q": f"say {i}:", "a": str(i)} for i in range(30)]
ASK = {"evaluator": "exact_match", "file": "q.jsonl", "prompt": "{{ q }}", "answer": "a"}
RECIPE = {
    "merge_method": "linear",
    "models": [
        {"model": "one", "parameters": {"weight": {"low": 0, "high": 1}}},
        {"model": "two", "parameters": {"weight": 0.5}},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two models' tokenizers and a file of questions."""
    for name in ("one", "two"):
        write_model(tmp_path / name)
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        character_tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def study(folder: Path, *score: dict[str, Any], **more: Any) -> Path:
    """Write the study file with these score entries."""
    items = {"search": 10, "select": 10, "report": 10}
    data = {"name": "x", "recipe": RECIPE, "score": [*score], "items": items, **more}
    (folder / "study.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "study.yaml"


def problems(file: Path) -> dict[str, str]:
    """Return what is wrong in a study file by its key paths."""
    with pytest.raises(DocumentError) as caught:
        check(file, tasks=True)
    return {problem.path: problem.rule for problem in caught.value.problems}


def test_what_is_right_is_right_with_its_tasks(folder: Path) -> None:
    file = study(folder, ASK)
    opened = check(file, tasks=True).facts
    assert opened.pop("report pool").startswith("a difference of 44.0 points is likely to be shown")
    assert opened.pop("items") == ["q 30 (search 10, select 10, report 10)"]
    assert (opened.pop("device"), opened.pop("stored")) == ("cpu", "nothing yet")
    assert opened.pop("window") == "every item fits into the 2048 tokens of the model"
    assert opened == check(file).facts


def test_all_that_is_wrong_with_tasks_is_said_at_once(folder: Path) -> None:
    tasks = Tasks(folder / "tasks", character_tokenizer())
    tasks.write("pick", [{"q": "a", "a": 0, "choices": ["x", "y"]}] * 30, **CHOICE)
    own = {"evaluator": "lm_eval", "include_path": "tasks", "task": "pick"}
    found = problems(
        study(
            folder,
            ASK | {"file": "gone.jsonl"},
            ASK | {"prompt": "{{ question }}"},
            ASK | {"prompt": "{% if %}"},
            ASK | {"answer_regex": "("},
            ASK,
            own | {"metric": "wer"},
            own | {"steer": "wer"},
        )
    )
    rules = {
        "score[0]": "gone.jsonl: cannot be read: No such file or directory",
        "score[1]": "q.jsonl:1: prompt cannot be filled: 'question' is undefined",
        "score[2]": "prompt: line 1: Expected an expression",
        "score[3]": "answer_regex '(' is no regular expression",
        "score[5]": "lm-eval task 'pick' has no metric 'wer'",
        "score[6].steer": "lm-eval task 'pick' has no metric 'wer'",
    }
    assert {path: rule for path, rule in rules.items() if rule not in found.get(path, "")} == {}
    assert found.keys() == rules.keys()


def test_pools_that_cannot_be_filled_are_wrong(folder: Path) -> None:
    assert (
        "30"
        in problems(study(folder, ASK, items={"search": 20, "select": 10, "report": 10}))["score"]
    )


def test_a_base_without_a_tokenizer_is_wrong_and_named(folder: Path) -> None:
    for file in (folder / "one").glob("tokenizer*"):
        file.unlink()
    rule = problems(study(folder, ASK))["recipe"]
    assert rule == f"{folder}/one: has no tokenizer; save the model's tokenizer there"


def test_code_of_task_files_needs_consent_here_too(folder: Path) -> None:
    tasks = Tasks(folder / "tasks", character_tokenizer())
    tasks.write("pick", ROWS, process_docs="!function code.made")
    (folder / "tasks" / "code.py").write_text("def made(docs):\n    return docs\n")
    entry = {"evaluator": "lm_eval", "include_path": "tasks", "task": "pick"}
    file = study(folder, entry)
    assert "code of a task file runs only with --trust-tasks" in problems(file)["score[0]"]
    with task_code(trusted=True):
        check(file, tasks=True)


def warnings(folder: Path) -> list[str]:
    """Return what is warned of a study, but for its few items; unlike models may be merged."""
    with consent.allowed(consent.CRIMES):
        found = check(study(folder, ASK, search={"trials": 4}), tasks=True).warnings
    return [line for line in found if not line.startswith("few items: ")]


def test_a_report_pool_that_hardly_shows_anything_is_a_warning(folder: Path) -> None:
    (warning,) = check(study(folder, ASK, search={"trials": 4}), tasks=True).warnings
    assert warning == (
        "few items: the 10 of the report pool will hardly show a difference below 44.0 points; 5 "
        "points take about 621: give `items.report` or the tasks more, or do not hope to see a "
        "small gain"
    )


CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, "num_attention_heads 4 (there 8)"),
        ({"num_key_value_heads": 2}, "num_key_value_heads 2 (there 8)"),
        ({"rope_theta": 10000.0}, "rope_parameters.rope_theta 10000.0 (there 500000.0)"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            "rope_parameters.rope_type linear (there default)",
        ),
        ({"max_position_embeddings": 64}, "max_position_embeddings 64 (there 2048)"),
        (
            {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
            "model_type mistral (there llama)",
        ),
    ],
    ids=["heads", "key heads", "rope", "rope type", "window", "architecture"],
)
def test_a_model_with_another_config_is_a_warning(
    folder: Path, changed: dict[str, Any], told: str
) -> None:
    for name, config in (("one", CONFIG), ("two", CONFIG | changed)):
        (folder / name / "config.json").write_text(json.dumps(config))
    (warning,) = warnings(folder)
    start = (
        "two: its weights were tuned under another config than that of one, which candidates have: "
    )
    assert warning.startswith(start)
    assert told in warning


def test_configs_that_say_the_same_in_other_words_are_alike(folder: Path) -> None:
    new = {k: x for k, x in CONFIG.items() if k != "rope_theta"}
    new |= {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "dtype": "float16"}
    new |= {"hidden_act": "silu", "use_cache": False, "transformers_version": "4.0.0"}
    for name, config in (("one", CONFIG), ("two", new)):
        (folder / name / "config.json").write_text(json.dumps(config))
    assert warnings(folder) == []


def test_a_config_that_cannot_be_read_is_said_not_to_be_compared(folder: Path) -> None:
    (folder / "two" / "config.json").write_text('{"model_type": "nobody"}')
    assert warnings(folder) == [
        "two: its config is not compared with that of one: model_type 'nobody' is not known"
    ]


@pytest.mark.parametrize(
    ("own", "theirs", "told"),
    [
        ("{{ 1 }}", "{{ 2 }}", "has another chat template than one, with whose candidates"),
        (None, "{{ 2 }}", "has a chat template, and one, with whose tokenizer"),
        ("{{ 1 }}", None, "has no chat template; candidates are asked with that of one"),
    ],
)
def test_a_model_with_another_chat_template_is_a_warning(
    folder: Path, own: str | None, theirs: str | None, told: str
) -> None:
    for name, template in (("one", own), ("two", theirs)):
        tokenizer = character_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder / name)
        if template is None:
            (folder / name / "chat_template.jinja").unlink(missing_ok=True)
    (warning,) = warnings(folder)
    assert warning.startswith(f"two: {told}")


def test_a_model_with_other_special_tokens_is_a_warning(folder: Path) -> None:
    tokenizer = character_tokenizer()
    was = tokenizer.eos_token
    tokenizer.eos_token = "a"
    tokenizer.save_pretrained(folder / "two")
    (warning,) = warnings(folder)
    assert warning == (
        "two: its special tokens are not those of one, which candidates have: eos_token a (there "
        f"{was})"
    )


def test_a_model_that_numbers_tokens_in_another_way_is_a_warning(folder: Path) -> None:
    file = folder / "two" / "tokenizer.json"
    data = json.loads(file.read_text())
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(data))
    (warning,) = warnings(folder)
    assert warning == (
        "two: 2 tokens have other numbers in its tokenizer than in that of one, which candidates "
        "have"
    )


def test_clusters_are_counted_and_pools_that_are_smaller_for_them(folder: Path) -> None:
    rows = [{**row, "page": i // 4} for i, row in enumerate(ROWS)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = check(study(folder, {**ASK, "cluster": "page"}), tasks=True).facts
    assert facts["clusters"] == ["q: 8 clusters of 30 items by `page`"]
    assert "8 instead of 10 for select" in facts["pools"]
    rule = problems(study(folder, {**ASK, "cluster": "pag"}))["score[0]"]
    assert rule.startswith("q.jsonl:1: cluster: no key 'pag', did you mean 'page'?")


def test_two_items_of_each_task_are_shown_as_a_model_will_read_them(folder: Path) -> None:
    tasks = Tasks(folder / "tasks", character_tokenizer())
    tasks.write("pick", [{"q": f"{i}", "a": 1, "choices": ["x", "y"]} for i in range(30)], **CHOICE)
    pick = {"evaluator": "lm_eval", "include_path": "tasks", "task": "pick"}
    free = {**ASK, "stop": ".", "max_tokens": 7, "delimiter": ""}
    found = check(study(folder, free, pick), tasks=True)
    assert {task: len(items) for task, items in found.first.items()} == {"q": 2, "pick": 2}
    one, other = (item.plain() for item in found.first["q"])
    number = one["prompt"].removeprefix("say ").removesuffix(":")
    assert one["prompt"] != other["prompt"]
    assert one["id"]
    assert {**one, "id": ""} == {
        "id": "",
        "prompt": f"say {number}:",
        "right": [f"{number}."],
        "others": [],
        "unknown": "",
        "stop": ["."],
        "most": 7,
    }
    choice = found.first["pick"][0]
    assert ([x.strip() for x in choice.right], [x.strip() for x in choice.others]) == (["y"], ["x"])
    assert (choice.stop, choice.most) == (None, None)
    assert found.plain()["first items"]["q"] == [one, other]


def test_an_item_says_why_nothing_is_known_to_be_right(folder: Path) -> None:
    judged = {k: x for k, x in ASK.items() if k != "answer"}
    judged |= {"evaluator": "judge", "rubric": "{{ answer }}", "model": "m"}
    judged |= {"base_url": "http://localhost:1/v1"}
    (item, _) = check(study(folder, judged), tasks=True).first["q"]
    assert (item.right, item.stop, item.most) == ((), ("\n\n",), 256)
    assert item.unknown == "a judge scores what the model writes; no answer is the right one"


def test_a_document_is_its_own_prompt_and_ends_nowhere(folder: Path) -> None:
    lines = "".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(30))
    (folder / "texts.jsonl").write_text(lines)
    own = {"evaluator": "bits_per_byte", "file": "texts.jsonl"}
    (item, _) = check(study(folder, own), tasks=True).first["texts"]
    assert item.prompt is not None
    assert item.prompt.startswith("text ")
    assert (item.right, item.others, item.stop) == (("",), (), None)


def test_a_long_prompt_is_shown_by_its_beginning_and_its_end(folder: Path) -> None:
    for name in ("one", "two"):
        config = CONFIG | {"max_position_embeddings": 9999}
        (folder / name / "config.json").write_text(json.dumps(config))
    (item, _) = check(
        study(folder, ASK | {"prompt": "{{ q * 999 }}", "max_tokens": 1}), tasks=True
    ).first["q"]
    assert item.prompt is not None
    assert len(item.prompt) < 4010
    assert " … " in item.prompt


def on_the_hub(folder: Path) -> Path:
    """Write a study that scores with a task whose data are on the hub; return it."""
    (folder / "tasks").mkdir()
    (folder / "tasks" / "far.yaml").write_text(
        "task: far\ndataset_path: nobody/nothing\noutput_type: generate_until\n"
        "test_split: test\ndoc_to_text: q\ndoc_to_target: a\n"
    )
    return study(folder, {"evaluator": "lm_eval", "include_path": "tasks", "task": "far"})


def test_what_is_not_in_the_hubs_cache_is_a_warning_and_nothing_is_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *to: asked.append(to))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *to, **_: asked.append(to) or [])
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    found = check(on_the_hub(folder), tasks=True)
    (warning,) = [line for line in found.warnings if line.startswith("score[0]")]
    assert warning.startswith(
        "score[0] is not opened: what it asks is not in the hub's cache; `run` fetches it, before "
        "any model (lm-eval task 'far' cannot be loaded: "
    )
    assert asked == []
    assert before == (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)


def test_other_entries_are_checked_all_the_same(folder: Path) -> None:
    on_the_hub(folder)
    far = {"evaluator": "lm_eval", "include_path": "tasks", "task": "far"}
    found = problems(study(folder, far, ASK | {"file": "gone.jsonl"}))
    assert [*found] == ["score[1]"]


def test_a_tokenizer_in_the_hubs_cache_is_taken_from_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folder / "hub" / "models--nobody--one"
    (where / "refs").mkdir(parents=True)
    (where / "refs" / "main").write_text("0" * 40)
    (where / "snapshots").mkdir()
    (folder / "one").rename(where / "snapshots" / ("0" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    file = study(folder, ASK)
    file.write_text(file.read_text().replace("model: one", "model: nobody/one"))
    found = check(file, tasks=True)
    assert [*found.first] == ["q"]
    assert any(line.startswith("nobody/one: no folder of that name") for line in found.warnings)
    file.write_text(file.read_text().replace("nobody/one", "nobody/two"))
    found = check(file, tasks=True)
    assert not found.first
    assert any("the tokenizer is not on this disk; `run` fetches" in x for x in found.warnings)
