"""A judge's key goes where the user says, and nobody reads it."""

from __future__ import annotations

import json
import time
import traceback

import pytest

import mergetune
from evaluators.jsonl import judge_client
from evaluators.jsonl.judge_client import JudgeClient
from evaluators.jsonl.judge_key import key_for, keys_sent, redacted, send_keys
from merge_core.errors import EvaluationError, ParameterError
from tests.evaluators.jsonl.test_judge import ENTRY, ROWS
from tests.evaluators.own_files import open_entry, scripted, write_lines

KEY = "sk-SECRET/key+123"
HERE = "http://127.0.0.1:8000/v1"
AWAY = "https://api.example.com/v1"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", KEY)


@pytest.fixture
def opened(tmp_path, tokenizer):
    def make(url, **entry):
        file = write_lines(tmp_path / "quiz.jsonl", ROWS)
        usual = {"file": file, **ENTRY, "base_url": url, "api_key_env": "MY_API_KEY", "retries": 0}
        return open_entry("judge", tmp_path, tokenizer, **{**usual, **entry})

    return make


@pytest.mark.parametrize("around", ["{}\r", "{}\r\n", " {}\t", "\ufeff{}"])
def test_key_is_stripped_or_refused_before_it_is_used(around, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", around.format(KEY))
    if around.startswith("\ufeff"):  # no blank, and no header can have it
        with pytest.raises(EvaluationError, match="holds no key"):
            key_for("MY_API_KEY", HERE)
    else:
        assert key_for("MY_API_KEY", HERE) == KEY


@pytest.mark.parametrize("spoilt", ["sk-SEC\nRET", "sk-SEC RET", "sk-SEC\x1bRET", "sk-SEC\x7fRET"])
def test_key_with_control_characters_or_blanks_is_refused_unseen(spoilt, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", spoilt)
    with pytest.raises(EvaluationError, match=r"MY_API_KEY .* holds no key: expected") as refused:
        key_for("MY_API_KEY", HERE)
    assert "SEC" not in str(refused.value)


def test_key_of_blanks_is_not_set(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", " \r\n")
    with pytest.raises(EvaluationError, match="is not set"):
        key_for("MY_API_KEY", HERE)


def test_key_is_not_in_the_repr_of_a_client():
    assert KEY not in repr(JudgeClient(HERE, "m", KEY, 1, 0, 1, 8))


ECHOES = {
    "error": lambda: 401,
    "plain": lambda: f"no, {KEY}",
    "not json": lambda: f"<b>{KEY}</b>".encode(),
    "at the cut": lambda: b"x" * 70 + KEY.encode(),
    "no choices": lambda: json.dumps({"error": f"Bearer {KEY}"}).encode(),
    "slashes": lambda: json.dumps({"error": KEY}).replace("/", "\\/").encode(),
    "no text": lambda: json.dumps({"choices": [{"message": {"content": [KEY]}}]}).encode(),
    "hidden": lambda: ('{"choices": [{"message": {"content": "' + escaped(KEY) + '"}}]}').encode(),
}


def escaped(text):
    return "".join(f"\\u{ord(c):04x}" for c in text)


@pytest.mark.parametrize("echo", ECHOES)
def test_key_that_a_server_echoes_is_in_no_reason_and_no_traceback(
    echo,
    endpoint,
    opened,
    monkeypatch,
):
    judge = endpoint(lambda question, calls: ECHOES[echo]())
    quiz, told = opened(judge.url), ""
    try:
        quiz.score(scripted(says=str), [0])
    except EvaluationError:
        told = traceback.format_exc()
    told += repr(quiz.failures)
    assert judge.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    assert "SECRET" not in told
    assert "the judge" in told


@pytest.mark.parametrize(
    "url", [HERE, "http://localhost/v1", "http://[::1]:80", "http://127.9.9.9"]
)
def test_key_goes_to_this_machine_unasked(url):
    assert key_for("MY_API_KEY", url) == KEY


@pytest.mark.parametrize(
    "url",
    [
        *(AWAY, "https://127.0.0.1.example.com", "https://localhost.x", "http://0.0.0.0"),
        *("https://example.com", "https://api.example.co"),
    ],
)
def test_key_goes_to_no_host_that_is_not_named(url, opened):
    named = ["OTHER_API_KEY=api.example.com", "MY_API_KEY=other.org"]
    with (
        keys_sent(named),
        pytest.raises(EvaluationError, match=r"add --send-key MY_API_KEY=\S+ if"),
    ):
        opened(url)


def test_key_goes_to_the_host_that_is_named_and_by_https_only(opened):
    with keys_sent(["MY_API_KEY=API.example.com"]):
        assert key_for("MY_API_KEY", AWAY) == KEY
        opened(AWAY)
        with pytest.raises(
            EvaluationError, match="base_url must start with https://, got http://a"
        ):
            opened(AWAY.replace("https", "http"))
    with pytest.raises(EvaluationError, match=r"--send-key MY_API_KEY=api\.example\.com"):
        opened(AWAY)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://localhost@evil.com/v1",
            "http://u:SECRET@localhost/v1",
            "http://localhost\\@evil.com",
        ),
        *(
            "http://localhost#@evil.com",
            "http://localhost?x=1",
            "http://evil.com\t",
            "ftp://localhost",
        ),
        *("http://", "http:///v1", "http://localhost:x/v1", "http://\u217cocalhost"),
    ],
)
def test_address_that_two_readers_could_read_otherwise_is_refused(url, opened):
    with pytest.raises(ParameterError, match="base_url must start with") as refused:
        opened(url)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("pair", ["x", "A B=h.com", "A_API_KEY=", "A_API_KEY=h.com/v1", "=h", KEY])
