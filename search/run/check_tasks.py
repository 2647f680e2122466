"""What is wrong with a study's tokenizer and tasks, all at once and without a model's weights."""

from __future__ import annotations

from typing import Any

from merge_core.errors import MergeError, Problems
from merge_core.parents.locate import locate_here
from merge_core.tokenizer.parent_tokenizer import has_tokenizer, open_tokenizer
from search.scoring.objectives import named, opened_entry
from search.spec.study_file import StudySpec
from search.trial.slopes import ALONE, FIRST, left_out, refused, untrainable, without_targets
from search.trial.tasks import Tasks


def wrong_tasks(spec: StudySpec, tokenizer: Any) -> tuple[Problems, list[str]]:
    """Open what a study scores with, as a run does; consent to code and keys is needed alike.

    ``tokenizer`` is that of all candidates.

    Returns:
        Key paths in the study file, and what is wrong there; and warnings.
    """
    found: Problems = []
    opened, steering = [], {}
    for i in range(len(spec.scores)):
        try:
            one, by = opened_entry(spec, i, tokenizer)
        except MergeError as error:
            path = f"score[{i}]"
            rule = str(error).removeprefix(f"{path}.steer: ")
            found.append((path if rule == str(error) else f"{path}.steer", rule))
            continue
        opened.append(one)
        if by is not None:
            steering[i] = by
    if found:
        return found, []
    try:
        tasks = Tasks(spec, named(spec, opened, steering))
    except MergeError as error:
        return [("score", str(error))], []
    untaught = untrainable(spec, tasks)
    if untaught:
        return [("recipe.moe.gate_mode", untaught)], []
    why, sampler = without_targets(tasks), spec.search.sampler
    if why and sampler == ALONE:
        return [("search.sampler", refused(why))], []
    return [], [left_out(why)] if why and sampler == FIRST else []


def other_tokenizers(spec: StudySpec, tokenizer: Any) -> list[str]:
    """Return a warning for each model on this disk that numbers the tokens in another way."""
    own, main = tokenizer.get_vocab(), spec.template.base_or_first()
    found = []
    for name in spec.template.references():
        folder = locate_here(name, spec.roots)
        if folder is None or not has_tokenizer(folder):
            continue
        try:
            theirs = open_tokenizer(folder).get_vocab()
        except MergeError as error:
            found.append(f"{error}; candidates have that of {main}")
            continue
        others = sum(own.get(token, i) != i for token, i in theirs.items())
        if others:
            found.append(
                f"{name}: {others} tokens have other numbers in its tokenizer than in that of "
                f"{main}, which candidates have"
            )
    return found
