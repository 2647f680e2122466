"""Where a search of layer paths may begin: the entry model without the layers that it misses least.

Of every size a block is left out across which the residual stream turns least, by angular distance
on prompts of the search items (Gromov et al., arXiv:2403.17887).
"""

from __future__ import annotations

from merge_core.errors import NoPromptsError
from search.space.path_space import PathSpace
from search.space.starting_points import Baseline, cut
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.layer_distances import prompts
from search.trial.progress import Progress
from search.trial.worker import Bench

MOST = 64  # prompts that are read


def cuts(spec: StudySpec, record: Record, bench: Bench, progress: Progress) -> list[Baseline]:
    """Return paths of the entry model without blocks of its layers, as baselines.

    There are none for other studies, and none where the search has begun, which knows what it began
    with. What layers do is not to be seen under vLLM, and not known without prompts: said in a
    notice.

    Raises:
        MergeError: The entry model cannot be built.
    """
    space = bench.builder.space
    begun = any(trial.was_searched() for trial in record.trials)
    if begun or not isinstance(space, PathSpace) or not space.cut_sizes:
        return []
    try:
        texts, _ = prompts(bench.tasks)
    except NoPromptsError as error:
        progress.notice(f"no layers are left out to begin with: {error}")
        return []
    if spec.engine.name != "hf":
        progress.notice("no layers are left out to begin with: vLLM does not show what they do")
        return []
    step = -(-len(texts) // MOST)
    angular = bench.angular(space.entry, texts[::step])
    blocks = {size: angular[size - 1] for size in space.cut_sizes}
    least = {size: min(space.blocks(size), key=row.__getitem__) for size, row in blocks.items()}
    return [cut(space, first, size) for size, first in least.items()]
