from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from evaluators.cost import flops_per_token
from evaluators.protocol import LiveModel
from evaluators.testing import EvaluatorContract
from merge_core import api
from merge_core.errors import EvaluationError
from merge_core.output.live_model import Candidate
from tests.evaluators.engines.hf.test_learning import MODELS, make
from tests.evaluators.own_files import ScriptedEngine, open_entry, score_all

SIZE = 48 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64 + 64 * 48


class TestParameters(EvaluatorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, tokenizer, tmp_path_factory):
        return lambda: open_entry("cost", None, tokenizer, metric="parameters", repeats=4)

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, tokenizer):
        return lambda: open_entry("cost", None, tokenizer, metric="bytes", repeats=4)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


class TestSpeed(EvaluatorContract):
    """All laws but the same bits: a measured speed is another one each time."""

    test_scoring_twice_gives_the_same_bits = None
    test_any_order_gives_the_same_scores = None
    test_any_blocks_give_the_same_scores = None
    test_an_item_asked_twice_is_scored_twice = None

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, tokenizer):
        entry = {"metric": "tokens_per_second", "repeats": 4}
        return lambda **more: open_entry(
            "cost", None, tokenizer, **{**entry, "max_tokens": 4, **more}
        )

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, build):
        return lambda: build(max_tokens=5)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live

    def test_a_speed_is_above_0_for_each_item_asked(self, evaluator, live_model):
        scores = evaluator.score(live_model, [2, 0, 2])
        assert scores.shape == (3,)
        assert (scores > 0).all()


def test_golden_sizes(live, tokenizer):
    # By the formula of the tiny Llama: embeddings, 2 layers, norm, head; float32
    for metric, factor in (("parameters", 1), ("bytes", 4)):
        cost = open_entry("cost", None, tokenizer, metric=metric)
        assert score_all(cost, live) == [SIZE * factor] * 3


def test_cost_by_a_number_is_a_share_of_it_and_another_score(live, tokenizer):
    plain = open_entry("cost", None, tokenizer, metric="parameters")
    share = open_entry("cost", None, tokenizer, metric="parameters", divide_by=2 * SIZE)
    assert score_all(share, live) == [0.5] * 3
    assert share.unit == f"{2 * SIZE:g} parameters"
    assert share.fingerprint() != plain.fingerprint()
    assert "divide_by" not in plain.fingerprint()  # as studies that began without it have it


def test_tied_weights_are_counted_once(tokenizer):
    import torch

    layer = torch.nn.Linear(3, 2, bias=False)
    tied = torch.nn.ModuleList([layer, torch.nn.Linear(3, 2)])
    tied[1].weight = layer.weight
    engine = ScriptedEngine(lambda *_: -1.0, None)
    model = LiveModel(tied.bfloat16(), tokenizer, 1, engine)
    cost = open_entry("cost", None, tokenizer, metric="bytes", repeats=1)
    assert score_all(cost, model) == [(3 * 2 + 2) * 2]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "Mamba"])
def test_flops_of_a_token_are_the_matrix_products_that_torch_counts(name):
    """Beside those of attention between tokens, which are batched products here."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = make(name), 7
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")  # a product for each expert, none for the idle ones
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(2, 2 + tokens)[None], use_cache=False)
    counted = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    assert counted.keys() <= {"aten.mm", "aten.addmm", "aten.bmm"}
    products = counted["aten.mm"] + counted.get("aten.addmm", 0)
    assert flops_per_token(model) * tokens == products


def test_experts_of_which_nobody_knows_how_many_a_token_meets_are_refused(monkeypatch):
    model = make("Mixtral")
    monkeypatch.setattr("evaluators.cost._ACTIVE", ("another_key",))
    with pytest.raises(EvaluationError, match=r"how many of 4 experts a token meets"):
        flops_per_token(model)


def test_repeated_layers_cost_depth_and_compute_but_no_memory(family, tokenizer):
    slices = [[0, 2], [1, 3], [1, 3], [3, 4]]
    recipe = {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": "one", "layer_range": x}]} for x in slices],
    }
    plain = {"merge_method": "passthrough", "models": [{"model": "one"}]}
    found = {}
    for name, data in (("plain", plain), ("deep", recipe)):
        candidate = Candidate()
        candidate.build(api.planned(data, family("llama")))
        live = LiveModel(candidate.model, tokenizer, 1, ScriptedEngine(lambda *_: -1.0, None))
        for metric in ("layers", "parameters", "bytes", "unique_bytes", "flops_per_token"):
            cost = open_entry("cost", None, tokenizer, metric=metric, repeats=1)
            (found[name, metric],) = score_all(cost, live)
    assert (found["plain", "layers"], found["deep", "layers"]) == (4, 7)
    layer = 2 * 16 * 16 + 2 * 8 * 16 + 3 * 16 * 24  # its matrices
    more = {metric: found["deep", metric] - found["plain", metric] for _, metric in found}
    assert more == {
        "layers": 3,
        "parameters": 3 * (layer + 2 * 16),
        "bytes": 4 * 3 * (layer + 2 * 16),
        "unique_bytes": 0,
        "flops_per_token": 2 * 3 * layer,
    }
    assert found["plain", "unique_bytes"] == found["plain", "bytes"]


def test_a_speed_is_tokens_by_seconds(tokenizer, monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("evaluators.cost.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    engine = ScriptedEngine(lambda *_: -1.0, lambda prompt: "abc")
    cost = open_entry("cost", None, tokenizer, metric="tokens_per_second", repeats=1)
    # 8 answers of 3 tokens in 2 seconds
    assert score_all(cost, LiveModel(None, tokenizer, 8, engine)) == [12.0]


def test_a_model_that_writes_nothing_has_no_speed(tokenizer):
    engine = ScriptedEngine(lambda *_: -1.0, lambda prompt: "")
    cost = open_entry("cost", None, tokenizer, metric="tokens_per_second", repeats=1)
    assert math.isnan(score_all(cost, LiveModel(None, tokenizer, 8, engine))[0])
    assert cost.failures == {cost.items[0].id: "the model writes nothing after 'Once upon a time'"}


@pytest.mark.parametrize(
    ("metric", "unit", "measured"),
    [
        ("parameters", "parameters", False),
        ("bytes", "bytes", False),
        ("unique_bytes", "bytes", False),
        ("layers", "layers", False),
        ("flops_per_token", "flops/token", False),
        ("tokens_per_second", "tokens/s, measured", True),
    ],
)
def test_what_is_measured_is_marked_and_only_speed_should_be_high(metric, unit, measured):
    cost = open_entry("cost", None, None, metric=metric)
    assert (cost.unit, cost.measured, cost.higher_is_better) == (unit, measured, measured)
    assert json.loads(cost.fingerprint()).get("measured", False) == measured


def test_each_pool_can_have_an_item(tokenizer):
    from search.scoring.pools import split

    cost = open_entry("cost", None, tokenizer, metric="parameters")
    pools = split(
        {"cost": [item.id for item in cost.items]},
        {"search": 1, "select": 1, "report": "rest"},
        seed=0,
    )
    assert [len(pool) for pool in pools.values()] == [1, 1, 1]


def test_what_is_counted_is_exact_and_a_speed_is_not(tokenizer):
    found = [open_entry("cost", None, tokenizer, metric=m) for m in ("bytes", "tokens_per_second")]
    assert [(cost.exact, cost.measured, len(cost.items)) for cost in found] == [
        (True, False, 3),
        (False, True, 6),
    ]
    assert {(cost.bounds, cost.clusters) for cost in found} == {(None, None)}
