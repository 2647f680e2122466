"""The winning recipe: to be copied, over depth, as a path of layers, and knob by knob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.report.page.axis import Axis
from search.report.page.chart import Chart, figure, legend
from search.report.page.depth import path
from search.report.page.found import Found
from search.report.page.heat import HOW, over_depth
from search.report.page.html import Html, details, element, note, section, table
from search.report.page.numbers import counted, knob
from search.trial.trial import Trial

COLOURS = ("s-searched", "s-winner", "s-gradient", "s-finalist", "s-stopped", "s-baseline")


def recipe(found: Found) -> Html | None:
    """Return the section on the winner's recipe."""
    trial = found.winner
    if trial is None:
        return None
    others = [t.recipe for t in found.finalists]
    maps = over_depth(trial.recipe, others)
    return section(
        "Recipe",
        "recipe",
        note("One click selects it. Local models are named from the study file's folder."),
        element("pre", trial.recipe.to_yaml(), class_="copy", tabindex="0"),
        None if maps is None else element("h3", "The recipe over depth"),
        None if maps is None else HOW,
        maps,
        _path(trial),
        _knobs(found, trial, open_=maps is None),
    )


def _path(trial: Trial) -> Html | None:
    """Return where each layer of the result comes from."""
    layers = path(trial.recipe)
    if not layers:
        return None
    models = list(dict.fromkeys(model for model, _, _ in layers))
    looks = {model: COLOURS[i % len(COLOURS)] for i, model in enumerate(models)}
    chart = Chart(
        "layers of the result and where they come from",
        Axis.of(range(len(layers)), "layer of the result", whole=True),
        Axis.of([layer for _, layer, _ in layers], "layer in its own model", whole=True),
        260,
    )
    for i, (model, layer, scale) in enumerate(layers):
        scaled = "" if scale == 1 else f", its input times {knob(scale)}"
        said = f"layer {i}: layer {layer} of {model}{scaled}"
        chart.dot((i, layer), looks[model], said, size=4)
    words = "A rise is a model's own order, a step back repeats layers, a jump leaves some out."
    return figure("The path of layers", words, chart.html(), legend((looks[m], m) for m in models))


def _knobs(found: Found, trial: Trial, *, open_: bool) -> Html | None:
    if not trial.params:
        return note(
            "The winner is a baseline outside the space that was searched; it has no knobs."
        )
    rows = [
        (name, _searched(found.distributions.get(name)), knob(value), _among(found.finalists, name))
        for name, value in trial.params.items()
    ]
    made = element(
        "div",
        table(("knob", "searched", "winner", "finalists"), rows, words=2),
        class_="tall",
        tabindex="0",
    )
    if open_ and len(rows) <= 30:
        return made
    return details(f"The winner's {counted(len(rows), 'knob')}", made)


def _searched(way: Any) -> str:
    if way is None:
        return ""
    if hasattr(way, "choices"):
        return ", ".join(map(str, way.choices))
    log = ", log scale" if way.log else ""
    step = f" in steps of {knob(way.step)}" if way.step else ""
    return f"{knob(float(way.low))} to {knob(float(way.high))}{step}{log}"


def _among(finalists: Sequence[Trial], name: str) -> str:
    values = [t.params[name] for t in finalists if name in t.params]
    if not values:
        return ""
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in values):
        low, high = min(values), max(values)
        return knob(float(low)) if low == high else f"{knob(float(low))} to {knob(float(high))}"
    return ", ".join(dict.fromkeys(map(str, values)))