def test_pair_that_is_no_name_and_host_is_refused(pair):
    with pytest.raises(ParameterError, match="--send-key: expected NAME=host"):
        send_keys([pair])


def test_key_does_not_pass_a_proxy_on_its_way_to_this_machine(endpoint, opened, monkeypatch):
    proxy, judge = endpoint(lambda *_: '{"score": 1}'), endpoint(lambda *_: '{"score": 5}')
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert opened(judge.url).score(scripted(says=str), [0]).tolist() == [5]
    assert proxy.requests == []


def test_reply_without_an_end_is_not_read_to_it(endpoint, opened, monkeypatch):
    monkeypatch.setattr(judge_client, "MOST_BYTES", 2**17)
    judge = endpoint(lambda *_: b"x" * 2**18)
    quiz = opened(judge.url)
    quiz.score(scripted(says=str), [0])
    assert "a reply of more than 131072 bytes" in quiz.failures[quiz.items[0].id]


@pytest.mark.parametrize("part", ["head", "body"])
def test_reply_that_trickles_has_failed_after_the_timeout(part, endpoint, opened):
    judge = endpoint(lambda *_: "")

    def trickle(handler):
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"\r\n" * (part == "body"))
        end = time.monotonic() + 3
        while time.monotonic() < end:
            handler.connection.sendall(b"X")
            time.sleep(0.02)

    judge.answer = trickle
    start = time.monotonic()
    with pytest.raises(EvaluationError, match=r"timed out after 0\.2 s"):
        opened(judge.url, timeout=0.2).score(scripted(says=str), [0])
    assert time.monotonic() - start < 2


def test_reply_nested_too_deeply_is_no_completion(endpoint, opened):
    judge = endpoint(lambda *_: b"[" * 100_000)
    with pytest.raises(EvaluationError, match="no chat completion, but "):
        opened(judge.url).score(scripted(says=str), [0])


def test_text_without_a_key_is_as_it_was():
    assert redacted("a ** b", "") == "a ** b"


def test_consent_from_python_ends_with_its_block(opened, tasks):
    tasks.write("coded", ROWS, process_docs="!function code.same", doc_to_target="right")
    (tasks.folder / "code.py").write_text("def same(docs):\n    return docs\n")
    with mergetune.consent(trust_tasks=True, send_keys=["MY_API_KEY=api.example.com"]):
        opened(AWAY)
        tasks.open("coded")
    with pytest.raises(EvaluationError, match="--send-key"):
        opened(AWAY)
    with pytest.raises(EvaluationError, match="--trust-tasks"):
        tasks.open("coded")
