import json

import pytest

from tests.merge_core.tokenizer.tiny import marked
from tests.search.real import QUICKSTART

MODEL = QUICKSTART / "models" / "base"


@pytest.mark.slow
def test_rows_are_counted_by_where_they_come_from(mergetune, tmp_path):
    marked().save_pretrained(tmp_path / "donor")
    given = ("tokensurgeon", MODEL, tmp_path / "donor", tmp_path / "out")
    code, out, err = mergetune(*given)
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "out" / "tokensurgeon.json").read_text())
    words = " ".join(out.split())
    for kind in ("shared", "role", "subwords", "mean", "after"):
        assert f"│ {told['rows'][kind]} │" in words
    assert f"weights digest {told['weights_digest']}" in words
    again = json.loads(mergetune(*given, "--overwrite", "--json")[1])
    assert again == {"out": str(tmp_path / "out"), **told}


def test_a_donor_without_a_tokenizer_is_one_line(mergetune, tmp_path):
    code, out, err = mergetune("tokensurgeon", MODEL, tmp_path, tmp_path / "out")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no tokenizer.json" in err
