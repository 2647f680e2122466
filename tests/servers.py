"""Real database servers of Debian's packages, on loopback, in a folder for temporary files.

A server is a process of the test's own, so it can be stopped, killed and started again. Each test
asks it for a database of its own. Where a package is not installed, its tests are skipped and name
it. As root, a server runs as its package's user, since none of them starts as root.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

USER, PASSWORD = "mergetune", "hunter2-SECRET/of:the@server?"
QUOTED = "hunter2-SECRET%2Fof%3Athe%40server%3F"  # as it stands in a URL
PATIENCE = 60.0  # seconds that a server may take to start


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server(ABC):
    """A database server; it is up once it is made.

    Args:
        folder: Its own; whoever runs it may write there.
        account: The user of the machine that runs it where the tests are root's; None: root.
    """

    LAST = signal.SIGKILL  # with which nothing waits for it

    def __init__(self, folder: Path, account: str | None) -> None:
        self.folder, self.port = folder, free_port()
        # the signal comes when the thread ends that started it, so that must be one that stays
        self._starter = ThreadPoolExecutor(1)
        self._as = ["setpriv", "--pdeathsig", "QUIT"]  # it ends when whoever runs the tests is dead
        if account is not None and os.getuid() == 0:
            shutil.chown(folder, account)
            self._as += ["--reuid", account, "--regid", account, "--clear-groups"]
        self._process: subprocess.Popen[bytes] | None = None
        self._prepare()
        self.start()

    @abstractmethod
    def _prepare(self) -> None:
        """Make what it keeps in its folder."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @abstractmethod
    def _create(self, database: str) -> None: ...

    @abstractmethod
    def url(self, database: str) -> str:
        """Return an Optuna URL, with the password."""

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"d{uuid4().hex[:12]}"
        self._create(name)
        return self.url(name)

    def start(self) -> None:
        """Start it, and return when it answers."""
        until = time.monotonic() + PATIENCE
        while self._process is None or not self._answers():
            if self._process is None or self._process.poll() is not None:
                # again, too: children of one that was killed hold its memory for a moment
                self._process = self._starter.submit(self._begun).result()
            assert time.monotonic() < until, (self.folder / "log").read_text(errors="replace")
            time.sleep(0.1)

    def _begun(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*self._as, *self._command()], stdout=log, stderr=log)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it and return when it has ended; SIGKILL as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def send(self, what: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP: it hangs until SIGCONT."""
        assert self._process is not None
        self._process.send_signal(what)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it and start it again, at the same port with the same databases."""
        self.stop(how)
        self.start()

    def _run(self, *command: str | Path, **environment: str) -> None:
        subprocess.run(
            [*self._as, *command],
            check=True,
            capture_output=True,
            cwd=self.folder,
            env={**os.environ, **environment},
        )


def postgres_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, if there is one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda x: x.parts[-3])
    return found[-1].parent if found else None


class Postgres(Server):
    """PostgreSQL, which is several processes."""

    LAST = signal.SIGQUIT

    def _prepare(self) -> None:
        programs = postgres_programs()
        assert programs is not None
        self._programs = programs
        (self.folder / "password").write_text(PASSWORD)
        self._run(
            *(programs / "initdb", "--pgdata", self.folder / "data", "--no-sync"),
            *("--username", USER, "--pwfile", self.folder / "password"),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
        )

    def _command(self) -> list[str | Path]:
        quick = ["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", f"port={self.port}"]
        places = ["-k", self.folder, "-c", "listen_addresses=127.0.0.1"]
        return [self._programs / "postgres", "-D", self.folder / "data", *places, *quick]

    def _answers(self) -> bool:
        ready = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    def _create(self, database: str) -> None:
        who = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)
        self._run(self._programs / "createdb", *who, database, PGPASSWORD=PASSWORD)

    def dump(self, database: str) -> str:
        """Return all that a database holds, as SQL."""
        who = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)
        return subprocess.run(
            [self._programs / "pg_dump", *who, database],
            env={**os.environ, "PGPASSWORD": PASSWORD},
            capture_output=True,
            check=True,
            text=True,
        ).stdout

    def url(self, database: str, dialect: str = "postgresql+psycopg") -> str:
        return f"{dialect}://{USER}:{QUOTED}@127.0.0.1:{self.port}/{database}"


class MariaDB(Server):
    """MariaDB, which speaks MySQL's protocol and has its limits."""

    def _prepare(self) -> None:
        self._run(
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        (self.folder / "first.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )

    def _command(self) -> list[str | Path]:
        return [
            *("/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *(f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *(f"--init-file={self.folder / 'first.sql'}", "--innodb-flush-method=nosync"),
            *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=16M"),
        ]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        super().stop(signal.SIGTERM if how is signal.SIGINT else how)  # SIGINT it passes over

    def _answers(self) -> bool:
        return self._asked("SELECT 1") == 0

    def _create(self, database: str) -> None:
        assert self._asked(f"CREATE DATABASE {database} CHARACTER SET utf8mb4") == 0

    def _asked(self, statement: str) -> int:
        who = ["-h", "127.0.0.1", "-P", str(self.port), "-u", USER, "-e", statement]
        return subprocess.run(
            ["mariadb", "--no-defaults", *who],
            env={**os.environ, "MYSQL_PWD": PASSWORD},
            capture_output=True,
            check=False,
        ).returncode

    def url(self, database: str, dialect: str = "mysql+pymysql") -> str:
        return f"{dialect}://{USER}:{QUOTED}@127.0.0.1:{self.port}/{database}"


PROXY = """
import sys, warnings
import optuna
warnings.simplefilter("ignore")
optuna.storages.run_grpc_proxy_server(
    optuna.storages.get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2])
)
"""


class GrpcProxy(Server):
    """Optuna's gRPC proxy over an SQLite file, in a process of its own."""

    def _prepare(self) -> None:
        self.file = self.folder / "behind.db"

    def _command(self) -> list[str | Path]:
        return [sys.executable, "-c", PROXY, f"sqlite:///{self.file}", str(self.port)]

    def _answers(self) -> bool:
        with socket.socket() as door:
            return door.connect_ex(("127.0.0.1", self.port)) == 0

    def _create(self, database: str) -> None:
        """There is one for all."""

    def url(self, database: str = "") -> str:
        return f"grpc://127.0.0.1:{self.port}"


def running(kind: type[Server], account: str | None) -> Iterator[Server]:
    """Start a server, and stop it and take its folder away at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mergetune-server-"))
    server = None
    try:
        yield (server := kind(folder, account))
    finally:
        if server is not None:
            server.stop(server.LAST)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; leave it running."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not here: install Debian's package postgresql")
    yield from running(Postgres, "postgres")


@pytest.fixture
def grpc_proxy() -> Iterator[Server]:
    """Optuna's gRPC proxy, with one empty database."""
    yield from running(GrpcProxy, None)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB server; leave it running."""
    if not Path("/usr/sbin/mariadbd").exists():
        pytest.skip("MariaDB is not here: install Debian's package mariadb-server")
    yield from running(MariaDB, "mysql")
