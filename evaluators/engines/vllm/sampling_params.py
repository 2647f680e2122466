"""Generation settings in lm-eval's words -> vLLM's; what vLLM would do otherwise is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evaluators.engines.stopping import HARMLESS, LIMITS, SAMPLING, THINK_END, is_greedy
from merge_core.errors import EvaluationError, ParameterError

if TYPE_CHECKING:
    from transformers import GenerationConfig

_TOP_K = 50  # what transformers takes where nobody says
_ALIKE = ("top_k", "top_p", "min_p")  # of the same name and meaning
_PENALTY = "repetition_penalty"


def of_model(settings: GenerationConfig | None) -> dict[str, Any]:
    """Return what a model's own settings add to those of a task.

    Raises:
        ParameterError: They ask for something that vLLM does not do as transformers does.
    """
    said = settings.to_diff_dict() if settings else {}
    others = sorted(set(said) - HARMLESS - {_PENALTY})
    if others:
        raise ParameterError(
            f"generation_config.json of the model asks for {', '.join(others)}, which the engine "
            "'vllm' does not do; take it out there, or use `engine: {name: hf}`"
        )
    return {key: said[key] for key in (*_ALIKE, _PENALTY) if said.get(key) is not None}


def of_task(how: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's settings for one prompt, those of its end aside; ``model``: see ``of_model``.

    ``temperature`` is there, 0 for greedy choice, and what else there is.

    Raises:
        EvaluationError: A setting that the engine does not know, or sampling at temperature 0.
    """
    known = {"until", THINK_END, *LIMITS, *SAMPLING, _PENALTY}
    unknown = sorted(key for key in how if key not in known and (key, how[key]) != ("num_beams", 1))
    if unknown:
        raise EvaluationError(
            f"the engine 'vllm' does not know the generation setting {unknown[0]!r}; "
            "use `engine: {name: hf}` for this task"
        )
    told = {**model, **{key: x for key, x in how.items() if x is not None}}
    penalty = {key: float(told[key]) for key in (_PENALTY,) if key in told}
    if is_greedy({key: how[key] for key in how if key in known and key != _PENALTY}):
        return {"temperature": 0.0, **penalty}
    others = sorted(set(how) & (SAMPLING - {"do_sample", "temperature", *_ALIKE}))
    temperature = float(how.get("temperature") or 0)
    if others or temperature <= 0:
        rule = f"does not sample by {others[0]}" if others else "samples at temperatures above 0"
        raise EvaluationError(f"the engine 'vllm' {rule}, got temperature {temperature:g}")
    chosen = {key: told[key] for key in _ALIKE if key in told}
    return {"temperature": temperature, "top_k": _TOP_K, **chosen, **penalty}
