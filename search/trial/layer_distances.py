"""Which layers of a model matter: how much each turns the residual stream, on texts.

A search for a path of layers may start from these numbers; see ``LayerDistances`` for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.engines.encoding import TokenIds, longest_input
from merge_core.architecture import layer_kinds
from merge_core.errors import CheckpointError, NoPromptsError
from merge_core.merge.nested import plan
from merge_core.output.live_model import Candidate
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent
from merge_core.recipe.schema import Recipe, Source
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from search.scoring.pools import NAMES
from search.trial.builder import Builder, check_causal
from search.trial.tasks import Tasks

if TYPE_CHECKING:
    from evaluators.engines.hf.residual_stream import LayerDistances

Progress = Callable[[int, int], None]


def distances(
    references: Sequence[str],
    roots: Sequence[Path],
    texts: Sequence[str],
    *,
    device: str = "cpu",
    batch_size: int = 64,
    dtype: str | None = None,
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> dict[str, LayerDistances]:
    """Measure the layers of some models, one model after the other.

    Args:
        references: Of the models.
        roots: Folders that relative ones are tried from.
        texts: What the models read, at least one; the end is kept of one that is too long.
        device: In torch's words.
        batch_size: Texts in a forward pass, at most.
        dtype: Of the live models; None: each model's own.
        tokenizer: Of all of them; None: each model's own.
        progress: Is told how many texts are read, and how many there are, over all models.

    Returns:
        Reference -> what was measured.

    Raises:
        MergeError: A model cannot be opened or built, is no causal language model, has no stack of
            layers or no tokenizer; or a text has no tokens.
    """
    found: dict[str, LayerDistances] = {}
    for name, parent in open_parents(references, roots).items():
        check_causal(parent)
        own = open_tokenizer(parent.folder) if tokenizer is None else tokenizer
        candidate = Candidate(device)
        candidate.build(plan(Recipe("passthrough", (Source(name),), dtype=dtype), {name: parent}))
        further = None if progress is None else _further(progress, len(found), len(references))
        found[name] = _measured(candidate.model, parent, own, texts, batch_size, further)
    return found


def _further(progress: Progress, before: int, models: int) -> Progress:
    """Return what is told of one model's texts, where others were read before."""
    return lambda done, every: progress(before * every + done, models * every)


def measured_on(
    builder: Builder, reference: str, texts: Sequence[str], batch_size: int
) -> LayerDistances:
    """Measure the layers of one of a study's models, which is the live candidate then.

    Raises:
        MergeError: See :func:`distances`.
    """
    dtype = builder.space.template.written
    builder.build(Recipe("passthrough", (Source(reference),), dtype=dtype))
    parent = builder.parents[reference]
    return _measured(builder.live.model, parent, builder.tokenizer, texts, batch_size)


def prompts(tasks: Tasks) -> tuple[list[str], list[str]]:
    """Return the different prompts of a study's search items, and of which tasks there are none.

    Returns:
        The prompts in the order of tasks and pool; and a sentence for each task without.

    Raises:
        NoPromptsError: No task has any.
    """
    found: dict[str, None] = {}
    without = []
    for task, evaluator in tasks.evaluators.items():
        try:
            found |= dict.fromkeys(evaluator.prompts(tasks.pools[NAMES[0]].of(task)))
        except NoPromptsError as error:
            without.append(str(error))
    if not found:
        raise NoPromptsError(f"{'; '.join(without)}; give texts with --texts")
    return list(found), without


def _measured(
    model: Any,
    parent: Parent,
    tokenizer: Any,
    texts: Sequence[str],
    batch_size: int,
    progress: Progress | None = None,
) -> LayerDistances:
    from evaluators.engines.hf import residual_stream  # imports torch

    ids = TokenIds(tokenizer, longest_input(model.config, tokenizer))
    rows = [ids.prompt(text, 0) for text in texts]
    return residual_stream.distances(model, _layers(model, parent), rows, batch_size, progress)


def _layers(model: Any, parent: Parent) -> list[Any]:
    """Return the layers that read text: of several stacks, such as a tower beside, the decoder's.

    Raises:
        CheckpointError: There is no such stack, or several.
    """
    known = parent.architecture.stacks
    decoder = {id(module) for module in model.get_decoder().modules()}
    stacks = {str(s.stack): layer_kinds.modules(model, str(s.stack)) for s in known}
    found = {name: layers for name, layers in stacks.items() if id(layers[0]) in decoder}
    if len(found) != 1:
        raise CheckpointError(
            f"{parent.where}: expected one stack of layers that reads text, got "
            f"{', '.join(found) or 'none'}"
        )
    (layers,) = found.values()
    return layers
