"""A model folder -> one GGUF file, for llama.cpp and what is built on it; tensor by tensor.

Names are those of the ``gguf`` library; what llama.cpp wants otherwise than transformers (the order
of rows that are rotated, frequencies of Llama 3) follows its ``convert_hf_to_gguf.py``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from merge_core.contract import Tensor
from merge_core.errors import NonFiniteError, ParameterError, warn
from merge_core.json_text import read_json
from merge_core.output import gguf_vocabulary
from merge_core.output.model_card import licence
from merge_core.parents.weight_files import open_file, open_folder

Quant = Literal["q8_0", "f16", "bf16", "f32"]
QUANTS: tuple[Quant, ...] = get_args(Quant)
KINDS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ROTATED = ("llama",)  # whose rows of queries and keys stand in pairs there
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # ``enum llama_ftype``
BLOCK = 32  # numbers of a row that q8_0 packs together
ENDS = (".weight", ".bias")
if TYPE_CHECKING:
    import numpy.typing as npt

    Packed: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """One tensor: its name in the file, where it comes from, its shape and how it is packed."""

    name: str
    source: str
    shape: tuple[int, ...]
    quant: Quant


def file_name(name: str, quant: Quant) -> str:
    """Return what the file of a model is called."""
    return f"{name}-{quant.upper()}.gguf"


def check(quant: Quant | None, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse what cannot be written before hours of merging.

    Args:
        quant: How weights are to be packed; None: no file is asked for.
        config: Contents of the model's ``config.json``.
        names: Of its tensors.

    Raises:
        ParameterError: The package ``gguf`` is not installed; the model's class, its rotary
            positions or a tensor have no form here.
    """
    if quant is None:
        return
    if importlib.util.find_spec("gguf") is None:
        raise ParameterError("--gguf needs the package gguf; pip install 'mergetune[gguf]'")
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ParameterError(
            f"--gguf: expected a model of {', '.join(KINDS)}, got {kind}; merge without it, and "
            "give the folder to llama.cpp's convert_hf_to_gguf.py"
        )
    rope = _rope(config)
    if rope["rope_type"] not in ("default", "linear", "yarn", "llama3"):
        raise ParameterError(
            f"--gguf: rotary positions of the type {rope['rope_type']!r} are not written; merge "
            "without it, and give the folder to llama.cpp's convert_hf_to_gguf.py"
        )
    _targets(config, names)


