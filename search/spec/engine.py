"""The study file's section ``engine``: what runs the model, and which keys go with what."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

OF_ONE = {  # engine -> the keys that only it has
    "hf": ("device", "parents"),
    "vllm": ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len"),
}


class Engine(BaseModel):
    """What runs the model: ``hf``, the live transformers model, or ``vllm``, which stays up.

    ``device`` is in torch's words (``auto``: the accelerator, if any) and for ``hf``; vLLM has its
    own. ``threads`` of the CPU decide the last bits of a score, so a study keeps the number it
    began with; None takes torch's own. ``kernels`` says how candidates are merged, with the same
    bits: ``fused``, ``blocked``, or ``auto``: fused where there is a compiler and the model is
    large. ``cache`` is a folder for what is computed once of parents, kept for the next study.
    ``parents`` says where they are kept, see ``placement``; it is for ``hf``. The last three are
    for ``vllm`` and mean what they mean there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Literal["hf", "vllm"] = "hf"
    device: str = "auto"
    batch_size: int = Field(64, ge=1)
    threads: int | None = Field(None, ge=1)
    kernels: Literal["auto", "fused", "blocked"] = "auto"
    cache: str | None = None
    parents: Literal["auto", "device", "pinned", "mapped"] = "auto"
    tensor_parallel_size: int | None = Field(None, ge=1)
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_model_len: int | None = Field(None, ge=2)

    def of_vllm(self) -> dict[str, Any]:
        """Return what the file says of the options that only vLLM has."""
        said = {name: getattr(self, name) for name in OF_ONE["vllm"]}
        return {name: value for name, value in said.items() if value is not None}

    def misplaced(self) -> list[tuple[str, str]]:
        """Return key path and rule for every key that belongs to another engine."""
        return [
            (f"engine.{key}", f"only for `name: {other}`; the engine here is {self.name!r}")
            for other, keys in OF_ONE.items()
            for key in keys
            if other != self.name and key in self.model_fields_set
        ]
