"""What transformers knows of a model class: its tensors in order, tied ones, ones it leaves aside.

Nothing here is a table of architectures: a model without weights is made from the config and asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

from merge_core import consent
from merge_core.architecture import class_facts_cache, layer_kinds, refused_config, remote_code
from merge_core.architecture.layers import Layers
from merge_core.architecture.stored_names import StoredNames, stored_form
from merge_core.errors import CheckpointError

T = TypeVar("T")

# Buffers that old checkpoints store for every layer (Llama 2, Pythia) and today's classes compute;
# transformers leaves them aside for all classes that have such a buffer.
ONCE_STORED = {
    "rotary_emb.inv_freq": r"rotary_emb\.inv_freq",
    "position_ids": r"(^|\.)position_ids$",
}

QUANTIZED = ("quantization_config", "compression_config")  # keys of configs
# How a model is run, not what it is; also what a machine may lack, such as an attention kernel.
RUNNING = (
    *("dtype", "torch_dtype", *QUANTIZED),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
    *("output_attentions", "output_hidden_states"),
)


@dataclass(frozen=True)
class Architecture:
    """Facts of a model class and config, read without making weights."""

    # Tensor name, as checkpoints have it -> shape, in the order of the modules.
    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]  # tensor name -> the name whose weights it shares
    # Tensors whose first axis counts the tokens: embedding, head, the head's bias.
    vocabulary: frozenset[str] = frozenset()
    not_loaded: tuple[str, ...] = ()  # patterns of stored tensors that the class leaves aside
    may_lack: tuple[str, ...] = ()  # patterns of tensors that the class does without in files
    stacks: tuple[Layers, ...] = ()  # of layers
    float32: frozenset[str] = frozenset()  # tensors that the class keeps so, whatever its type is
    whole_numbers: frozenset[str] = frozenset()  # tensors that are no floats
    not_causal: str = ""  # why it is no causal language model, if it is none

    def reason_to_drop(self, tensor: str, stored: Mapping[str, object]) -> str | None:
        """Return why a stored tensor does not go into a merge, or None if it does."""
        if self.tied.get(tensor) in stored:
            return f"tied to {self.tied[tensor]}"
        if tensor in self.shapes:  # such patterns are for what the class does not have
            return None
        if self.matches(self.not_loaded, tensor):
            return "not loaded by the model class"
        return "not in the model class"

    def lacking(self, stored: Container[str]) -> list[str]:
        """Return the tensors that a checkpoint must have and has not, in the order of the modules.

        ``stored`` are the names of what it holds; of several that share weights one is enough.
        """
        there = {self.tied.get(name, name) for name in self.shapes if name in stored}
        absent = [name for name in self.shapes if name not in stored]
        kept = [name for name in absent if self.tied.get(name, name) not in there]
        return [name for name in kept if not self.matches(self.may_lack, name)]

    @staticmethod
    def matches(patterns: Iterable[str], tensor: str) -> bool:
        """Return whether a tensor's name fits one of the patterns."""
        return any(re.search(pattern, tensor) for pattern in patterns)

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return names in the order of the modules; unknown ones last, sorted."""
        places = {name: i for i, name in enumerate(self.shapes)}
        return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def read(
    config: Mapping[str, Any], where: str, tensors: int | None = None, *, keep: bool = True
) -> Architecture:
    """Read the facts of the model class that a ``config.json`` names; no weights are made.

    Args:
        config: Its contents.
        where: What holds it, for messages.
        tensors: How many tensors are stored, which bounds what is made of a foreign config.
        keep: Whether the next process will ask for it, too: a search makes a config for each stack.

    Raises:
        CheckpointError: transformers makes no model of it, or one with far more tensors.
    """
    with said_of(where):
        return _read(_text(config), tensors, keep and remote_code.CODE_FROM not in config)


@lru_cache(maxsize=64)
def _read(config: str, tensors: int | None, keep: bool) -> Architecture:
    kept = _kept(class_facts_cache.read(config) or {})
    if kept is not None:
        return kept
    found = _made(config, tensors)
    sets = {key: sorted(getattr(found, key)) for key in ("vocabulary", "float32", "whole_numbers")}
    if keep:
        class_facts_cache.keep(config, {**asdict(found), **sets})
    return found


def _kept(facts: Mapping[str, Any]) -> Architecture | None:
    """Return facts as they were kept, or None where something is missing or is no such thing."""
    try:
        return Architecture(
            {name: tuple(shape) for name, shape in facts["shapes"].items()},
            dict(facts["tied"]),
            frozenset(facts["vocabulary"]),
            tuple(facts["not_loaded"]),
            tuple(facts["may_lack"]),
            tuple(Layers(**stack) for stack in facts["stacks"]),
            frozenset(facts["float32"]),
            frozenset(facts["whole_numbers"]),
            str(facts["not_causal"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def stored_names(
    config: Mapping[str, Any], names: Sequence[str], where: str, tensors: int
) -> Mapping[str, str]:
    """Return name in a file -> the name under which the class of a config stores it now.

    See ``StoredNames.of``. transformers is asked only if a name is not one of the class. The other
    arguments are those of ``read``.

    Raises:
        CheckpointError: transformers makes no model of it.
    """
    facts = read(config, where, tensors)
    left = [name for name in names if name not in facts.shapes]
    if all(facts.matches(facts.not_loaded, name) for name in left):
        return dict(zip(names, names, strict=True))
    with said_of(where):
        return _names(_text(config), tensors).of(names)


@contextmanager
def said_of(where: str) -> Iterator[None]:
    """Say in an error about a config what holds it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _text(config: Mapping[str, Any]) -> str:
    kept = {key: config[key] for key in config if key not in ("dtype", "torch_dtype")}
    return json.dumps(kept, sort_keys=True)


