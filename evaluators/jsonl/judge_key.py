"""A judge's key: which one, where it may go, and that nobody reads it.

A study file may come from a stranger, and names both the key and the host. So the user says on the
command line which key goes to which host (``--send-key NAME=host``); to this machine each may go.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from merge_core.errors import EvaluationError, ParameterError

_KEY_NAME = re.compile(r"[A-Z0-9_]*API_KEY")
# narrow, so that all who read an address read the same host
_ADDRESS = re.compile(
    r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?"
)
_PAIR = re.compile(r"(\w+)=([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])")
_sent: set[tuple[str, str]] = set()  # of this process: a variable and a host


def send_keys(pairs: Iterable[str]) -> None:
    """Let keys go to hosts in this process, from now on.

    Args:
        pairs: Each a variable and a host, such as ``OPENAI_API_KEY=api.openai.com``.

    Raises:
        ParameterError: One is something else.
    """
    for pair in pairs:
        found = _PAIR.fullmatch(pair)
        if not found:
            raise ParameterError(
                f"--send-key: expected NAME=host, such as OPENAI_API_KEY=api.openai.com, "
                f"got {'another text' if '=' in pair else repr(pair)}"
            )
        _sent.add((found[1], found[2].strip("[]").lower()))


def sent_keys() -> tuple[str, ...]:
    """Return the pairs of ``send_keys`` so far, each ``NAME=host``."""
    hosts = ((name, f"[{host}]" if ":" in host else host) for name, host in _sent)
    return tuple(sorted(f"{name}={host}" for name, host in hosts))


def is_key(variable: str) -> bool:
    """Return whether a variable may hold a judge's key, by its name."""
    return _KEY_NAME.fullmatch(variable) is not None


def may_go(variable: str, host: str) -> bool:
    """Return whether the user has said that a variable's value may go to a host."""
    return (variable, host.lower()) in _sent


@contextmanager
def keys_sent(pairs: Iterable[str]) -> Iterator[None]:
    """Let keys go to hosts while this lasts; see :func:`send_keys`."""
    before = set(_sent)
    try:
        send_keys(pairs)
        yield
    finally:
        _sent.clear()
        _sent.update(before)


def is_local(base_url: str) -> bool:
    """Return whether an address is on this machine."""
    return is_this_machine(urlsplit(base_url).hostname or "")


def is_this_machine(host: str) -> bool:
    """Return whether a host's name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(base_url: str) -> None:
    """Refuse what is no plain address of an endpoint.

    Raises:
        ParameterError: It is not.
    """
    if not _ADDRESS.fullmatch(base_url):
        raise ParameterError(
            f"base_url must start with http:// or https://, got {base_url.split('@')[-1]!r}; after "
            "that come a host, a port and a path at most, no user and no options"
        )


def key_for(variable: str | None, base_url: str) -> str:
    """Return the key that an environment variable holds, without blanks around it.

    Args:
        variable: Its name; without one there is no key.
        base_url: Where the key is to go.

    Raises:
        ParameterError: The variable's name does not end in ``API_KEY``: no other secret is sent.
        EvaluationError: The variable is not set or holds no key, or the user has not said that it
            may go there.
    """
    if variable is None:
        return ""
    if not is_key(variable):
        raise ParameterError(f"api_key_env must be a name that ends in API_KEY, got {variable!r}")
    host = urlsplit(base_url).hostname or ""
    if not is_local(base_url):
        _check_host(variable, host, base_url)
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EvaluationError(f"the environment variable {variable} (api_key_env) is not set")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise EvaluationError(
            f"the environment variable {variable} (api_key_env) holds no key: expected printable "
            "ASCII characters without blanks; set it anew"
        )
    return key


def _check_host(variable: str, host: str, base_url: str) -> None:
    if not may_go(variable, host):
        raise EvaluationError(
            f"the key in {variable} goes only to hosts that you name, and the study sends it to "
            f"{host}; add --send-key {variable}={host} if you trust that host with it"
        )
    if not base_url.startswith("https://"):
        raise EvaluationError(
            f"the key in {variable} is not sent to {host} for all to read: base_url must start "
            f"with https://, got {base_url}"
        )


def redacted(text: str, key: str) -> str:
    """Return a text without a key, however it is written there; servers echo keys."""
    if not key:
        return text
    written = json.dumps(key)[1:-1]
    for form in (key, written, written.replace("/", "\\/"), quote(key, safe=""), quote(key)):
        text = text.replace(form, "***")
    return text
