"""Databases on a server: PostgreSQL, MySQL, or what else SQLAlchemy knows."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from merge_core.errors import StorageError, hint
from search.spec.storage_url import masked

if TYPE_CHECKING:
    from search.storage.bulk import BulkStorage

NAMES = {"postgres": "postgresql", "mariadb": "mysql"}  # other words for a kind -> SQLAlchemy's
DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("pymysql", "MySQLdb")}  # best first
DIALECTS = {"MySQLdb": "mysqldb"}  # driver -> SQLAlchemy's word for it, where they differ
PACKAGES = {  # driver -> what to install; two of them are extras of ours
    "psycopg": "'mergetune[postgres]'",
    "pymysql": "'mergetune[mysql]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
KINDS = ("sqlite", "postgresql", "mysql", "journal", "grpc")
# A server that is gone without a word must not be waited for as long as TCP does: seconds, of
# tcp_user_timeout milliseconds.
PATIENT = {
    "postgresql": {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 60_000},
    "mysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
}


def server_storage(url: str, *, create: bool) -> BulkStorage:
    """Open a database on a server; ``create`` makes Optuna's tables where there are none.

    Raises:
        StorageError: There is no such kind of database, or no driver for it.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    from search.storage.bulk import BulkStorage

    plain = with_driver(url)
    kind = plain.partition(":")[0].partition("+")[0]
    try:
        query = make_url(plain).query
    except ValueError as error:
        raise StorageError(f"storage {masked(url)}: expected a number as its port") from error
    except ArgumentError as error:
        raise StorageError(
            f"storage {masked(url)}: expected kind://user:password@host:port/database"
        ) from error
    try:
        said = {key: value for key, value in PATIENT.get(kind, {}).items() if key not in query}
        how: dict[str, Any] = {"pool_pre_ping": True, "connect_args": said}
        escaped = re.sub("[{}]", lambda brace: brace[0] * 2, plain)
        return BulkStorage(escaped, how, create=create)
    except NoSuchModuleError as error:
        written = url.partition("://")[0]
        known = f"write one of {', '.join(KINDS)}{hint(written.partition('+')[0], KINDS)}"
        raise StorageError(
            f"storage {masked(url)}: no such kind of database, got {written!r}; {known}"
        ) from error
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise _missing(url, driver, PACKAGES.get(driver, driver)) from error


def with_driver(url: str) -> str:
    """Return a URL with the driver that is here, where it names none.

    Raises:
        StorageError: None is.
    """
    scheme, _, rest = url.partition("://")
    kind, _, driver = scheme.partition("+")
    kind = NAMES.get(kind, kind)
    if driver or kind not in DRIVERS:
        return f"{kind}+{driver}://{rest}" if driver else url
    for module in DRIVERS[kind]:
        try:
            import_module(module)
        except ImportError:
            continue
        return f"{kind}+{DIALECTS.get(module, module)}://{rest}"
    best = DRIVERS[kind][0]
    raise _missing(url, best, PACKAGES[best])


def _missing(url: str, module: str, package: str) -> StorageError:
    return StorageError(
        f"storage {masked(url)}: the package of its driver is not here, no module {module!r}; "
        f"pip install {package}"
    )
