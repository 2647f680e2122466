"""Hooks of mkdocs: links that lead out of ``docs/`` on GitHub keep their words on the site.

The site has no source files, so a link to one becomes its text; ``STUDIES.md`` is a page there.
Roles of docstrings (``:func:``) lose their colons.
"""

from __future__ import annotations

import re
from typing import Any

PAGES = {"STUDIES.md": "format.md", "README.md": "index.md"}
ROLE = re.compile(r":(?:func|class|meth|mod|attr):<code>")
OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page's Markdown with the links that the site can follow."""
    return OUTWARD.sub(_inward, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Return a page's HTML without the roles that docstrings have."""
    return ROLE.sub("<code>", html)


def _inward(link: re.Match[str]) -> str:
    words, path, anchor = link.groups()
    if path in PAGES:
        return f"[{words}]({PAGES[path]}{anchor or ''})"
    return words
