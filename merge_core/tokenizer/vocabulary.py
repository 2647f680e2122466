"""One vocabulary for all parents: the result's tokenizer, and every parent's rows in its order.

row      position along the first axis of an embedding, a head or its bias
ids      token -> row of one parent, without the tokens that its embedding has no row for
donors   (model, row) pairs: the mean of these rows stands where a parent has no row of its own

Added tokens of other models stay what they are and are found wherever they stand in a text. Their
ordinary tokens get a row and an id, but no merge rules: text that the first tokenizer can encode is
encoded as before, and never into such a token. Making them added tokens would let "eat" of one
model split "seat" of another. Three exceptions lie in the tokenizers themselves: characters that
were unknown, characters that fell back to bytes, and whole words where ``ignore_merges`` is set are
found now that they are tokens. Whoever wants another model's way to split text names that model as
``source``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from merge_core.errors import ParameterError
from merge_core.parents.protocol import Parent
from merge_core.recipe.tokenizer_schema import BASE, UNION, TokenizerSetting, TokenSource
from merge_core.tokenizer import parent_tokenizer
from merge_core.tokenizer.insert import Added
from merge_core.tokenizer.parent_tokenizer import LITERAL, Lexicon
from merge_core.tokenizer.reindexed import Donors, Reindexed


@dataclass(eq=False)
class Vocabulary:
    """The result's tokens and where their rows come from."""

    tokenizer: Any
    size: int  # rows of the result: one for every id, rounded up
    ids: Mapping[str, Mapping[str, int]]  # parent -> token -> row
    donors: Mapping[int, Donors]  # for rows that a parent lacks; no donors stand for zeros
    forced: frozenset[int]  # rows that come from their donors in every parent
    parents: Mapping[str, Parent]  # every one that has rows or gives them
    indexed: Collection[str]  # the tensors whose first axis counts tokens

    @cached_property
    def token_ids(self) -> dict[str, int]:
        """Token -> row of the result."""
        found: dict[str, int] = self.tokenizer.get_vocab()
        return found

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files and read them once, to see that nothing was lost.

        Raises:
            CheckpointError: What is read from ``folder`` has other tokens or ids.
        """
        parent_tokenizer.save(self.tokenizer, folder, folder)
        parent_tokenizer.check_kept(parent_tokenizer.load(folder), self.token_ids, folder)

    def reindexed(self, parent: str) -> Reindexed:
        """Return a parent with this vocabulary; raises what :class:`Reindexed` does."""
        own = [-1] * self.size
        for token, row in self.token_ids.items():
            if row not in self.forced:
                own[row] = self.ids[parent].get(token, -1)
        lacking = {row: self.donors[row] for row in sorted(self.donors) if own[row] < 0}
        return Reindexed(self.parents[parent], self.indexed, own, lacking, self.parents)


def vocabulary(
    setting: TokenizerSetting,
    parents: Mapping[str, Parent],
    base: str | None,
    order: Sequence[str],
    indexed: Collection[str],
) -> Vocabulary:
    """Build the result's tokenizer and say for each of its tokens where rows come from.

    A token that a parent has keeps that parent's row. Where it is missing the base's row stands,
    else the only other model's, else the mean of all models that have it; in no model: zeros.

    Args:
        setting: What the recipe says.
        parents: Every parent by its reference, also those that only ``setting`` names.
        base: Reference of the base, or None.
        order: References of the models that are merged, the base included, in recipe order.
        indexed: The tensors whose first axis counts tokens.

    Raises:
        CheckpointError: The base has no tokenizer; a parent none that the tokenizers library reads;
            its embedding has too few rows; a tokenizer cannot take in another's tokens.
        ParameterError: ``setting`` names a model or a token that is not there.
    """
    named, first = dict.fromkeys([*order, *setting.references()]), base or order[0]
    one = functools.cache(lambda: parent_tokenizer.read(first, parents, indexed))
    lexicons = {
        name: one()
        if name == first
        else parent_tokenizer.read(name, parents, indexed, None if name == setting.source else one)
        for name in named
    }
    start = lexicons[first if setting.source in (UNION, BASE) else setting.source]
    tokenizer = parent_tokenizer.extended(start, _additions(setting, start, order, lexicons))
    tokens: dict[str, int] = tokenizer.get_vocab()
    given = {token: _named_donors(token, source, lexicons) for token, source in setting.tokens}
    has = {name: lexicons[name].ids for name in order}
    multiple = setting.pad_to_multiple_of or 1
    return Vocabulary(
        tokenizer,
        math.ceil((max(tokens.values()) + 1) / multiple) * multiple,
        has,
        {row: given[t] if t in given else _usual_donors(t, has, base) for t, row in tokens.items()},
        frozenset(tokens[token] for token, source in setting.tokens if source.force),
        dict(parents),  # as they are now: a planner puts re-indexed ones in their places
        indexed,
    )


def _additions(
    setting: TokenizerSetting,
    start: Lexicon,
    order: Sequence[str],
    lexicons: Mapping[str, Lexicon],
) -> dict[str, Added | None]:
    """Return the tokens that ``start`` lacks; None for an ordinary one, else an added one's facts.

    By model in recipe order, in a model by row; then those that only the setting names.
    """
    new: dict[str, Added | None] = {}
    for other in (lexicons[name] for name in order if setting.source == UNION):
        for token in other.ids:
            if token not in start.ids:
                new[token] = new.get(token) or other.added.get(token)
    for token, source in setting.tokens:
        if token not in start.ids and token not in new:
            new[token] = _facts(token, source, lexicons)
    return new


def _facts(token: str, source: TokenSource, lexicons: Mapping[str, Lexicon]) -> Added:
    """Return the facts of the added token that gives the row, or that has the name elsewhere."""
    named = [lexicons[source.model]] if source.model is not None else []
    found = (x.added.get(source.token or token) for x in (*named, *lexicons.values()))
    return next((facts for facts in found if facts is not None), LITERAL)


def _named_donors(token: str, source: TokenSource, lexicons: Mapping[str, Lexicon]) -> Donors:
    if source.model is None:
        return ()
    model, text = lexicons[source.model], source.token or token
    row = model.ids.get(text, -1) if source.token_id is None else source.token_id
    if not 0 <= row < model.rows:
        lacking = f"token {text!r}" if source.token_id is None else f"token id {row}"
        raise ParameterError(
            f"tokenizer: tokens: {token!r} takes its row from {source.model}, which has no "
            f"{lacking} in its {model.rows} rows; name a token that it has"
        )
    return ((source.model, row),)


def _usual_donors(token: str, has: Mapping[str, Mapping[str, int]], base: str | None) -> Donors:
    donors = tuple((name, ids[token]) for name, ids in has.items() if token in ids)
    return tuple(pair for pair in donors if pair[0] == base) or donors
