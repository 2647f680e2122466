"""A vLLM in this process: started, given weights, asked, ended. Nothing else imports vLLM."""

from __future__ import annotations

import gc
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.engines.vllm.weight_transfer import send
from evaluators.log_control import hushed, hushed_logs
from merge_core import consent
from merge_core.errors import EvaluationError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that weights go in without being pickled
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # see ``_start``: one place more, which is never read
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}

_SHOWN = 300  # characters of an error of vLLM; the rest is in the traceback


@dataclass(frozen=True, kw_only=True)
class VllmOptions:
    """What a user may say about the engine.

    Args:
        batch_size: The most prompts that run at once, at least 1.
        tensor_parallel_size: Accelerators that share the model, at least 1.
        gpu_memory_utilization: Share of each one's memory that vLLM takes, in (0, 1].
        max_model_len: Tokens that prompt and answer may have; None: what the model takes.
    """

    batch_size: int = 64
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None


def check_installed() -> None:
    """Refuse to go on without vLLM.

    Raises:
        ParameterError: It is not installed.
    """
    if find_spec("vllm") is None:
        raise ParameterError(
            "engine 'vllm': vLLM is not installed; run `pip install 'mergetune[vllm]'`, or use "
            "`engine: {name: hf}`"
        )


def installed_version() -> str:
    """Return vLLM's version without importing it; its builds go by several names."""
    return version(packages_distributions()["vllm"][0])


class RunningVllm:
    """One vLLM, from its start, with the ``weights`` of the folder or with any, to its end.

    ``dtype`` is that of weights and arithmetic, in torch's words; ``max_length`` the tokens that
    prompt and answer may have.

    Raises:
        EvaluationError: It cannot start.
    """

    def __init__(
        self, folder: Path, dtype: str, max_length: int, options: VllmOptions, *, weights: bool
    ) -> None:
        os.environ.update(_ENVIRONMENT)
        self._options = options
        self.broken = False
        with _random_state_kept():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import vllm
            try:
                with hushed():
                    self._llm = vllm.LLM(**self._arguments(folder, dtype, max_length, weights))
            except Exception as error:
                raise EvaluationError(f"vLLM cannot start: {_in_a_line(error)}") from error

    def take(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        """Replace all weights, one tensor after another, and forget what was computed with the old.

        They have the names of a checkpoint; each is kept until its layer is whole.

        Raises:
            EvaluationError: vLLM could not load them; it is ``broken``.
        """
        ask = partial(self._llm.collective_rpc, "take_weights")
        readers = self._options.tensor_parallel_size
        with self._broken_unless_done("take the weights"):
            if readers == 1:
                ask(args=(tensors,))
            else:
                send(tensors, readers, lambda received: ask(args=(received,)))
            self._forget()

    def answers(
        self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]
    ) -> list[Any]:
        """Return vLLM's ``RequestOutput`` for each prompt, of one token id or more.

        ``settings`` are those of its ``SamplingParams``, for each prompt.

        Raises:
            EvaluationError: vLLM failed; it is ``broken``.
        """
        if not prompts:
            return []
        with self._broken_unless_done("answer"):
            from vllm import SamplingParams

            asked = [{"prompt_token_ids": list(ids)} for ids in prompts]
            how = [SamplingParams(**given) for given in settings]
            found: list[Any] = self._llm.generate(asked, how, use_tqdm=False)
        return found

    def clear(self) -> None:
        """Overwrite what the prompts so far left in memory.

        Raises:
            EvaluationError: vLLM failed; it is ``broken``.
        """
        with self._broken_unless_done("clear its cache"):
            self._llm.collective_rpc("clear_cache")
            self._forget()

    def close(self) -> None:
        """End it and give its memory back; it cannot be used again."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self.broken = True
        with hushed():
            self._llm.llm_engine.engine_core.shutdown()
            del self._llm
            gc.collect()
            cleanup_dist_env_and_memory()

    def facts(self) -> dict[str, Any]:
        """Return what could change an answer: version and device."""
        import vllm
        from vllm.platforms import current_platform

        return {"vllm": vllm.__version__, "device": current_platform.get_device_name()}

    def _arguments(
        self, folder: Path, dtype: str, max_length: int, weights: bool
    ) -> dict[str, Any]:
        from vllm.platforms import current_platform

        return {
            "model": str(folder),
            "runner": "generate",
            "dtype": dtype,
            "load_format": "auto" if weights else "dummy",
            "generation_config": "vllm",  # none: every prompt says all
            # After a full window vLLM still chooses a token and wants room for it; the last place
            # is never read.
            "max_model_len": max_length + 1,
            "max_num_seqs": self._options.batch_size,
            "tensor_parallel_size": self._options.tensor_parallel_size,
            "gpu_memory_utilization": self._options.gpu_memory_utilization,
            "worker_extension_cls": "evaluators.engines.vllm.weight_transfer.WeightTaker",
            "enforce_eager": current_platform.is_cpu(),  # compiling takes minutes there
            "disable_log_stats": True,
            "seed": 0,
            "trust_remote_code": consent.code(),
        }

    def _forget(self) -> None:
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache is in use")

    @contextmanager
    def _broken_unless_done(self, what: str) -> Iterator[None]:
        """Say so where vLLM failed: what it left behind answers nothing any more."""
        if self.broken:
            raise EvaluationError("vLLM failed before, or was ended; it must be started anew")
        self.broken = True
        try:
            with hushed_logs():
                yield
        except Exception as error:
            raise EvaluationError(f"vLLM could not {what}: {_in_a_line(error)}") from error
        self.broken = False


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """vLLM seeds all there is when it starts."""
    import torch

    states = random.getstate(), np.random.get_state()  # noqa: NPY002  what vLLM seeds
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _in_a_line(error: Exception) -> str:
    text = " ".join((str(error) or repr(error)).split())
    return f"{type(error).__name__}: {text[:_SHOWN]}"
