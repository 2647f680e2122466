"""Model classes that are code of a model's folder, which is run where the user allows it only.

transformers does not ask here, and fetches nothing: a class is looked for in the folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core import consent

CODE_FROM = "_code_from"  # key of a config, in memory only: the folder whose code it names
MAP = "auto_map"
OTHERS = ("AutoModelForCausalLM", "AutoModel")  # of classes that the config does not name


def located(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a config as it stands in a folder, with the folder where its code may be run."""
    found = {key: value for key, value in config.items() if key != CODE_FROM}
    if consent.code() and isinstance(found.get(MAP), Mapping):
        from transformers import CONFIG_MAPPING

        if str(found.get("model_type")) not in CONFIG_MAPPING:
            found[CODE_FROM] = str(folder.resolve())
    return found


def config_of(config: Mapping[str, Any]) -> Any:
    """Return the config object for a config that ``located`` gave a folder.

    Raises:
        ValueError: It names no class, or one of another repository.
    """
    folder, named = str(config[CODE_FROM]), config[MAP]
    made = _class("AutoConfig", named, folder)
    plain = {key: value for key, value in config.items() if key not in (CODE_FROM, MAP)}
    found = made.from_dict(made._decode_special_floats(plain))
    found._mergetune_code = folder, dict(named)
    return found


def model_class(config: Any) -> Any:
    """Return the class of the folder's code for a config, or None if it is none of ``config_of``.

    Raises:
        ValueError: The folder has no class for it.
    """
    code = getattr(config, "_mergetune_code", None)
    if code is None:
        return None
    from transformers import PreTrainedModel

    folder, named = code
    names = getattr(config, "architectures", None) or ()
    keys = [key for key, one in named.items() if str(one).rpartition(".")[2] in names]
    key = next((key for key in [*keys, *OTHERS] if key in named), OTHERS[0])
    found = _class(key, named, folder)
    if not issubclass(found, PreTrainedModel):
        raise ValueError(f"{MAP}.{key}: {found.__name__} is no PreTrainedModel of transformers")
    return found


def _class(key: str, named: Mapping[str, Any], folder: str) -> Any:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    reference = named.get(key)
    if not isinstance(reference, str) or reference.count(".") != 1:
        raise ValueError(f"{MAP}.{key}: expected file.Class, got {str(reference)[:80]!r}")
    if "--" in reference:
        raise ValueError(
            f"{MAP}.{key}: {reference[:80]!r} is code of another repository; put it into the folder"
        )
    return get_class_from_dynamic_module(reference, folder, local_files_only=True)
