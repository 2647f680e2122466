"""``STUDY#name``: which part of a word is a study's name, and which is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from merge_core.errors import ParameterError
from search.spec.study_name import split


@pytest.mark.parametrize(
    ("study", "found"),
    [
        ("study.yaml", ("study.yaml", None)),
        ("study.yaml#a", ("study.yaml", "a")),
        ("study.yaml#a b (set aside 1)", ("study.yaml", "a b (set aside 1)")),
        ("sqlite:///results/study.db#a/b@c", ("sqlite:///results/study.db", "a/b@c")),
        ("sqlite:///study.db?timeout=3#a", ("sqlite:///study.db?timeout=3", "a")),
        ("journal:///x.log#a", ("journal:///x.log", "a")),
        ("grpc://host:13000#a", ("grpc://host:13000", "a")),
        ("postgresql://u:p#w@host/db", ("postgresql://u:p#w@host/db", None)),
        ("postgresql://u:p#w@host/db#a#b", ("postgresql://u:p#w@host/db", "a#b")),
        ("mysql://u:${PASSWORD}@host/db#a", ("mysql://u:${PASSWORD}@host/db", "a")),
    ],
)
def test_what_follows_the_mark_is_a_name(study: str, found: tuple[str, str | None]) -> None:
    assert split(study) == found


def test_a_file_that_is_there_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a#b", "c"):
        Path(name).touch()
    assert split("a#b") == ("a#b", None)
    assert split("a#b#x#y") == ("a#b", "x#y")
    assert split("c#x#y") == ("c", "x#y")
    assert split("sqlite:///a#b") == ("sqlite:///a#b", None)
    assert split("sqlite:///a#b#x") == ("sqlite:///a#b", "x")


def test_two_names_are_one_or_an_error() -> None:
    assert split("s.yaml#a", "a") == ("s.yaml", "a")
    assert split("s.yaml", "a") == ("s.yaml", "a")
    with pytest.raises(ParameterError, match="called 'a' after # and 'b' by --name"):
        split("s.yaml#a", "b")
    with pytest.raises(ParameterError, match=r"s\.yaml#: expected the name of a study"):
        split("s.yaml# ")
