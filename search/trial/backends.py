"""Where the weights of a candidate live: in a transformers model, or in a vLLM that stays up."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from evaluators.engines.vllm.engine import VllmEngine
from evaluators.engines.vllm.process import VllmOptions, check_installed, installed_version
from evaluators.protocol import LiveModel
from merge_core.errors import ParameterError
from merge_core.kernels import compiled, device
from merge_core.kernels.gradients import Gradients
from merge_core.merge.statistics_cache_disk import Saved
from merge_core.output import model_folder, tensor_stream
from merge_core.output.live_model import MODELS, Candidate, behaviour
from merge_core.parents.residency import Placement
from merge_core.plan.steps import Plan
from search.spec.sections import Engine


def open_host(
    engine: Engine, placement: Placement, folder: Path, entries: int, tokenizer: Callable[[], Any]
) -> Host:
    """Return the host that a study file asks for; no model is made yet.

    Args:
        engine: The study file's section.
        placement: Of the parents.
        folder: Where relative paths start.
        entries: Numbers that a candidate has.
        tokenizer: Returns the one of all candidates; called at the first build.

    Raises:
        ParameterError: vLLM is asked for and not installed.
    """
    device = device_of(engine)
    merging = "cpu" if placement.where == "mapped" else device
    fuse = compiled.wanted(engine.kernels, merging, entries)
    saved = None if engine.cache is None else Saved(folder / engine.cache, merging)
    if engine.name == "vllm":
        check_installed()
        stream = tensor_stream.Stream(fuse=fuse, room=placement.room, saved=saved)
        return Resident(engine, stream, tokenizer)
    candidate = Candidate(device, fuse=fuse, room=placement.room, saved=saved)
    return InPlace(engine, candidate, tokenizer)


class InPlace:
    """A live transformers model, overwritten in place.

    ``live`` is what evaluators see of the last candidate, None before the first; ``source`` merges
    and knows what it computed once; ``versions`` are those of libraries that only this host uses.
    """

    def __init__(self, engine: Engine, candidate: Candidate, tokenizer: Callable[[], Any]) -> None:
        self._engine, self.source, self._tokenizer = engine, candidate, tokenizer
        self.versions: dict[str, str] = {}
        self.live: LiveModel | None = None
        self._ready: OrderedDict[int, LiveModel] = OrderedDict()  # by the id of its model

    def build(self, plan: Plan) -> str:
        """Build a plan and return its weights digest.

        Raises:
            MergeError: It cannot be built, or is not finite.
        """
        from evaluators.engines.hf.engine import live_model  # imports torch

        digest = self.source.build(plan)
        model = self.source.model
        if self.live is None or self.live.model is not model:
            size, before = self._engine.batch_size, self.live
            if id(model) not in self._ready:  # which keeps its model alive, so ids stay apart
                tokenizer = self._tokenizer()
                made = live_model(model, tokenizer, batch_size=size, before=before)
                self._ready[id(model)] = made
            self.live = self._ready[id(model)]
            self._ready.move_to_end(id(model))
            if len(self._ready) > MODELS:
                self._ready.popitem(last=False)
        return digest

    def use(self, engine: Engine) -> None:
        """Score from the next build on as a section of a study file says."""
        self._engine, self.live = engine, None
        self._ready.clear()

    def slopes(self) -> AbstractContextManager[Mapping[str, Gradients]]:
        """Collect losses' gradients by the values of the candidate; see ``Candidate.slopes``."""
        return self.source.slopes()

    def learnable(self, tensors: Collection[str]) -> AbstractContextManager[Mapping[str, Any]]:
        """Give live weights to be learnt in place; see ``Candidate.learnable``."""
        return self.source.learnable(tensors)


class Resident:
    """A vLLM that takes each candidate tensor by tensor; attributes as those of ``InPlace``.

    It is started at the first build, and anew where the config or the type of the weights changes
    or vLLM has failed.
    """

    def __init__(
        self, engine: Engine, source: tensor_stream.Stream, tokenizer: Callable[[], Any]
    ) -> None:
        self._engine, self.source, self._tokenizer = engine, source, tokenizer
        self._vllm: VllmEngine | None = None
        self.versions = {"vllm": installed_version()}
        self._made_for: tuple[str, str] | None = None
        self._ready: LiveModel | None = None  # of the vLLM that runs
        self.live: LiveModel | None = None

    def build(self, plan: Plan) -> str:
        """As ``InPlace.build``; a build that fails leaves no candidate."""
        if self._vllm is None or self._vllm.broken or self._made_for != behaviour(plan):
            self._stop()
            self._start(plan)
        assert self._vllm is not None
        self.live = None
        digest = self.source.send(plan, self._vllm.take)
        self.live = self._ready
        return digest

    def use(self, engine: Engine) -> None:
        """As ``InPlace.use``; vLLM is started anew."""
        self._engine = engine
        self._stop()

    def slopes(self) -> AbstractContextManager[Mapping[str, Gradients]]:
        """Refuse: vLLM keeps weights in forms of its own, and no gradients.

        Raises:
            ParameterError: Always.
        """
        raise ParameterError("a search by gradient needs `engine: {name: hf}`, got vllm")

    def learnable(self, tensors: Collection[str]) -> AbstractContextManager[Mapping[str, Any]]:
        """Refuse, as ``slopes``.

        Raises:
            ParameterError: Always.
        """
        raise ParameterError("gate_mode: trained needs `engine: {name: hf}`, got vllm")

    def _start(self, plan: Plan) -> None:
        options = VllmOptions(batch_size=self._engine.batch_size, **self._engine.of_vllm())
        shell, tokenizer = tensor_stream.shell(plan), self._tokenizer()
        with tempfile.TemporaryDirectory(prefix="mergetune-") as folder:
            model_folder.write_shell(plan, Path(folder))
            self._vllm = VllmEngine(Path(folder), shell, tokenizer, options)
        self._made_for = behaviour(plan)
        self._ready = LiveModel(shell, tokenizer, options.batch_size, self._vllm)

    def _stop(self) -> None:
        vllm, self._vllm = self._vllm, None
        self.live = self._ready = None
        if vllm is not None:
            vllm.close()


Host = InPlace | Resident


def device_of(engine: Engine) -> str:
    """Return where candidates are made: where the live model is, or before vLLM the CPU."""
    import torch

    if engine.name == "vllm":
        return "cpu"
    if engine.device != "auto":
        return engine.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(engine: Engine) -> None:
    """Refuse a device of a study that cannot hold a tensor.

    Raises:
        ParameterError: It is not there, or torch has no support for it here.
    """
    device.check_device(device_of(engine), "engine.device")
