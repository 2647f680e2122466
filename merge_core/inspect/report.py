"""What a merge would work on, measured before it: task vectors, their angles, what density keeps.

row    a layer's module (weight and bias together), or tensors of one name outside the layers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from merge_core.architecture import layers
from merge_core.contract import Method
from merge_core.inspect.task_vector_sums import Sums, Vector, survey
from merge_core.merge.nested import Intermediate
from merge_core.methods.shared import svd_merge
from merge_core.methods.shared.sparsify.rank_bernoulli import EPSILON
from merge_core.parents import lora_keys
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS, files_of
from merge_core.plan.steps import Plan, Step

# Float32 copies of a whole tensor that a method without an entry function may hold, for k models,
# and of a matrix whose singular values are taken, in float64.
COPIES, COPIES_PER_MODEL = 6, 2
SCRATCH = 32 * 2**20  # bytes of blocks


@dataclass(frozen=True)
class Kept:
    """What a recipe's density leaves of a task vector: shares, None of a sum that is zero.

    Args:
        entries: Of their number.
        l1: Of the sum of their magnitudes.
        squares: Of the squared norm.
    """

    entries: float | None
    l1: float | None
    squares: float | None


@dataclass(frozen=True)
class Measured:
    """One task vector in one row.

    Args:
        model: Its reference.
        norm: Frobenius.
        relative: ``norm`` over the norm of what it is measured from; None where that is zero.
        kept: None where the method has no ``density``.
    """

    model: str
    norm: float
    relative: float | None
    kept: Kept | None


@dataclass(frozen=True)
class Pair:
    """Two task vectors in one row.

    Args:
        models: Their references.
        cosine: In [-1, 1]; None where one of them is zero.
        sign_disagreement: Share of other signs among entries where both are not zero; None where
            there are no such entries.
    """

    models: tuple[str, str]
    cosine: float | None
    sign_disagreement: float | None


@dataclass(frozen=True)
class Row:
    """One place of the result.

    Args:
        stack: Such as ``model.layers``; None outside the layers.
        layer: Of the result, from 0; None outside the layers.
        name: Of the module in its layer, such as ``self_attn.q_proj``, else of the tensors.
        parameters: How many the result has here.
        measured_from: Reference of the base, or of the model that stands for it.
        models: In recipe order.
        pairs: In recipe order.
    """

    stack: str | None
    layer: int | None
    name: str
    parameters: int
    measured_from: tuple[str, ...]
    models: tuple[Measured, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Args:
        parents: On disk, and in the page cache once read; files that parents share count once.
        result: Of the live model, or of the weights that are written.
        temporaries: An estimate: what the merge of the largest tensor needs beside these.
    """

    parents: int
    result: int
    temporaries: int


@dataclass(frozen=True)
class Inspection:
    """All that was measured.

    Args:
        merge_method: Of the recipe's result.
        recipe_digest: Of the recipe.
        dtype: Of the result.
        measured_from: Every base of a row, or model that stands for it.
        models: Reference of every task vector, in recipe order.
        kept_is: ``exact``, ``expected`` where entries are drawn, None without ``density``.
        parameters: Of the result.
        parents: Reference -> parameters of every parent.
        memory: In bytes.
        total: All rows together, and its name says so.
        rows: In the order of the model.
    """

    merge_method: str
    recipe_digest: str
    dtype: str
    measured_from: tuple[str, ...]
    models: tuple[str, ...]
    kept_is: str | None
    parameters: int
    parents: Mapping[str, int]
    memory: Memory
    total: Row
    rows: tuple[Row, ...]

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
        whole = {model: model for model in self.models}
        return whole if len(set(short.values())) < len(short) else short


def inspect(plan: Plan) -> Inspection:
    """Measure all that goes into a plan.

    Raises:
        NonFiniteError: A model has NaN or infinite entries.
        ParameterError: The method refuses a density or an epsilon.
        CheckpointError: Whole-number tensors differ between the parents.
    """
    sums = survey(plan)
    rows, total = [], Sums()
    for place, steps in _placed(plan).items():
        here = Sums()
        for step in steps:
            here = here.plus(sums[step.tensor])
        total = total.plus(here)
        rows.append(_row(plan, place, here))
    whole = _row(plan, (None, None, "whole model"), total)
    return Inspection(
        merge_method=plan.method.name,
        recipe_digest=plan.recipe.digest(),
        dtype=plan.dtype,
        measured_from=whole.measured_from,
        models=tuple(one.model for one in whole.models),
        kept_is=_kept_is(plan.method),
        parameters=whole.parameters,
        parents={name: _parameters(parent) for name, parent in plan.opened.items()},
        memory=Memory(_file_bytes(plan), _result_bytes(plan), _temporaries(plan)),
        total=whole,
        rows=tuple(rows),
    )


Place = tuple[str | None, int | None, str]  # stack, layer, name


def _placed(plan: Plan) -> dict[Place, list[Step]]:
    """Return the merged steps of every row, in the order of the model."""
    steps = {step.tensor: step for step in plan.steps if not step.copied}
    ordered = plan.parents[plan.config_from].architecture.in_order(steps)
    rows: dict[Place, list[Step]] = {}
    for module in layers.modules_of(ordered):
        stack, first, last = module.layers, module.before, module.after
        inside = [name for name in ordered if stack.index(name) is not None]
        inside.sort(key=lambda name: stack.index(name) or 0)  # stable: modules stay in order
        for name in (*first, *inside, *last):
            rows.setdefault(_place(name, stack), []).append(steps[name])
    return rows


def _place(tensor: str, stack: layers.Layers) -> Place:
    index = stack.index(tensor)
    if index is None:
        return None, None, _module_name(tensor)
    return stack.stack, index, _module_name(tensor.removeprefix(stack.start(index)))


def _module_name(tensor: str) -> str:
    """Return ``self_attn.q_proj`` for ``self_attn.q_proj.weight``; a single word is itself."""
    return tensor.rpartition(".")[0] or tensor


def _kept_is(method: Method) -> str | None:
    if method.param("density") is None:
        return None
    return "expected" if method.draws else "exact"


def _row(plan: Plan, place: Place, sums: Sums) -> Row:
    density = _kept_is(plan.method) is not None
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


def _parameters(parent: Parent) -> int:
    return sum(math.prod(x.shape) for x in parent.tensors.values() if x.dtype in FLOATS)


def _file_bytes(plan: Plan) -> int:
    files: set[Path] = set()
    for parent in plan.opened.values():
        if parent.located is not None:
            folder, lora = parent.located.model.folder, parent.located.lora
            files |= {(folder / name).resolve() for name in files_of(folder)[0]}
            files |= {(lora.folder / lora_keys.WEIGHTS).resolve()} if lora is not None else set()
    return sum(file.stat().st_size for file in files)


def _result_bytes(plan: Plan) -> int:
    return sum(map(plan.bytes_of, plan.steps))


def _temporaries(plan: Plan) -> int:
    """Return the estimate for the step that needs most, and for other documents inside it."""
    used = {x.parent: plan.parents[x.parent] for step in plan.steps for x in step.inputs()}
    own = [_held(plan, step) for step in plan.steps]
    inside = [_temporaries(x.plan) for x in used.values() if isinstance(x, Intermediate)]
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
