"""The program behind ``confined``; it imports nothing of ours.

In come pickled requests, one after the other; out goes a line of JSON for each. Their work may have
no end, in Python or inside one operation: the system ends this process when the processor time of
one request is over, and gives it no more memory. Kinds of requests, with their arguments:

text      template, variables; undefined names are errors, the last line end stays
chat      template, arguments of transformers' ``render_jinja_template``
patterns  regular expressions, names; gives for each name the first that fits it as in peft, or None
search    regular expression, flags, text; gives the first match and its groups, or None
findall   the same arguments; as ``re.findall``
sub       the same, what to put there and how often (0: always); as ``re.sub``

A template without variables (None) is only compiled.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder, where modules have names that others look for

import functools
import json
import os
import pickle
import re
import resource
import signal
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 2**28  # bytes beside what the process has at its start
LENGTH = 2**24  # characters of a filled template
LIMIT = resource.RLIMIT_AS
HARD = resource.getrlimit(LIMIT)[1]  # what whoever started this allows; nothing can raise it
STATUS = Path("/proc/self/statm")


def main() -> None:
    """Answer requests until there are no more; the argument is the time of one, in seconds."""
    seconds = float(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr
    _limit_memory()
    while True:
        try:
            kind, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answers.write(json.dumps(_answer(kind, arguments, seconds)) + "\n")
        answers.flush()


def _limit_memory() -> None:
    """Let this process have only so much more memory than it has, on Linux."""
    if not STATUS.is_file():
        return
    pages = int(STATUS.read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(LIMIT, (most if HARD == resource.RLIM_INFINITY else min(most, HARD), HARD))


def _answer(kind: str, arguments: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    work: Any = WORK[kind]
    if kind == "chat":
        _transformers()  # takes time, which is not the template's
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process
    try:
        return {"result": work(*arguments)}
    except TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}", "line": error.lineno}
    except SecurityError as error:
        return {"error": f"it may not run code: {error}"}
    except MemoryError:
        return {"error": f"it takes more than {MEMORY >> 20} MiB of memory"}
    except re.error as error:
        return {"error": f"no regular expression: {error}"}
    except RecursionError:
        return {"error": "it calls itself, or nests, without end"}
    except Exception as error:  # whatever the expressions in it do
        said = " ".join((str(error) or type(error).__name__).split())[:300]
        return {"error": said, "refused": isinstance(error, TemplateError)}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["regex_replace"] = _regex_replace  # lm-eval's
    return environment


def _regex_replace(text: str, pattern: str, new: str, count: int = 0) -> str:
    return re.sub(pattern, new, text, count=count)


@functools.lru_cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


def _fill_text(template: str, variables: dict[str, Any] | None) -> str:
    compiled = _compiled(template)
    return "" if variables is None else _checked(compiled.render(variables))


def _fill_chat(template: str, variables: dict[str, Any] | None) -> str:
    wanted = {"conversations": []} if variables is None else variables
    texts, _ = _transformers()(chat_template=template, **wanted)
    return _checked(texts[0]) if texts else ""


def _checked(text: str) -> str:
    if len(text) > LENGTH:
        raise ValueError(f"the filled template has more than {LENGTH} characters")
    text.encode()
    return text


@functools.cache
def _transformers() -> Any:
    resource.setrlimit(LIMIT, (HARD, HARD))
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit_memory()
    return render_jinja_template


def _fitting(patterns: list[str], names: list[str]) -> list[str | None]:
    """Find patterns as peft's ``get_pattern_key`` does: a whole name, or its end after a dot."""
    whole = [(pattern, re.compile(rf"(.*\.)?({pattern})$")) for pattern in patterns]
    return [next((p for p, found in whole if found.match(name)), None) for name in names]


def _search(pattern: str, flags: int, text: str) -> list[str | None] | None:
    found = re.compile(pattern, flags).search(text)
    return None if found is None else [found[0], *found.groups()]


def _findall(pattern: str, flags: int, text: str) -> list[Any]:
    return re.compile(pattern, flags).findall(text)


def _sub(pattern: str, flags: int, text: str, new: str, count: int) -> str:
    return re.compile(pattern, flags).sub(new, text, count)


WORK: dict[str, Any] = {
    "text": _fill_text,
    "chat": _fill_chat,
    "patterns": _fitting,
    "search": _search,
    "findall": _findall,
    "sub": _sub,
}

if __name__ == "__main__":
    main()
