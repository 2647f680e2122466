"""Callbacks by name: those that are shipped, and those of the group ``mergetune.callbacks``.

What a name stands for is called without arguments, and returns a callback.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from merge_core.errors import ParameterError
from merge_core.plugins import Registry
from search.callbacks.protocol import Callback

CALLBACKS = Registry(
    "callback",
    "mergetune.callbacks",
    {
        "mlflow": "search.callbacks.on_mlflow:ToMlflow",
        "tensorboard": "search.callbacks.on_tensorboard:ToTensorBoard",
        "wandb": "search.callbacks.on_wandb:ToWandb",
    },
)
EXTRAS = ("mlflow", "tensorboard", "wandb")  # shipped ones, as their packages are called, too


def made(names: Iterable[str]) -> dict[str, Callback]:
    """Return the callbacks of these names, made for one run.

    Raises:
        UnknownNameError: No callback has that name.
        ParameterError: The package that a shipped one tells is not installed.
    """
    found: dict[str, Callback] = {}
    for name in dict.fromkeys(names):
        maker = CALLBACKS.get(name)
        if name in EXTRAS and find_spec(name) is None:
            raise ParameterError(
                f"--callback {name}: the package {name} is not installed; run "
                f"`pip install 'mergetune[{name}]'`"
            )
        found[name] = maker()
    return found
