"""Finds the items beside this file, because a relative path in a task's YAML would mean the cwd."""

import json
from pathlib import Path

from datasets import Dataset


def read(file: str, **_: object) -> dict[str, Dataset]:
    """Return the ``test`` split held in ``file``, a JSON-lines file in this folder.

    lm-eval calls this with a task's ``metadata`` and ``dataset_kwargs``; only ``file`` is used.
    """
    lines = (Path(__file__).resolve().parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