def write(folder: Path, file: Path, quant: Quant, name: str) -> None:
    """Write a model folder's weights, settings and tokenizer into a GGUF file.

    Args:
        folder: The model's, whole.
        file: Is made.
        quant: How matrices are packed; rows of a length that is no multiple of 32 are float16
            where they were q8_0, and what has one axis is float32.
        name: Of the model, said in the file.

    Raises:
        ParameterError: See ``check``.
        NonFiniteError: A weight is too large for float16.
    """
    import gguf
    import numpy as np

    config = read_json(folder / "config.json")
    weights = open_folder(folder, open_file)
    targets = _targets(config, weights.tensors)
    entries = [
        Entry(targets[x], x, info.shape, _quant(info.shape, quant))
        for x, info in weights.tensors.items()
    ]
    writer = gguf.GGUFWriter(file, KINDS[config["model_type"]])
    try:
        _describe(writer, folder, config, quant, name)
        extra = _frequencies(config)
        if extra is not None:
            writer.add_tensor_info("rope_freqs.weight", extra.shape, extra.dtype, extra.nbytes)
        for entry in entries:
            kind = gguf.GGMLQuantizationType[entry.quant.upper()]
            size = math.prod(entry.shape) // kind_size(kind)[0] * kind_size(kind)[1]
            writer.add_tensor_info(entry.name, entry.shape, np.dtype("V1"), size, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if extra is not None:
            writer.write_tensor_data(extra)
        for entry in entries:
            x = weights.files[weights.tensors[entry.source].file].tensor(entry.source)
            writer.write_tensor_data(_packed(x, entry, config))
    finally:
        writer.close()


def kind_size(kind: Any) -> tuple[int, int]:
    """Return numbers and bytes of a block of a kind."""
    import gguf

    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    return int(numbers), int(size)


def _targets(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Return name of a tensor -> its name in a GGUF file."""
    import gguf

    kind = KINDS[str(config["model_type"])]
    arch = next(x for x, text in gguf.MODEL_ARCH_NAMES.items() if text == kind)
    known = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    found = {name: known.get_name(name, ENDS) for name in names}
    for name, target in found.items():
        if target is None:
            raise ParameterError(
                f"--gguf: {name} has no name in GGUF for {kind}; merge without it, and give the "
                "folder to llama.cpp's convert_hf_to_gguf.py"
            )
    return {name: str(target) for name, target in found.items()}


def _quant(shape: Sequence[int], quant: Quant) -> Quant:
    if len(shape) < 2:
        return "f32"
    return "f16" if quant == "q8_0" and shape[-1] % BLOCK else quant


def _packed(x: Tensor, entry: Entry, config: Mapping[str, Any]) -> Packed:
    import gguf
    import numpy as np

    heads = {
        "attn_q.": int(config["num_attention_heads"]),
        "attn_k.": int(config.get("num_key_value_heads") or config["num_attention_heads"]),
    }
    numbers = x.float()
    for part, count in heads.items():
        if part in entry.name and KINDS[config["model_type"]] in ROTATED:
            rows = numbers.reshape(count, 2, -1, *numbers.shape[1:])
            numbers = rows.transpose(1, 2).reshape(numbers.shape)
    kind = gguf.GGMLQuantizationType[entry.quant.upper()]
    with np.errstate(over="ignore"):
        found: Packed = gguf.quantize(numbers.contiguous().numpy(), kind)
    if entry.quant == "f16" and not np.isfinite(found).all():
        raise NonFiniteError(f"--gguf: {entry.source} has a weight beyond float16; take bf16")
    return found


def _describe(
    writer: Any, folder: Path, config: Mapping[str, Any], quant: Quant, name: str
) -> None:
    """Write what a file says beside its tensors."""
    heads = int(config["num_attention_heads"])
    size = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_name(name)
    stated = licence(folder)
    if stated is not None:
        writer.add_license(stated)
    writer.add_file_type(FILE_TYPES[quant])
    writer.add_quantization_version(2)
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    _add_positions(writer, config)
    _add_vocabulary(writer, folder, int(config["vocab_size"]))


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how positions are rotated, in the words of transformers 5, of older configs too."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_type", found.get("type", "default"))
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    return found


def _add_positions(writer: Any, config: Mapping[str, Any]) -> None:
    import gguf

    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "yarn":
        before = rope.get("original_max_position_embeddings", config["max_position_embeddings"])
        writer.add_rope_scaling_orig_ctx_len(int(before))
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True):
        warn(f"--gguf: llama.cpp reads such a model without its sliding window of {window}")


def _frequencies(config: Mapping[str, Any]) -> Packed | None:
    """Return by what each frequency of Llama 3's long texts is divided."""
    import numpy as np

    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    heads = int(config["num_attention_heads"])
    size = int(config.get("head_dim") or config["hidden_size"] // heads)
    before = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    smooth = np.clip((before / waves - low) / (high - low), 0, 1)
    found: Packed = (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)
    return found


def _add_vocabulary(writer: Any, folder: Path, rows: int) -> None:
    try:
        found = gguf_vocabulary.of(folder, rows)
    except gguf_vocabulary.NoFormError as error:
        warn(f"--gguf: the file has no tokenizer: {error}; keep that of the folder beside it")
        found = None
    if found is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model(found.kind)
    writer.add_tokenizer_pre(found.split)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.kinds)
    if found.scores is not None:
        writer.add_token_scores(found.scores)
    if found.merges:
        writer.add_token_merges(found.merges)
    for name, i in found.ids.items():
        getattr(writer, f"add_{name}_token_id")(i)
    writer.add_add_bos_token(found.begins)
    writer.add_add_eos_token(found.ends)
    writer.add_add_space_prefix(found.space)
    if found.template is not None:
        writer.add_chat_template(found.template)
