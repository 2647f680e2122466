"""One vocabulary for all parents: the result's tokenizer, and every parent's rows in its order.

row      position along the vocabulary axis of an embedding, a head or its bias
ids      token -> row of one parent, without the tokens that its embedding has no row for
own      (size,) int64, for every row of the result the parent's own row, or -1
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

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.numerics.exact_sums import RUN
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import TensorInfo
from merge_core.recipe.tokenizer_schema import BASE, UNION, TokenizerSetting, TokenSource
from merge_core.tokenizer import parent_tokenizer
from merge_core.tokenizer.parent_tokenizer import LITERAL, Added, Lexicon

if TYPE_CHECKING:
    from torch import Tensor

Donors = tuple[tuple[str, int], ...]


class Vocabulary:
    """The result's tokens and where their rows come from.

    Args:
        tokenizer: The result's tokenizer.
        size: Rows of the result: one for every id, rounded up.
        ids: Parent -> token -> row.
        donors: Row -> donors, where a parent lacks the token; no donors stand for zeros.
        forced: Rows that come from their donors in every parent.
        parents: Every parent that has rows or gives them.
        axes: Name -> vocabulary axis of the tensors that are indexed by tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        size: int,
        ids: Mapping[str, Mapping[str, int]],
        donors: Mapping[int, Donors],
        forced: frozenset[int],
        parents: Mapping[str, Parent],
        axes: Mapping[str, int],
    ) -> None:
        self.tokenizer, self.size = tokenizer, size
        self.token_ids: dict[str, int] = tokenizer.get_vocab()
        self._ids, self._donors, self._forced = ids, donors, forced
        self._parents, self._axes = parents, axes

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files and read them once, to see that nothing was lost.

        Raises:
            CheckpointError: What is read from ``folder`` has other tokens or ids.
        """
        self.tokenizer.save_pretrained(folder)
        parent_tokenizer.check_kept(parent_tokenizer.load(folder), self.token_ids, folder)

    def reindexed(self, parent: str) -> Reindexed:
        """Return a parent with this vocabulary.

        Raises:
            CheckpointError: A model that gives rows lacks a tensor that this parent has.
            ShapeError: Its rows have another shape.
        """
        ids = self._ids[parent]
        own = [-1] * self.size
        for token, row in self.token_ids.items():
            if row not in self._forced:
                own[row] = ids.get(token, -1)
        lacking = {row: self._donors[row] for row in self.token_ids.values() if own[row] < 0}
        return Reindexed(
            self._parents[parent], self._axes, own, dict(sorted(lacking.items())), self._parents
        )


class Reindexed:
    """A parent whose vocabulary-indexed tensors have the rows of another vocabulary.

    ``tensors`` tells the new shapes with the stored types; ``tensor`` gives float32 where rows are
    means or come from a parent of another type. ``config`` is the parent's, so its ``vocab_size``
    is the old one.

    Args:
        parent: The parent; its ``digest`` stays that of its files.
        axes: Name -> vocabulary axis of the tensors that are re-indexed.
        own: For every new row the parent's own, or -1.
        donors: New row without an own one -> the rows whose mean it is; none stand for zeros. Rows
            that are in neither are padding, and get the mean of all others.
        parents: Every model that gives rows.

    Raises:
        CheckpointError: A model that gives rows lacks a tensor that ``parent`` has.
        ShapeError: Its rows have another shape.
    """

    def __init__(
        self,
        parent: Parent,
        axes: Mapping[str, int],
        own: Sequence[int],
        donors: Mapping[int, Donors],
        parents: Mapping[str, Parent],
    ) -> None:
        self.reference, self.folder = parent.reference, parent.folder
        self.located, self.config = parent.located, parent.config
        self.architecture = parent.architecture
        self._parent, self._donors, self._own, self._parents = parent, donors, own, parents
        self._axes = {name: axis for name, axis in axes.items() if name in parent.tensors}
        self.tensors = dict(parent.tensors)
        for name, axis in self._axes.items():
            self._check_donors(name, axis)
            self.tensors[name] = _resized(parent.tensors[name], axis, len(own))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor with the rows of the new vocabulary, or as stored; do not write to it."""
        stored = self._parent.tensor(name)
        if name not in self._axes:
            return stored
        axis = self._axes[name]
        if list(self._own) == list(range(stored.shape[axis])):
            return stored
        return self._rows(name, stored.movedim(axis, 0)).movedim(0, axis)

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self._parent.expect(name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all weights of the parent as stored."""
        return self._parent.digest

    def _rows(self, name: str, stored: Tensor) -> Tensor:
        import torch

        own = torch.tensor(self._own)
        mine = own >= 0
        dtype = stored.dtype if self._keeps_type(name) else torch.float32
        rows = torch.zeros((len(own), *stored.shape[1:]), dtype=dtype)
        rows[mine] = stored[own[mine]].to(dtype)
        for model, pairs in self._by_model().items():
            there, here = torch.tensor(pairs).unbind(1)
            given = self._parents[model].tensor(name).movedim(self._axes[name], 0)
            rows[here] += given[there].to(dtype)
        counts = {row: len(donors) for row, donors in self._donors.items() if len(donors) > 1}
        if counts:
            rows[list(counts)] /= torch.tensor(list(counts.values())).reshape(
                -1, *[1] * (rows.ndim - 1)
            )
        padded = ~mine
        padded[list(self._donors)] = False
        if padded.any():
            rows[padded] = (_total(rows) / int((~padded).sum())).float()  # padding is zero so far
        return rows

    def _by_model(self) -> dict[str, list[tuple[int, int]]]:
        """Return model -> (row there, row here) pairs, models in the order of the donors."""
        pairs: dict[str, list[tuple[int, int]]] = {}
        for row, donors in self._donors.items():
            for model, there in donors:
                pairs.setdefault(model, []).append((there, row))
        return pairs

    def _keeps_type(self, name: str) -> bool:
        if any(len(donors) > 1 for donors in self._donors.values()):
            return False
        if sum(i >= 0 for i in self._own) + len(self._donors) < len(self._own):
            return False  # padding is a mean
        types = {self._parents[model].tensors[name].dtype for model in self._by_model()}
        return types <= {self._parent.tensors[name].dtype}

    def _check_donors(self, name: str, axis: int) -> None:
        shape = _resized(self._parent.tensors[name], axis, 0).shape
        for model in self._by_model():
            if name not in self._parents[model].tensors:
                raise CheckpointError(
                    f"{name}: {self.reference} has it and needs rows of it from {model}, which "
                    f"does not have it; the parents must share one architecture"
                )
            other = _resized(self._parents[model].tensors[name], axis, 0).shape
            if other != shape:
                raise ShapeError(
                    f"{name}: a row of {self.reference} is {shape[:axis] + shape[axis + 1 :]}, one "
                    f"of {model} {other[:axis] + other[axis + 1 :]}; the parents must have the "
                    f"same shapes but for their vocabulary"
                )


def vocabulary(
    setting: TokenizerSetting,
    parents: Mapping[str, Parent],
    base: str | None,
    order: Sequence[str],
    axes: Mapping[str, int],
) -> Vocabulary:
    """Build the result's tokenizer and say for each of its tokens where rows come from.

    A token that a parent has keeps that parent's row. Where it is missing the base's row stands,
    else the only other model's, else the mean of all models that have it; in no model: zeros.

    Args:
        setting: What the recipe says.
        parents: Every parent by its reference, also those that only ``setting`` names.
        base: Reference of the base, or None.
        order: References of the models that are merged, the base included, in recipe order.
        axes: Name -> vocabulary axis of the tensors that are indexed by tokens.

    Raises:
        CheckpointError: A parent has no tokenizer, or none that the tokenizers library reads; its
            embedding has too few rows; a tokenizer cannot take in another's tokens.
        ParameterError: ``setting`` names a model or a token that is not there.
    """
    named = dict.fromkeys([*order, *setting.references()])
    lexicons = {name: parent_tokenizer.read(name, parents, axes) for name in named}
    start = lexicons[(base or order[0]) if setting.source in (UNION, BASE) else setting.source]
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
        parents,
        axes,
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
    for found in (*named, *lexicons.values()):
        facts = found.added.get(source.token or token)
        if facts is not None:
            return facts
    return LITERAL


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
    of_base = tuple(pair for pair in donors if pair[0] == base)
    return of_base or donors


def _total(rows: Tensor) -> Tensor:
    """Sum ``(n, *shape)`` float32 over n in float64, in runs that torch does not split."""
    import torch

    total = torch.zeros(rows.shape[1:], dtype=torch.float64)
    step = max(1, RUN // max(1, total.numel()))
    for i in range(0, len(rows), step):
        total += rows[i : i + step].double().sum(0)
    return total


def _resized(info: TensorInfo, axis: int, size: int) -> TensorInfo:
    return replace(info, shape=(*info.shape[:axis], size, *info.shape[axis + 1 :]))
