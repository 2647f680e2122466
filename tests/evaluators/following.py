"""A vLLM that follows a live transformers model, so that tests of evaluators run on either engine.

Before every call the weights that the model has now are taken over: what a study does between two
candidates, here many hundred times.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from evaluators.engines.vllm.engine import VllmEngine
    from evaluators.protocol import LiveModel


KEPT: list[VllmEngine] = []  # one that is collected takes what all in the process share with it

SMALL = {"kv_cache_memory_bytes": 64 * 2**20}


def start(model: Any, tokenizer: Any, folder: Path, **options: Any) -> VllmEngine:
    """Start an engine without weights for a model of this class and config."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return start_on(folder, model, tokenizer, **options)


def start_on(
    folder: Path, model: Any, tokenizer: Any, *, weights: bool = False, **options: Any
) -> VllmEngine:
    """Start an engine on a folder that is there."""
    from evaluators.engines.vllm.engine import VllmEngine
    from evaluators.engines.vllm.process import RunningVllm, VllmOptions

    usual = RunningVllm._arguments
    with pytest.MonkeyPatch.context() as patch:  # many engines stay up, of a GiB each otherwise
        patch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
        patch.setattr(RunningVllm, "_arguments", lambda *a: {**usual(*a), **SMALL})
        KEPT.append(VllmEngine(folder, model, tokenizer, VllmOptions(**options), weights=weights))
    return KEPT[-1]


class Following:
    """See ``evaluators.protocol.Engine``."""

    def __init__(self, engine: VllmEngine, model: Any) -> None:
        self._engine, self._model = engine, model

    def __getattr__(self, name: str) -> Any:
        if name != "fingerprint":
            self._engine.take(iter(self._model.state_dict().items()))
        return getattr(self._engine, name)


def following(engine: VllmEngine, model: Any, tokenizer: Any, batch_size: int) -> LiveModel:
    """Join a model to the engine that follows it."""
    from evaluators.protocol import LiveModel

    return LiveModel(model, tokenizer, batch_size, Following(engine, model))  # type: ignore[arg-type]
