"""What a worker of a real study needs, imported once: workers begin as copies of this process.

Nothing here starts a thread.
"""

from __future__ import annotations

import gc

import datasets  # noqa: F401
import lm_eval.api.task
import lm_eval.tasks  # noqa: F401
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
from transformers.models.llama import modeling_llama  # noqa: F401

import tests.search.real  # noqa: F401
from evaluators.harness import index

torch.set_num_threads(1)
index._own_tasks()  # 14,000 names
gc.collect()
gc.freeze()  # or each later collection walks through all libraries
