from __future__ import annotations

from pathlib import Path

import pytest

from search.spec.storage_url import filled, in_folder, masked, secrets

MEMORY = [
    *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?cache=shared"),
    *("sqlite:///file:x?mode=memory&uri=true", "sqlite+pysqlite://", "sqlite+pysqlite:///:memory:"),
    *("sqlite://?uri=true", "${EMPTY}sqlite://"),
]


@pytest.mark.parametrize("text", MEMORY)
def test_storage_in_memory_is_refused(text, monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ValueError, match="outlives the run, as in sqlite:///results"):
        filled(text)


@pytest.mark.parametrize(
    "text", ["y.db", "file::memory:", "postgresql", "://x", "sqlite:/x.db", " "]
)
def test_text_that_is_no_url_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"such as sqlite:///results/study\.db, got '"):
        filled(text)


@pytest.mark.parametrize("text", ["u:SECRET@host/db", "//u:SECRET@host", "${PW}"])
def test_refusal_names_no_secret(text, monkeypatch):
    monkeypatch.setenv("PW", "SECRET")
    with pytest.raises(ValueError, match="got another text") as refused:
        filled(text)
    assert "SECRET" not in str(refused.value)


def test_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("MISSING", raising=False)
    with pytest.raises(ValueError, match="environment variable MISSING is not set"):
        filled("postgresql://u:${MISSING}@h/db")


@pytest.mark.parametrize("password", ["plain", "p@s/s:w?o&r=d#%20 {x}", "${USER}", "ü"])
def test_variable_in_the_place_of_a_password_may_have_any_characters(password, monkeypatch):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("PW", password)
    url = sqlalchemy.make_url(filled("postgresql://u:${PW}@h:5432/db?a=b"))
    assert (url.password, url.host, url.port, url.database) == (password, "h", 5432, "db")


def test_variable_may_be_the_whole_url_or_a_folder(monkeypatch):
    monkeypatch.setenv("ALL", "postgresql://u:SECRET@h/db")
    monkeypatch.setenv("FOLDER", "/data/a b")
    assert filled("${ALL}") == "postgresql://u:SECRET@h/db"
    assert filled("sqlite:///${FOLDER}/x.db") == "sqlite:////data/a b/x.db"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://u:SECRET@h:5432/db", "postgresql+psycopg2://u:***@h:5432/db"),
        ("mysql://u:SEC@RE/T:x@h/db", "mysql://u:***@h/db"),
        ("postgresql://h/db?user=u&password=SECRET", "postgresql://h/db?user=***&password=***"),
        ("postgresql://u:${PW}@h/db?sslmode=${M}", "postgresql://u:${PW}@h/db?sslmode=${M}"),
        ("postgresql://u:SECRET${PW}@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("${ALL}", "${ALL}"),
        ("sqlite:////a:b@c/what?x=y.db", "sqlite:////a:b@c/what?x=y.db"),
    ],
)
def test_passwords_and_options_are_masked_but_names_of_variables_stay(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


def test_secrets_are_found_as_written_and_as_meant():
    assert set(secrets("postgresql://u:a%20b@h/db?token=T")) == {"a%20b", "a b", "T"}
    assert secrets("sqlite:////u:p@h?x=y") == []


@pytest.mark.parametrize("name", ["a%20b", "what?", "x{}", "#", "a b", "ü"])
def test_folder_of_any_name_keeps_its_name(name):
    folder = Path("/nowhere") / name
    assert in_folder("sqlite:///results/x.db", folder) == f"sqlite:///{folder}/results/x.db"
