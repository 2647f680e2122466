"""What every process of the fuzzing has done before its first input; loaded by the fork server.

Libraries read much when first used, which is no input's fault. Nothing here starts a thread.
"""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import datasets  # noqa: F401
import lm_eval.api.task
import lm_eval.tasks  # noqa: F401
import torch

from evaluators.harness import index
from tests.fuzz import kinds, template

torch.set_num_threads(1)
index._own_tasks()  # 14,000 names
with tempfile.TemporaryDirectory() as name:
    folder = Path(name) / "template"
    template.make(folder)
    for kind in ("recipe", "config", "tokenizer", "jsonl", "gguf"):
        kinds.KINDS[kind].call(folder)
        for made in folder.glob("out*"):
            made.rename(folder / f"{kind}-{made.name}")
gc.collect()
gc.freeze()  # or each later collection walks through all libraries
