from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluators import plugin_file
from evaluators.registry import EVALUATORS
from evaluators.testing import EvaluatorContract
from merge_core.errors import EvaluationError
from merge_core.plugins import Registry

EXAMPLE = Path(__file__).resolve().parents[2] / "studies" / "examples" / "evaluator-plugin"
PROMPTS = "".join(f"say {'abc'[: i % 3]}{i}:\t{'h,z'[i % 3]}\n" for i in range(9))

pytestmark = pytest.mark.slow  # installs the example


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Install the example as a user would, in a folder of its own; return what sees it."""
    EVALUATORS.names()  # kept from now on: other tests do not see what is installed here
    source = tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(EXAMPLE, source)  # a build leaves files behind
    target = tmp_path_factory.mktemp("site-packages")
    flags = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *flags]
    command = [*pip, "--target", target, source]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(target))
        yield Registry("evaluator", "mergetune.evaluators", {})
        sys.modules.pop("mergetune_mentions", None)


@pytest.fixture(scope="module")
def live(family):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evaluators.engines.hf.engine import live_model

    folder = family("llama") / "one"
    model = AutoModelForCausalLM.from_pretrained(folder)
    return live_model(model, AutoTokenizer.from_pretrained(folder), batch_size=4)


class TestMentions(EvaluatorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, registry, tmp_path_factory):
        folder = tmp_path_factory.mktemp("mentions")
        (folder / "prompts.tsv").write_text(PROMPTS)
        plugin = registry.get("mentions")

        def make(**more):
            entry = {"file": "prompts.tsv", "max_tokens": 8, **more}
            assert plugin.problems(entry) == ()
            return plugin.open(plugin.options(**entry), folder, None)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, build):
        return lambda: build(max_tokens=7)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live

    def test_some_answers_mention_their_word(self, full):
        assert 0 < full.sum() < len(full)


def test_the_installed_example_is_known_by_its_name(registry):
    assert "mentions" in registry.names()
    assert registry.get("mentions").describe()["meaning"] == "does the answer mention a word?"


def test_the_same_file_works_without_installing(monkeypatch):
    monkeypatch.setattr(EVALUATORS, "_added", {})
    monkeypatch.setattr(plugin_file, "_loaded", {})
    assert plugin_file.load(EXAMPLE / "mergetune_mentions.py") == ["mentions"]
    assert EVALUATORS.get("mentions").name == "mentions"


def test_a_line_without_a_word_is_refused(registry, tmp_path):
    (tmp_path / "prompts.tsv").write_text("say a:\ta\nsay b:\n")
    plugin = registry.get("mentions")
    with pytest.raises(EvaluationError, match=r"prompts.tsv:2: expected .*, got 1 columns"):
        plugin.open(plugin.options(file="prompts.tsv"), tmp_path, None)
