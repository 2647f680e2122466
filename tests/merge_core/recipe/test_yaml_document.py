from pathlib import Path

import pytest

from merge_core.errors import DocumentError, MergeError
from merge_core.recipe import yaml_document


def parse(text):
    return yaml_document.parse(text, "f.yaml")


def message(text):
    with pytest.raises(DocumentError, match=r"f\.yaml:\d+: ") as caught:
        parse(text)
    return str(caught.value)


def test_data_is_plain_and_every_key_path_has_its_line():
    found = parse("a:\n  b: [1, x]\nlist:\n  - k: true\n  - k: null\n")
    assert found.data == {"a": {"b": [1, "x"]}, "list": [{"k": True}, {"k": None}]}
    assert found.lines["a.b"] == 2
    assert found.lines["list[1]"] == 5
    assert found.line("list[1].k") == 5


def test_line_of_a_path_that_is_not_there_is_that_of_its_nearest_parent():
    found = parse("a: 1\nb:\n  c:\n    - d: 1\n")
    assert found.line("b.c[0].missing[3].deep") == 4
    assert found.line("b.c[9]") == 3
    assert found.line("nowhere") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1E+4", -1e4),
        ("+.5e3", 500.0),
        ("2.e1", 20.0),
        ("'1e-4'", "1e-4"),
        ("1e-4x", "1e-4x"),
        ("0.5", 0.5),
        ("7", 7),
        ("'12:30'", "12:30"),
        ("a/b:c", "a/b:c"),
        ("12:99", "12:99"),
        ("true", True),
        ("~", None),
    ],
)
def test_scalar_is_what_was_meant(text, value):
    read = parse(f"a: {text}").data["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["12:30", "-1:2:3", "0:30", "190:20:30.15"])
def test_base_60_number_is_refused(text):
    rule = f"{text} is a base-60 number in YAML; quote it or write a decimal"
    assert message(f"x: 1\na:\n  - {text}\n") == f"f.yaml:3: a[0]: {rule}"


def test_repeated_key_is_refused_with_both_lines():
    text = "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n"
    assert message(text) == "f.yaml:5: b.c: repeated key, it stands first in line 3"


def test_keys_that_differ_only_in_quotes_are_the_same_key():
    assert "f.yaml:2: a: repeated key, it stands first in line 1" in message("a: 1\n'a': 2\n")


def test_merge_key_and_key_that_is_no_text_are_refused_both_at_once():
    text = "x: &x {a: 1}\ny:\n  <<: *x\n? [1, 2]\n: z\n"
    rule = "keys must be plain text; merge keys are not read"
    assert message(text) == f"f.yaml:3: y.<<: {rule}\nf.yaml:4: (file): {rule}"


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("a: [1", 1, "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2", 2, "not YAML: found character '\\t' that cannot start any token"),
        ("a: 1\nb: *x", 2, "not YAML: found undefined alias 'x'"),
        (
            "a: \x00",
            1,
            "not YAML: unacceptable character #x0000: special characters are not allowed",
        ),
        ("", 1, "expected one YAML document, got 0"),
        ("# nothing\n", 1, "expected one YAML document, got 0"),
        ("a: 1\n---\nb: 1\n", 1, "expected one YAML document, got 2"),
        ("a: &x [*x]", 1, "nested too deeply, or an alias that holds itself"),
        ("[" * 1000, 1, "nested too deeply, or an alias that holds itself"),
    ],
)
def test_text_that_is_not_one_yaml_document_is_refused(text, line, rule):
    assert message(text) == f"f.yaml:{line}: (file): {rule}"


@pytest.mark.parametrize(
    "text", ["!!python/object:os.system x", "2001-99-01", "!!int x", "!!bool x"]
)
def test_scalar_that_cannot_be_read_is_a_problem_not_a_crash(text):
    assert message(f"x: 1\na: {text}").startswith("f.yaml:2: a: cannot be read: ")


def test_alias_is_the_value_it_stands_for():
    assert parse("a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}


def test_fail_names_each_problem_once_and_nothing_without_problems():
    found = parse("a: 1\nb: 2\n")
    found.fail([])
    with pytest.raises(DocumentError, match=r"^f\.yaml:2: b: bad$"):
        found.fail([("b", "bad"), ("b", "bad")])


@pytest.mark.parametrize("make", ["missing", "folder", "latin-1"])
def test_file_that_cannot_be_read_is_named(tmp_path, make):
    path = tmp_path / "r.yaml"
    if make == "folder":
        path.mkdir()
    if make == "latin-1":
        path.write_bytes("a: \u00e4".encode("latin-1"))
    with pytest.raises(MergeError, match=r"r\.yaml: cannot be read: "):
        yaml_document.read(path)


def test_file_is_named_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text("\ufeffa: \u00e4\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = yaml_document.read(Path("r.yaml"))
    assert (found.file, found.data) == ("r.yaml", {"a": "\u00e4"})
