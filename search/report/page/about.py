"""What everything was measured on, and the commands that repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import yaml

from merge_core.json_text import json_text
from search.report.page.found import Found
from search.report.page.html import Html, details, element, facts, note, section
from search.report.page.numbers import counted
from search.spec.storage_url import masked


def measured_on(found: Found) -> dict[str, str]:
    """Return what everything was measured on: what it is -> in words."""
    about = found.about
    engine = about.get("engine") or {}
    versions = about.get("versions") or {}
    asked = (about.get("study") or {}).get("engine") or {}
    told = {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "engine": _plain(engine),
        "asked for": _plain(asked),
        "threads": str(about.get("threads", "")),
        "parents were on": str(about.get("placement") or ""),
        "items": _items(found),
    }
    if found.report is not None:
        winner = found.report.winner
        told |= {
            "seed": str(found.report.seed),
            "winner's recipe": f"SHA-256 {winner.recipe_digest}",
            "winner's weights": f"digest {winner.weights_digest}",
        }
    return {name: words for name, words in told.items() if words}


def _plain(given: object) -> str:
    if isinstance(given, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in given.items() if v is not None)
    if isinstance(given, list | tuple):
        return " ".join(map(_plain, given))
    return given if isinstance(given, str) else json_text(given)


def _items(found: Found) -> str:
    pools = found.about.get("pools") or {}
    each = {pool: found.items(pool) for pool in pools}
    return "; ".join(
        f"{pool} {sum(tasks.values()):,} ({', '.join(f'{t} {n:,}' for t, n in tasks.items())})"
        for pool, tasks in each.items()
    )


def provenance(found: Found) -> Html | None:
    """Return the section on what everything was measured on."""
    about = found.about
    notices = [] if found.report is None else found.report.notices
    tasks = {**(about.get("tasks") or {})}
    steering = {f"{task} (steering)": said for task, said in (about.get("steering") or {}).items()}
    lists = [
        ("Parents (SHA-256 over their tensors)", about.get("parents") or {}),
        ("Tasks (fingerprints)", tasks | steering),
        ("Configs and tokenizer files (digests)", about.get("behaviour") or {}),
    ]
    more = [
        details(
            title,
            facts([(element("code", k), element("code", _plain(v))) for k, v in given.items()]),
        )
        for title, given in lists
        if given
    ]
    return section(
        "What everything was measured on",
        "measured-on",
        facts(measured_on(found).items()),
        element("ul", *(element("li", x) for x in notices)) if notices else None,
        *more,
    )


def commands(found: Found) -> str:
    """Return the commands that repeat a study and check it."""
    study = shlex.quote(found.argument)
    lines = [f"mergetune run {study}"]
    if found.report is not None:
        lines += [
            f"mergetune reproduce {study} --trial best",
            f"mergetune export {study} merged-model --trial best",
        ]
    return "\n".join(lines)


def repeat(found: Found) -> Html | None:
    """Return the section with commands and study file."""
    data = dict(found.about.get("study") or {})
    if isinstance(data.get("storage"), str):
        data["storage"] = masked(data["storage"])
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    said = (
        "The first runs the study anew (or resumes it), the second rebuilds the winner from what "
        "is stored and compares its weights and every item's score, the third writes its model."
        if found.report is not None
        else f"{counted(len(found.trials), 'trial')} are stored; this goes on from there."
    )
    return section(
        "To repeat it",
        "repeat",
        element("pre", commands(found), class_="copy wrap", tabindex="0"),
        note(said),
        details("The study file", element("pre", text, class_="copy", tabindex="0"))
        if data
        else None,
    )
