"""What others named cannot steer the terminal that it is printed on."""

from __future__ import annotations

import io
import sys

import pytest
from rich.live import Live
from rich.text import Text

from merge_core.errors import warn
from merge_core.printable import printable
from search.cli import main
from search.views.tables import table
from search.views.terminal import PlainConsole, printable_output

EVIL = "a\x1b[2J\x1b]0;owned\x07\x08\r\x9b31m\u202eb\u2066\udcff"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07\x08\x0d\x9b31m\u202eb\u2066\udcff"


def test_control_characters_are_written_out_and_other_text_stays() -> None:
    assert printable(EVIL) == SHOWN
    plain = "é 漢字 😀\tb\n[red] :cat: \\x1b"
    assert printable(plain) == plain


def test_text_of_a_table_is_cleaned_and_its_own_styles_stay() -> None:
    file = io.StringIO()
    made = table(EVIL, (EVIL,), [(EVIL,)])
    made.rows[0].style = "bold"
    console = PlainConsole(file=file, force_terminal=True, width=200, color_system="standard")
    console.print(made)
    assert file.getvalue().count(SHOWN) == 3
    console.print(EVIL)
    assert "\x1b[1m" in file.getvalue()
    assert not {"\x07", "\x08", "\r", "\x9b", "\u202e"} & {*file.getvalue()}


def test_everything_printed_goes_through_it_but_what_rich_writes_for_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sys.stdout, sys.stderr
    with printable_output():
        print(EVIL)
        print(EVIL, file=sys.stderr, flush=True)
        PlainConsole(force_terminal=True, width=20).print("x", style="bold")
    assert (sys.stdout, sys.stderr) == before
    assert tuple(capsys.readouterr()) == (f"{SHOWN}\n\x1b[1mx\x1b[0m\n", f"{SHOWN}\n")


def test_command_line_writes_out_what_an_error_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mergetune", "merge", "a\x1b[31m.yaml", "out"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert r"a\x1b[31m.yaml" in said
    assert "\x1b" not in said


def test_warning_of_ours_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with printable_output():
        warn("a\x1b: not copied")
    assert capsys.readouterr().err == "warning: a\\x1b: not copied\n"


def test_control_codes_of_a_live_display_reach_the_terminal_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    console = PlainConsole(stderr=True, force_terminal=True, width=40)
    with printable_output(), Live(console=console, auto_refresh=False) as live:
        live.update(Text("one\u202e"), refresh=True)
        print("two\u202e", file=sys.stderr)
        live.update(Text("three"), refresh=True)
    said = terminal.getvalue()
    assert "\u202e" not in said
    assert r"two\u202e" in said
    assert "\x1b[2K" in said
    assert r"\x1b" not in said
