"""The value of a parameter for one tensor: first matching filter, gradient, default."""

from __future__ import annotations

import math
from collections.abc import Sequence

from merge_core.contract import Param, Value
from merge_core.errors import ParameterError
from merge_core.recipe.schema import Conditional, Scalar, Setting, Settings


def at(gradient: Sequence[Scalar], t: float) -> Scalar:
    """Return the gradient's value at ``t`` in [0, 1]: linear between its evenly spaced values.

    Flags and words do not mix: of those, the one at or before ``t`` is returned.
    """
    place = t * (len(gradient) - 1)
    if abs(place - round(place)) < 1e-9:  # 13 / 23 * 23 is not 13 in floats
        place = round(place)
    i = min(math.floor(place), len(gradient) - 1)
    left, right = gradient[i], gradient[min(i + 1, len(gradient) - 1)]
    if isinstance(left, bool | str) or isinstance(right, bool | str):
        return left
    part = place - i
    return left if part == 0 else (1 - part) * left + part * right


def resolve(setting: Setting, tensor: str, t: float) -> Scalar | None:
    """Return a setting's value for one tensor, or None if no filter of it matches.

    Args:
        setting: A value, a gradient, or conditionals.
        tensor: The tensor's name; a filter matches if it is a part of it. ``*`` matches all.
        t: The layer's place in [0, 1]; 0 for tensors outside the layers.
    """
    if not isinstance(setting, tuple):
        return setting
    if isinstance(setting[0], Conditional):
        for case in setting:
            assert isinstance(case, Conditional)
            if case.filter in (None, "*") or str(case.filter) in tensor:
                return at(case.value, t) if isinstance(case.value, tuple) else case.value
        return None
    gradient: tuple[Scalar, ...] = setting
    return at(gradient, t)


def value_at(param: Param, levels: Sequence[Settings], tensor: str, t: float) -> Value:
    """Return a parameter's value for one tensor from all settings that are given there.

    Args:
        param: One of the method's.
        levels: Settings by name, the most specific first.
        tensor: See :func:`resolve`.
        t: See there, too.

    Raises:
        ParameterError: See :func:`value_of`.
    """
    settings = [setting for level in levels for name, setting in level if name == param.name]
    return value_of(param, settings, tensor, t)


def value_of(param: Param, settings: Sequence[Setting], tensor: str, t: float) -> Value:
    """Return a parameter's value for one tensor at ``t``, see :func:`resolve`.

    The first of ``settings`` that holds counts: they stand the most specific first.

    Raises:
        ParameterError: No setting holds for the tensor and there is no default.
    """
    for setting in settings:
        value = resolve(setting, tensor, t)
        if value is not None:
            return value
    if param.default is None:
        raise ParameterError(
            f"{tensor}: no value of {param.name!r} holds for it and there is no default; "
            f"add a last entry without a filter"
        )
    return param.default
