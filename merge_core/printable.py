"""Text of others on its way to a reader: it can neither steer a terminal nor hide.

What it may hold (escape sequences, backspaces, marks that turn the direction of writing, halves of
surrogate pairs) is shown as ``\\x1b`` and the like.
"""

from __future__ import annotations

_CONTROLS = {*range(32), *range(127, 160)} - {ord("\t"), ord("\n")}
_MARKS = {0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
_SHOWN = {code: f"\\x{code:02x}" for code in _CONTROLS}
_SHOWN |= {code: f"\\u{code:04x}" for code in (*_MARKS, *range(0xD800, 0xE000))}


def printable(text: str) -> str:
    """Return a text whose control characters, but for tabs and line ends, are written out."""
    return text.translate(_SHOWN)
