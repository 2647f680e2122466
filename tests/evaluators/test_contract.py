from __future__ import annotations

from typing import ClassVar

import pytest

from evaluators.testing import EvaluatorContract


class OnTheStandardTasks(EvaluatorContract):
    options: ClassVar[dict[str, object]]
    other: ClassVar[dict[str, object]]

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, standard):
        return lambda: standard.open(**cls.options)

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, standard):
        return lambda: standard.open(**cls.other)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


class TestGeneration(OnTheStandardTasks):
    options: ClassVar = {"task": "gen"}
    other: ClassVar = {"task": "gen", "filter": "whole"}


class TestGenerationWithExamples(OnTheStandardTasks):
    options: ClassVar = {"task": "gen", "num_fewshot": 2}
    other: ClassVar = {"task": "gen", "num_fewshot": 2, "seed": 5}


class TestMultipleChoice(OnTheStandardTasks):
    options: ClassVar = {"task": "choice"}
    other: ClassVar = {"task": "choice", "metric": "acc_norm"}


class TestMultipleChoiceInAChat(OnTheStandardTasks):
    options: ClassVar = {"task": "choice", "num_fewshot": 1, "apply_chat_template": True}
    other: ClassVar = {"task": "choice", "num_fewshot": 1}


class TestLoglikelihood(OnTheStandardTasks):
    options: ClassVar = {"task": "ends"}
    other: ClassVar = {"task": "ends", "num_fewshot": 1}


class TestRollingTexts(OnTheStandardTasks):
    options: ClassVar = {"task": "texts"}
    other: ClassVar = {"task": "texts", "metric": "bits_per_byte"}


class TestPerplexity(OnTheStandardTasks):
    options: ClassVar = {"task": "ends", "metric": "perplexity", "num_fewshot": 1}
    other: ClassVar = {"task": "ends", "metric": "perplexity"}
