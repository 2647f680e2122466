"""Recipe -> live model: a study's parents, where they are kept, and the candidate made of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from merge_core.errors import CheckpointError, MergeError
from merge_core.merge.nested import plan
from merge_core.mixture.gates import GATES, Gates
from merge_core.output.live_model import Candidate
from merge_core.output.router_file import write_routers
from merge_core.parents import ties
from merge_core.parents.locate import locate
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent
from merge_core.parents.residency import Placement, Store, decide, memories
from merge_core.parents.weight_files import FLOATS, TensorInfo, bytes_as
from merge_core.plan.steps import Plan
from merge_core.recipe.schema import Recipe
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from search.space.path_space import PathSpace
from search.space.space import Space
from search.spec.recipe_template import Template
from search.spec.study_file import StudySpec
from search.trial import router_file
from search.trial.backends import Host, check_device, device_of, open_host
from search.trial.behaviour import Watch, digests
from search.trial.environment import environment_of
from search.trial.trial import Fitted

if TYPE_CHECKING:
    from evaluators.protocol import LiveModel
    from merge_core.kernels.gradients import Gradients

Fit = Callable[["LiveModel", Mapping[str, Any]], Fitted]  # of a live mixture's routers
LIBRARIES = (
    *("mergetune", "torch", "transformers", "lm_eval", "optuna", "cmaes"),
    *("numpy", "scipy"),
)


class _Opened(NamedTuple):
    parents: Mapping[str, Parent]
    store: Store
    entries: int  # numbers that a candidate has
    watch: Watch


class Builder:
    """Builds candidates of one study; nothing is opened before it is needed.

    Args:
        spec: The study.
        about: What was stored when it began, if it has begun.
        threads: Of the CPU, for a study that begins and whose file does not say.
        places: Reference of a model -> where it lies here, if not where the study says.

    Raises:
        MergeError: By what asks for a parent, where one cannot be opened.
    """

    def __init__(
        self,
        spec: StudySpec,
        about: Mapping[str, Any] | None = None,
        threads: int | None = None,
        *,
        places: Mapping[str, str] | None = None,
    ) -> None:
        self._spec, self._about = spec, about
        self._places: Mapping[str, str] = places or {}
        self.results = spec.results  # where routers go that are trained
        begun = about["threads"] if about else threads
        self._threads = _set_threads(spec.engine.threads or begun)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of all candidates."""
        main = self._spec.template.base_or_first()
        place = self._places.get(main, main)
        found = locate(place, self._spec.roots, weights=False)  # so tasks are opened before them
        return open_tokenizer(found.model.folder)

    @property
    def parents(self) -> Mapping[str, Parent]:
        """The study's models by their references, baselines' included."""
        return self._opened.parents

    @cached_property
    def placement(self) -> Placement:
        """Where the parents are kept; from now on, they are."""
        check_device(self._spec.engine)
        return self._place(self._opened.store, self.parents)

    @cached_property
    def space(self) -> Space:
        """The study's dimensions."""
        template = self._spec.template
        parents = ties.aligned(self.parents, template.references())
        merged = {name: _merged(parents[name]) for name in template.references()}
        main = merged[template.base_or_first()]
        if template.path is None:
            return Space(template, main, parents=merged)
        infos = {n: {x: parents[n].tensors[x] for x in names} for n, names in merged.items()}
        return PathSpace(template, main, infos=infos)

    @property
    def live(self) -> LiveModel:
        """The candidate that was built last."""
        live = self._host.live
        assert live is not None, "build first"
        return live

    @property
    def tensor_digests(self) -> Mapping[str, int]:
        """Tensor of the candidate that was built last -> its digest; nothing before vLLM."""
        source = self._host.source
        return source.digests if isinstance(source, Candidate) else {}

    @property
    def kernels(self) -> str:
        """How candidates are merged: ``fused`` or ``blocked``."""
        return self._host.source.path

    @property
    def once(self) -> str:
        """What was computed once for all candidates so far, in words."""
        known = self._host.source.known
        return f"{known.seconds:.1f} s, {known.used / 2**20:.0f} MiB"

    def plan(self, recipe: Recipe) -> Plan:
        """Plan a recipe on the open parents.

        Raises:
            MergeError: It cannot be planned, or has a tokenizer of its own.
        """
        if recipe.tokenizer is not None:
            raise MergeError(
                "a study keeps one tokenizer for all candidates; merge the recipe with "
                "`tokenizer:` to a folder and name that folder"
            )
        return plan(recipe, self.opened(recipe))

    def opened(self, recipe: Recipe) -> Mapping[str, Parent]:
        """Return the study's models, and the file of a recipe's routers if it names one.

        Raises:
            CheckpointError: There is no such file, or it is damaged.
        """
        gates = None if recipe.moe is None else recipe.moe.gates
        if gates is None or gates in self.parents:
            return self.parents
        place = self._places.get(gates, gates)
        return {**self.parents, gates: open_parents([place], self._spec.roots)[place]}

    def build(self, recipe: Recipe) -> str:
        """Build a recipe into the live candidate and return its weights digest.

        Raises:
            MergeError: It cannot be built, or is not finite.
        """
        return self._host.build(self.plan(recipe))

    def use(self, asked: Mapping[str, int]) -> bool:
        """Score from now on with other ``threads`` or another ``batch_size``.

        Args:
            asked: What of both is known.

        Returns:
            Whether something is new, so that a candidate must be built again.
        """
        engine = self._spec.engine
        wanted = {"threads": self._threads, "batch_size": engine.batch_size, **asked}
        if wanted == {"threads": self._threads, "batch_size": engine.batch_size}:
            return False
        self._threads = _set_threads(wanted["threads"])
        self._spec = self._spec.model_copy(update={"engine": engine.model_copy(update=wanted)})
        self._host.use(self._spec.engine)
        return True

    def with_routers(self, recipe: Recipe, fit: Fit) -> tuple[Recipe, Fitted]:
        """Return a mixture with routers that are trained, and what that was.

        They go to ``gates`` in the folder ``results``, to a file named by what it holds.

        Args:
            recipe: Asks for training, see ``router_file.asks``.
            fit: Fits the live mixture's routers in place.

        Raises:
            MergeError: It cannot be built or trained.
            OutputError: The file cannot be written.
        """
        begun = self.plan(router_file.begun(recipe))
        self._host.build(begun)
        gates = begun.parents[GATES]
        assert isinstance(gates, Gates)
        with self._host.learnable(gates.names) as routers:
            fitted = fit(self.live, routers)
            file = write_routers(routers, self.results / router_file.FOLDER)
        return router_file.with_file(recipe, os.path.relpath(file, self._spec.folder)), fitted

    def slopes(self) -> AbstractContextManager[Mapping[str, Gradients]]:
        """Collect losses' gradients by the values of the live candidate's recipe.

        Raises:
            ParameterError: The engine keeps no weights in place, or the method has no slopes.
        """
        return self._host.slopes()

    def check_files(self) -> None:
        """Refuse to go on where a file of a parent is another one than when it was opened.

        Raises:
            CheckpointError: One is.
        """
        self._opened.watch.check()

    @property
    def behaviour(self) -> dict[str, str]:
        """File that decides how candidates behave, beside weights -> its digest."""
        return digests(self.parents, self._spec.template.base_or_first())

    def about(self) -> dict[str, Any]:
        """Return what is stored of the parents and the machine when a study begins.

        And the ``environment``, which each run stores, and sums of the parents' ``tensors``.
        """
        return {
            "parents": {name: parent.digest for name, parent in self.parents.items()},
            "tensors": {name: parent.sums for name, parent in self.parents.items()},
            "behaviour": self.behaviour,
            "threads": self._threads,
            "placement": self.placement.where,
            "versions": self._versions,
            "environment": self.environment,
        }

    @property
    def environment(self) -> dict[str, Any]:
        """What is known of this process before a candidate is scored."""
        placed = self.placement.where
        return environment_of(self._spec.engine, placed, self._threads, self._versions)

    @property
    def _versions(self) -> dict[str, str]:
        return {**{name: version(name) for name in LIBRARIES}, **self._host.versions}

    def changed_parents(self, about: Mapping[str, Any]) -> list[str]:
        """Return the parents whose weights are not those that the study saw."""
        seen = about["parents"]
        return [n for n, parent in self.parents.items() if n in seen and parent.digest != seen[n]]

    def _main(self, parents: Mapping[str, Parent]) -> Parent:
        return parents[self._spec.template.base_or_first()]

    @cached_property
    def _opened(self) -> _Opened:
        spec, store = self._spec, Store()
        extra = [name for recipe in spec.recipes.values() for name in recipe.references()]
        names = tuple(dict.fromkeys([*spec.template.references(), *extra]))
        where = {name: self._places.get(name, name) for name in names}
        opened = open_parents(tuple(dict.fromkeys(where.values())), spec.roots, store.open)
        parents = {name: opened[place] for name, place in where.items()}
        for parent in parents.values():
            check_causal(parent)
        entries = sum(math.prod(x.shape) for x in self._main(parents).tensors.values())
        return _Opened(parents, store, entries, Watch(parents.values()))

    def _place(self, store: Store, parents: Mapping[str, Parent]) -> Placement:
        """Keep the parents where the study file wants them, or where they fit.

        A study that began with merges on the CPU goes on so: not all sums are the same elsewhere.
        """
        engine, about = self._spec.engine, self._about
        cpu = about is not None and about.get("placement", "mapped") == "mapped"
        asked = "mapped" if cpu and engine.parents == "auto" else engine.parents
        model = candidate_bytes(self._spec.template, self._main(parents).tensors)
        device, held = device_of(engine), store.sizes()
        found = decide(asked, device, model, len(parents), held, memories(device))
        store.place(found.where, device)
        return found

    @cached_property
    def _host(self) -> Host:
        engine, folder, entries = self._spec.engine, self._spec.folder, self._opened.entries
        return open_host(engine, self.placement, folder, entries, lambda: self.tokenizer)


def _merged(parent: Parent) -> list[str]:
    """Return the tensors of a parent that parameters decide, in the order of its modules."""
    facts = parent.architecture
    return facts.in_order(
        name
        for name, found in parent.tensors.items()
        if found.dtype in FLOATS and not facts.reason_to_drop(name, parent.tensors)
    )


def candidate_bytes(template: Template, tensors: Mapping[str, TensorInfo]) -> int:
    """Return the bytes of a live candidate.

    Args:
        template: The study's recipe.
        tensors: Those of the model that candidates are like; without a type in the recipe they keep
            their own.
    """
    return sum(bytes_as(info, template.written) for info in tensors.values())


def check_causal(parent: Parent) -> None:
    """Refuse a model that does not predict each token from those before it.

    Raises:
        CheckpointError: It does not.
    """
    if parent.architecture.not_causal:
        raise CheckpointError(
            f"{parent.where}: {parent.architecture.not_causal}, and a study scores causal language "
            f"models; merge such models to a folder with mergetune merge"
        )


def _set_threads(wanted: int | None) -> int:
    import torch

    if wanted is not None:
        torch.set_num_threads(wanted)
    return torch.get_num_threads()
