"""Recipe + parents' headers -> what to compute for every tensor. Only tied tensors are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from merge_core.architecture import edit_config, model_class
from merge_core.architecture.layers import Layers
from merge_core.contract import Method, Value
from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.methods.registry import method
from merge_core.numerics.bernoulli import key_for
from merge_core.parents import digests, quantized, ties
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS, shapes_of
from merge_core.plan import stack_fit
from merge_core.plan.check_result import check_result
from merge_core.plan.kinds import refuse_unlike
from merge_core.plan.layout import Layout, Placed, lay_out
from merge_core.plan.steps import DTYPES, Operand, Plan, Step
from merge_core.recipe.interpolate import value_at
from merge_core.recipe.schema import Recipe, Settings
from merge_core.recipe.tokenizer_schema import BASE, UNION
from merge_core.tokenizer.vocabulary import Vocabulary, vocabulary

TOKENS_HINT = "; for different vocabularies set tokenizer: {source: union} or {source: base}"
PACKED = ("U8", "I8", "I32")  # whole numbers that hold quantized floats
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def plan_document(
    recipe: Recipe, parents: Mapping[str, Parent], opened: Mapping[str, Parent]
) -> Plan:
    """Resolve every parameter for every tensor, and check that the parents fit.

    Args:
        recipe: A valid recipe; its ``documents`` aside.
        parents: All that it refers to, also other documents, by name.
        opened: The parents among them.

    Raises:
        CheckpointError: A parent lacks a tensor that its class or another parent has, stores
            another kind of number, or has no such layer; the result's config makes other tensors.
        ShapeError: Two parents have different shapes for one tensor.
        ParameterError: A parameter has no value for some tensor.
    """
    with_base = (found := method(recipe.merge_method)).base != "none"
    listed = tuple(dict.fromkeys(source.model for source in recipe.sources()))
    config_from, used = recipe.base_model or listed[0], recipe.names() if with_base else listed
    refuse_unlike({name: parents[name].config for name in dict.fromkeys([config_from, *used])})
    parents = ties.aligned(parents, [*used, config_from])
    tokens, tokens_from = _tokens(recipe, parents, config_from, used)
    parents = {**parents, **({} if tokens is None else {x: tokens.reindexed(x) for x in used})}
    unloaded = {name: _unloaded(parents[name]) for name in dict.fromkeys([*used, config_from])}
    names = {name: _merged(parents[name], left) for name, left in unloaded.items()}
    facts = parents[config_from].architecture
    layout = lay_out(recipe, config_from, names, facts.stacks, with_base=with_base)
    _check_fit(layout, parents)
    dropped = _left_out(layout, used, names)
    dropped |= {x: why for y in used for x, why in {**parents[y].left_out, **unloaded[y]}.items()}
    if found.draws:  # masks' keys hold their digests
        digests.begun(opened[x] for x in used if x in opened)()
    steps = [_step(placed, recipe, found, parents) for placed in layout.placed]
    config, shapes = _config(parents, config_from, layout, tokens, tokens_from), _shapes(steps)
    check_result(config, config_from, shapes, stacked=bool(layout.picked))
    return Plan(
        recipe=recipe,
        opened=opened,
        parents=parents,
        method=found,
        config_from=config_from,
        tokens_from=tokens_from,
        config=config,
        dtype=recipe.out_dtype or recipe.dtype or common_dtype(_read(layout), parents),
        steps=tuple(sorted(steps, key=lambda step: step.tensor)),
        dropped=dropped,
        vocabulary=tokens,
        input_scales=layout.scales,
        stack=next(iter(layout.picked), None),
    )


def _shapes(steps: Iterable[Step]) -> dict[str, tuple[int, ...]]:
    return {step.tensor: step.shape for step in steps}


def _tokens(
    recipe: Recipe, parents: Mapping[str, Parent], config_from: str, used: Sequence[str]
) -> tuple[Vocabulary | None, str]:
    """Return the result's vocabulary where the recipe makes one, and whose token ids it has."""
    setting = recipe.tokenizer
    if setting is None:
        return None, config_from
    indexed = parents[config_from].architecture.vocabulary
    made = vocabulary(setting, parents, recipe.base_model, used, indexed)
    return made, config_from if setting.source in (UNION, BASE) else setting.source


