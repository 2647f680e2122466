"""What a run is told, and how often, before it ends."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from search.views import stopping
from search.views.stopping import Stopper, end_in_order

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HEARD}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(stopping, "ERR", Console(file=file, markup=False, emoji=False))
    monkeypatch.setattr(stopping, "STANDARD", ())
    return file


def test_first_interrupt_asks_to_stop_and_the_second_stops_at_once(said: io.StringIO) -> None:
    stop = Stopper()
    assert not stop()
    signal.raise_signal(signal.SIGINT)
    assert stop()
    assert said.getvalue() == "stopping after this trial; Ctrl-C again stops at once\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_closed_terminal_asks_to_stop_and_never_stops_at_once(said: io.StringIO) -> None:
    stop = Stopper()
    for _ in range(3):
        signal.raise_signal(signal.SIGHUP)
        assert stop()
    assert said.getvalue().count("the terminal is closed: stopping after this trial") == 1


def test_an_interrupt_amidst_a_line_is_heeded_though_nothing_can_be_said(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(stopping.ERR, "print", refuse)
    stop = Stopper()
    signal.raise_signal(signal.SIGTERM)
    assert stop()


def test_only_what_nobody_reads_any_more_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    (reader, writer), (other, gone) = os.pipe(), os.pipe()
    os.close(other)
    monkeypatch.setattr(stopping, "STANDARD", (writer, gone))
    end_in_order()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    os.write(gone, b"x")
    os.write(writer, b"y")
    assert os.read(reader, 2) == b"y"
    for handle in (reader, writer, gone):
        os.close(handle)
