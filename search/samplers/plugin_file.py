"""Samplers that a file of ``--plugin`` declares."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from merge_core.errors import ParameterError
from merge_core.plugins import Registry
from search.samplers.registry import SAMPLERS, SamplerPlugin, declared


def samplers_in(module: ModuleType, file: str) -> list[tuple[Registry, str, SamplerPlugin]]:
    """Return what a module declares as ``SAMPLER`` and ``SAMPLERS``.

    ``SAMPLER`` is a ``SamplerPlugin``, ``SAMPLERS`` a list of them or a mapping from names to
    plugins, functions (space, start, seed), or sampler classes of Optuna's kind.

    Args:
        module: That was imported from the file.
        file: Words for it, for messages.

    Raises:
        ParameterError: It declares something else.
    """
    plugins, listed = SAMPLERS.in_file(module, "SAMPLER")
    named = dict(listed) if isinstance(listed, Mapping) else {}
    if not named:
        plugins.extend(listed if isinstance(listed, list | tuple) else [listed])
    for plugin in plugins:
        if not isinstance(plugin, SamplerPlugin):
            raise ParameterError(
                f"{file}: SAMPLER must be a SamplerPlugin, and SAMPLERS a list of them or a "
                f"mapping from names, got {plugin!r}"
            )
    try:
        found = [declared(name, plugin) for name, plugin in named.items()]
    except ParameterError as error:
        raise ParameterError(f"{file}: {error}") from error
    return [(SAMPLERS, plugin.name, plugin) for plugin in plugins] + [
        (SAMPLERS, name, plugin) for name, plugin in zip(named, found, strict=True)
    ]


READERS = {"SAMPLER, SAMPLERS": samplers_in}  # what ``evaluators.plugin_file`` is to read, too
