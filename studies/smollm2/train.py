"""Trains an expert of this study: a LoRA of rank 16 on SmolLM2-135M-Instruct, for one operation.

    python studies/smollm2/train.py BASE add|minus|times OUT [--steps 200]

BASE is a folder of the base's weights, as ``mergetune merge`` writes one of the GGUF. Rows of
``train/`` have a prompt and a target; the loss is of the target's tokens, and no prompt there is
one of ``items/``. Adam with decoupled decay 0, rate 1e-3 with ten steps of warm-up and a linear
decay to a tenth, 16 examples a step, gradients clipped to norm 1, seed 0: 5 to 20 minutes on two
cores. Needs peft.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = Path(__file__).resolve().parent / "train"
BATCH, RATE, WARMUP, RANK, IGNORED = 16, 1e-3, 10, 16, -100
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Example = tuple[list[int], list[int]]  # token ids of a prompt and of its target


def padded(examples: list[Example]) -> dict[str, Tensor]:
    """Return ids, mask and labels of a batch, ``(16, longest)`` each, padded on the right."""
    longest = max(len(prompt) + len(target) for prompt, target in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (prompt, target) in enumerate(examples):
        end = len(prompt) + len(target)
        ids[row, :end] = torch.tensor(prompt + target)
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(target)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def examples_of(name: str, tokenizer: Any) -> list[Example]:
    """Return all rows of an operation as token ids."""
    rows = [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text().splitlines()]
    return [
        (
            tokenizer(row["prompt"])["input_ids"],
            tokenizer(row["target"], add_special_tokens=False)["input_ids"],
        )
        for row in rows
    ]


def train(base: str, name: str, steps: int) -> Any:
    """Return the base with a trained adapter."""
    torch.manual_seed(0)
    drawn = random.Random(0)
    examples = examples_of(name, AutoTokenizer.from_pretrained(base))
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(plain, config)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP) * (1 - 0.9 * step / steps)
        loss = model(**padded(drawn.sample(examples, BATCH))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    return model


def main() -> None:
    """Parse, train, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", help="folder of the base's weights")
    parser.add_argument("name", choices=("add", "minus", "times"))
    parser.add_argument("out", help="folder for the adapter")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    train(options.base, options.name, options.steps).save_pretrained(options.out)


if __name__ == "__main__":
    main()