@lru_cache(maxsize=8)
def _names(config: str, tensors: int) -> StoredNames:
    return _asked(config, StoredNames, tensors)


def _made(config: str, tensors: int | None = None) -> Architecture:
    return _asked(config, _of_model, tensors)


@lru_cache(maxsize=64)
def _kinds(config: str, stack: str) -> tuple[layer_kinds.Kind, ...]:
    return _asked(config, lambda model: layer_kinds.of_layers(model, stack), None)


def kinds(config: Mapping[str, Any], stack: str) -> tuple[layer_kinds.Kind, ...]:
    """Return the kind of every layer of a stack; see ``layer_kinds.of_layers``.

    Raises:
        CheckpointError: transformers makes no model of the config.
    """
    return _kinds(_text(config), stack)


def _asked(config: str, ask: Callable[[Any], T], tensors: int | None) -> T:
    """Return what a model without weights tells, made for its names and shapes alone."""

    def answer(data: Mapping[str, Any]) -> T:
        config = config_of(without(data, RUNNING) | {"attn_implementation": "eager"})
        for part in (config, *(getattr(config, key) for key in config.sub_configs)):
            _forget_padding(part)
        return ask(shell(config))

    return refused_config.tried(json.loads(config), answer, tensors)


def ask(
    config: Mapping[str, Any], question: Callable[[Any], T], where: str, tensors: int | None
) -> T:
    """Return what a model without weights tells; see ``read`` for the other arguments.

    Raises:
        CheckpointError: transformers makes no model of it.
    """
    with said_of(where):
        return _asked(_text(config), question, tensors)


def checked(config: Mapping[str, Any], where: str) -> Any:
    """Return the config object for a ``config.json``; ``where`` holds it, for messages.

    Raises:
        CheckpointError: transformers makes no model of it, as it would when it loads the folder.
    """

    def made(data: Mapping[str, Any]) -> Any:
        shell(found := config_of(data))
        return found

    with said_of(where):
        return refused_config.tried(config, made)


