"""Question: how many trials does the order of a model's layers take, once it is lost?

A small transformer is trained on the quickstart's skills (add, sort, reverse), written out as text;
its layers start wide, so that each does something that the next ones need. Then it is cut into two
parents: its first and its last layer stay the ends of the first one, the layers between are
shuffled and dealt to both. A study searches the layer path that has the lowest bits per byte, from
the first parent's own; the planted order is the one of the trained model. CMA-ES searches signs, of
as many rows as the planted order needs to stand in them. Prints, for each sampler and seed (of the
cut and of the search), after how many trials the order was there, and a JSON line.

    python benchmarks/planted_path.py --samplers moves random tpe cma-es --seeds 5
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import torch

from merge_core.recipe.schema import Recipe
from search.run.loop import search
from search.run.resume import open_for
from search.space.hops import hops_of
from search.spec import study_file
from search.trial.progress import Unheard
from search.trial.worker import Worker

sys.path.insert(0, str(Path(__file__).parents[1] / "studies" / "quickstart"))
from problems import SKILLS, STOP, draw, draw_distinct
from train import BATCH, LONGEST_TEXT, PAD, TOKENIZER, Trainer
from transformers import LlamaConfig, LlamaForCausalLM

WIDTH, SPREAD, RATE = 48, 0.15, 3e-3  # the spread of the first weights makes layers matter
STUDY = """
name: planted-{sampler}-{seed}
recipe:
  slices: {{path: {{parents: [first, second], max_layers: {layers}, {more}}}}}
  dtype: float32
score:
  - {{evaluator: bits_per_byte, file: texts.jsonl}}
items: {{search: {items}, select: 10, report: rest}}
search: {{sampler: {sampler}, seed: {seed}, trials: {trials}}}
engine: {{device: cpu, batch_size: 64, threads: 1}}
"""


class OnText(Trainer):
    """The quickstart's trainer, on every character, not on the answers alone."""

    def steps(self, n: int, shares: Mapping[Any, float]) -> None:
        """Take ``n`` steps."""
        for _ in range(n):
            skills = self._stream.choices(list(shares), list(shares.values()), k=BATCH)
            ids = padded([text_of(draw(skill, "train", self._stream)) for skill in skills])
            self._adam.zero_grad()
            labels = ids.masked_fill(ids == PAD, -100)
            self._model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._adam.step()
            self._schedule.step()


def text_of(problem: Any) -> str:
    """Return a problem with its answer."""
    return f"{problem.prompt}{problem.answer}{STOP}"


def padded(texts: Sequence[str]) -> torch.Tensor:
    """Return (n, length) token ids; the first token stands first, as where texts are scored."""
    rows = [[TOKENIZER.bos_token_id, *TOKENIZER.encode(text)] for text in texts]
    ids = torch.full((len(rows), max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids


def trained(layers: int, steps: int, seed: int) -> LlamaForCausalLM:
    """Return a trained model."""
    model = LlamaForCausalLM(config_of(layers))
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data.normal_(0.0, SPREAD, generator=generator)
    trainer = OnText(model, rate=RATE, horizon=steps, stream=random.Random(f"planted {seed}"))
    trainer.steps(steps, dict.fromkeys(SKILLS, 1.0))
    return model


def config_of(layers: int) -> LlamaConfig:
    """Return the config of a model with so many layers."""
    return LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LONGEST_TEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        pad_token_id=PAD,
    )


def cut(layers: int, seed: int) -> dict[str, list[int]]:
    """Return which layers of the model the parents have, in their order."""
    inner = list(range(1, layers - 1))
    random.Random(seed).shuffle(inner)
    half = len(inner) // 2
    return {"first": [0, *inner[:half], layers - 1], "second": inner[half:]}


def write(model: LlamaForCausalLM, dealt: Mapping[str, list[int]], folder: Path) -> None:
    """Write the parents, and the texts that the search is scored on."""
    for name, layers in dealt.items():
        parent = LlamaForCausalLM(config_of(len(layers)))
        mine, whole = parent.model, model.model
        mine.embed_tokens.load_state_dict(whole.embed_tokens.state_dict())
        mine.norm.load_state_dict(whole.norm.state_dict())
        for i, layer in enumerate(layers):
            mine.layers[i].load_state_dict(whole.layers[layer].state_dict())
        parent.save_pretrained(folder / name)
        TOKENIZER.save_pretrained(folder / name)
    problems = [p for skill in SKILLS for p in draw_distinct(skill, "check", 60, seed=1)]
    lines = [json.dumps({"text": text_of(problem)}) for problem in problems]
    (folder / "texts.jsonl").write_text("\n".join(lines))


def rows_needed(dealt: Mapping[str, list[int]]) -> int:
    """Return how often all layers must stand in a row for the planted order to be a part of it."""
    row = [layer for layers in dealt.values() for layer in layers]
    places = [row.index(layer) for layer in range(len(row))]
    return 1 + sum(b < a for a, b in pairwise(places))


def order_of(recipe: Recipe, dealt: Mapping[str, list[int]]) -> list[int]:
    """Return the model's layers in the order of a path."""
    if not recipe.slices:
        return []
    return [dealt[hop.model][hop.layer] for hop in hops_of(recipe)]


def searched(
    model: LlamaForCausalLM, sampler: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Search until the order is there or the trials are over."""
    dealt = cut(options.layers, seed)
    rows = rows_needed(dealt) if sampler == "cma-es" else 1
    more = f"encoding: {'signs' if sampler == 'cma-es' else 'hops'}, repeats: {rows}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(model, dealt, folder)
        text = STUDY.format(
            sampler=sampler,
            seed=seed,
            layers=options.layers,
            trials=options.trials,
            items=options.items,
            more=more,
        )
        (folder / "study.yaml").write_text(text)
        spec = study_file.read(folder)
        spec.results.mkdir()
        record = open_for(spec)
        wanted = list(range(options.layers))
        start = time.perf_counter()
        with record.writing():
            search(
                spec,
                record,
                Worker(spec.data, spec.folder),
                Unheard(),
                lambda: bool(record.trials) and order_of(record.trials[-1].recipe, dealt) == wanted,
            )
        drawn = [t for t in record.trials if not t.baseline]
        found = bool(drawn) and order_of(drawn[-1].recipe, dealt) == wanted
        values = [t.value for t in record.trials if t.value is not None]
        return {
            "sampler": sampler,
            "seed": seed,
            "rows": rows,
            "trials": len(drawn) if found else None,
            "bits_per_byte": -max(values),
            "seconds": round(time.perf_counter() - start, 1),
        }


def main() -> None:
    """Train, search, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samplers", nargs="+", default=["moves", "random", "tpe", "cma-es"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--model", type=int, default=1, help="seed of the trained model")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    model = trained(options.layers, options.steps, options.model)
    rows = []
    for sampler in options.samplers:
        for seed in range(options.seeds):
            rows.append(searched(model, sampler, seed, options))
            needed = rows[-1]["trials"] or f"not in {options.trials}"
            print(
                f"{sampler:8} seed {seed}: trials {needed}, best "
                f"{rows[-1]['bits_per_byte']:.4f} bits/byte, {rows[-1]['seconds']} s",
                flush=True,
            )
        of = [row for row in rows if row["sampler"] == sampler]
        print(f"{sampler:8} recovered {sum(row['trials'] is not None for row in of)} of {len(of)}")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
