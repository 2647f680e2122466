"""Ids of a stranger's tokens are bounded: the library takes memory for each up to the highest."""

from __future__ import annotations

import json
import shutil

import pytest

from merge_core.errors import CheckpointError
from merge_core.tokenizer.parent_tokenizer import MOST_IDS, open_tokenizer


def vocabulary(data):
    token = next(iter(data["model"]["vocab"]))
    data["model"]["vocab"][token] = MOST_IDS + 1


def added(data):
    data["added_tokens"][0]["id"] = 10**9


@pytest.mark.parametrize("spoil", [vocabulary, added])
def test_an_id_far_beyond_every_vocabulary_is_refused(models, tmp_path, spoil):
    folder = shutil.copytree(models / "b", tmp_path / "b")
    data = json.loads((folder / "tokenizer.json").read_text())
    spoil(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=rf"tokenizer.json: expected .* at most {MOST_IDS}"):
        open_tokenizer(folder)


def test_added_tokens_of_another_kind_are_left_to_the_library(models, tmp_path):
    folder = shutil.copytree(models / "b", tmp_path / "b")
    data = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**data, "added_tokens": 5}))
    with pytest.raises(CheckpointError, match="its tokenizer cannot be read"):
        open_tokenizer(folder)
