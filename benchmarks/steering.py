"""Question: which score of a few items ranks candidates as their accuracy on other items does?

The quickstart as multiple choice. Spearman's rank correlation of 40 random recipes' scores on n of
100 items a task with their accuracy on the rest; then the accuracy of winners of short searches.

    python benchmarks/steering.py --seeds 4
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import spearmanr

from search.run import study as whole
from search.spec import study_file
from search.trial.worker import Job, Worker
from search.views import tables
from search.views.progress_line import ProgressLine, hush_libraries

STUDY = Path(__file__).resolve().parents[1] / "studies" / "quickstart"
SCORES = ("acc", "margin", "probability")


def main() -> None:
    """Score candidates, correlate, search, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    seeds, rows = range(parser.parse_args().seeds), []
    hush_libraries()
    with tempfile.TemporaryDirectory() as name:
        by = np.array([_scored(Path(name), score) for score in SCORES])
        for title, tasks in (("add alone", [0]), ("mean of all", [0, 1, 2])):
            for n in (5, 10, 20):
                rows.append((f"{title}, {n} items a task", *_agreement(by[:, :, tasks], n)))
        rows += [(f"winner, seed {i}", *(_won(Path(name), s, i) for s in SCORES)) for i in seeds]
    title = "rank correlation with accuracy, accuracy of winners"
    tables.OUT.print(tables.table(title, ("of", *SCORES), rows))


def _study(folder: Path, entry: dict[str, str], seed: int = 0, **items: int) -> Path:
    data = yaml.safe_load((STUDY / "study.yaml").read_text().replace("models/", f"{STUDY}/models/"))
    ask = {"prompt": "{{ prompt }}", "choices": "choices", "delimiter": "", **entry}
    data |= {"score": [], "items": items, "search": {"seed": seed, "trials": 80}}
    folder.mkdir()
    for task in ("add", "sort", "rev"):
        (folder / f"{task}.jsonl").write_text("".join(_questions(task)))
        data["score"].append({"evaluator": "multiple_choice", "file": f"{task}.jsonl", **ask})
    (folder / "study.yaml").write_text(yaml.safe_dump(data))
    return folder


def _questions(task: str) -> Iterator[str]:
    draw = random.Random(task)
    for row in map(json.loads, (STUDY / "tasks" / f"{task}.jsonl").read_text().splitlines()):
        right, near = row["answer"], {row["answer"]}
        while len(near) < 8:  # numbers near by, or a letter of the word in place of another
            i, k = draw.sample(range(len(right)), 2)
            wrong = right[:i] + right[k] + right[i + 1 :]
            near.add(str(int(right) + draw.randint(-9, 9)) if right.isdigit() else wrong)
        row |= {"answer": f"{right}.", "choices": [f"{x}." for x in draw.sample(sorted(near), 8)]}
        yield json.dumps(row) + "\n"


def _scored(folder: Path, metric: str) -> list[list[list[float]]]:  # candidate, task, item
    spec = study_file.read(_study(folder / metric, {"metric": metric}))
    worker = Worker(spec.data, spec.folder)
    space = worker.builder.space
    draw, knobs, found = np.random.default_rng(1), space.distributions(), []
    for _ in range(40):
        recipe = space.recipe({knob: draw.uniform(0, 0.9) for knob in knobs})
        found.append(list(worker.run(Job(recipe, "search")).scores.values()))
    return found


def _agreement(scores: np.ndarray, n: int) -> list[str]:
    draw, found = np.random.default_rng(2), []
    for order in (draw.permutation(100) for _ in range(300)):
        few = scores[..., order[:n]].mean((2, 3))  # (scores, candidates)
        rest = scores[SCORES.index("acc")][..., order[n:]].mean((1, 2))
        found.append([spearmanr(row, rest).statistic for row in few])
    return [f"{x:.2f}" for x in np.mean(found, 0)]


def _won(folder: Path, metric: str, seed: int) -> str:
    entry = {} if metric == "acc" else {"steer": metric}
    study = _study(folder / f"{metric}{seed}", entry, seed, search=30, select=150, report=600)
    with ProgressLine() as progress:
        return f"{whole.run(study, progress, lambda: False).winner.report.mean:.3f}"


if __name__ == "__main__":
    main()
