"""Which tensors of a candidate are others than they were, where the model of then is kept.

A record has one digest for all tensors of a candidate, which says that some differ, not which. The
winner's model is kept in the results folder, and there each tensor has a digest of its own.
"""

from __future__ import annotations

from merge_core.numerics.weights_hash import combined, tensor_digest
from merge_core.output.contents import is_whole
from merge_core.parents.open import open_parents
from search.report.files import MODEL
from search.spec.changes import differing
from search.trial.trial import Trial
from search.trial.worker import Worker


def other_tensors(worker: Worker, trial: Trial) -> list[str] | None:
    """Return the tensors in which the candidate that was just built differs from the kept model.

    Args:
        worker: Has built the trial's recipe.
        trial: Which had other weights when the study ran.

    Returns:
        Their names, in the order of the model's layers; None where the model of then is not kept,
        is not whole any more, or the engine does not tell tensor from tensor.
    """
    folder, now = worker.spec.results / MODEL, worker.builder.tensor_digests
    if not now or not is_whole(folder, trial.weights_digest):
        return None
    model = open_parents([folder.name], [folder.parent])[folder.name]
    was = {name: tensor_digest(name, model.tensor(name)) for name in model.tensors}
    if combined(was.values()) != trial.weights_digest:  # such as one with input scales
        return None
    return differing(now, was)
