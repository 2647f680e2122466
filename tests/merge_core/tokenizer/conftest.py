from __future__ import annotations

import pytest

from tests.merge_core.tokenizer.tiny import EXTRA, ORDER, TEXTS, bpe, make_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Three models with BPE vocabularies that overlap; do not write into them."""
    root = tmp_path_factory.mktemp("vocabularies")
    for i, name in enumerate(ORDER):
        make_model(root / name, bpe(TEXTS[name], EXTRA[name]), i)
    return root
