"""Studies for tests of the report: toy ones that ran, and what a page says, read as XML."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from search.report.page.found import Found
from search.report.page.page import page
from search.report.select import choose
from search.report.summarize import summarize
from search.report.summary import Report
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from tests.search import toy


def finished(spec: StudySpec, **changes: Any) -> Found:
    """Run a toy study to its end, and return what its page is made from."""
    bench = toy.Toy(spec)
    record = toy.in_memory(spec, bench)
    chosen = choose(record, bench, toy.Listener())
    record.finish(summarize(record, spec, bench.tasks, chosen).to_json())
    return replace(Found.of(record, "studies/toy"), **changes)


def begun(spec: StudySpec) -> Record:
    """Return the record of a toy study whose search is over, but nothing else."""
    return toy.in_memory(spec)


def read(found: Found) -> ElementTree.Element:
    """Return a page; one that is no XML fails here."""
    return tree(page(found))


def tree(text: str) -> ElementTree.Element:
    """Return a page's text as XML."""
    start, _, rest = text.partition("\n")
    assert start == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest.replace("<wbr/>", ""))


def words(element: ElementTree.Element | None) -> str:
    """Return all text in an element."""
    assert element is not None
    return " ".join(" ".join(element.itertext()).split())


def part(root: ElementTree.Element, name: str) -> ElementTree.Element:
    """Return the section with an anchor."""
    found = root.find(f".//section[@id='{name}']")
    assert found is not None, f"no section {name!r}"
    return found


def parts(root: ElementTree.Element) -> list[str]:
    """Return the anchors of the sections, in order."""
    return [str(one.get("id")) for one in root.iter("section")]


def report_of(found: Found) -> Report:
    """Return the report of a finished study."""
    assert found.report is not None
    return found.report
