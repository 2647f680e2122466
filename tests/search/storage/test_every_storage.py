"""Each of Optuna's storages, with real servers, keeps the same study and is guarded alike."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.orm import Session

from merge_core.errors import MergeError, StorageError, UnknownNameError
from merge_core.recipe.schema import Recipe, Source
from search.report.select import choose
from search.report.summarize import summarize
from search.run.anew import start_over
from search.run.resume import open_for
from search.spec.study_file import StudySpec
from search.storage import stored
from search.storage.locate import open_study
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial
from tests.search import real, toy
from tests.servers import PASSWORD, QUOTED, Postgres, Server

SERVERS = ("postgres", "mariadb", "grpc_proxy")
KINDS = ("sqlite", "journal", *SERVERS)
pytestmark = pytest.mark.slow  # a server takes a moment to start

TRIAL = Trial(0, "complete", Recipe("linear", (Source("one", (("weight", 1.0),)),)), value=0.5)
Place = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """Return the URL of an empty storage of a kind."""

    def url(kind: str) -> str:
        if kind in ("sqlite", "journal"):
            return f"{kind}:///{tmp_path / kind}"
        server = request.getfixturevalue("postgres" if kind == "psycopg2" else kind)
        found: str = server.database()
        return found.replace("+psycopg:", "+psycopg2:") if kind == "psycopg2" else found

    return url


def spec_in(url: str, folder: Path, text: str = toy.SHORT, **changes: Any) -> StudySpec:
    return toy.spec_of(f"{text}storage: '{url}'\n", folder, **changes)


def whole(spec: StudySpec, stop: Any = toy.never) -> Record:
    """Run a toy study to its end, or until ``stop``."""
    bench, record = toy.Toy(spec), open_for(spec)
    with record.writing():
        if toy.search(spec, record, bench, toy.Listener(), stop) is not None:
            chosen = choose(record, bench, toy.Listener())
            record.finish(summarize(record, spec, bench.tasks, chosen).to_json())
    return record


@pytest.mark.parametrize("kind", ["journal", "mariadb", "grpc_proxy"])
def test_a_study_makes_room_for_a_new_one_and_is_kept(
    place: Place, tmp_path: Path, kind: str
) -> None:
    spec = spec_in(place(kind), tmp_path)
    first = whole(spec)
    before = told(first)
    start_over(spec, toy.Listener(), toy.never)
    assert open_for(spec).about is None
    assert told(whole(spec))["trials"] == before["trials"]
    kept = open_record(spec.storage, f"{spec.name}.before-1")
    assert told(kept) == before
    assert open_study(spec.storage)[1].name == spec.name


def told(record: Record) -> dict[str, Any]:
    """Return all that is stored of a study, but what it took and where it is."""
    summary = {k: v for k, v in (record.summary or {}).items() if k != "cost"}
    about = {k: v for k, v in (record.about or {}).items() if k not in ("folder", "study")}
    return {
        "trials": toy.kept(record.trials),
        "distributions": record.distributions,
        "finalists": record.finalists,
        "summary": summary,
        "about": about,
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is stored of the study in an SQLite file."""
    folder = tmp_path_factory.mktemp("expected")
    return told(whole(spec_in(f"sqlite:///{folder}/x.db", folder)))


@pytest.mark.parametrize("kind", [*KINDS, "psycopg2"])
def test_a_study_is_the_same_in_every_storage_also_when_it_was_interrupted(
    kind: str, place: Place, tmp_path: Path, expected: dict[str, Any]
) -> None:
    spec = spec_in(place(kind), tmp_path)
    answers = iter([False] * 4 + [True])
    assert len(whole(spec, lambda: next(answers)).trials) == 4
    assert told(whole(spec)) == expected
    assert told(open_study(spec.storage)[1]) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_is_refused_in_every_storage(kind: str, place: Place) -> None:
    url = place(kind)
    first, second = (open_record(url, "toy", create=True) for _ in range(2))
    with first.writing():
        with pytest.raises(MergeError, match=r"study 'toy' in .* is being run by process \d+ on "):
            second.writing().__enter__()
        first.add(TRIAL, {})
    with second.writing():
        assert second.trials == [TRIAL]
        second.add(replace(TRIAL, number=1), {})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_long_or_is_no_ascii_comes_back(kind: str, place: Place) -> None:
    record = open_record(place(kind), "Große 学 🙂 %20 {0}", create=True)
    text = "é🙂\\%{}'\"\n" * 1000
    record._stored.set("long", text)
    stream = random.Random(0)
    graded = Measurement({"t": [stream.gauss(0, 1) for _ in range(20_000)]}, {"build": 1.0})
    record.add(replace(TRIAL, measured={"search": graded}, error=text * 9), {})
    record.add_measured("select", 0, graded)
    for value in (text * 5, text * 9):
        record.finish({"text": value})
    again = open_record(record._stored.guard.url.replace("***", QUOTED), record.name)
    assert again._stored.attributes()["long"] == text
    assert again.trials == record.trials
    assert again._stored.trials()[0].duration == timedelta(seconds=1)
    assert again.summary == {"text": text * 9}


