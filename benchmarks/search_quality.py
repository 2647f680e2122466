"""Question: which search finds the best merge for the same number of item evaluations?

Two kinds of spaces. ``quickstart-24`` and ``quickstart-114`` are real studies of the quickstart's
models (a weight per expert, layer and block; a weight per expert and tensor): every sampler gets
the same baselines and pools. Of the eight trials with the best search scores the best one on the
select items is the winner; what is compared is its score on the report items, which chose nothing.
``landscape-D`` are made up: D numbers in [0, 1], an item is right with a probability that falls
with the distance from an optimum, some directions counting much more than others; the number is the
true score of the winner.

``random``, ``tpe-default`` and ``cma-default`` are Optuna's with default arguments, kept from ask
to ask as Optuna keeps them. ``pycma`` is run as mergekit-evolve runs it: x0 at 1 / models, sigma
1/6. ``none`` is the best of the baselines: no search. A gradient step counts as three evaluations
of its items. Prints mean and 95 % interval (Student) over the seeds for each cell, and at the end
``{"rows": [{"space", "sampler", "seed", "items", "report"}]}``.

    python benchmarks/search_quality.py --spaces quickstart-114 --samplers random auto --seeds 5
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from scipy import stats

from search.report.measure import REPORT, SELECT, measure
from search.run.loop import search
from search.run.resume import open_for
from search.run.steps import most_steps
from search.samplers.ask import ask
from search.samplers.gradient import GradientSearch
from search.samplers.registry import SAMPLERS, SamplerPlugin, find
from search.samplers.shipped import make_near
from search.samplers.steps import Measured
from search.spec import study_file
from search.storage.study_record import Record
from search.trial.progress import Unheard
from search.trial.worker import Worker

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart"
OURS = ("cma-es", "gradient", "auto")
ALL = ("none", "random", "tpe-default", "cma-default", "pycma", *OURS)
SPACES = ("quickstart-24", "quickstart-114", *(f"landscape-{d}" for d in (10, 32, 64, 256)))
KNOBS = {
    "quickstart-24": "[{filter: self_attn, value: {low: 0, high: 1.5, per: layer}}, "
    "{value: {low: 0, high: 1.5, per: layer}}]",
    "quickstart-114": "{low: 0, high: 1.5, per: tensor}",
}
STUDY = """
name: {space}-{sampler}-{seed}
recipe:
  merge_method: task_arithmetic
  base_model: models/base
  models:
    - {{model: models/add, parameters: {{weight: {knob}}}}}
    - {{model: models/sort, parameters: {{weight: {knob}}}}}
    - {{model: models/rev, parameters: {{weight: {knob}}}}}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: tasks}}
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: tasks}}
  - {{evaluator: lm_eval, task: quickstart_rev, include_path: tasks}}
