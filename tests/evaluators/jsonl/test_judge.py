from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time

import pytest
from urllib3.util import retry

from evaluators.jsonl import judge_client
from evaluators.jsonl.judge import EVALUATOR
from evaluators.jsonl.judge_client import JudgeClient
from evaluators.jsonl.judge_key import key_for
from evaluators.testing import EvaluatorContract
from merge_core.errors import CandidateError, EvaluationError, ParameterError
from tests.evaluators.jsonl.conftest import Endpoint
from tests.evaluators.own_files import open_entry, score_all, scripted, write_lines

ROWS = [{"q": f"say {c}:", "right": c} for c in "abcdef"]
ENTRY = {
    "prompt": "{{ q }}",
    "rubric": "{{ q }} {{ answer }} Right is {{ right }}.",
    "model": "wise",
    "max_tokens": 8,
}


@pytest.fixture
def opened(tmp_path, tokenizer):
    def make(url, rows=ROWS, **entry):
        file = write_lines(tmp_path / "quiz.jsonl", rows)
        usual = {"file": file, **ENTRY, "base_url": url}
        return open_entry("judge", tmp_path, tokenizer, **{**usual, **entry})

    return make


class TestJudge(EvaluatorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls):
        def by_hash(question, calls):
            return json.dumps({"score": hashlib.sha256(question.encode()).digest()[0] / 25.6})

        judge = Endpoint(by_hash)
        yield judge.url
        judge.close()

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, tmp_path_factory, tokenizer, url):
        folder = tmp_path_factory.mktemp("judge")
        file = write_lines(folder / "quiz.jsonl", ROWS)
        entry = {"file": file, **ENTRY, "base_url": url}
        return lambda **more: open_entry("judge", folder, tokenizer, **{**entry, **more})

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, build):
        return lambda: build(rubric="{{ answer }}")

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


def test_the_judge_gets_the_rubric_filled_and_nothing_else(endpoint, opened, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "secret")
    judge = endpoint(lambda question, calls: '{"score": 7}')
    quiz = opened(judge.url + "/", api_key_env="MY_API_KEY", reply_tokens=64)
    assert quiz.score(scripted(says=lambda prompt: "aha"), [1]).tolist() == [7]
    ((path, headers, body),) = judge.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "wise",
        "messages": [{"role": "user", "content": "say b: aha Right is b."}],
        "temperature": 0,
        "max_tokens": 64,
    }
    assert "secret" not in quiz.fingerprint()


def test_without_a_variable_no_key_is_sent(endpoint, opened):
    judge = endpoint(lambda question, calls: '{"score": 7}')
    opened(judge.url).score(scripted(says=str), [0])
    assert "Authorization" not in judge.requests[0][1]


@pytest.mark.parametrize(
    ("reply", "settings", "score"),
    [
        ('{"score": 7.5}', {}, 7.5),
        ('Well. ```json\n{"why": "{odd", "score": "3"}\n```', {}, 3),
        ('{"score": 1} no, rather {"score": 2}', {}, 2),
        ('{"grade": 4}', {"score_key": "grade"}, 4),
        ("Score: 8/10", {"score_regex": r"Score: (\d+)"}, 8),
        ("8", {"score_regex": r"\d+"}, 8),
        ('{"score": -1}', {"low": -1, "high": 1}, -1),
        ('{"score": 0}', {}, 0),
    ],
)
def test_golden_replies(reply, settings, score, endpoint, opened):
    judge = endpoint(lambda question, calls: reply)
    quiz = opened(judge.url, **settings)
    assert quiz.score(scripted(says=str), [0]).tolist() == [score]
    assert quiz.failures == {}


@pytest.mark.parametrize(
    ("reply", "settings"),
    [
        ("no idea", {}),
        ("", {}),
        ("7", {}),
        ('{"score": 11}', {}),
        ('{"score": null}', {}),
        ('{"score": true}', {}),
        ('{"score": "high"}', {}),
        ('{"score": NaN}', {}),
        ('{"score": [1]}', {}),
        ('{"points": 5}', {}),
        ("{" * 50, {}),
        ("good", {"score_regex": r"(\d+)"}),
        ("12", {"score_regex": r"\d+"}),
    ],
)
def test_nonsense_is_a_failed_item_with_its_reason(reply, settings, endpoint, opened):
    judge = endpoint(lambda question, calls: reply)
    quiz = opened(judge.url, **settings)
    assert math.isnan(quiz.score(scripted(says=str), [0])[0])
    reason = quiz.failures[quiz.items[0].id]
    assert reason == f"the judge replied without a number from 0 to 10: {reply!r}"


