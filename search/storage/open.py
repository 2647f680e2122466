"""Where a study's database is opened."""

from __future__ import annotations

import functools
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evaluators.jsonl.judge_key import is_this_machine, may_go
from merge_core.atomic_write import make_folder
from merge_core.errors import MergeError, StorageError, UnknownNameError
from search.spec.storage_url import SQLITE, checked, masked, secrets, sqlite_file
from search.storage.stored import PATIENCE, said_by, told
from search.storage.study_record import Record

if TYPE_CHECKING:
    import optuna

OPTIONS = ("sslmode", "connect_timeout", "charset", "application_name")  # that name no host
PACKAGES = {  # driver -> what to install; two of them are extras of ours
    "psycopg": "'mergetune[postgres]'",
    "pymysql": "'mergetune[mysql]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}


def open_record(
    url: str,
    name: str | None = None,
    *,
    create: bool = False,
    objectives: int = 1,
    unnamed: bool = False,
    variables: Sequence[str] = (),
) -> Record:
    """Open a study.

    Args:
        url: Optuna storage URL.
        name: Of the study; None takes the only one that mergetune wrote there.
        create: Make storage and study if they do not exist.
        objectives: How many a study has that is made.
        unnamed: ``name`` is only what the folder of the database is called now: where it holds
            one study, named after its folder too, it is that one.
        variables: Environment variables that a study file has put into ``url``.

    Raises:
        MergeError: The storage cannot be opened, or the user has not said that the variables'
            values may go to its host.
        UnknownNameError: There is no such storage or study, or several to choose from.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # warnings would stand beside our one line
    url = plain_url(checked, url)
    shown = masked(url)
    _check_sent(url, variables)
    _check_file(url, create)
    storage = _opened(url)  # once: it reads Optuna's migrations each time
    with told(shown, "opened"):
        names = optuna.get_all_study_names(storage)
        load = functools.partial(optuna.load_study, storage=storage)
        if unnamed and name not in names and len(names) == 1:
            only = Record(load(study_name=names[0]), shown)
            if only.about is not None and "name" not in only.about["study"]:
                return only
        if create and name not in names:
            ways = [optuna.study.StudyDirection.MAXIMIZE] * objectives
            optuna.create_study(storage=storage, study_name=name, directions=ways)
        elif name is None and len(names) == 1:
            name = names[0]
        elif name not in names:
            wanted = f"no study {name!r}" if name else "no single study"
            raise UnknownNameError(f"{shown} has {wanted}; it has {', '.join(names) or 'none'}")
        return Record(load(study_name=name), shown)


def plain_url(read: Callable[[str], str], url: str) -> str:
    """Return a URL as ``storage_url.checked`` or ``filled`` reads it.

    Raises:
        MergeError: It is none.
    """
    try:
        return read(url)
    except ValueError as error:
        raise MergeError(f"storage: {error}") from error


def _check_sent(url: str, variables: Sequence[str]) -> None:
    """Refuse to send a variable's value to a host that the user has not named.

    A study file may come from a stranger, and names both the variable and the host.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if not variables or sqlite_file(url) is not None:
        return
    try:
        parsed = make_url(url)  # what a driver is given
    except (ArgumentError, ValueError):
        return  # nor can it be opened
    leading = sorted(set(parsed.query) - set(OPTIONS))
    if leading:
        raise MergeError(
            f"storage: the option {leading[0]!r} may lead to another host, so it does not go with "
            f"${{{variables[0]}}}; expected {', '.join(OPTIONS)} at most"
        )
    host = parsed.host or "localhost"  # without one: a socket of this machine
    unsaid = [name for name in variables if not may_go(name, host)]
    if unsaid and not is_this_machine(host):
        secret = any(os.environ.get(name, "") in host for name in variables)
        shown = "HOST" if secret else host
        raise MergeError(
            f"storage: the value of {unsaid[0]} goes only to hosts that you name, and the study "
            f"sends it to {'one that its variables name' if secret else host}; add --send-key "
            f"{unsaid[0]}={shown} if you trust that host with it"
        )


def _check_file(url: str, create: bool) -> None:
    file = sqlite_file(url)
    if file is None:
        return
    if create:
        make_folder(file.parent)
    elif not file.is_file():
        raise UnknownNameError(f"{SQLITE}{file}: no such file; `mergetune run` the study first")


def _opened(url: str) -> optuna.storages.RDBStorage:
    """Open a storage; what fails is one line, and in it nothing that ``masked`` hides."""
    from sqlalchemy.exc import NoSuchModuleError

    shown = f"storage {masked(url)}"
    try:
        return _storage(url)
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise StorageError(
            f"{shown}: the package of its driver is not here, no module {driver!r}; "
            f"pip install {PACKAGES.get(driver, driver)}"
        ) from error
    except NoSuchModuleError as error:
        kind = url.partition("://")[0]
        written = "postgresql" if kind.startswith("postgres") else "sqlite, postgresql, mysql, ..."
        raise StorageError(
            f"{shown}: no such kind of database, got {kind!r}; write {written}"
        ) from error
    except Exception as error:
        said = _without_secrets(said_by(error), url)
        raise StorageError(f"{shown}: cannot be opened: {said}") from None


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Open a storage whose URL is taken as it is written.

    SQLAlchemy would read options and codes in a path, and Optuna fills what stands in braces.
    """
    from search.storage.bulk import BulkStorage

    file = sqlite_file(url)
    if file is None:
        return BulkStorage(re.sub("[{}]", lambda brace: brace[0] * 2, url))
    connect = functools.partial(sqlite3.connect, file, timeout=PATIENCE, check_same_thread=False)
    return BulkStorage(f"{SQLITE}any.db", {"creator": connect})


def _without_secrets(said: object, url: str) -> str:
    text = " ".join(str(said).split())
    for secret in secrets(url):
        text = text.replace(secret, "***")
    return text
