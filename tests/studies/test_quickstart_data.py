"""The quickstart's benchmark holds only right answers to questions no model was trained on."""

import importlib.util
import json
import os
import random
import string
import sys
from pathlib import Path
from types import ModuleType

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "studies" / "quickstart"
SKILLS = ("add", "sort", "rev")
MODELS = ("base", *SKILLS)
MIB = 2**20


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(QUICKSTART)  # the scripts import each other by plain names

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, QUICKSTART / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def committed_items(skill):
    lines = (QUICKSTART / "tasks" / f"{skill}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def right_answer(prompt):
    skill, question = prompt.removesuffix("=").split(" ")
    match skill:
        case "add":
            return str(sum(int(number) for number in question.split("+")))
        case "sort":
            return "".join(sorted(question))
        case "rev":
            return question[::-1]
        case "next":
            assert question in string.ascii_lowercase
            return chr(ord(question[-1]) + 1)
    raise AssertionError(f"unknown skill in {prompt!r}")


@pytest.mark.parametrize("skill", SKILLS)
def test_items_of_a_task_are_distinct(skill):
    prompts = [item["prompt"] for item in committed_items(skill)]
    assert len(prompts) == len(set(prompts)) == 700


@pytest.mark.parametrize("skill", SKILLS)
def test_every_committed_prompt_belongs_to_the_benchmark_split(skill, script):
    split_of = script("problems").split_of
    assert {split_of(item["prompt"]) for item in committed_items(skill)} == {"benchmark"}


@pytest.mark.parametrize("split", ["train", "check", "benchmark"])
@pytest.mark.parametrize("skill", [*SKILLS, "next"])
def test_problems_drawn_for_a_split_belong_to_it(skill, split, script):
    problems, stream = script("problems"), random.Random(3)
    drawn = [problems.draw(skill, split, stream) for _ in range(300)]
    assert {problems.split_of(problem.prompt) for problem in drawn} == {split}


def test_no_drawn_training_prompt_is_a_committed_prompt(script):
    problems, stream = script("problems"), random.Random(4)
    trained = {
        problems.draw(skill, "train", stream).prompt for skill in SKILLS for _ in range(2000)
    }
    committed = {item["prompt"] for skill in SKILLS for item in committed_items(skill)}
    assert len(trained) > 4000
    assert not trained & committed


def test_split_of_a_prompt_is_the_same_in_every_process(script):
    # Written down once: a change of the split would let trained prompts into the benchmark.
    prompts = [f"add {n}+{n}=" for n in range(10, 26)]
    initials = "".join(script("problems").split_of(prompt)[0] for prompt in prompts)
    assert initials == "tbctttctbtttbtbt"


def test_about_an_eighth_of_all_additions_belong_to_the_benchmark(script):
    split_of = script("problems").split_of
    splits = [split_of(f"add {a}+{b}=") for a in range(10, 100) for b in range(10, 100)]
    stderr = (8100 * 1 / 8 * 7 / 8) ** 0.5
    assert abs(splits.count("benchmark") - 8100 / 8) <= 4 * stderr


@pytest.mark.parametrize("skill", SKILLS)
def test_committed_task_files_are_what_the_script_writes(skill, script):
    files = script("make_tasks").task_files(skill)
    assert set(files) == {f"{skill}.jsonl", f"{skill}.yaml"}
    for name, text in files.items():
        assert (QUICKSTART / "tasks" / name).read_text(encoding="utf-8") == text


def test_make_tasks_writes_all_files_into_the_folder_it_is_given(script, tmp_path):
    script("make_tasks").main(["--out", str(tmp_path), "--seed", "1"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{skill}.{kind}" for skill in SKILLS for kind in ("jsonl", "yaml")}


@pytest.mark.parametrize("skill", SKILLS)
def test_every_committed_answer_is_right(skill):
    items = committed_items(skill)
    assert all(item["prompt"].startswith(f"{skill} ") for item in items)
    assert [item["answer"] for item in items] == [right_answer(item["prompt"]) for item in items]


@pytest.mark.parametrize("skill", [*SKILLS, "next"])
def test_every_drawn_training_answer_is_right(skill, script):
    problems, stream = script("problems"), random.Random(5)
    drawn = [problems.draw(skill, "train", stream) for _ in range(300)]
    assert [problem.answer for problem in drawn] == [right_answer(p.prompt) for p in drawn]


def test_first_of_many_distinct_problems_are_those_of_a_shorter_draw(script):
    draw_distinct = script("problems").draw_distinct
    assert draw_distinct("rev", "check", 50, 0)[:20] == draw_distinct("rev", "check", 20, 0)


def test_longest_answer_is_no_longer_than_what_the_tasks_let_a_model_write(script):
    longest = max(len(item["answer"]) for skill in SKILLS for item in committed_items(skill))
    assert longest == script("problems").LONGEST_ANSWER


@pytest.mark.parametrize("model", MODELS)
def test_tokenizer_of_a_model_gives_back_every_printable_text(model):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(QUICKSTART / "models" / model)
    stream = random.Random(6)
    printable = "".join(map(chr, range(32, 127)))
    texts = ["".join(stream.choices(printable, k=40)) for _ in range(200)]
    texts += [printable, "it 's  , . n't", " 1+1= 2 ."]
    assert len(tokenizer) == 99
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts
    assert all(len(tokenizer.encode(text)) == len(text) for text in texts)


@pytest.mark.parametrize("model", MODELS)
def test_model_folder_loads_in_bfloat16_and_is_complete(model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        QUICKSTART / "models" / model, output_loading_info=True
    )
    assert not any(report.values()), report
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert sum(weight.numel() for weight in loaded.parameters()) == 865_792
    assert loaded.config.pad_token_id == 0


def test_an_expert_answers_more_of_its_own_skill_than_the_base_does(script):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    train, problems = script("train"), script("problems")
    asked = [problems.Problem(**item) for item in committed_items("sort")[:100]]
    base, expert = (
        train.accuracy(
            transformers.AutoModelForCausalLM.from_pretrained(
                QUICKSTART / "models" / model, dtype=torch.float32
            ),
            asked,
        )
        for model in ("base", "sort")
    )
    assert base + 0.2 < expert


def test_all_models_together_are_under_ten_mebibytes():
    folder = QUICKSTART / "models"
    files = [Path(at) / name for at, _, names in os.walk(folder) for name in names]
    assert 0 < sum(path.stat().st_size for path in files) < 10 * MIB
