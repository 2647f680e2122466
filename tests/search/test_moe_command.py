"""``mergetune moe`` and ``mergetune merge`` on the tiny family."""

from __future__ import annotations

import json

import pytest
import yaml

from merge_core import api
from merge_core.errors import OutputExistsError, ParameterError
from tests.merge_core.mixture.mixtures import mixture


@pytest.fixture
def config(own_family):
    root = own_family("llama")
    file = root / "moe.yml"
    file.write_text(yaml.safe_dump(mixture(dtype="float32")))
    return file


def test_moe_makes_the_folder_that_merge_makes_of_the_same_recipe(mergetune, config, tmp_path):
    code, out, _ = mergetune("moe", config, tmp_path / "moe", "--json")
    assert code == 0
    digest = json.loads(out)["weights_digest"]
    assert digest == api.merge(config, tmp_path / "merge")
    record = json.loads((tmp_path / "moe" / "mergetune.json").read_text())
    assert record["weights_digest"] == digest
    assert sorted(record["parents"]) == ["base", "one", "three", "two"]
    code, out, _ = mergetune("moe", config, tmp_path / "moe", "--overwrite")
    assert out == f"{tmp_path / 'moe'}: weights digest {digest}\n"


def test_moe_refuses_a_recipe_without_experts(mergetune, config, tmp_path):
    config.write_text("merge_method: passthrough\nmodels: [{model: base}]\n")
    code, _, err = mergetune("moe", config, tmp_path / "out")
    assert code == 1
    assert "has no experts and no moe; merge such a recipe with mergetune merge" in err
    with pytest.raises(ParameterError):
        api.moe(config, tmp_path / "out")


def test_moe_refuses_a_place_that_is_taken_before_anything_is_read(mergetune, config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputExistsError):
        api.moe(config, tmp_path / "out")
    assert mergetune("moe", config, tmp_path / "out")[0] == 1


def test_moe_warns_of_prompts_that_are_the_same_and_refuses_them_with_strict(
    mergetune, config, tmp_path
):
    data = yaml.safe_load(config.read_text())
    for expert in data["experts"]:
        expert["positive_prompts"] = ["add"]
    config.write_text(yaml.safe_dump({**data, "gate_mode": "cheap_embed"}))
    code, _, err = mergetune("moe", config, tmp_path / "out", "--strict")
    assert code == 1
    assert "experts: all have the same prompts" in err
    code, _, err = mergetune("moe", config, tmp_path / "out")
    assert code == 0
    assert "warning: " in err


def test_check_says_what_a_mixture_becomes(mergetune, config):
    code, out, _ = mergetune("check", config, "--json")
    assert code == 0
    said = "3 experts, 2 per token, routers hidden; class Mixtral"
    assert json.loads(out)["mixture"] == said
