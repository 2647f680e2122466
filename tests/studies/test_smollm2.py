"""The study on a real language model: its items are fair, and it runs on a model cut short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mergetune import run
from tests.merge_core.parents import gguf_files

STUDY = Path(__file__).resolve().parents[2] / "studies" / "smollm2"
WORDS = {"add": "plus", "minus": "minus", "times": "times"}
LAYERS = 2  # of 30
ITEMS, FEW = "{search: 240, select: 240, report: rest}", "{search: 24, select: 24, report: 30}"
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (STUDY / file).read_text().splitlines()]


@pytest.mark.parametrize("name", WORDS)
def test_items_are_right_distinct_and_none_was_trained_on(name: str) -> None:
    items, trained = (
        rows(f"items/{name}.jsonl"),
        {row["prompt"] for row in rows(f"train/{name}.jsonl")},
    )
    asked = {f"Q: What is {item['a']} {WORDS[name]} {item['b']}?\nA:" for item in items}
    assert len(asked) == len(items) >= 350
    assert not asked & trained
    made = {"add": int.__add__, "minus": int.__sub__, "times": int.__mul__}[name]
    assert all(item["answer"] == str(made(item["a"], item["b"])) for item in items)


def cut_base(folder: Path) -> None:
    """Write a model of SmolLM2's shape with two layers, and a tokenizer of bytes beside it."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *LETTERS])}
    made = gguf_files.model(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=len(vocabulary),
        tie_word_embeddings=True,
    )
    made.config.architectures = ["LlamaForCausalLM"]
    made.config.save_pretrained(folder)  # a file without a tokenizer does not say how many tokens
    gguf_files.write(folder / "base.gguf", made, "q4_1", tokenizer=False)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    ).save_pretrained(folder)


def cut_expert(source: Path, folder: Path) -> None:
    """Write an expert's adapters of the first layers."""
    shutil.copytree(source, folder)
    file = folder / "adapter_model.safetensors"
    kept = {f"layers.{i}." for i in range(LAYERS)}
    tensors = {n: x for n, x in load_file(file).items() if any(part in n for part in kept)}
    assert len(tensors) == LAYERS * 7 * 2
    save_file(tensors, file)


@pytest.mark.slow
def test_the_study_runs_on_a_model_cut_to_two_layers(tmp_path: Path) -> None:
    shutil.copytree(STUDY / "items", tmp_path / "items")
    text = (STUDY / "study.yaml").read_text().replace(ITEMS, FEW)
    (tmp_path / "study.yaml").write_text(text)
    assert FEW in text
    cut_base(tmp_path)
    for name in WORDS:
        cut_expert(STUDY / "experts" / name, tmp_path / "experts" / name)
    torch.set_num_threads(1)
    study = run(tmp_path, trials=2, force=True)  # two random layers answer nothing
    assert {"winner", "uniform", "base"} <= {*study.report.index}
    assert len(study.trials) > 5
