"""Templates of others are filled as Jinja and transformers fill them, and never without end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from merge_core import confined, templates
from merge_core.errors import TemplateError

TURNS = [{"role": "user", "content": "Hi"}]
ENDLESS = {
    "loops in loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "more than 1 s of processor time",
    ),
    "a long range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "a text that is repeated": ("{{ messages and 'x' * 10**10 }}", "more than 256 MiB of memory"),
    "a text that doubles": (
        "{% set n = namespace(x='x') %}{% for i in range(50) %}{% set n.x = n.x * 2 %}{% endfor %}",
        "more than 256 MiB of memory",
    ),
    "a wide format": ("{{ '%1000000000d' % 1 }}", "more than 256 MiB of memory"),
    "a wide filter": ("{{ 'x'|center(10**10) }}", "more than 256 MiB of memory"),
    "a macro of itself": (
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "calls itself, or nests, without end",
    ),
    "a long text": ("{{ 'x' * 2**25 }}", "more than 16777216 characters"),
    "parentheses": ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "nests, without end"),
    "a large template": ("x" * 2**21, "more than 1048576 characters"),
}


@pytest.mark.parametrize("case", ENDLESS)
@pytest.mark.slow
def test_template_without_end_is_one_clear_error_and_the_next_one_is_filled(case: str) -> None:
    template, rule = ENDLESS[case]
    for fill in (templates.fill, lambda text, _: templates.fill_chat(text, TURNS)):
        start = time.monotonic()
        with pytest.raises(TemplateError, match=rule):
            fill(template, {"messages": 1})
        assert time.monotonic() - start < 60
    assert templates.fill("{{ a }}\n", {"a": "b"}) == "b\n"


def test_template_is_checked_without_being_filled() -> None:
    for kind in ("text", "chat"):
        templates.check("{% for i in range(9999) %}{{ raise_exception('no') }}{% endfor %}", kind)
        with pytest.raises(TemplateError, match=r"^line 2: .*foo") as caught:
            templates.check("{# c #}\n{% foo %}", kind)
        assert caught.value.line == 2


def test_chat_template_is_filled_as_by_transformers() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    text = (
        "{%- for m in messages %}\n    {%- if loop.index > 2 %}{% break %}{% endif %}\n"
        "<{{ m.role }}>{% generation %}{{ m | tojson }}{% endgeneration %}\n{% endfor %}"
        "{{ bos_token }}{{ missing }}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    settings = {"add_generation_prompt": True, "bos_token": "<s>"}
    turns = [*TURNS, {"role": "assistant", "content": "é"}, *TURNS]
    (theirs,), _ = render_jinja_template(conversations=[turns], chat_template=text, **settings)
    assert templates.fill_chat(text, turns, **settings) == theirs
    with pytest.raises(TemplateError, match=r"^only systems$") as caught:
        templates.fill_chat("{{ raise_exception('only systems') }}", turns)
    assert caught.value.refused


def test_process_sees_no_keys_and_goes_on_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = confined._Process()
    monkeypatch.setenv("API_KEY", "secret")
    try:
        started = process._started()
        assert b"secret" not in Path(f"/proc/{started.pid}/environ").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(process, "_exchange", lambda sent: exec("raise KeyboardInterrupt"))
            with pytest.raises(KeyboardInterrupt):
                process.ask("text", "a", {})
        assert started.poll() is not None
        assert process.ask("text", "b", {}) == {"result": "b"}
        assert process._owner == os.getpid()
    finally:
        process.stop()


def test_process_that_somebody_kills_is_started_again_and_asked_once_more() -> None:
    process = confined._Process()
    try:
        process._started().kill()
        assert process.ask("text", "b", {}) == {"result": "b"}
        process._exchange = lambda _: (process._started().kill(), b"")[1]  # type: ignore[method-assign]
        answer = process.ask("text", "b", {})
        assert answer == {"error": "the process for it ended (status -9)"}
    finally:
        process.stop()


def test_templates_are_filled_where_the_system_bounds_all_memory() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34));"
        "from merge_core import templates; print(templates.fill('{{ a }}', {'a': 'b'}));"
        "print(templates.fill_chat('{{ messages[0].role }}', [{'role': 'c', 'content': ''}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("b\nc\n", 0), run.stderr


def test_the_folder_that_one_is_in_may_be_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    process = confined._Process()
    try:
        turns = {"conversations": [[{"role": "user", "content": "x"}]]}
        answer = process.ask("chat", "{{ messages[0].content }}", turns)
    finally:
        process.stop()
    assert answer == {"result": "x"}