def lose_an_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the next commit of a trial succeed and seem to have failed."""
    lost: list[str] = []
    if kind == "grpc_proxy":
        import grpc
        from optuna.storages import GrpcStorageProxy

        create = GrpcStorageProxy.create_new_trial

        class Unavailable(grpc.RpcError):
            def code(self) -> Any:
                return grpc.StatusCode.UNAVAILABLE

            def details(self) -> str:
                return "lost"

        Unavailable.__module__ = "grpc"

        def over_grpc(self: Any, *given: Any, **named: Any) -> Any:
            found = create(self, *given, **named)
            if not lost:
                lost.append("lost")
                raise Unavailable
            return found

        monkeypatch.setattr(GrpcStorageProxy, "create_new_trial", over_grpc)
        return lost
    commit = Session.commit

    def committed(self: Session) -> None:
        wrote = any(type(x).__name__ == "TrialModel" for x in self.identity_map.values())
        commit(self)
        if wrote and not lost:
            lost.append("lost")
            self.connection().invalidate()  # as where the server ends after it has committed
            from sqlalchemy.exc import OperationalError

            raise OperationalError("COMMIT", {}, Exception("lost"), connection_invalidated=True)

    monkeypatch.setattr(Session, "commit", committed)
    return lost


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "journal"])
def test_a_commit_whose_answer_was_lost_doubles_no_trial(
    kind: str, place: Place, tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PAUSE", 0.01)
    spec = spec_in(place(kind), tmp_path)
    record = open_for(spec)
    answers = iter([False] * 3 + [True])
    toy.search(spec, record, toy.Toy(spec), toy.Listener(), lambda: next(answers))
    lost = lose_an_answer(kind, monkeypatch)
    assert told(whole(spec)) == expected
    assert lost


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_is_started_again_is_waited_for(
    kind: str,
    place: Place,
    tmp_path: Path,
    expected: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "PAUSE", 0.1)
    server: Server = request.getfixturevalue(kind)
    spec, said = spec_in(place(kind), tmp_path), []
    record = open_for(spec, said.append)
    restarted = threading.Thread(target=lambda: (time.sleep(1), server.start()))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        if len(asked) == 4:
            server.stop()
            restarted.start()
        return False

    with record.writing():
        toy.search(spec, record, toy.Toy(spec), toy.Listener(), stop)
    restarted.join()
    assert toy.kept(record.trials) == [trial_of_search(trial) for trial in expected["trials"]]
    away, back = said
    assert away.startswith(f"storage {record.url}: away (said ")
    assert away.endswith("), trying again for 300 s")
    assert back.startswith(f"storage {record.url}: back after ")
    assert not [line for line in said if PASSWORD in line or QUOTED in line]


def trial_of_search(trial: Any) -> Any:
    """Return a trial without what was measured of it after the search."""
    return replace(trial, measured={"search": trial.measured["search"]})


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_stays_away_ends_the_run_with_one_line_and_what_is_settled_kept(
    kind: str,
    place: Place,
    tmp_path: Path,
    expected: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "PATIENCE", 0.5)
    server: Server = request.getfixturevalue(kind)
    spec, asked = spec_in(place(kind), tmp_path), []

    def stop() -> bool:
        asked.append(1)
        if len(asked) == 4:
            server.stop()
        return False

    try:
        with pytest.raises(StorageError, match=r"^storage .*: cannot be (read|written): ") as line:
            whole(spec, stop)
        with pytest.raises(StorageError, match="cannot be opened: ") as other:
            open_study(spec.storage)
    finally:
        server.start()
    for told_line in (str(line.value), str(other.value)):
        assert "\n" not in told_line
        assert "there, at that port?" in told_line
        assert PASSWORD not in told_line
        assert QUOTED not in told_line
    kept = toy.kept(open_study(spec.storage)[1].trials)
    assert kept == [trial_of_search(trial) for trial in expected["trials"][: len(kept)]]
    assert len(kept) >= 2
    assert told(whole(spec)) == expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((QUOTED, "wrong"), "password authentication failed.*are user and password right"),
        (("mergetune:", "nobody:"), "password authentication failed"),
        (("/d", "/x"), 'database "x.*" does not exist; make it first'),
        ((f":{QUOTED}", ""), "no password supplied; write it into the URL"),
    ],
)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_what_postgresql_refuses_is_said_at_once(
    driver: str, change: tuple[str, str], why: str, postgres: Postgres
) -> None:
    url = postgres.database().replace("+psycopg:", f"+{driver}:")
    head, _, tail = url.rpartition(change[0])
    began = time.monotonic()
    with pytest.raises(StorageError, match=f"cannot be opened: .*{why}") as line:
        open_record(f"{head}{change[1]}{tail}", "toy", create=True)
    assert time.monotonic() - began < 20
    assert "\n" not in str(line.value)
    assert PASSWORD not in str(line.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((QUOTED, "wrong"), "Access denied for user .*are user and password right"),
        (("/d", "/x"), "Unknown database 'x.*'; make it first"),
    ],
)
def test_what_mysql_refuses_is_said_at_once(
    change: tuple[str, str], why: str, mariadb: Server
) -> None:
    head, _, tail = mariadb.database().rpartition(change[0])
    with pytest.raises(StorageError, match=f"cannot be opened: {why}"):
        open_record(f"{head}{change[1]}{tail}", "toy", create=True)


def test_a_value_that_mysql_has_no_room_for_is_one_line(mariadb: Server) -> None:
    record = open_record(mariadb.database(), "toy", create=True)
    with pytest.raises(
        StorageError, match=r"cannot be written: Data too long .* a value is longer"
    ):
        record._stored.set("long", "x" * 70_000)


@pytest.mark.parametrize("kind", KINDS)
def test_an_attribute_of_any_length_is_kept_by_every_storage(kind: str, place: Place) -> None:
    """MySQL's columns take 64 KB, and the proxy 4 MB a call."""
    url = place(kind)
    record = open_record(url, "toy", create=True)
    texts = [f"{i:x}" * 60 for i in range(10_000)]  # 2.8 MB
    with record.writing():
        record.said.keep_samples(0, 1, {"a": {"gained": [{"answer": x} for x in texts]}})
        scores = [i / 7 for i in range(30_000)]
        record.add(replace(TRIAL, measured={"search": Measurement({"a": scores}, {})}), {})
    again = open_record(url, "toy")
    assert again.said.has_samples(0, 1)
    assert again.trials[0].measured["search"].scores["a"] == scores
    again.finish({"winner": {"trial": 0}})
    assert [x["answer"] for x in again.said.samples(0)["a"]["gained"]] == texts


