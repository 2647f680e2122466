from __future__ import annotations

import pytest
from transformers import GenerationConfig

from evaluators.engines.vllm.sampling_params import of_model, of_task
from merge_core.errors import EvaluationError, ParameterError


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"do_sample": False},
        {"do_sample": False, "temperature": 0.7},
        {"temperature": 0.0, "top_p": 0.9},
        {"until": ["\n"], "max_gen_toks": 3, "num_beams": 1},
        {"until": ["\n"], "think_end_token": "</think>"},
    ],
    ids=str,
)
def test_greedy_is_what_lm_eval_means_by_it(how):
    assert of_task(how, {"top_k": 5}) == {"temperature": 0.0}


def test_a_tasks_own_settings_go_before_the_models():
    model = of_model(GenerationConfig(top_p=0.5, top_k=7, temperature=0.1, repetition_penalty=1.2))
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}
    expected = {"temperature": 0.8, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.2}
    assert of_task(how, model) == expected


def test_sampling_takes_the_fifty_likeliest_as_transformers_does():
    assert of_task({"temperature": 1.0}, {}) == {"temperature": 1.0, "top_k": 50}


def test_a_penalty_holds_for_greedy_choice_too():
    assert of_task({}, {"repetition_penalty": 1.2})["repetition_penalty"] == 1.2
    assert of_task({"repetition_penalty": 1.4}, {})["repetition_penalty"] == 1.4


@pytest.mark.parametrize("key", ["num_beams", "guidance_scale"])
def test_a_setting_that_is_not_known_is_refused(key):
    with pytest.raises(EvaluationError, match=rf"does not know the generation setting '{key}'; us"):
        of_task({key: 4}, {})


def test_sampling_at_temperature_zero_is_refused():
    with pytest.raises(EvaluationError, match="samples at temperatures above 0, got temperature 0"):
        of_task({"do_sample": True}, {})


def test_another_way_to_sample_is_refused():
    with pytest.raises(EvaluationError, match="does not sample by typical_p, got temp"):
        of_task({"temperature": 0.5, "typical_p": 0.3}, {})


def test_a_models_setting_that_vllm_does_not_do_is_refused():
    with pytest.raises(ParameterError, match=r"asks for no_repeat_ngram_size, which .* {name: hf}"):
        of_model(GenerationConfig(no_repeat_ngram_size=3))
