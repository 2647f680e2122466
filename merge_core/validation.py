"""Values as a user writes them, checked against a model; what is wrong, in the file's own words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from merge_core.errors import SHOWN, Problems, hint, join, shown

Place = tuple[str | int, ...]
M = TypeVar("M", bound="StrictModel")

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "a text"),
    (Mapping, "a mapping"),
    (BaseModel, "a mapping"),
    (Sequence, "a list"),
)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Words(NamedTuple):
    """What a field takes, in words; stands in ``Annotated`` where the type alone says too little.

    A value that is refused for whatever reason is then answered by ``expected {text}, got ...``.
    """

    text: str


Number = int | float  # each stays what it is
File = Annotated[str, Words("a file")]
Folder = Annotated[str, Words("a folder")]
Texts = Annotated[
    str | Annotated[list[str], Field(min_length=1)], Words("a text or a list of texts")
]


def read_by(read: Callable[[Any, str, Problems], Any]) -> GetPydanticSchema:
    """Return a mark for ``Annotated``: ``read`` makes what the field holds of what the file says.

    Args:
        read: Takes the value, its key path and the problems to add to, see :data:`errors.Problems`.
    """

    def checked(value: Any) -> Any:
        problems: Problems = []
        found = read(value, "it", problems)
        if problems:
            inside = [(path[len("it") :].removeprefix("."), rule) for path, rule in problems]
            raise failed(((path,) if path else (), rule) for path, rule in inside)
        return found

    return GetPydanticSchema(lambda *_: core_schema.no_info_plain_validator_function(checked))


class StrictModel(BaseModel):
    """Keys that a user may write at one place of a file; frozen, and no value is converted.

    Validators of a subclass raise ``ValueError`` with the rule as its message, or :func:`failed`;
    a field's ``title`` is the rule where its key is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, data: Any, check: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return check(data)
        except ValidationError as error:
            problems = [cls._problem(found, data) for found in error.errors()[:SHOWN]]
            raise failed(dict.fromkeys(problems)) from None

    @classmethod
    def _problem(cls, found: ErrorDetails, data: Any) -> tuple[Place, str]:
        """Return the place and the rule of one error; the branches of a union share both."""
        place, kind = found["loc"], found["type"]
        if kind in ("rule", "value_error"):
            return place, _message(found)
        if not place:
            return place, f"expected a mapping, got {shown(data)}"
        key = str(place[0])
        if kind in ("extra_forbidden", "invalid_key"):
            return (key,), f"unknown key{hint(key, cls.declared())}"
        field = cls.declared()[key]
        if kind == "missing":
            return place, field.title or "required"
        return (key,), _refusal(found, field, data[key])

    @classmethod
    def declared(cls) -> dict[str, FieldInfo]:
        """Return every key that may be written, with its declaration, in order."""
        return {str(f.validation_alias or name): f for name, f in cls.model_fields.items()}


def failed(problems: Iterable[tuple[Place, str]]) -> ValidationError:
    """Return the error that a validator raises for several problems, or for one inside its value.

    Args:
        problems: Place and rule of each; the place as keys and positions from the value on.
    """
    lines: list[InitErrorDetails] = []
    for place, rule in problems:
        error = PydanticCustomError("rule", "{rule}", {"rule": rule})
        lines.append({"type": error, "loc": place, "input": None})
    return ValidationError.from_exception_data("", lines)


def read(model: type[M], values: Any, path: str, problems: Problems) -> M | None:
    """Return the model of plain data; or None, with key path and rule of all that it refuses."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems.extend((reduce(join, e["loc"], path), _message(e)) for e in error.errors())
        return None


def one_of(value: Any, known: Iterable[str]) -> str:
    """Return the rule that a value breaks which is none of the known names."""
    near = hint(value, known) if isinstance(value, str) else ""
    return f"expected one of {', '.join(known)}, got {shown(value)}{near}"


def kind_of(annotation: Any) -> str:
    """Return what a type or a field takes, in the words of the file; null is passed over."""
    if isinstance(annotation, FieldInfo):
        return kind_of(annotation.rebuild_annotation())
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Words):
            return mark.text
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(args[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, UnionType):
        parts = [part for part in args if part is not NoneType]
        return "a number" if set(parts) == {int, float} else " or ".join(map(kind_of, parts))
    plain = origin or annotation
    return next((words for kind, words in _KINDS if issubclass(plain, kind)), plain.__name__)


def _message(found: ErrorDetails) -> str:
    return found["msg"].removeprefix("Value error, ")


def _refusal(found: ErrorDetails, field: FieldInfo, value: Any) -> str:
    got = f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else shown(value)
    marked = any(isinstance(mark, Words) for mark in field.metadata)
    for name, limit in found.get("ctx", {}).items():
        if name in _BOUNDS and len(found["loc"]) == 1 and not marked:
            limit = f"{limit:g}" if isinstance(limit, float) else limit
            return f"must be {_BOUNDS[name]} {limit}, got {got}"
    parts = (field.annotation, *get_args(field.annotation))
    known = [name for part in parts if get_origin(part) is Literal for name in get_args(part)]
    near = hint(value, known) if isinstance(value, str) else ""
    return f"expected {kind_of(field)}, got {got}{near}"
