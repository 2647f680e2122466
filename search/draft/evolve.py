"""``mergetune import-evolve``: a mergekit-evolve configuration -> a study that searches its genome.

A gene is a knob. Genes have no bounds there (CMA-ES starts at 1 / number of models and takes the
absolute value, densities are cut to [0, 1]), so bounds are those that our methods declare.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.contract import Param
from merge_core.errors import ParameterError
from merge_core.methods.registry import method
from merge_core.tokenizer.chat_template import template_of
from search.draft.evolve_file import Evolve, Genome, read_evolve
from search.draft.evolve_tasks import entries
from search.draft.init import head
from search.draft.knobs import usual
from search.draft.models import Paths, look, other_vocabulary
from search.draft.tasks import Asked, include
from search.draft.write import Draft, Written, study_file_of, write

NORMALIZED = ("linear", "ties", "dare_ties")  # where ``normalize`` is not said
INVENTED = (
    "invented, since genes have none: the usual range of each parameter, weights from its negative "
    "on where they may be negative; the genes' start lies in it"
)
SAMPLER = (
    "mergekit-evolve has CMA-ES of the package cma; auto goes by gradient first, to which `per: "
    "tensor` costs no more than `per: N`; the baseline called defaults is where genes start there"
)
ELSEWHERE = (
    "Options of mergekit-evolve's command line stand under `search` (--max-fevals: trials) and "
    "`engine` (--vllm, --batch-size)."
)


@dataclass(frozen=True)
class How:
    """What the command line says beside the configuration."""

    trials: int = 100  # as --max-fevals
    layers: int | None = None  # of models that are not on this disk
    include_path: Path | None = None  # --task-search-path there


def import_evolve(config: Path, how: How, out: Path, *, tasks: bool) -> Written:
    """Write the study file of a mergekit-evolve configuration.

    Args:
        config: The configuration.
        how: What does not stand in it.
        out: The file, or the folder that gets it as ``study.yaml``.
        tasks: Open the tasks, to count their items.

    Raises:
        DocumentError: The configuration breaks rules.
        OutputExistsError: The file is there already.
        MergeError: It makes no study; the reason.
    """
    file = study_file_of(out)
    evolve = read_evolve(config)
    paths = Paths.from_file(config, file)
    merge = _Merge(evolve.genome, how, paths)
    added = include(Asked(include_path=how.include_path), paths)
    chat = merge.seen is None or template_of(merge.seen.folder) is not None
    score = entries(evolve, added, chat=chat)
    limit = evolve.settings.limit
    notes = {"bounds": INVENTED, **merge.notes, **score.notes, **_passed_over(evolve)}
    told = [f"{key}: {text}" for key, text in notes.items()]
    draft = Draft(
        merge.recipe,
        score.plain,
        {"sampler": "auto", "seed": 0, "trials": how.trials},
        {**merge.comments, **score.comments, "search": SAMPLER},
        [head(file, f"mergetune import-evolve {config.name}"), ELSEWHERE, *told],
        [None] * len(score.plain),
        most=None if limit is None else limit * len(score.plain),
        notes=notes,
    )
    return write(draft, file, tasks=tasks)


def _passed_over(evolve: Evolve) -> dict[str, str]:
    rule = "not carried over: mergekit-evolve has no such key, and passes over it"
    return dict.fromkeys(evolve.unknown, rule)


class _Merge:
    """The recipe of a genome: knobs, comments, where the genes start, and what is not in it."""

    def __init__(self, genome: Genome, how: How, paths: Paths) -> None:
        self._genome, self._paths = genome, paths
        self.comments: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self._method = method(genome.merge_method)
        self._base = self._base_of(genome)
        self.seen = look(self._base or genome.models[0], paths.roots)
        self._layers = self.seen.layers if self.seen else how.layers
        self._keys = self._spread()
        begun: dict[str, Any] = {"merge_method": genome.merge_method}
        if self._base is not None:
            begun["base_model"] = paths.model(self._base)
        slerp = genome.merge_method == "slerp"
        merged = self._slerp() if slerp else self._weighted()
        self.recipe = {**begun, **merged, "dtype": "bfloat16"}
        self.comments["recipe.dtype"] = "as mergekit-evolve merges, whatever the models are"
        self._note_the_rest()

    def _base_of(self, genome: Genome) -> str | None:
        if genome.merge_method == "slerp":
            return genome.base_model or genome.models[0]
        if genome.merge_method != "linear" or genome.base_model is None:
            return genome.base_model
        self.notes["genome.base_model"] = "not carried over: linear has no base, only models"
        return None

    def _spread(self) -> dict[str, Any]:
        """Return the keys that spread a gene over the layers as ``layer_granularity`` does."""
        size, layers = self._genome.layer_granularity, self._layers
        if size < 1:
            if self._genome.smooth:
                rule = (
                    "changes nothing, there and here: without layer_granularity there is one gene"
                )
                self.notes["genome.smooth"] = rule
            return {}
        if layers is not None and layers % size:
            rule = (
                f"mergekit-evolve wants a divisor of the {layers} layers; the last band is shorter"
            )
            self.notes["genome.layer_granularity"] = rule
        if not self._genome.smooth:
            return {"per": "layer" if size == 1 else size}
        if layers is None:
            raise ParameterError(
                "genome.smooth: the number of anchors is that of layers divided by "
                f"layer_granularity, and {self._genome.models[0]!r} is not on this disk; say "
                f"--layers N"
            )
        if layers // size < 2:
            return {}
        rule = "gradient; final norm and head have its last number here, its first one there"
        self.notes["genome.smooth"] = rule
        return {"gradient": layers // size}

    def _weighted(self) -> dict[str, Any]:
        genome = self._genome
        params = [p for p in self._method.params if p.name in ("weight", "density")]
        searched = [name for name in genome.models if name != self._base]
        if len(searched) < len(genome.models):
            rule = f"{self._base}: the base's own genes change nothing, there too; it has no knob"
            self.notes["genome.models"] = rule
        models = [
            {
                "model": self._paths.model(name),
                "parameters": {p.name: self._gene(p) for p in params},
            }
            for name in searched
        ]
        for param in params:
            self.comments[f"recipe.models[0].parameters.{param.name}"] = param.meaning
        normalize = genome.normalize
        if normalize is None:
            normalize = genome.merge_method in NORMALIZED
            self.comments["recipe.parameters"] = "as mergekit-evolve has it where it is not said"
        return {"models": models, "parameters": {"normalize": normalize}}

    def _slerp(self) -> dict[str, Any]:
        models = sorted(self._genome.models, key=lambda name: name != self._base)
        (t,) = self._method.params
        words = "there: softmax of two genes, which starts at 0.5 and has the heavier model as base"
        self.comments["recipe.parameters.t"] = f"{t.meaning}; {words}"
        return {
            "models": [{"model": self._paths.model(name)} for name in models],
            "parameters": {"t": self._knob(t)},
        }

    def _gene(self, param: Param) -> Any:
        """Return the knob of a gene; with filters one for each, and one for the rest."""
        knob = self._knob(param)
        if self._genome.allow_negative_weights and param.name == "weight":
            knob["low"] = -knob["high"]
        filters = self._genome.filters
        if not filters:
            return knob
        return [*({"filter": f, "value": dict(knob)} for f in filters), {"value": dict(knob)}]

    def _knob(self, param: Param) -> dict[str, Any]:
        return {**usual(param), **self._keys, "start": self._starts(param)}

    def _starts(self, param: Param) -> float:
        return {"density": 1.0, "t": 0.5}.get(param.name, 1 / len(self._genome.models))

    def _note_the_rest(self) -> None:
        genome = self._genome
        if genome.tokenizer_source is not None:
            main = self._base or genome.models[0]
            self.notes["genome.tokenizer_source"] = other_vocabulary(main)
        if genome.merge_method == "slerp":
            for key in ("normalize", "allow_negative_weights"):
                if getattr(genome, key):
                    self.notes[f"genome.{key}"] = "not carried over: changes nothing for slerp"
