"""Task arithmetic's three uses hold on items that no weight was chosen on: 300 to 699 of each task.

Margins are in standard errors of a difference of binomial shares, the two taken as independent:
``sqrt(sum p (1 - p) / n)``. Both models answer the same items and mostly agree, so the true error
is smaller.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe, Source
from search import cli

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "studies" / "quickstart"
EXAMPLES = ROOT / "studies" / "examples"
ARITHMETIC = EXAMPLES / "task-arithmetic"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}mergetune (merge|check|run) (studies/\S+)", README, re.MULTILINE)
SKILLS = ("add", "sort", "rev")
TESTED = range(300, 700)  # the weights were chosen on 0 to 299
Shares = Mapping[str, float]

pytestmark = pytest.mark.slow


class Gain(NamedTuple):
    mean: float
    stderr: float


def gain(one: Shares, other: Shares, *tasks: str) -> Gain:
    """Return how much more ``one`` gets right than ``other``, as a mean over tasks."""
    mean = sum(one[task] - other[task] for task in tasks) / len(tasks)
    spread = sum(p * (1 - p) for shares in (one, other) for p in map(shares.get, tasks))
    return Gain(mean, (spread / len(TESTED)) ** 0.5 / len(tasks))


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order could answer another item
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shares() -> Iterator[Callable[[Recipe], Shares]]:
    """Return what scores a recipe's live candidate: skill -> share of right answers."""
    from transformers import AutoTokenizer

    from evaluators.engines.hf.engine import live_model
    from evaluators.harness.open import EVALUATOR
    from merge_core.merge.nested import plan
    from merge_core.output.live_model import Candidate
    from merge_core.parents.open import open_parents

    def opened(skill):
        options = EVALUATOR.options(task=f"quickstart_{skill}", include_path="tasks")
        return EVALUATOR.open(options, QUICKSTART, None)

    tasks = {skill: opened(skill) for skill in SKILLS}
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "models" / "base")
    candidate = Candidate()
    found: dict[str, Shares] = {}

    def measured(recipe: Recipe) -> Shares:
        if recipe.digest() not in found:
            candidate.build(plan(recipe, open_parents(recipe.references(), (ARITHMETIC,))))
            live = live_model(candidate.model, tokenizer, batch_size=128)
            found[recipe.digest()] = {
                skill: float(task.score(live, TESTED).mean()) for skill, task in tasks.items()
            }
        return found[recipe.digest()]

    with one_thread():
        yield measured


def example(name: str) -> Recipe:
    return recipe_reader.read(ARITHMETIC / f"{name}.yaml")


def model(name: str) -> Recipe:
    return Recipe("passthrough", (Source(f"../../quickstart/models/{name}"),), dtype="float32")


def without(recipe: Recipe, name: str) -> Recipe:
    kept = tuple(source for source in recipe.models if not source.model.endswith(f"/{name}"))
    assert len(kept) == len(recipe.models) - 1
    return replace(recipe, models=kept)


@pytest.mark.parametrize("skill", ["add", "sort"])
def test_sum_of_two_task_vectors_is_better_at_each_task_than_the_base(skill, shares):
    more = gain(shares(example("addition")), shares(model("base")), skill)
    assert more.mean > 4 * more.stderr  # measured: +.25 and +.21, 7 standard errors and more


@pytest.mark.parametrize("expert", ["add", "sort"])
def test_sum_of_two_task_vectors_is_better_at_both_tasks_than_either_expert(expert, shares):
    more = gain(shares(example("addition")), shares(model(expert)), "add", "sort")
    assert more.mean > 4 * more.stderr  # measured: +.22 and +.12, 6 standard errors and more


def test_negated_task_vector_forgets_its_task(shares):
    more = gain(shares(example("negation")), shares(model("base")), "sort")
    assert more.mean < -4 * more.stderr  # measured: -.35, 10 standard errors


def test_negated_task_vector_keeps_the_control_tasks(shares):
    # Chosen to keep 95 % of it on other items; here 93 %, within the error of 800 items.
    base = shares(model("base"))
    more = gain(shares(example("negation")), base, "add", "rev")
    aim = -0.05 * (base["add"] + base["rev"]) / 2
    assert more.mean > aim - 3 * more.stderr


def test_negated_task_vector_takes_far_more_from_its_task_than_from_the_control(shares):
    base, after = shares(model("base")), shares(example("negation"))
    target, control = gain(after, base, "sort"), gain(after, base, "add", "rev")
    stderr = (target.stderr**2 + control.stderr**2) ** 0.5
    assert control.mean - target.mean > 4 * stderr  # measured: .31, 7 standard errors


@pytest.mark.parametrize("part", ["base", "rev", "sort", "add-and-rev"])
def test_analogy_is_better_at_add_and_sort_than_all_it_is_made_of(part, shares):
    analogy = example("analogy")
    (document,) = analogy.documents
    other = document if part == document.name else model(part)
    more = gain(shares(analogy), shares(other), "add", "sort")
    assert more.mean > 4 * more.stderr  # measured: at least +.11, 6 standard errors


def test_analogy_without_its_subtraction_fails(shares):
    analogy = example("analogy")
    less = gain(shares(without(analogy, "rev")), shares(analogy), "add", "sort")
    assert less.mean < -4 * less.stderr  # measured: -.39


def test_analogy_takes_the_skill_that_it_subtracts_back_to_the_base(shares):
    analogy = example("analogy")
    base, before, after = map(shares, (model("base"), *analogy.documents, analogy))
    removed, left = gain(after, before, "rev"), gain(after, base, "rev")
    assert removed.mean < -4 * removed.stderr  # measured: -.24
    assert abs(left.mean) < 3 * left.stderr  # measured: +.005


def test_analogy_equals_the_sum_that_knows_the_missing_expert(shares):
    half = (("weight", 0.5),)
    sources = tuple(replace(model(name).models[0], parameters=half) for name in ("add", "sort"))
    known = replace(example("addition"), models=sources)
    more = gain(shares(example("analogy")), shares(known), "add", "sort")
    assert abs(more.mean) < 3 * more.stderr  # measured: 0


def test_readme_of_the_examples_has_a_command_for_each():
    files = {path.relative_to(ROOT).as_posix() for path in EXAMPLES.rglob("*.yaml")}
    named = {path for _, path in COMMANDS}
    assert {file.removesuffix("/study.yaml") for file in files if "/results/" not in file} == named


@pytest.mark.parametrize("file", [path for command, path in COMMANDS if command == "merge"])
def test_merge_commands_of_the_readme_run_from_the_root(file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    ran = CliRunner().invoke(cli.app, ["merge", file, str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
