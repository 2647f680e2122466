"""Tiny models, and GGUF files of them written by the ``gguf`` library as llama.cpp writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = [*SPECIAL, *"0123456789abcdefghijklmnopqrstuvwxyz.,:?+-=", "Ġ", "Ċ", "ĠĠ", "ab"]
MERGES = ["Ġ Ġ", "a b"]
KINDS = {"f32": Kind.F32, "f16": Kind.F16, "bf16": Kind.BF16, "q8_0": Kind.Q8_0, "q4_1": Kind.Q4_1}
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def model(kind: str = "Llama", seed: int = 0, **more: Any) -> Any:
    """Return a random model whose weights are of one size."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **more})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = getattr(transformers, f"{kind}ForCausalLM")(config)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def packed(x: Any, kind: Kind) -> np.ndarray[Any, Any]:
    """Return a tensor's bytes; what has one axis stays float32, as in llama.cpp."""
    found = x.detach().float().numpy()
    return found if x.dim() < 2 else gguf.quantize(found, kind)


def stored(x: Any, kind: str) -> Any:
    """Return the numbers that a file of a kind holds for a tensor."""
    import torch

    if x.dim() < 2:
        return x.detach().float()
    return torch.from_numpy(gguf.dequantize(packed(x, KINDS[kind]), KINDS[kind]).copy())


def permuted(x: Any, heads: int) -> Any:
    """Return rows of a query or key projection as llama.cpp orders them: pairs for its rotation."""
    return x.reshape(heads, 2, -1, *x.shape[1:]).transpose(1, 2).reshape(x.shape)


def write(
    file: Path,
    made: Any,
    kind: str = "f32",
    *,
    arch: str = "llama",
    names_of: str | None = None,
    split: str = "default",
    tokenizer: bool = True,
    leave: tuple[str, ...] = (),
    add: dict[str, Any] | None = None,
) -> Path:
    """Write a model; ``leave`` names tensors that the file lacks, ``add`` further metadata."""
    config = made.config
    writer = gguf.GGUFWriter(file, arch)
    _describe(writer, config)
    if tokenizer:
        _write_tokenizer(writer, split)
    for key, value in (add or {}).items():
        writer.add_uint32(key, value)
    architecture = next(
        x for x, name in gguf.MODEL_ARCH_NAMES.items() if name == (names_of or arch)
    )
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, x in made.state_dict().items():
        if name in leave or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        found = next((n for part, n in heads.items() if part in name), 0)
        x = permuted(x, found) if found and arch == "llama" else x
        target = names.get_name(name, (".weight", ".bias"))
        if target is None:
            raise AssertionError(name)
        numbers = packed(x, KINDS[kind])
        writer.add_tensor(target, numbers, raw_dtype=KINDS["f32" if x.dim() < 2 else kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _describe(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)


def _write_tokenizer(writer: gguf.GGUFWriter, split: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(WORDS)
    kinds = [TokenType.CONTROL if word in SPECIAL else TokenType.NORMAL for word in WORDS]
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    for i, add in enumerate(
        (writer.add_pad_token_id, writer.add_bos_token_id, writer.add_eos_token_id)
    ):
        add(i)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
