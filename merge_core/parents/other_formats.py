"""What a folder holds that has no weights as they are read here, in words for the user."""

from __future__ import annotations

from pathlib import Path

from merge_core.errors import CheckpointError
from merge_core.json_text import read_json

ADAPTER = "adapter_config.json"
SHARDS = ("model-*.safetensors", "pytorch_model-*.bin")
OTHERS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx")
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
    others = ", ".join(text for text in found.values() if text)
    if others:
        return f"has {others}, no format that is read; save it by save_pretrained"
    return ""


def _base(folder: Path) -> str | None:
    try:
        base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    except CheckpointError:  # what it says is a hint only
        return None
    return base if isinstance(base, str) and base else None


def _named(folder: Path, pattern: str) -> str:
    names = sorted(file.name for file in folder.glob(pattern) if file.is_file())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
