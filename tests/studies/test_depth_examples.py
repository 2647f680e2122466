import json
import shutil
from pathlib import Path

import pytest
import yaml

from merge_core import api
from search.run.inspect_layers import inspect_layers
from tests.search.real import run_whole

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "studies" / "examples"


@pytest.fixture
def copied(tmp_path):
    """The examples beside the quickstart, as they stand in the repository."""
    shutil.copytree(EXAMPLES / "pruning", tmp_path / "examples" / "pruning")
    shutil.copy(EXAMPLES / "layer-scaling.yaml", tmp_path / "examples")
    for name in ("models", "tasks"):
        shutil.copytree(ROOT / "studies" / "quickstart" / name, tmp_path / "quickstart" / name)
    return tmp_path / "examples"


def test_scaled_stack_has_six_layers_and_says_less_the_second_time(copied, tmp_path):
    from safetensors.torch import load_file

    api.merge(copied / "layer-scaling.yaml", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 6
    found = load_file(tmp_path / "out" / "model.safetensors")
    for kind, factor in {"mlp.down_proj": 0.25, "self_attn.o_proj": 0.25, "mlp.up_proj": 1}.items():
        for first, again in ((1, 3), (2, 4)):
            one, two = (found[f"model.layers.{i}.{kind}.weight"] for i in (first, again))
            assert two.equal(factor * one)


@pytest.mark.slow
def test_pruning_finds_the_layers_that_the_stream_does_without(copied):
    """Half of the layers gone, and most of what the model can; a front from the whole model on."""
    summary = run_whole(copied / "pruning")
    scores = {
        row["name"]: {task: x["mean"] for task, x in row["report"]["tasks"].items()}
        for row in summary["candidates"]
    }
    (parent,) = (row for name, row in scores.items() if name.startswith("parent:"))
    winner = scores["winner"]
    sort, flops = "quickstart_sort", "cost_flops_per_token"
    assert winner[flops] < 0.6 * parent[flops]
    assert winner[sort] > parent[sort] - 0.08
    (found,) = inspect_layers(str(copied / "pruning"), None, lambda line: None).models.values()
    assert found.best(2) == 1  # layers 1 and 2: what the winner has not
    best = yaml.safe_load((copied / "pruning" / "results" / "best.yaml").read_text())
    layers = [one["sources"][0]["layer_range"] for one in best["slices"]]
    assert layers == [[0, 1], [3, 4]]
