"""Trains a base that half knows three skills, and three experts that each finish learning one.

The base stops on accuracy, not on a step count, because a step count does not carry over between
seeds. The experts take few steps at a small rate, because experts that move further from the base
no longer merge.

    python studies/quickstart/train.py [--out DIR] [--seed N]
"""

import argparse
import copy
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from characters import LONGEST_TEXT, SPECIALS, character_tokenizer
from problems import SKILLS, STOP, Problem, Skill, draw, draw_distinct
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
TOKENIZER = character_tokenizer()
PAD = int(TOKENIZER.pad_token_id)
BATCH = 64
BASE_RATE, BASE_HORIZON = 3e-3, 1600  # learning rate, and the step at which its cosine ends
BASE_ENOUGH, BASE_AIM = 0.45, 0.55  # share of a skill at which to stop, at which to hold back
LEAST_SHARE = 0.03  # of a batch, for a skill that has reached the aim
CHECK_EVERY = 20  # steps
EXPERT_RATE, EXPERT_STEPS = 6e-4, 200
WARMUP = 50  # steps


def new_model(seed: int) -> LlamaForCausalLM:
    """Return an untrained model whose weights depend on ``seed`` alone."""
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LONGEST_TEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=SPECIALS.index("<bos>"),
        eos_token_id=SPECIALS.index("<eos>"),
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim == 2:  # the norms stay at one
            weight.data.normal_(0.0, 0.02, generator=generator)
    return model


def training_batch(problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
    """Return token ids and labels, both ``(n, length)``; only answers and ``STOP`` are labelled."""
    prompts = [TOKENIZER.encode(problem.prompt) for problem in problems]
    answers = [TOKENIZER.encode(problem.answer + STOP) for problem in problems]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(problems), length), PAD)
    labels = torch.full((len(problems), length), -100)  # -100: no loss here
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return ids, labels


@torch.inference_mode()
def accuracy(model: LlamaForCausalLM, problems: Sequence[Problem]) -> float:
    """Return the share of ``problems`` that greedy decoding answers exactly, in [0, 1].

    Greedy decoding writes the right answer if and only if every right character is the likeliest
    after the right ones before it, so one pass over prompts with answers is enough.
    """
    ids, labels = training_batch(problems)
    likeliest, wanted = model(input_ids=ids).logits.argmax(-1)[:, :-1], labels[:, 1:]
    return float(((likeliest == wanted) | (wanted == -100)).all(1).float().mean())


class Trainer:
    """AdamW with a warm-up and a cosine, on a stream of problems that depends on the seed alone."""

    def __init__(
        self, model: LlamaForCausalLM, *, rate: float, horizon: int, stream: random.Random
    ) -> None:
        self._model, self._stream = model, stream
        self._adam = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam,
            lambda t: min(1, (t + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * t / horizon)),
        )

    def steps(self, n: int, shares: Mapping[Skill, float]) -> None:
        """Take ``n`` steps on batches whose skills are drawn in proportion to ``shares``."""
        for _ in range(n):
            skills = self._stream.choices(list(shares), list(shares.values()), k=BATCH)
            ids, labels = training_batch([draw(s, "train", self._stream) for s in skills])
            self._adam.zero_grad()
            self._model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._adam.step()
            self._schedule.step()


def train_base(seed: int) -> LlamaForCausalLM:
    """Train on all four skills until each of ``SKILLS`` is known by half.

    Skills race ahead of each other in an order that changes with the seed, so the mixture leans on
    the ones that lag: a skill's share is what it lacks, and little once it has enough.

    Raises:
        RuntimeError: a skill is not known by half when the learning rate has come down to zero.
    """
    model = new_model(seed)
    trainer = Trainer(
        model, rate=BASE_RATE, horizon=BASE_HORIZON, stream=random.Random(f"base {seed}")
    )
    probes = {skill: draw_distinct(skill, "check", 200, seed=1) for skill in SKILLS}
    known = dict.fromkeys(SKILLS, 0.0)
    for step in range(0, BASE_HORIZON, CHECK_EVERY):
        shares: dict[Skill, float] = {
            skill: LEAST_SHARE + max(0.0, BASE_AIM - known[skill]) for skill in SKILLS
        }
        trainer.steps(CHECK_EVERY, {**shares, "next": 0.1})
        known = {skill: accuracy(model, probe) for skill, probe in probes.items()}
        print(f"base step={step + CHECK_EVERY}", _row(known), flush=True)
        if min(known.values()) >= BASE_ENOUGH:
            return model
    raise RuntimeError(
        f"every skill must reach {BASE_ENOUGH} in {BASE_HORIZON} steps, got {_row(known)} "
        f"with seed {seed}; try another --seed"
    )


def train_expert(base: LlamaForCausalLM, skill: Skill, seed: int) -> LlamaForCausalLM:
    """Return a copy of ``base`` trained on ``skill`` alone; ``base`` is left as it was."""
    model = copy.deepcopy(base)
    stream = random.Random(f"expert {skill} {seed}")
    trainer = Trainer(model, rate=EXPERT_RATE, horizon=EXPERT_STEPS, stream=stream)
    trainer.steps(EXPERT_STEPS, {skill: 1.0})
    return model


def rounded(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return a float32 copy of ``model`` whose weights bfloat16, the files' precision, can hold."""
    copied = copy.deepcopy(model)
    for weight in copied.parameters():
        weight.data.copy_(weight.bfloat16())
    return copied


def write(model: LlamaForCausalLM, folder: Path, meaning: str) -> None:
    """Write a Hugging Face model folder in bfloat16."""
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    text = f"# {folder.name}\n\n{meaning}\nMade by `studies/quickstart/train.py`. Apache-2.0.\n"
    (folder / "README.md").write_text(text)


def _row(known: Mapping[Skill, float]) -> str:
    return " ".join(f"{skill}={share:.3f}" for skill, share in known.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Train the four models, write them, and print how each does on each skill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "models", help="folder of the models")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # sums in another order would end in another model
    base = rounded(train_base(arguments.seed))
    models = {"base": base}
    write(base, arguments.out / "base", "Half knows add, sort and rev, and also next.")
    for skill in SKILLS:
        models[skill] = rounded(train_expert(base, skill, arguments.seed))
        write(models[skill], arguments.out / skill, f"The base, trained further on {skill} alone.")
    fresh = {skill: draw_distinct(skill, "check", 400, seed=2) for skill in SKILLS}
    for name, model in models.items():
        known = {skill: accuracy(model, problems) for skill, problems in fresh.items()}
        print(f"{name:5}", _row(known), f"mean={sum(known.values()) / len(known):.3f}")


if __name__ == "__main__":
    main()