LONG = {  # replies of megabytes, and the score that is in them
    "braces": ("{" * 10**6, math.nan),
    "words first": ("{" * 10**6 + " so " + '{"score": 4}', 4),
    "objects in objects": ('{"a":' * 10**5, math.nan),
    "lists in an object": ('{"a":' + "[" * 10**6, math.nan),
    "objects that never end": (('{"k": [' + "1, " * 20) * 900, math.nan),
    "digits": ('{"score": ' + "9" * 400 + "}", math.nan),
    "more digits": ('{"score": ' + "9" * 10**6 + "}", math.nan),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_reply_is_read_in_no_time(kind, endpoint, opened):
    reply, score = LONG[kind]
    judge = endpoint(lambda question, calls: reply)
    quiz = opened(judge.url)
    start = time.process_time()
    (found,) = quiz.score(scripted(says=str), [0])
    assert found == score or (math.isnan(found) and math.isnan(score))
    assert time.process_time() - start < 5


def test_a_judge_that_recovers_is_asked_again(endpoint, opened):
    judge = endpoint(lambda question, calls: (500, 429, '{"score": 5}')[calls - 1])
    assert opened(judge.url).score(scripted(says=str), [0]).tolist() == [5]
    assert len(judge.requests) == 3


@pytest.mark.parametrize(
    ("reply", "tries", "reason"),
    [
        (500, 3, "HTTP 500: told off"),
        (503, 3, "HTTP 503: told off"),
        (401, 1, "HTTP 401: told off"),
        (404, 1, "HTTP 404: told off"),
        (307, 1, "HTTP 307: told off"),
        (b"<html>", 3, "no chat completion, but '<html>'"),
        (b'{"choices": []}', 3, "no chat completion, but "),
    ],
)
def test_a_judge_that_is_down_is_an_error_and_no_score(reply, tries, reason, endpoint, opened):
    judge = endpoint(lambda question, calls: reply)
    quiz = opened(judge.url, retries=2)
    told = rf"^the judge failed \({tries} tries\): .*{re.escape(reason)}"
    with pytest.raises(EvaluationError, match=told) as raised:
        quiz.score(scripted(says=str), [0])
    assert not isinstance(raised.value, CandidateError)
    assert len(judge.requests) == tries


@pytest.mark.parametrize(
    ("reply", "tries", "reason"),
    [
        (400, 1, "HTTP 400: told off"),
        (413, 1, "HTTP 413: told off"),
        (b'{"choices": [{"message": {"content": null}}]}', 3, "without text, but None"),
    ],
)
def test_a_judge_that_refuses_a_question_has_failed_that_item(
    reply, tries, reason, endpoint, opened
):
    judge = endpoint(lambda question, calls: reply)
    quiz = opened(judge.url, retries=2)
    assert math.isnan(quiz.score(scripted(says=str), [0])[0])
    told = quiz.failures[quiz.items[0].id]
    assert told.startswith(f"the judge failed ({tries} tries): ")
    assert reason in told
    assert len(judge.requests) == tries


def test_a_redirect_does_not_carry_the_key_away(endpoint, opened, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "secret")
    other = endpoint(lambda question, calls: '{"score": 5}')
    judge = endpoint(lambda question, calls: 302)
    judge.url, there = other.url, judge.url  # where its Location leads
    with pytest.raises(EvaluationError, match="HTTP 302"):
        opened(there, api_key_env="MY_API_KEY").score(scripted(says=str), [0])
    assert other.requests == []


def test_a_judge_that_is_slow_has_failed(endpoint, opened):
    stop = threading.Event()
    judge = endpoint(lambda question, calls: str(stop.wait(10)))
    quiz = opened(judge.url, retries=0, timeout=0.05)
    start = time.monotonic()
    with pytest.raises(EvaluationError, match="timed out"):
        quiz.score(scripted(says=str), [0])
    stop.set()
    assert time.monotonic() - start < 5


def test_a_judge_that_is_not_there_has_failed(endpoint, opened):
    judge = endpoint(lambda question, calls: "")
    judge.close()
    quiz = opened(judge.url, retries=1)
    with pytest.raises(EvaluationError, match=r"the judge failed \(2 tries\): ConnectionError: "):
        quiz.score(scripted(says=str), [0])


def test_only_the_items_that_fail_are_nan(endpoint, opened):
    judge = endpoint(lambda question, calls: 400 if "say b" in question else '{"score": 1}')
    quiz = opened(judge.url)
    assert [math.isnan(x) for x in score_all(quiz, scripted(says=str))] == [0, 1, 0, 0, 0, 0]
    assert list(quiz.failures) == [quiz.items[1].id]


def test_a_prompt_that_is_too_long_is_not_judged(endpoint, opened):
    judge = endpoint(lambda question, calls: '{"score": 1}')
    quiz = opened(judge.url, rows=[{"q": "abc", "right": "x"}, {"q": "a" * 20, "right": "x"}])
    scores = score_all(quiz, scripted(says=str, window=16))
    assert [math.isnan(x) for x in scores] == [False, True]
    assert len(judge.requests) == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_questions_at_a_time_than_asked_for(concurrency, endpoint, opened):
    def slow(question, calls):
        time.sleep(0.02)
        return '{"score": 1}'

    judge = endpoint(slow)
    score_all(opened(judge.url, concurrency=concurrency), scripted(says=str))
    assert 1 <= judge.most_at_once <= concurrency


def test_scores_go_to_their_items_whatever_comes_first(endpoint, opened):
    def last_first(question, calls):
        place = "abcdef".index(question.split()[1][0])
        time.sleep(0.01 * (6 - place))
        return json.dumps({"score": place})

    judge = endpoint(last_first)
    quiz = opened(judge.url, concurrency=6)
    assert quiz.score(scripted(says=str), [3, 1, 3, 0]).tolist() == [3, 1, 3, 0]


@pytest.fixture
def waits(monkeypatch):
    """The seconds that a client would wait."""
    found = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    monkeypatch.setattr(retry.random, "random", lambda: 0.25)
    return found


def test_tries_are_further_apart_each_time_and_not_in_step(waits, monkeypatch):
    client = JudgeClient("http://127.0.0.1:9", "wise", "", 1, 6, 1, 8)
    monkeypatch.setattr(JudgeClient, "_once", failing)
    with pytest.raises(EvaluationError, match=r"^the judge failed \(7 tries\): down$"):
        client.ask(["?"])
    assert waits == [2.25, 4.25, 8.25, 16.25, 30]  # the second try comes at once


def failing(self, question):
    raise judge_client._Failed("down")


@pytest.mark.parametrize(
    ("told", "waited"), [("3", [3]), ("soon", []), ("99999999", [600]), ("9" * 5000, [])]
)
def test_a_judge_says_when_to_ask_again(told, waited, waits, endpoint, opened):
    judge = endpoint(lambda question, calls: 429 if calls == 1 else '{"score": 5}')
    judge.retry_after = told
    assert opened(judge.url).score(scripted(says=str), [0]).tolist() == [5]
    assert waits == waited


def test_no_password_of_a_netrc_file_is_sent(endpoint, opened, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("MY_API_KEY", "mine")
    judge = endpoint(lambda question, calls: '{"score": 5}')
    opened(judge.url).score(scripted(says=str), [0])
    opened(judge.url, api_key_env="MY_API_KEY").score(scripted(says=str), [0])
    assert [sent.get("Authorization") for _, sent, _ in judge.requests] == [None, "Bearer mine"]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"base_url": "file:///etc/passwd"}, "base_url must start with http:// or https://, got"),
        ({"api_key_env": "HOME"}, "api_key_env must be a name that ends in API_KEY, got 'HOME'"),
        ({"low": 5, "high": 5}, "low must be below high, got 5 and 5"),
        ({"score_regex": "("}, r"score_regex '\(' is no regular expression"),
    ],
)
def test_settings_that_do_not_do_are_refused(settings, rule, opened):
    with pytest.raises(ParameterError, match=rule):
        opened(**{"url": "http://127.0.0.1:9", **settings})


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("timeout", 0, "must be above 0, got 0"),
        ("timeout", 1e300, "must be at most 3600, got 1e+300"),
        ("retries", 10**9, "must be at most 100, got 1000000000"),
        ("concurrency", 10**6, "must be at most 256, got 1000000"),
    ],
)
def test_settings_out_of_bounds_are_refused_with_the_file(key, value, rule):
    assert rule in [p.rule for p in EVALUATOR.problems({key: value}) if p.path == key]


