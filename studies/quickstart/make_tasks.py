"""Writes the benchmark: three lm-eval tasks whose prompts no model was ever trained on.

    python studies/quickstart/make_tasks.py [--out DIR] [--seed N]

The three tasks share one set of generation arguments, so lm-eval puts them into the same batches.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from problems import LONGEST_ANSWER, SKILLS, STOP, Skill, draw_distinct

HERE = Path(__file__).resolve().parent
N_ITEMS = 700  # of about 1,012 additions that belong to the benchmark
TASK = """\
# Written by studies/quickstart/make_tasks.py
task: quickstart_{skill}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {skill}.jsonl}}
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs:
  until: ["{stop}"]
  max_gen_toks: {longest}
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def task_files(skill: Skill, seed: int = 0) -> dict[str, str]:
    """Return the text of each file of one task, by file name."""
    items = draw_distinct(skill, "benchmark", N_ITEMS, seed)
    lines = [json.dumps({"prompt": item.prompt, "answer": item.answer}) for item in items]
    yaml = TASK.format(skill=skill, stop=STOP, longest=LONGEST_ANSWER + len(STOP))
    return {f"{skill}.jsonl": "\n".join(lines) + "\n", f"{skill}.yaml": yaml}


def main(argv: Sequence[str] | None = None) -> None:
    """Write every task's files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "tasks", help="folder of the tasks")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    for skill in SKILLS:
        for name, text in task_files(skill, arguments.seed).items():
            (arguments.out / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
