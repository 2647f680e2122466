from __future__ import annotations

import os

import pytest

from evaluators.text import documents
from evaluators.text.documents import clusters_in, read_documents
from merge_core.errors import EvaluationError
from tests.evaluators.own_files import write_lines


def parquet(path, **columns):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_documents_of_a_text_file_are_parted_by_empty_lines(tmp_path):
    file = written(tmp_path, "d.txt", "\nfirst\nline\n\n second \n \t\n\n\nthird\n")
    assert read_documents(file, "text") == ("first\nline", " second ", "third")


def test_each_text_file_of_a_folder_is_a_document_whole(tmp_path):
    for name, text in (("b.txt", "two\n\nparts\n"), ("a.txt", "one"), ("c.md", "no")):
        written(tmp_path, name, text)
    assert read_documents(tmp_path, "text") == ("one", "two\n\nparts\n")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_each_row_is_a_document(kind, tmp_path):
    file = tmp_path / f"d.{kind}"
    if kind == "jsonl":
        write_lines(file, [{"body": "one", "n": 1}, {"body": "two\n\nparts", "n": 2}])
    else:
        parquet(file, body=["one", "two\n\nparts"], n=[1, 2])
    assert read_documents(file, "body") == ("one", "two\n\nparts")


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("d.txt", "", "d.txt, document 1: the document is empty; leave it out"),
        ("d.jsonl", '{"text": "x"}\n{"text": " \\n"}', "d.jsonl:2: the document is empty"),
        ("d.jsonl", '{"text": 5}', "d.jsonl:1: expected a text, got 5"),
        ("d.jsonl", '{"texts": ""}', "d.jsonl:1: no key 'text', did you mean 'texts'"),
        ("d.jsonl", '{"text": "\\ud800"}', "d.jsonl:1: cannot be read: half a surrogate pair"),
        ("d.parquet", "nonsense", "d.parquet cannot be read: "),
        ("d.csv", "x", r"d.csv: expected a folder of .txt files or a .txt, .jsonl or .parquet"),
    ],
)
def test_what_is_no_document_is_refused(name, content, rule, tmp_path):
    with pytest.raises(EvaluationError, match=rule):
        read_documents(written(tmp_path, name, content), "text")


@pytest.mark.parametrize("name", ["gone.txt", "gone.jsonl", "gone.parquet"])
def test_a_missing_file_is_refused(name, tmp_path):
    with pytest.raises(EvaluationError, match=f"{name}:? cannot be read"):
        read_documents(tmp_path / name, "text")


def test_a_folder_without_texts_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="has no documents"):
        read_documents(tmp_path, "text")


def test_an_unknown_column_is_answered_with_those_there_are(tmp_path):
    file = parquet(tmp_path / "d.parquet", texts=["x"], n=[1])
    with pytest.raises(EvaluationError, match=r"no column 'text', did you mean 'texts'.*texts, n"):
        read_documents(file, "text")


def test_a_small_file_of_very_long_texts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BYTES", 2**20)
    file = parquet(tmp_path / "d.parquet", text=["x" * 2**12] * 300)
    assert file.stat().st_size < 2**15
    with pytest.raises(EvaluationError, match=r"d.parquet cannot be read: more than 1048576"):
        read_documents(file, "text")


@pytest.mark.parametrize("name", ["d.txt", "d.jsonl", "d.parquet"])
def test_a_pipe_is_refused_without_waiting_for_it(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(EvaluationError, match=f"{name}:? cannot be read: not a regular file"):
        read_documents(tmp_path / name, "text")


@pytest.mark.parametrize("rows", [["x", None], ["x", ""]])
def test_a_row_without_text_is_refused(rows, tmp_path):
    with pytest.raises(EvaluationError, match=r"d.parquet, row 1: (expected a text|the document)"):
        read_documents(parquet(tmp_path / "d.parquet", text=rows), "text")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_belong_together_by_a_key_of_their_rows(kind, tmp_path):
    file = tmp_path / f"d.{kind}"
    if kind == "jsonl":
        write_lines(file, [{"text": t, "book": b} for t, b in zip("abc", "xyx", strict=True)])
    else:
        parquet(file, text=[*"abc"], book=[*"xyx"])
    one, two, three = clusters_in(file, "book").labels
    assert one == three != two
    assert clusters_in(file, None) is clusters_in(file, "none") is None
    with pytest.raises(EvaluationError, match=r"no (key|column) 'bok', did you mean 'book'"):
        clusters_in(file, "bok")


def test_texts_without_rows_have_no_keys(tmp_path):
    file = written(tmp_path, "d.txt", "one\n\ntwo")
    for path in (file, tmp_path):
        with pytest.raises(EvaluationError, match=r"cluster: 'book' is to be a key of its rows"):
            clusters_in(path, "book")
