"""How much memory candidates need beside their parents, by the names and shapes in headers.

A live candidate's tensors that a stack passes on as they are stored *are* the parents'; in another
type each is held once, however often its layer comes. All else is memory of its own, the experts of
a mixture among it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from merge_core.architecture import layers
from merge_core.contract import Method, Param
from merge_core.errors import MergeError
from merge_core.methods.registry import method
from merge_core.mixture.classes import MATRICES
from merge_core.parents.weight_files import TensorInfo, bytes_as
from merge_core.plan.layout import Placed, lay_out
from merge_core.plan.steps import DTYPES, Operand
from merge_core.recipe.interpolate import value_at
from merge_core.recipe.mixture_schema import Mixture
from merge_core.recipe.model_reference import parse
from merge_core.recipe.schema import Recipe
from search.space.space import Space
from search.space.starting_points import baselines
from search.space.units import Drawn
from search.spec.layer_path import LayerPath
from search.spec.ranges import Knob
from search.spec.study_file import StudySpec

Tensors = Mapping[str, TensorInfo]  # of one model


def most_bytes(spec: StudySpec, space: Space, tensors: Mapping[str, Tensors]) -> int | None:
    """Return what the largest candidate needs: of the baselines, and where all knobs end.

    Args:
        spec: A study.
        space: Its dimensions.
        tensors: Those of every model that it stacks.

    Returns:
        The bytes; None where a model's files are not here, or all are merged over all layers.
    """
    if not tensors or tensors.keys() < {*spec.template.references()}:
        return None
    recipes = [baseline.recipe for baseline in baselines(spec, space)]
    with suppress(MergeError):  # not every end of one range goes with those of the others
        recipes.append(space.recipe(space.point(_end)))
    inside = [one for one in recipes if tensors.keys() >= {*one.names()}]
    found = [own_bytes(one, tensors) for one in inside]
    path = spec.template.path
    written = inside[0].out_dtype or inside[0].dtype
    return max([*found, *([] if path is None else [_of_paths(path, written, tensors)])])


def _of_paths(path: LayerPath, written: str | None, tensors: Mapping[str, Tensors]) -> int:
    """Return what the path through the largest layers needs, in a type."""
    entry = tensors[path.parents[0]]
    stack = layers.of(entry)
    outside = [info for name, info in entry.items() if stack.index(name) is None]
    inside: Counter[tuple[str, int | None]] = Counter()
    for model in path.parents:
        for name, info in tensors[model].items():
            inside[model, stack.index(name)] += _converted(info, written)
    sizes = sorted((x for (_, index), x in inside.items() if index is not None), reverse=True)
    most = path.max_layers or stack.count
    return sum(_converted(info, written) for info in outside) + sum(sizes[:most])


def _converted(info: TensorInfo, written: str | None) -> int:
    """Return the bytes of a tensor in a type; 0 where that is the one that it is stored in."""
    same = written in (None, DTYPES.get(info.dtype))
    return 0 if same else bytes_as(info, written)


def own_bytes(recipe: Recipe, tensors: Mapping[str, Tensors]) -> int:
    """Return the bytes that a candidate needs beside its parents.

    Args:
        recipe: One document.
        tensors: Those of every model that goes in.

    Raises:
        CheckpointError: A layer that the recipe names is not there.
    """
    found, main = method(recipe.merge_method), recipe.base_model or recipe.names()[0]
    names = {name: tuple(own) for name, own in tensors.items()}
    stacks = layers.stacks(names[main])
    layout = lay_out(recipe, main, names, stacks, with_base=found.base != "none")
    written = recipe.out_dtype or recipe.dtype
    total, converted = 0, dict[Operand, int]()
    if recipe.moe is not None:
        total += _of_experts(recipe.moe, written, tensors)
    for placed in layout.placed:
        first = placed.inputs()[0]
        if recipe.moe is not None and _of_mlp(placed.tensor, recipe.moe):
            continue
        info = tensors[first.parent][first.tensor]
        if _passes_on(placed, found):
            converted[first] = _converted(info, written)
        else:
            total += bytes_as(info, written)
    return total + sum(converted.values())


def _end(knob: Knob, _: Param | None) -> Drawn:
    return knob.choices[-1] if knob.choices else knob.snapped(knob.high)


def _of_experts(moe: Mixture, written: str | None, tensors: Mapping[str, Tensors]) -> int:
    """Return the bytes of all experts' matrices and of the routers, which live side by side."""
    total = 0
    for expert in (*moe.experts, *moe.shared_experts):
        mine = {n: x for n, x in tensors[expert.source_model].items() if _of_mlp(n, moe)}
        total += sum(bytes_as(x, written) for x in mine.values())
        routed = [x for name, x in mine.items() if MATRICES[0] in name and expert in moe.experts]
        rows = (bytes_as(x, written) // x.shape[0] for x in routed)  # one for each layer
        total += sum(rows)
    return total


def _of_mlp(tensor: str, moe: Mixture) -> bool:
    """Return whether a tensor is one of a layer's that experts take the place of."""
    index = next((number for _, number in layers.numbered(tensor)), None)
    inside = any(tensor.endswith(f".mlp.{matrix}.weight") for matrix in MATRICES)
    return inside and index not in moe.dense_layers


def _passes_on(placed: Placed, found: Method) -> bool:
    """Return whether a tensor is one of a model as it is; an adapter's are made anew."""
    passes = found.passes_on
    if passes is None or len(placed.inputs()) != 1 or placed.base is not None:
        return False
    if parse(placed.operands[0].parent).lora is not None:
        return False
    levels, tensor = (placed.sources[0].parameters, *placed.shared), placed.operands[0].tensor
    values = {
        param.name: value_at(param, levels, tensor, placed.t)
        for param in found.params
        if param.scope == "model"
    }
    return bool(passes(values))
