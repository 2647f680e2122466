"""What a merge would work on, measured before it: task vectors, their angles, what density keeps.

row    a layer's module (weight and bias together), or tensors of one name outside the layers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

from merge_core.architecture import layers
from merge_core.errors import ParameterError
from merge_core.inspect.task_vector_sums import Sums, Vector, survey
from merge_core.merge.nested import Intermediate
from merge_core.methods.shared import svd_merge
from merge_core.methods.shared.sparsify.rank_bernoulli import EPSILON
from merge_core.output.safetensors_writer import Watch
from merge_core.parents import lora_keys
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.weight_files import FLOATS, files_of
from merge_core.plan.steps import Plan, Step

# Float32 copies of a whole tensor that a method without an entry function may hold, for k models,
# and of a matrix whose singular values are taken, in float64.
COPIES, COPIES_PER_MODEL = 6, 2
SCRATCH = 32 * 2**20  # bytes of blocks


@dataclass(frozen=True)
class Kept:
    """What a recipe's density leaves of a task vector: shares, None of a sum that is zero."""

    entries: float | None
    l1: float | None  # of the sum of their magnitudes
    squares: float | None  # of the squared norm


@dataclass(frozen=True)
class Measured:
    """One task vector in one row."""

    model: str  # its reference
    norm: float  # Frobenius
    relative: float | None  # over the norm of what it is measured from; None where that is zero
    kept: Kept | None  # None where the method has no ``density``


@dataclass(frozen=True)
class Pair:
    """Two task vectors in one row."""

    models: tuple[str, str]  # their references
    cosine: float | None  # in [-1, 1]; None where one of them is zero
    sign_disagreement: float | None  # share of other signs where both are not zero; None: nowhere


@dataclass(frozen=True)
class Row:
    """One place of the result; models and pairs in recipe order."""

    stack: str | None  # such as ``model.layers``; None outside the layers
    layer: int | None  # of the result, from 0; None outside the layers
    name: str  # of the module in its layer, such as ``self_attn.q_proj``, else of the tensors
    parameters: int  # how many the result has here
    measured_from: tuple[str, ...]  # reference of the base, or of the model that stands for it
    models: tuple[Measured, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    parents: int  # on disk, and in the page cache once read; files that are shared count once
    result: int  # of the live model, or of the weights that are written
    temporaries: int  # an estimate: what the merge of the largest tensor needs beside these


@dataclass(frozen=True)
class Inspection:
    """All that was measured."""

    merge_method: str
    recipe_digest: str
    dtype: str  # of the result
    measured_from: tuple[str, ...]  # every base of a row, or model that stands for it
    models: tuple[str, ...]  # reference of every task vector, in recipe order
    kept_is: str | None  # ``exact``, ``expected`` where entries are drawn, None without ``density``
    parameters: int  # of the result
    parents: Mapping[str, int]  # reference -> parameters of every parent
    memory: Memory
    total: Row  # all rows together, and its name says so
    rows: tuple[Row, ...]  # in the order of the model

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)

    def layer_name(self, row: Row) -> str:
        """Return a row's layer number, after its stack where there are several; "" outside them."""
        if row.layer is None:
            return ""
        several = len({one.stack for one in self.rows if one.stack is not None}) > 1
        return f"{row.stack} {row.layer}" if several else str(row.layer)

    def short_names(self) -> dict[str, str]:
        """Return the last word of every task vector's reference, whole ones where two agree."""
        short = {model: model.rstrip("/").rpartition("/")[2] for model in self.models}
        distinct = len(set(short.values())) == len(short)
        return short if distinct else {model: model for model in self.models}


def inspect(plan: Plan, device: str | None = None, watch: Watch | None = None) -> Inspection:
    """Measure all that goes into a plan; ``device`` and ``watch``: see ``survey``.

    Raises:
        NonFiniteError: A model has NaN or infinite entries.
        ParameterError: The method refuses a density or an epsilon; the plan is a mixture's.
        CheckpointError: Whole-number tensors differ between the parents.
    """
    if plan.recipe.moe is not None:
        raise ParameterError(
            "moe: no two models meet in a tensor of a mixture, so nothing is measured; inspect the "
            "recipe without moe, which is what all but the experts is merged from"
        )
    sums = survey(plan, device, watch)
    placed = {
        place: reduce(Sums.plus, (sums[step.tensor] for step in steps))
        for place, steps in _placed(plan).items()
    }
    whole = _row(plan, (None, None, "whole model"), reduce(Sums.plus, placed.values(), Sums()))
    kept_is = "expected" if plan.method.draws else "exact"
    parameters = {
        name: sum(math.prod(x.shape) for x in parent.tensors.values() if x.dtype in FLOATS)
        for name, parent in plan.opened.items()
    }
    return Inspection(
        merge_method=plan.method.name,
        recipe_digest=plan.recipe.digest(),
        dtype=plan.dtype,
        measured_from=whole.measured_from,
        models=tuple(one.model for one in whole.models),
        kept_is=kept_is if plan.method.param("density") else None,
        parameters=whole.parameters,
        parents=parameters,
        memory=Memory(_file_bytes(plan), sum(map(plan.bytes_of, plan.steps)), temporaries(plan)),
        total=whole,
        rows=tuple(_row(plan, place, here) for place, here in placed.items()),
    )


