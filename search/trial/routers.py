"""Routers from data: those of a live mixture, fitted to the search items' right answers.

Nothing but the routers moves. They begin at zero, where every expert has the same share, and Adam
(arXiv:1412.6980) lowers the loss of mini-batches of the search pool. A quarter of that pool is held
out (``samplers/batches``). Every ``LOOK`` steps its loss is measured, of the mixture as it will
run, at the mean of the points since the last look. After ``PATIENCE`` looks without a better one
the fit goes back to the best with a third of the rate; after ``CUTS`` such cuts, or ``MOST`` steps,
it is over, and the routers are those of the best look.

A step is ``RATE / hidden size`` for each entry: what routers read is normed, so a logit moves alike
in narrow and wide models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evaluators.protocol import LiveModel
from merge_core.output.live_routers import every_row_learns
from search.samplers.batches import Batches
from search.samplers.steps import Places
from search.trial.slopes import BACKWARD, loss_of
from search.trial.tasks import SEARCH, Tasks
from search.trial.trial import Fitted

RATE = 1.5  # of a step, times the hidden size
LOOK = 5  # steps from one look at the held-out items to the next
PATIENCE = 2  # looks without a better one
CUTS = 1  # of the rate
MOST = 40  # steps
BETTER = 1e-3  # of the loss: less is no progress


def fit(live: LiveModel, tasks: Tasks, routers: Mapping[str, Any], seed: int) -> Fitted:
    """Fit the routers of a live mixture in place.

    Args:
        live: The mixture.
        tasks: Whose search items have right answers.
        routers: Stored name -> live parameter ``(rows, hidden)``, the only ones with gradients.
        seed: The study's; decides which items a step takes.

    Returns:
        What that did and cost.

    Raises:
        NonFiniteError: A loss is not finite.
        ParameterError: The class has routers of another kind.
    """
    return _Fit(live, tasks, routers, seed).run()


class _Fit:
    """Where the steps so far have led; entries are float32 whatever the model's type is."""

    def __init__(
        self, live: LiveModel, tasks: Tasks, routers: Mapping[str, Any], seed: int
    ) -> None:
        import torch

        self._live, self._tasks, self._routers = live, tasks, routers
        self._batches = Batches(tasks.clusters(SEARCH), seed)
        self._at = {name: torch.zeros_like(x, dtype=torch.float32) for name, x in routers.items()}
        self._best = self._since = {name: x.clone() for name, x in self._at.items()}
        self._loss = math.inf
        self._rate, self._worse, self._cuts, self._steps, self._items = 1.0, 0, 0, 0, 0
        self._adam = self._begun()

    def run(self) -> Fitted:
        """Go as far as it leads, and leave the model with the best routers."""
        first = self._loss = self._held_out(self._at)
        while self._steps < MOST and self._cuts <= CUTS:
            self._step()
            if self._steps % LOOK == 0:
                self._look()
        self._put(self._best)
        return Fitted(self._steps, self._items, first, self._loss)

    def _begun(self) -> Any:
        """Return Adam without memory, and forget the points since the last look."""
        import torch

        self._since = {name: torch.zeros_like(x) for name, x in self._at.items()}
        groups = [{"params": [x], "lr": self._rate * RATE / x.shape[-1]} for x in self._at.values()]
        return torch.optim.Adam(groups)

    def _step(self) -> None:
        places = self._batches.of(self._steps)
        self._put(self._at)
        with every_row_learns(self._live.model, self._routers):
            loss_of(self._tasks, self._live, places, of=places, backward=True)
        for name, router in self._routers.items():
            self._at[name].grad, router.grad = router.grad.float(), None
        self._adam.step()
        for name, x in self._at.items():
            self._since[name] += x / LOOK
        self._steps += 1
        self._items += BACKWARD * _count(places)

    def _look(self) -> None:
        mean = {name: x.clone() for name, x in self._since.items()}
        for x in self._since.values():
            x.zero_()
        loss = self._held_out(mean)
        if loss < self._loss - BETTER * abs(self._loss):
            self._best, self._loss, self._worse = mean, loss, 0
            return
        self._worse += 1
        if self._worse == PATIENCE:
            for name, x in self._best.items():
                self._at[name].copy_(x)
            self._rate, self._worse, self._cuts = self._rate / 3, 0, self._cuts + 1
            self._adam = self._begun()

    def _held_out(self, at: Mapping[str, Any]) -> float:
        self._put(at)
        self._items += _count(self._batches.held)
        held = self._batches.held
        return loss_of(self._tasks, self._live, held, of=held)

    def _put(self, at: Mapping[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, router in self._routers.items():
                router.copy_(at[name])


def _count(places: Places) -> int:
    return sum(map(len, places.values()))
