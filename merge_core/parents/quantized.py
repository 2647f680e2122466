"""By what a model's weights were quantized, in words for the user: told by config and names."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError
from merge_core.json_text import hint_of

# What a quantizer stores beside or instead of `x.weight`, the most telling first.
_STORED = {
    ".g_idx": "GPTQ",
    ".qzeros": "AWQ or GPTQ",
    ".qweight": "AWQ or GPTQ",
    ".q_invperm": "EXL2",
    ".quant_map": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
    ".weight_scale_inv": "FP8",
    ".weight_scale": "FP8",
    "_blocks": "MXFP4",
    ".biases": "MLX",
}
_METHODS = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "fp8": "FP8",
    "compressed-tensors": "compressed-tensors",
    "mxfp4": "MXFP4",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "hqq": "HQQ",
    "aqlm": "AQLM",
    "quanto": "quanto",
    "eetq": "EETQ",
}
PACKED = (".qweight", ".q_weight")  # how the names of a packed layer's weights end
WHAT_TO_DO = (
    "name the model that it was made from, or save it dequantized "
    "(transformers: model.dequantize(), then save_pretrained)"
)


def told(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return how weights are said to be quantized, such as `` (GPTQ, 4 bits)``, or nothing.

    Args:
        config: Contents of the model's ``config.json``.
        names: Of what is stored.
    """
    said = config.get("quantization_config") or config.get("compression_config")
    said = said if isinstance(said, Mapping) else {}
    kind = _METHODS.get(str(said.get("quant_method"))) or _by_names(names)
    bits = said.get("bits")
    number = f"{bits} bits" if isinstance(bits, int | float) and 0 < bits < 32 else None
    found = ", ".join(x for x in (kind, number) if x)
    return f" ({found})" if found else ""


def _by_names(names: Iterable[str]) -> str | None:
    there = [*names]
    return next(
        (kind for end, kind in _STORED.items() if any(name.endswith(end) for name in there)), None
    )


def refuse(folder: Path, types: Mapping[str, str], known: Container[str]) -> None:
    """Refuse weights that are stored under a quantizer's names, or in a type for quantized ones.

    Args:
        folder: That has them, and perhaps a ``config.json``.
        types: Tensor -> its type, in the words of safetensors.
        known: The types of plain numbers.

    Raises:
        CheckpointError: There are such weights.
    """
    for name, dtype in types.items():
        if name.endswith(PACKED) or dtype not in known:
            how = told(hint_of(folder / "config.json"), types)
            what = "is quantized" if dtype in known else f"is {dtype}, a quantized type"
            raise CheckpointError(f"{folder}: {name} {what}{how}; {WHAT_TO_DO}")
