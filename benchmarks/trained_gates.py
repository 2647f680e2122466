"""Question: do routers that are trained on the search items beat those made of prompts?

The quickstart's three experts as a mixture (``moe.yaml``): the same experts and the same merge of
all else, so routers are all that differs. Scores on 1,380 report items that nothing was trained on,
with 95 % intervals of paired differences; beside them the best expert alone, the uniform merge, and
with ``--dense`` the dense merge that the quickstart's search by gradient finds.

    OMP_NUM_THREADS=1 python benchmarks/trained_gates.py --seeds 3 --dense
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from merge_core.recipe.schema import Recipe, Source
from search.run import study as whole
from search.space.starting_points import defaults
from search.spec import study_file
from search.spec.recipe_file import read_recipe
from search.storage.locate import open_study
from search.trial.worker import Job, Worker
from search.views import tables
from search.views.progress_line import ProgressLine, hush_libraries

STUDY = Path(__file__).resolve().parents[1] / "studies" / "quickstart"
EXPERTS = ("models/add", "models/sort", "models/rev")


def main() -> None:
    """Train and score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dense", action="store_true", help="search a dense merge, too")
    options = parser.parse_args()
    hush_libraries()
    rows: list[tuple[str, ...]] = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            rows += _of_seed(_copied(Path(name)), seed, dense=options.dense)
    heads = ("seed", "candidate", "report score", "minus hidden", "training")
    tables.OUT.print(tables.table("mixtures of the quickstart's experts", heads, rows))


def _copied(folder: Path) -> Path:
    for name in ("models", "tasks"):
        (folder / name).symlink_to(STUDY / name)
    for name in ("moe.yaml", "moe-hidden.yaml", "study.yaml"):
        shutil.copy(STUDY / name, folder / name)
    return folder


def _of_seed(folder: Path, seed: int, *, dense: bool) -> list[tuple[str, ...]]:
    data = yaml.safe_load((folder / "moe.yaml").read_text(encoding="utf-8"))
    worker = Worker({**data, "search": {"seed": seed}}, folder)
    space = worker.builder.space
    hidden = read_recipe(folder / "moe-hidden.yaml", "", [])
    assert hidden is not None
    found: list[tuple[str, Recipe]] = []
    for k in (1, 2):
        assert hidden.moe is not None
        made = replace(hidden, moe=replace(hidden.moe, experts_per_token=k))
        asked = space.recipe({**defaults(space), "experts_per_token": k})
        found += [(f"hidden, {k} a token", made), (f"trained, {k} a token", asked)]
    plain = [Recipe("linear", (Source(x, (("weight", 1.0),)),), dtype="float32") for x in EXPERTS]
    found += [(f"{name} alone", recipe) for name, recipe in zip(EXPERTS, plain, strict=True)]
    mean = tuple(Source(x, (("weight", 1.0),)) for x in EXPERTS)
    found.append(("uniform merge", Recipe("linear", mean, dtype="float32")))
    if dense:
        found.append(("dense merge by gradient", _searched(folder, seed)))
    results = [(name, worker.run(Job(recipe, "report"))) for name, recipe in found]
    return [_row(worker, seed, name, result, results[2][1]) for name, result in results]


def _row(worker: Worker, seed: int, name: str, result: Any, hidden: Any) -> tuple[str, ...]:
    if result.failure is not None:
        raise SystemExit(result.failure.text)
    ours, theirs = (worker.tasks.oriented(x.scores, "report") for x in (result, hidden))
    mean = worker.tasks.aggregate.estimate(ours).mean
    by = worker.tasks.aggregate.difference(ours, theirs)
    how = f"{result.fitted.steps} steps, {result.seconds['routers']:.1f} s" if result.fitted else ""
    return (
        *(str(seed), name, f"{mean:.3f}"),
        *(f"{by.mean:+.3f} [{by.low:+.3f}, {by.high:+.3f}]", how),
    )


def _searched(folder: Path, seed: int) -> Recipe:
    """Return the winner of the quickstart's own study."""
    text = (folder / "study.yaml").read_text(encoding="utf-8").replace("seed: 0", f"seed: {seed}")
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    with ProgressLine() as progress:
        report = whole.run(folder / study_file.FILE, progress, lambda: False)
    assert report is not None
    return open_study(str(folder))[1].trial(report.winner.trial).recipe


if __name__ == "__main__":
    main()
