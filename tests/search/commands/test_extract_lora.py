import json

import pytest

from tests.search.real import QUICKSTART

BASE, MODEL = (QUICKSTART / "models" / name for name in ("base", "add"))


@pytest.mark.slow
def test_extraction_prints_the_error_of_each_kind_of_layer_and_of_all(mergetune, tmp_path):
    given = ("extract-lora", MODEL, tmp_path / "a", "--base", BASE, "--rank", 4)
    code, out, err = mergetune(*given)
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "a" / "extraction.json").read_text())
    share = f"{100 * told['relative']:.3g} % of the task vector's length"
    for words in ("gate_proj", "all", "Whole, not low-rank: model.embed_tokens", share):
        assert words in " ".join(out.split())
    code, out, _ = mergetune(*given, "--overwrite", "--exclude", "mlp", "--json")
    found = json.loads(out)
    assert len(found["modules"]) == 16
    assert {name.split(".")[-2] for name in found["left"]} == {"gate_proj", "up_proj", "down_proj"}
    assert found["relative"] > told["relative"]


def test_wrong_extractions_are_one_line_or_bad_usage(mergetune, tmp_path):
    code, out, err = mergetune("extract-lora", BASE, tmp_path / "a", "--base", BASE)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "there is nothing to extract" in err
    assert mergetune("extract-lora", BASE, tmp_path / "a", "--base", BASE, "--rank", 0)[0] == 2
    assert mergetune("extract-lora", BASE, tmp_path / "a")[0] == 2
