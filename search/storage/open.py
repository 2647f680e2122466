"""Where a study's database is opened."""

from __future__ import annotations

import functools
import re
import sqlite3
from typing import TYPE_CHECKING

from merge_core.atomic_write import make_folder
from merge_core.errors import MergeError, StorageError, UnknownNameError
from search.spec.storage_url import SQLITE, checked, masked, secrets, sqlite_file
from search.storage.stored import PATIENCE, said_by, told
from search.storage.study_record import Record

if TYPE_CHECKING:
    import optuna

PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}


def open_record(
    url: str,
    name: str | None = None,
    *,
    create: bool = False,
    objectives: int = 1,
    unnamed: bool = False,
) -> Record:
    """Open a study.

    Args:
        url: Optuna storage URL.
        name: Of the study; None takes the only one that mergetune wrote there.
        create: Make storage and study if they do not exist.
        objectives: How many a study has that is made.
        unnamed: ``name`` is only what the folder of the database is called now: where it holds
            one study, named after its folder too, it is that one.

    Raises:
        MergeError: The storage cannot be opened.
        UnknownNameError: There is no such storage or study, or several to choose from.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # warnings would stand beside our one line
    url = _checked(url)
    shown = masked(url)
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


def _checked(url: str) -> str:
    try:
        return checked(url)
    except ValueError as error:
        raise MergeError(f"storage: {error}") from error


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
    from optuna.storages import RDBStorage

    file = sqlite_file(url)
    if file is None:
        return RDBStorage(re.sub("[{}]", lambda brace: brace[0] * 2, url))
    connect = functools.partial(sqlite3.connect, file, timeout=PATIENCE, check_same_thread=False)
    return RDBStorage(f"{SQLITE}any.db", {"creator": connect})


def _without_secrets(said: object, url: str) -> str:
    text = " ".join(str(said).split())
    for secret in secrets(url):
        text = text.replace(secret, "***")
    return text
