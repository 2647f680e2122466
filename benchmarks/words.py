"""A live model of random weights whose tokens are the words w2, w3, ..."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evaluators.engines.hf.engine import live_model
from evaluators.protocol import LiveModel


def live_of_words(vocabulary: int, key_value_heads: int) -> LiveModel:
    """Return a Llama of 8 layers, 512 wide, of some words and as many heads of keys and values."""
    words = {"<unk>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=2048,
        initializer_range=0.1,  # answers that do not repeat themselves
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return live_model(LlamaForCausalLM(config), tokenizer, batch_size=64)
