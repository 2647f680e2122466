"""What a folder holds that has no weights as they are read here, in words for the user."""

from __future__ import annotations

import re
from pathlib import Path

from merge_core.json_text import hint_of
from merge_core.parents import quantized

ADAPTER = "adapter_config.json"
SHARDS = ("model-*.safetensors", "pytorch_model-*.bin")
OTHERS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
NAMED = 3  # files that a message names


def instead_of_weights(folder: Path) -> str:
    """Return what is there instead of a model's weights and what to do, or nothing.

    It follows ``{folder}: ``.
    """
    if (folder / ADAPTER).is_file():
        base = _base(folder) or "BASE"
        return (
            f"holds a LoRA adapter, no model; name it after its base: {base}+{folder.name} "
            f"(model path, +, adapter path)"
        )
    found = {pattern: _named(folder, pattern) for pattern in (*SHARDS, *OTHERS)}
    for shards, index in zip(SHARDS, ("model.safetensors", "pytorch_model.bin"), strict=True):
        if found[shards]:
            return f"has {found[shards]}, but no {index}.index.json that says what is where; add it"
    config = hint_of(folder / "config.json")
    how = quantized.told({"quantization_config": hint_of(folder / "quantize_config.json")}, [])
    if how := quantized.told(config, []) or how:
        return f"is quantized{how}; {quantized.WHAT_TO_DO}"
    others = ", ".join(text for text in found.values() if text)
    if others:
        return f"has {others}, no format that is read; save it by save_pretrained"
    return _inside(folder)


def _inside(folder: Path) -> str:
    """Return what the folders in a folder without weights have, or nothing."""
    if (folder / "zero_to_fp32.py").is_file():
        return "has shards of DeepSpeed; make weights of them with the zero_to_fp32.py in it"
    if _named(folder, "*/*.distcp"):
        return "has shards of FSDP; make weights of them with accelerate merge-weights"
    if found := re.fullmatch(r"models--([^-].*?)--(.+)", folder.name):
        return f"is a folder of the hub's cache; name the model: {found[1]}/{found[2]}"
    inner = {file.parent.name for kind in WEIGHTS for file in folder.glob(f"*/{kind}")}
    if inner:
        name = max(inner, key=lambda name: (_number(name), name))
        more = f" ({len(inner)} such folders)" if len(inner) > 1 else ""
        return f"has no weights, the folder {name} in it has; name that one{more}"
    return ""


def _number(name: str) -> int:
    """Return the number at the end of a name, as in ``checkpoint-500``; 0 if there is none."""
    found = re.search(r"(\d{1,18})$", name)
    return int(found[1]) if found else 0


def _base(folder: Path) -> str | None:
    base = hint_of(folder / ADAPTER).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def _named(folder: Path, pattern: str) -> str:
    names = sorted(file.name for file in folder.glob(pattern) if file.is_file())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
