"""A browser draws the page whole: on wide and narrow screens, in light and dark, and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from search.report.page.found import Found
from search.report.page.page import page
from search.report.summary import Report
from tests.search import toy
from tests.search.report.pages import finished
from tests.search.report.test_page import SAMPLES, stopped

ROOT = Path(__file__).parents[3]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE = 120_000  # ms, of a machine that has much else to do
ARTIFACTS = ROOT / "tests" / "artifacts"
WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
APART = toy.STUDY.replace("items:", "aggregate: apart\nitems:")
LONG = (
    "a-model-whose-name-goes-on-and-on-and-on/with_many_parts_and.dots.that.never.end-instruct-v3"
)
NAMED = toy.STUDY.replace("org/one", LONG).replace(
    "items:", "  - {evaluator: lm_eval, task: third}\nitems:"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="needs Chromium: apt-get install --no-install-recommends chromium",
    ),
]

SCRIPT = (Path(__file__).parent / "layout.js").read_text(encoding="utf-8")
LAYOUT, EMPTY = f"{SCRIPT}.layout()", f"{SCRIPT}.empty()"


def toy_named(text: str, folder: Path) -> Found:
    """Return a finished toy study with a parent of another name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(toy.PARENTS, LONG, toy.PARENTS["org/one"])
        return finished(toy.spec_of(text, folder))


def as_bytes(found: Found) -> Found:
    """Return a study whose scores are of the size of a model."""

    def scaled(data: Any) -> Any:
        if isinstance(data, list):
            return [scaled(x) for x in data]
        if not isinstance(data, dict):
            return data
        numbers = ("mean", "low", "high", "estimate")
        return {k: -2.3e6 * x if k in numbers else scaled(x) for k, x in data.items()}

    assert found.report is not None
    trials = [replace(t, value=-2.3e6 * (t.value or 0), stderr=9e4) for t in found.trials]
    report = Report.from_json(scaled(found.report.to_json()))
    return replace(found, report=report, trials=trials)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """Return studies whose pages differ: whole, raced, with objectives, long names, unfinished."""
    folder = tmp_path_factory.mktemp("toy")
    long_one = toy.spec_of(toy.STUDY, folder, trials=30)
    whole = finished(long_one, samples=SAMPLES, price=2.0)
    raced = stopped(whole, {n: 0.2 + n % 5 / 10 for n in range(12, 36, 2)})
    return {
        "whole": whole,
        "raced": replace(whole, trials=raced),
        "apart": finished(toy.spec_of(APART, folder, sampler="tpe")),
        "named": toy_named(NAMED, folder),
        "bytes": as_bytes(whole),
        "begun": replace(whole, report=None, samples={}, trials=whole.trials[:14]),
        "empty": replace(whole, report=None, samples={}, trials=[], distributions={}),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS], timeout=PATIENCE
        )
        yield started
        started.close()


class Seen:
    """A page in the browser, and what was said and asked for while it was drawn."""

    def __init__(self, shown: Page, file: Path) -> None:
        self.page, self.said, self.asked = shown, list[str](), list[str]()
        shown.set_default_timeout(PATIENCE)
        shown.on("console", lambda message: self.said.append(message.text))
        shown.on("pageerror", lambda error: self.said.append(str(error)))
        shown.on("request", lambda request: self.asked.append(request.url))
        shown.goto(file.as_uri())


def see(browser: Browser, file: Path, **settings: Any) -> Seen:
    return Seen(browser.new_context(**settings).new_page(), file)


NAMES = ("whole", "raced", "apart", "named", "bytes", "begun", "empty")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_page_is_drawn_whole_with_no_word_cut(
    browser: Browser, studies: dict[str, Found], tmp_path: Path, name: str, width: int
) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(page(studies[name]), encoding="utf-8")
    ARTIFACTS.mkdir(exist_ok=True)
    for scheme in SCHEMES:
        seen = see(browser, file, viewport={"width": width, "height": 900}, color_scheme=scheme)
        seen.page.screenshot(path=ARTIFACTS / f"report-{name}-{width}-{scheme}.png", full_page=True)
        assert (seen.said, seen.asked) == ([], [file.as_uri()])
        assert seen.page.evaluate(LAYOUT) == []
        assert seen.page.evaluate(EMPTY) == []
        seen.page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
        assert seen.page.evaluate(LAYOUT) == []
        seen.page.context.close()


def test_dark_page_is_dark_and_its_words_can_be_read(
    browser: Browser, studies: dict[str, Found], tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(studies["whole"]), encoding="utf-8")
    grey = "x => getComputedStyle(x)[{}].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    for scheme in SCHEMES:
        seen = see(browser, file, color_scheme=scheme)
        body = seen.page.locator("body")
        back, ink = (body.evaluate(grey.format(f"'{k}'")) for k in ("backgroundColor", "color"))
        assert (back < 60, ink > 200) == (scheme == "dark",) * 2
        seen.page.context.close()


def test_page_is_printed_in_light_colours(
    browser: Browser, studies: dict[str, Found], tmp_path: Path
) -> None:
    file, paper = tmp_path / "page.html", ARTIFACTS / "report.pdf"
    file.write_text(page(studies["whole"]), encoding="utf-8")
    ARTIFACTS.mkdir(exist_ok=True)
    seen = see(browser, file, color_scheme="dark")
    seen.page.emulate_media(media="print")
    back = seen.page.locator("body").evaluate("x => getComputedStyle(x).backgroundColor")
    assert back == "rgb(255, 255, 255)"
    seen.page.pdf(path=paper, format="A4", print_background=True)
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") >= 2
    seen.page.context.close()


def test_what_is_wrong_with_a_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "wrong.html"
    file.write_text(
        "<!DOCTYPE html><p style='width:60px;overflow:hidden;white-space:nowrap'>far too long a "
        "line</p><div style='width:3000px'>wide</div><figure><h3>nothing</h3><svg "
        "class='plot'></svg></figure><script>console.log('said'); fetch('https://nowhere.invalid/')</script>",
        encoding="utf-8",
    )
    seen = see(browser, file, viewport={"width": 400, "height": 900})
    seen.page.wait_for_timeout(200)
    wrong = seen.page.evaluate(LAYOUT)
    assert any(x.startswith("cut: P") for x in wrong)
    assert any(x.startswith("past the page: DIV") for x in wrong)
    assert "the page scrolls sideways" in wrong
    assert seen.page.evaluate(EMPTY) == ["nothing"]
    assert "said" in seen.said
    assert "https://nowhere.invalid/" in seen.asked
