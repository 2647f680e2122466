"""The text for model cards: what holds, in Markdown that no name can break."""

from __future__ import annotations

import pytest

from search.report.markdown import fenced, markdown, words
from search.report.summary import Report
from search.report.verdict import rivals, sentences
from tests.search.report.test_summary import SCORED, SUMMARY


def report(**changes: object) -> Report:
    whole = [{**one, "report": SCORED} for one in SUMMARY["candidates"]]
    return Report.from_json({**SUMMARY, "candidates": whole, **changes})


def test_report_has_verdict_table_recipe_what_it_holds_for_and_the_command() -> None:
    said = markdown(report(), "merge_method: linear\n", {"versions": "torch 2"}, "mergetune run x")
    titles = [line for line in said.splitlines() if line.startswith("#")]
    assert titles == ["# toy", "## Recipe", "## Measured on", "## Notices", "## To repeat it"]
    assert "```yaml\nmerge_method: linear\n```" in said
    assert "- versions: torch 2" in said
    assert "| **winner** | 0.300 (0.000 to 1.000) |" in said
    assert "- Public." in said
    assert said.endswith("```sh\nmergetune run x\n```\n")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.2, "is better than"), (-0.2, -0.1, "is worse than"), (-0.1, 0.1, "no difference")],
)
def test_verdict_goes_by_where_the_interval_lies(low: float, high: float, verdict: str) -> None:
    winner = {**SUMMARY["winner"], "minus_base": {"estimate": 0.15, "low": low, "high": high}}
    last = sentences(report(winner=winner, sentences=[]))[-1]
    assert verdict in last
    assert "the base" in last


def test_rivals_that_there_are_none_of_are_left_out() -> None:
    assert {what: name for what, (name, _) in rivals(report()).items()} == {
        "best parent": "parent:one",
        "best simple merge": "uniform",
        "base": "base",
    }


def test_names_mean_nothing_in_markdown() -> None:
    name = "a|b*c_d`e<f>\n# g [h](i) \x1b"
    assert words(name) == "a\\|b\\*c\\_d\\`e\\<f\\> \\# g \\[h\\](i) \\\\x1b"
    said = markdown(report(candidates=[{"name": name, "trial": 0, "report": SCORED}]), "x: 1")
    assert f"| {words(name)} |" in said


def test_code_cannot_end_its_block() -> None:
    assert fenced("a: ```b", "yaml") == "````yaml\na: ```b\n````"