def _unloaded(parent: Parent) -> dict[str, str]:
    """Return the stored tensors of a parent that its class does not load, each with the reason."""
    reasons = {
        name: parent.architecture.reason_to_drop(name, parent.tensors) for name in parent.tensors
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _merged(parent: Parent, left: Mapping[str, str]) -> list[str]:
    """Return the tensors of a parent that go into a merge, in the order of its modules."""
    _check_whole(parent)
    return parent.architecture.in_order(parent.tensors.keys() - left)


def _check_whole(parent: Parent) -> None:
    facts = parent.architecture
    lacking = facts.lacking(parent.tensors)
    floats = facts.shapes.keys() - facts.whole_numbers
    packed = [n for n, x in parent.tensors.items() if x.dtype in PACKED and n in floats]
    if packed or (lacking and any(key in parent.config for key in model_class.QUANTIZED)):
        how = quantized.told(parent.config, parent.tensors)
        raise CheckpointError(
            f"{parent.where}: {[*packed, *lacking][0]} is quantized{how}; {quantized.WHAT_TO_DO}"
        )
    if lacking:
        raise CheckpointError(
            f"{parent.where}: lacks {lacking[0]}, which its config asks for ({len(lacking)} such "
            f"tensors); fetch the weights again, or mend config.json"
        )


def _config(
    parents: Mapping[str, Parent],
    config_from: str,
    layout: Layout,
    tokens: Vocabulary | None,
    tokens_from: str,
) -> dict[str, Any]:
    # What is written are plain numbers, whatever the parents' were made from.
    config: dict[str, Any] = model_class.without(parents[config_from].config, model_class.QUANTIZED)
    for stack, picked in layout.picked.items():
        counts = {x.stack: x.count for x in parents[config_from].architecture.stacks}
        if picked != tuple((config_from, i) for i in range(counts[stack])):
            layers = [(parents[name].config, i) for name, i in picked]
            config = edit_config.with_layers(config, stack, layers)
    if tokens is not None:
        config = edit_config.with_vocabulary(config, tokens.size)
        given = parents[tokens_from].config
        config |= {key: given[key] for key in SPECIAL if key in given}
    return config


def _step(placed: Placed, recipe: Recipe, found: Method, parents: Mapping[str, Parent]) -> Step:
    first = placed.inputs()[0]
    info = parents[first.parent].tensors[first.tensor]
    step = Step(placed.tensor, info.shape, placed.operands, placed.base)
    if info.dtype not in FLOATS:
        return replace(step, copied=True)
    return replace(
        step,
        values=tuple(
            _values(found, "model", x.tensor, placed.t, (source.parameters, *placed.shared))
            for x, source in zip(placed.operands, placed.sources, strict=True)
        ),
        shared=_values(found, "shared", placed.tensor, placed.t, placed.shared),
        keys=tuple(
            key_for(recipe.seed, placed.tensor, parents[x.parent].digest) if found.draws else 0
            for x in placed.operands
        ),
    )


def _values(
    found: Method, scope: str, tensor: str, t: float, given: Sequence[Settings]
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for param in found.params:
        if param.scope != scope:
            continue
        values[param.name] = value_at(param, given, tensor, t)
        rule = param.rule_broken_by(values[param.name])
        if rule is not None:
            raise ParameterError(f"{tensor}: {param.name}: {rule}")
    return values


def _check_fit(layout: Layout, parents: Mapping[str, Parent]) -> None:
    """Check that every operand is there, in the shape and kind of the others."""
    _check_widths(layout, parents)
    _check_names(layout, parents)
    for placed in layout.placed:
        first, *others = placed.inputs()
        a = parents[first.parent].tensors[first.tensor]
        for other in others:
            b = parents[other.parent].tensors[other.tensor]
            if a.shape != b.shape:
                indexed = first.tensor in parents[first.parent].architecture.vocabulary
                raise ShapeError(
                    f"{placed.tensor}: {first.parent} is {a.shape}, {other.parent} is {b.shape}; "
                    f"the parents must have the same shapes{TOKENS_HINT if indexed else ''}"
                )
            if (a.dtype in FLOATS) != (b.dtype in FLOATS):
                raise CheckpointError(
                    f"{placed.tensor}: {first.parent} is {a.dtype}, {other.parent} is {b.dtype}"
                )


def _check_widths(layout: Layout, parents: Mapping[str, Parent]) -> None:
    """Check that all layers of a stack have one width."""
    known: dict[str, tuple[str, int]] = {}
    for name, stack in layout.ranges:
        wide = stack_fit.width(shapes_of(parents[name].tensors), Layers(stack, 0))
        if wide is not None:
            first = known.setdefault(stack, (name, wide))
            if first[1] != wide:
                raise ShapeError(f"{stack}: {stack_fit.unlike(*first, name, wide)}")


def _check_names(layout: Layout, parents: Mapping[str, Parent]) -> None:
    missing: dict[str, list[tuple[str, str]]] = {}
    for placed in layout.placed:
        there = {x: x.tensor in parents[x.parent].tensors for x in placed.inputs()}
        have = next((x.parent for x in there if there[x]), "another")
        for x in there:
            if not there[x]:
                missing.setdefault(x.parent, []).append((x.tensor, have))
    for lack, found in missing.items():
        raise _unshared(*found[0], lack, len(found))


def _unshared(tensor: str, have: str, lack: str, count: int) -> CheckpointError:
    return CheckpointError(
        f"{tensor}: {have} has it, {lack} does not ({count} such tensors); the parents must share "
        f"one architecture"
    )


def _left_out(
    layout: Layout, used: Sequence[str], names: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the parents' tensors that slices leave out, ``parent: tensor``, with the reason.

    One that is left out for no reason is refused: other parents do not have it.
    """
    taken = {(x.parent, x.tensor) for placed in layout.placed for x in placed.inputs()}
    dropped: dict[str, str] = {}
    for name in used:
        left = [tensor for tensor in names[name] if (name, tensor) not in taken]
        reasons = {tensor: _reason(layout, name, tensor) for tensor in left}
        extra = sorted(tensor for tensor, reason in reasons.items() if reason is None)
        if extra:
            other = next((x for x in used if x != name), "the result")
            raise _unshared(extra[0], name, other, len(extra))
        dropped |= {f"{name}: {tensor}": reason for tensor, reason in reasons.items() if reason}
    return dropped


def _reason(layout: Layout, parent: str, tensor: str) -> str | None:
    for stack in layout.picked:
        index = Layers(stack, 0).index(tensor)
        if index is not None:
            used = layout.ranges.get((parent, stack), ())
            return None if index in used else "its layer is in no slice"
    placed = layout.picked and any(x.tensor == tensor for x in layout.placed)
    return "other models' slices give it" if placed else None


def _read(layout: Layout) -> Iterable[Operand]:
    return (operand for placed in layout.placed for operand in placed.inputs())


def common_dtype(read: Iterable[Operand], parents: Mapping[str, Parent]) -> str:
    """Return the smallest type that holds all that is read; bfloat16 with float16 is float32.

    Tensors that a class keeps in float32 whatever its type is count only if there are no others.
    """
    types = {
        (
            parents[x.parent].tensors[x.tensor].dtype,
            x.tensor in parents[x.parent].architecture.float32,
        )
        for x in read
    }
    floats = [(dtype, kept) for dtype, kept in types if dtype in FLOATS]
    kinds = {dtype for dtype, kept in floats if not kept} or {dtype for dtype, _ in floats}
    return DTYPES[kinds.pop()] if len(kinds) == 1 else "float32"
