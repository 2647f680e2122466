"""Names, reasons and messages of users are printed as they are, whatever a view makes of text."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from evaluators.answer import Answer
from evaluators.engines.hf.residual_stream import LayerDistances
from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.contract import Method, Param
from merge_core.extract.adapter_folder import Extraction
from merge_core.inspect.forecast import Forecast
from merge_core.merge.seed_spread import Apart, Spread
from merge_core.methods.registry import METHODS
from merge_core.recipe.schema import Recipe
from merge_core.transplant.surgeon import Transplant
from merge_core.validation import StrictModel, Words
from search import views
from search.draft.write import Written
from search.report.compare import Comparison, Side, TaskRow
from search.report.listing import Listing
from search.report.side_by_side import Heard, OfTask, SideBySide, Wanted
from search.report.so_far import SoFar
from search.report.summary import Difference, Report
from search.run.base_scores import BaseScores
from search.run.caches import Cache
from search.run.check import Checked
from search.run.dry_run import Costs
from search.run.first_items import FirstItem
from search.run.inspect_layers import LayersFound
from search.run.seed_scores import SeedScores, TaskSpread
from search.run.size import Counts
from search.space.starting_points import UNIFORM
from search.trial.trial import Trial
from search.views import (
    answers,
    comparison,
    extraction,
    inspection_html,
    inspection_table,
    layers_table,
    live_panel,
    plugin_table,
    progress_line,
    said,
    seeds,
    tables,
    transplant,
    writing,
)
from tests.search.views.test_inspection_html import FOUND

BAD = "[bold]x[/foo] :cat: \\[red]"  # as markup: a style, an error, an emoji, an escape
ESTIMATE = {"mean": 0.5, "low": 0.25, "high": 0.75}


def finished() -> Report:
    found = {**ESTIMATE, "tasks": {BAD: ESTIMATE}}
    minus = {"estimate": 0.5, "low": 0.25, "high": 0.75}
    winner: dict[str, Any] = {"trial": 0, "recipe_digest": "", "weights_digest": ""}
    winner |= {"search": {"mean": 1.0, "steered_by": {BAD: BAD}}, "select": found, "report": found}
    summary = {
        "study": BAD,
        "seed": 0,
        "trials": {},
        "cost": {"items_scored": 0, "items_full": 0, "seconds": {}},
        "pools": {"search": 1, "select": 1, "report": 1},
        "score": {"aggregate": "mean", "entries": [{"name": BAD}]},
        "notices": [BAD],
        "candidates": [{"name": BAD, "trial": 0, "report": found}],
        "best_parent": BAD,
        "winner": {**winner, "minus_best_parent": minus},
    }
    return Report.from_json(summary)


def failed() -> Trial:
    return Trial(0, "failed", Recipe("linear", ()), baseline=BAD, error=f"ValueError: {BAD}")


def show_report(_: pytest.MonkeyPatch) -> None:
    tables.report(finished())


def show_trials(_: pytest.MonkeyPatch) -> None:
    tables.trials(Listing(BAD, (replace(failed(), params={BAD: BAD}),), 2, (BAD,), 1), BAD)


def show_so_far(_: pytest.MonkeyPatch) -> None:
    best = replace(failed(), number=1, value=0.5, baseline=BAD)
    tables.so_far(SoFar(BAD, 2, 1, 9, best, {BAD: replace(best, number=2), UNIFORM: best}))


def show_facts(_: pytest.MonkeyPatch) -> None:
    item = FirstItem(BAD, BAD, (BAD,), (BAD,), BAD, (BAD,), 1)
    tables.checked(Checked({BAD: BAD, "tasks": [BAD]}, [BAD], {BAD: [item]}))


def show_costs(_: pytest.MonkeyPatch) -> None:
    seconds = dict.fromkeys(
        ("trial", "step", "baselines", "search", "select", "report", "all"), 1.0
    )
    answers = {BAD: [Answer(BAD, BAD, BAD)]}
    base = BaseScores(BAD, {BAD: 1}, {BAD: 0.5}, {BAD: BAD}, [BAD], answers)
    tables.costs(
        Costs(1.0, 1.0, {BAD: 1.0}, {}, Counts(1, 1, 1, 1, 1), 1, seconds, 1, {}, base=base)
    )


def show_verdict(_: pytest.MonkeyPatch) -> None:
    tables.verdict({"number": 0, "verdict": BAD, "reason": BAD, "changed_parents": [BAD]})


def show_search(_: pytest.MonkeyPatch) -> None:
    first = {"number": 0, "reason": BAD}
    found = {"verdict": BAD, "trials": 2, "same": 0, "first": first, "environment": []}
    tables.searched_again(found)


def show_said(_: pytest.MonkeyPatch) -> None:
    heard = Heard(BAD, (Answer(BAD, BAD, BAD), Answer(BAD, BAD, f"{BAD}\n{BAD}")), (0.5, None))
    wanted = Wanted((failed(), failed()), BAD, wrong=True)
    said.side_by_side(SideBySide(BAD, wanted, {BAD: OfTask(BAD, 2, 1, (heard,))}))


def show_comparison(_: pytest.MonkeyPatch) -> None:
    side, none = Side(BAD, 1, "00ff", 20, 0, 0, 1), Difference(estimate=0.1, low=0.0, high=0.2)
    row = TaskRow(BAD, BAD, 20, 20, 0.5, 0.6, none)
    told: Any = {"apart": {BAD: BAD}, "notes": [BAD], "sentences": [BAD]}
    comparison.comparison(Comparison(side, side, 20, 20, "mean", none, [row], **told))


def show_note(_: pytest.MonkeyPatch) -> None:
    answers.note(BAD)


def show_table(_: pytest.MonkeyPatch) -> None:
    tables.OUT.print(tables.numbers(tables.table(BAD, (BAD, BAD), [(BAD, BAD)]), words=1))


def show_extraction(_: pytest.MonkeyPatch) -> None:
    row = {"name": BAD, "rank": 1, "norm": 1.0, "error": 0.5, "relative": 0.5, "largest": 0.1}
    left = {BAD: {"why": BAD, "norm": 1.0}}
    found = Extraction(BAD, BAD, 1, "float32", [row], [BAD], [BAD], left, 1.0, 0.5, 10)
    extraction.extraction(found, Path(BAD))


def show_transplant(_: pytest.MonkeyPatch) -> None:
    rows = dict.fromkeys(("before", "after", "shared", "role", "subwords", "mean"), 1)
    transplant.transplant(Transplant(BAD, BAD, [BAD], rows, 1.0, ""), Path(BAD))


def show_seeds(_: pytest.MonkeyPatch) -> None:
    found = Spread((0, 1), ("a", "b"), {BAD: Apart(1.0, 1.0, 2)})
    scores = SeedScores(BAD, [TaskSpread(BAD, 2, [0.5], 0.5, 0.1, 0.1)], [0.5], 0.5, 0.1, 0.1)
    seeds.seeds(found, scores)


def show_forecast(_: pytest.MonkeyPatch) -> None:
    writing.forecast(Forecast(BAD, (BAD,), BAD, BAD, 1, 1, 1, 1, 1, 1, BAD, 1))


def show_methods(patch: pytest.MonkeyPatch) -> None:
    param = Param(BAD, BAD, choices=(BAD,), default=BAD)
    said = {"about": BAD, "formula": BAD, "when": BAD, "merge": lambda inputs: inputs.models[0]}
    bad = Method(BAD, (param,), "none", (1, 1), BAD, **said)  # type: ignore[arg-type]
    patch.setitem(METHODS._added, BAD, bad)
    plugin_table.methods(as_json=False)


def show_method(patch: pytest.MonkeyPatch) -> None:
    show_methods(patch)
    plugin_table.one_method(BAD, as_json=False)


def show_evaluators(patch: pytest.MonkeyPatch) -> None:
    class Options(StrictModel):
        key: Annotated[str, Words(BAD)] = Field(BAD, description=BAD)

    bad = EvaluatorPlugin(BAD, BAD, Options, lambda *_: None)  # type: ignore[arg-type, return-value]
    patch.setitem(EVALUATORS._added, BAD, bad)
    plugin_table.evaluators(as_json=False)


def show_inspection(_: pytest.MonkeyPatch) -> None:
    names = (BAD, f"a/{BAD}")  # of one last word, so whole names are shown
    models = tuple(
        replace(x, model=name) for x, name in zip(FOUND.total.models, names, strict=False)
    )
    row = replace(FOUND.total, stack=BAD, layer=0, name=BAD, models=models, pairs=())
    rows = (row, replace(row, stack="b"))
    facts: dict[str, Any] = {"measured_from": (BAD,), "models": names, "parents": {BAD: 1}}
    inspection_table.show(replace(FOUND, merge_method=BAD, total=row, rows=rows, **facts))


def show_progress(_: pytest.MonkeyPatch) -> None:
    with progress_line.ProgressLine() as progress:
        progress.begin(2, [])
        progress.settled(failed())
        progress.notice(BAD)


def show_stage(_: pytest.MonkeyPatch) -> None:
    progress_line.ProgressLine().stage(BAD)


def show_panel(_: pytest.MonkeyPatch) -> None:
    best = replace(failed(), value=0.5, state="complete")
    tables.OUT.print(live_panel.panel(live_panel.Standing(trials=[best], doing=BAD), 400))


def show_cache(_: pytest.MonkeyPatch) -> None:
    tables.cache(Cache(BAD, BAD, 1, 2, 3), cleared=True)


def show_written(_: pytest.MonkeyPatch) -> None:
    tables.written(Written((Path(BAD),), {"trials": 1}, [BAD], {BAD: BAD}))


def show_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    one = LayerDistances(1, 2, (0.5, 0.5), ((0.25, 0.5), (0.75,)))
    layers_table.show(LayersFound(BAD, {BAD: one}))


def show_answer(_: pytest.MonkeyPatch) -> None:
    answers.written(Written((Path("x"),), {"trials": 1}, [BAD], {}), as_json=False)


def show_made(_: pytest.MonkeyPatch) -> None:
    answers.made("0123", Path(BAD), as_json=False)


SHOWS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "tables.report": show_report,
    "tables.trials": show_trials,
    "tables.so_far": show_so_far,
    "tables.checked": show_facts,
    "tables.costs": show_costs,
    "tables.verdict": show_verdict,
    "tables.searched_again": show_search,
    "tables.cache": show_cache,
    "tables.written": show_written,
    "answers.note": show_note,
    "answers.warn": show_answer,
    "answers.written": show_answer,
    "answers.made": show_made,
    "tables.table": show_table,
    "tables.numbers": show_table,
    "said.side_by_side": show_said,
    "comparison.comparison": show_comparison,
    "plugin_table.methods": show_methods,
    "plugin_table.one_method": show_method,
    "plugin_table.evaluators": show_evaluators,
    "extraction.extraction": show_extraction,
    "transplant.transplant": show_transplant,
    "seeds.seeds": show_seeds,
    "writing.forecast": show_forecast,
    "inspection_table.show": show_inspection,
    "layers_table.show": show_layers,
    "progress_line.ProgressLine": show_progress,
    "live_panel.panel": show_panel,
}
PRINT_NOTHING = {
    "plugin_table.names",  # completes what is typed
    "stopping.Stopper",  # sentences of ours
    "stopping.end_in_order",
    "progress_line.hush_libraries",
    "live_panel.Standing",
    "live_panel.one_line",
    "answers.answer",  # prints what it is given
    "plugin_table.described",  # declarations, and texts for what prints or renders them
    "plugin_table.said",
    "plugin_table.linked",
    "share_done.share_done",  # a bar with a word of ours
    "answers.hushed",
    "tables.size",  # a number, as is a duration
    "tables.verdicts",  # numbers
    "terminal.duration",
    "inspection_html.Scale",
    "inspection_html.page",  # escaped, as its own test says
    "layers_html.page",  # escaped, as its own test says
    "layers_table.sentence",
    "inspections.Shown",
    "terminal.PlainConsole",
    "terminal.printable_output",
}


@pytest.mark.parametrize("show", [*SHOWS.values(), show_stage])
def test_brackets_and_colons_of_a_name_are_printed_as_they_are(
    show: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tables.OUT, "_width", 400)
    show(monkeypatch)
    # a table of plugins writes a default as JSON does
    said = "".join(capsys.readouterr()).replace(json.dumps(BAD)[1:-1], BAD)
    parts = [said.count(part) for part in (BAD, "[bold]", "[/foo]", ":cat:", "[red]")]
    assert parts[0] > 0
    assert len(set(parts)) == 1, "some name lost a part"


def test_every_view_is_among_those_that_are_tried() -> None:
    found = set()
    for info in pkgutil.iter_modules(views.__path__):
        module = importlib.import_module(f"search.views.{info.name}")
        found |= {
            f"{info.name}.{name}"
            for name, what in vars(module).items()
            if not name.startswith("_")
            and (inspect.isfunction(what) or inspect.isclass(what))
            and what.__module__ == module.__name__
        }
    assert found == {*SHOWS, *PRINT_NOTHING}


def test_every_console_of_the_views_takes_text_as_it_is() -> None:
    for console in (tables.OUT, progress_line.ERR):
        assert (console._markup, console._emoji) == (False, False)
    assert inspection_html.escape("<b>") == "&lt;b&gt;"
