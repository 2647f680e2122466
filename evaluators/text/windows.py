"""A long text -> pieces, each with as much of the text before it as a window holds.

Cut as text, not as token ids, so that any engine can be asked: ``log P(text)`` is the sum over the
pieces of ``log P(piece | context)``. Pieces end at token ends of the whole text, where one can be
found before a blank, so that a piece alone is written in the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from evaluators.log_control import hushed_logs
from evaluators.protocol import Tokenizer
from merge_core.errors import EvaluationError, ParameterError

Spans = Sequence[tuple[int, int]]  # per token: its first character, and the one after its last


def spans_of(tokenizer: Tokenizer, text: str) -> Spans:
    """Return where a text's tokens stand in it, without special tokens.

    Raises:
        ParameterError: The tokenizer is one written in Python, which does not say.
    """
    if not tokenizer.is_fast:
        raise ParameterError("window and stride need a fast tokenizer; this one is not; omit them")
    with hushed_logs():  # transformers warns of each text longer than its window
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [(int(a), int(b)) for a, b in found["offset_mapping"]]


def pieces(text: str, spans: Spans, window: int, stride: int) -> list[tuple[str, str]]:
    """Cut a text into ``(context, piece)`` pairs; the pieces joined are the text.

    The first piece has up to ``window`` tokens and no context. Every further one has up to
    ``stride`` tokens, and as context what stands before, so far that both together are
    ``window + 1`` tokens: the last token is predicted, never read, as in lm-eval's windows.

    Args:
        text: The whole text.
        spans: Its tokens, in order.
        window: Most tokens read at once, at least 2.
        stride: Most tokens predicted by a further piece, 1 to ``window``.

    Raises:
        EvaluationError: There is no place to cut at, such as in a long run of blanks.
    """
    cuts = [0]
    while len(spans) - cuts[-1] > (size := stride if cuts[1:] else window):
        cuts.append(_cut(text, spans, cuts[-1], cuts[-1] + size))
    places = [0, *(spans[k][0] for k in cuts[1:]), len(text)]
    found = [("", text[: places[1]])]
    for end, (a, b) in zip([*cuts[2:], len(spans)], pairwise(places[1:]), strict=False):
        start = spans[end - window - 1][0] if end > window + 1 else 0
        found.append((text[start:a], text[a:b]))
    return found


def _cut(text: str, spans: Spans, first: int, most: int) -> int:
    """Return the last good token before which to cut, after ``first`` and up to ``most``.

    Not behind a blank, which engines count to the next piece; not within a character that takes
    several tokens. Best before a blank: there tokens end in whatever way the text goes on.
    """
    possible = [
        k
        for k in range(most, first, -1)
        if not text[spans[k][0] - 1].isspace() and spans[k - 1][1] <= spans[k][0]
    ]
    if not possible:
        raise EvaluationError(
            f"no place to cut after {text[spans[first][0] :][:40]!r}; a larger stride may have one"
        )
    best = (k for k in possible if text[spans[k][0]].isspace())
    return next(best, possible[0])