Place = tuple[str | None, int | None, str]  # stack, layer, name


def _placed(plan: Plan) -> dict[Place, list[Step]]:
    """Return the merged steps of every row, in the order of the model."""
    steps = {step.tensor: step for step in plan.steps if not step.copied}
    facts = plan.parents[plan.config_from].architecture
    ordered = facts.in_order(steps)
    rows: dict[Place, list[Step]] = {}
    for module in layers.modules_of(ordered, facts.stacks):
        stack, first, last = module.layers, module.before, module.after
        inside = [name for name in ordered if stack.index(name) is not None]
        inside.sort(key=lambda name: stack.index(name) or 0)  # stable: modules stay in order
        for name in (*first, *inside, *last):
            index = stack.index(name)
            own = name if index is None else name.removeprefix(stack.start(index))
            part = own.rpartition(".")[0] or own  # ``mlp.up_proj`` of ``mlp.up_proj.weight``
            place = None if index is None else stack.stack, index, part
            rows.setdefault(place, []).append(steps[name])
    return rows


def _row(plan: Plan, place: Place, sums: Sums) -> Row:
    density = plan.method.param("density") is not None
    order = [model for model in plan.recipe.names() if model in sums.vectors]
    return Row(
        *place,
        sums.parameters,
        sums.bases,
        tuple(_measured(model, sums.vectors[model], density) for model in order),
        tuple(_pair(two, sums) for two in combinations(order, 2) if two in sums.products),
    )


def _measured(model: str, sums: Vector, density: bool) -> Measured:
    kept = Kept(
        _ratio(sums.kept_entries, sums.entries),
        _ratio(sums.kept_l1, sums.l1),
        _ratio(sums.kept_squares, sums.squares),
    )
    relative = _ratio(math.sqrt(sums.squares), math.sqrt(sums.base_squares))
    return Measured(model, math.sqrt(sums.squares), relative, kept if density else None)


def _pair(models: tuple[str, str], sums: Sums) -> Pair:
    found = sums.products[models]
    cosine = _ratio(found.dot, math.sqrt(found.a_squares) * math.sqrt(found.b_squares))
    if cosine is not None:
        cosine = max(-1.0, min(1.0, cosine))  # rounding may lead past the ends
    return Pair(models, cosine, _ratio(found.opposed, found.signed))


def _ratio(a: float, b: float) -> float | None:
    return a / b if b > 0 else None


def _file_bytes(plan: Plan) -> int:
    files: set[Path] = set()
    for parent in plan.opened.values():
        if parent.located is not None:
            folder, lora = parent.located.model.folder, parent.located.lora
            files |= {(folder / name).resolve() for name in files_of(folder)[0]}
            files |= {(lora.folder / lora_keys.WEIGHTS).resolve()} if lora is not None else set()
    return sum(file.stat().st_size for file in files)


def temporaries(plan: Plan) -> int:
    """Return the estimate for the step that needs most, and for other documents inside it."""
    used = {x.parent: plan.parents[x.parent] for step in plan.steps for x in step.inputs()}
    own = [_held(plan, step) for step in plan.steps]
    inside = [temporaries(x.plan) for x in used.values() if isinstance(x, Intermediate)]
    return max(own, default=0) + max(inside, default=0)


def _held(plan: Plan, step: Step) -> int:
    """Return the bytes that one step holds beside files: result, blocks, what is made for it."""
    entries, k = math.prod(step.shape), len(step.operands)
    made = sum(not isinstance(plan.parents[x.parent], Checkpoint) for x in step.inputs())
    held = plan.bytes_of(step) + 4 * made * entries
    if step.copied:
        return held
    if plan.method.entry is None or plan.method.entry is svd_merge.entry:
        return held + entries * 4 * (COPIES + COPIES_PER_MODEL * k)
    ranks = 2 * k if EPSILON in plan.method.params else 0
    return held + SCRATCH + entries * ranks
