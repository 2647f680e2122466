"""What the model wrote -> how right it is: cut out, made alike, compared."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from re import Pattern

_NUMBER = re.compile(r"[-+]?((\d{1,3}(,\d{3})+|\d+)(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Comparison:
    """How answers are compared.

    Args:
        pattern: What the answer is in what the model wrote: the first match, its first group if
            it has groups; no match is no answer. None: all of it.
        numeric: Compare as decimal numbers: 1,000 = 1000.0 = 1e3, but 1/2 is no number.
        ignore_case: Whether ``A`` equals ``a``.
        ignore_space: Whether space at the ends counts for nothing, and any between as one blank.
    """

    pattern: Pattern[str] | None
    numeric: bool
    ignore_case: bool
    ignore_space: bool

    def exact(self, said: str, right: Sequence[str]) -> float:
        """Return 1.0 where what the model wrote is one of the right answers, else 0.0."""
        answer = self._cut(said)
        if answer is None:
            return 0.0
        if self.numeric:
            number = number_of(answer)
            return float(number is not None and number in [number_of(x) for x in right])
        return float(self._alike(answer) in [self._alike(x) for x in right])

    def f1(self, said: str, right: Sequence[str]) -> float:
        """Return the best token F1 against the right answers, in [0, 1]."""
        answer = self._cut(said)
        return 0.0 if answer is None else max(token_f1(answer, x) for x in right)

    def _cut(self, said: str) -> str | None:
        if self.pattern is None:
            return said
        found = self.pattern.search(said)
        return found and found.group(1 if self.pattern.groups else 0)

    def _alike(self, text: str) -> str:
        text = " ".join(text.split()) if self.ignore_space else text
        return text.casefold() if self.ignore_case else text


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
