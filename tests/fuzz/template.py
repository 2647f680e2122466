"""A small world in which everything is valid: models, an adapter, a recipe, a study, questions."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from tests import conftest
from tests.merge_core.parents import gguf_files

SAVED = Path(__file__).parents[2] / "studies" / "quickstart" / "saved" / "quickstart.zip"

RECIPE = """\
merge_method: ties
base_model: base
models:
  - model: one
    parameters: {weight: [0.2, 0.8], density: 0.5}
  - model: two
    parameters:
      weight:
        - {filter: mlp, value: 0.3}
        - {value: 0.7}
      density: 0.9
parameters: {normalize: true, int8_mask: false}
dtype: float32
"""
WEIGHTS = "merge_method: linear\nmodels:\n" + "".join(
    f"  - {{model: {name}, parameters: {{weight: 0.5}}}}\n" for name in ("one", "two")
)
SHARDED = WEIGHTS.replace("model: one", "model: sharded")
PICKLED = WEIGHTS.replace("model: one", "model: pickled")
ADAPTED = WEIGHTS.replace("model: one", "model: one+adapter")
VOCABULARY = WEIGHTS + "tokenizer: {source: union, tokens: {<pad>: {source: one}}}\n"
CHAT = WEIGHTS + "chat_template: auto\n"
UNPACKED = "merge_method: passthrough\nmodels: [{model: packed/model.gguf}]\n"
SLICES = """\
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 2]}]
  - sources: [{model: two, layer_range: [1, 4], parameters: {scale: 1.0}}]
tokenizer: {source: one}
chat_template: chatml
"""
BANDED = """\
merge_method: dare_ties
base_model: base
parameters: {normalize: true, int8_mask: false, lambda: 0.9}
slices:
  - sources:
      - model: one
        layer_range: [0, 2]
        parameters: {density: 0.8, weight: [{filter: mlp, value: 0.4}, {value: 1.2}]}
      - {model: base, layer_range: [0, 2]}
  - sources:
      - model: one
        layer_range: [2, 4]
        parameters: {density: 1.0, weight: [{filter: mlp, value: -0.4}, {value: 0.3}]}
      - {model: base, layer_range: [2, 4]}
"""
EVOLVE = """\
genome:
  models: [one, {model: {path: two}}]
  merge_method: dare_ties
  base_model: base
  tokenizer_source: union
  layer_granularity: 2
  normalize: false
  allow_negative_weights: true
  smooth: true
  filters: [self_attn, mlp]
tasks:
  - {name: own, weight: 2.0, metric: "acc,none"}
  - other
limit: 20
num_fewshot: 1
shuffle: true
random_init: false
apply_chat_template: false
fewshot_as_multiturn: true
"""
MOE = """\
base_model: base
gate_mode: hidden
experts_per_token: 1
dtype: bfloat16
architecture: qwen
experts:
  - {source_model: one, positive_prompts: [add, "1 + 2 is"], negative_prompts: [sort]}
  - {source_model: {model: {path: two}}, positive_prompts: [sort], noise_scale: 0.1,
     residual_scale: 0.5}
shared_experts:
  - {source_model: base, positive_prompts: [any], gate_scale: 0.5}
temperature: 2.0
dense_layers: [1]
"""
STUDY = """\
name: small
recipe:
  merge_method: task_arithmetic
  base_model: base
  models:
    - {model: one, parameters: {weight: {low: 0.0, high: 1.5, per: 2}}}
    - {model: two, parameters: {weight: {low: 0.0, high: 1.0, step: 0.25}}}
  parameters: {normalize: {choices: [true, false]}}
score:
  - {evaluator: exact_match, file: questions.jsonl, prompt: "{{ question }}", max_tokens: 4}
  - {evaluator: multiple_choice, file: questions.jsonl, prompt: "{{ question }}", choices: options,
     gold: gold, weight: 0.5, steer: margin}
  - {evaluator: bits_per_byte, file: questions.jsonl, text: question}
items: {search: 3, select: 4, report: 4}
search: {sampler: tpe, seed: 3, trials: 6, finalists: 2}
storage: sqlite:///results/study.db
"""
MIXED = """\
recipe:
  merge_method: linear
  models:
    - {model: one, parameters: {weight: {low: 0.1, high: 1.0, per: layer}}}
    - {model: two, parameters: {weight: 1}}
  moe:
    architecture: qwen
    gate_mode: {choices: [cheap_embed, trained]}
    experts_per_token: {choices: [1, 2]}
    temperature: {low: 0.1, high: 10, log: true}
    dense_layers: {per: layer}
    experts:
      - {source_model: one, positive_prompts: [add], take_part: {choices: [true, false]}}
      - {source_model: two, positive_prompts: [sort], gate_scale: {low: 0.5, high: 2}}
      - {source_model: base, positive_prompts: [any], residual_scale: {low: 0, high: 1}}
    shared_experts:
      - {source_model: base, positive_prompts: [any], noise_scale: {low: 0, high: 0.1}}
  seed: {low: 0, high: 9}
  dtype: float32
