"""What a storage's driver says: in one line, what to do about it, and whether it may pass."""

from __future__ import annotations

from typing import Any

ADVICE = {  # words of a driver -> what to do
    "is locked": "another program has held it all the time; end that and run again",
    "is full": "make room and run again to go on",
    "no space left": "make room and run again to go on",
    "readonly": "make file and folder writable",
    "unable to open": "it must be a file in a folder, both readable and writable",
    "disk i/o error": "look after the disk, maybe it is full, and run again to go on",
    "malformed": "the file is damaged; put a copy of it back, or delete it to start anew",
    "not a database": "name another file",
    "connection refused": "does the server run there, at that port?",
    "failed to connect to all addresses": "does the proxy run there, at that port?",
    "name or service not known": "is that the host's name?",
    "name resolution": "is that the host's name?",
    "can't connect": "does the server run there, at that port?",
    "password authentication failed": "are user and password right?",
    "no password supplied": "write it into the URL: user:${DB_PASSWORD}@host",
    "access denied": "are user and password right, and may it use this database?",
    "unknown database": "make it first: CREATE DATABASE",
    "permission denied for schema": "let the user make tables there",
    "data too long": "a value is longer than a column of this database takes",
    "larger than max": "a value is larger than the proxy takes in one call",
}
NO_DATABASE = ('database "', "does not exist")  # PostgreSQL's words, with the name between them
LOCKED = ("database is locked", "database table is locked")  # SQLite's
# PostgreSQL's codes, or their class: connection, resources but the disk, shut down, rolled back
STATES = ("08", "53300", "53400", "55P03", "57P01", "57P02", "57P03", "57P05", "40")
# MySQL's: too many connections, shut down, no answer, lock and deadlock, connection lost
NUMBERS = (1040, 1053, 1205, 1213, 2002, 2003, 2006, 2013, 2055)
WORDS = (  # of servers that are away, where a driver gives no code
    *(
        "connection refused",
        "connection reset",
        "timeout expired",
        "timed out",
        "could not connect",
    ),
    *("server closed the connection", "starting up", "shutting down", "not yet accepting"),
    *("too many clients", "terminating connection", "broken pipe", "in recovery mode"),
    *("network is unreachable", "no route to host", "connection is closed", "connection is lost"),
    *("ssl connection has been closed", "temporary failure in name resolution"),
)
GRPC = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")


def said_by(error: BaseException) -> str:
    """Return what a driver says, and what to do about it."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    cause = _of_database(error)
    said: Any = cause.orig if isinstance(cause, DBAPIError) else cause
    if _is_grpc(cause):
        code, text = cause.code().name, cause.details()  # type: ignore[attr-defined]
        text = f"{code}: {text}"
    else:
        numbered = isinstance(said, Exception) and isinstance((said.args or ("",))[0], int)
        text = str(said.args[1]) if numbered and len(said.args) > 1 else str(said)
    text = " ".join(text.split())
    if not isinstance(cause, (SQLAlchemyError, OSError)) and not _is_grpc(cause):
        return f"{type(cause).__name__}: {text}"
    advice = next((told for words, told in ADVICE.items() if words in text.lower()), "")
    if all(words in text for words in NO_DATABASE):
        advice = "make it first: createdb"
    return f"{text}; {advice}" if advice else text


def is_passing(error: BaseException) -> bool:
    """Return whether the same may succeed in a while: a lock, a server that is started again."""
    from sqlalchemy.exc import DBAPIError

    cause = _of_database(error)
    if _is_grpc(cause):
        code, text = cause.code().name, str(cause.details())  # type: ignore[attr-defined]
        return code in GRPC or (code == "UNKNOWN" and "raised during the commit" in text)
    if not isinstance(cause, DBAPIError):
        return isinstance(cause, ConnectionError)
    said: Any = cause.orig
    state = getattr(said, "sqlstate", None) or getattr(said, "pgcode", None)
    first = (getattr(said, "args", ()) or ("",))[0]
    text = str(said).lower()
    return (
        cause.connection_invalidated
        or text in LOCKED
        or (isinstance(state, str) and state.startswith(STATES))
        or first in NUMBERS
        or (not state and any(words in text for words in WORDS))
    )


def _of_database(error: BaseException) -> BaseException:
    """Return SQLAlchemy's error inside one of Optuna's."""
    from optuna.exceptions import StorageInternalError

    inside = isinstance(error, StorageInternalError) and error.__cause__ is not None
    return error.__cause__ if inside else error  # type: ignore[return-value]


def _is_grpc(error: BaseException) -> bool:
    """Return whether it is an ``RpcError`` with a status, without importing grpc for it."""
    return type(error).__module__.startswith("grpc") and hasattr(error, "details")