def config_of(config: Mapping[str, Any]) -> Any:
    """Return the transformers config object for the contents of a ``config.json``.

    It has no ``auto_map`` at any depth: transformers would ask on the terminal whether to run it.
    A class that is code of the folder is taken where the user allows it, see ``remote_code``.
    Infinite numbers are read in the form in which transformers writes them, too.

    Raises:
        ValueError: Its ``model_type`` is not known, is code of the folder, or missing.
    """
    from transformers import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        if consent.code() and remote_code.CODE_FROM in config:
            return remote_code.config_of(config)
        if config.get("auto_map"):
            raise ValueError(
                f"model_type {kind!r} is code of the folder (auto_map), which is not run; if you "
                f"trust it: {consent.CODE}; else use a copy saved with a class of transformers"
            )
        raise ValueError(f"model_type {kind!r} is not known")
    found = CONFIG_MAPPING[kind]
    return found.from_dict(found._decode_special_floats(without(config, ("auto_map",))))


def _forget_padding(config: Any) -> None:
    """Take away a padding token that has no row: torch refuses it, and no weight depends on it."""
    pad, rows = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(rows, int) and not -rows <= pad < rows:
        config.pad_token_id = None


def without(part: Any, keys: Collection[str]) -> Any:
    """Return plain data without some keys, at any depth."""
    if isinstance(part, Mapping):
        return {key: without(part[key], keys) for key in part if key not in keys}
    return [without(x, keys) for x in part] if isinstance(part, list) else part


def model_class(config: Any) -> Any:
    """Return the class that a config names, else the causal language model of its type.

    Raises:
        ValueError: There is no such class.
    """
    import transformers
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

    if (own := remote_code.model_class(config)) is not None:
        return own
    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            return found
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"no class for {type(config).__name__} and no architectures: in it")
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def shell(config: Any, **settings: Any) -> Any:
    """Return a model that has names, shapes and a config, but no weights (torch's meta device)."""
    import torch

    with torch.device("meta"):
        return model_class(config)._from_config(config, **settings)


def _of_model(model: Any) -> Architecture:
    names, tied = StoredNames(model), model.all_tied_weights_keys
    stored = names.of([*tied.keys(), *tied.values()])
    whole = [name for name, x in model.state_dict().items() if not x.is_floating_point()]
    patterns = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    for name, _ in model.named_buffers():
        patterns |= {pattern for end, pattern in ONCE_STORED.items() if name.endswith(end)}
    return Architecture(
        names.shapes,
        {stored[one]: stored[other] for one, other in tied.items()},
        frozenset(_vocabulary(model)),
        tuple(sorted(patterns)),
        tuple(sorted(getattr(model, "_keys_to_ignore_on_load_missing", None) or ())),
        tuple(Layers(stack, count) for stack, count in names.layer_stacks().items()),
        frozenset(names.kept_in_float32()),
        frozenset(names.of(whole).values()),
        _not_causal(model),
    )


def _not_causal(model: Any) -> str:
    """Return why a model does not predict each token from those before it alone, or nothing."""
    name, parts = type(model).__name__, [*model.modules()]
    if not model.can_generate():
        return f"{name} has no head that predicts the next token"
    if model.config.is_encoder_decoder:
        return f"{name} is an encoder and a decoder"
    decoder = [x.is_decoder for x in parts if isinstance(getattr(x, "is_decoder", None), bool)]
    causal = any(getattr(x, "is_causal", None) is True for x in parts)
    if decoder and not any(decoder) and not causal:
        return f"{name} without is_decoder: true in its config reads in both directions"
    return ""


def _vocabulary(model: Any) -> Iterator[str]:
    wanted = {id(x) for end in _ends(model) for x in end.parameters(recurse=False)}
    for name, x in model.named_parameters(remove_duplicate=False):
        if id(x) in wanted:
            yield from (stored for stored, _ in stored_form(model, name, x))


def _ends(model: Any) -> Iterator[Any]:
    """Yield the token embedding and the head of a model, if it has them."""
    for get in (model.get_input_embeddings, model.get_output_embeddings):
        try:
            end = None if get is None else get()
        except NotImplementedError:  # a class without tokens
            end = None
        if end is not None:
            yield end
