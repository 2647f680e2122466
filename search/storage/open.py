"""Where a study's storage is opened, whichever of Optuna's kinds it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evaluators.jsonl.judge_key import is_this_machine, may_go
from merge_core.atomic_write import make_folder
from merge_core.errors import MergeError, StorageError, UnknownNameError
from search.spec.storage_url import (
    GRPC,
    JOURNAL,
    checked,
    grpc_address,
    masked,
    secrets,
    sqlite_options,
    storage_file,
)
from search.storage.aside import is_aside
from search.storage.away import said_by
from search.storage.servers import server_storage
from search.storage.stored import Guard, to_stderr
from search.storage.study_record import Record

if TYPE_CHECKING:
    import optuna

OPTIONS = ("sslmode", "connect_timeout", "charset", "application_name")  # that name no host


def open_record(
    url: str,
    name: str | None = None,
    *,
    create: bool = False,
    objectives: int = 1,
    unnamed: bool = False,
    variables: Sequence[str] = (),
    notice: Callable[[str], None] = to_stderr,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Open a study.

    Args:
        url: Optuna storage URL.
        name: Of the study; None takes the only one that is there.
        create: Make storage and study if they do not exist, and wait for a storage that is away.
        objectives: How many a study has that is made.
        unnamed: ``name`` is only what the folder of the database is called now: where it holds
            one study, named after its folder too, it is that one.
        variables: Environment variables that a study file has put into ``url``.
        notice: Is told when the storage is away, and what was mended in it.
        stop: Asked, while it is away, whether to wait no more.

    Raises:
        MergeError: The storage cannot be opened, or the user has not said that the variables'
            values may go to its host.
        UnknownNameError: There is no such storage or study, or several to choose from.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # warnings would stand beside our one line
    url = plain_url(checked, url)
    guard = Guard(masked(url), secrets(url), notice, stop)
    _check_sent(url, variables)
    _check_file(url, create)

    def opened() -> Record:
        storage = _opened(url, guard, create)  # once: it reads Optuna's migrations each time
        chosen = _chosen(storage, guard, name, create=create, unnamed=unnamed)
        if chosen is None:
            ways = [optuna.study.StudyDirection.MAXIMIZE] * objectives
            study = optuna.create_study(
                storage=storage, study_name=name, directions=ways, load_if_exists=True
            )
        else:
            study = optuna.load_study(study_name=chosen, storage=storage)
        return Record(study, guard.url, guard)

    return guard.done("opened", opened, patient=create)


def _chosen(
    storage: optuna.storages.BaseStorage,
    guard: Guard,
    name: str | None,
    *,
    create: bool,
    unnamed: bool,
) -> str | None:
    """Return the name of the study that is meant, or None where it is to be made."""
    import optuna

    if name is not None and _has(storage, name):
        return name
    names = optuna.get_all_study_names(storage)
    meant = [one for one in names if not is_aside(one, names)]
    if len(meant) == 1 and (name is None or unnamed):
        study = optuna.load_study(study_name=meant[0], storage=storage)
        about = None if name is None else Record(study, guard.url, guard).about
        if name is None or (about is not None and "name" not in about["study"]):
            return meant[0]
    if create and name is not None:
        return None
    held = f"it has {', '.join(sorted(names)) or 'none'}"
    if name is None and names:
        raise UnknownNameError(f"{guard.url} has several studies, {held}; say which: --name N")
    wanted = "no study" if name is None else f"no study {name!r}; {held}"
    raise UnknownNameError(f"{guard.url} has {wanted}")


def _has(storage: optuna.storages.BaseStorage, name: str) -> bool:
    """Return whether there is a study; to list them all would read all that they hold."""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


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

    if not variables or storage_file(url) is not None:
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
    file = storage_file(url)
    if file is None:
        return
    if create:
        make_folder(file.parent)
    elif not file.is_file():
        kind = url.partition(":///")[0]
        raise UnknownNameError(f"{kind}:///{file}: no such file; `mergetune run` the study first")


def _opened(url: str, guard: Guard, create: bool) -> optuna.storages.BaseStorage:
    """Open a storage; in a database that is only read, nothing is made."""
    try:
        return _storage(url, guard, create)
    except StorageError:
        raise
    except Exception as error:
        if create or "version_info" not in said_by(error):  # the first of Optuna's tables it reads
            raise
        raise UnknownNameError(
            f"{guard.url}: holds no studies; `mergetune run` the study first"
        ) from None


def _storage(url: str, guard: Guard, create: bool) -> optuna.storages.BaseStorage:
    """Open a storage; what imports a heavy library is imported where it is needed."""
    file = storage_file(url)
    if url.startswith(JOURNAL):
        from optuna.storages.journal import JournalStorage

        from search.storage.journal import JournalFile

        assert file is not None
        journal = JournalFile(file, guard.told)
        if create:
            journal.mend()
        return JournalStorage(journal)
    if url.startswith(GRPC):
        return _proxy(url, guard)
    if file is not None:
        from search.storage.sqlite import SqliteStorage

        return SqliteStorage(file, sqlite_options(url), create=create)
    return server_storage(url, create=create)


def _proxy(url: str, guard: Guard) -> optuna.storages.BaseStorage:
    try:
        from search.storage.proxy import Proxy
    except ImportError as error:
        raise StorageError(
            f"storage {guard.url}: the package of its driver is not here, no module "
            f"{error.name!r}; pip install 'mergetune[grpc]'"
        ) from error
    host, port = grpc_address(url)
    return Proxy(host, port)
