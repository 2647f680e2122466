"""The study file's sections ``items``, ``search`` and ``engine``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from merge_core.errors import Problems, hint, shown
from merge_core.recipe.schema import Recipe
from merge_core.validation import StrictModel, Words, failed, one_of
from search.samplers.registry import SAMPLERS
from search.spec.recipe_file import Kept, read_recipe

START = "start"  # key of a recipe to start from
KEEP_ANSWERS = 40  # of each who is asked, unless the file says it
OF_ONE = {  # engine -> the keys that only it has
    "hf": ("device", "parents"),
    "vllm": ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len"),
}
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")  # kinds, torch's words


class Items(StrictModel):
    """How many items each pool gets, over all tasks together; ``rest``: what the others leave."""

    search: int = Field(300, ge=1)
    select: int = Field(300, ge=1)
    report: Annotated[
        Annotated[int, Field(ge=1)] | Literal["rest"],
        Words("a whole number of at least 1 or 'rest'"),
    ] = "rest"


def _recipe(data: Any) -> Any:
    """Read what the study file's reader has put in place of a file's name."""
    if data is None or isinstance(data, Recipe):
        return data
    if not isinstance(data, Path | Kept):
        raise ValueError(f"expected a recipe file, got {shown(data)}")
    problems: Problems = []
    found = read_recipe(data.plain if isinstance(data, Kept) else data, "", problems)
    if problems:
        raise failed(((path,) if path else (), rule) for path, rule in problems)
    return found


class Race(StrictModel):
    """When a candidate is stopped before it has seen all search items.

    As soon as it is refuted that it is better than the best one so far by ``margin``, in the unit
    of a trial's value, on the search pool as a whole. A candidate that is has at most the
    probability ``error`` of being stopped, over all looks at it together.
    """

    margin: float = Field(0.02, ge=0)
    error: float = Field(0.1, gt=0, lt=1)


RACES: dict[str | bool, Race | None] = {"off": None, False: None, "on": Race(), True: Race()}


def _race(data: Any) -> Any:
    """Read one word, which YAML takes for a truth value, or else leave the mapping as it is."""
    if data is None or isinstance(data, Race | dict):
        return data
    if isinstance(data, str | bool) and data in RACES:
        return RACES[data]
    raise ValueError(f"expected on, off, or {{margin, error}}, got {shown(data)}")


def told_race(data: Any) -> Any:
    """Return plain data of a race with its defaults; what is wrong is left as it is."""
    known = isinstance(data, str | bool) and data in RACES
    found = RACES[data] if known else data
    return {**Race().model_dump(), **dict(found)} if isinstance(found, Race | dict) else found


class Search(StrictModel):
    """How candidates are proposed and when that ends.

    It ends after ``trials``, baselines not counted; when all trials together took ``hours``; after
    ``patience`` trials in a row that are no better than the best before; or when a search value
    reaches ``target``. ``start`` is a recipe that the user has: a point of the space.
    ``prior`` is another study, whose trials inform the sampler. ``race``: whether, and how,
    candidates that are worse than the best are stopped early; None: all see all search items.
    ``order``: with several workers trials are settled in the order in which they were begun
    (``fixed``: the same study, however fast each worker is) or as they come (``free``: no worker
    ever waits for another).
    """

    sampler: str = "auto"
    seed: int = Field(0, ge=0, lt=2**63)
    trials: int = Field(100, ge=1)
    hours: float | None = Field(None, gt=0)
    patience: int | None = Field(None, ge=1)
    target: float | None = None
    finalists: int = Field(8, ge=1)
    start: Annotated[
        Recipe | None,
        BeforeValidator(_recipe),
        Words("a recipe file"),
    ] = None

    prior: Annotated[
        str | None,
        Field(min_length=1, repr=False),
        Words("a study file, its folder, or the URL of its storage"),
    ] = None

    race: Annotated[Race | None, BeforeValidator(_race)] = Race()
    order: Literal["fixed", "free"] = "fixed"

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS.names():
            raise ValueError(one_of(name, SAMPLERS.names()))
        return name


class Engine(StrictModel):
    """What runs the model: ``hf``, the live transformers model, or ``vllm``, which stays up.

    ``device`` is in torch's words (``auto``: the accelerator, if any) and for ``hf``; vLLM has its
    own. ``threads`` of the CPU decide the last bits of a score, so a study keeps the number it
    began with; None takes torch's own. ``kernels`` says how candidates are merged, with the same
    bits: ``fused``, ``blocked``, or ``auto``: fused where there is a compiler and the model is
    large. ``cache`` is a folder for what is computed once of parents, kept for the next study.
    ``parents`` says where they are kept, see ``placement``; it is for ``hf``. The last three are
    for ``vllm`` and mean what they mean there.
    """

    name: Literal["hf", "vllm"] = "hf"
    device: str = "auto"
    batch_size: int = Field(64, ge=1)
    threads: int | None = Field(None, ge=1)
    kernels: Literal["auto", "fused", "blocked"] = "auto"
    cache: str | None = None
    parents: Literal["auto", "device", "pinned", "mapped"] = "auto"
    tensor_parallel_size: int | None = Field(None, ge=1)
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_model_len: int | None = Field(None, ge=2)

    @field_validator(*OF_ONE["hf"], *OF_ONE["vllm"])
    @classmethod
    def _of_this_engine(cls, value: Any, field: ValidationInfo) -> Any:
        owner = next(engine for engine, keys in OF_ONE.items() if field.field_name in keys)
        here = field.data.get("name", owner)
        if here != owner:
            raise ValueError(f"only for `name: {owner}`; the engine here is {here!r}")
        return value

    @field_validator("device")
    @classmethod
    def _of_torch(cls, device: str) -> str:
        kind, colon, number = device.partition(":")
        if kind not in DEVICES or (colon and (kind == "auto" or not number.isdecimal())):
            near = hint(device, DEVICES)
            raise ValueError(f"expected auto, cpu, cuda, cuda:1, mps, ..., got {device!r}{near}")
        return device

    def of_vllm(self) -> dict[str, Any]:
        """Return what the file says of the options that only vLLM has."""
        return self.model_dump(include=set(OF_ONE["vllm"]), exclude_none=True)