score:
  - {evaluator: exact_match, file: questions.jsonl, prompt: "{{ question }}", answer: answer}
items: {search: 3, select: 3, report: 3}
"""
ASKED = """\
recipe:
  merge_method: linear
  models:
    - {model: one, parameters: {weight: {low: 0.0, high: 1.0}}}
    - {model: two, parameters: {weight: 1}}
items: {search: 3, select: 3, report: 3}
score:
"""
TASKS = ASKED + "  - {evaluator: lm_eval, task: own, include_path: tasks, num_fewshot: 1}\n"
CHATTED = (
    ASKED
    + "  - {evaluator: exact_match, file: questions.jsonl, prompt: '{{ question }}', max_tokens: 4,"
    + " apply_chat_template: true}\n"
)
TASK = """\
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "Q: {{ question }}"
doc_to_target: gold
doc_to_choice: options
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
TEMPLATE = (
    "{%- for message in messages %}{{ '<' + message['role'] + '>' + message['content'] | trim }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
CARD = """\
---
license: mit
language: [en]
base_model: org/base
---
# A model
"""
STORAGE = "sqlite:///results/study.db"


def make(folder: Path) -> None:
    """Fill a folder that does not exist yet."""
    models = folder / "models"
    conftest._make_family(models, "llama-tied", "float32")
    for name in ("base", "one", "two"):
        (models / name).rename(folder / name)
        (folder / name / "README.md").write_text(CARD)
        (folder / name / "chat_template.jinja").write_text(TEMPLATE)
    shutil.rmtree(models)
    _other_forms(folder)
    texts = {
        "recipe": RECIPE,
        "slices": SLICES,
        "moe": MOE,
        "banded": BANDED,
        "evolve": EVOLVE,
        "weights": WEIGHTS,
        "sharded": SHARDED,
        "pickled": PICKLED,
        "adapted": ADAPTED,
        "unpacked": UNPACKED,
        "vocabulary": VOCABULARY,
        "chat": CHAT,
        "study": STUDY,
        "mixed": MIXED,
        "asked": TASKS,
        "chatted": CHATTED,
        "tasks/own": TASK,
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    rows = [
        {
            "question": f"{i} + 1 is",
            "answer": [str(i + 1), "x"],
            "options": ["a", "b"],
            "gold": i % 2,
        }
        for i in range(10)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(lines)
    (folder / "tasks" / "docs.jsonl").write_text(lines)
    (folder / "storage.txt").write_text(STORAGE)
    (folder / "packed").mkdir()
    gguf_files.write(folder / "packed" / "model.gguf", gguf_files.model(num_hidden_layers=2))
    with zipfile.ZipFile(SAVED) as bundle:
        (folder / "stored.db").write_bytes(bundle.read("study.db"))
    (folder / "outside").mkdir()
    shutil.copyfile(folder / "one" / "model.safetensors", folder / "outside" / "model.safetensors")


def _other_forms(folder: Path) -> None:
    """Save one model in two shards and as a pickle, and an adapter for it."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "one" / "model.safetensors")
    for name in ("sharded", "pickled"):
        shutil.copytree(folder / "one", folder / name)
        (folder / name / "model.safetensors").unlink()
    torch.save(weights, folder / "pickled" / "pytorch_model.bin")
    halves = [dict(list(weights.items())[i::2]) for i in range(2)]
    placed = {}
    for i, half in enumerate(halves, start=1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file(half, folder / "sharded" / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(half, file)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "adapter").mkdir()
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"layers.0.mlp.down_proj": 3},
        "alpha_pattern": {},
        "bias": "none",
        "modules_to_save": None,
        "use_rslora": False,
    }
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    save_file(_factors(weights), folder / "adapter" / "adapter_model.safetensors")


def _factors(weights: dict[str, object]) -> dict[str, object]:
    import torch

    found: dict[str, object] = {}
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            rank = 3 if "layers.0.mlp.down_proj" in name else 2
            out, into = weight.shape  # type: ignore[attr-defined]
            start = "base_model.model." + name.removesuffix(".weight")
            found[f"{start}.lora_A.weight"] = torch.ones(rank, into)
            found[f"{start}.lora_B.weight"] = torch.ones(out, rank)
    return found
