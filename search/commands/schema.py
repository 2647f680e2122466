"""`mergetune schema`: what a study file may say, for editors."""

from __future__ import annotations

from search.options import Plugins
from search.spec import json_schema


def schema(plugin: Plugins = None) -> None:
    """Print a JSON schema of study files, with the methods and evaluators that are installed."""
    print(json_schema.text(), end="")