items: {{search: 360, select: 360, report: rest}}
search: {{sampler: {sampler}, seed: {seed}, trials: {trials}}}
engine: {{device: cpu, batch_size: 128, threads: 1}}
"""


class Pycma(BaseSampler):
    """pycma's CMA-ES as mergekit-evolve calls it: ``fmin2``'s loop, x0 and sigma0 = 1/6."""

    def __init__(self, space: Mapping[str, Any], x0: float, seed: int) -> None:
        import cma

        self._space, self._waiting, self._told = dict(space), [], []
        options = {"seed": seed + 1, "verbose": -9, "bounds": [0, 1]}
        self._cma = cma.CMAEvolutionStrategy([x0] * len(space), 1 / 6, options)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Return the whole space."""
        return self._space

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, float]:
        """Return the next point of the generation."""
        if not self._waiting:
            self._waiting = list(self._cma.ask())
        point = self._waiting.pop(0)
        self._told.append(point)
        pairs = zip(self._space.items(), point, strict=True)
        return {name: d.low + float(x) * (d.high - d.low) for (name, d), x in pairs}

    def sample_independent(self, *arguments: Any) -> Any:
        """Never asked."""
        raise AssertionError("every number is drawn with the others")

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Tell a generation once it is whole."""
        self._cma_losses = [*getattr(self, "_cma_losses", []), -values[0]]
        if not self._waiting:
            self._cma.tell(self._told, self._cma_losses)
            self._told, self._cma_losses = [], []


def kept(make: Callable[..., BaseSampler], seed: int) -> SamplerPlugin:
    """Return a sampler that is made once and asked again and again, as Optuna does."""
    made: list[BaseSampler] = []

    def same(space: Any, start: Any, seed_of_ask: int) -> BaseSampler:
        if not made:
            made.append(make(space, seed))
        return made[0]

    return SamplerPlugin("kept", same)


FOREIGN: dict[str, Callable[..., BaseSampler]] = {
    "tpe-default": lambda space, seed: optuna.samplers.TPESampler(seed=seed),
    "cma-default": lambda space, seed: optuna.samplers.CmaEsSampler(seed=seed),
    "pycma": lambda space, seed: Pycma(space, 1 / 3, seed),
}


def real(space: str, sampler: str, seed: int, budget: int) -> dict[str, Any]:
    """Run a study; black-box samplers get as many trials as the budget has items for."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("models", "tasks"):
            shutil.copytree(QUICKSTART / name, folder / name)
        name = "random" if sampler == "none" else sampler
        if sampler in FOREIGN:
            name = f"{sampler}-{seed}-{space}"
            SAMPLERS.add(name, kept(FOREIGN[sampler], seed))
        trials = trials_for(sampler, budget)
        text = STUDY.format(
            space=space,
            sampler=name,
            seed=seed,
            trials=trials,
            knob=KNOBS[space],
        )
        (folder / "study.yaml").write_text(text)
        spec = study_file.read(folder)
        spec.results.mkdir()
        record = open_for(spec)
        worker = Worker(spec.data, spec.folder)
        with record.writing():
            search(spec, record, worker, Unheard(), lambda: False)
            there = [t for t in record.trials if sampler != "none" or t.baseline]
            items = sum(t.cost for t in there)
            distinct = {t.weights_digest: t.number for t in there if t.value is not None}
            ranked = sorted(distinct.values(), key=lambda n: -(record.trials[n].value or 0))
            winner = max(ranked[:8], key=partial(value, record, worker, SELECT))
            return {"items": items, "report": value(record, worker, REPORT, winner)}


def value(record: Record, worker: Worker, pool: str, number: int) -> float:
    """Return a trial's value on a pool."""
    measure(record, worker, pool, [number], Unheard())
    return worker.tasks.value(record.trials[number].measured[pool].scores, pool)[0]


def trials_for(sampler: str, budget: int) -> int:
    """Return trials for a budget of items, 11 baselines first; steps cost about .75 of a trial."""
    left = max(1, budget // 360 - 11)
    if sampler == "none":
        return 1
    return int(left * 1.25) if sampler in ("gradient", "auto") else left


class Landscape:
    """D numbers, items that are right or wrong, an optimum that is not in the middle.

    Item i is right at x where ``uniform_i < p(x + shift_i)``; p falls from .9 at the optimum, with
    the square of the distance in which a tenth of the directions count ten times.
    """

    def __init__(self, dimensions: int, seed: int, items: int = 300) -> None:
        stream = np.random.default_rng([dimensions, seed])
        self.best = stream.uniform(0.2, 0.8, dimensions)
        scale = np.where(np.arange(dimensions) % 10 == 0, 10.0, 1.0)
        self.scale = scale / scale.mean() / dimensions * 60
        self.shift = stream.normal(0, 0.1, (3, items, dimensions))  # search, select, held back
        self.luck = stream.uniform(size=(3, items))
        self.space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(dimensions)}

    def point(self, named: Mapping[str, float]) -> Any:
        """Return a named point as an array."""
        return np.array([named[name] for name in self.space])

    def logits(self, x: Any, pool: int, which: Any = slice(None)) -> Any:
        """Return the log odds of being right, item by item."""
        away = x - self.best + self.shift[pool, which]
        return 2.2 - (self.scale * away**2).sum(-1)

    def score(self, x: Any, pool: int) -> float:
        """Return the share of a pool's items that are right."""
        return float((self.luck[pool] < 1 / (1 + np.exp(-self.logits(x, pool)))).mean())

    def truth(self, x: Any) -> float:
        """Return the expected score, over items."""
        return float((1 / (1 + np.exp(-self.logits(x, 2)))).mean())

    def measured(self, x: Any, learn: Sequence[int], look: Sequence[int]) -> Measured:
        """Return what a step measures: slopes of the mean loss, and the held-out loss."""
        away = x - self.best + self.shift[0, list(learn)]
        wrong = 1 / (1 + np.exp(self.logits(x, 0, list(learn))))
        slopes = (wrong[:, None] * 2 * self.scale * away).mean(0) if len(learn) else []
        held = np.logaddexp(0, -self.logits(x, 0, list(look))).mean() if len(look) else None
        named = dict(zip(self.space, map(float, slopes), strict=False))
        return Measured(named, held_out=None if held is None else float(held))