def test_a_rubric_over_an_unknown_key_is_refused_at_opening(opened):
    with pytest.raises(EvaluationError, match=r"quiz.jsonl:1: rubric cannot be filled: 'wrong' is"):
        opened("http://127.0.0.1:9", rubric="{{ wrong }}")


def test_a_key_that_is_not_set_is_an_error(monkeypatch):
    monkeypatch.delenv("MY_API_KEY", raising=False)
    with pytest.raises(EvaluationError, match=r"environment variable MY_API_KEY .* is not set"):
        key_for("MY_API_KEY", "http://localhost")


@pytest.mark.parametrize("change", ["rubric", "model", "base_url", "score_key", "high"])
def test_fingerprint_changes_with(change, opened):
    url = "http://127.0.0.1:9"
    other = 5 if change == "high" else f"{url}/x"
    before = opened(url).fingerprint()
    assert opened(**{"url": url, change: other}).fingerprint() != before


@pytest.mark.parametrize("change", ["timeout", "retries", "concurrency"])
def test_fingerprint_does_not_change_with(change, opened):
    url = "http://127.0.0.1:9"
    assert opened(url, **{change: 2}).fingerprint() == opened(url).fingerprint()


def test_scores_are_between_what_the_judge_may_say(opened):
    quiz = opened("http://127.0.0.1:9", low=0, high=1)
    assert (quiz.bounds, quiz.binary) == ((0, 1), False)
