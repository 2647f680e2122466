"""The text of ``storage``: ``${NAME}`` filled in, what keeps nothing refused, passwords hidden."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

SQLITE = "sqlite:///"
_ENV = re.compile(r"\$\{(\w+)\}")
_URL = re.compile(r"[a-z][\w+.-]*://.+", re.IGNORECASE | re.DOTALL)
_IN_MEMORY = re.compile(r"sqlite://(/?(\?.*)?|/(file:|:memory:).*)", re.DOTALL)
_OPTIONS = re.compile(r"sqlite:///.*\?\w+=[^/]*", re.DOTALL)
_PASSWORD = re.compile(r"(://[^:/@]*:)(.*)(@)", re.DOTALL)
_OPTION = re.compile(r"([?&][^=&]*=)([^&]*)()")


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
    if _OPTIONS.fullmatch(url):
        raise ValueError(f"expected the path of a file, without options after it, got {url}")
    if not _URL.fullmatch(url):
        got = "another text" if hidden or "@" in url else repr(url)
        raise ValueError(f"expected a storage URL such as sqlite:///results/study.db, got {got}")
    return url


def masked(text: str) -> str:
    """Return a storage's text, filled in or not, without what nobody may read.

    That is the password, and every option, which may be one; ``${NAME}`` stays.
    """
    if text.startswith(SQLITE):
        return text
    return _OPTION.sub(_hidden, _PASSWORD.sub(_hidden, text))


def secrets(url: str) -> list[str]:
    """Return what ``masked`` hides of a URL, as it is written and as it is meant."""
    if url.startswith(SQLITE):
        return []
    found = [match[2] for rule in (_PASSWORD, _OPTION) for match in rule.finditer(url) if match[2]]
    return [*found, *map(unquote, found)]


def _hidden(found: re.Match[str]) -> str:
    named = _ENV.sub("", found[2]) == ""
    return found[0] if named else f"{found[1]}***{found[3]}"


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite database, or None for other storages."""
    return Path(os.path.abspath(url.removeprefix(SQLITE))) if url.startswith(SQLITE) else None


def in_folder(url: str, folder: Path) -> str:
    """Return a URL in which a relative SQLite path starts at a folder."""
    if not url.startswith(SQLITE):
        return url
    return f"{SQLITE}{folder / url.removeprefix(SQLITE)}"