def made_up(space: str, sampler: str, seed: int, budget: int) -> dict[str, Any]:
    """Search a landscape from the middle; the winner is the best of eight on fresh items."""
    dimensions, items = int(space.rpartition("-")[2]), 300
    land = Landscape(dimensions, seed, items)
    start = dict.fromkeys(land.space, 0.5)
    study = optuna.create_study(direction="maximize")
    seen = [(land.score(land.point(start), 0), land.point(start))]
    spent = items
    if sampler in ("gradient", "auto"):
        steps = most_steps(sampler, budget // items, dimensions)
        spent += stepped(land, start, seed, steps, budget - items, seen)
    maker = kept(FOREIGN[sampler], seed) if sampler in FOREIGN else None
    ours = {"none": None, "gradient": None, "auto": make_near}
    maker = maker or (ours[sampler] if sampler in ours else find(sampler))
    best = dict(zip(land.space, max(seen, key=lambda pair: pair[0])[1], strict=True))
    while maker is not None and spent + items <= budget:
        running = ask(study, land.space, maker, best, seed, len(study.trials))
        x = land.point(running.params)
        seen.append((land.score(x, 0), x))
        study.tell(running, seen[-1][0])
        spent += items
    finalists = [x for _, x in sorted(seen, key=lambda pair: -pair[0])[:8]]
    winner = max(finalists, key=lambda x: land.score(x, 1))
    return {"items": spent, "report": land.truth(winner)}


def stepped(
    land: Landscape,
    start: Mapping[str, float],
    seed: int,
    steps: int,
    budget: int,
    seen: list[Any],
) -> int:
    """Go by gradient until steps or budget end; return what it cost."""
    items = {"items": [str(i) for i in range(300)]}
    search = GradientSearch(land.space, set(land.space), start, items, seed)
    done: list[Measured] = []
    spent = 0
    while spent < budget and (step := search.next(done, steps)) is not None:
        learn, look = step.learn.get("items", ()), step.look.get("items", ())
        x = land.point(step.point)
        found = land.measured(x, learn, look)
        done.append(Measured(found.slopes, held_out=found.held_out, mean=step.mean))
        spent += 3 * len(learn) + len(look)
        if step.scored:
            seen.append((land.score(x, 0), x))
            spent += 300
    return spent


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and half the width of its 95 % interval."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def main() -> None:
    """Parse, search, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=SPACES)
    parser.add_argument("--samplers", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--items", type=int, default=14_400, help="item evaluations of a search")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows, cells = [], defaultdict(list)
    for space in options.spaces:
        run = partial(real if space in KNOBS else made_up, space)
        for sampler in options.samplers:
            for seed in range(options.seeds):
                found = run(sampler, seed, options.items)
                rows.append({"space": space, "sampler": sampler, "seed": seed, **found})
                cells[space, sampler].append(found["report"])
            if not options.json:
                mean, half = interval(cells[space, sampler])
                print(f"{space:15} {sampler:12} {mean:.4f} +- {half:.4f}", flush=True)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