def test_a_value_that_the_proxy_has_no_room_for_is_one_line(grpc_proxy: Server) -> None:
    record = open_record(grpc_proxy.database(), "toy", create=True)
    with pytest.raises(StorageError, match=r"RESOURCE_EXHAUSTED: .*; a value is larger than the"):
        record._stored.set("long", "x" * 5_000_000)


def test_a_proxy_that_does_not_answer_is_not_waited_for_for_ever(
    grpc_proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.storage import proxy

    record = open_record(grpc_proxy.database(), "toy", create=True)
    monkeypatch.setattr(proxy, "WAIT", 0.3)
    monkeypatch.setattr(stored, "PATIENCE", 0.5)
    grpc_proxy.send(signal.SIGSTOP)
    try:
        with pytest.raises(StorageError, match="cannot be read: DEADLINE_EXCEEDED"):
            record._stored.attributes()
    finally:
        grpc_proxy.send(signal.SIGCONT)
    monkeypatch.undo()
    assert record._stored.attributes() == {}


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_who_reads_makes_no_tables(kind: str, place: Place) -> None:
    url = place(kind)
    with pytest.raises(UnknownNameError, match=r": holds no studies; `mergetune run` the study"):
        open_record(url)
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_any_driver_of_postgresql_opens_the_same_study(scheme: str, postgres: Postgres) -> None:
    url = postgres.database()
    open_record(url, "toy", create=True)
    assert open_record(url.replace("postgresql+psycopg", scheme)).name == "toy"


def test_a_run_stores_and_prints_its_password_nowhere(
    postgres: Postgres, tmp_path: Path, mergetune: Any
) -> None:
    url = postgres.database()
    file = real.write_study(tmp_path / "small", trials=1)
    file.write_text(f"{file.read_text()}storage: '{url}'\n")
    said = [mergetune("run", file), mergetune("trials", url)]
    assert [code for code, _, _ in said] == [0, 0]
    dumped = postgres.dump(url.rpartition("/")[2])
    assert "weights_digest" in dumped
    assert "postgresql+psycopg://mergetune:***@127.0.0.1:" in dumped
    results = [x for x in (file.parent / "results").rglob("*") if x.is_file()]
    assert {"summary.json", "report.html", "report.md"} <= {x.name for x in results}
    said_or_stored = [dumped, *(out + err for _, out, err in said)]
    said_or_stored += [x.read_text(errors="replace") for x in results]
    for text in said_or_stored:
        for secret in (PASSWORD, QUOTED, "hunter2"):
            assert secret not in text
