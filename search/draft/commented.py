"""Plain data and a comment for some of its key paths -> YAML that people read and go on with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from merge_core.errors import join
from merge_core.recipe.serialize import inline

WIDTH = 120


def commented(data: Mapping[str, Any], comments: Mapping[str, str], head: Sequence[str]) -> str:
    """Return YAML that is read back as ``data``, with comments above what they are about.

    Args:
        data: A mapping of plain values.
        comments: Key path -> text; the path of a list's member is that of its dash.
        head: Paragraphs above all.
    """
    lines = [line for text in head for line in _comment(text, 0)]
    return "\n".join([*lines, *_block(data, "", comments, 0), ""])


def _block(data: Any, path: str, comments: Mapping[str, str], indent: int) -> Iterable[str]:
    named = data.items() if isinstance(data, Mapping) else enumerate(data)
    for key, value in named:
        where = join(path, key)
        start = f"{inline(key)}:" if isinstance(data, Mapping) else "-"
        yield from _comment(comments.get(where, ""), indent)
        line = f"{' ' * indent}{start} {inline(value)}"
        short = _is_line(value) and (len(line) <= WIDTH or _is_plain(value))
        if short and not any(other.startswith((f"{where}.", f"{where}[")) for other in comments):
            yield line
            continue
        inside = list(_block(value, where, comments, indent + 2))
        if start == "-" and not inside[0].lstrip().startswith("#"):
            yield f"{' ' * indent}- {inside[0].lstrip()}"
            inside = inside[1:]
        else:
            yield f"{' ' * indent}{start}"
        yield from inside


def _is_line(value: Any) -> bool:
    """Return whether a value has little enough in it for one line: no list of mappings."""
    if isinstance(value, Mapping):
        return all(_is_line(x) and not _holds_mapping(x) for x in value.values())
    return not value or not isinstance(value, list) or _is_plain(value[0])


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(x, Mapping) for x in value.values())


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Mapping | list) or not value


def _comment(text: str, indent: int) -> list[str]:
    """Return a comment's lines; what could end one, or cannot be seen, is written out."""
    seen = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    start = f"{' ' * indent}# "
    return textwrap.wrap(
        seen,
        WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )
