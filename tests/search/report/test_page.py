"""The page says what was found, is whole, and shows texts of others as they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from merge_core.recipe.schema import Recipe, Slice, Source
from search.report.page.found import Found
from search.report.page.html import Html, element, text
from search.report.page.page import page
from search.report.summary import Report
from search.scoring.pareto import front
from search.spec.study_file import StudySpec
from search.trial.trial import Trial
from tests.search import toy
from tests.search.report.pages import begun, finished, part, parts, read, report_of, words
from tests.search.report.test_depth import recipe

Study = Callable[..., StudySpec]
EVIL = "<script>alert('x')</script>&amp;\x1b[2J\u202e\x00\ufffe \"quoted\""
SAMPLES = {
    "gain": {
        "gained": [
            {"id": "gain-3", "prompt": "2 + 2 =", "right": "4", "winner": "4", "parent": EVIL},
        ],
        "lost": [
            {"id": "gain-5", "prompt": "p" * 900, "right": ["5"], "winner": "", "parent": "5"},
        ],
    }
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    spec = toy.spec_of(toy.STUDY, tmp_path_factory.mktemp("toy"))
    return finished(spec, samples=SAMPLES, price=3.6)


def test_sections_stand_in_the_order_in_which_one_asks(found: Found) -> None:
    assert parts(read(found)) == [
        *("candidates", "recipe", "search", "optimism", "importance"),
        *("answers", "costs", "measured-on", "repeat"),
    ]


def test_verdict_stands_before_everything_else(found: Found) -> None:
    (main,) = read(found).iter("main")
    first = next(one for one in main if one.tag in ("div", "section"))
    assert first.get("class") == "verdict"
    assert "items" in words(first)


def test_every_candidate_has_its_score_and_interval_overall_and_for_each_task(
    found: Found,
) -> None:
    report = report_of(found)
    tables = [
        {words(row.find("th")): words(row.findall("td")[1]) for row in table.iter("tr")}
        for table in part(read(found), "candidates").iter("table")
    ]
    overall, gain, loss, differences = tables
    winner = report.winner
    name = f"winner, trial {winner.trial}"
    for shown, scored in (
        (overall, winner.report),
        (gain, winner.report.tasks["gain"]),
        (loss, winner.report.tasks["loss"]),
    ):
        assert shown[name] == f"{scored.mean:.3f} {scored.low:.3f} to {scored.high:.3f}"
        assert len(shown) == len(report.candidates) + 1  # the axis
    assert any("best parent" in row for row in overall)
    assert winner.minus_uniform is not None
    assert differences["uniform merge"].startswith(f"+{winner.minus_uniform.estimate:.3f}")


def test_recipe_can_be_copied_whole(found: Found) -> None:
    pre = part(read(found), "recipe").find("pre")
    assert found.winner is not None
    assert pre is not None
    assert "".join(pre.itertext()) == found.winner.recipe.to_yaml()


def test_page_needs_nothing_from_elsewhere(found: Found) -> None:
    said = page(found)
    assert not re.search(r"<(script|link|img|iframe|object)\b|https?:|url\(|@import|src=", said)
    assert said.count("<html") == 1


def test_every_finalist_has_its_scores_on_each_pool_and_its_optimism(found: Found) -> None:
    report = report_of(found)
    rows = [words(row) for row in part(read(found), "optimism").iter("tr")]
    assert len(rows) == len(report.finalists) + 1  # the axis
    for one in report.finalists:
        (row,) = [row for row in rows if re.search(rf"trial {one.trial}\b", row)]
        assert f"search items: {one.search.mean:.3f}".replace("-", "\N{MINUS SIGN}") in row
        assert f"select items: {one.select.mean:.3f}".replace("-", "\N{MINUS SIGN}") in row
        assert one.optimism is not None
        assert f"optimism {one.optimism:+.3f}".replace("-", "\N{MINUS SIGN}") in row


def test_best_simple_merge_is_named_and_compared_with(found: Found) -> None:
    report = report_of(found)
    assert report.best_simple is not None
    said = words(part(read(found), "candidates"))
    assert "(best simple merge)" in said
    assert "best simple merge:" in said or report.best_simple == "uniform"


def test_units_say_which_way_is_better(found: Found) -> None:
    said = words(part(read(found), "candidates"))
    assert "gain points, higher is better" in said
    assert "loss points, lower is better" in said


def test_looks_are_told_and_their_intervals_drawn(found: Found) -> None:
    data = report_of(found).to_json()
    data["looks"] = {"count": 3, "why": ["Trial 4 won before.", "Another study did."]}
    minus = data["winner"]["minus_uniform"]
    minus["widened"] = {"low": minus["low"] - 0.05, "high": minus["high"] + 0.05}
    root = part(read(replace(found, report=Report.from_json(data))), "candidates")
    assert "looked at 3 times" in words(root)
    assert "Trial 4 won before. Another study did." in words(root)
    thin = [x for x in root.iter("line") if "thin" in x.get("class", "")]
    assert len(thin) == 1
    assert not [
        x for x in part(read(found), "candidates").iter("line") if "thin" in x.get("class", "")
    ]


def test_equal_studies_have_equal_pages(found: Found) -> None:
    assert page(found) == page(found)


def test_texts_of_others_are_shown_and_never_obeyed(found: Found) -> None:
    report = report_of(found).to_json() | {"study": EVIL, "notices": [EVIL]}
    report["sentences"] = report.get("sentences") and [EVIL]
    report = {key: value for key, value in report.items() if value is not None}
    about = {**found.about, "engine": {EVIL: EVIL}, "parents": {EVIL: "00"}, "tasks": {EVIL: EVIL}}
    failed = Trial(len(found.trials), "failed", Recipe("linear", ()), error=f"ValueError: {EVIL}")
    odd = replace(
        found,
        name=EVIL,
        about=about,
        report=Report.from_json(report),
        trials=[*found.trials, failed],
        argument=EVIL,
    )
    root = read(odd)
    assert not list(root.iter("script"))
    assert page(odd).count("\x1b") == 0
    shown = "<script>alert('x')</script>&amp;\\x1b[2J\\u202e\\x00\N{REPLACEMENT CHARACTER}"
    for name in ("measured-on", "answers", "search"):
        assert shown in words(part(root, name)), name
    assert words(root.find(".//h1")).startswith(shown)


def test_sample_answers_stand_side_by_side_and_long_prompts_are_folded(found: Found) -> None:
    gained, lost = (
        words(one)
        for one in part(read(found), "answers").iter("div")
        if one.get("class") == "sample"
    )
    assert gained.startswith("item gain-3 asked 2 + 2 = right 4 winner, better 4 best parent")
    assert "all 900 characters" in lost
    assert "winner nothing best parent, better" in lost


def test_money_is_hours_times_the_price(found: Found) -> None:
    hours = sum(report_of(found).cost.seconds.values()) / 3600
    said = words(part(read(found), "costs"))
    assert "at 3.6 an hour" in said
    assert "money" not in words(part(read(replace(found, price=None)), "costs"))
    assert found.price is not None
    assert hours * found.price < 1


def test_unfinished_study_has_a_page_that_says_so(study: Study) -> None:
    record = begun(study())
    unfinished = Found.of(record, "studies/toy")
    root = read(unfinished)
    assert "This study is not finished" in words(root)
    assert "Best so far: trial " in words(root)
    assert "search" in parts(root)
    assert not {"candidates", "recipe", "optimism"} & {*parts(root)}
    assert "mergetune run studies/toy" in words(part(root, "repeat"))


def test_study_without_a_trial_has_a_page(study: Study) -> None:
    record = begun(study())
    empty = replace(Found.of(record, "toy"), trials=[], distributions={})
    assert "0 trials" in words(read(empty))


def test_trials_after_the_report_are_told(found: Found) -> None:
    more = replace(found, trials=[*found.trials, *found.trials[-2:]])
    assert "2 trials came after this report" in words(read(more))
    assert "came after this report" not in words(read(found))


def test_failed_trials_are_listed_with_their_reason(found: Found) -> None:
    trial = replace(found.trials[-1], state="failed", value=None, error="ValueError: no such layer")
    root = read(replace(found, trials=[*found.trials[:-1], trial]))
    assert "1 trial failed" in words(part(root, "search"))
    assert "ValueError: no such layer" in words(part(root, "search"))


def stopped(found: Found, shares: dict[int, float]) -> list[Trial]:
    """Return a study's trials with some stopped after a share of the items."""
    trials: list[Any] = list(found.trials)
    for number, share in shares.items():
        own = trials[number].search
        seen = {task: x[: round(share * len(x))] for task, x in own.scores.items()}
        trials[number] = replace(
            trials[number], state="stopped", measured={"search": replace(own, scores=seen)}
        )
    return trials


def test_who_was_stopped_is_drawn_at_the_share_that_was_seen(found: Found) -> None:
    one, two = [t.number for t in found.trials if t.was_searched()][:2]
    drawn = replace(found, trials=stopped(found, {one: 0.2, two: 0.5}))
    said = words(part(read(drawn), "search"))
    assert f"trial {one}: stopped after 20 % of the items" in said
    assert "2 candidates of" in said
    assert f"{round(0.8 * 20 + 0.5 * 20)} items were not evaluated" in said
    assert "Who was stopped when" not in words(read(found))


def test_stopped_candidate_is_never_the_best_so_far(found: Found) -> None:
    trials = stopped(found, {11: 0.5})
    trials[11] = replace(trials[11], value=99.0)
    root = part(read(replace(found, trials=trials)), "search")
    heights = [
        float(y) for line in root.iter("path") for y in re.findall(r",([\d.]+)", line.get("d", ""))
    ]
    assert min(heights) > 1  # its height would be the axis' end


def test_attributes_and_texts_are_escaped() -> None:
    assert element("a", "<b>", title='"&\x07') == '<a title="&quot;&amp;\\x07">&lt;b&gt;</a>'
    assert element("p", Html("<b/>"), None, [1, "<"]) == "<p><b/>1&lt;</p>"
    assert text("\ud800") == "\\ud800"


