"""Question: how long does a candidate's evaluation take, compared with lm-eval on the same items?

An 8-layer, 512-wide Llama with random weights answers 5-shot multiple choice and 5-shot
generation, with a vocabulary of 32,000 and of 150,000. Ours is ``LmEvalTask.score``; theirs is
``lm_eval.evaluate`` on task objects made once, with HFLM on the same model. Prints, per kind and
vocabulary, the ratio ours / theirs from paired rounds (median), and the share of our time outside
the model's forward pass. Below 0.5 is right for multiple choice, below 0.8 for generation.

    python benchmarks/evaluator_speed.py --rounds 3
    python benchmarks/evaluator_speed.py --items 12 --rounds 1 --vocabulary 32000 --json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.evaluator
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from words import live_of_words

from evaluators.harness.open import EVALUATOR
from evaluators.harness.task import LmEvalTask
from evaluators.log_control import hushed
from evaluators.protocol import LiveModel

ITEMS = {"multiple_choice": 200, "generation": 100}
BATCH = {"multiple_choice": 8, "generation": 32}  # lm-eval's; what fits 8 GiB of logits
SHOTS = 5
WORDS = 14  # of a question; a word is a token
MAX_NEW = 48


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, help="of each kind; 200 and 100 unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_000, 150_000])
    parser.add_argument("--kind", nargs="+", choices=list(ITEMS), default=list(ITEMS))
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for vocabulary in arguments.vocabulary:
            live = live_of_words(vocabulary, key_value_heads=8)
            for kind in arguments.kind:
                items = arguments.items or ITEMS[kind]
                name = _write(Path(folder), kind, vocabulary, items)
                rows.append(_measure(live, Path(folder), name, kind, arguments.rounds))
                if not arguments.json:
                    print(_line(rows[-1], items))
    if arguments.json:
        shown = [{k: v for k, v in row.items() if k != "ratios"} for row in rows]
        print(json.dumps({"rows": shown}))


def _line(row: dict[str, Any], items: int) -> str:
    ratios = row["ratios"]
    return (
        f"{row['kind']:16} {row['vocabulary']:7} {items:4} items  ours/lm_eval {row['ratio']:.2f} "
        f"(min {min(ratios):.2f}, max {max(ratios):.2f}, n={len(ratios)})  "
        f"{row['ours_s']:.1f} s / {row['lm_eval_s']:.1f} s  outside forward "
        f"{100 * row['outside_forward']:.1f} %"
    )


def _measure(live: LiveModel, folder: Path, name: str, kind: str, rounds: int) -> dict[str, Any]:
    """Return one row: medians over paired rounds, after one call of each on a few items."""
    options = EVALUATOR.options(task=name, include_path=folder.name, num_fewshot=SHOTS)
    task = EVALUATOR.open(options, folder.parent, live.tokenizer)
    assert isinstance(task, LmEvalTask)
    theirs = _theirs(live, folder, name, BATCH[kind])
    # The first candidate of a study encodes and measures the prompts; all others find the ids.
    everything = range(len(task.items))
    task.unfit(live, everything)
    for requests in task._prepared.requests:
        for request in requests:
            _encode_once(live, request)
    task.score(live, everything[:2])
    ours_s, lm_eval_s, outside = [], [], []
    for _ in range(rounds):
        with _forward_seconds(live.model) as spent:
            ours_s.append(_seconds(lambda: task.score(live, everything)))
        outside.append(1 - sum(spent) / ours_s[-1])
        lm_eval_s.append(_seconds(theirs))
    ratios = [a / b for a, b in zip(ours_s, lm_eval_s, strict=True)]
    return {
        "kind": kind,
        "vocabulary": live.model.config.vocab_size,
        "ours_s": statistics.median(ours_s),
        "lm_eval_s": statistics.median(lm_eval_s),
        "ratio": statistics.median(ratios),
        "outside_forward": statistics.median(outside),
        "ratios": ratios,
    }


def _encode_once(live: LiveModel, request: Any) -> None:
    ids = live.engine._ids  # type: ignore[attr-defined]
    if request.request_type == "loglikelihood":
        ids.pair(*request.args)
    else:
        ids.prompt(request.args[0], MAX_NEW)


def _theirs(live: LiveModel, folder: Path, name: str, batch: int) -> Callable[[], object]:
    """Return lm-eval's evaluation of the task, whose objects are made here, once."""
    with hushed():
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        loaded = manager.load(name)["tasks"]
        lm = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=batch)
    (task,) = loaded.values()
    task.set_config("num_fewshot", SHOTS)

    def run() -> object:
        task.set_fewshot_seed(1234)  # or every call has other prompts
        with hushed():
            return lm_eval.evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, log_samples=False)

    return run


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def _forward_seconds(model: torch.nn.Module) -> Iterator[list[float]]:
    """Note the seconds of every outermost forward pass."""
    spent: list[float] = []
    starts: list[float] = []

    def enter(*_: object) -> None:
        starts.append(time.perf_counter())

    def leave(*_: object) -> None:
        start = starts.pop()
        if not starts:
            spent.append(time.perf_counter() - start)

    parts = {model, model.base_model}
    hooks = [p.register_forward_pre_hook(enter) for p in parts]
    hooks += [p.register_forward_hook(leave) for p in parts]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def _write(folder: Path, kind: str, vocabulary: int, items: int) -> str:
    """Write a task and its documents; return its name."""
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        n = draw.randint(low, high)
        return " ".join(f"w{draw.randrange(2, vocabulary)}" for _ in range(n))

    docs: list[dict[str, Any]] = [
        {"q": words(WORDS // 2, WORDS * 3 // 2), "choices": [words(1, 4) for _ in range(4)], "a": 0}
        for _ in range(items + 4 * SHOTS)  # more shots than asked for: each item draws its own
    ]
    if kind == "generation":
        docs = [{"q": doc["q"], "a": words(8, 24)} for doc in docs]
    name = f"{kind}-{vocabulary}"
    for part, some in (("test", docs[4 * SHOTS :]), ("shots", docs[: 4 * SHOTS])):
        text = "".join(json.dumps(doc) + "\n" for doc in some)
        (folder / f"{name}-{part}.jsonl").write_text(text)
    files = {part: str(folder / f"{name}-{part}.jsonl") for part in ("test", "shots")}
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "fewshot_split": "shots",
        "doc_to_text": "q",
        "doc_to_target": "a",
        "metadata": {"version": 1.0},
        **KINDS[kind],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return name


KINDS: dict[str, dict[str, Any]] = {
    "multiple_choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "generation": {
        "output_type": "generate_until",
        # Two equal digits in a word, or the limit: answers of many lengths.
        "generation_kwargs": {"until": ["77", "33"], "max_gen_toks": MAX_NEW, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


if __name__ == "__main__":
    main()
