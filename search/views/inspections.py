"""What `mergetune inspect` has found, in its three forms: data, a page, and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from merge_core.inspect.report import Inspection
from search.run.inspect_layers import LayersFound
from search.views import inspection_html, inspection_table, layers_html, layers_table


@dataclass(frozen=True)
class Shown:
    """Plain data, and what makes a web page of it and prints it."""

    data: dict[str, Any]
    page: Callable[[], str]
    show: Callable[[], None]

    @classmethod
    def of(cls, found: Inspection | LayersFound) -> Shown:
        """Return the forms of what was found."""
        if isinstance(found, LayersFound):
            page, show = partial(layers_html.page, found), partial(layers_table.show, found)
            return cls(found.plain(), page, show)
        page, show = partial(inspection_html.page, found), partial(inspection_table.show, found)
        return cls(found.plain(), page, show)
