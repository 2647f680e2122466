"""Question: what does a search gain over the best simple merge on a real language model?

SmolLM2-135M-Instruct with five LoRA experts that conflict: addition, subtraction, multiplication,
where things are, sentiment. One knob per expert and tensor, 150 search items. Prints the report's
table, what the search cost in evaluations of an item, and the winner minus the best merge with one
weight for all, paired over the report items (held out from all choices). The folders are not part
of the project: ``--base`` is the model, ``--data`` has ``lora-NAME`` and ``items/NAME.jsonl``.

    python benchmarks/smollm2.py --base smollm2/base --data smollm2 --seed 0
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from search.report.measure import REPORT, SELECT
from search.run.study import run
from search.storage.locate import open_study
from search.trial.tasks import Tasks
from search.trial.worker import Worker
from search.views import tables
from search.views.progress_line import ProgressLine, hush_libraries

EXPERTS = ("add", "minus", "times", "where", "feel")
SUMS = {"add": "plus", "minus": "minus", "times": "times"}
STOP = {"stop": ["<|im_end|>", "\n"], "max_tokens": 6}


def study_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the study file as plain data."""
    base, data = (str(Path(x).resolve()) for x in (options.base, options.data))
    knob = {"low": 0.0, "high": 1.25, **json.loads(options.unit)}
    score = [
        {
            "evaluator": "exact_match",
            "file": f"{data}/items/{name}.jsonl",
            "prompt": f"Q: What is {{{{ a }}}} {word} {{{{ b }}}}?\nA:",
            **STOP,
        }
        for name, word in SUMS.items()
    ]
    where = {"evaluator": "exact_match", "file": f"{data}/items/where.jsonl", **STOP}
    feel = {"evaluator": "multiple_choice", "file": f"{data}/items/feel.jsonl"}
    score.append({**where, "prompt": "{{ question }}\nAnswer:"})
    score.append({**feel, "prompt": "{{ review }} It was", "choices": "choices", "gold": "answer"})
    models = [
        {"model": f"{base}+{data}/lora-{name}", "parameters": {"weight": knob}} for name in EXPERTS
    ]
    return {
        "recipe": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": models,
            "dtype": "float32",
        },
        "score": score,
        "items": {"search": options.items, "select": 150, "report": 600},
        "search": {"sampler": options.sampler, "seed": options.seed, "trials": options.trials},
        "engine": {"device": options.device, "batch_size": 64, "threads": options.threads},
    }


def gain(tasks: Tasks, record: Any, winner: int) -> dict[str, Any]:
    """Return the winner minus the merge with one weight for all that is best on the select pool."""
    simple = [t for t in record.trials if (t.baseline or "").startswith(("simple:", "defaults"))]
    value = {t.number: tasks.value(t.measured[SELECT].scores, SELECT)[0] for t in simple}
    best = max(simple, key=lambda t: value[t.number])
    ours, theirs = (
        tasks.oriented(t.measured[REPORT].scores, REPORT) for t in (record.trial(winner), best)
    )
    found = tasks.aggregate.difference(ours, theirs)
    return {"best_simple": best.baseline, "gain": found.mean, "low": found.low, "high": found.high}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--data", required=True, help="folder with the experts and items")
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, default=150, help="search items")
    parser.add_argument("--trials", type=int, default=45)
    parser.add_argument("--unit", default='{"per": "tensor"}', help="how a knob is spread, JSON")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", help="folder for the study; it is resumed there")
    options = parser.parse_args()
    hush_libraries()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.keep or place)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(json.dumps(study_of(options), indent=1))
        with ProgressLine() as progress:
            report = run(folder, progress, lambda: False)
        assert report is not None
        tables.report(report)
        spec, record = open_study(str(folder))
        tasks = Worker(spec.data, spec.folder, record.about).tasks
        cost = sum(t.cost for t in record.trials)
        row = {"sampler": options.sampler, "seed": options.seed, "items": cost}
        row |= gain(tasks, record, report.winner.trial)
    print(json.dumps({"benchmark": "smollm2", **row}))


if __name__ == "__main__":
    sys.exit(main())
