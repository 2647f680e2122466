"""What the command line has allowed, for workers in other processes: plugins, task code, keys."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators import plugin_file
from evaluators.harness import task_files
from evaluators.jsonl import judge_key
from merge_core import consent
from search.samplers.plugin_file import READERS


@dataclass(frozen=True)
class Permissions:
    """What one process may do beyond reading a study: plain values that travel.

    Args:
        plugins: The files of ``--plugin``: their paths and what they held when they were loaded.
        trust_tasks: Whether task files may run code.
        keys: The pairs of ``--send-key``, each ``NAME=host``.
        given: What else is allowed, see ``merge_core/consent.py``.
    """

    plugins: tuple[tuple[str, bytes], ...] = ()
    trust_tasks: bool = False
    keys: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Permissions:
        """Return what this process may do."""
        trusted, keys = task_files.are_trusted(), judge_key.sent_keys()
        return cls(plugin_file.loaded(), trusted, keys, consent.given())

    def give(self) -> None:
        """Let this process do the same, from now on.

        Raises:
            EvaluationError: A plugin file cannot be run here.
        """
        for path, content in self.plugins:
            plugin_file.load_content(path, content, READERS)
        if self.trust_tasks:
            task_files.trust_tasks()
        judge_key.send_keys(self.keys)
        consent.allow(*self.given)
