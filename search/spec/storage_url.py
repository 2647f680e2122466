"""The text of ``storage``: ``${NAME}`` filled in, what keeps nothing refused, passwords hidden."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from merge_core.errors import hint

SQLITE, JOURNAL, GRPC = "sqlite:///", "journal:///", "grpc://"
PORT = 13000  # of Optuna's gRPC proxy, where none is said
_ENV = re.compile(r"\$\{(\w+)\}")
_URL = re.compile(r"[a-z][\w+.-]*://.+", re.IGNORECASE | re.DOTALL)
_IN_MEMORY = re.compile(r"sqlite://(/?(\?.*)?|/(file:|:memory:).*)", re.DOTALL)
_OPTIONS = re.compile(r"(\w+:///.*)\?(\w+=[^/]*)", re.DOTALL)
_GRPC = re.compile(r"grpc://(\[[\da-f:.]+\]|[^/@?#:\s\[\]]+)(?::(\d{1,5}))?/?", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^:/@]*:)(.*)(@)", re.DOTALL)
_OPTION = re.compile(r"([?&][^=&]*=)([^&]*)()")
LEVELS = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")
SQLITE_OPTIONS: dict[str, Callable[[str], Any]] = {  # of sqlite3.connect
    "timeout": float,  # seconds that SQLite itself waits for a lock
    "cached_statements": int,
    "detect_types": int,
    "isolation_level": {level: level for level in LEVELS}.__getitem__,
}


def filled(text: str) -> str:
    """Return a storage's text with environment variables for ``${NAME}``, as an Optuna URL.

    A value within user and password may have any characters.

    Raises:
        ValueError: One is not set, or what comes out is no URL or keeps nothing; what ``masked``
            hides is not in it.
    """
    end = text.rfind("@")

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(f"environment variable {found[1]} is not set")
        said = os.environ[found[1]]
        return quote(said, safe="") if found.end() <= end else said

    url = _ENV.sub(value, text)
    return checked(url, hidden=url != text)


def variables(text: str) -> tuple[str, ...]:
    """Return the environment variables that a storage's text names."""
    return tuple(dict.fromkeys(_ENV.findall(text)))


def checked(url: str, *, hidden: bool = False) -> str:
    """Return a URL in its plain form; ``${NAME}`` in it is no variable any more.

    ``sqlite:///path[?timeout=30]``, ``journal:///path``, ``grpc://host[:port]``, or what SQLAlchemy
    takes.

    Raises:
        ValueError: It is none, or keeps nothing; what ``masked`` hides is not in it, and nothing
            at all of what is no URL and may be ``hidden``.
    """
    url = re.sub(r"^sqlite\+pysqlite:", "sqlite:", url)
    if _IN_MEMORY.fullmatch(url):
        raise ValueError(
            f"expected a file that outlives the run, as in sqlite:///results/study.db, got {url}, "
            "which is kept in memory or is no plain path"
        )
    if not _URL.fullmatch(url):
        got = "another text" if hidden or "@" in url else repr(url)
        raise ValueError(f"expected a storage URL such as sqlite:///results/study.db, got {got}")
    kind, _, rest = url.partition("://")
    if kind in ("sqlite", "journal") and not rest.startswith("/"):
        raise ValueError(f"expected three slashes before a path, {kind}:///{rest}, got {url}")
    if kind == "journal" and (_OPTIONS.fullmatch(url) or url == JOURNAL):
        raise ValueError(f"expected the path of a file, without options after it, got {url}")
    if kind == "grpc":
        grpc_address(url)
    sqlite_options(url)
    return url


def sqlite_options(url: str) -> dict[str, Any]:
    """Return what a URL says to ``sqlite3.connect`` after the path: ``?timeout=30``.

    Raises:
        ValueError: SQLite has no such option, or it cannot have that value.
    """
    found = _OPTIONS.fullmatch(url) if url.startswith(SQLITE) else None
    options: dict[str, Any] = {}
    for name, text in parse_qsl(found[2] if found else "", keep_blank_values=True):
        if name not in SQLITE_OPTIONS:
            known = f"expected {', '.join(SQLITE_OPTIONS)}{hint(name, SQLITE_OPTIONS)}"
            raise ValueError(f"SQLite has no option {name!r} here, {known}, got {url}")
        try:
            options[name] = SQLITE_OPTIONS[name](text)
        except (KeyError, ValueError) as error:
            wanted = "one of " + ", ".join(LEVELS) if "level" in name else "a number"
            raise ValueError(f"option {name}: expected {wanted}, got {text!r}") from error
    return options


def grpc_address(url: str) -> tuple[str, int]:
    """Return host and port of Optuna's gRPC proxy.

    Raises:
        ValueError: The URL says something else.
    """
    found = _GRPC.fullmatch(url)
    port = int(found[2] or PORT) if found else 0
    if not found or not 0 < port < 2**16:
        raise ValueError(f"expected grpc://host:port of Optuna's proxy, got {masked(url)}")
    return found[1], port


def masked(text: str) -> str:
    """Return a storage's text, filled in or not, without what nobody may read.

    That is the password, and every option, which may be one; ``${NAME}`` stays.
    """
    if text.startswith((SQLITE, JOURNAL)):
        return text
    return _OPTION.sub(_hidden, _PASSWORD.sub(_hidden, text))


def secrets(url: str) -> list[str]:
    """Return what ``masked`` hides of a URL, as it is written and as it is meant."""
    if url.startswith((SQLITE, JOURNAL)):
        return []
    found = [match[2] for rule in (_PASSWORD, _OPTION) for match in rule.finditer(url) if match[2]]
    return [*found, *map(unquote, found)]


def _hidden(found: re.Match[str]) -> str:
    named = _ENV.sub("", found[2]) == ""
    return found[0] if named else f"{found[1]}***{found[3]}"


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite database, or None for other storages."""
    return storage_file(url) if url.startswith(SQLITE) else None


def storage_file(url: str) -> Path | None:
    """Return the file that a storage is, SQLite's or a journal, or None for one on a server."""
    kind = next((kind for kind in (SQLITE, JOURNAL) if url.startswith(kind)), None)
    if kind is None:
        return None
    options = _OPTIONS.fullmatch(url) if kind == SQLITE else None
    return Path(os.path.abspath((options[1] if options else url).removeprefix(kind)))


def in_folder(url: str, folder: Path) -> str:
    """Return a URL in which a relative path of a file starts at a folder."""
    for kind in (SQLITE, JOURNAL):
        if url.startswith(kind):
            return f"{kind}{folder / url.removeprefix(kind)}"
    return url
