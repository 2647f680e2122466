from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mergetune
from evaluators.protocol import Evaluator, Suite, TaskFacts, items_of
from merge_core.errors import (
    CheckpointError,
    DocumentError,
    EvaluationError,
    MergeError,
    ParameterError,
)
from tests.search.real import write_study

Family = Callable[..., Path]
DOCUMENTS = ["a b c", "1 + 2 = 3", "to be or not"]


class Length(Evaluator):
    """How long a document is."""

    factor = 1.0

    def __init__(self, task: str) -> None:
        items = items_of(task, DOCUMENTS)
        super().__init__(
            TaskFacts(task=task, unit="characters", higher_is_better=True, items=items)
        )

    def score(self, model: Any, which: Any) -> Any:
        return np.array([self.factor * len(DOCUMENTS[i]) for i in which])

    def fingerprint(self) -> str:
        return self.task


@pytest.fixture
def recipe(family: Family) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("one", "two")]
    return {"merge_method": "task_arithmetic", "base_model": "base", "models": models}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    return file


def test_what_is_public_is_there_and_says_what_it_does() -> None:
    for name in set(mergetune.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(mergetune, name))
    assert mergetune.__version__ == version("mergetune")


def test_file_text_and_mapping_give_the_same_weights(
    recipe: dict[str, Any], family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = yaml.safe_dump(recipe)
    for model in ("base", "one", "two"):
        (tmp_path / model).symlink_to(family() / model)
    (tmp_path / "recipe.yaml").write_text(text)
    digests = [
        mergetune.merge(tmp_path / "recipe.yaml", tmp_path / "by file"),
        mergetune.merge(str(tmp_path / "recipe.yaml"), tmp_path / "by name"),
        mergetune.merge(text, tmp_path / "by text", folder=family()),
        mergetune.merge(json.dumps(recipe), str(tmp_path / "by line"), folder=str(family())),
    ]
    monkeypatch.chdir(family())
    digests.append(mergetune.merge(recipe, tmp_path / "by mapping"))
    assert len(set(digests)) == 1
    record = json.loads((tmp_path / "by mapping" / "mergetune.json").read_text())
    assert record["weights_digest"] == digests[0]


def test_folder_is_replaced_only_if_that_is_said(
    recipe: dict[str, Any], family: Family, tmp_path: Path
) -> None:
    mergetune.merge(recipe, tmp_path / "out", folder=family())
    with pytest.raises(FileExistsError, match="exists"):
        mergetune.merge(recipe, tmp_path / "out", folder=family())
    mergetune.merge(recipe, tmp_path / "out", folder=family(), overwrite=True)


def test_mistake_in_a_mapping_is_named_by_its_key_path(recipe: dict[str, Any]) -> None:
    recipe["models"][1]["parameters"]["wight"] = 1
    with pytest.raises(DocumentError, match=r"^recipe:1: models\[1\]\.parameters\.wight: "):
        mergetune.build(recipe)


def test_python_warns_of_what_a_recipe_says_in_vain(
    recipe: dict[str, Any], family: Family, tmp_path: Path
) -> None:
    recipe["models"][0]["parameters"]["density"] = 0.5
    with pytest.warns(UserWarning, match=r"^recipe:1: models\[0\]\.parameters\.density: ") as told:
        mergetune.merge(recipe, tmp_path / "out", folder=family())
    assert told[0].filename == __file__


def test_parents_are_opened_by_their_references(recipe: dict[str, Any], family: Family) -> None:
    found = mergetune.open_parents(recipe, folder=family())
    assert set(found) == {"base", "one", "two"}
    assert found["one"].digest != found["two"].digest
    with pytest.raises(CheckpointError, match="'one': no folder of that name in"):
        mergetune.open_parents(recipe)


def test_built_model_is_what_a_merged_folder_holds(
    recipe: dict[str, Any], family: Family, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    live = mergetune.build(recipe, folder=family(), batch_size=2)
    mergetune.merge(recipe, tmp_path / "out", folder=family())
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(x, written[name]) for name, x in live.model.state_dict().items())
    assert live.tokenizer.decode(live.tokenizer("abc")["input_ids"]) == "abc"
    assert live.batch_size == 2


def test_tokenizer_of_a_built_model_is_the_recipes_own(
    recipe: dict[str, Any], own_family: Family
) -> None:
    folder = own_family()
    file = folder / "two" / "tokenizer.json"
    file.write_text(file.read_text().replace('"vocab":{', '"vocab":{"new":999,', 1))
    (folder / "base" / "chat_template.jinja").unlink(missing_ok=True)
    recipe["chat_template"] = "chatml"
    live = mergetune.build(recipe, folder=folder)
    assert "im_start" in live.tokenizer.chat_template


def test_scores_stand_by_task_and_item(recipe: dict[str, Any], family: Family, texts: Path) -> None:
    live = mergetune.build(recipe, folder=family())
    entry = {"evaluator": "bits_per_byte", "file": texts.name}
    found = mergetune.score(live, entry, folder=texts.parent)
    assert (found.index.names, found.dtype) == (["task", "item"], np.float64)
    assert len(found) == len(DOCUMENTS)
    nats = live.engine.loglikelihood_rolling(DOCUMENTS)
    expected = [-x / np.log(2) / len(text) for x, text in zip(nats, DOCUMENTS, strict=True)]
    assert found.tolist() == pytest.approx(expected)
    first = mergetune.score(live, entry, folder=texts.parent, limit=1)
    assert first.index.tolist() == found.index.tolist()[:1]


def test_evaluator_of_ones_own_and_a_suite_are_scored_too(
    recipe: dict[str, Any], family: Family
) -> None:
    live: Any = object()
    assert mergetune.score(live, Length("a")).tolist() == list(map(len, DOCUMENTS))
    both = mergetune.score(live, Suite("ab", ((Length("a"), 0.5), (Length("b"), 0.5))), limit=2)
    assert [task for task, _ in both.index] == ["a", "a", "b", "b"]


def test_item_without_a_score_is_an_error_not_a_gap() -> None:
    gap = Length("gap")
    gap.failures, gap.factor = {"an-item": "no answer"}, np.nan
    live: Any = object()
    with pytest.raises(
        EvaluationError, match="gap: 3 of 3 items have no score; an-item: no answer"
    ):
        mergetune.score(live, gap)


def test_mistake_in_an_entry_is_named() -> None:
    model: Any = object()
    with pytest.raises(DocumentError, match="'lm_eval'"):
        mergetune.score(model, {"evaluator": "lm_evil", "task": "x"})


@pytest.mark.slow
def test_study_is_run_and_read_as_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path / "small", trials=9)
    with pytest.raises(ParameterError, match=r"^--trial: unknown key"):
        mergetune.run(file, trial=1)
    with pytest.raises(MergeError, match="nowhere"):
        mergetune.run(file, prior=[tmp_path / "nowhere"])
    study = mergetune.run(file, trials=1)
    assert study.report.index[-1] == "winner"
    again = mergetune.open_study(file.parent)
    assert again.trials.equals(study.trials)
    summary = json.loads((tmp_path / "small" / "results" / "summary.json").read_text())
    winner = study.report.loc["winner"]
    assert winner["mean"] == summary["winner"]["report"]["mean"]
    mean = study.answers.query("pool == 'report'").groupby(["trial", "task"]).score.mean()
    assert winner["quickstart_add"] == pytest.approx(mean[winner.trial, "quickstart_add"])
    live = mergetune.build(study.recipe(winner.trial), folder=study.folder)
    assert live.model.dtype.is_floating_point
    assert "trial 11 of 11" in capsys.readouterr().err
