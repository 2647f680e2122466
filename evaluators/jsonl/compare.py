"""What the model wrote -> how right it is: cut out, made alike, compared."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from evaluators import patterns
from merge_core.errors import ItemError, ParameterError

_NUMBER = re.compile(r"[-+]?((\d{1,3}(,\d{3})+|\d+)(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def finder(pattern: str | None, name: str) -> Callable[[str], str | None]:
    """Return what cuts the answer out of a text: the first match, its first group if it has groups.

    No match is no answer: None. Without a pattern the whole text is the answer.

    Args:
        pattern: A regular expression of the study file.
        name: Of its key there.

    Raises:
        ParameterError: It is no regular expression.
        ItemError: When called: it takes too long on a text.
    """
    if pattern is None:
        return lambda text: text
    try:
        compiled = patterns.compile(pattern)
    except re.error as error:
        shown = f"{name} {pattern[:80]!r}"
        raise ParameterError(f"{shown} is no regular expression: {error}") from error

    def find(text: str) -> Any:
        try:
            found = compiled.search(text)
        except ItemError as error:
            raise ItemError(f"{name}: {error}") from error
        return found and found[1 if compiled.groups else 0]

    return find


def number_of(text: str) -> Decimal | None:
    """Return a text's decimal number, thousands separated by commas or not; None if it is none."""
    text = text.strip()
    return Decimal(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


def token_f1(said: str, right: str) -> float:
    """Return the harmonic mean of the shares of words that two texts have in common, in [0, 1].

    Words are SQuAD's: lower case, without punctuation and without a, an, the. Two texts without
    words are equal.

    Source: arXiv:1606.05250, section 6.1, and the official script of SQuAD 2.0.
    """
    mine, theirs = _words(said), _words(right)
    if not mine or not theirs:
        return float(mine == theirs)
    common = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * common / (len(mine) + len(theirs))  # = 2 p r / (p + r)


def _words(text: str) -> list[str]:
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()
