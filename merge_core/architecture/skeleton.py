"""A transformers model without its weights, but with all else that a loaded one has.

Parameters and stored buffers are on torch's meta device, in the types in which a loaded model has
them; buffers that no file holds (rotary frequencies, masks) are those that transformers computes
when it loads a folder, by its own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.architecture import model_class, refused_config
from merge_core.architecture.stored_names import fix_conversions


def skeleton(config: Mapping[str, Any], where: str, dtype: Any, device: str) -> Any:
    """Return a model of a config, in evaluation mode, its weights still to be put in.

    Args:
        config: Contents of a ``config.json``.
        where: What holds it, for messages.
        dtype: torch's type of the weights.
        device: Where it is to run.

    Raises:
        CheckpointError: transformers makes no model of it.
    """
    with model_class.said_of(where):
        model = refused_config.tried(config, lambda data: _made(data, where, dtype))
    _compute_buffers(model, device)
    fix_conversions(model)
    return model.eval()


def loaded_type(model: Any, dtype: Any) -> Mapping[str, Any]:
    """Return name of a live tensor -> the type in which transformers loads it.

    That is the one it is made in, unless the class keeps it in float32 whatever its type is.
    """
    from transformers.core_model_loading import build_glob_alternation

    kept = model._get_dtype_plan(dtype)
    types = {name: x.dtype for name, x in model.state_dict(keep_vars=True).items()}
    if kept:
        pattern, patterns, _ = build_glob_alternation([*kept])
        for name in types:
            found = pattern.search(name)
            if found is not None:
                types[name] = kept[patterns[str(found.lastgroup)]]
    return types


def _made(data: Mapping[str, Any], where: str, dtype: Any) -> Any:
    from transformers.initialization import no_init_weights

    config = model_class.config_of(data)
    config.name_or_path = where
    with no_init_weights():
        return model_class.shell(config, dtype=dtype)


def _compute_buffers(model: Any, device: str) -> None:
    """Compute the buffers that are not stored, as transformers does behind loading."""
    import torch

    model._move_missing_keys_from_meta_to_device(set(), None, None, None)
    for x in model.state_dict(keep_vars=True).values():
        x._is_hf_initialized = True  # what is still to come is not computed
    with torch.no_grad():
        model._initialize_missing_keys(False)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)