def test_path_of_layers_is_drawn_hop_by_hop(found: Found) -> None:
    slices = (
        Slice((Source("org/one", layer_range=(0, 2)),)),
        Slice((Source("org/two", layer_range=(1, 2)),), input_scale=0.5),
    )
    stacked = Recipe("passthrough", slices=slices)
    assert found.winner is not None
    trials = [
        replace(t, recipe=stacked) if t.number == found.winner.number else t for t in found.trials
    ]
    said = words(part(read(replace(found, trials=trials)), "recipe"))
    assert "layer 1: layer 1 of org/one" in said
    assert "layer 2: layer 1 of org/two, its input times 0.5" in said


def test_front_names_each_trade_once(study: Study) -> None:
    apart = toy.STUDY.replace("items:", "aggregate: apart\nitems:")
    found = finished(study(apart, sampler="tpe"))
    root = part(read(found), "front")
    (table,) = [t for t in root.iter("table") if t.get("class") == "plain"]
    rows = [words(row) for row in table.iter("tr")][1:]
    values = {t.number: t.values for t in found.trials if t.values}
    assert len(rows) == len({values[n] for n in front(values)})


def test_mixture_has_its_knobs_and_its_dense_merge_over_depth(found: Found) -> None:
    data = {
        "merge_method": "task_arithmetic",
        "base_model": "org/base",
        "models": [{"model": "org/one", "parameters": {"weight": [0.1, 0.2, 0.3]}}],
        "moe": {
            "gate_mode": "random",
            "experts": [{"source_model": "org/one"}, {"source_model": "org/two"}],
        },
    }
    mixed = recipe(data)
    assert found.winner is not None
    trials = [
        replace(t, recipe=mixed, params={"gate_mode": "random", "experts_per_token": 2})
        if t.number == found.winner.number
        else t
        for t in found.trials
    ]
    root = part(read(replace(found, trials=trials)), "recipe")
    said = words(root)
    assert "gate_mode: random" in said
    assert "experts_per_token" in said
    assert [td.get("title") for td in root.iter("td") if td.get("title")] == [
        *("layer 0, all tensors: 0.1", "layer 1, all tensors: 0.2", "layer 2, all tensors: 0.3"),
    ]
