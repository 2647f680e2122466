"""Question: how many evaluations of the same items does a step of a search by gradient cost?

``Engine.backward`` on the targets of some items, all parameters with gradients, against
``Evaluator.score`` of the same items. Four kinds of items:

    quickstart   the three tasks of studies/quickstart on its base: short answers, written
    long         four choices of a few words each, after contexts of 300 words of their own
    shared       four letters, after a question of 60 words and 300 words that all items begin with
    written      answers of 8 to 24 words after examples of 300 words that all items begin with

The last three on an 8-layer, 512-wide Llama with random weights. Prints the ratio of medians over
paired rounds. Below 4 is right.

    python benchmarks/gradient_step.py
    python benchmarks/gradient_step.py --kind long --items 8 --rounds 3 --json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)
from words import live_of_words

from evaluators.engines.hf.engine import live_model
from evaluators.log_control import hushed
from evaluators.protocol import Evaluator, LiveModel
from evaluators.registry import EVALUATORS

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart"
ITEMS = {"quickstart": 120, "long": 16, "shared": 32, "written": 32}
VOCABULARY = 32_000


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="+", choices=list(ITEMS), default=list(ITEMS))
    parser.add_argument("--items", type=int, help="of each task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kind:
            items = arguments.items or ITEMS[kind]
            own = kind != "quickstart"
            live, tasks = _own(Path(folder), kind, items) if own else _quickstart()
            row = {"kind": kind, "items": items * len(tasks)}
            rows.append(row | _measured(live, tasks, range(items), arguments.rounds))
            if not arguments.json:
                print(
                    "{kind:12} {items:4} items  step / evaluation {ratio:.2f}  "
                    "{step_s:.2f} s / {evaluation_s:.2f} s".format(**rows[-1])
                )
    if arguments.json:
        print(json.dumps({"rows": rows}))


def _measured(
    live: LiveModel, tasks: Sequence[Evaluator], which: Sequence[int], rounds: int
) -> dict[str, float]:
    """Return medians over paired rounds, after one of each."""
    targets = [target for task in tasks for target in task.targets(which)]
    weights = [1 / len(targets)] * len(targets)

    def step() -> None:
        live.engine.backward(targets, weights)
        live.model.zero_grad(set_to_none=True)

    def evaluation() -> None:
        for task in tasks:
            task.score(live, which)

    pairs = [(_seconds(evaluation), _seconds(step)) for _ in range(rounds + 1)][1:]
    evaluation_s, step_s = (statistics.median(part) for part in zip(*pairs, strict=True))
    return {"ratio": step_s / evaluation_s, "step_s": step_s, "evaluation_s": evaluation_s}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _quickstart() -> tuple[LiveModel, list[Evaluator]]:
    folder = QUICKSTART / "models" / "base"
    with hushed():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = [f"quickstart_{name}" for name in ("add", "sort", "rev")]
    tasks = [
        _opened("lm_eval", QUICKSTART, tokenizer, task=name, include_path="tasks") for name in names
    ]
    return live_model(model, tokenizer, batch_size=128), tasks


def _own(folder: Path, kind: str, items: int) -> tuple[LiveModel, list[Evaluator]]:
    live = live_of_words(VOCABULARY, key_value_heads=4)
    tokenizer = live.tokenizer
    rows = _rows(kind, items)
    (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry: dict[str, Any] = {"file": f"{kind}.jsonl", "prompt": "{{ q }}"}
    if kind == "written":
        return live, [_opened("exact_match", folder, tokenizer, **entry, stop="w7", max_tokens=24)]
    return live, [_opened("multiple_choice", folder, tokenizer, **entry, choices="choices")]


def _rows(kind: str, items: int) -> list[dict[str, Any]]:
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        n = draw.randint(low, high)
        return " ".join(f"w{draw.randrange(8, VOCABULARY)}" for _ in range(n))

    shared = words(300, 300)
    if kind == "long":
        choices = [[words(2, 8) for _ in range(4)] for _ in range(items)]
        return [{"q": words(250, 350), "choices": x, "answer": 0} for x in choices]
    if kind == "shared":
        letters = ["w2", "w3", "w4", "w5"]
        return [
            {"q": f"{shared} {words(50, 70)}", "choices": letters, "answer": 0}
            for _ in range(items)
        ]
    return [{"q": f"{shared} {words(10, 30)}", "answer": words(8, 24)} for _ in range(items)]


def _opened(name: str, folder: Path, tokenizer: Any, **entry: Any) -> Evaluator:
    plugin = EVALUATORS.get(name)
    opened = plugin.open(plugin.options(**entry), folder, tokenizer)
    assert isinstance(opened, Evaluator)
    return opened


if __name__ == "__main__":
    main()
