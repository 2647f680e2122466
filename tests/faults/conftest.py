"""Toy studies on databases that are copied, and what an unbroken run of one leaves."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.faults.same import End, end_of
from tests.faults.whole import TEXT, run
from tests.search import toy
from tests.search.conftest import (  # noqa: F401
    empty_database,
    nothing_is_read_twice,
    study,
)
from tests.search.real import run_whole, write_study

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def signals() -> Iterator[None]:
    """Let a test's process hear signals otherwise."""
    before = [signal.getsignal(number) for number in HEARD]
    yield
    for number, handler in zip(HEARD, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> End:
    """Return what an unbroken run of the toy study leaves."""
    spec = toy.spec_of(TEXT, tmp_path_factory.mktemp("unbroken"))
    assert run(spec) is not None
    end = end_of(spec.storage)
    pools = ["search", "select", "report"]
    counts = [sum(pool in t["measured"] for t in end.trials) for pool in pools]
    assert (len(end.trials), counts[1] >= 3, counts[2] >= 4) == (18, True, True)
    assert end.rest["samples"]
    return end


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a real study that has ended; copy it."""
    made = write_study(tmp_path_factory.mktemp("finished") / "small")
    run_whole(made)
    return made.parent


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return what makes a folder that is a disk of its own, of so many bytes."""
    mounted: list[Path] = []

    def get(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no small disk can be mounted here: run the tests as root, on Linux")
        mounted.append(folder)
        return folder

    yield get
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def closed() -> Iterator[None]:
    """Close what runs have opened on a server: a process that ends does."""
    opened: list[Any] = []

    def connected(connection: Any, _: object) -> None:
        opened.append(connection)

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", connected)
    yield
    sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", connected)
    for connection in opened:
        connection.close()
