"""All that a process needs to become a worker of a study, as plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.trial.worker import Worker
from search.workers.permissions import Permissions


@dataclass(frozen=True)
class Opening:
    """A study to open.

    Args:
        study: The study file as plain data.
        folder: Of the study file, as an absolute path.
        about: What was stored when the study began; None: it begins now.
        permissions: What the command line has allowed.
        threads: Of the CPU, for a study that begins and whose file does not say.
        environment: Variables to set before any library is imported, such as which GPUs are seen.
        directory: The working directory, where references to models may start, too.
        places: Reference of a model -> one that leads to it on this machine, if it lies elsewhere.
    """

    study: Mapping[str, Any]
    folder: str
    about: Mapping[str, Any] | None
    permissions: Permissions
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    places: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Worker:
        """Open the study in this process.

        Raises:
            MergeError: It cannot be opened here.
        """
        os.environ.update(self.environment)  # torch, which a worker imports, looks at it
        if self.directory:
            os.chdir(self.directory)
        Path(self.folder).mkdir(parents=True, exist_ok=True)  # another machine may have none
        self.permissions.give()
        return Worker(
            self.study, Path(self.folder), self.about, threads=self.threads, places=self.places
        )
