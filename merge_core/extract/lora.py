"""Two models of one architecture -> what one changed of the other, as low-rank factors and wholes.

The matrices of linear layers become factors by a singular value decomposition of their task vector.
What no LoRA holds (norms, embeddings, biases, and a tied head) is taken whole if it changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, NonFiniteError, ParameterError, ShapeError
from merge_core.extract.modules import Module, modules
from merge_core.kernels.threads import share
from merge_core.numerics import low_rank
from merge_core.numerics.low_rank import Factors
from merge_core.parents import ties
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS

AT_ONCE = 2**28  # entries of task vectors that are decomposed at a time, by as many threads
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Asked:
    """How to extract: greatest rank, type of the factors, parts of names that stay the base's."""

    rank: int
    dtype: str = "float32"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ParameterError(f"rank: expected at least 1, got {self.rank}")
        if self.dtype not in DTYPES:
            raise ParameterError(f"dtype: expected {' or '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True)
class LowRank:
    """The change of one linear layer."""

    module: Module
    factors: Factors


@dataclass
class Extracted:
    """All that changed."""

    low_rank: list[LowRank] = field(default_factory=list)
    whole: list[Module] = field(default_factory=list)  # taken with all their tensors
    biases: list[tuple[str, str]] = field(default_factory=list)  # linear layer, stored name
    left: dict[str, tuple[str, float]] = field(default_factory=dict)  # tensor -> why, norm of it

    @property
    def norm(self) -> float:
        """Length of the task vector in what is low-rank or left out."""
        norms = [x.factors.norm for x in self.low_rank] + [norm for _, norm in self.left.values()]
        return math.hypot(*norms)

    @property
    def error(self) -> float:
        """Length of what the adapter does not give back; what is taken whole is exact."""
        errors = [x.factors.error for x in self.low_rank]
        return math.hypot(*errors, *(norm for _, norm in self.left.values()))


def extract(
    model: Parent, base: Parent, asked: Asked, progress: Callable[[int, int], None] | None = None
) -> Extracted:
    """Return what a model changed of its base.

    Args:
        model: The fine-tune.
        base: What it was tuned from, with the same tensors.
        asked: How.
        progress: Is told how many entries of linear layers are done, and how many there are.

    Raises:
        CheckpointError: One has tensors that the other has not, or nothing differs.
        ShapeError: A tensor has another shape in the base.
        NonFiniteError: A tensor has NaN or infinite entries.
    """
    tied = {*base.architecture.tied, *base.architecture.tied.values()}
    model, base = (ties.untied(x, x.architecture.tied) for x in (model, base))
    _check(model, base)
    found, linear, covered = Extracted(), [], set[str]()
    for module in modules(base):
        covered |= {*module.tensors.values()}
        if not any(_differs(model, base, name) for name in module.tensors.values()):
            continue
        if any(part in module.name for part in asked.exclude):
            changed = [x for x in module.tensors.values() if _differs(model, base, x)]
            found.left |= {x: ("excluded", _norm(model, base, x)) for x in changed}
        elif module.weight is None or tied & {*module.tensors.values()}:
            found.whole.append(module)
        else:
            linear.append(module)
    for name in sorted(base.tensors.keys() - covered):
        if _differs(model, base, name):
            found.left[name] = ("peft has no module for it", _norm(model, base, name))
    _factor(model, base, asked, linear, found, progress)
    if not found.low_rank:
        raise CheckpointError(
            f"{model.reference}: its linear layers have the weights of {base.reference}; a LoRA "
            f"holds what changed in these, so there is nothing to extract"
        )
    return found


def _factor(
    model: Parent,
    base: Parent,
    asked: Asked,
    linear: Sequence[Module],
    found: Extracted,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Note the factors of linear layers and the biases that changed."""

    def factors(module: Module) -> Factors:
        delta = _delta(model, base, str(module.weight))
        turned = delta.T if module.kind == "conv1d" else delta
        try:
            return low_rank.nearest(turned, asked.rank, asked.dtype)
        except NonFiniteError as error:
            raise NonFiniteError(f"{module.weight}: {error}; mend the model") from error

    for module, one in ((module, one) for module in linear for one in (model, base)):
        kept = one.tensors[str(module.weight)].dtype
        if kept not in FLOATS:
            raise CheckpointError(
                f"{module.weight}: expected floats, {one.reference} stores {kept}; use a model "
                f"that is not quantized"
            )
    biases = [
        (module.name, module.tensors["bias"]) for module in linear if "bias" in module.tensors
    ]
    found.biases = [pair for pair in biases if _differs(model, base, pair[1])]
    sizes = {module.name: math.prod(base.tensors[str(module.weight)].shape) for module in linear}
    changed = [x for x in linear if _differs(model, base, str(x.weight))]
    every, done = sum(sizes[x.name] for x in changed), 0
    for batch in _batches(changed, sizes):
        made = share(factors, batch)
        found.low_rank += [LowRank(x, y) for x, y in zip(batch, made, strict=True)]
        done += sum(sizes[x.name] for x in batch)
        if progress is not None:
            progress(done, every)


def _batches(linear: Sequence[Module], sizes: dict[str, int]) -> Iterator[list[Module]]:
    batch: list[Module] = []
    for module in linear:
        if batch and sum(sizes[x.name] for x in (*batch, module)) > AT_ONCE:
            yield batch
            batch = []
        batch.append(module)
    if batch:
        yield batch


def _check(model: Parent, base: Parent) -> None:
    """Refuse two models that have not the same tensors."""
    for one, other in ((model, base), (base, model)):
        missing = [name for name in one.tensors if name not in other.tensors]
        if missing:
            raise CheckpointError(
                f"{other.reference} has no {missing[0]}, which {one.reference} has "
                f"({len(missing)} such): expected a model and the base that it was tuned from"
            )
    for name, info in base.tensors.items():
        shape = model.tensors[name].shape
        if shape == info.shape:
            continue
        hint = "expected a model and the base that it was tuned from"
        if name in base.architecture.vocabulary:
            hint = (
                "peft adapts one vocabulary; first `mergetune tokensurgeon "
                f"{model.reference} {base.reference} OUT` gives the model that of its base"
            )
        raise ShapeError(
            f"{name} is {shape} in {model.reference}, {info.shape} in {base.reference}: {hint}"
        )


def _differs(model: Parent, base: Parent, name: str) -> bool:
    ours, theirs = model.tensor(name), base.tensor(name)
    return not (ours.equal(theirs) if ours.dtype == theirs.dtype else ours.float().equal(theirs))


def _delta(model: Parent, base: Parent, name: str) -> Tensor:
    """Return ``W - W_b`` in float32."""
    return model.tensor(name).float() - base.tensor(name).float()


def _norm(model: Parent, base: Parent, name: str) -> float:
    return low_rank.norm(_delta(model, base, name))
