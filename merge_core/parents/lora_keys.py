"""An adapter's config and keys -> which tensors of its parent it changes, and how.

Not read: ``fan_in_fan_out`` (in peft, too, the kind of layer decides).

A change of a tied embedding or head unties them: in training only the adapted one moved, though
merging in peft moves both.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core import confined
from merge_core.errors import CheckpointError, ShapeError, shown
from merge_core.json_text import read_json
from merge_core.parents import lora_parameters, ties
from merge_core.parents.lora_parameters import Cut
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS, TensorInfo

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CONV1D = ("gpt2", "openai-gpt")  # transformers' causal models that store weights as (in, out)

# Ways to start that leave the base as it was. The others (pissa, olora, corda, loftq, lora_ga)
# take the start out of the base, and so the adapter belongs to a base that is not stored.
STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
ELSEWHERE = ("trainable_token_indices", "layer_replication")
PARALLEL = ("megatron_config", "use_bdlora", "use_qalora", "enable_lora")
VARIANTS = ("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config")
NOT_READ = (*ELSEWHERE, *PARALLEL, *VARIANTS, "velora_config")

# module, what it is, name of the adapter in peft (any, or none), kind
_LOW_RANK = re.compile(r"(.+?)\.(lora_\w+)(?:\.[^.]+)??(?:\.weight|(\.bias))?")


@dataclass(frozen=True)
class Change:
    """How one tensor is made from the parent's; texts are keys of the adapter's file."""

    replaced: str | None = None  # taken instead of the parent's
    a: str | None = None  # (r, in), with
    b: str | None = None  # (out, r)
    scale: float = 1.0  # of the product, or of what is added
    transposed: bool = False  # the tensor is stored as (in, out)
    magnitude: str | None = None  # (out,), DoRA's
    added: str | None = None  # (out,), to a bias
    cut: Cut | None = None  # of both factors, where they are of a parameter in parts


def changes(
    reference: str, parent: Parent, folder: Path, stored: Mapping[str, TensorInfo]
) -> tuple[Parent, dict[str, Change]]:
    """Return the change of every tensor that an adapter changes, by the parent's name.

    With it comes the parent that they are changes of: untied where the adapter changes one of two
    tied tensors.

    Args:
        reference: Of parent and adapter, for messages.
        parent: The base.
        folder: That of the adapter's config.
        stored: What the adapter's file holds.

    Raises:
        CheckpointError: The config asks for what is not read here; a key has no place in the
            parent, or lacks its counterpart.
        ShapeError: A low-rank pair or a replaced tensor does not fit the parent's tensor.
    """
    fitting = _Fitting(reference, parent, _Settings(folder / CONFIG), stored)
    found = fitting.changes()
    return fitting.parent, found


class _Settings:
    """What ``adapter_config.json`` says, if it is read here."""

    def __init__(self, where: Path) -> None:
        self.where, self.data = where, read_json(where)
        self._own: dict[str, dict[str, Any]] = {"rank_pattern": {}, "alpha_pattern": {}}
        kind, start = self.data.get("peft_type"), self.data.get("init_lora_weights")
        if kind != "LORA":
            raise CheckpointError(f"{where}: peft_type is {kind!r}; only LORA is read")
        for name in NOT_READ:
            if self.data.get(name):
                raise CheckpointError(f"{where}: {name} is not read here; merge with peft instead")
        if start not in STARTS:
            raise CheckpointError(
                f"{where}: init_lora_weights is {start!r}, which changes the base; save the "
                f"adapter with peft's path_initial_model_for_weight_conversion"
            )
        name = self.data.get("base_model_name_or_path") or "no base"
        self.mismatch = f"a LoRA for another base (its config names {name})"

    def fit(self, modules: list[str]) -> None:
        """Find the patterns of all modules that will be asked for, by peft's rule.

        They are a stranger's regular expressions, so they are matched within bounds of time.
        """
        for key in self._own:
            given = self.data.get(key) or {}
            if not isinstance(given, dict):
                raise CheckpointError(f"{self.where}: {key}: no patterns: got {shown(given)[:80]}")
            answer = confined.ask("patterns", [*given], modules) if given else {"result": []}
            if "error" in answer:
                raise CheckpointError(f"{self.where}: {key}: no patterns: {answer['error']}")
            found = dict(zip(modules, answer["result"], strict=False))
            self._own[key] = {m: given[p] for m, p in found.items() if p is not None}

    def rank(self, module: str) -> float:
        r = self._number("r", "rank_pattern", module)
        if r < 1:
            raise CheckpointError(f"{self.where}: r of {module}: expected 1 or more, got {r:g}")
        return r

    def scale(self, module: str) -> float:
        alpha, r = self._number("lora_alpha", "alpha_pattern", module), self.rank(module)
        return alpha / (math.sqrt(r) if self.data.get("use_rslora") else r)

    def _number(self, name: str, patterns: str, module: str) -> float:
        value = self._own[patterns].get(module, self.data.get(name, 8))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise CheckpointError(f"{self.where}: {name} of {module}: no number: {value!r}")
        return float(value)


class _Fitting:
    """Finds for every key of an adapter's file its place in the parent."""

    def __init__(
        self, reference: str, parent: Parent, settings: _Settings, stored: Mapping[str, TensorInfo]
    ) -> None:
        self._reference, self.parent = reference, parent
        self._settings, self._stored = settings, stored
        self._places: dict[str, str] = {}  # a tensor's name in the adapter -> in the parent
        self._found: dict[str, dict[str, Any]] = {}

    def changes(self) -> dict[str, Change]:
        whole, low_rank = self._sorted()
        if not whole and not low_rank:
            raise CheckpointError(f"{self._reference}: {WEIGHTS} holds no tensors")
        self.parent = _untied(self.parent, [*whole, *(f"{module}.weight" for module in low_rank)])
        self._found |= lora_parameters.take(
            self._reference, self.parent, self._settings, low_rank, self._stored
        )
        names = [*whole, *(f"{module}.weight" for module in low_rank)]
        if self._settings.data.get("lora_bias"):
            names += [f"{module}.bias" for module in low_rank]
        self._settings.fit([*low_rank])
        self._places = self._placed(names)
        for name, key in whole.items():
            self._set(name, self.parent.tensors[self._places[name]].shape, replaced=key)
        for module, parts in low_rank.items():
            self._pair(module, parts)
        return {name: Change(**fields) for name, fields in sorted(self._found.items())}

    def _sorted(self) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Return name -> key of whole tensors, and module -> part -> key of low-rank ones."""
        whole: dict[str, str] = {}
        low_rank: dict[str, dict[str, str]] = {}
        for key in sorted(self._stored):
            # peft's ``bias`` saves from inside wrappers too, what modules_to_save saves as well
            plain = re.sub(r"\.(original_module|modules_to_save)\.", ".", key)
            if plain != key and plain in self._stored:
                continue
            name = key.removeprefix("base_model.model.")
            match = _LOW_RANK.fullmatch(name)
            if match is None:
                group, part = whole, re.sub(r"\.base_layer\.(weight|bias)$", r".\1", name)
            else:
                group, part = low_rank.setdefault(match[1], {}), match[2] + (match[3] or "")
            if group.setdefault(part, key) != key:
                raise CheckpointError(
                    f"{self._reference}: {group[part]} and {key} have one place; remove one"
                )
        return whole, low_rank

    def _pair(self, module: str, parts: dict[str, str]) -> None:
        """Note the changes by one module's low-rank tensors."""
        kind = "lora_embedding_" if any("embedding" in part for part in parts) else "lora_"
        data, wanted = self._settings.data, [f"{kind}A", f"{kind}B"]
        wanted += ["lora_magnitude_vector"] if data.get("use_dora") else []
        wanted += ["lora_B.bias"] if data.get("lora_bias") else []
        for part in wanted:
            if part not in parts:
                raise CheckpointError(
                    f"{self._reference}: {module} has {[*parts]} but no {part}; save it again"
                )
        left = sorted(parts[part] for part in parts.keys() - wanted)
        if left:
            raise CheckpointError(
                f"{self._reference}: {left[0]} is left over, {CONFIG} does not account for it; "
                f"the two files do not belong together"
            )
        a, b, *rest = (parts[part] for part in wanted)
        turned = self._turned(module, self._stored[a].shape, self._stored[b].shape, kind)
        weight, scale = f"{module}.weight", self._settings.scale(module)
        out = self._stored[b].shape[:1]
        self._set(weight, None, a=a, b=b, scale=scale, transposed=turned)
        if data.get("use_dora"):
            self._set(weight, out, magnitude=rest.pop(0))
        if data.get("lora_bias"):
            self._set(f"{module}.bias", out, added=rest.pop(0), scale=scale)

    def _turned(self, module: str, a: tuple[int, ...], b: tuple[int, ...], kind: str) -> bool:
        """Return whether the parent stores ``(in, out)``; check all shapes of the pair."""
        place = self._places[f"{module}.weight"]
        has, r = self.parent.tensors[place].shape, self._settings.rank(module)
        pair = f"{self._reference} has A {a} and B {b}"
        if (len(a), len(b), a[:1], b[1:]) != (2, 2, (r,), (r,)):
            raise ShapeError(
                f"{place}: {pair}, {CONFIG} says matrices with r = {r:g}; no other kind is read"
            )
        embedding, conv1d = "embedding" in kind, self.parent.config.get("model_type") in CONV1D
        turned = (embedding or conv1d) and has == (a[1], b[0])
        if not turned and (embedding or has != (b[0], a[1])):
            raise ShapeError(
                f"{place}: {self.parent.reference} is {has}, {pair}: {self._settings.mismatch}"
            )
        return turned

    def _set(self, name: str, shape: tuple[int, ...] | None, **fields: Any) -> None:
        """Note fields of the change of a tensor; the keys among them must have ``shape``."""
        place = self._places[name]
        there, known = self.parent.tensors[place], self._found.setdefault(place, {})
        for key in (value for value in fields.values() if isinstance(value, str)):
            own = self._stored[key]
            if own.dtype not in FLOATS or there.dtype not in FLOATS:
                raise CheckpointError(
                    f"{place}: {self.parent.reference} stores {there.dtype}, {key} of "
                    f"{self._reference} is {own.dtype}; use a base that is not quantized"
                )
            if shape is not None and own.shape != shape:
                raise ShapeError(
                    f"{place}: {key} of {self._reference} is {own.shape}, "
                    f"{self.parent.reference} wants {shape}: {self._settings.mismatch}"
                )
        if known.keys() & fields.keys():
            raise CheckpointError(f"{self._reference}: two of its keys change {place}")
        known.update(fields)

    def _placed(self, names: Iterable[str]) -> dict[str, str]:
        """Return the parent's names: those of the class, else all have one prefix more or less."""
        here, longer = self.parent.tensors, defaultdict(list)
        stored = self.parent.stored_names([*names])
        if all(name in here for name in stored.values()):
            return dict(stored)
        for name in here:
            for prefix, end in _split(name):
                longer[end].append(prefix)
        options: dict[str, set[tuple[str, str]]] = {}  # (prefix to add, prefix to drop)
        for name in names:
            if name not in here:
                options[name] = {(prefix, "") for prefix in longer[name]}
                options[name] |= {("", prefix) for prefix, end in _split(name) if end in here}
                if not options[name]:
                    raise CheckpointError(
                        f"{self._reference}: changes {name}, {self.parent.reference} has no such "
                        f"tensor: {self._settings.mismatch}"
                    )
        common = set.intersection(*options.values()) if options else {("", "")}
        if len(common) != 1:
            raise CheckpointError(
                f"{self._reference}: {next(iter(options))} is in {self.parent.reference} by no "
                f"prefix, or by several, that fits all names; rename the adapter's keys"
            )
        ((add, drop),) = common
        return {n: n if n in here else add + n.removeprefix(drop) for n in names}


def _split(name: str) -> Iterator[tuple[str, str]]:
    """Yield ``("a.", "b.c")`` and ``("a.b.", "c")`` for ``a.b.c``."""
    yield from ((name[: i + 1], name[i + 1 :]) for i, x in enumerate(name) if x == ".")


def _untied(parent: Parent, names: list[str]) -> Parent:
    """Untie those of a parent that are changed; a model class is asked only if need be."""
    outside = [name for name in names if not re.search(r"(^|\.)\d+\.", name)]
    tied = parent.architecture.tied if outside else {}
    pairs = [(pair, name) for pair in tied.items() for name in outside]
    apart = {pair[0] for pair, name in pairs if any(f".{x}".endswith(f".{name}") for x in pair)}
    return ties.untied(parent, apart) if apart else parent
