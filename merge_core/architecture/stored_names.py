"""Under which names a class stores its tensors, and which names in files lead to them.

Both are transformers' own: its conversion on saving says how tensors are stored, its conversion on
loading where a name in a file leads. So old uploads, other exports of one class, and the names that
modules have in memory all get the one name under which the class stores the tensor today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from merge_core.architecture.layers import numbered
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError

Target = tuple[str, str | None]  # live tensor, and the pattern of what is converted into it


class StoredNames:
    """What one model without weights tells about names.

    Args:
        model: On torch's meta device.
    """

    def __init__(self, model: Any) -> None:
        from transformers.core_model_loading import revert_weight_conversion

        fix_conversions(model)
        self._model, self._live = model, model.state_dict()
        stored = revert_weight_conversion(model, dict(self._live))
        self._by_target = self._targets(stored)
        live = {name: i for i, name in enumerate(self._live)}
        order = {
            name: (live.get(target, len(live)), j)
            for (target, _), names in self._by_target.items()
            for j, name in enumerate(names)
        }
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(stored[name].shape) for name in sorted(stored, key=order.__getitem__)
        }

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Return name in a file, or of a live tensor -> the name under which it is stored now.

        Names that lead to no tensor of the class stay what they are.
        """
        names = [*names]
        found = {name: name for name in names}
        for target, given in self._targets(names).items():
            if target in self._by_target:
                found |= _paired(given, self._by_target[target])
        return found

    def layer_stacks(self) -> dict[str, int]:
        """Return what stands before the layers' numbers in stored names -> how many there are.

        Layers are the members of a list of modules that have modules of their own: a list of bare
        projections is no stack of layers, nor is a sequence of unlike steps.
        """
        lists = {name for name, module in self._model.named_modules() if _holds_layers(module)}
        members: dict[str, set[int]] = {}
        for (target, _), names in self._by_target.items():
            places = [*numbered(target)]
            level = next((i for i, (stack, _) in enumerate(places) if stack in lists), len(places))
            for here in ([*numbered(name)][level : level + 1] for name in names):
                if here and level < len(places) and here[0][1] == places[level][1]:
                    members.setdefault(here[0][0], set()).add(here[0][1])
        return {
            stack: len(found)
            for stack, found in sorted(members.items())
            if found == set(range(len(found)))
        }

    def kept_in_float32(self) -> list[str]:
        """Return the tensors that stay in float32 in a model of 16 bits, of whichever type."""
        import torch
        from transformers.core_model_loading import build_glob_alternation

        kept = [*self._model._get_dtype_plan(torch.float16)]
        if not kept:
            return []
        pattern = build_glob_alternation(kept)[0]
        by_target = self._by_target.items()
        return [name for (to, _), names in by_target if pattern.search(to) for name in names]

    def _targets(self, names: Iterable[str]) -> dict[Target, list[str]]:
        """Return target -> the names that are loaded into it, in the order of loading."""
        from transformers import core_model_loading as loading
        from transformers.conversion_mapping import get_model_conversion_mapping

        every = get_model_conversion_mapping(self._model)  # afresh: some remember what they saw
        renamings = [x for x in every if isinstance(x, loading.WeightRenaming)]
        converters = [x for x in every if isinstance(x, loading.WeightConverter)]
        prefix, live = self._model.base_model_prefix, self._live
        found: dict[Target, list[str]] = {}
        for name in sorted({*names}, key=loading.dot_natural_key):
            target = loading.rename_source_key(name, renamings, converters, prefix, live)
            if target[0] not in live and name in live:
                target = loading.rename_source_key(name, [], [], prefix, live)
            found.setdefault(target, []).append(name)
        return found


def fix_conversions(model: Any) -> None:
    """Let a model be stored as its class stores it, whatever names it was loaded from."""
    from transformers import core_model_loading as loading
    from transformers.conversion_mapping import get_model_conversion_mapping

    every = get_model_conversion_mapping(model, add_legacy=False)
    model._weight_conversions = [x for x in every if not isinstance(x, loading.PrefixChange)]


def stored_form(model: Any, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Return what transformers stores for one tensor of a live model: names and tensors.

    Mostly the tensor itself; fused experts are stored one by one.

    Raises:
        CheckpointError: transformers stores it only together with others.
    """
    from transformers.core_model_loading import revert_weight_conversion

    try:
        return list(revert_weight_conversion(model, {name: tensor}).items())
    except ValueError as error:
        raise CheckpointError(
            f"{name}: {type(model).__name__} stores it only together with others "
            f"({' '.join(str(error).split())}), so candidates of it cannot be built in memory; "
            f"merge to a folder with mergetune merge"
        ) from error


def _paired(given: list[str], stored: list[str]) -> dict[str, str]:
    """Return given name -> stored one, of names that lead to one live tensor, in order.

    Experts have the numbers that they are stored under, or else are loaded in their order.
    """
    by_numbers = {tuple(index for _, index in numbered(name)): name for name in stored}
    numbers = [tuple(index for _, index in numbered(name)) for name in given]
    if len(by_numbers) == len(stored) and by_numbers.keys() >= {*numbers}:
        return dict(zip(given, (by_numbers[x] for x in numbers), strict=True))
    return dict(zip(given, stored, strict=True)) if len(given) == len(stored) else {}


def _holds_layers(module: Any) -> bool:
    import torch

    members = [*module.children()]
    if isinstance(module, torch.nn.Sequential) and len({type(x) for x in members}) > 1:
        return False
    lists = (torch.nn.ModuleList, torch.nn.Sequential)
    return isinstance(module, lists) and any(True for x in members for _ in x.children())
