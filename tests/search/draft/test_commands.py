import json
import signal
import sys

import pytest

from search import cli
from tests.search.real import QUICKSTART


@pytest.fixture
def mergetune(monkeypatch, capsys, tmp_path):
    (tmp_path / "models").symlink_to(QUICKSTART / "models")
    (tmp_path / "tasks").symlink_to(QUICKSTART / "tasks")
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mergetune", *map(str, arguments)])
        before = signal.getsignal(signal.SIGINT)
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        signal.signal(signal.SIGINT, before)
        return (code, *capsys.readouterr())

    return call


INIT = ("init", "--base", "models/base", "models/add", "models/sort", "--file", "tasks/add.jsonl")


def test_init_says_what_it_wrote_and_what_comes_next(mergetune, tmp_path):
    code, out, err = mergetune(*INIT)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "study.yaml: written",
        "next: mergetune run study.yaml  (a search of 8 numbers, 100 trials)",
    ]
    assert mergetune("check", "study.yaml")[0] == 0
    code, _, err = mergetune(*INIT)
    assert code == 1
    assert err == "mergetune: study.yaml: exists and is left as it is; name another with --out\n"


def test_init_json_has_the_files_and_what_check_says(mergetune):
    code, out, _ = mergetune(*INIT, "--out", "first", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["files"] == ["first/study.yaml"]
    assert found["check"]["dimensions"] == 8
    assert found["warnings"] == []


def test_a_name_cannot_steer_the_terminal(mergetune, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"x\x1b[2J": "a", "y": "b"}))
    code, _, err = mergetune(*INIT[:-1], "q.jsonl")
    assert code == 1
    assert "x\\x1b[2J" in err
    assert "\x1b" not in err
