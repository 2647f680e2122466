"""Makes ``merge_core``, ``evaluators`` and ``search`` those that stand beside this package.

Python looks into the folder of a notebook first (and ``python -c`` and ``-m`` into the working
directory), so a ``search.py`` there would be taken for our package of that name. But what is in
``sys.modules`` is not looked for at all: so our three packages are put there, from their own place,
before anything imports them, and what is in them is found by their own ``__path__``.

From then on ``import search`` means ours, everywhere in the process. Processes that another library
starts anew (vLLM's workers) do not pass here: start those from a folder without such files.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]


def load(name: str) -> None:
    """Import one of the packages, unless it is imported already.

    Raises:
        ImportError: Another module of that name was imported before.
    """
    other = sys.modules.get(name)
    if other is not None:
        file = getattr(other, "__file__", None) or next(iter(getattr(other, "__path__", [])), "?")
        if Path(file).resolve() != HOME / name / "__init__.py":
            raise ImportError(
                f"{file} was imported as {name!r}, a name that a package of mergetune has; rename "
                f"that file, or do not import it in this process, and start Python again",
                name=name,
                path=file,
            )
        return
    spec = PathFinder.find_spec(name, [str(HOME)])
    if spec is None or spec.loader is None:
        raise ImportError(f"mergetune is not installed whole: {HOME / name} is missing", name=name)
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


for package in ("merge_core", "evaluators", "search"):
    load(package)
